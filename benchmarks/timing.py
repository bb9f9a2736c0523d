"""Timing things side by side: interleaved repeats, so that a slow minute of the machine is everybody's."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_BLOCK = 2**22
_REPORTS_FREE_PAGES = Path("/sys/module/page_reporting")
_SECONDS_TO_REPORT = 3.0


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


class Spent(NamedTuple):
    """What one repeat took.

    Attributes:
        seconds: By the clock.
        processor: Seconds of all processors together.
    """

    seconds: float
    processor: float


def interleaved(contenders: Iterable[Contender], repeats: int, processes: Iterable[int] = ()) -> dict[str, list[Spent]]:
    """Each repeat of each contender, taken in the order A B C, A B C.

    Args:
        contenders: They take turns.
        repeats: Of each.
        processes: Their processor time counts, beside that of this process and its children that end.
    """
    everybody, others = list(contenders), list(processes)
    spent: dict[str, list[Spent]] = {one.name: [] for one in everybody}
    for _ in range(repeats):
        for one in everybody:
            one.prepare()
            busy, start = processor_seconds(others), time.perf_counter()
            own = one.run()
            elapsed = time.perf_counter() - start
            spent[one.name].append(Spent(elapsed if own is None else own, processor_seconds(others) - busy))
    return spent


def processor_seconds(processes: Iterable[int] = ()) -> float:
    """Processor time so far of this process, of its children that ended, and of these other processes.

    Unlike the clock it hardly depends on what else the machine does. 0 is added where a system has no /proc.
    """
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system + sum(map(_seconds_of, processes))


def _seconds_of(process: int) -> float:
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    user, system = text.rpartition(")")[2].split()[11:13]  # proc(5): fields 14 and 15
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def settle() -> None:
    """Bring disk and memory into one state for whoever comes next.

    The disk finishes what others left it to write. In a virtual machine that reports its free pages, the host takes
    back what was free for a second or so, and the first touch of such a page costs ten times as much (writing 53 MB
    took 140 ms of processor time, not 15): without the wait, who starts quickest after a deletion wins.
    """
    os.sync()
    if _REPORTS_FREE_PAGES.exists():
        time.sleep(_SECONDS_TO_REPORT)


def warm(folder: Path) -> None:
    """Read every file once, so that all contenders find them in the page cache."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        if path.is_file():
            with path.open("rb") as file:
                while file.read(_BLOCK):
                    pass
