"""Offsets and indices of the tables: the checks that must hold before a row may be looked up by another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.audit.attributes import fold_range
from keypatch.formats.store.schema import KINDS, NO_FOLD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keypatch.audit.findings import Findings
    from keypatch.audit.layout import Target


def check_ranges(target: Target, findings: Findings) -> None:
    """Report offsets that are not monotone from 0 to K, indices that point to nothing, and numbers that are none."""
    _check_offsets(target, findings)
    n_volumes = None if target.volumes is None else len(target.volumes)
    n_classes = len(target.attributes["classes"])
    n_annotations = len(target.tables["annotations/coords"]) if target.has("annotations/coords") else None
    for path, limit in (
        ("patches/volume_index", n_volumes),
        ("patches/kind", len(KINDS)),
        ("keypoints/class_index", n_classes),
        ("keypoints/annotation_index", n_annotations),
        ("annotations/volume_index", n_volumes),
        ("annotations/class_index", n_classes),
        ("annotations/source_index", target.n_sources),
        ("annotations/source_row", 2**62),
    ):
        if limit is not None and target.has(path):
            _check_index(path, target.tables[path], 0, limit, f"0 … {limit - 1}", findings)
    n_folds = target.attributes.get("folds")
    if target.has("patches/fold") and type(n_folds) is int and 0 <= n_folds < 2**62:
        low, stop = (0, n_folds) if n_folds else (NO_FOLD, NO_FOLD + 1)
        _check_index("patches/fold", target.tables["patches/fold"], low, stop, fold_range(n_folds), findings)
    for path in ("patches/ds_sigma", "patches/angstrom_sigma", "patches/voxel_spacing"):
        _check_numbers(target, path, findings, positive=True)
    for space in ("keypoints/global_coords", "keypoints/local_rs_coords", "keypoints/local_ds_coords"):
        _check_numbers(target, space, findings, positive=False)
    _check_numbers(target, "annotations/coords", findings, positive=False)


def valid_offsets(offsets: NDArray[Any], n_keypoints: int) -> bool:
    """Whether offsets run from 0 to K and never back."""
    return bool(offsets[0] == 0 and offsets[-1] == n_keypoints and (offsets[1:] >= offsets[:-1]).all())


def _check_offsets(target: Target, findings: Findings) -> None:
    path = "patches/keypoint_offsets"
    if not target.has(path):
        return
    offsets = target.tables[path]
    if offsets[0] != 0:
        findings.add("KP301", f"{path}[0]", expected=0, found=offsets[0])
    back = np.flatnonzero(offsets[1:] < offsets[:-1]) + 1
    findings.add_rows("KP301", path, back, lambda i: f"at least {offsets[i - 1]}", lambda i: offsets[i])
    if target.has("keypoints/class_index"):
        n_keypoints = len(target.tables["keypoints/class_index"])
        if offsets[-1] != n_keypoints:
            where = f"{path}[{len(offsets) - 1}]"
            findings.add("KP301", where, expected=f"{n_keypoints}, the rows of keypoints/", found=offsets[-1])


def _check_index(path: str, values: NDArray[Any], low: int, stop: int, expected: str, findings: Findings) -> None:
    rows = np.flatnonzero((values < low) | (values >= stop))
    findings.add_rows("KP302", path, rows, lambda _: expected, lambda row: values[row])


def _check_numbers(target: Target, path: str, findings: Findings, *, positive: bool) -> None:
    if not target.has(path):
        return
    values = target.tables[path]
    good = np.isfinite(values) & (values > 0) if positive else np.isfinite(values)
    rows = np.flatnonzero(~good.all(axis=1))
    expected = "numbers above 0" if positive else "finite numbers"
    findings.add_rows("KP318", path, rows, lambda _: expected, lambda row: values[row].tolist())
