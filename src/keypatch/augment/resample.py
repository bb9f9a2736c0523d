"""Images through a map: exact copies where voxels fall on voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keypatch.augment.maps import Map


def resample(image: NDArray[Any], map: Map) -> NDArray[Any]:  # noqa: A002 - the word of the field
    """A (D, H, W) image through a map that is exact and stays inside."""
    axes = [int(np.flatnonzero(row)[0]) for row in map.matrix[:3, :3]]
    turned = image.transpose(np.argsort(axes))
    back = [a for a, row in enumerate(map.matrix[:3, :3]) if row.sum() < 0]
    return np.ascontiguousarray(np.flip(turned, tuple(axes[a] for a in back)))
