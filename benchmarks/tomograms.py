"""Volumes and picks to measure with: noise with the neighbours' correlation of a tomogram, or files of holes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SPACING = 12.5
"""Å a voxel. With a Gaussian of one coarse voxel of 16, sigma is 200 Å, as for flagellar motors."""


def noise(shape: tuple[int, int, int], dtype: str, seed: int) -> NDArray[Any]:
    """A (D, H, W) block of correlated noise that compresses as little as a tomogram does.

    Each voxel is the mean of two neighbours along each axis; 8-bit values have a standard deviation of about 28, so
    they carry near 7 bits.
    """
    rng = np.random.default_rng(seed)
    block = rng.standard_normal([n + 1 for n in shape], np.float32)
    for axis in range(3):
        head, tail = [slice(None)] * 3, [slice(None)] * 3
        head[axis], tail[axis] = slice(None, -1), slice(1, None)
        block = (block[tuple(head)] + block[tuple(tail)]) * np.float32(0.5**0.5)
    if np.dtype(dtype).kind == "f":
        return block.astype(dtype)
    return np.clip(np.rint(block * 28 + 128), 0, 255).astype(dtype)


def write_volume(path: Path, shape: tuple[int, int, int], dtype: str, seed: int, slab: int = 32) -> None:
    """Write an .npy of `noise`, slab by slab."""
    volume = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    for z in range(0, shape[0], slab):
        part = volume[z : z + slab]
        part[...] = noise(part.shape, dtype, seed * 100_003 + z)
    volume.flush()


def write_holes(path: Path, shape: tuple[int, int, int], dtype: str) -> None:
    """Write an .npy of zeros that takes no room on the disk."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        )
        file.truncate(file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize)


def write_picks(
    path: Path, names: list[str], shape: tuple[int, int, int], n_each: int, seed: int, margin: int = 0
) -> None:
    """Write a table ``volume,z,y,x`` of random points, at least ``margin`` voxels inside their volume."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    coords = rng.uniform(margin, np.array(shape) - 1 - margin, (len(names) * n_each, 3)).round(3)
    frame = pd.DataFrame(coords, columns=["z", "y", "x"])
    frame.insert(0, "volume", np.repeat(names, n_each))
    frame.to_csv(path, index=False)
