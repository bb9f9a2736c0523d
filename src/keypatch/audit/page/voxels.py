"""Patches made small enough to travel inside a page: averaged down, 8 bits a voxel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.audit.panels import contrast_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keypatch.formats.store import Patch
    from keypatch.geometry import Shape3


@dataclass(frozen=True)
class SmallPatch:
    """The voxels of a patch as a page has them.

    Attributes:
        voxels: (d, h, w) uint8; 0 and 255 are the ends of ``window``.
        step: Voxels of the patch that were averaged to one, an axis. The last one of an axis may be of fewer.
        window: Values that are drawn black and white.
    """

    voxels: NDArray[np.uint8]
    step: Shape3
    window: tuple[float, float]


def choose_step(shape: Shape3, room: int) -> Shape3:
    """The smallest steps with which a patch takes at most ``room`` voxels; the longest axis is shortened first."""
    step = [1, 1, 1]

    def small() -> list[int]:
        return [-(-n // s) for n, s in zip(shape, step, strict=True)]

    while math.prod(small()) > max(room, 1):
        step[int(np.argmax(small()))] += 1
    return step[0], step[1], step[2]


def shrink(patch: Patch, step: Shape3) -> SmallPatch:
    """Average and quantise a patch; what of it lies in its volume sets the window.

    Raises:
        StoreError: If the image cannot be read.
    """
    counted = [
        _counted(n, s, range(a, b))
        for n, s, a, b in zip(
            patch.image.shape, step, patch.valid_start.tolist(), patch.valid_stop.tolist(), strict=True
        )
    ]
    small = _averaged(patch.image, step, counted)
    valid = tuple(
        slice(a // s, max(-(-b // s), a // s + 1))
        for a, b, s in zip(patch.valid_start.tolist(), patch.valid_stop.tolist(), step, strict=True)
    )
    low, high = contrast_window([small[valid]])
    with np.errstate(invalid="ignore"):
        grey = (small - low) / (high - low) if high > low else np.full_like(small, 0.5)
    quantised = np.rint(np.clip(np.nan_to_num(grey), 0, 1) * 255).astype(np.uint8)
    return SmallPatch(quantised, step, (low, high))


def _counted(length: int, step: int, valid: range) -> NDArray[np.bool_]:
    """(length,): which voxels of an axis are averaged. Where a block lies half in the volume, padding would show there.

    Args:
        length: Of the axis.
        step: Of the blocks.
        valid: Voxels that lie in the volume; a block without any counts as it is.
    """
    inside = np.zeros(length, bool)
    inside[valid.start : valid.stop] = True
    block = np.arange(length) // step
    return inside | ~np.isin(block, block[inside])


def _averaged(image: NDArray[Any], step: Shape3, counted: list[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Mean of each block; plane by plane along z, so that no copy of the whole patch in float64 is made."""
    depth = image.shape[0]
    slabs = (slice(z, z + step[0]) for z in range(0, depth, step[0]))
    return np.stack([_averaged_plane(image[slab][counted[0][slab]], step, counted[1:]) for slab in slabs])


def _averaged_plane(slab: NDArray[Any], step: Shape3, counted: list[NDArray[np.bool_]]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        plane: NDArray[np.float64] = slab.mean(axis=0, dtype=np.float64)
        plane[~counted[0]] = 0
        plane[:, ~counted[1]] = 0
        for axis in (0, 1):
            starts = np.arange(0, plane.shape[axis], step[axis + 1])
            lengths = np.add.reduceat(counted[axis].astype(np.int64), starts)
            sums = np.add.reduceat(plane, starts, axis=axis)
            plane = sums / (lengths[:, None] if axis == 0 else lengths)
    return plane
