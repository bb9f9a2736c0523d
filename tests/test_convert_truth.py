"""Stores built from end to end through the command line, each checked in every byte that follows from the truth."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sources import (
    ANNOTATION_WRITERS,
    ONE_CLASS,
    VOLUME_WRITERS,
    WITHOUT_SPACING,
    Truth,
    assert_store_is_true,
    convert,
    converted,
    truth,
    write_csv,
    write_mrc,
    write_npy,
)
from tests.store_truth import read_tables
from tests.trials import trials

EVERY_KIND = ("--multi", 2, "--hard-negatives", 2, "--negatives", 2, "--grid", 8)
SMALL = ("--patch-shape", "8,16,12", "--ds-factor", "2,4,3")


def volume_files(folder, kind, known):
    """The pattern that finds volumes, written in one format."""
    paths = [VOLUME_WRITERS[kind](folder / name, one) for name, one in known.items()]
    return str(folder / ("{volume}" + paths[0].suffix))


@pytest.mark.parametrize("kind", VOLUME_WRITERS)
def test_every_format_of_volumes(tmp_path, kind):
    dtype = np.int8 if kind == "mrc" else np.uint8
    known = {f"t{seed}": truth(seed, dtype=dtype, spacing=(8.0, 10.0, 12.5)) for seed in range(2)}
    (tmp_path / "volumes").mkdir()
    pattern = volume_files(tmp_path / "volumes", kind, known)
    spacing = ("--voxel-spacing", "8,10,12.5") if kind in WITHOUT_SPACING else ()
    out = tmp_path / "out.zarr"
    converted(pattern, "-a", write_csv(tmp_path, known), "-o", out, *SMALL, *EVERY_KIND, *spacing)
    tables = assert_store_is_true(out, known)
    assert {record["voxel_spacing_from"] for record in tables.volumes} == {"flag" if spacing else "header"}
    assert all((tables["patches/kind"] == kind).any() for kind in range(5))


@pytest.mark.parametrize("kind", ANNOTATION_WRITERS)
def test_every_format_of_annotations(tmp_path, kind):
    names = (ONE_CLASS[kind],) if kind in ONE_CLASS else ("motor", "ribosome")
    known = {f"t{seed}": truth(seed, n_points=5, names=names, dtype=np.int16) for seed in range(2)}
    (tmp_path / "volumes").mkdir()
    pattern = volume_files(tmp_path / "volumes", "mrc", known)
    annotations = ANNOTATION_WRITERS[kind](tmp_path / "annotations", known)
    report = converted(pattern, "-a", annotations, "-o", tmp_path / "out.zarr", *SMALL, "--sigma-angstrom", "40,50,60")
    assert not report["left_out"]
    assert_store_is_true(tmp_path / "out.zarr", known, atol=1e-9)


@pytest.mark.parametrize("padding", ["zero", "mean", "edge", "reflect", "inside"])
def test_every_padding_of_volumes_smaller_and_larger_than_the_patch(tmp_path, padding):
    known = {
        "large": Truth(truth(1, shape=(30, 30, 30)).array, ((0, 0, 0), (29, 29, 29.4)), ("m", "m")),
        "small": Truth(truth(2, shape=(5, 30, 3)).array, ((1, 1, 1), (4.25, 29, 0)), ("m", "m")),
    }
    for name, one in known.items():
        write_npy(tmp_path / name, one)
    out = tmp_path / "out.zarr"
    report = converted(
        *(tmp_path / f"{name}.npy" for name in known),
        *("-a", write_csv(tmp_path, known), "-o", out, "--patch-shape", 16, "--ds-factor", 8, "--voxel-spacing", 10),
        *("--padding", padding, "--centered", 3, "--jitter", 7, "--grid", 8, "--negatives", 1),
    )
    assert_store_is_true(out, known)
    assert ("small.npy (5×30×3)" in str(report["left_out"])) == (padding == "inside")
    assert ("small.npy (5×30×3)" in str(report["warnings"])) == (padding != "inside")


DTYPES = [
    ("int16", "source", None),
    ("float32", "source", None),
    ("float64", "float32", None),
    ("uint16", "uint8", None),
    ("float32", "uint8", None),
    ("int16", "int8", (5, 95)),
    ("float32", "float16", (1, 99)),
    ("uint8", "float32", (0, 100)),
    ("uint8", "uint16", None),
    ("float32", "int32", (2, 98)),
    ("uint64", "source", None),
]


@pytest.mark.parametrize(("source", "stored", "percentiles"), DTYPES)
def test_every_way_from_one_dtype_to_another(tmp_path, source, stored, percentiles):
    known = {f"t{seed}": truth(seed, dtype=source) for seed in range(2)}
    for name, one in known.items():
        write_npy(tmp_path / name, one)
    out = tmp_path / "out.zarr"
    clip = () if percentiles is None else ("--clip-percentiles", ",".join(map(str, percentiles)))
    converted(
        *(tmp_path / f"{name}.npy" for name in known),
        *("-a", write_csv(tmp_path, known), "-o", out, *SMALL, "--voxel-spacing", 10, "--dtype", stored, *clip),
        *("--padding", "mean", "--gaussian-dtype", "float16"),
    )
    assert_store_is_true(out, known)


@st.composite
def sources(draw):
    """One to three volumes of one dtype, their points on 1/64 of a voxel, some outside and some twice."""
    dtype = draw(st.sampled_from(["uint8", "int16", "float32"]))
    names = draw(st.sampled_from([("a",), ("a", "b")]))
    known = {}
    for k in range(draw(st.integers(1, 3))):
        shape = draw(st.tuples(*[st.integers(1, 20)] * 3))
        coordinate = [st.integers(-64, 64 * n).map(lambda c: c / 64) for n in shape]
        points = draw(st.lists(st.tuples(*coordinate), max_size=6))
        base = truth(draw(st.integers(0, 99)), shape=shape, n_points=0, dtype=dtype)
        known[f"v{k}"] = Truth(base.array, tuple(points), tuple(names[i % len(names)] for i in range(len(points))))
    return known


@st.composite
def flags(draw):
    factor = draw(st.tuples(*[st.integers(1, 5)] * 3))
    patch = [f * draw(st.integers(1 if f > 2 else 3, 4)) for f in factor]
    text = {
        "--patch-shape": ",".join(map(str, patch)),
        "--ds-factor": ",".join(map(str, factor)),
        "--padding": draw(st.sampled_from(["zero", "mean", "edge", "reflect", "inside"])),
        "--dtype": draw(st.sampled_from(["source", "uint8", "float32", "int16"])),
        "--sigma-ds": draw(st.sampled_from(["0.4", "1", "0.7,2,1.5"])),
        "--seed": draw(st.integers(0, 3)),
        "--shard-size": draw(st.sampled_from(["1KB", "192MiB"])),
        "--codec": draw(st.sampled_from(["auto", "none", "zstd:5", "lz4:9", "blosc:1"])),
        **{f"--{kind}": draw(st.integers(0, 2)) for kind in ("multi", "hard-negatives", "negatives")},
    }
    if draw(st.booleans()):
        text["--grid"] = ",".join(str(n - n // 4) for n in patch)
    if draw(st.booleans()):
        text["--clip-percentiles"] = draw(st.sampled_from(["0,100", "10,90"]))
    return [part for flag in text.items() for part in flag]


@settings(max_examples=trials(12), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sources(), flags())
def test_any_store_follows_from_its_truth(known, given_flags):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for volume, one in known.items():
            write_npy(folder / volume, one)
        table = write_csv(folder, known)
        out = folder / "out.zarr"
        ran = convert(folder / "*.npy", "-a", table, "-o", out, "--voxel-spacing", "10", *given_flags, "--json")
        if ran.code == 1:
            assert "KP601" in ran.out
            assert sum(len(one.points) for one in known.values()) >= 3
            assert not any(one.usable(one.names) for one in known.values())
            assert not out.exists()
            return
        if ran.code:
            # The check's findings may come before the error, as --json has no place for them where nothing is planned.
            *told, error = ran.err.splitlines()
            assert (ran.code in (2, 3), ran.out, error.startswith("keypatch: ")) == (True, "", True)
            assert not told or told[0].startswith("check: ")
            assert any(words in ran.err for words in ("one patch", "at the percentiles"))
            assert not out.exists()
            return
        assert_store_is_true(out, known)


def test_folds_share_out_volumes(tmp_path):
    known = {f"t{seed}": truth(seed, n_points=seed % 3, shape=(12, 16, 12)) for seed in range(6)}
    for name, one in known.items():
        write_npy(tmp_path / name, one)
    table = write_csv(tmp_path, known)
    converted(
        tmp_path / "*.npy",
        "-a",
        table,
        "-o",
        tmp_path / "out.zarr",
        *SMALL,
        "--voxel-spacing",
        10,
        "--folds",
        3,
        "--negatives",
        1,
    )
    tables = assert_store_is_true(tmp_path / "out.zarr", known)
    assert np.bincount(tables["patches/fold"]).min() > 0


def test_keypoints_beyond_the_border_shine_in(tmp_path):
    """Two points, 20 voxels apart; the patch of 16 around one sees the other's Gaussian at its border."""
    array = truth(0, shape=(40, 40, 40)).array
    known = {"v": Truth(array, ((20, 20, 10), (20, 20, 30)), ("m", "m"))}
    write_npy(tmp_path / "v", known["v"])
    out = tmp_path / "out.zarr"
    converted(
        tmp_path / "v.npy",
        "-a",
        write_csv(tmp_path, known),
        "-o",
        out,
        "--patch-shape",
        16,
        "--ds-factor",
        2,
        "--sigma-ds",
        3,
        "--jitter",
        0,
        "--voxel-spacing",
        10,
    )
    tables = assert_store_is_true(out, known)
    assert np.diff(tables["patches/keypoint_offsets"]).tolist() == [2, 2]


