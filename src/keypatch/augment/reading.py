"""From a store and a map to a sample, in one pass over the window that the map needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keypatch.augment.maps import Map
from keypatch.augment.resample import resample
from keypatch.augment.sample import Keypoints, Sample

if TYPE_CHECKING:
    from keypatch.formats.store import Store


def read_sample(store: Store, patch: int, map: Map | None = None) -> Sample:  # noqa: A002 - the word of the field
    """Read one patch through a map.

    Args:
        store: Opened.
        patch: Its number; negative counts from the end.
        map: As `Geometric.draw` gives it; the patch as it lies there when left out.

    Raises:
        IndexError: If there is no such patch.
        UsageError: If the map is for patches of another shape, or leaves the patch where padding is "none".
        CorruptionError: If bytes are missing or fail their checksum.
    """
    found = store[patch]
    drawn = Map.identity(store.patch_shape) if map is None else map
    keypoints = Keypoints.of(drawn.to_sample(found.local_rs_coords), found.class_index, found.annotation_index)
    image = found.image if drawn.is_identity else resample(found.image, drawn)
    z, y, x = (float(s) for s in found.voxel_spacing)
    return Sample(
        image, keypoints, found.index, found.kind, found.fold, found.volume, (z, y, x), np.array(found.origin), drawn
    )
