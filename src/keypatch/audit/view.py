"""Which part of a patch a picture shows, and with which contrast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from keypatch import geometry
from keypatch.audit.panels import At, Plane, Scene, contrast_window, flattened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from keypatch.formats.store import Patch
    from keypatch.geometry import Shape3

Slicing: TypeAlias = Literal["keypoint", "middle", "max", "min"]
"""Planes through the most central keypoint, through the patch's middle, or projections along each axis."""

SLICINGS: Final[tuple[Slicing, ...]] = get_args(Slicing)


def places(patch: Patch, slicing: Slicing) -> tuple[At, At, At]:
    """Where along z, y and x the planes lie that are normal to these."""
    if slicing == "keypoint":
        return slice_center(patch)
    if slicing == "middle":
        d, h, w = patch.image.shape
        return d // 2, h // 2, w // 2
    return slicing, slicing, slicing


def slice_center(patch: Patch) -> tuple[int, int, int]:
    """The voxel that holds the keypoint nearest to the patch's centre, measured in the patch's sides.

    Without a keypoint inside, it is the middle of what lies in the volume.
    """
    middle = np.minimum((patch.valid_start + patch.valid_stop) // 2, np.array(patch.image.shape) - 1)
    return central_voxel(patch.local_rs_coords, patch.image.shape, shape3(middle.tolist()))


def central_voxel(points: NDArray[np.float64], shape: Sequence[int], otherwise: Shape3) -> Shape3:
    """The voxel that holds the point nearest to the middle of a box, measured in the box's sides.

    Args:
        points: (K, 3) index coordinates in the box.
        shape: (3,) voxels of the box.
        otherwise: Where no point is inside.
    """
    size = np.array(shape)
    inside = points[geometry.inside(points, size)]
    if not len(inside):
        return otherwise
    distance = np.linalg.norm((inside - (size - 1) / 2) / size, axis=1)
    return shape3(np.floor(inside[distance.argmin()] + 0.5).astype(int).tolist())


def scene_of(
    patch: Patch, gaussian: NDArray[Any] | None, ds_factor: Shape3, scale: int, shown: Sequence[tuple[Plane, At]]
) -> Scene:
    """What there is to be drawn of a patch.

    Args:
        patch: Of a store.
        gaussian: (C, d, h, w) to lay over it; None for none.
        ds_factor: Of the store.
        scale: Pixels a voxel.
        shown: Planes and places; what they show of the volume sets the contrast, and padding does not.
    """
    return Scene(
        image=patch.image,
        valid_start=shape3(patch.valid_start.tolist()),
        valid_stop=shape3(patch.valid_stop.tolist()),
        gaussian=gaussian,
        ds_factor=ds_factor,
        points=patch.local_rs_coords,
        class_index=patch.class_index,
        sigma=patch.ds_sigma * np.array(ds_factor),
        window=contrast_window([_valid_slice(patch, plane, at) for plane, at in shown]),
        scale=scale,
    )


def _valid_slice(patch: Patch, plane: Plane, at: At) -> NDArray[Any]:
    """What a plane shows of the volume; of one that lies outside, its nearest slice that does not."""
    box = [slice(int(a), int(b)) for a, b in zip(patch.valid_start, patch.valid_stop, strict=True)]
    first, last = box[plane.normal].start, box[plane.normal].stop - 1
    valid = patch.image[tuple(box)]
    within = min(max(at, first), last) - first if isinstance(at, int) else at
    return flattened(valid, plane, within, (0, valid.shape[plane.normal]))


def shape3(values: Sequence[int]) -> Shape3:
    """Three numbers as a shape."""
    z, y, x = (int(n) for n in values)
    return z, y, x
