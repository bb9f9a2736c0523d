"""Batches on a device: images through their maps there, by the rule that `keypatch.augment` has on one core.

A worker draws the map and moves the keypoints (microseconds); the image goes to the device as it lies in the store, and
through the map there. `keypatch.augment.mix` and `keypatch.torch.render` work wherever the batch is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn.functional import grid_sample

from keypatch.augment.batch import IMAGE, MAP
from keypatch.augment.rule import REAL_OF
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keypatch.augment.batch import Batch
    from keypatch.augment.maps import Map

_MODES: Final = {"zero": "zeros", "constant": "zeros", "none": "zeros", "edge": "border", "reflect": "reflection"}

_MIRRORED_AT_CENTERS: Final = ("reflect",)
"""Paddings for which -1 and 1 are the centres of the outermost voxels (align_corners): torch mirrors there, as keypatch
does, and not at the voxels' outer faces. For the others both choices name the same places; with the outer faces an
axis of one voxel has an extent."""


_REAL: Final = {getattr(torch, name): getattr(torch, real) for name, real in REAL_OF.items()}
"""The dtypes that can be interpolated, and what is calculated in."""


def to_device(batch: Batch, device: torch.device | str, *, non_blocking: bool = True) -> Batch:
    """The batch with all its tensors on a device; texts and maps stay as they are."""
    return {
        key: value.to(device, non_blocking=non_blocking) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


def resample(batch: Batch) -> Batch:
    """Send the images of a batch through the maps that were drawn for them.

    Args:
        batch: Of a data set with ``resample=False``, on any device: whole patches, with a ``map`` each.

    Returns:
        The batch with its images as their keypoints and targets have them already, within 1e-4 of what
        `keypatch.augment.read_sample` gives (relative to the largest voxel), and without maps.

    Raises:
        UsageError: If there are no maps, or they give images of different shapes.
    """
    if MAP not in batch:
        hint = "make the data set with resample=False"
        raise UsageError.at("resample", expected="a batch with maps", found="one without", hint=hint)
    maps: Sequence[Map] = batch[MAP]
    shapes = sorted({drawn.shape for drawn in maps})
    if len(shapes) > 1:
        raise UsageError.at("resample", expected="maps to one shape", found=" and ".join(map(str, shapes)))
    images = torch.stack([_through(image, drawn) for image, drawn in zip(batch[IMAGE], maps, strict=True)])
    return {key: value for key, value in batch.items() if key != MAP} | {IMAGE: images}


def _through(image: torch.Tensor, drawn: Map) -> torch.Tensor:
    """(1, D, H, W) through one map."""
    if drawn.is_identity:
        return image
    if image.dtype not in _REAL:
        raise UsageError.at("resample", expected=f"voxels of {', '.join(map(str, _REAL))}", found=str(image.dtype))
    real = _REAL[image.dtype]
    values = image.to(real) - drawn.fill if drawn.padding == "constant" else image.to(real)
    grid = _grid(drawn, image.device).to(real)
    aligned = drawn.padding in _MIRRORED_AT_CENTERS
    mode = "bilinear" if drawn.order else "nearest"
    found = grid_sample(values[None], grid[None], mode, _MODES[drawn.padding], align_corners=aligned)[0]
    if drawn.padding == "constant":
        found += drawn.fill
    return found.to(image.dtype) if image.is_floating_point() else found.round().to(image.dtype)


def _grid(drawn: Map, device: torch.device) -> torch.Tensor:
    """(d, h, w, 3) where each voxel comes from, as torch wants it: x, y, z, from -1 to 1."""
    z, y, x = (torch.arange(n, dtype=torch.float32, device=device) for n in drawn.shape)
    places = [z[:, None, None], y[:, None], x]
    if drawn.elastic is not None:
        places = [place + moved for place, moved in zip(places, _displacement(drawn, device), strict=True)]
    columns = []
    for axis in (2, 1, 0):
        n = drawn.patch_shape[axis]
        first, extent = (0.0, max(n - 1, 1)) if drawn.padding in _MIRRORED_AT_CENTERS else (-0.5, n)
        a, b, c, t = (drawn.matrix[axis] * 2 / extent).tolist()
        columns.append((a * places[0] + (t - 2 * first / extent - 1)) + b * places[1] + c * places[2])
    return torch.stack(columns, dim=-1)


def _displacement(drawn: Map, device: torch.device) -> torch.Tensor:
    """(3, d, h, w) elastic displacements of all voxels, summed over the B-splines of one axis after the other."""
    elastic = drawn.elastic
    assert elastic is not None  # noqa: S101 - asked before
    field = torch.from_numpy(elastic.control).to(device, torch.float32)
    for axis, n in enumerate(drawn.shape):
        weights = torch.from_numpy(elastic.weights(axis, np.arange(n, dtype=np.float64))).to(device, torch.float32)
        field = torch.movedim(torch.tensordot(field, weights, dims=([axis + 1], [0])), -1, axis + 1)
    return field
