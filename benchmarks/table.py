"""The one table that a benchmark prints: its rows, its settings, and what it was measured on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import traceback
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PACKAGES = (
    "keypatch",
    "numpy",
    "numcodecs",
    "zarr",
    "tensorstore",
    "zarrs",
    "blosc2",
    "h5py",
    "torch",
    "monai",
    "torchio",
    "albumentations",
    "simpleitk",
    "numba",
)

CONDITIONS = (
    "Page cache warm: sources and stores were read once before. Output folders new for each repeat. "
    "Repeats interleaved."
)

MARK = "<!-- measured -->"
"""Of a page: what stands below it is written by `measure`."""


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        part: Of the benchmark, such as "convert".
        case: What was done, such as "uint8, codec none".
        who: Did it.
        value: Median.
        unit: Of ``value``, ``low`` and ``high``.
        low: Least.
        high: Greatest.
        n: Repeats.
        ratio: How many times as good as this one keypatch is (above 1: quicker, smaller); None on keypatch's own rows.
        wanted: Least ratio that is good enough; None where none was set.
        note: What else must be known.
    """

    part: str
    case: str
    who: str
    value: float
    unit: str
    low: float
    high: float
    n: int
    ratio: float | None = None
    wanted: float | None = None
    note: str = ""

    @property
    def falls_short(self) -> bool:
        """Whether the ratio is below what is wanted."""
        return self.ratio is not None and self.wanted is not None and self.ratio < self.wanted


def row(
    part: str,
    case: str,
    who: str,
    values: Sequence[float],
    unit: str,
    *,
    ratio: float | None = None,
    wanted: float | None = None,
    note: str = "",
) -> Row:
    """A `Row` of the repeats of one measurement."""
    middle = statistics.median(values)
    return Row(part, case, who, middle, unit, min(values), max(values), len(values), ratio, wanted, note)


@dataclass
class Settings:
    """What a part is told.

    Attributes:
        folder: To work in; its disk is the one that is measured.
        quick: A few minutes for all parts together, with few repeats; else about half an hour.
        skipped: Filled by the parts: peers that are not there.
    """

    folder: Path
    quick: bool
    skipped: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Tell the person what is going on."""
        print(text, file=sys.stderr, flush=True)

    def skip(self, peer: str, why: str) -> None:
        """Leave out a peer, and say so once."""
        line = f"skipped: {peer} ({why})"
        if line not in self.skipped:
            self.skipped.append(line)
            self.say(line)

    def has(self, *modules: str, peer: str) -> bool:
        """Whether the distributions a peer needs are installed; skips it where not."""
        missing = [name for name in modules if version_of(name) is None]
        if missing:
            self.skip(peer, f"{', '.join(missing)} not installed; pip install '.[bench]'")
        return not missing

    def fresh(self, name: str) -> Path:
        """An empty folder of this name."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


def version_of(distribution: str) -> str | None:
    """Installed version; None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def machine_card(folder: Path) -> str:
    """Processor, cores, memory, file system, Python and libraries, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {found}" for name in PACKAGES if (found := version_of(name)))
    memory = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    system = f"{platform.system()} {platform.release()}"
    python = f"Python {platform.python_version()}"
    return ", ".join([_processor(), f"{cores} cores", memory, _file_system(folder), system, python, versions])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    name, family, model = (fields.get(key, "?").strip() for key in ("model name", "cpu family", "model"))
    return f"{name} (family {family}, model {model})"


def _file_system(folder: Path) -> str:
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "unknown file system"
    below = [fields for fields in mounts if folder.resolve().is_relative_to(fields[1])]
    return max(below, key=lambda fields: len(fields[1]))[2] if below else "unknown file system"


