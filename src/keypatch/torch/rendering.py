"""The Gaussian target of a whole batch, on the device that the batch is on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

from keypatch.augment.batch import BATCH_INDEX, COVARIANCE, IMAGE, POINTS, WEIGHT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keypatch.augment.batch import Batch

LARGEST_STEP: Final = 2**22
"""Values of Gaussians that are held at once, 32 MB of float64: thousands of keypoints come in several steps."""


def render(batch: Batch, *, n_classes: int, grid: Sequence[int]) -> torch.Tensor:
    """Write the targets of a batch of tensors from its keypoints, by the formula of `keypatch.gaussian`.

    Args:
        batch: With an image of shape (B, 1, D, H, W) and keypoints whose classes are below ``n_classes``.
        n_classes: Channels C.
        grid: (d, h, w) of the coarse grid; must divide the image's shape.

    Returns:
        (B, C, d, h, w) float32 on the image's device, computed in float64 and rounded once.
    """
    image = batch[IMAGE]
    n_voxels = math.prod(grid)
    shape = (len(image), n_classes, *grid)
    flat = torch.zeros((len(image) * n_classes, n_voxels), dtype=torch.float64, device=image.device)
    slots = batch[BATCH_INDEX] * n_classes + batch["class_index"]
    step = max(LARGEST_STEP // max(n_voxels, 1), 1)
    for first in range(0, len(slots), step):
        rows = slice(first, first + step)
        values = _values(batch, rows, grid) * batch[WEIGHT][rows, None].double()
        flat.scatter_reduce_(0, slots[rows, None].expand_as(values), values, "amax")
    return flat.reshape(shape).float()


def _values(batch: Batch, rows: slice, grid: Sequence[int]) -> torch.Tensor:
    """(K, d * h * w) Gaussians of some keypoints, each with its peak at 1."""
    points = batch[POINTS][rows].double()
    size = points.new_tensor(batch[IMAGE].shape[-3:])
    center = (points + 0.5) * (points.new_tensor(grid) / size) - 0.5
    offsets = [torch.arange(n, dtype=torch.float64, device=points.device) - center[:, [k]] for k, n in enumerate(grid)]
    if COVARIANCE in batch:
        return torch.exp(-0.5 * _squares(offsets, torch.linalg.inv(batch[COVARIANCE][rows].double()))).flatten(1)
    sigma = batch["sigma"][rows].double()
    z, y, x = (torch.exp(-0.5 * (offset / sigma[:, [k]]) ** 2) for k, offset in enumerate(offsets))
    return (z[:, :, None, None] * (y[:, None, :, None] * x[:, None, None, :])).flatten(1)


def _squares(offsets: list[torch.Tensor], precision: torch.Tensor) -> torch.Tensor:
    """(K, d, h, w) squared distances ``o^T P o``."""
    z, y, x = offsets[0][:, :, None, None], offsets[1][:, None, :, None], offsets[2][:, None, None, :]
    p = precision[:, :, :, None, None, None]
    square = p[:, 0, 0] * z * z + p[:, 1, 1] * y * y + p[:, 2, 2] * x * x
    return square + 2 * (p[:, 0, 1] * z * y + p[:, 0, 2] * z * x + p[:, 1, 2] * y * x)
