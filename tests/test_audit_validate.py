"""`validate`: a clean store gives nothing; wrong voxels, targets and sources are found; what it promises beside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from keypatch.audit.findings import CODES, Findings
from keypatch.audit.validate import DEPTHS, validate
from keypatch.errors import ReadError, StoreError, UsageError
from keypatch.formats.store.shard import MISSING, index_size
from keypatch.gaussian import render

from .stores import (
    Design,
    Made,
    Mutation,
    Spoiled,
    attribute,
    copy_of,
    edit_attributes,
    flip,
    make_store,
    nested,
    nudge,
    reseal,
    rewrite_shards,
    swap,
    volume,
)
from .test_audit_damage import DAMAGE
from .test_audit_forgery import FORGERY

IMAGE0, IMAGE1 = "image/c/0/0/0/0", "image/c/1/0/0/0"
TARGET2 = "gaussian/c/2/0/0/0/0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


@pytest.fixture
def store(made: Made, tmp_path: Path) -> Spoiled:
    return copy_of(made, tmp_path)


DESIGNS = {
    "default": Design(),
    "float": Design(seed=1, padding="mean", dtype="float32", source_dtype="float32", gaussian_dtype="float16"),
    "no-gaussian": Design(seed=2, padding="reflect", gaussian_dtype=None, folds=0, source_dtype="uint8"),
    "uncompressed": Design(seed=3, padding="edge", codec="none", dtype="int16"),
    "inside": Design(seed=4, padding="inside", codec="blosc:5", source_dtype="float64", patches_per_shard=100),
    "no-keypoints": Design(seed=5, n_annotations=(1, 1), ds_sigma=(0.01, 0.01, 0.01)),
}


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_clean_store_gives_no_finding(tmp_path: Path, name: str, depth: str) -> None:
    made = make_store(tmp_path, DESIGNS[name])
    before = {p: p.stat().st_mtime_ns for p in sorted(made.path.rglob("*"))}
    report = validate(made.path, depth, made.source)
    assert [str(finding) for finding in report.findings] == []
    assert report.passed(strict=True)
    assert report.digest == made.digest
    assert report.checked.recut == made.layout.n_patches
    assert report.checked.files == sum(p.is_file() for p in before)
    if depth != "quick":
        assert report.checked.units == made.layout.n_units
        assert report.checked.patches == made.layout.n_patches
        shards = [
            p
            for p in before
            if p.is_file() and "/c/" in str(p) and p.relative_to(made.path).parts[0] in ("image", "gaussian")
        ]
        assert report.checked.bytes_hashed == sum(p.stat().st_size for p in shards)
    stored = len(made.gaussians)
    assert report.checked.gaussians == report.checked.gaussians_equal == (stored if depth == "deep" else 0)
    assert {p: p.stat().st_mtime_ns for p in sorted(made.path.rglob("*"))} == before


def _images(made: Made, patch: int, change: Callable[[np.ndarray], object]) -> list[np.ndarray]:
    images = [image.copy() for image in made.images]
    change(images[patch])
    return images


def _gaussians(made: Made, patch: int, change: Callable[[np.ndarray], object]) -> list[np.ndarray]:
    targets = [target.copy() for target in made.gaussians]
    change(targets[patch])
    return targets


def _naive(made: Made, patch: int) -> np.ndarray:
    """The Gaussian with centres at ``rs / f``, as other tools have it."""
    rows = slice(*made.columns["patches/keypoint_offsets"][patch : patch + 2].tolist())
    return render(
        made.columns["keypoints/local_rs_coords"][rows] / np.array(made.layout.ds_factor),
        made.columns["keypoints/class_index"][rows],
        n_classes=made.layout.n_classes,
        grid=made.layout.grid,
        sigma=made.columns["patches/ds_sigma"][patch],
    )


def _codes(path: Path | Spoiled, depth: str, source: Path | None = None) -> dict[str, str]:
    return {finding.code: finding.where for finding in validate(path, depth, source).findings}


def test_wrong_voxels_in_valid_shards_are_found_by_the_source_only(made: Made, store: Spoiled) -> None:
    inside = tuple(int(n) for n in made.columns["patches/valid_start"][4])
    rewrite_shards(store, _images(made, 4, lambda v: v.__setitem__(inside, v[inside] ^ 1)), made.gaussians)
    assert _codes(store, "deep") == {}
    assert _codes(store, "quick", made.source) == {"KP506": "image: patch 4"}
    found = validate(store, "quick", made.source).findings[0].found
    assert f"1 other voxel, the first at {inside}" in found


def test_padding_that_is_not_the_recipes_is_found(made: Made, store: Spoiled) -> None:
    padded = int(np.flatnonzero((made.columns["patches/valid_start"] > 0).all(axis=1))[0])
    rewrite_shards(store, _images(made, padded, lambda v: v.__setitem__((0, 0, 0), 9)), made.gaussians)
    assert _codes(store, "full") == {"KP210": f"image: patch {padded}"}


@pytest.mark.parametrize("padding", ["mean", "edge", "reflect"])
def test_every_padding_is_decided(tmp_path: Path, padding: str) -> None:
    made = make_store(tmp_path, Design(padding=padding, source_dtype="float32", dtype="float32"))
    padded = int(np.flatnonzero((made.columns["patches/valid_start"] > 0).all(axis=1))[0])
    rewrite_shards(
        Spoiled(made, made.path), _images(made, padded, lambda v: v.__setitem__((0, 0, 0), -1e6)), made.gaussians
    )
    assert _codes(made.path, "full") == {"KP210": f"image: patch {padded}"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_voxel_that_is_no_number_is_found(tmp_path: Path, value: float) -> None:
    made = make_store(tmp_path, Design(source_dtype="float32", dtype="float32"))
    rewrite_shards(
        Spoiled(made, made.path), _images(made, 0, lambda v: v.__setitem__((8, 16, 12), value)), made.gaussians
    )
    assert _codes(made.path, "full") == {"KP205": "image: patch 0"}


@pytest.mark.parametrize("value", [np.nan, -0.5, 1.5])
def test_a_target_outside_0_to_1_is_found(made: Made, store: Spoiled, value: float) -> None:
    rewrite_shards(store, made.images, _gaussians(made, 5, lambda v: v.__setitem__((0, 1, 1, 1), value)))
    assert _codes(store, "full") == {"KP206": "gaussian: patch 5"}


def test_a_target_that_is_not_its_formula_is_found(made: Made, store: Spoiled) -> None:
    targets = _gaussians(made, 5, lambda v: v.__setitem__((1, 2, 2, 2), v[1, 2, 2, 2] / 2 + 0.3))
    rewrite_shards(store, made.images, targets)
    assert _codes(store, "full") == {}
    assert _codes(store, "deep")["KP401"] == "gaussian: patch 5"


def test_targets_of_the_naive_rule_are_found_and_measured(made: Made, store: Spoiled) -> None:
    rewrite_shards(store, made.images, [_naive(made, i) for i in range(made.layout.n_patches)])
    report = validate(store, "deep")
    assert {finding.code for finding in report.findings} == {"KP401", "KP402"}
    # rs / f lies (f - 1) / (2 f) of a coarse voxel too far; the factor 8 gives the most.
    assert report.checked.peak_offset == pytest.approx((8 - 1) / 16, abs=1e-5)
    assert report.checked.gaussians_equal < made.layout.n_patches / 2  # the far ones are 0 either way


def test_an_equal_target_with_other_bits_is_counted(made: Made, store: Spoiled) -> None:
    brightest = np.unravel_index(made.gaussians[2].argmax(), made.gaussians[2].shape)
    targets = _gaussians(made, 2, lambda v: v.__setitem__(brightest, np.nextafter(v[brightest], np.float32(0))))
    rewrite_shards(store, made.images, targets)
    report = validate(store, "deep")
    assert report.findings == ()
    assert report.checked.gaussians_equal == made.layout.n_patches - 1
    assert 0 < report.checked.gaussian_difference < 1e-6


def test_a_missing_chunk_is_found_where_zarr_shows_zeros(made: Made, store: Spoiled) -> None:
    path = store / IMAGE1
    data = bytearray(path.read_bytes())
    n_entries = made.layout.patches_per_shard * made.layout.chunks_per_patch
    index = np.frombuffer(bytes(data[-index_size(n_entries) : -4]), "<u8").copy().reshape(-1, 2)
    index[5] = MISSING
    _write_index(path, bytes(data[: -index_size(n_entries)]), index)
    reseal(store, shards=True)
    patch, chunk = divmod(5, made.layout.chunks_per_patch)
    assert _codes(store, "full") == {"KP203": f"{IMAGE1}: patch {3 + patch}, chunk {chunk}"}


def test_a_chunk_of_no_patch_is_found(made: Made, store: Spoiled) -> None:
    last = made.layout.n_units - 1
    assert len(made.layout.unit_patches(last)) < made.layout.patches_per_shard
    name = f"gaussian/c/{last}/0/0/0/0"
    data = (store / name).read_bytes()
    size = index_size(made.layout.patches_per_shard)
    index = np.frombuffer(data[-size:-4], "<u8").copy().reshape(-1, 2)
    index[-1] = index[0]
    _write_index(store / name, data[:-size], index)
    reseal(store, shards=True)
    assert set(_codes(store, "full")) == {"KP207"}


def _write_index(path: Path, body: bytes, index: np.ndarray) -> None:
    raw = index.astype("<u8").tobytes()
    path.write_bytes(body + raw + int(google_crc32c.value(raw)).to_bytes(4, "little"))


def test_a_swapped_shard_is_named(made: Made, store: Spoiled) -> None:
    swap(store / IMAGE1, store / IMAGE0)
    found = {f.where: f.found for f in validate(store, "full").findings if f.code == "KP201"}
    assert found == {"image/c/0/0/0/0": "the shard of unit 1", IMAGE1: "the shard of unit 0"}


def test_swapped_and_resealed_shards_are_found_by_the_source(made: Made, store: Spoiled) -> None:
    swap(store / IMAGE0, store / IMAGE1)
    reseal(store, shards=True)
    codes = _codes(store, "full", made.source)
    assert codes["KP506"].startswith("image: patch ")


SOURCE_CASES = {
    "removed": (lambda p: p.unlink(), "KP501"),
    "emptied": (lambda p: p.write_bytes(b""), "KP502"),
    "cut": (lambda p: os.truncate(p, 500), "KP502"),
    "of another shape": (lambda p: np.save(p, np.load(p)[1:]), "KP503"),
    "of another dtype": (lambda p: np.save(p, np.load(p).astype("float32")), "KP504"),
    "with other voxels": (lambda p: np.save(p, np.load(p)[::-1].copy()), "KP506"),
}


@pytest.mark.parametrize("name", SOURCE_CASES)
def test_a_changed_source_is_a_finding(made: Made, tmp_path: Path, name: str) -> None:
    change, code = SOURCE_CASES[name]
    source = Path(shutil.copytree(made.source, tmp_path / "source"))
    change(source / made.records[1]["path"])
    report = validate(made.path, "quick", source)
    assert {finding.code for finding in report.findings} == {code}
    expected = "image: patch " if code == "KP506" else "volume tomo_1"
    assert all(finding.where.startswith(expected) for finding in report.findings)


def test_a_source_with_nan_is_a_finding(tmp_path: Path) -> None:
    made = make_store(tmp_path, Design(source_dtype="float32", dtype="float32"))
    values = np.load(made.source / made.records[0]["path"])
    np.save(made.source / made.records[0]["path"], np.full_like(values, np.nan))
    assert {f.code for f in validate(made.path, "quick", made.source).findings} == {"KP507"}


def test_a_spacing_from_the_header_is_read_again(made: Made, store: Spoiled) -> None:
    volume(0, voxel_spacing_from="header")(store)
    reseal(store)
    assert _codes(store, "quick", made.source) == {"KP505": "volume tomo_0"}


def test_a_recorded_path_never_makes_us_read_outside_the_source(made: Made, store: Spoiled) -> None:
    outside = made.source.parent / "outside.npy"
    np.save(outside, made.volumes[0])
    volume(0, path="../outside.npy")(store)
    reseal(store)
    codes = _codes(store, "quick", made.source)
    assert codes["KP501"] == "volume tomo_0"
    assert "KP506" not in codes


def test_a_source_folder_that_is_none_is_an_error(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="expected the folder of the volumes"):
        validate(made.path, "quick", tmp_path / "nowhere")


def test_an_unknown_padding_is_a_finding(made: Made, store: Spoiled) -> None:
    edit_attributes(store, lambda a: a["recipe"].update(padding="wrap"))
    reseal(store)
    assert _codes(store, "full", made.source) == {"KP106": "zarr.json: recipe.padding"}


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_subsets_check_everything_once(made: Made, store: Spoiled, n: int) -> None:
    flip(store / IMAGE1, 40)
    flip(store / TARGET2, 9)
    flip(store / "image/c/3/0/0/0", 40)
    nudge("keypoints/local_rs_coords", 5, 2)(store)
    whole = validate(store, "deep", made.source)
    parts = [validate(store, "deep", made.source, (k, n)) for k in range(1, n + 1)]
    assert sorted(map(str, whole.findings)) == sorted(str(f) for part in parts for f in part.findings)
    for name in ("units", "bytes_hashed", "chunks", "patches", "gaussians", "recut", "files", "rows"):
        assert sum(getattr(part.checked, name) for part in parts) == getattr(whole.checked, name)
    assert [part.digest is not None for part in parts] == [True] + [False] * (n - 1)


def test_findings_do_not_depend_on_who_reads_the_shards(made: Made, store: Spoiled) -> None:
    for name in (IMAGE1, TARGET2, "image/c/3/0/0/0"):
        flip(store / name, 40)
    nudge("keypoints/local_rs_coords", 5, 2)(store)
    alone = validate(store, "deep", made.source)
    assert len({finding.code for finding in alone.findings}) >= 3
    with ThreadPoolExecutor(3) as threads:
        for given in ({"workers": 2}, {"workers": 1, "executor": threads}, {"workers": 3, "executor": threads}):
            assert validate(store, "deep", made.source, **given).to_json() == alone.to_json()


class Counted:
    """A progress that counts."""

    def __init__(self) -> None:
        self.total = self.steps = 0

    def start(self, what: str, total: int, done: int = 0) -> None:
        assert (what, done) == ("check", 0)
        self.total = total

    def step(self, n: int = 1) -> None:
        self.steps += n


@pytest.mark.parametrize(("depth", "units"), [("full", 4), ("quick", 0)])
def test_progress_is_told_of_every_unit(made: Made, depth: str, units: int) -> None:
    progress = Counted()
    validate(made.path, depth, progress=progress)
    assert (progress.total, progress.steps) == (units, units)


@pytest.mark.parametrize("subset", [(0, 2), (3, 2), (1, 0)])
def test_a_subset_that_is_none_is_a_usage_error(made: Made, subset: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="K/N"):
        validate(made.path, "quick", subset=subset)


def test_a_depth_that_is_none_is_a_usage_error(made: Made) -> None:
    with pytest.raises(UsageError, match="quick, full, deep"):
        validate(made.path, "thorough")


NO_STORES: dict[str, Mutation] = {
    "no folder": shutil.rmtree,
    "a file": lambda s: (shutil.rmtree(s), s.path.write_bytes(b"x")),
    "an empty folder": lambda s: (shutil.rmtree(s), s.path.mkdir()),
    "a root that is no JSON": lambda s: (s / "zarr.json").write_text("{"),
    "a group of another tool": nested("zarr.json", "attributes", value={"ome": {}}),
    "a newer major version": attribute(schema_version="2.0"),
    "no counts": lambda s: edit_attributes(s, lambda a: a.pop("counts")),
    "a shape that is text": attribute(patch_shape="large"),
}


@pytest.mark.parametrize("name", NO_STORES)
def test_what_is_no_store_raises(made: Made, store: Spoiled, name: str) -> None:
    NO_STORES[name](store)
    with pytest.raises(StoreError) as error:
        validate(store, "full")
    assert str(error.value).startswith(str(store.path))
    assert "\n" not in str(error.value)


def test_merged_findings_keep_the_count() -> None:
    one, two = Findings(cap=2), Findings(cap=2)
    for k in range(5):
        one.add("KP201", f"image/c/{k}", expected="a", found="b", within="image")
        two.add("KP201", f"image/c/{k + 5}", expected="a", found="b", within="image")
    one.add("KP201", "image/c/0", expected="a", found="b", within="image")  # the very same, once
    one.merge(two)
    assert [f.where for f in one.listed()] == ["image/c/0", "image/c/1"]
    assert one.counts() == {"KP201": 10}


def test_a_report_is_plain_json(made: Made, store: Spoiled) -> None:
    flip(store / IMAGE1, 40)
    report = validate(store, "deep", made.source)
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert value["depth"] == "deep"
    assert value["errors"] == len(report.errors) == 2
    assert value["warnings"] == 0
    assert value["digest"] == made.digest
    assert value["checked"]["patches"] == made.layout.n_patches - 1
    first = value["findings"][0]
    assert set(first) == {"code", "severity", "where", "expected", "found"}


def test_every_code_is_documented_and_found_by_a_test() -> None:
    assert all(code.meaning.endswith(".") and code.cure for code in CODES.values())
    tested = {case.code for case in DAMAGE + FORGERY} | {code for _, code in SOURCE_CASES.values()}
    elsewhere = {"KP119", "KP203", "KP205", "KP206", "KP207", "KP210", "KP401", "KP402", "KP505", "KP507"}
    unreadable = {"KP117"}  # in test_audit_damage
    assert tested | elsewhere | unreadable == set(CODES)


def test_targets_of_other_patches_are_found(made: Made, store: Spoiled) -> None:
    """All Gaussians shifted by one patch: shards valid, digests valid."""
    shifted = made.gaussians[1:] + made.gaussians[:1]
    rewrite_shards(store, made.images, shifted)
    assert set(_codes(store, "deep")) >= {"KP401"}
