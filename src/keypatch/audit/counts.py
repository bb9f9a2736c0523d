"""How keypoints, classes, folds and kinds are spread over the patches of a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch import geometry
from keypatch.formats.store.schema import NO_FOLD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from keypatch.formats.store import Store

QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Of the distances to the border."""

NEAR: Final = (1.0, 2.0, 3.0)
"""Sigmas within which a keypoint's Gaussian is cut off by the border to a degree that a network notices."""

_DISTANCE_BINS: Final = 24


@dataclass(frozen=True)
class ClassCounts:
    """What there is of one class.

    Attributes:
        annotations: Of the sources' volumes.
        in_no_patch: Of these, those that lie inside no patch's box.
        out_of_reach: Of these, those that no patch has even as a keypoint beyond its box.
        keypoints: Rows of keypoints/; an annotation counts once for each patch that has it.
        inside: Of these, those inside the box of their patch.
        outside: The others, whose Gaussians reach in.
        patches: Patches with one inside, or more.
        per_patch: Keypoints inside a patch to the number of such patches.
    """

    annotations: int
    in_no_patch: int
    out_of_reach: int
    keypoints: int
    inside: int
    outside: int
    patches: int
    per_patch: Mapping[int, int]


@dataclass(frozen=True)
class FoldCounts:
    """What one fold holds.

    Attributes:
        volumes: In it.
        patches: In it.
        empty: Of these, those without a keypoint inside.
        kinds: Patches by kind.
        annotations: By class.
        keypoints: Inside their patch, by class.
    """

    volumes: int
    patches: int
    empty: int
    kinds: Mapping[str, int]
    annotations: Mapping[str, int]
    keypoints: Mapping[str, int]


@dataclass(frozen=True)
class BorderDistances:
    """How far the keypoints inside a patch lie from its border, along the nearest axis.

    Attributes:
        keypoints: Inside their patch.
        voxels: Quantile (0 … 1, see `QUANTILES`) to the distance in voxels; empty without a keypoint.
        nearer_than: Sigmas to the share of keypoints that lie nearer than that on some axis, see `NEAR`.
        edges: Of the histogram's bins, voxels; one more than there are bins.
        counts: Keypoints a bin.
    """

    keypoints: int
    voxels: Mapping[float, float]
    nearer_than: Mapping[float, float]
    edges: Sequence[float]
    counts: Sequence[int]


@dataclass(frozen=True)
class KeypointRows:
    """What every count needs of the rows of keypoints/.

    Attributes:
        owner: (K,) patch of each.
        inside: (K,) whether it lies in its patch's box.
        class_index: (K,) of each.
        annotation: (K,) row of annotations/ that each comes from.
    """

    owner: NDArray[np.int64]
    inside: NDArray[np.bool_]
    class_index: NDArray[np.int32]
    annotation: NDArray[np.int64]

    @classmethod
    def of(cls, store: Store) -> KeypointRows:
        """Read them.

        Raises:
            StoreError: If a table cannot be read.
        """
        counts = np.diff(store.table("patches/keypoint_offsets"))
        return cls(
            owner=np.repeat(np.arange(len(counts)), counts),
            inside=geometry.inside(store.table("keypoints/local_rs_coords"), store.patch_shape),
            class_index=store.table("keypoints/class_index"),
            annotation=store.table("keypoints/annotation_index"),
        )


def count_classes(store: Store, rows: KeypointRows) -> dict[str, ClassCounts]:
    """By name, in the store's order."""
    return {name: _class_counts(store, c, rows) for c, name in enumerate(store.classes)}


def count_folds(store: Store, rows: KeypointRows) -> dict[int, FoldCounts]:
    """By the fold's number; empty where there are no folds. A fold without a patch has no entry."""
    folds = store.table("patches/fold")
    return {int(fold): _fold_counts(store, int(fold), rows) for fold in np.unique(folds[folds != NO_FOLD])}


def border_distances(store: Store, rows: KeypointRows) -> BorderDistances:
    """See `BorderDistances`."""
    points = store.table("keypoints/local_rs_coords")[rows.inside]
    size = np.array(store.patch_shape, np.float64)
    to_border = np.minimum(points + 0.5, size - 0.5 - points)
    sigma = (store.table("patches/ds_sigma") * np.array(store.ds_factor))[rows.owner[rows.inside]]
    distance = to_border.min(axis=1)
    in_sigmas = (to_border / sigma).min(axis=1)
    counts, edges = np.histogram(distance, bins=_DISTANCE_BINS, range=(0, float(size.min()) / 2))
    n = len(distance)
    return BorderDistances(
        keypoints=n,
        voxels=dict(zip(QUANTILES, np.quantile(distance, QUANTILES).tolist(), strict=True)) if n else {},
        nearer_than={near: float(np.mean(in_sigmas < near)) for near in NEAR} if n else {},
        edges=edges.tolist(),
        counts=counts.tolist(),
    )


def named_counts(names: Sequence[str], indices: NDArray[Any]) -> dict[str, int]:
    """How often each position of a list occurs, by its name."""
    counts = np.bincount(indices, minlength=len(names))
    return {name: int(n) for name, n in zip(names, counts, strict=True)}


def histogram(values: NDArray[Any]) -> dict[int, int]:
    """How often each integer occurs."""
    found, counts = np.unique(values, return_counts=True)
    return {int(value): int(n) for value, n in zip(found, counts, strict=True)}


def _class_counts(store: Store, c: int, rows: KeypointRows) -> ClassCounts:
    mine = rows.class_index == c
    annotations = np.flatnonzero(store.table("annotations/class_index") == c)
    per_patch = np.bincount(rows.owner[mine & rows.inside], minlength=len(store))
    n_all, n_inside = int(np.count_nonzero(mine)), int(np.count_nonzero(mine & rows.inside))
    return ClassCounts(
        annotations=len(annotations),
        in_no_patch=int(np.count_nonzero(~np.isin(annotations, rows.annotation[rows.inside]))),
        out_of_reach=int(np.count_nonzero(~np.isin(annotations, rows.annotation))),
        keypoints=n_all,
        inside=n_inside,
        outside=n_all - n_inside,
        patches=int(np.count_nonzero(per_patch)),
        per_patch=histogram(per_patch),
    )


def _fold_counts(store: Store, fold: int, rows: KeypointRows) -> FoldCounts:
    mine = store.table("patches/fold") == fold
    # A fold's volumes are those of its patches: the record of a volume without a patch says nothing that trains.
    volumes = np.unique(store.table("patches/volume_index")[mine])
    annotated = np.isin(store.table("annotations/volume_index"), volumes)
    seen = rows.inside & mine[rows.owner]
    return FoldCounts(
        volumes=len(volumes),
        patches=int(np.count_nonzero(mine)),
        empty=int(np.count_nonzero(mine)) - len(np.unique(rows.owner[seen])),
        kinds=named_counts(store.kinds, store.table("patches/kind")[mine]),
        annotations=named_counts(store.classes, store.table("annotations/class_index")[annotated]),
        keypoints=named_counts(store.classes, rows.class_index[seen]),
    )
