"""Other ways to keep the same patches: each writes them once and reads them at random.

Stores of keypatch are read by the Zarr libraries as they are; every other peer gets its own copy. All read on one
thread, by their own settings.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from table import Settings

Box = tuple[slice, slice, slice]
WHOLE: Box = (slice(None), slice(None), slice(None))


class Read(Protocol):
    """Reads one patch, or a box of it, into an array of its own."""

    def __call__(self, i: int, box: Box = WHOLE) -> NDArray[Any]:
        """Read patch ``i``."""
        ...


@dataclass(frozen=True)
class Peer:
    """Another way to keep patches.

    Attributes:
        name: In the table.
        needs: Distributions.
        open: From a folder of its own and the keypatch store to a reader; writes the patches where it needs its own.
        note: What was set.
    """

    name: str
    needs: tuple[str, ...]
    open: Callable[[Path, Path, Sequence[NDArray[Any]]], Read]
    note: str = ""


def available(peers: Sequence[Peer], settings: Settings) -> Iterator[Peer]:
    """Those that are installed; the others are skipped by name."""
    return (peer for peer in peers if settings.has(*peer.needs, peer=peer.name))


def _zarr_python(_: Path, store: Path, __: Sequence[NDArray[Any]]) -> Read:
    import zarr

    array = zarr.open_array(store / "image", mode="r")
    limits = {"async.concurrency": 1, "threading.max_workers": 1}

    def read(i: int, box: Box = WHOLE) -> NDArray[Any]:
        with zarr.config.set(limits):
            return np.asarray(array[(i, *box)])

    return read


def _zarr_python_threads(_: Path, store: Path, __: Sequence[NDArray[Any]]) -> Read:
    import zarr

    array = zarr.open_array(store / "image", mode="r")
    return lambda i, box=WHOLE: np.asarray(array[(i, *box)])


def _tensorstore(_: Path, store: Path, __: Sequence[NDArray[Any]]) -> Read:
    import tensorstore

    one = {"limit": 1}
    array = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store / "image")}},
        context=tensorstore.Context({"data_copy_concurrency": one, "file_io_concurrency": one}),
        open=True,
        read=True,
    ).result()
    return lambda i, box=WHOLE: np.asarray(array[(i, *box)].read().result())


def _zarrs(_: Path, store: Path, __: Sequence[NDArray[Any]]) -> Read:
    import zarr
    import zarrs  # noqa: F401 - registers its pipeline

    pipeline = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}
    with zarr.config.set(pipeline):  # an array keeps the pipeline that it was opened with
        array = zarr.open_array(store / "image", mode="r")
    return lambda i, box=WHOLE: np.asarray(array[(i, *box)])


def _blosc2(codec: str, level: int, shapes: Callable[[Sequence[int], int], tuple[list[int], list[int]]]) -> Any:  # noqa: ANN401
    """nnU-Net's way: an .b2nd a case of axes c, x, y, z, mapped into memory, opened for every read."""

    def open_peer(folder: Path, _: Path, patches: Sequence[NDArray[Any]]) -> Read:
        import blosc2

        blosc2.set_nthreads(1)
        blocks, chunks = shapes(patches[0].shape, patches[0].itemsize)
        cparams: dict[str, Any] = {"codec": blosc2.Codec[codec], "clevel": level}
        if codec == "LZ4HC":
            cparams["filters"] = [blosc2.Filter.SHUFFLE if patches[0].itemsize > 1 else blosc2.Filter.NOFILTER]
        for i, patch in enumerate(patches):
            blosc2.asarray(
                patch[None], urlpath=str(folder / f"{i}.b2nd"), chunks=chunks, blocks=blocks, cparams=cparams
            )
        mapped = {} if os.name == "nt" else {"mmap_mode": "r"}

        def read(i: int, box: Box = WHOLE) -> NDArray[Any]:
            data = blosc2.open(urlpath=str(folder / f"{i}.b2nd"), mode="r", dparams={"nthreads": 1}, **mapped)
            return np.asarray(data[(0, *box)])

        return read

    return open_peer


def nnunet_shapes(patch_shape: Sequence[int], itemsize: int) -> tuple[list[int], list[int]]:
    """Blocks and chunks as nnU-Net 2.8 chooses them where case and training patch have one shape.

    Restated from ``comp_blosc2_params`` of nnunetv2/training/dataloading/nnunet_dataset.py at 0e495086: a block is the
    patch's next powers of two, halved along its largest share of the patch down to 128 KiB; a chunk grows block by
    block up to 6 MiB.
    """
    patch = [int(n) for n in patch_shape]
    block = [min(1 << (n - 1).bit_length(), n) for n in patch]
    while math.prod(block) * itemsize > 128 * 1024:
        axis = max((a for a in range(3) if block[a] > 1), key=lambda a: (block[a] / patch[a], a))
        block[axis] = 1 << ((block[axis] - 1).bit_length() - 1)
    chunk = list(block)
    while grown := _grown(chunk, block, patch, itemsize):
        chunk = grown
    return [1, *block], [1, *chunk]


