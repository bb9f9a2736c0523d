"""The least work that makes the same files: numpy cuts the same boxes, the same bytes are written and fsynced.

No checks, no hashes, no records, no names given at the end; the bytes of the Gaussians and of the shards' indices are
there before the clock starts.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class FloorUnit:
    """The two files of one unit.

    Attributes:
        number: Names the files.
        sources: A volume for each patch.
        origins: (n, 3) of the patches, all inside their volumes.
        gaussian: Bytes of the second file.
        tail: Bytes of the first one's index.
    """

    number: int
    sources: tuple[Path, ...]
    origins: NDArray[np.int64]
    gaussian: bytes = field(repr=False)
    tail: bytes = field(repr=False)


@dataclass(frozen=True)
class Form:
    """What all patches have in common.

    Attributes:
        patch_shape: Voxels.
        n_chunks: Equal parts along z that are compressed one by one.
        codec: Their compressor as a numcodecs configuration.
    """

    patch_shape: tuple[int, int, int]
    n_chunks: int
    codec: dict[str, Any] | None


def write_unit(folder: Path, unit: FloorUnit, form: Form) -> None:
    """Cut, compress where there is a codec, write and fsync."""
    with (folder / f"{unit.number}.image").open("wb") as file:
        for source, origin in zip(unit.sources, unit.origins.tolist(), strict=True):
            box = tuple(slice(at, at + n) for at, n in zip(origin, form.patch_shape, strict=True))
            block = np.ascontiguousarray(_opened(source)[box])
            if form.codec is None:
                file.write(block.data)
                continue
            for chunk in np.split(block.reshape(-1), form.n_chunks):
                file.write(_compressor(tuple(form.codec.items())).encode(chunk))
        file.write(unit.tail)
        file.flush()
        os.fsync(file.fileno())
    with (folder / f"{unit.number}.gaussian").open("wb") as file:
        file.write(unit.gaussian)
        file.flush()
        os.fsync(file.fileno())


@cache
def _opened(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


@cache
def _compressor(configuration: tuple[tuple[str, Any], ...]) -> Any:  # noqa: ANN401 - numcodecs is untyped
    from numcodecs import blosc, get_codec

    blosc.use_threads = False
    return get_codec(dict(configuration))


def started_pool(workers: int) -> ProcessPoolExecutor:
    """Spawned processes that have started and imported what a build imports."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    for _ in range(4):
        list(pool.map(_imported, range(4 * workers)))
    return pool


def _imported(_: int) -> None:
    import time

    import numcodecs  # noqa: F401

    import keypatch.converters.units  # noqa: F401

    time.sleep(0.02)  # long enough that no process takes all of these calls


def write_all(pool: ProcessPoolExecutor, folder: Path, units: Sequence[FloorUnit], form: Form) -> None:
    """Write all units on all processes of a pool."""
    for future in [pool.submit(write_unit, folder, unit, form) for unit in units]:
        future.result()
