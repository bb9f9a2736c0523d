"""From an annotation file's coordinates to indices of one volume: its convention meets the volume's header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keypatch import geometry
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from keypatch.formats.annotations import Convention
    from keypatch.formats.volumes import VolumeInfo
    from keypatch.geometry import Vector3


def place(
    coords: ArrayLike,
    convention: Convention,
    voxel_spacing: Vector3,
    info: VolumeInfo,
    coordinate_spacing: Vector3 | None = None,
) -> NDArray[np.float64]:
    """Coordinates of an annotation file as indices of a volume.

    Args:
        coords: (K, 3) source coordinates, z, y, x.
        convention: What they mean.
        voxel_spacing: Å, z, y, x, that counts for the volume.
        info: Its header.
        coordinate_spacing: Å of the voxels that the coordinates count, where not the volume's own.

    Returns:
        (K, 3) float64 voxel-index coordinates.

    Raises:
        UsageError: If world coordinates meet a volume without a world, or are said to be in voxels; or if coordinates
            that are no voxels are given the spacing of other voxels.
    """
    if convention.zero == "world" and convention.unit not in geometry.ANGSTROM_PER:
        raise UsageError.at(
            "--zero world",
            expected=f"coordinates in one of {', '.join(geometry.ANGSTROM_PER)}",
            found=convention.unit,
            hint="give --unit",
        )
    if convention.zero == "world" and info.world is None:
        raise UsageError.at(
            info.path,
            expected="a header with the world coordinates (origin and direction) that the annotations count in",
            found=f"the format {info.format}, which has none here",
            hint="say with --zero and --unit where the annotations' zero lies in the volume",
        )
    if coordinate_spacing is not None and convention.unit != "voxel":
        raise UsageError.at(
            "--coordinate-spacing",
            expected="coordinates in voxels",
            found=convention.unit,
            hint="drop it, or give --unit voxel",
        )
    if coordinate_spacing is not None:
        ratio = np.divide(coordinate_spacing, voxel_spacing)
        coords = geometry.own_voxels(coords, ratio, zero=convention.zero, index_base=convention.index_base)
    return geometry.voxel_index(
        coords,
        unit=convention.unit,
        zero=convention.zero,
        index_base=convention.index_base,
        voxel_spacing=voxel_spacing,
        volume_shape=info.shape,
        world=info.world,
    )
