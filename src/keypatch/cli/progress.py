"""The bar that says how far a command is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keypatch.cli import printing

if TYPE_CHECKING:
    from tqdm import tqdm

_UNITS: Final = {"measure": "volume", "write": "patch", "check": "shard", "repair": "shard"}


class Bar:
    """Draws progress on a terminal's stderr, and nothing elsewhere."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def start(self, what: str, total: int, done: int = 0) -> None:
        """A stage begins; see `keypatch.converters.build.Progress`."""
        from tqdm import tqdm

        self.close()
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=what,
            unit=f" {_UNITS[what]}",
            disable=not printing.on_terminal(),
            leave=False,
        )

    def step(self, n: int = 1) -> None:
        """So many steps are done."""
        if self._bar is not None:
            self._bar.update(n)

    def close(self) -> None:
        """Wipe it away."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
