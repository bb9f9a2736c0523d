"""The one place that opens a source volume to cut patches from it, so that none is cut without its resampling.

The catalog reads headers alone, before it is known which spacing counts; whoever reads voxels for a store comes here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keypatch.converters.resample import ResampledVolume
from keypatch.formats.volumes import open_volume

if TYPE_CHECKING:
    from pathlib import Path

    from keypatch.converters.resample import Resampling
    from keypatch.formats.volumes import Volume, VolumeOptions


def open_source(path: Path, options: VolumeOptions, resampling: Resampling | None) -> Volume:
    """Open a volume on the grid that its patches are cut on.

    Args:
        path: A file or a folder.
        options: For its reader.
        resampling: As the catalog decided, or the store recorded; None for the volume's own grid. It has no default on
            purpose. `keypatch.converters.resample.original` gives the file's own header, to hold against it.

    Raises:
        ReadError: If it cannot be read.
    """
    volume = open_volume(path, options)
    return volume if resampling is None else ResampledVolume(volume, resampling)
