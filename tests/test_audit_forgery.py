"""Forgery: a change is written validly and all digests of metadata are made to fit, so that only content tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from keypatch.audit.findings import CODES
from keypatch.audit.validate import validate

from .stores import (
    Case,
    Made,
    Spoiled,
    attribute,
    cell,
    copy_of,
    edit_attributes,
    edit_json,
    edit_table,
    make_store,
    nested,
    nudge,
    reseal,
    volume,
)

KEYPOINT_COLUMNS = ("global_coords", "local_rs_coords", "local_ds_coords", "class_index", "annotation_index")
ROOT = ("zarr.json", "attributes", "keypatch")
IMAGE, TARGET = "image/zarr.json", "gaussian/zarr.json"
SHARDING = ("codecs", 0, "configuration")
GRID = ("chunk_grid", "configuration", "chunk_shape")
SCALING = {
    "dtype": "uint8",
    "scale": 1.0,
    "offset": 0.0,
    "low": None,
    "high": None,
    "percentiles": None,
    "clipped_share": None,
}
VOLUMES = "volumes/zarr.json: volumes"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


@pytest.fixture
def store(made: Made, tmp_path: Path) -> Spoiled:
    return copy_of(made, tmp_path)


def _edit_keypoints(store: Spoiled, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for name in KEYPOINT_COLUMNS:
        edit_table(store, f"keypoints/{name}", change)
    n = len(change(store.made.columns["keypoints/class_index"]))
    edit_attributes(store, lambda a: a["counts"].update(keypoints=n))


def _drop_keypoint(store: Spoiled) -> None:
    """Take the first keypoint of patch 0 out, consistently in all tables."""
    _edit_keypoints(store, lambda values: values[1:])
    edit_table(store, "patches/keypoint_offsets", lambda values: np.maximum(values - 1, 0))


def _far_annotation(made: Made) -> tuple[int, int]:
    """A patch and an annotation of its volume behind its last keypoint, which is not within its reach."""
    offsets, kept = made.columns["patches/keypoint_offsets"], made.columns["keypoints/annotation_index"]
    for patch, v in enumerate(made.columns["patches/volume_index"]):
        last = int(np.flatnonzero(made.columns["annotations/volume_index"] == v)[-1])
        near = kept[offsets[patch] : offsets[patch + 1]].tolist()
        if last not in near:
            return patch, last
    raise AssertionError


def _add_far_keypoint(store: Spoiled) -> None:
    """Give a patch a keypoint that is not within its reach, consistently in all tables."""
    made = store.made
    patch, annotation = _far_annotation(made)
    row = int(made.columns["patches/keypoint_offsets"][patch + 1])
    point = made.columns["annotations/coords"][annotation]
    rs = point - made.columns["patches/origin"][patch]
    new = {
        "global_coords": point,
        "local_rs_coords": rs,
        "local_ds_coords": (rs + 0.5) / made.layout.ds_factor - 0.5,
        "class_index": made.columns["annotations/class_index"][annotation],
        "annotation_index": annotation,
    }
    for name, value in new.items():
        edit_table(store, f"keypoints/{name}", lambda v, value=value: np.insert(v, row, value, axis=0))
    edit_table(store, "patches/keypoint_offsets", lambda v: np.where(np.arange(len(v)) > patch, v + 1, v))
    edit_attributes(store, lambda a: a["counts"].update(keypoints=a["counts"]["keypoints"] + 1))


def _swap_keypoints(store: Spoiled) -> None:
    """Exchange the first two keypoints of patch 0 in all tables: right points in the wrong order."""
    order = np.arange(len(store.made.columns["keypoints/class_index"]))
    order[[0, 1]] = 1, 0
    _edit_keypoints(store, lambda values: values[order])


def _duplicate(store: Spoiled) -> None:
    """Patch 1 becomes a second patch 0, with all that goes with it."""
    columns = store.made.columns
    assert columns["patches/volume_index"][0] == columns["patches/volume_index"][1]
    offsets = columns["patches/keypoint_offsets"]
    rows = np.r_[0 : offsets[1], 0 : offsets[1], offsets[2] : offsets[-1]]
    _edit_keypoints(store, lambda values: values[rows])
    shift = 2 * offsets[1] - offsets[2]
    edit_table(store, "patches/keypoint_offsets", lambda v: np.where(np.arange(len(v)) > 1, v + shift, v))
    for name in ("origin", "valid_start", "valid_stop"):
        edit_table(store, f"patches/{name}", lambda values: values.__setitem__(1, values[0]))


def _other_fold(store: Spoiled) -> None:
    edit_table(store, "patches/fold", lambda values: values.__setitem__(0, 1 - values[0]))


def _other_class(store: Spoiled) -> None:
    edit_table(store, "keypoints/class_index", lambda values: values.__setitem__(0, 1 - values[0]))


def _other_volume(store: Spoiled) -> None:
    """The first keypoint says that it is the last annotation, which lies in the last volume."""
    last = len(store.made.columns["annotations/coords"]) - 1
    edit_table(store, "keypoints/annotation_index", lambda values: values.__setitem__(0, last))


def _move_annotation_out(store: Spoiled) -> None:
    """The last annotation goes far outside its volume, and every patch that had it drops it."""
    columns = store.made.columns
    index, last = columns["keypoints/annotation_index"], len(columns["annotations/coords"]) - 1
    keep = index != last
    patch = np.repeat(np.arange(store.made.layout.n_patches), np.diff(columns["patches/keypoint_offsets"]))
    counts = np.bincount(patch[keep], minlength=store.made.layout.n_patches)
    edit_table(store, "annotations/coords", lambda values: values.__setitem__((last, 0), 9999.0))
    _edit_keypoints(store, lambda values: values[keep])
    edit_table(store, "patches/keypoint_offsets", lambda _: np.r_[0, np.cumsum(counts)])


def _reorder_annotations(store: Spoiled) -> None:
    edit_table(store, "annotations/source_index", lambda values: values.__setitem__(slice(0, 2), (1, 0)))


def _same_file(store: Spoiled) -> None:
    volume(1, path=store.made.records[0]["path"])(store)


def _claim_patches(store: Spoiled) -> None:
    """Every array of patches says that it has 10^18 of them."""
    n = 10**18
    for path in sorted(store.path.glob("patches/*/zarr.json")):
        rows = n + ("offsets" in str(path))

        def change(value: dict, rows: int = rows) -> None:
            value["shape"][0] = rows
            value["chunk_grid"]["configuration"]["chunk_shape"][0] = 65536

        edit_json(path, change)
    for name in (IMAGE, TARGET):
        nested(name, "shape", 0, value=n)(store)
    edit_attributes(store, lambda a: a["counts"].update(patches=n))


def _claim_voxels(store: Spoiled) -> None:
    """Patches of 10^18 voxels, each one chunk."""
    size = [2**20, 2**20, 2**20]

    def change(value: dict) -> None:
        value["shape"][1:] = size
        value["chunk_grid"]["configuration"]["chunk_shape"][1:] = size
        value["codecs"][0]["configuration"]["chunk_shape"][1:] = size

    edit_json(store / IMAGE, change)
    attribute(patch_shape=size, grid_shape=[2**18, 2**17, 2**18])(store)


def _retyped(path: str, dtype: str) -> Callable[[Spoiled], object]:
    return lambda store: edit_table(store, path, lambda values: values.astype(dtype))


FORGERY = [
    # arrays
    Case("dtype of a table", _retyped("patches/kind", "int16"), "KP103", "patches/kind"),
    Case("row missing", lambda s: edit_table(s, "patches/kind", lambda v: v[:-1]), "KP104", "patches/kind"),
    Case(
        "column missing",
        lambda s: edit_table(s, "patches/origin", lambda v: v[:, 1:].copy()),
        "KP104",
        "patches/origin",
    ),
    Case("dtype of the image", nested(IMAGE, "data_type", value="complex64"), "KP103", IMAGE),
    Case("dtype that is no text", nested(IMAGE, "data_type", value={"name": "x"}), "KP103", IMAGE),
    Case("shape of the patches", nested(IMAGE, "shape", 1, value=17), "KP104", IMAGE),
    Case("shape that is none", nested(IMAGE, "shape", value="large"), "KP104", IMAGE),
    Case("number of patches", nested(IMAGE, "shape", 0, value=99), "KP104", TARGET),
    Case("10^18 patches in the image", nested(IMAGE, "shape", 0, value=10**18), "KP113", "image"),
    Case("10^18 patches", _claim_patches, "KP208", "patches/"),
    Case("10^18 voxels a patch", _claim_voxels, "KP105", IMAGE),
    Case("10^15 patches a shard", nested(IMAGE, *GRID, 0, value=10**15), "KP202", "image/c/0/0/0/0", "full"),
    Case("index without checksum", nested(IMAGE, *SHARDING, "index_codecs", 1, value=None), "KP105", IMAGE),
    Case("index in front", nested(IMAGE, *SHARDING, "index_location", value="start"), "KP105", IMAGE),
    Case("Gaussians without checksum", nested(TARGET, *SHARDING, "codecs", 2, value=None), "KP105", TARGET),
    Case("unknown compressor", nested(TARGET, *SHARDING, "codecs", 1, "name", value="lzma"), "KP105", TARGET),
    Case("compressor's settings", nested(TARGET, *SHARDING, "codecs", 1, "configuration", value=3), "KP105", TARGET),
    Case("big-endian", nested(TARGET, *SHARDING, "codecs", 0, "configuration", "endian", value="big"), "KP105", TARGET),
    Case("inner chunks that do not divide", nested(IMAGE, *SHARDING, "chunk_shape", 1, value=7), "KP105", IMAGE),
    Case(
        "dots in chunk keys",
        nested(IMAGE, "chunk_key_encoding", "configuration", "separator", value="."),
        "KP105",
        IMAGE,
    ),
    Case("table without checksum", nested("patches/kind/zarr.json", "codecs", 2, value=None), "KP105", "patches/kind/"),
    Case("table in other chunks", nested("patches/kind/zarr.json", *GRID, 0, value=5), "KP105", "patches/kind/"),
    # attributes
    Case("grid that does not fit", attribute(grid_shape=[4, 4, 5]), "KP106", "zarr.json: grid_shape"),
    Case("factor that does not divide", attribute(ds_factor=[5, 8, 4]), "KP106", "zarr.json: ds_factor"),
    Case("axes", attribute(axes=["x", "y", "z"]), "KP106", "zarr.json: axes"),
    Case(
        "rule of coordinates", attribute(coordinate_rule={"local_ds": "rs / f"}), "KP106", "zarr.json: coordinate_rule"
    ),
    Case("rule of Gaussians", nested(*ROOT, "gaussian", "combine", value="sum"), "KP106", "zarr.json: gaussian"),
    Case(
        "dtype of Gaussians", nested(*ROOT, "gaussian", "dtype", value="float16"), "KP106", "zarr.json: gaussian.dtype"
    ),
    Case("folds below 0", attribute(folds=-1), "KP106", "zarr.json: folds"),
    Case("recipe that is none", attribute(recipe="mine"), "KP106", "zarr.json: recipe"),
    Case("count of keypoints", nested(*ROOT, "counts", "keypoints", value=1), "KP107", "zarr.json: counts.keypoints"),
    Case("count of units", nested(*ROOT, "counts", "units", value=1), "KP107", "zarr.json: counts.units"),
    Case("count missing", nested(*ROOT, "counts", "volumes", value=None), "KP107", "zarr.json: counts.volumes"),
    Case("class twice", attribute(classes=["motor", "motor"]), "KP108", "zarr.json: classes"),
    Case("class without a name", attribute(classes=["motor", " "]), "KP108", "zarr.json: classes"),
    Case("unknown kinds", attribute(kinds=["some"]), "KP108", "zarr.json: kinds"),
    Case("volume without shape", volume(1, shape=None), "KP109", f"{VOLUMES}[1].shape"),
    Case("volume of 10^30 voxels", volume(1, shape=[10**30, 1, 1]), "KP109", f"{VOLUMES}[1].shape"),
    Case("spacing of 10^400 Å", volume(1, voxel_spacing=[10**400, 1, 1]), "KP109", f"{VOLUMES}[1].voxel_spacing"),
    Case("volume's id twice", volume(1, id="tomo_0"), "KP109", f"{VOLUMES}[1].id"),
    Case("path that leaves the folder", volume(0, path="../../etc/passwd"), "KP109", f"{VOLUMES}[0].path"),
    Case("absolute path", volume(0, path="C:\\data\\a.mrc"), "KP109", f"{VOLUMES}[0].path"),
    Case("fold that is none of the store", volume(0, fold=7), "KP109", f"{VOLUMES}[0].fold"),
    Case(
        "scaling to another dtype",
        volume(0, scaling={**SCALING, "dtype": "int8"}),
        "KP109",
        f"{VOLUMES}[0].scaling.dtype",
    ),
    Case("scaling of 10^400", volume(0, scaling={**SCALING, "offset": 10**400}), "KP109", f"{VOLUMES}[0].scaling"),
    Case("options that are text", volume(0, options={"array": 3}), "KP109", f"{VOLUMES}[0].options"),
    Case(
        "unit that is none",
        nested(*ROOT, "sources", 0, "convention", "unit", value="inch"),
        "KP110",
        "zarr.json: sources[0]",
    ),
    Case("findings of none", nested(*ROOT, "report", "findings", value=[{}]), "KP106", "zarr.json: report.findings"),
    Case("report that is none", nested(*ROOT, "report", "left_out", value=[3]), "KP106", "zarr.json: report.left_out"),
    Case("attributes of a group", nested("patches/zarr.json", "attributes", value=3), "KP102", "patches/zarr.json"),
    Case("fill value that is none", nested("patches/kind/zarr.json", "fill_value", value=[]), "KP102", "patches/kind/"),
    Case("no volumes", nested(*("volumes/zarr.json", *ROOT[1:]), "volumes", value=[]), "KP109", "volumes/zarr.json"),
    Case("source without path", nested(*ROOT, "sources", 1, "path", value=None), "KP110", "zarr.json: sources[1].path"),
    Case("source that is text", nested(*ROOT, "sources", 0, value="a.csv"), "KP110", "zarr.json: sources[0]"),
    Case("newer minor version", attribute(schema_version="1.7"), "KP118", "zarr.json: schema_version"),
    # offsets and indices
    Case("offsets not from 0", cell("patches/keypoint_offsets", 0, 1), "KP301", "patches/keypoint_offsets[0]"),
    Case("offsets go back", cell("patches/keypoint_offsets", 2, 0), "KP301", "patches/keypoint_offsets[2]"),
    Case("offsets end beyond", cell("patches/keypoint_offsets", -1, 99999), "KP301", "patches/keypoint_offsets["),
    Case("volume that is none", cell("patches/volume_index", 1, 2), "KP302", "patches/volume_index[1]"),
    Case("kind that is none", cell("patches/kind", 4, 5), "KP302", "patches/kind[4]"),
    Case("fold that is none", cell("patches/fold", 4, 2), "KP302", "patches/fold[4]"),
    Case("class that is none", cell("keypoints/class_index", 3, -1), "KP302", "keypoints/class_index[3]"),
    Case(
        "annotation that is none",
        cell("keypoints/annotation_index", 3, 10**9),
        "KP302",
        "keypoints/annotation_index[3]",
    ),
    Case("source that is none", cell("annotations/source_index", 3, 2), "KP302", "annotations/source_index[3]"),
    Case("record below 0", cell("annotations/source_row", 3, -2), "KP302", "annotations/source_row[3]"),
    Case("sigma of 0", cell("patches/ds_sigma", (2, 1), 0.0), "KP318", "patches/ds_sigma[2]"),
    Case("sigma of 10^300", cell("patches/ds_sigma", (2, 1), 1e300), "KP308", "patches/angstrom_sigma[2]", "full"),
    Case("coordinate of NaN", cell("annotations/coords", (2, 1), np.nan), "KP318", "annotations/coords[2]"),
    # identities
    Case(
        "bit of local_rs",
        nudge("keypoints/local_rs_coords", 5, 2),
        "KP303",
        "keypoints/local_rs_coords[5], patch ",
        "full",
    ),
    Case(
        "bit of local_ds",
        nudge("keypoints/local_ds_coords", 5, 2),
        "KP304",
        "keypoints/local_ds_coords[5], patch ",
        "full",
    ),
    Case(
        "bit of global", nudge("keypoints/global_coords", 5, 1), "KP305", "keypoints/global_coords[5], patch ", "full"
    ),
    Case("keypoint of another volume", _other_volume, "KP306", "keypoints/annotation_index[0]", "full"),
    Case("keypoint of another class", _other_class, "KP307", "keypoints/class_index[0]", "full"),
    Case("sigma in Å", cell("patches/angstrom_sigma", (3, 0), 200.0), "KP308", "patches/angstrom_sigma[3]", "full"),
    Case("voxel spacing", volume(1, voxel_spacing=[10.0, 10.0, 10.0]), "KP309", "patches/voxel_spacing[", "full"),
    Case("valid box", cell("patches/valid_stop", (3, 0), 1), "KP310", "patches/valid_stop[3]", "full"),
    Case("keypoint left out", _drop_keypoint, "KP311", "patches/keypoint_offsets[0], patch 0", "full"),
    Case("keypoint beyond reach", _add_far_keypoint, "KP312", "keypoints/annotation_index[", "full"),
    Case("keypoints out of order", _swap_keypoints, "KP313", "keypoints/annotation_index[1], patch 0", "full"),
    Case("patch in another fold", _other_fold, "KP314", "patches/fold[0]", "full"),
    Case("volume in two folds", _other_fold, "KP315", "patches/fold: volume 0", "full"),
    Case("file in two folds", _same_file, "KP315", f"{VOLUMES}[1]"),
    Case("patch twice", _duplicate, "KP316", "patches/origin[1]", "full"),
    Case("annotation outside its volume", _move_annotation_out, "KP317", "annotations/coords[10]", "full"),
    Case("patch outside its volume", cell("patches/origin", (0, 0), -500), "KP319", "patches/origin[0]", "full"),
    Case("annotations out of order", _reorder_annotations, "KP320", "annotations/volume_index[1]", "full"),
]

WARNINGS = {"KP118", "KP316", "KP317"}


@pytest.mark.parametrize("case", FORGERY, ids=str)
def test_a_forgery_is_found_by_its_content(store: Spoiled, case: Case) -> None:
    case.mutate(store)
    reseal(store)
    report = validate(store, case.depth)
    listed = [str(finding) for finding in report.findings]
    assert any(f.code == case.code and f.where.startswith(case.where) for f in report.findings), listed
    assert not {"KP115", "KP116"} & {finding.code for finding in report.findings}
    assert not report.passed(strict=True)
    if case.code in WARNINGS and case.name != "patch twice":  # whose image is still that of the old box
        assert report.passed(), listed


@pytest.mark.parametrize("case", [case for case in FORGERY if case.depth == "full"], ids=str)
def test_what_needs_full_is_not_found_by_quick(store: Spoiled, case: Case) -> None:
    case.mutate(store)
    reseal(store)
    assert case.code not in {finding.code for finding in validate(store, "quick").findings}


@pytest.mark.parametrize("case", FORGERY[::4], ids=str)
def test_no_depth_stumbles_over_a_forgery(store: Spoiled, case: Case) -> None:
    case.mutate(store)
    reseal(store)
    report = validate(store, "deep", store.made.source)
    assert case.code in {finding.code for finding in report.findings}


def test_the_severity_is_that_of_the_code() -> None:
    assert {code for code, entry in CODES.items() if entry.severity == "warning"} == WARNINGS


def test_findings_of_one_kind_are_capped_and_counted(store: Spoiled) -> None:
    edit_table(store, "keypoints/local_ds_coords", lambda values: values + 1)
    n = len(store.made.columns["keypoints/class_index"])
    report = validate(store, "full")
    assert sum(f.code == "KP304" for f in report.findings) == 10
    assert report.counts["KP304"] == n
    assert report.unlisted == {"KP304": n - 10}
    assert report.n_errors == n + 1  # and the file that is another


@pytest.mark.parametrize("limit", [0, 1, 7, 1000])
def test_as_many_are_listed_as_asked_for_and_all_are_counted(store: Spoiled, limit: int) -> None:
    edit_table(store, "keypoints/local_ds_coords", lambda values: values + 1)
    edit_table(store, "patches/valid_start", lambda values: values + 1)
    usual, report = validate(store, "full"), validate(store, "full", max_findings=limit)
    assert report.counts == usual.counts
    total = sum(report.counts.values())
    assert len(report.findings) == min(limit, total)
    assert sum(report.unlisted.values()) == total - len(report.findings)
    assert not report.passed()
    if limit >= total:
        assert set(usual.findings) <= set(report.findings)
    assert report.to_json()["errors"] == total


def test_offsets_that_lead_nowhere_stop_no_depth(store: Spoiled) -> None:
    """A count of patches that the tables do not have, and shards that are there: no row is looked up beyond the end."""
    nested(IMAGE, "shape", 0, value=99)(store)
    report = validate(store, "deep", store.made.source)
    assert "KP104" in report.counts
