"""Reading patches and windows at random, against other libraries and other formats.

    python benchmarks/read_patches.py [--quick]

All on one thread, page cache warm, default codec, crc32c checked (by keypatch and the Zarr libraries; the other formats
have none). Every read is timed alone, the readers take turns at each of them, and each reader's arrays are compared
with the source's before the clock starts.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import keypatch
from peers import BLOSC2, OTHERS, WHOLE, ZARR_LIBRARIES, Box, Peer, Read, available
from table import Row, Settings, measure, row
from timing import Contender, interleaved, warm
from tomograms import SPACING, write_picks, write_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from keypatch import Store

PART = "read"
OURS, REUSED = "keypatch", "keypatch, out="
WANTED = {"zarr-python": 2.0, "tensorstore": 1.0, "blosc2, nnU-Net 2.8": 1.3, "blosc2, nnU-Net 2.6": 1.3}
PATCH_OF_WINDOWS, WINDOW, WINDOW_CHUNK = (160, 160, 160), 64, (40, 40, 40)
WANTED_WINDOW = 3.0


@dataclass(frozen=True)
class Case:
    """Patches that are read."""

    patch_shape: tuple[int, int, int]
    dtype: str
    n_patches: int

    @property
    def name(self) -> str:
        """In the table."""
        return f"{'x'.join(map(str, self.patch_shape))} {self.dtype}"


def run(settings: Settings) -> list[Row]:
    """Whole patches, then windows."""
    _one_thread()
    small, large, rounds, n_windows = (8, 4, 2, 30) if settings.quick else (48, 12, 5, 200)
    cases = [Case((128, 128, 128), "uint8", small), Case((128, 128, 128), "float32", small // 2)]
    cases.append(Case((160, 288, 288), "uint8", large))
    if not settings.quick:
        cases.append(Case((160, 288, 288), "float32", large // 2))
    rows: list[Row] = []
    for case in cases:
        rows += _whole(settings, case, rounds)
    for dtype in ("uint8", "float32"):
        rows += _windows(settings, Case(PATCH_OF_WINDOWS, dtype, small), n_windows)
    return rows


def _one_thread() -> None:
    """Blosc of numcodecs, which keypatch and zarr-python decode with, takes more threads in a program's main thread."""
    from numcodecs import blosc

    blosc.set_nthreads(1)


def _whole(settings: Settings, case: Case, rounds: int) -> list[Row]:
    settings.say(f"  whole patches, {case.name}")
    work = settings.fresh("reads")
    store = keypatch.open(_make_store(work, case))
    patches = _reference(work, store)
    peers = list(available((*ZARR_LIBRARIES, *BLOSC2, *OTHERS), settings))
    same = np.empty(store.patch_shape, patches[0].dtype)
    readers: dict[str, Read] = {OURS: _ours(store), REUSED: lambda i, box=WHOLE: store.read_image(i, out=same)[box]}
    readers |= _open(peers, work, store, patches)
    warm(work)
    for name, read in readers.items():
        for i, patch in enumerate(patches):
            _demand_equal(read(i), patch, f"{case.name}: {name} reads another patch {i}")
    order = np.random.default_rng(0).permutation(np.tile(np.arange(case.n_patches), rounds))
    times = _in_turn(readers, [(int(i), WHOLE) for i in order])
    return _rows(f"whole patch, {case.name}", times, _notes(peers, work, store), WANTED)


def _windows(settings: Settings, case: Case, n_windows: int) -> list[Row]:
    settings.say(f"  windows, {case.name}")
    work = settings.fresh("reads")
    default = keypatch.open(_make_store(work, case))
    finer = keypatch.open(_make_store(work, case, chunk_shape=",".join(map(str, WINDOW_CHUNK)), out="finer.zarr"))
    patches = _reference(work, default)
    whole = "keypatch, whole patch of the default store"
    peers = list(available((*ZARR_LIBRARIES, *BLOSC2), settings))
    readers = {OURS: _ours(finer), whole: lambda i, box=WHOLE: default.read_image(i)[box]}
    readers |= _open(peers, work, finer, patches)
    warm(work)
    rng = np.random.default_rng(0)
    wanted_boxes: list[tuple[int, Box]] = []
    for i in rng.integers(0, case.n_patches, n_windows).tolist():
        z, y, x = (slice(int(at), int(at) + WINDOW) for at in rng.integers(0, case.patch_shape[0] - WINDOW + 1, 3))
        wanted_boxes.append((i, (z, y, x)))
    for name, read in readers.items():
        for i, box in wanted_boxes[:20]:
            _demand_equal(read(i, box), patches[i][box], f"{case.name}: {name} reads another window")
    times = _in_turn(readers, wanted_boxes)
    wanted = {whole: WANTED_WINDOW, "zarr-python": WANTED_WINDOW}
    notes = _notes(peers, work, finer)
    return _rows(f"window {WINDOW}^3, chunks {WINDOW_CHUNK[0]}^3, {case.name}", times, notes, wanted)


