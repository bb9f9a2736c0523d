"""Whether each patch has exactly the annotations within its reach: none missing, none too many."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch import geometry
from keypatch.audit.identities import patch_of_keypoint
from keypatch.gaussian import REACH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from keypatch.audit.findings import Findings
    from keypatch.audit.layout import Target

_MARGIN: Final = 1e-6
"""Relative widening of the search box; the exact rule decides afterwards."""

_BATCH: Final = 10**7
"""Pairs of patch and annotation that are looked at together: 80 MB an array of them."""

_ALL_PAIRS: Final = 2 * 10**5
"""Pairs of patch and annotation up to which each is judged: quicker than to import what searches for the near ones."""

_NEEDED: Final = (
    "patches/volume_index",
    "patches/origin",
    "patches/ds_sigma",
    "annotations/volume_index",
    "annotations/coords",
    "keypoints/annotation_index",
)


def check_reach(target: Target, findings: Findings) -> None:
    """Compare the keypoints of every patch with the annotations of its volume that `geometry.within_reach` names."""
    patch_of = patch_of_keypoint(target)
    if patch_of is None or not target.has(*_NEEDED):
        return
    n_annotations = len(target.tables["annotations/coords"])
    stored = target.tables["keypoints/annotation_index"]
    known = (stored >= 0) & (stored < n_annotations)
    # One number for a pair, so that sets of pairs are sorted arrays.
    actual = np.unique(patch_of[known] * n_annotations + stored[known])
    groups = [patches * n_annotations + annotations for patches, annotations in _expected_pairs(target)]
    expected = np.unique(np.concatenate(groups)) if groups else np.zeros(0, np.int64)
    judged = np.isin(actual // max(n_annotations, 1), np.flatnonzero(_usable_patches(target)))
    _report_missing(target, np.setdiff1d(expected, actual, assume_unique=True), n_annotations, findings)
    extra = np.setdiff1d(actual[judged], expected, assume_unique=True)
    rows = np.flatnonzero(known)[np.isin(patch_of[known] * n_annotations + stored[known], extra)]
    local = target.tables.get("keypoints/local_ds_coords")
    findings.add_rows(
        "KP312",
        "keypoints/annotation_index",
        rows,
        lambda _: f"an annotation within {REACH:g} sigmas of the box",
        lambda row: f"annotation {stored[row]}" + ("" if local is None else f" at {local[row].tolist()} on the grid"),
        lambda row: f"patch {patch_of[row]}",
    )


def _report_missing(target: Target, pairs: NDArray[Any], n_annotations: int, findings: Findings) -> None:
    path = "patches/keypoint_offsets"
    by_patch: dict[int, list[int]] = {}
    for pair in pairs.tolist():
        by_patch.setdefault(pair // n_annotations, []).append(pair % n_annotations)
    coords = target.tables["annotations/coords"]
    findings.add_rows(
        "KP311",
        path,
        np.array(sorted(by_patch), np.int64),
        lambda patch: f"annotation {by_patch[patch][0]} at {coords[by_patch[patch][0]].tolist()} among the keypoints",
        lambda patch: "none such" if len(by_patch[patch]) == 1 else f"none such, and {len(by_patch[patch]) - 1} more",
        lambda patch: f"patch {patch}",
    )


def _usable_patches(target: Target) -> NDArray[np.bool_]:
    sigma = target.tables["patches/ds_sigma"]
    usable: NDArray[np.bool_] = (np.isfinite(sigma) & (sigma > 0)).all(axis=1)
    return usable


def _expected_pairs(target: Target) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Patches and annotations, pair by pair, that belong together by the rule."""
    volume_of_patch = target.tables["patches/volume_index"].astype(np.int64)
    sigma = target.tables["patches/ds_sigma"]
    volume_of_point = target.tables["annotations/volume_index"].astype(np.int64)
    points = np.flatnonzero(np.isfinite(target.tables["annotations/coords"]).all(axis=1))
    points = points[np.argsort(volume_of_point[points], kind="stable")]
    sorted_volumes = volume_of_point[points]
    patches = np.flatnonzero(_usable_patches(target))
    for group in _groups(patches, np.column_stack([volume_of_patch.astype(np.float64), sigma])):
        volume = volume_of_patch[group[0]]
        first, last = np.searchsorted(sorted_volumes, [volume, volume + 1])
        if last > first:
            yield from _pairs_of_group(target, group, points[first:last], sigma[group[0]])


def _groups(patches: NDArray[np.int64], keys: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Patches of the same volume and sigma."""
    if not len(patches):
        return []
    order = patches[np.lexsort(keys[patches].T)]
    differs = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    return np.split(order, np.flatnonzero(differs) + 1)


def _pairs_of_group(
    target: Target, patches: NDArray[np.int64], points: NDArray[np.int64], sigma: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    factor, grid = np.array(target.attributes["ds_factor"]), np.array(target.attributes["grid_shape"])
    coords, origins = target.tables["annotations/coords"], target.tables["patches/origin"]
    pairs = (
        iter([_all_pairs(len(patches), len(points))])
        if len(patches) * len(points) <= _ALL_PAIRS
        else _near_pairs(coords[points], origins[patches], factor, grid, sigma)
    )
    for owners, near in pairs:
        local = geometry.local_ds(geometry.local_rs(coords[points[near]], origins[patches[owners]]), factor)
        hit = geometry.within_reach(local, grid, sigma, REACH)
        yield patches[owners[hit]], points[near[hit]]


def _all_pairs(n_patches: int, n_points: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every patch with every point."""
    return np.repeat(np.arange(n_patches), n_points), np.tile(np.arange(n_points), n_patches)


def _near_pairs(
    coords: NDArray[np.float64],
    origins: NDArray[np.int64],
    factor: NDArray[np.int64],
    grid: NDArray[np.int64],
    sigma: NDArray[np.float64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Every patch with the points in and around its box, a batch at a time."""
    from scipy.spatial import cKDTree  # noqa: PLC0415 - 280 ms that small stores need not wait for

    half = (grid / 2 + REACH * sigma) * factor
    # In units of the half box the search box is a cube, which the maximum norm finds.
    tree, middle = cKDTree(coords / half), origins + (grid * factor - 1) / 2
    centers: NDArray[Any] = middle / half
    counts = tree.query_ball_point(centers, 1 + _MARGIN, p=np.inf, return_length=True)
    batch = np.cumsum(counts) // _BATCH
    for part in np.split(np.arange(len(origins)), np.flatnonzero(np.diff(batch)) + 1):
        near = tree.query_ball_point(centers[part], 1 + _MARGIN, p=np.inf)
        found = np.fromiter(chain.from_iterable(near), np.int64, int(counts[part].sum()))
        yield np.repeat(part, counts[part]), found