def test_no_gaussian_is_stored_when_none_is_asked_for(tmp_path):
    known = {"v": truth(0)}
    write_npy(tmp_path / "v", known["v"])
    out = tmp_path / "out.zarr"
    converted(
        tmp_path / "v.npy", "-a", write_csv(tmp_path, known), "-o", out, *SMALL, "--voxel-spacing", 10, "--no-gaussian"
    )
    assert_store_is_true(out, known)
    assert not (out / "gaussian").exists()
    assert read_tables(out).recipe["gaussian"] is False


def test_the_check_itself_sees_what_is_wrong(tmp_path):
    """A test that cannot fail is a defect: each of these truths differs from the store's in one thing."""
    known = {"v": truth(0, dtype=np.int16)}
    write_mrc(tmp_path / "v", known["v"])
    out = tmp_path / "out.zarr"
    converted(tmp_path / "v.mrc", "-a", write_csv(tmp_path, known), "-o", out, *SMALL, *EVERY_KIND)
    right = known["v"]
    moved = (tuple(c + 1 / 64 for c in right.points[0]), *right.points[1:])
    other = right.array.copy()
    other[tuple(int(c) for c in right.points[0])] += 1
    wrong = [
        Truth(right.array, moved, right.names),
        Truth(right.array, right.points[1:], right.names[1:]),
        Truth(right.array, right.points, ("other", *right.names[1:])),
        Truth(other, right.points, right.names),
        Truth(right.array, right.points, right.names, (10.0, 10.0, 10.1)),
        Truth(right.array[:-1], right.points, right.names),
    ]
    assert_store_is_true(out, known)
    for one in wrong:
        with pytest.raises(AssertionError):
            assert_store_is_true(out, {"v": one})