def _make_store(work: Path, case: Case, out: str = "default.zarr", chunk_shape: str | None = None) -> Path:
    """Build a store of ``n_patches`` patches of one volume; the volume is kept for the reference."""
    source = work / "tomo.npy"
    if not source.exists():
        z, y, x = case.patch_shape
        shape = (z + 32, y + 64, x + 64)
        write_volume(source, shape, case.dtype, seed=3)
        write_picks(work / "picks.csv", ["tomo"], shape, case.n_patches, seed=4)
    keypatch.convert(
        source,
        work / "picks.csv",
        work / out,
        patch_shape=case.patch_shape,
        chunk_shape=chunk_shape,
        voxel_spacing=SPACING,
        padding="inside",
    )
    return work / out


def _reference(work: Path, store: Store) -> list[NDArray[Any]]:
    """The patches as numpy cuts them."""
    volume = np.load(work / "tomo.npy", mmap_mode="r")
    boxes = [
        tuple(slice(at, at + n) for at, n in zip(origin, store.patch_shape, strict=True))
        for origin in store.table("patches/origin").tolist()
    ]
    return [np.array(volume[box]) for box in boxes]


def _ours(store: Store) -> Read:
    def read(i: int, box: Box = WHOLE) -> NDArray[Any]:
        if box == WHOLE:
            return store.read_image(i)
        return store.read_image(i, [s.start for s in box], [s.stop - s.start for s in box])

    return read


def _open(peers: Sequence[Peer], work: Path, store: Store, patches: Sequence[NDArray[Any]]) -> dict[str, Read]:
    readers = {}
    for k, peer in enumerate(peers):
        folder = work / f"peer{k}"
        folder.mkdir(exist_ok=True)
        readers[peer.name] = peer.open(folder, Path(store.path), patches)
    return readers


def _in_turn(readers: dict[str, Read], reads: Sequence[tuple[int, Box]]) -> dict[str, list[float]]:
    """Milliseconds of every read of every reader; at each read all of them take their turn."""
    current: list[tuple[int, Box]] = [(0, WHOLE)]

    def reading(read: Read) -> Callable[[], None]:
        def once() -> None:
            read(*current[0])

        return once

    contenders = [Contender(name, reading(read)) for name, read in readers.items()]
    times: dict[str, list[float]] = {name: [] for name in readers}
    for k, one in enumerate(reads):
        current[0] = one
        first = k % len(contenders)  # so that nobody always comes after the same other one
        for name, (once,) in interleaved(contenders[first:] + contenders[:first], 1).items():
            times[name].append(once.seconds * 1e3)
    return times


def _notes(peers: Sequence[Peer], work: Path, store: Store) -> dict[str, str]:
    """What was set, and how much of the raw size lies on the disk."""
    raw = len(store) * int(np.prod(store.patch_shape)) * store.image_array.dtype.itemsize
    notes = {OURS: f"crc32c checked, {_size(Path(store.path) / 'image') / raw:.2f} of the raw size"}
    notes[REUSED] = "the same, into one array again and again"
    for k, peer in enumerate(peers):
        own = _size(work / f"peer{k}")
        notes[peer.name] = f"{peer.note}, {own / raw:.2f} of the raw size" if own else peer.note
    return notes


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _rows(case: str, times: dict[str, list[float]], notes: dict[str, str], wanted: dict[str, float]) -> list[Row]:
    ours = statistics.median(times[OURS])
    rows = [row(PART, case, OURS, times[OURS], "ms", note=notes[OURS])]
    for name in list(times)[1:]:
        ratio = statistics.median(times[name]) / ours
        rows.append(
            row(PART, case, name, times[name], "ms", ratio=ratio, wanted=wanted.get(name), note=notes.get(name, ""))
        )
    return rows


def _demand_equal(found: NDArray[Any], expected: NDArray[Any], otherwise: str) -> None:
    if found.dtype != expected.dtype or not np.array_equal(found, expected):
        raise AssertionError(otherwise)


if __name__ == "__main__":
    measure([(PART, run)], __doc__ or "")
