"""The identities between the tables: what one column says must follow from the others, for every row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from keypatch import geometry
from keypatch.audit.ranges import valid_offsets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keypatch.audit.findings import Findings
    from keypatch.audit.layout import Target

_SIGMA_TOLERANCE: Final = 1e-14
"""Relative. A sigma asked for in Å comes back from ``ds_sigma`` through three roundings, each half a unit in the last
place (1.1e-16); the stored Å may be either number."""


def check_identities(target: Target, findings: Findings) -> None:
    """Check every identity whose columns could be read. Rows whose indices point to nothing are left to the ranges."""
    _check_patches_against_volumes(target, findings)
    _check_sigma(target, findings)
    _check_folds(target, findings)
    _check_duplicates(target, findings)
    _check_annotations(target, findings)
    _check_local_ds(target, findings)
    _check_against_annotations(target, findings)
    patch_of = patch_of_keypoint(target)
    if patch_of is not None:
        _check_local_rs(target, patch_of, findings)
        _check_keypoint_volume(target, patch_of, findings)
        _check_order(target, patch_of, findings)


def patch_of_keypoint(target: Target) -> NDArray[np.int64] | None:
    """(K,) patch of each keypoint; None where the offsets are unusable."""
    if not target.has("patches/keypoint_offsets", "keypoints/class_index"):
        return None
    offsets = target.tables["patches/keypoint_offsets"]
    if not valid_offsets(offsets, len(target.tables["keypoints/class_index"])):
        return None
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def usable_volumes(target: Target, volume_index: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows whose volume exists and has a usable record."""
    known = np.array([record is not None for record in target.volumes or ()], bool)
    within = (volume_index >= 0) & (volume_index < len(known))
    good = np.zeros(len(volume_index), bool)
    good[within] = known[volume_index[within]]
    return good


def per_volume(target: Target, name: Literal["shape", "voxel_spacing", "fold"]) -> NDArray[Any]:
    """(V, 3) or, for folds, (V,) of one attribute of the records; zeros for an unusable record."""
    filler: Any = 0 if name == "fold" else (0, 0, 0)
    values = [filler if record is None else getattr(record, name) for record in target.volumes or ()]
    dtype = np.float64 if name == "voxel_spacing" else np.int64
    return np.array(values, dtype).reshape((-1,) if name == "fold" else (-1, 3))


def _compare(
    code: str,
    path: str,
    target: Target,
    rows: NDArray[Any],
    expected: NDArray[Any],
    findings: Findings,
    patch_of: NDArray[np.int64] | None = None,
) -> None:
    """Report the rows of a table that are not, bit for bit, what was expected for them.

    Args:
        code: Of the finding.
        path: Of the table.
        target: The store.
        rows: (R,) rows that are compared.
        expected: (R,) or (R, 3) values.
        findings: Added to.
        patch_of: (K,) patch of each keypoint, to name it.
    """
    if not len(rows):
        return
    values = target.tables[path]
    wanted = np.ascontiguousarray(expected, values.dtype).reshape(len(rows), -1)
    actual = np.ascontiguousarray(values[rows]).reshape(len(rows), -1)
    if values.dtype.kind == "f":
        wanted, actual = wanted.view(np.int64), actual.view(np.int64)
    at = np.flatnonzero((wanted != actual).any(axis=1))
    by_row = {int(rows[k]): expected[k] for k in at[: findings.cap]}
    findings.add_rows(
        code,
        path,
        rows[at],
        lambda row: _text(by_row[row]),
        lambda row: _text(values[row]),
        None if patch_of is None else lambda row: f"patch {patch_of[row]}",
    )


def _text(value: Any) -> str:  # noqa: ANN401 - a number or a row of three
    return str(np.asarray(value).tolist())


