"""Random batches for tests, and one as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from keypatch.augment.batch import render_targets

SHAPE, FACTOR, N_CLASSES = (8, 12, 16), 4, 2


def random_batch(
    seed: int = 0,
    n_samples: int = 3,
    n_points: int = 12,
    *,
    dtype: str = "float32",
    shape: tuple[int, int, int] = SHAPE,
    covariance: bool = False,
) -> dict[str, Any]:
    """A batch whose voxels all differ and whose keypoints lie in and around the images, weights other than 1."""
    rng = np.random.default_rng(seed)
    n_voxels = n_samples * int(np.prod(shape))
    values = rng.permutation(n_voxels) if np.dtype(dtype).kind == "f" else rng.integers(0, 128, n_voxels)
    points = rng.uniform(-4, np.array(shape) + 3, (n_points, 3))
    batch: dict[str, Any] = {
        "image": values.astype(dtype).reshape(n_samples, 1, *shape),
        "keypoints": points,
        "class_index": rng.integers(0, N_CLASSES, n_points),
        "weight": rng.uniform(0.2, 1, n_points).astype(np.float32),
        "annotation_index": np.arange(n_points),
        "sigma": rng.uniform(0.5, 1.5, (n_points, 3)),
        "batch_index": np.sort(rng.integers(0, n_samples, n_points)),
    }
    if covariance:
        linear = rng.normal(size=(n_points, 3, 3)) + 2 * np.eye(3)
        batch["covariance"] = linear @ linear.transpose(0, 2, 1)
    batch["target"] = render_targets(batch, n_classes=N_CLASSES, grid=tuple(n // FACTOR for n in shape))
    return batch


def as_tensors(batch: dict[str, Any]) -> dict[str, Any]:
    """The same batch for torch."""
    import torch

    return {key: torch.from_numpy(np.array(value)) for key, value in batch.items()}
