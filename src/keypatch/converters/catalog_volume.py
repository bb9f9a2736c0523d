"""One volume of the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from keypatch.converters.points import Points
    from keypatch.converters.resample import Resampling
    from keypatch.formats.volumes import VolumeInfo
    from keypatch.geometry import Shape3, Vector3


@dataclass(frozen=True)
class CatalogVolume:
    """One volume with its annotations.

    Attributes:
        id: Unique name.
        path: Where it is now.
        relative_path: From the folder that all volumes share, with slashes.
        info: Its header; of a resampled volume as it is after that.
        voxel_spacing: Å, z, y, x, that counts; of a resampled volume the new one.
        voxel_spacing_from: "header", "flag" or "annotations": where that of the file is from.
        points: Its annotations, on the grid that patches are cut on.
        resampling: From the file's grid to that one; None where these are the same.
    """

    id: str
    path: Path
    relative_path: str
    info: VolumeInfo
    voxel_spacing: Vector3
    voxel_spacing_from: str
    points: Points
    resampling: Resampling | None = None

    @property
    def source_shape(self) -> Shape3:
        """Voxels of the file, z, y, x."""
        return self.info.shape if self.resampling is None else self.resampling.source_shape

    @property
    def source_spacing(self) -> Vector3:
        """Å, z, y, x, that counts for the file."""
        return self.voxel_spacing if self.resampling is None else self.resampling.source_spacing