def _check_patches_against_volumes(target: Target, findings: Findings) -> None:
    if not target.has("patches/volume_index"):
        return
    index = target.tables["patches/volume_index"]
    rows = np.flatnonzero(usable_volumes(target, index))
    of_row = index[rows]
    if target.has("patches/voxel_spacing"):
        _compare("KP309", "patches/voxel_spacing", target, rows, per_volume(target, "voxel_spacing")[of_row], findings)
    if target.has("patches/fold"):
        _compare("KP314", "patches/fold", target, rows, per_volume(target, "fold")[of_row], findings)
    if not target.has("patches/origin"):
        return
    origins = target.tables["patches/origin"]
    shapes = per_volume(target, "shape")[of_row]
    start, stop = geometry.valid_box(origins[rows], target.attributes["patch_shape"], shapes)
    for path, box in (("patches/valid_start", start), ("patches/valid_stop", stop)):
        if target.has(path):
            _compare("KP310", path, target, rows, box, findings)
    outside = rows[(start >= stop).any(axis=1)]
    expected = "a box that meets its volume"
    findings.add_rows("KP319", "patches/origin", outside, lambda _: expected, lambda row: _text(origins[row]))


def _check_sigma(target: Target, findings: Findings) -> None:
    path = "patches/angstrom_sigma"
    if not target.has(path, "patches/ds_sigma", "patches/voxel_spacing"):
        return
    stored = target.tables[path]
    expected = geometry.angstrom_sigma(
        target.tables["patches/ds_sigma"], target.attributes["ds_factor"], target.tables["patches/voxel_spacing"]
    )
    close = np.isclose(stored, expected, rtol=_SIGMA_TOLERANCE, atol=0) | ~np.isfinite(expected)
    rows = np.flatnonzero(~close.all(axis=1))
    findings.add_rows("KP308", path, rows, lambda row: _text(expected[row]), lambda row: _text(stored[row]))


def _check_folds(target: Target, findings: Findings) -> None:
    """By the tables alone: whether the patches of one volume lie in one fold."""
    if not target.has("patches/volume_index", "patches/fold"):
        return
    index, fold = target.tables["patches/volume_index"], target.tables["patches/fold"]
    pairs = np.unique(np.stack([index.astype(np.int64), fold.astype(np.int64)], axis=1), axis=0)
    volumes, n_folds = np.unique(pairs[:, 0], return_counts=True)
    for volume in volumes[n_folds > 1]:
        folds = pairs[pairs[:, 0] == volume, 1].tolist()
        where = f"patches/fold: volume {volume}"
        findings.add("KP315", where, expected="one fold", found=f"folds {folds}", within="patches/fold")


def _check_duplicates(target: Target, findings: Findings) -> None:
    if not target.has("patches/volume_index", "patches/origin"):
        return
    boxes = np.column_stack([target.tables["patches/volume_index"].astype(np.int64), target.tables["patches/origin"]])
    order = np.lexsort(boxes.T[::-1])
    same = (boxes[order[1:]] == boxes[order[:-1]]).all(axis=1)
    # lexsort is stable, so equal boxes stand in the order of their patches and each names the one before it.
    before = dict(zip(order[1:][same].tolist(), order[:-1][same].tolist(), strict=True))
    findings.add_rows(
        "KP316",
        "patches/origin",
        np.array(sorted(before), np.int64),
        lambda _: "a box of its own",
        lambda row: f"the box of patch {before[row]}",
    )


