"""The geometry of keypatch: the one place where coordinates change their space.

All coordinates are float64 in z, y, x order, in index space: the centre of voxel ``i`` lies at ``i``, so voxel
``i`` covers ``[i - 0.5, i + 0.5)`` and a volume of ``n`` voxels covers ``[-0.5, n - 0.5)``.

The rule between real space (rs) and the grid that is ``f`` times coarser (ds) is that of average pooling, and of
``align_corners=False`` in PyTorch's ``interpolate``: coarse voxel ``j`` covers the fine voxels ``j*f … j*f + f - 1``,
whose common centre is ``j*f + (f - 1) / 2``. The shorter ``rs / f`` puts every point ``(f - 1) / (2f)`` of a coarse
voxel too far: 94 Å with f = 16 and 12.5 Å voxels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

Shape3: TypeAlias = tuple[int, int, int]
Vector3: TypeAlias = tuple[float, float, float]

Unit: TypeAlias = Literal["voxel", "angstrom", "nm", "um", "mm", "fraction"]
Zero: TypeAlias = Literal["voxel-center", "corner", "corner-xy", "volume-center", "volume-center-minus-1", "world"]
World: TypeAlias = tuple[tuple[float, ...], ...]
"""A (4, 4) affine map of a volume: index (z, y, x, 1) to world coordinates (z, y, x, 1) in Å."""

UNITS: tuple[Unit, ...] = ("voxel", "angstrom", "nm", "um", "mm", "fraction")
ZEROS: tuple[Zero, ...] = (
    "voxel-center",
    "corner",
    "corner-xy",
    "volume-center",
    "volume-center-minus-1",
    "world",
)

ANGSTROM_PER: dict[Unit, float] = {"angstrom": 1.0, "nm": 10.0, "um": 1e4, "mm": 1e7}
"""Å a unit of length."""

_CORNER = {"corner": (0.5, 0.5, 0.5), "corner-xy": (0.0, 0.5, 0.5)}


def local_rs(global_coords: ArrayLike, origin: ArrayLike) -> NDArray[np.float64]:
    """Volume index coordinates as seen from a patch: ``global - origin``.

    Args:
        global_coords: (..., 3) voxel-index coordinates in the volume, z, y, x.
        origin: (..., 3) volume index of the patch's voxel (0, 0, 0); may be negative.

    Returns:
        (..., 3) float64 voxel-index coordinates in the patch.
    """
    return np.asarray(global_coords, np.float64) - np.asarray(origin, np.float64)


def local_ds(local_rs_coords: ArrayLike, ds_factor: ArrayLike) -> NDArray[np.float64]:
    """Patch coordinates on the coarse grid: ``(rs + 0.5) / f - 0.5``.

    Args:
        local_rs_coords: (..., 3) voxel-index coordinates in the patch, z, y, x.
        ds_factor: (3,) factor an axis, or one number.

    Returns:
        (..., 3) float64 index coordinates on the coarse grid.
    """
    return (np.asarray(local_rs_coords, np.float64) + 0.5) / np.asarray(ds_factor, np.float64) - 0.5


def rs_from_ds(local_ds_coords: ArrayLike, ds_factor: ArrayLike) -> NDArray[np.float64]:
    """The inverse of `local_ds`: ``(ds + 0.5) * f - 0.5``. Shapes and dtype as there."""
    return (np.asarray(local_ds_coords, np.float64) + 0.5) * np.asarray(ds_factor, np.float64) - 0.5


def angstrom_sigma(ds_sigma: ArrayLike, ds_factor: ArrayLike, voxel_spacing: ArrayLike) -> NDArray[np.float64]:
    """Sigma in Å of a sigma in coarse voxels: ``ds_sigma * f * voxel_spacing``, each axis for itself."""
    return np.asarray(ds_sigma, np.float64) * np.asarray(ds_factor, np.float64) * np.asarray(voxel_spacing, np.float64)


def ds_sigma(angstrom: ArrayLike, ds_factor: ArrayLike, voxel_spacing: ArrayLike) -> NDArray[np.float64]:
    """Sigma in coarse voxels of a sigma in Å: ``angstrom / (f * voxel_spacing)``, each axis for itself."""
    return np.asarray(angstrom, np.float64) / (
        np.asarray(ds_factor, np.float64) * np.asarray(voxel_spacing, np.float64)
    )


def resampled(coords: ArrayLike, spacing: ArrayLike, new_spacing: ArrayLike) -> NDArray[np.float64]:
    """Index coordinates of the same place on a grid of another spacing: ``(index + 0.5) * s_old / s_new - 0.5``.

    Both grids begin at the same corner, half a voxel before the first voxel's centre. With the spacings exchanged it is
    its own inverse.

    Args:
        coords: (..., 3) index coordinates, z, y, x; or (...) of one axis.
        spacing: (3,) Å a voxel of their grid; or one number.
        new_spacing: (3,) Å a voxel of the other grid; or one number.

    Returns:
        float64 index coordinates on the other grid, of the shape of ``coords``.
    """
    ratio = np.asarray(spacing, np.float64) / np.asarray(new_spacing, np.float64)
    return (np.asarray(coords, np.float64) + 0.5) * ratio - 0.5


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]) -> Shape3:
    """Shape of a volume on a grid of another spacing: ``ceil(n * s_old / s_new - 0.5)``, each axis for itself.

    That is n * s_old / s_new to the nearest, and the lower one of two that are as near, so that the centre of every
    voxel lies inside the volume. An axis that is shorter than half a new voxel has none: its 0 is for the caller.

    Args:
        shape: (3,) voxels.
        spacing: (3,) Å a voxel.
        new_spacing: (3,) Å a voxel.
    """
    z, y, x = (math.ceil(n * s / t - 0.5) for n, s, t in zip(shape, spacing, new_spacing, strict=True))
    return z, y, x


def grid_shape(patch_shape: Sequence[int], ds_factor: Sequence[int]) -> Shape3:
    """Shape of a patch's coarse grid.

    Raises:
        ValueError: If the factor does not divide the shape on every axis.
    """
    if any(f < 1 for f in ds_factor) or any(n % f for n, f in zip(patch_shape, ds_factor, strict=True)):
        message = f"patch shape {tuple(patch_shape)} is not a multiple of the factor {tuple(ds_factor)}"
        raise ValueError(message)
    d, h, w = (n // f for n, f in zip(patch_shape, ds_factor, strict=True))
    return d, h, w


def centered_origin(coords: ArrayLike, patch_shape: ArrayLike) -> NDArray[np.int64]:
    """Origin of the patch whose voxel ``size // 2`` is the one that holds the point.

    ``floor(coord + 0.5) - size // 2``, the rule of cellfinder and torch-subpixel-crop.

    Args:
        coords: (..., 3) voxel-index coordinates in the volume.
        patch_shape: (3,) voxels.

    Returns:
        (..., 3) int64 origin.
    """
    return np.floor(np.asarray(coords, np.float64) + 0.5).astype(np.int64) - np.asarray(patch_shape, np.int64) // 2


def valid_box(
    origin: ArrayLike, patch_shape: ArrayLike, volume_shape: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The part of a patch that lies in its volume, in patch indices.

    Args:
        origin: (..., 3) volume index of the patch's first voxel.
        patch_shape: (3,) voxels.
        volume_shape: (3,) or (..., 3) voxels.

    Returns:
        Two (..., 3) int64 arrays, start and stop (exclusive), with ``0 <= start <= stop <= patch_shape``. Where
        the patch lies wholly outside on one axis, start equals stop there.
    """
    first = np.asarray(origin, np.int64)
    size = np.asarray(patch_shape, np.int64)
    start = np.clip(-first, 0, size)
    stop = np.clip(np.asarray(volume_shape, np.int64) - first, 0, size)
    return np.minimum(start, stop), stop


