"""Damage the small real files at random and read them: never a traceback, a hang, much memory or another file.

    python tests/soak/mutate_sources.py [--times 10000] [--seed 0] [--only TEXT]

Every file of the real data of at most 200 kB that keypatch reads is copied with its neighbours, one of them is changed
(bits flipped, bytes changed, cut out, doubled or inserted, the end cut off, a number in a text replaced by an extreme
one, two parts swapped), and it is read whole, as a volume or as annotations. Each process reads with a gigabyte more
memory than it begins with, and keeps a list of all that is opened: reading anything but the copy is told.

Prints how often a change was harmless and how often it was refused. Each failure is printed with what repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

LARGEST = 200_000
"""Bytes of a file that is changed: 10 000 changes of larger ones take too long."""

PATIENCE = 20
"""Seconds for one file; an undamaged one takes milliseconds."""

MEMORY = 2**30
"""Bytes more than a process has at its start."""

EXTREMES = [
    b"-1",
    b"0",
    b"1e308",
    b"-1e308",
    b"nan",
    b"inf",
    b"99999999999999999999",
    b"4294967296",
    b"2147483648",
    b"x",
]

BINARY_EXTREMES = [
    number.to_bytes(width, order, signed=True)
    for number in (-1, 0, 1, 2**31 - 1, -(2**31))
    for width in (4, 8)
    for order in ("little", "big")
]


@dataclass(frozen=True)
class Source:
    """Something that keypatch reads.

    Attributes:
        path: Of the file or folder that is opened.
        kind: "volume" or "annotations".
        beside: What is copied along: the folder that it lies in, or itself.
        files: Which of them are changed.
    """

    path: Path
    kind: str
    beside: Path
    files: tuple[Path, ...]


opened: list[str] = []
watching = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if watching and event == "open" and isinstance(arguments[0], (str, bytes)):
        opened.append(os.fsdecode(arguments[0]))


def _begin(undamaged: list[Source]) -> None:
    """Load what the readers need, so that the limit is for the files alone."""
    for source in undamaged:
        read(source.path, source.kind)
    sys.addaudithook(_watch)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    limit = int(status["VmData"].split()[0]) * 1024 + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    signal.signal(signal.SIGALRM, _too_long)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"{PATIENCE} seconds")


def read(path: Path, kind: str) -> None:
    """Read all of it, as a build would."""
    from keypatch.formats.annotations import read_annotations
    from keypatch.formats.volumes import open_volume

    if kind == "annotations":
        read_annotations(path)
        return
    with open_volume(path) as volume:
        shape = volume.info.shape
        stop = tuple(min(n, 64) for n in shape)
        volume.read((0, 0, 0), stop)
        volume.read(tuple(n - s for n, s in zip(shape, stop, strict=True)), shape)


def sources(folder: Path) -> list[Source]:
    """Everything in the real data that is read without damage."""
    found = []
    for path in sorted(folder.rglob("*")):
        is_zarr = path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs"))
        inside_zarr = any(part.endswith(".zarr") or part.startswith("neuroglancer") for part in path.parts[:-1])
        if path.name == "INDEX.md" or inside_zarr or (path.is_dir() and not is_zarr):
            continue
        beside = path if path.is_dir() else path.parent
        small = [one for one in sorted(beside.rglob("*")) if one.is_file() and one.stat().st_size <= LARGEST]
        files = tuple(small) if path.is_dir() else tuple(one for one in small if _belongs(one, path))
        kinds = ("volume", "annotations") if files else ()
        found += [Source(path, kind, beside, files) for kind in kinds if _reads(path, kind)]
    return found


def _belongs(file: Path, path: Path) -> bool:
    """The file itself, and the data file of a header."""
    return file == path or (file.stem.split(".")[0] == path.stem.split(".")[0] and file.parent == path.parent)


def _reads(path: Path, kind: str) -> bool:
    from keypatch.errors import KeypatchError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(path, kind)
        except KeypatchError:
            return False
    return True


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One change, most of them where headers are."""
    if not content:
        return b"x"
    data = bytearray(content)
    limit = len(data) if draw.random() < 0.4 else min(len(data), 1024)
    draw.choice(CHANGES)(data, draw, draw.randrange(limit), limit)
    return bytes(data)


def _some(draw: random.Random) -> int:
    return draw.choice((1, 2, 4, 16, 200))


def _flip(data: bytearray, draw: random.Random, _: int, limit: int) -> None:
    for _ in range(draw.choice((1, 1, 3, 20))):
        data[draw.randrange(limit)] ^= 1 << draw.randrange(8)


def _replace(data: bytearray, draw: random.Random, at: int, _: int) -> None:
    n = _some(draw)
    data[at : at + n] = draw.randbytes(n)


def _cut_out(data: bytearray, draw: random.Random, at: int, _: int) -> None:
    del data[at : at + _some(draw)]


def _insert(data: bytearray, draw: random.Random, at: int, _: int) -> None:
    data[at:at] = draw.randbytes(_some(draw))


def _double(data: bytearray, draw: random.Random, at: int, _: int) -> None:
    data[at:at] = data[at : at + _some(draw)] * draw.choice((1, 2, 50))


