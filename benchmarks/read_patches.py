"""Time to read one patch at random: keypatch against the general Zarr libraries, on the same store.

    python benchmarks/read_patches.py [--store PATH] [--patch-shape 128,128,128] [--dtype uint8] [--n 64] [--repeat 5]

All readers read the same patches of the same files, in turns, so that a busy machine slows all of them alike. The page
cache is warm: every patch was read once by every reader before, and compared. keypatch decodes on one thread; the
others run as they come. Windows of 64 voxels a side are read in the same way; ``--chunk-shape 64,64,64`` shows what
smaller chunks do for them. The figures are medians, in ms a read.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs import blosc

from keypatch.errors import KeypatchError
from keypatch.formats.store import Store, StoreLayout, write_metadata, write_unit
from keypatch.formats.store.codecs import choose_codec
from keypatch.formats.store.layout import check_chunk_shape, choose_chunk_shape
from keypatch.formats.store.schema import AXES, KINDS, SCHEMA_VERSION, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

OURS = "keypatch"
WINDOW = 64
PATCHES_PER_SHARD = 16


@dataclass(frozen=True)
class Reader:
    """One way to read a box of a patch."""

    name: str
    version: str
    read: Callable[[int, tuple[slice, ...]], NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """What was measured of one reader, ms a read."""

    what: str
    reader: str
    version: str
    median_ms: float
    fastest_ms: float
    ratio: float


def main() -> int:
    """Measure and print."""
    args = parse_arguments()
    blosc.use_threads = False
    with tempfile.TemporaryDirectory() as scratch:
        path = args.store or make_store(Path(scratch) / "patches.zarr", args)
        store = Store(path)
        indices = np.random.default_rng(0).choice(len(store), min(args.n, len(store)), replace=False).tolist()
        readers = list(installed_readers(path, store))
        whole = [(i, (slice(None),) * 3) for i in indices]
        rows = measure("patch", readers, whole, args.repeat)
        if min(store.patch_shape) >= WINDOW:
            few = [reader for reader in readers if reader.name in (OURS, "zarr-python")]
            rows += measure(f"window of {WINDOW}³", few, random_windows(store, indices), args.repeat)
        facts = describe(store, len(indices), args.repeat)
    print_table(facts, rows)
    if args.json:
        args.json.write_text(json.dumps({**facts, "rows": [vars(row) for row in rows]}, indent=1) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store in a folder; one of noise is made where none is given")
    parser.add_argument("--patch-shape", type=shape3, default=(128, 128, 128), help="of the store that is made")
    parser.add_argument("--chunk-shape", type=shape3, help="of the store that is made; by default as convert chooses")
    parser.add_argument("--dtype", default="uint8", help="of the store that is made")
    parser.add_argument("--n", type=int, default=64, help="patches to read, and of the store that is made")
    parser.add_argument("--repeat", type=int, default=5, help="times that each of them is read by each reader")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


def shape3(text: str) -> tuple[int, int, int]:
    """``D,H,W``."""
    z, y, x = (int(n) for n in text.split(","))
    return z, y, x


def make_store(folder: Path, args: argparse.Namespace) -> Path:
    """A store of noise in the layout that ``keypatch convert`` gives, without Gaussians and keypoints."""
    dtype = np.dtype(args.dtype)
    codec = choose_codec("auto", dtype)
    chunk_shape = args.chunk_shape or choose_chunk_shape(args.patch_shape, dtype.itemsize)
    layout = StoreLayout(
        n_patches=args.n,
        patch_shape=args.patch_shape,
        ds_factor=(1, 1, 1),
        n_classes=1,
        image_dtype=dtype,
        image_codec=codec,
        chunk_shape=check_chunk_shape(chunk_shape, args.patch_shape),
        patches_per_shard=PATCHES_PER_SHARD,
        gaussian_dtype=None,
        gaussian_codec=codec,
    )
    rng = np.random.default_rng(0)
    folder.mkdir()
    records = [
        write_unit(
            folder, layout, unit, ((noise(rng, args.patch_shape, dtype), None) for _ in layout.unit_patches(unit))
        )
        for unit in range(layout.n_units)
    ]
    n_rows = {"patches": args.n, "patches+1": args.n + 1, "keypoints": 0, "annotations": 0, "units": layout.n_units}
    columns = {table.path: np.zeros(table.shape(n_rows[table.rows]), table.dtype) for table in tables(gaussian=False)}
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "axes": list(AXES),
        "patch_shape": list(args.patch_shape),
        "ds_factor": [1, 1, 1],
        "grid_shape": list(args.patch_shape),
        "classes": ["none"],
        "kinds": list(KINDS),
        "gaussian": {"stored": False, "dtype": None, "combine": "max", "reach": 6.0},
        "counts": {"patches": args.n},
    }
    write_metadata(folder, layout, records, columns, [{"id": "noise"}], attributes)
    return folder


def noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """What a denoised tomogram compresses like: normal noise, integers filled to 4 sigma."""
    values = rng.standard_normal(shape, np.float32)
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    middle, half = (limits.max + limits.min) / 2, (limits.max - limits.min) / 2
    return np.clip(values * (half / 4) + middle, limits.min, limits.max).astype(dtype)


def installed_readers(path: Path, store: Store) -> Iterator[Reader]:
    """keypatch, and each of the others that is installed."""
    from keypatch import __version__

    yield Reader(OURS, __version__, lambda i, box: store.read_image(i, *window_of(box, store.patch_shape)))
    for name, package, opened in (
        ("zarr-python", "zarr", open_zarr),
        ("zarrs", "zarrs", open_zarrs),
        ("tensorstore", "tensorstore", open_tensorstore),
    ):
        try:
            yield Reader(name, version(package), opened(path))
        except (PackageNotFoundError, ImportError):
            print(f"skipped: {name} is not installed", file=sys.stderr)


def window_of(box: tuple[slice, ...], shape: Sequence[int]) -> tuple[list[int], list[int]]:
    """Start and shape of a box of slices."""
    bounds = [s.indices(n) for s, n in zip(box, shape, strict=True)]
    return [a for a, _, _ in bounds], [b - a for a, b, _ in bounds]


def open_zarr(path: Path) -> Callable[[int, tuple[slice, ...]], NDArray[Any]]:
    """zarr-python with the pipeline it comes with."""
    import zarr

    array = zarr.open_array(path / "image", mode="r")
    return lambda i, box: np.asarray(array[(i, *box)])


def open_zarrs(path: Path) -> Callable[[int, tuple[slice, ...]], NDArray[Any]]:
    """zarr-python with zarrs as its pipeline, which an array takes when it is opened."""
    import zarr
    import zarrs  # noqa: F401 - registers the pipeline

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        array = zarr.open_array(path / "image", mode="r")
    return lambda i, box: np.asarray(array[(i, *box)])


def open_tensorstore(path: Path) -> Callable[[int, tuple[slice, ...]], NDArray[Any]]:
    """tensorstore, without a cache of decoded chunks, as a random order has no use for it."""
    import tensorstore

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "image")}}
    array = tensorstore.open(spec, open=True, read=True).result()
    return lambda i, box: np.asarray(array[(i, *box)].read().result())


def random_windows(store: Store, indices: list[int]) -> list[tuple[int, tuple[slice, ...]]]:
    """A cube anywhere in each patch."""
    rng = np.random.default_rng(1)
    corners = rng.integers(0, np.array(store.patch_shape) - WINDOW + 1, (len(indices), 3))
    return [
        (i, tuple(slice(a, a + WINDOW) for a in corner)) for i, corner in zip(indices, corners.tolist(), strict=True)
    ]


def measure(what: str, readers: list[Reader], reads: list[tuple[int, tuple[slice, ...]]], repeat: int) -> list[Row]:
    """Compare every read once, which also warms the caches, and then time all readers in turns."""
    for index, box in reads:
        expected = readers[0].read(index, box)
        for reader in readers[1:]:
            if not np.array_equal(reader.read(index, box), expected):
                message = f"{reader.name} reads other voxels of patch {index} than {readers[0].name}"
                raise AssertionError(message)
    seconds: dict[str, list[float]] = {reader.name: [] for reader in readers}
    for turn in range(repeat):
        for k, (index, box) in enumerate(reads):
            first = (turn + k) % len(readers)
            for reader in readers[first:] + readers[:first]:
                begin = time.perf_counter()
                reader.read(index, box)
                seconds[reader.name].append(time.perf_counter() - begin)
    ours = statistics.median(seconds[OURS])
    return [
        Row(
            what,
            reader.name,
            reader.version,
            round(1e3 * statistics.median(seconds[reader.name]), 3),
            round(1e3 * min(seconds[reader.name]), 3),
            round(statistics.median(seconds[reader.name]) / ours, 2),
        )
        for reader in readers
    ]


def describe(store: Store, n_read: int, repeat: int) -> dict[str, Any]:
    """What was read."""
    array = store.image_array
    return {
        "patches": len(store),
        "patch_shape": list(store.patch_shape),
        "dtype": array.dtype.name,
        "chunk_shape": list(array.chunk_shape),  # type: ignore[attr-defined]
        "patches_per_shard": array.patches_per_shard,  # type: ignore[attr-defined]
        "patches_read": n_read,
        "repeat": repeat,
        "cores": os.cpu_count(),
    }


def print_table(facts: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """A line of facts and a line a reader."""
    shape = "×".join(map(str, facts["patch_shape"]))
    chunk = "×".join(map(str, facts["chunk_shape"]))
    print(f"{facts['patches']} patches of {shape} {facts['dtype']}, chunks of {chunk}, ", end="")
    print(f"{facts['patches_per_shard']} a shard; {facts['patches_read']} read {facts['repeat']} times, ", end="")
    print(f"warm cache, {facts['cores']} cores\n")
    print(f"{'':<16}{'reader':<14}{'version':<10}{'median ms':>10}{'fastest':>10}{'× keypatch':>12}")
    for row in rows:
        figures = f"{row.median_ms:>10.2f}{row.fastest_ms:>10.2f}{row.ratio:>12.2f}"
        print(f"{row.what:<16}{row.reader:<14}{row.version:<10}{figures}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeypatchError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