def inside(coords: ArrayLike, shape: ArrayLike) -> NDArray[np.bool_]:
    """Whether points lie in a box of voxels that begins at index 0: ``-0.5 <= coord < shape - 0.5`` on every axis.

    Args:
        coords: (..., 3) index coordinates.
        shape: (3,) or (..., 3) voxels.

    Returns:
        (...) bool. NaN lies nowhere.
    """
    points = np.asarray(coords, np.float64)
    result: NDArray[np.bool_] = np.all((points >= -0.5) & (points < np.asarray(shape, np.float64) - 0.5), axis=-1)
    return result


def within_reach(local_ds_coords: ArrayLike, grid: ArrayLike, sigma: ArrayLike, reach: float) -> NDArray[np.bool_]:
    """Whether points lie within ``reach`` sigmas of a patch's box, each axis for itself.

    The box of the coarse grid is ``[-0.5, d - 0.5)`` and is widened by ``reach * sigma`` on both sides of every axis.
    (A box, not a ball, so that the points of a window are found with six comparisons.)

    Args:
        local_ds_coords: (..., 3) index coordinates on the coarse grid.
        grid: (3,) shape of the coarse grid.
        sigma: (3,) or (..., 3) sigma in coarse voxels.
        reach: In sigmas.

    Returns:
        (...) bool.
    """
    points = np.asarray(local_ds_coords, np.float64)
    margin = reach * np.asarray(sigma, np.float64)
    upper = np.asarray(grid, np.float64) - 0.5 + margin
    result: NDArray[np.bool_] = np.all((points >= -0.5 - margin) & (points < upper), axis=-1)
    return result