def _check_annotations(target: Target, findings: Findings) -> None:
    if not target.has("annotations/volume_index"):
        return
    index = target.tables["annotations/volume_index"]
    sources = target.tables.get("annotations/source_index", np.zeros_like(index))
    back = (index[1:] < index[:-1]) | ((index[1:] == index[:-1]) & (sources[1:] < sources[:-1]))
    findings.add_rows(
        "KP320",
        "annotations/volume_index",
        np.flatnonzero(back) + 1,
        lambda row: f"at least volume {index[row - 1]}, source {sources[row - 1]}",
        lambda row: f"volume {index[row]}, source {sources[row]}",
    )
    if not target.has("annotations/coords"):
        return
    coords = target.tables["annotations/coords"]
    rows = np.flatnonzero(usable_volumes(target, index) & np.isfinite(coords).all(axis=1))
    shapes = per_volume(target, "shape")[index[rows]]
    outside = rows[~geometry.inside(coords[rows], shapes)]
    shape_of = {int(row): per_volume(target, "shape")[index[row]].tolist() for row in outside[: findings.cap]}
    findings.add_rows(
        "KP317",
        "annotations/coords",
        outside,
        lambda row: f"a point in a volume of {shape_of[row]}",
        lambda row: _text(coords[row]),
    )


def _check_local_ds(target: Target, findings: Findings) -> None:
    path = "keypoints/local_ds_coords"
    if target.has(path, "keypoints/local_rs_coords"):
        local_rs = target.tables["keypoints/local_rs_coords"]
        expected = geometry.local_ds(local_rs, target.attributes["ds_factor"])
        _compare("KP304", path, target, np.arange(len(local_rs)), expected, findings, patch_of_keypoint(target))


def _check_local_rs(target: Target, patch_of: NDArray[np.int64], findings: Findings) -> None:
    path = "keypoints/local_rs_coords"
    if target.has(path, "keypoints/global_coords", "patches/origin"):
        origins = target.tables["patches/origin"][patch_of]
        expected = geometry.local_rs(target.tables["keypoints/global_coords"], origins)
        _compare("KP303", path, target, np.arange(len(patch_of)), expected, findings, patch_of)


def _known_annotations(target: Target) -> NDArray[np.int64] | None:
    """Keypoints whose annotation exists; None where that cannot be told."""
    if not target.has("keypoints/annotation_index", "annotations/coords"):
        return None
    index = target.tables["keypoints/annotation_index"]
    return np.flatnonzero((index >= 0) & (index < len(target.tables["annotations/coords"])))


def _check_against_annotations(target: Target, findings: Findings) -> None:
    rows = _known_annotations(target)
    if rows is None:
        return
    annotation = target.tables["keypoints/annotation_index"][rows]
    patch_of = patch_of_keypoint(target)
    for code, path, source in (
        ("KP305", "keypoints/global_coords", "annotations/coords"),
        ("KP307", "keypoints/class_index", "annotations/class_index"),
    ):
        if target.has(path, source):
            _compare(code, path, target, rows, target.tables[source][annotation], findings, patch_of)


def _check_keypoint_volume(target: Target, patch_of: NDArray[np.int64], findings: Findings) -> None:
    rows = _known_annotations(target)
    if rows is None or not target.has("patches/volume_index", "annotations/volume_index"):
        return
    annotation = target.tables["keypoints/annotation_index"]
    patch_volume, point_volume = target.tables["patches/volume_index"], target.tables["annotations/volume_index"]
    foreign = rows[patch_volume[patch_of[rows]] != point_volume[annotation[rows]]]
    findings.add_rows(
        "KP306",
        "keypoints/annotation_index",
        foreign,
        lambda row: f"an annotation of volume {patch_volume[patch_of[row]]}",
        lambda row: f"annotation {annotation[row]} of volume {point_volume[annotation[row]]}",
        lambda row: f"patch {patch_of[row]}",
    )


def _check_order(target: Target, patch_of: NDArray[np.int64], findings: Findings) -> None:
    path = "keypoints/annotation_index"
    if not target.has(path):
        return
    annotation = target.tables[path]
    rows = np.flatnonzero((annotation[1:] <= annotation[:-1]) & (patch_of[1:] == patch_of[:-1])) + 1
    findings.add_rows(
        "KP313",
        path,
        rows,
        lambda row: f"above {annotation[row - 1]}",
        lambda row: annotation[row],
        lambda row: f"patch {patch_of[row]}",
    )
