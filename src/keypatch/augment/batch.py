"""Samples as dictionaries of arrays, batches of them, and what is done to batches of numpy arrays and of tensors alike.

A sample's keypoints are rows of a few arrays. A batch has the rows of all its samples one after the other, and beside
them ``batch_index``, the number of the sample that each belongs to: no row stands for nothing, and a batch without a
keypoint has arrays of length 0.

The names of numpy and torch agree in what is used here, so that one function serves both: there is one definition.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from keypatch import gaussian, geometry
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Example: TypeAlias = dict[str, Any]
"""A sample: see `EXAMPLE_KEYS` and `POINT_KEYS`."""

Batch: TypeAlias = dict[str, Any]
"""Samples together: `EXAMPLE_KEYS` stacked, the rows of `POINT_KEYS` one after the other, and ``batch_index``."""

IMAGE: Final = "image"
TARGET: Final = "target"
POINTS: Final = "keypoints"
WEIGHT: Final = "weight"
BATCH_INDEX: Final = "batch_index"
MAP: Final = "map"
COVARIANCE: Final = "covariance"

POINT_KEYS: Final[dict[str, str]] = {
    POINTS: "(K, 3) float64 index coordinates in the image, z, y, x; some lie outside and reach in",
    "class_index": "(K,) int64 channel of the target",
    WEIGHT: "(K,) float32 that the keypoint's Gaussian is multiplied by",
    "annotation_index": "(K,) int64 row of the store's annotations",
    "sigma": "(K, 3) float64 sigma of the target in coarse voxels",
    COVARIANCE: "(K, 3, 3) float64 in coarse voxels squared, which counts in place of sigma; in mode covariance only",
}
"""What there is of each keypoint."""

EXAMPLE_KEYS: Final[dict[str, str]] = {
    IMAGE: "(1, D, H, W) voxels",
    TARGET: "(C, d, h, w) Gaussians",
    "store": "number of the store",
    "patch": "number of the patch in its store",
    "kind": "position in the data set's kinds",
    "fold": "of the volume; -1 where there are no folds",
    "volume": "id of the volume",
    "origin": "(3,) int64 volume index of the patch's voxel (0, 0, 0)",
    "voxel_spacing": "(3,) float64 Å a voxel",
    "matrix": "(4, 4) float64 from the image's index (z, y, x, 1) to the patch's, less the elastic part",
    "draw": "(4,) int64 seed, epoch, index and turn: what the sample's random numbers come from",
}
"""What there is of each sample beside its keypoints."""


def namespace(array: Any) -> Any:  # noqa: ANN401 - numpy or torch, of which torch must not be imported here
    """The module that an array is of."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]


def cast(array: Any, dtype: Any) -> Any:  # noqa: ANN401 - of numpy or torch
    """An array or a tensor in another dtype of its own library."""
    return array.astype(dtype) if isinstance(array, np.ndarray) else array.to(dtype)


def collate(examples: Sequence[Example]) -> Batch:
    """Put samples of numpy arrays together; `keypatch.torch.collate` does so with tensors.

    Raises:
        UsageError: If there is none, or images or targets differ in shape.
    """
    check_same_shapes(examples)
    batch: Batch = {
        key: _together([example[key] for example in examples]) for key in EXAMPLE_KEYS if key in examples[0]
    }
    return batch | join_maps(examples) | join_points(examples, np)


def join_maps(examples: Sequence[Example]) -> Batch:
    """The maps of all samples, where their images have not gone through them yet."""
    return {MAP: [example[MAP] for example in examples]} if MAP in examples[0] else {}


def join_points(examples: Sequence[Example], library: Any) -> Batch:  # noqa: ANN401 - numpy or torch
    """The keypoints of all samples, and the number of the sample that each is of."""
    joined = {
        key: library.concatenate([example[key] for example in examples]) for key in POINT_KEYS if key in examples[0]
    }
    joined[BATCH_INDEX] = library.asarray(
        np.repeat(np.arange(len(examples)), [len(example[POINTS]) for example in examples])
    )
    return joined


def check_same_shapes(examples: Sequence[Example]) -> None:
    """Refuse what cannot be one batch.

    Raises:
        UsageError: If there is no sample, or images or targets differ in shape, or in what their keypoints have.
    """
    if not examples:
        raise UsageError.at("batch", expected="at least one sample", found="none")
    first = examples[0]
    for key, hint in ((IMAGE, "crop them to one shape"), (TARGET, "ask for one ds_factor and the same classes")):
        shapes = sorted({tuple(example[key].shape) for example in examples if key in example})
        if len(shapes) > 1:
            raise UsageError.at(
                "batch", expected=f"one shape of {key}", found=" and ".join(map(str, shapes)), hint=hint
            )
    for example in examples:
        if example.keys() != first.keys():
            differing = ", ".join(sorted(example.keys() ^ first.keys()))
            raise UsageError.at("batch", expected="samples with the same entries", found=f"{differing} in some of them")


def split_keypoints(batch: Batch) -> list[dict[str, Any]]:
    """The keypoints of each sample of a batch: its `POINT_KEYS`, each with the sample's own rows."""
    rows = batch[BATCH_INDEX]
    own = [rows == i for i in range(len(batch[IMAGE]))]
    return [{key: batch[key][mine] for key in POINT_KEYS if key in batch} for mine in own]


def render_targets(batch: Batch, *, n_classes: int, grid: Sequence[int]) -> Any:  # noqa: ANN401 - as the batch's arrays
    """Write the targets of a batch from its keypoints; see `keypatch.gaussian.render`.

    Args:
        batch: With an image of shape (B, 1, D, H, W).
        n_classes: Channels C.
        grid: (d, h, w) of the coarse grid; must divide the image's shape.

    Returns:
        (B, C, d, h, w) float32, a tensor on the batch's device where the batch is one of tensors.
    """
    if not isinstance(batch[IMAGE], np.ndarray):
        from keypatch.torch.rendering import render  # noqa: PLC0415 - nothing here needs torch but this

        return render(batch, n_classes=n_classes, grid=grid)
    shape = batch[IMAGE].shape[-3:]
    targets = [render_target(points, shape, n_classes=n_classes, grid=grid) for points in split_keypoints(batch)]
    return np.stack(targets)


def render_target(
    points: Mapping[str, NDArray[Any]], shape: Sequence[int], *, n_classes: int, grid: Sequence[int]
) -> NDArray[np.float32]:
    """Write the target of one sample.

    Args:
        points: Arrays of `POINT_KEYS`.
        shape: (D, H, W) of the image.
        n_classes: Channels C.
        grid: (d, h, w) of the coarse grid; must divide the image's shape.

    Returns:
        (C, d, h, w) float32.
    """
    place = geometry.local_ds(points[POINTS], np.array(shape) / np.array(grid))
    common: dict[str, Any] = {"n_classes": n_classes, "grid": grid, "weight": points[WEIGHT]}
    if COVARIANCE in points:
        return gaussian.render_covariance(place, points["class_index"], covariance=points[COVARIANCE], **common)
    return gaussian.render(place, points["class_index"], sigma=points["sigma"], **common)


def _together(values: Sequence[Any]) -> Any:  # noqa: ANN401 - an array, or the texts as they are
    return list(values) if isinstance(values[0], str) else np.stack([np.asarray(value) for value in values])
