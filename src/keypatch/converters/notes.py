"""What a conversion has to tell: what was given and is not used, and what a person should know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Omission:
    """Something that was given and is not used; the ``left_out`` of a store's report.

    Attributes:
        what: "volumes", "annotations" or "patches".
        reason: One phrase.
        count: How many.
        items: Which ones: paths, or rows of a file.
    """

    what: str
    reason: str
    count: int
    items: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As it lies in the store."""
        return {"what": self.what, "reason": self.reason, "count": self.count, "items": list(self.items)}


class Notes:
    """What there is to say while sources are read and patches are planned, in the order of events."""

    def __init__(self, left_out: list[Omission] | None = None, warnings: list[str] | None = None) -> None:
        self.left_out = left_out or []
        self.warnings = warnings or []

    def omit(self, what: str, reason: str, items: Sequence[str], count: int | None = None) -> None:
        """Note things left out, if there are any; ``count`` where an item stands for several."""
        if items:
            self.left_out.append(Omission(what, reason, len(items) if count is None else count, tuple(items)))

    def warn(self, where: str | Path, text: str) -> None:
        """Note what a person should know. Of a path only its name is kept: notes go into the store."""
        name = where.name if isinstance(where, Path) else where
        self.warnings.append(text if text.startswith(name) else f"{name}: {text}")


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first few names and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def row_items(path: Path, rows: Iterable[Any]) -> list[str]:
    """Rows of a file as items of an `Omission`."""
    return [f"{path.name} row {int(row)}" for row in rows]