def _grown(chunk: list[int], block: list[int], patch: list[int], itemsize: int) -> list[int] | None:
    candidates = []
    for axis in range(3):
        larger = list(chunk)
        larger[axis] = min(chunk[axis] + block[axis], patch[axis])
        if larger != chunk and math.prod(larger) * itemsize <= 6 * 2**20:
            candidates.append((chunk[axis] / patch[axis], -patch[axis], axis, larger))
    return min(candidates)[3] if candidates else None


def nnunet_2_6_shapes(patch_shape: Sequence[int], itemsize: int) -> tuple[list[int], list[int]]:
    """The same up to nnU-Net 2.7: blocks of at most 0.8 x 32 KiB, chunks of about 0.8 x 1.375 MiB.

    Restated from the same function at 0cf37138^, for one channel.
    """
    patch = np.array(patch_shape)
    block = np.array([2 ** max(0, math.ceil(math.log2(n))) for n in patch_shape])
    while math.prod(block.tolist()) * itemsize > 32768 * 0.8:
        axis = next(a for a in np.argsort(block / patch)[::-1] if block[a] > 1)
        block[axis] = min(2 ** max(0, math.floor(math.log2(block[axis] - 1))), patch[axis])
    block = np.minimum(block, patch)
    chunk = block.copy()
    while math.prod(chunk.tolist()) * itemsize < 1441792 * 0.8 and (chunk < patch).any():
        axis = next(a for a in np.argsort(chunk / block) if chunk[a] < patch[a])
        before = chunk[axis]
        chunk[axis] = min(chunk[axis] + block[axis], patch[axis])
        if np.mean(chunk / patch) > 1.5:
            chunk[axis] = before
            break
    return [1, *np.minimum(block, chunk).tolist()], [1, *chunk.tolist()]


def _h5py(compression: str | None) -> Any:  # noqa: ANN401
    def open_peer(folder: Path, _: Path, patches: Sequence[NDArray[Any]]) -> Read:
        import h5py

        shape = patches[0].shape
        with h5py.File(folder / "patches.h5", "w") as file:
            data = file.create_dataset(
                "image", (len(patches), *shape), patches[0].dtype, chunks=(1, *shape), compression=compression
            )
            for i, patch in enumerate(patches):
                data[i] = patch
        # Without the cache of decoded chunks (8 MiB in HDF5 2), which would answer some reads from memory.
        opened = h5py.File(folder / "patches.h5", "r", rdcc_nbytes=0)["image"]
        return lambda i, box=WHOLE: np.asarray(opened[(i, *box)])

    return open_peer


def _torch_files(folder: Path, _: Path, patches: Sequence[NDArray[Any]]) -> Read:
    import torch

    torch.set_num_threads(1)
    for i, patch in enumerate(patches):
        torch.save(torch.from_numpy(patch.copy()), folder / f"{i}.pt")
    return lambda i, box=WHOLE: torch.load(folder / f"{i}.pt", weights_only=True).numpy()[box]


def _memory_map(folder: Path, _: Path, patches: Sequence[NDArray[Any]]) -> Read:
    data = np.lib.format.open_memmap(folder / "patches.npy", "w+", patches[0].dtype, (len(patches), *patches[0].shape))
    for i, patch in enumerate(patches):
        data[i] = patch
    data.flush()
    mapped = np.load(folder / "patches.npy", mmap_mode="r")
    return lambda i, box=WHOLE: np.array(mapped[(i, *box)])


ZARR_PYTHON = Peer("zarr-python", ("zarr",), _zarr_python, "the same store, one worker")
ZARR_LIBRARIES = (
    ZARR_PYTHON,
    Peer("zarr-python, threads", ("zarr",), _zarr_python_threads, "the same store, its default threads"),
    Peer("tensorstore", ("tensorstore",), _tensorstore, "the same store, concurrency 1, no cache"),
    Peer("zarrs", ("zarrs", "zarr"), _zarrs, "the same store, one worker"),
)
BLOSC2 = (
    Peer("blosc2, nnU-Net 2.8", ("blosc2",), _blosc2("LZ4HC", 5, nnunet_shapes), "LZ4HC 5, a file a patch"),
    Peer("blosc2, nnU-Net 2.6", ("blosc2",), _blosc2("ZSTD", 8, nnunet_2_6_shapes), "zstd 8, a file a patch"),
)
OTHERS = (
    Peer("h5py", ("h5py",), _h5py(None), "a chunk a patch, no filter, no checksum"),
    Peer("h5py, lzf", ("h5py",), _h5py("lzf"), "a chunk a patch"),
    Peer("h5py, gzip", ("h5py",), _h5py("gzip"), "a chunk a patch, level 4"),
    Peer("torch .pt files", ("torch",), _torch_files, "a file a patch, no codec, no checksum"),
    Peer("memory map", ("numpy",), _memory_map, "one .npy, no codec, no checksum"),
)