def _cut_off(data: bytearray, draw: random.Random, _: int, __: int) -> None:
    del data[draw.randrange(len(data)) :]


def _extreme_binary(data: bytearray, draw: random.Random, at: int, _: int) -> None:
    extreme = draw.choice(BINARY_EXTREMES)
    data[at - at % 4 : at - at % 4 + len(extreme)] = extreme


def _extreme_text(data: bytearray, draw: random.Random, _: int, __: int) -> None:
    numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", bytes(data[:4096])))
    if numbers:
        number = draw.choice(numbers)
        data[number.start() : number.end()] = draw.choice(EXTREMES)


def _swap(data: bytearray, draw: random.Random, at: int, limit: int) -> None:
    n, other = _some(draw), draw.randrange(limit)
    first, second = bytes(data[at : at + n]), bytes(data[other : other + n])
    data[at : at + n], data[other : other + n] = second, first


CHANGES = (_flip, _replace, _cut_out, _insert, _double, _cut_off, _extreme_binary, _extreme_text, _swap)


def attempt(source: Source, seed: int) -> tuple[str, str]:
    """Change and read once: "harmless" or "refused", or what is wrong, and with what."""
    from keypatch.errors import KeypatchError

    global watching  # noqa: PLW0603 - the audit hook cannot be taken off
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / source.beside.name
        if source.path.is_dir():
            shutil.copytree(source.beside, copy)
        else:
            copy.mkdir()
            for file in source.files:
                shutil.copy(file, copy / file.name)
        victim = copy / draw.choice(source.files).relative_to(source.beside)
        victim = victim if not victim.is_symlink() else victim.resolve()
        victim.write_bytes(mutated(victim.read_bytes(), draw))
        path = copy if source.path.is_dir() else copy / source.path.name
        opened.clear()
        signal.alarm(PATIENCE)
        watching = True
        try:
            with warnings.catch_warnings(record=True) as leaked:
                warnings.simplefilter("always")
                read(path, source.kind)
            result = ("a warning leaks", str(leaked[0].message)) if leaked else ("harmless", "")
        except KeypatchError as error:
            result = _judged(error)
        except MemoryError as error:
            result = ("more than a gigabyte", repr(error))
        except TimeoutError as error:
            result = ("a hang", str(error))
        except Exception as error:
            result = ("a traceback", f"{type(error).__name__}: {error}"[:300])
        finally:
            watching = False
            signal.alarm(0)
        strangers = [name for name in opened if _is_strange(name, Path(temporary))]
        return ("another file is read", ", ".join(strangers)) if strangers else result


def _judged(error: Exception) -> tuple[str, str]:
    text = str(error)
    if "MemoryError" in text or "Unable to allocate" in text:
        return "more than a gigabyte", text[:300]
    if "TimeoutError" in text:
        return "a hang", text[:300]
    if "\n" in text:
        return "more than one line", text[:300]
    return "refused", ""


def _is_strange(name: str, folder: Path) -> bool:
    """Whether an opened file is neither of the copy nor one that Python and its libraries open."""
    with contextlib.suppress(OSError, ValueError):
        path = Path(name).resolve()
        known = [
            folder.resolve(),
            Path(sys.prefix).resolve(),
            Path(sys.base_prefix).resolve(),
            *map(Path, sys.path[1:]),
        ]
        known += [
            Path("/proc"),
            Path("/sys"),
            Path("/dev/null"),
            Path("/dev/urandom"),
            Path("/usr"),
            Path("/lib"),
            Path("/etc/ld"),
        ]
        return not any(path.is_relative_to(one) for one in known if str(one) not in ("", "."))
    return False


def batch(source: Source, seeds: list[int]) -> list[tuple[int, str, str]]:
    """Several attempts in one process."""
    return [(seed, *attempt(source, seed)) for seed in seeds]


def main() -> None:
    """Run the rounds and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="Only sources whose path has this text.")
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parents[2]
    data = Path(os.environ.get("KEYPATCH_TEST_DATA", here.parent / "shared" / "data"))
    found = [source for source in sources(data) if arguments.only in str(source.path)]
    if not found:
        sys.exit(f"no real files at {data}; set KEYPATCH_TEST_DATA")
    begin, counts, failures = time.monotonic(), Counter[str](), []
    shares: dict[int, list[int]] = {k: [] for k in range(len(found))}
    for number in range(arguments.times):
        shares[number % len(found)].append(arguments.seed * 1_000_003 + number)
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_begin, initargs=(found,)) as pool:
        waiting = {
            pool.submit(batch, found[k], seeds[at : at + 20]): found[k]
            for k, seeds in shares.items()
            for at in range(0, len(seeds), 20)
        }
        for future, source in waiting.items():
            for seed, verdict, detail in future.result():
                counts[verdict] += 1
                if verdict not in ("harmless", "refused"):
                    failures.append(
                        f"{source.path.relative_to(data)} ({source.kind}), seed {seed}: {verdict}: {detail}"
                    )
    print("\n".join(failures[:50]))
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
    print(f"{arguments.times} changes of {len(found)} sources in {time.monotonic() - begin:.0f} s: {told}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
