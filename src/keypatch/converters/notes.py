"""What a conversion has to tell: what was given and is not used, and what a person should know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike


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
    """What there is to say while sources are read and patches are planned, in the order of events.

    What has the same reason, or the same text, is told once, with all that it is about: a data set of a thousand
    volumes says as much as one of two.
    """

    def __init__(self, left_out: Iterable[Omission] = (), warnings: Iterable[str] = ()) -> None:
        self._left_out: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self._warnings: dict[str, list[str]] = {}
        for omission in left_out:
            self.omit(omission.what, omission.reason, omission.items, omission.count)
        for warning in warnings:
            self._warnings[warning] = []

    @property
    def left_out(self) -> tuple[Omission, ...]:
        """All that was left out, an entry a reason."""
        return tuple(
            Omission(what, reason, count, tuple(items)) for (what, reason), (count, items) in self._left_out.items()
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line a text, with what it is about before it."""
        return tuple(f"{some(where)}: {text}" if where else text for text, where in self._warnings.items())

    def omit(self, what: str, reason: str, items: Iterable[str], count: int | None = None) -> None:
        """Note things left out, if there are any; ``count`` where an item stands for several."""
        listed = list(items)
        if listed:
            before, others = self._left_out.get((what, reason), (0, []))
            others.extend(listed)
            self._left_out[what, reason] = (before + (len(listed) if count is None else count), others)

    def warn(self, where: str, text: str) -> None:
        """Note what a person should know. Notes go into the store: no absolute path may be in them."""
        about = self._warnings.setdefault(text, [])
        if where not in about and not text.startswith(where):
            about.append(where)


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first few names and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def point(coords: ArrayLike) -> str:
    """``(12.5, 3, 40)`` of (3,) coordinates."""
    return "(" + ", ".join(f"{float(value):.6g}" for value in np.asarray(coords)) + ")"


def row_items(file: str, rows: Iterable[Any]) -> list[str]:
    """Rows of a file as items of an `Omission`."""
    return [f"{file} row {int(row)}" for row in rows]
