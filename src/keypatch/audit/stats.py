"""`stats`: what a store holds, and what its format saves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch import geometry
from keypatch.audit.jsonable import jsonable
from keypatch.audit.savings import (
    FullGaussian,
    Part,
    PatchMemory,
    Savings,
    compare_with_full,
    find_savings,
    loaded_bytes,
    local_folder,
    measure_parts,
)
from keypatch.formats.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray


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
class StoreStats:
    """What `stats` counted.

    Attributes:
        path: The store.
        digest: As it is written in the store; `validate` proves it.
        patches: N.
        keypoints: K.
        annotations: A.
        patches_by_kind: Every kind, also those without a patch.
        patches_by_fold: By the fold's number; empty where there are no folds.
        patches_by_volume: Every volume by its id, in the store's order.
        classes: By name, in the store's order.
        keypoints_per_patch: Keypoints inside a patch, of any class, to the number of such patches.
        parts: Bytes of each part; their sums are the whole store.
        full_gaussian: What "patch + full-resolution Gaussian" would take, by dtype.
        savings: Where the saving comes from.
        memory: Of one patch when loaded.
    """

    path: str
    digest: str
    patches: int
    keypoints: int
    annotations: int
    patches_by_kind: Mapping[str, int]
    patches_by_fold: Mapping[int, int]
    patches_by_volume: Mapping[str, int]
    classes: Mapping[str, ClassCounts]
    keypoints_per_patch: Mapping[int, int]
    parts: tuple[Part, ...]
    full_gaussian: tuple[FullGaussian, ...]
    savings: Savings
    memory: PatchMemory

    @property
    def raw(self) -> int:
        """Bytes of all arrays, decoded."""
        return sum(part.raw for part in self.parts)

    @property
    def on_disk(self) -> int:
        """Bytes of all files."""
        return sum(part.on_disk for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result | {"raw": self.raw, "on_disk": self.on_disk}


def stats(path: str | PathLike[str], sample: int | None = None, seed: int = 0) -> StoreStats:
    """Count what a store holds, and measure what it saves against full-resolution Gaussians.

    Args:
        path: A store in a local folder.
        sample: Patches whose full-resolution Gaussians are rendered and compressed; None takes all where that is
            little work, else a sample. A sample's totals have a 95 % interval.
        seed: Of the sample.

    Raises:
        StoreError: If there is no keypatch store in a local folder, or a part of it cannot be read.
        UsageError: If the sample is too small for an interval.
    """
    store = Store(os.fspath(path))
    local_folder(store)
    parts = measure_parts(store)
    owner = _patch_of_keypoint(store)
    inside = geometry.inside(store.table("keypoints/local_rs_coords"), store.patch_shape)
    folds = store.table("patches/fold")
    return StoreStats(
        path=store.path,
        digest=store.digest,
        patches=len(store),
        keypoints=len(owner),
        annotations=len(store.table("annotations/coords")),
        patches_by_kind=_named_counts(store.kinds, store.table("patches/kind")),
        patches_by_fold=_histogram(folds[folds >= 0]),
        patches_by_volume=_named_counts(store.volume_ids, store.table("patches/volume_index")),
        classes={name: _class_counts(store, c, owner, inside) for c, name in enumerate(store.classes)},
        keypoints_per_patch=_histogram(np.bincount(owner[inside], minlength=len(store))),
        parts=parts,
        full_gaussian=compare_with_full(store, parts, sample, seed),
        savings=find_savings(store, parts),
        memory=loaded_bytes(store),
    )


def _patch_of_keypoint(store: Store) -> NDArray[np.int64]:
    counts = np.diff(store.table("patches/keypoint_offsets"))
    return np.repeat(np.arange(len(counts)), counts)


def _class_counts(store: Store, c: int, owner: NDArray[np.int64], inside: NDArray[np.bool_]) -> ClassCounts:
    mine = store.table("keypoints/class_index") == c
    annotations = np.flatnonzero(store.table("annotations/class_index") == c)
    used = store.table("keypoints/annotation_index")
    per_patch = np.bincount(owner[mine & inside], minlength=len(store))
    n_inside = int(np.count_nonzero(mine & inside))
    return ClassCounts(
        annotations=len(annotations),
        in_no_patch=int(np.count_nonzero(~np.isin(annotations, used[inside]))),
        out_of_reach=int(np.count_nonzero(~np.isin(annotations, used))),
        keypoints=int(np.count_nonzero(mine)),
        inside=n_inside,
        outside=int(np.count_nonzero(mine)) - n_inside,
        patches=int(np.count_nonzero(per_patch)),
        per_patch=_histogram(per_patch),
    )


def _named_counts(names: tuple[str, ...], indices: NDArray[Any]) -> dict[str, int]:
    counts = np.bincount(indices, minlength=len(names))
    return {name: int(n) for name, n in zip(names, counts, strict=True)}


def _histogram(values: NDArray[Any]) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    return {int(value): int(n) for value, n in zip(found, counts, strict=True)}
