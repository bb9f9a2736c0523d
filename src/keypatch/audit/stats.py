"""`stats`: what a store holds, and what its format saves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.audit.counts import (
    BorderDistances,
    ClassCounts,
    FoldCounts,
    KeypointRows,
    border_distances,
    count_classes,
    count_folds,
    histogram,
    named_counts,
)
from keypatch.audit.coverage import Uncovered, VolumeOverlap, find_overlap, find_uncovered
from keypatch.audit.intensity import VolumeIntensity, measure_intensity
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
from keypatch.audit.timing import TargetTiming, time_targets
from keypatch.errors import UsageError
from keypatch.formats.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike


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
        folds: What each fold holds, by its number.
        keypoints_per_patch: Keypoints inside a patch, of any class, to the number of such patches.
        borders: How far keypoints lie from the border of their patch.
        uncovered: Every annotation that lies in no patch.
        overlap: How the patches of each volume lie over each other.
        intensity: The stored voxels of each volume.
        parts: Bytes of each part; their sums are the whole store.
        full_gaussian: What "patch + full-resolution Gaussian" would take, by dtype.
        savings: Where the saving comes from.
        memory: Of one patch when loaded.
        timing: Reading a target against rendering it; the only figures that differ from run to run.
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
    folds: Mapping[int, FoldCounts]
    keypoints_per_patch: Mapping[int, int]
    borders: BorderDistances
    uncovered: tuple[Uncovered, ...]
    overlap: tuple[VolumeOverlap, ...]
    intensity: tuple[VolumeIntensity, ...]
    parts: tuple[Part, ...]
    full_gaussian: tuple[FullGaussian, ...]
    savings: Savings
    memory: PatchMemory
    timing: TargetTiming

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
        shares = [
            {"covered_share": volume.covered_share, "shared_share": volume.shared_share} for volume in self.overlap
        ]
        result["overlap"] = [entry | share for entry, share in zip(result["overlap"], shares, strict=True)]
        return result | {"raw": self.raw, "on_disk": self.on_disk}


def stats(path: str | PathLike[str], sample: int | None = None, seed: int = 0, *, every: bool = False) -> StoreStats:
    """Count what a store holds, and measure what it saves against full-resolution Gaussians.

    Args:
        path: A store in a local folder.
        sample: Patches whose full-resolution Gaussians are rendered and compressed, and as many whose voxels are
            counted; None takes all where that is little work, else a sample. A sample's totals have a 95 % interval.
        seed: Of the sample.
        every: Take all patches, however much work that is.

    Raises:
        StoreError: If there is no keypatch store in a local folder, or a part of it cannot be read.
        UsageError: If the sample is too small for an interval, or all patches are asked for as well.
    """
    if every and sample is not None:
        raise UsageError.at("--sample", expected="either a sample or --all", found="both")
    store = Store(os.fspath(path))
    local_folder(store)
    parts = measure_parts(store)
    rows = KeypointRows.of(store)
    fold_counts = count_folds(store, rows)
    full_gaussian = compare_with_full(store, parts, sample, seed, every=every)
    return StoreStats(
        path=store.path,
        digest=store.digest,
        patches=len(store),
        keypoints=len(rows.owner),
        annotations=len(store.table("annotations/coords")),
        patches_by_kind=named_counts(store.kinds, store.table("patches/kind")),
        patches_by_fold={fold: counts.patches for fold, counts in fold_counts.items()},
        patches_by_volume=named_counts(store.volume_ids, store.table("patches/volume_index")),
        classes=count_classes(store, rows),
        folds=fold_counts,
        keypoints_per_patch=histogram(np.bincount(rows.owner[rows.inside], minlength=len(store))),
        borders=border_distances(store, rows),
        uncovered=find_uncovered(store, rows),
        overlap=find_overlap(store),
        intensity=measure_intensity(store, sample, seed, every=every),
        parts=parts,
        full_gaussian=full_gaussian,
        savings=find_savings(store, parts),
        memory=loaded_bytes(store),
        timing=time_targets(store, seed),
    )