def voxel_index(
    coords: ArrayLike,
    *,
    unit: Unit,
    zero: Zero = "voxel-center",
    index_base: int = 0,
    voxel_spacing: ArrayLike | None = None,
    volume_shape: ArrayLike | None = None,
    world: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Bring source coordinates to voxel-index coordinates of their volume.

    First the unit becomes voxels (lengths are divided by the spacing, a fraction is multiplied by the shape), then the
    zero is moved: ``voxel-center`` (of the first voxel) adds nothing; ``corner`` of the first voxel takes off half a
    voxel; ``corner-xy`` does so in y and x alone (IMOD's models count slices by their centres); ``volume-center`` adds
    size / 2 and ``volume-center-minus-1`` adds size / 2 - 1 (RELION's two readings of its centred coordinates).
    ``index_base`` is taken off at last.

    Lengths from ``world`` go through the inverse of the volume's whole affine map instead: its origin, direction and
    shear count, and the spacing is not asked for.

    Args:
        coords: (..., 3) source coordinates, z, y, x.
        unit: Of the coordinates.
        zero: The point that (0, 0, 0) of the source names.
        index_base: 0, or 1 where the source counts its first voxel as 1.
        voxel_spacing: (3,) or (..., 3) Å a voxel; needed for lengths whose zero is not ``world``.
        volume_shape: (3,) or (..., 3) voxels; needed for fractions and for the zeros at the volume's centre.
        world: (4, 4) map of index (z, y, x, 1) to world (z, y, x, 1) in Å; needed for the zero ``world``.

    Returns:
        (..., 3) float64 voxel-index coordinates.

    Raises:
        ValueError: If the spacing, the shape or the map is needed and missing, if the map is singular, if world
            coordinates are no lengths, or if a name is not known.
    """
    if unit not in UNITS or zero not in ZEROS:
        message = f"unknown unit {unit!r} or zero {zero!r}; known are {', '.join(UNITS)} and {', '.join(ZEROS)}"
        raise ValueError(message)
    points = np.asarray(coords, np.float64)
    if zero == "world":
        return _index_of_world(points, unit, world) - index_base
    if unit in ANGSTROM_PER:
        if voxel_spacing is None:
            message = f"coordinates in {unit} need the voxel spacing"
            raise ValueError(message)
        points = points * ANGSTROM_PER[unit] / np.asarray(voxel_spacing, np.float64)
    elif unit == "fraction":
        points = points * _needed_shape(volume_shape, "fractional coordinates")
    if zero in _CORNER:
        points = points - np.asarray(_CORNER[zero])
    elif zero == "volume-center":
        points = points + _needed_shape(volume_shape, "centred coordinates") / 2
    elif zero == "volume-center-minus-1":
        points = points + (_needed_shape(volume_shape, "centred coordinates") / 2 - 1)
    return points - index_base


def own_voxels(
    coords: ArrayLike, ratio: ArrayLike, *, zero: Zero = "voxel-center", index_base: int = 0
) -> NDArray[np.float64]:
    """Coordinates that count the voxels of another tomogram of the same box, in those of the volume.

    Both begin at one corner, so an index goes as from a coarse grid: ``(index + 0.5) * ratio - 0.5``.
    Voxels from the volume's centre are lengths, and are multiplied by the ratio alone.

    Args:
        coords: (..., 3) source coordinates in voxels, z, y, x.
        ratio: (3,) or (..., 3) spacing of the voxels that they count over that of the volume.
        zero: The point that (0, 0, 0) of the source names; it stays where it is, and so does ``index_base``.
        index_base: What the source counts its first voxel as.

    Returns:
        (..., 3) float64 coordinates for `voxel_index`, from the same zero and base.
    """
    points, times = np.asarray(coords, np.float64), np.asarray(ratio, np.float64)
    if zero in ("volume-center", "volume-center-minus-1"):
        return (points - index_base) * times + index_base
    from_corner = 0.5 - np.asarray(_CORNER.get(zero, (0.0, 0.0, 0.0))) - index_base
    return (points + from_corner) * times - from_corner


def _index_of_world(points: NDArray[np.float64], unit: Unit, world: ArrayLike | None) -> NDArray[np.float64]:
    if world is None or unit not in ANGSTROM_PER:
        message = f"world coordinates need a length and the volume's world map, not {unit!r} and {world!r}"
        raise ValueError(message)
    affine = np.asarray(world, np.float64)
    linear, offset = affine[:3, :3], affine[:3, 3]
    try:
        index = np.linalg.solve(linear, (points.reshape(-1, 3) * ANGSTROM_PER[unit] - offset).T).T
    except np.linalg.LinAlgError as error:
        message = f"a world map that is singular: {affine.tolist()}"
        raise ValueError(message) from error
    return np.asarray(index.reshape(points.shape), np.float64)


def _needed_shape(volume_shape: ArrayLike | None, what: str) -> NDArray[np.float64]:
    if volume_shape is None:
        message = f"{what} need the volume's shape"
        raise ValueError(message)
    return np.asarray(volume_shape, np.float64)
