"""Affine maps of formats with a world: from a header's x, y, z in some unit to our z, y, x in Å."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keypatch.formats.volumes.reader import declared_spacing

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from keypatch.geometry import Vector3, World

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From x to the right and y to the front to x to the left and y to the back."""

_SINGULAR = 1e-9
"""Of the volume of a voxel whose edges stood at right angles; below this the edges lie in one plane."""


def affine_xyz(directions: ArrayLike, origin: ArrayLike) -> NDArray[np.float64]:
    """The (4, 4) map of index (x, y, z, 1) to world (x, y, z, 1).

    Args:
        directions: (3, 3); column i is the step from one voxel to the next along index axis i.
        origin: (3,) world coordinates of the centre of voxel (0, 0, 0).
    """
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions, origin
    return affine


def placed(affine: NDArray[np.float64], warn: list[str], source: str) -> tuple[Vector3 | None, World | None]:
    """Voxel spacing and world map of an affine map.

    Args:
        affine: (4, 4) map of index (z, y, x, 1) to world (z, y, x, 1) in Å.
        warn: Warnings of the volume; added to.
        source: Where the file gives it, for the warning.

    Returns:
        Å a voxel (z, y, x), the lengths of the map's columns; and the map. Both None, with a warning, where the map is
        no map: not finite, or flat.
    """
    linear = affine[:3, :3]
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(linear, axis=0)
    spacing = declared_spacing([rounded(length) for length in lengths], warn, source)
    if spacing is None:
        return None, None
    if not np.isfinite(affine).all() or abs(np.linalg.det(linear / lengths)) < _SINGULAR:
        warn.append(f"{source} maps all voxels into one plane or nowhere; give --voxel-spacing")
        return None, None
    return spacing, as_world(affine)


def turned(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same (4, 4) map with the axes of both sides in the order z, y, x instead of x, y, z."""
    backwards = [2, 1, 0, 3]
    return affine[np.ix_(backwards, backwards)]


def as_world(affine: NDArray[np.float64]) -> World:
    """As `VolumeInfo.world` holds it."""
    # Adding 0 makes 0 of -0, which would be other bytes in a store.
    return tuple(tuple(row) for row in (affine + 0.0).tolist())


def rounded(length: float) -> float:
    """A length without the digits that computing it made up: 1 where a rotated header gives 1.0000000000000002."""
    return float(f"{length:.12g}")


def shortest_single(value: float) -> float:
    """The number with the fewest digits that is nearest to this float32: 13.48 where it holds 13.479999542."""
    return float(str(np.float32(value)))


def seven_digits(value: float) -> float:
    """What float32 of a header give once divided: 13.48 where the arithmetic gives 13.479999542."""
    return float(f"{value:.7g}")