def as_text(rows: Iterable[Row]) -> str:
    """The table, one line a row."""
    cells: list[tuple[str, ...]] = [
        ("part", "case", "who", "median", "least … most", "n", "keypatch is", "wanted", "note")
    ]
    cells += [_cells(one) for one in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _cells(one: Row) -> tuple[str, ...]:
    ratio = "" if one.ratio is None else f"{one.ratio:.2f}x" if one.ratio < 1000 else f"{one.ratio:,.0f}x"
    wanted = "" if one.wanted is None else f"{one.wanted:g}x {'SHORT' if one.falls_short else 'ok'}"
    spread = "" if one.n == 1 else f"{_number(one.low)} … {_number(one.high)}"
    return one.part, one.case, one.who, f"{_number(one.value)} {one.unit}", spread, str(one.n), ratio, wanted, one.note


def as_markdown(rows: Sequence[Row], about: Sequence[str]) -> str:
    """The same as a page of tables, one a case, below lines that say what it was measured on."""
    lines = [f"{line}\n" for line in about]
    for part, case in dict.fromkeys((one.part, one.case) for one in rows):
        lines += [
            f"**{part}**: {case}\n",
            "| who | median | least … most | keypatch is | wanted | note |",
            "|" + "---|" * 6,
        ]
        for one in rows:
            if (one.part, one.case) == (part, case):
                _, _, who, median, spread, _, ratio, wanted, note = _cells(one)
                lines.append(f"| {who} | {median} | {spread} | {ratio} | {wanted} | {note} |")
        lines.append("")
    return "\n".join(lines)


def write_below(path: Path, mark: str, text: str) -> None:
    """Replace all that stands behind a line of a page.

    Raises:
        ValueError: If the page has no such line.
    """
    above, found, _ = path.read_text(encoding="utf-8").partition(f"{mark}\n")
    if not found:
        message = f"{path} has no line {mark}"
        raise ValueError(message)
    path.write_text(f"{above}{mark}\n\n{text}", encoding="utf-8")


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def measure(parts: Sequence[tuple[str, Callable[[Settings], list[Row]]]], about: str) -> None:
    """Run parts as a command line asks for it, print the table and write it as JSON.

    Args:
        parts: Their names and what runs them.
        about: Shown by ``--help``.
    """
    names = [name for name, _ in parts]
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases: a few minutes, not half an hour")
    parser.add_argument(
        "--folder", type=Path, default=None, help="on the disk to measure  [the system's temporary one]"
    )
    parser.add_argument("--page", type=Path, default=None, help=f"put the table into this page, below {MARK}")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="for the table  [bench.json]")
    if len(parts) > 1:
        parser.add_argument("--only", choices=names, action="append", help="run this part only; repeatable")
    given = parser.parse_args()
    chosen = getattr(given, "only", None) or names
    with tempfile.TemporaryDirectory(prefix="keypatch-bench-", dir=given.folder) as folder:
        settings = Settings(Path(folder), given.quick)
        card = machine_card(Path(folder))
        rows: list[Row] = []
        failed = []
        for name, run in parts:
            if name in chosen:
                settings.say(f"{name} …")
                try:
                    rows += run(settings)
                except Exception:  # half an hour of the other parts is not to be lost
                    traceback.print_exc()
                    failed.append(name)
    print(card)
    print(CONDITIONS)
    print(as_text(rows))
    for line in settings.skipped:
        print(line)
    if given.page is not None:
        write_below(given.page, MARK, as_markdown(rows, [card + ".", CONDITIONS, *settings.skipped]))
    text = json.dumps(_as_json(card, given, rows, settings), indent=1, ensure_ascii=False)
    given.json.write_text(text + "\n", encoding="utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _as_json(card: str, given: argparse.Namespace, rows: Iterable[Row], settings: Settings) -> dict[str, Any]:
    rounded = [asdict(one) | {"falls_short": one.falls_short} for one in rows]
    return {
        "machine": card,
        "quick": given.quick,
        "conditions": CONDITIONS,
        "skipped": settings.skipped,
        "rows": rounded,
    }
