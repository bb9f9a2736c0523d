"""Timing things side by side: interleaved repeats, so that a slow minute of the machine is everybody's."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_BLOCK = 2**22


@dataclass(frozen=True)
class Contender:
    """Somebody who is timed.

    Attributes:
        name: In the table.
        run: The work. A number that it returns is the seconds that it measured itself, where a part of the work must
            not count (a peer's imports).
        prepare: Called before each repeat, outside the clock.
    """

    name: str
    run: Callable[[], float | None]
    prepare: Callable[[], object] = lambda: None


def interleaved(contenders: Iterable[Contender], repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat of each contender, taken in the order A B C, A B C."""
    everybody = list(contenders)
    seconds: dict[str, list[float]] = {one.name: [] for one in everybody}
    for _ in range(repeats):
        for one in everybody:
            one.prepare()
            start = time.perf_counter()
            own = one.run()
            elapsed = time.perf_counter() - start
            seconds[one.name].append(elapsed if own is None else own)
    return seconds


def settle() -> None:
    """Let the disk finish what others left it to write."""
    os.sync()


def warm(folder: Path) -> None:
    """Read every file once, so that all contenders find them in the page cache."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        if path.is_file():
            with path.open("rb") as file:
                while file.read(_BLOCK):
                    pass
