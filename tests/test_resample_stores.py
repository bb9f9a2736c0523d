"""Stores of resampled volumes, from the command line to `validate --source`."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr
from tests.sources import (
    Truth,
    assert_store_is_true,
    convert,
    converted,
    every_file,
    keypatch,
    truth,
    write_csv,
    write_mrc,
    write_npy,
    write_ome,
    write_relion5,
    write_slices,
)

from keypatch.audit.validate import validate
from keypatch.converters.opening import open_source
from keypatch.converters.resample import Resampling
from keypatch.formats.volumes import VolumeOptions

SMALL = ("--patch-shape", 8, "--ds-factor", 4, "--jitter", 0)


def resampled(path, known: Truth, target) -> Truth:
    """The truth on the new grid: points by the formula written down again."""
    spacing = known.spacing
    with open_source(path, VolumeOptions(), Resampling(known.array.shape, spacing, target)) as volume:
        array = volume.read((0, 0, 0), volume.info.shape)
    points = tuple(
        tuple((c + 0.5) * s / t - 0.5 for c, s, t in zip(point, spacing, target, strict=True))
        for point in known.points
        if all(-0.5 <= c < n - 0.5 for c, n in zip(point, known.array.shape, strict=True))
    )
    return Truth(array, points, known.names[: len(points)], target)


def records(out):
    return zarr.open_group(out, mode="r")["volumes"].attrs["keypatch"]["volumes"]


def test_volumes_of_several_spacings_and_formats_come_to_one(tmp_path):
    target = (13.3, 12.0, 13.3)
    known = {
        "coarse": truth(0, (20, 24, 28), spacing=(20.0, 18.0, 20.0), dtype=np.int16),
        "fine": truth(1, (30, 34, 38), spacing=(8.0, 8.0, 8.0), dtype=np.int16),
        "same": truth(2, (18, 20, 22), spacing=(13.3, 12.0, 13.3), dtype=np.int16),
    }
    writers = (write_mrc, write_ome, write_mrc)
    paths = [write(tmp_path / name, one) for (name, one), write in zip(known.items(), writers, strict=True)]
    flags = (*SMALL, "--resample-to", "13.3,12,13.3", "--grid", 8, "--negatives", 2, "--sigma-angstrom", "40,50,60")
    report = converted(*paths, "-a", write_csv(tmp_path, known), "-o", tmp_path / "out.zarr", *flags)
    assert (report["resampled"], report["left_out"]) == (2, [])
    expected = {name: resampled(path, known[name], target) for name, path in zip(known, paths, strict=True)}
    tables = assert_store_is_true(tmp_path / "out.zarr", expected, atol=1e-5)  # an MRC header holds float32
    assert [record["shape"] for record in tables.volumes] == [[30, 36, 42], [18, 23, 23], [18, 20, 22]]
    assert tables.volumes[2]["resampling"] is None
    assert tables.volumes[1]["resampling"] == {
        "kernel": "lanczos3",
        "source_shape": [30, 34, 38],
        "source_spacing": [8.0, 8.0, 8.0],
        "spacing": [13.3, 12.0, 13.3],
    }
    assert {tuple(row) for row in tables["patches/voxel_spacing"][tables["patches/volume_index"] < 2]} == {target}
    assert not validate(tmp_path / "out.zarr", "deep", tmp_path).findings


def test_a_blob_stays_under_its_keypoint(tmp_path):
    """The brightest place of every patch lies where its keypoint says, whatever was done to the grid."""
    spacing, center = (20.0, 10.0, 8.0), (12.3, 21.8, 30.1)
    axes = np.ogrid[:24, :44, :60]
    radius = sum(((a - c) * s / 25) ** 2 for a, c, s in zip(axes, center, spacing, strict=True))
    known = {"a": Truth((200 * np.exp(-0.5 * radius)).astype(np.uint8), (center,), ("motor",), spacing)}
    np.save(tmp_path / "a.npy", known["a"].array)
    for target in ("13.3", "7", "20,10,8"):
        out = tmp_path / f"{target}.zarr"
        flags = ("--patch-shape", 24, "--ds-factor", 8, "--voxel-spacing", "20,10,8", "--resample-to", target)
        converted(tmp_path / "a.npy", "-a", write_csv(tmp_path, known), "-o", out, *flags, "--jitter", 2)
        store = zarr.open_group(out, mode="r")
        image = store["image"][0].astype(float)
        image[image < 30] = 0
        found = [(image * axis).sum() / image.sum() for axis in np.ogrid[:24, :24, :24]]
        assert np.abs(found - store["keypoints/local_rs_coords"][0]).max() < 0.1


def test_the_number_of_workers_changes_no_byte(tmp_path):
    known = {name: truth(i, n_points=4, dtype=np.float32) for i, name in enumerate("ab")}
    paths = [write_npy(tmp_path / name, one) for name, one in known.items()]
    flags = (*SMALL, "--voxel-spacing", 10, "--resample-to", 7.7, "--dtype", "uint8", "--grid", 8)
    stores = []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.zarr"
        converted(*paths, "-a", write_csv(tmp_path, known), "-o", out, *flags, "--workers", workers)
        stores.append(every_file(out))
    assert stores[0] == stores[1]
    assert not validate(tmp_path / "1.zarr", "full", tmp_path).findings


def test_percentiles_are_those_of_the_resampled_volume(tmp_path):
    known = {"a": truth(0, n_points=2, dtype=np.float32)}
    path = write_npy(tmp_path / "a", known["a"])
    flags = (*SMALL, "--voxel-spacing", 10, "--resample-to", 25, "--dtype", "uint8", "--clip-percentiles", "1,99")
    converted(path, "-a", write_csv(tmp_path, known), "-o", tmp_path / "out.zarr", *flags, "--padding", "edge")
    (record,) = records(tmp_path / "out.zarr")
    values = resampled(path, known["a"], (25.0, 25.0, 25.0)).array
    expected = np.percentile(values, [1, 99], method="inverted_cdf")
    assert [record["scaling"]["low"], record["scaling"]["high"]] == expected.tolist()
    assert abs(expected[0] - np.percentile(known["a"].array, 1)) > 50, "noise is averaged away: they are others"


def test_centred_coordinates_count_from_the_centre_of_the_file(tmp_path):
    """Odd sizes: the centre of the resampled volume is another place, by a part of a voxel."""
    known = {"a": Truth(truth(0, (21, 23, 25), dtype=np.int16).array, ((7.25, 9.0, 11.5),), ("keypoint",))}
    path = write_mrc(tmp_path / "a", known["a"])
    picks = write_relion5(tmp_path, known)
    converted(path, "-a", picks, "-o", tmp_path / "out.zarr", *SMALL, "--resample-to", 20)
    expected = [[(c + 0.5) / 2 - 0.5 for c in (7.25, 9.0, 11.5)]]
    np.testing.assert_allclose(zarr.open_group(tmp_path / "out.zarr")["annotations/coords"][:], expected, atol=1e-6)


def test_points_outside_stay_outside_and_the_rest_of_a_voxel_is_told(tmp_path):
    # 21 voxels of 10 Å are 7 of 30; 20 are 6.67, so 7, of which the last reaches 10 Å beyond the volume; 22 are 7.33.
    points = ((20.4, 5, 5), (20.6, 5, 5), (5, 19.4, 5), (5, 19.6, 5))
    points += ((5, 5, 20.4), (5, 5, 20.6), (5, 5, -0.5), (5, 5, -0.6))
    known = {"a": Truth(truth(0, (21, 20, 22)).array, points, ("m",) * len(points))}
    path = write_npy(tmp_path / "a", known["a"])
    flags = ("--patch-shape", 4, "--ds-factor", 2, "--jitter", 0, "--voxel-spacing", 10, "--resample-to", 30)
    report = converted(path, "-a", write_csv(tmp_path, known), "-o", tmp_path / "out.zarr", *flags)
    kept = zarr.open_group(tmp_path / "out.zarr")["annotations/source_row"][:].tolist()
    assert kept == [0, 2, 4, 6]
    assert {entry["reason"]: entry["count"] for entry in report["left_out"]} == {
        "outside their volume": 3,
        "in the rest of a voxel that resampling cuts off at the far end of an axis": 1,
    }
    assert "picks.csv row 5" in str(report["left_out"])


def test_what_the_person_is_told(tmp_path):
    known = {"a": truth(0, spacing=(10.0,) * 3, dtype=np.int16), "b": truth(1, spacing=(13.305,) * 3, dtype=np.int16)}
    paths = [write_mrc(tmp_path / name, one) for name, one in known.items()]
    arguments = (*paths, "-a", write_csv(tmp_path, known), *SMALL, "--dry-run")
    said = convert(*arguments, "--resample-to", 13.3).out
    assert "2 (1 resampled to 13.3 Å, 1 as they are: they have this spacing)" in said
    assert "volumes      2\n" in convert(*arguments).out
    assert "2 (2 resampled to 12×10 Å)" in convert(*arguments, "--resample-to", "12,10,10").out


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (("--resample-to", "13.3"), 2, "give --voxel-spacing"),
        (("--resample-to", "500", "--voxel-spacing", "10"), 2, "--resample-to: expected a spacing at which every axis"),
        (("--resample-to", "0.00001", "--voxel-spacing", "10"), 2, "1 to 1048576 voxels"),
        (("--resample-to", "0"), 2, "numbers above 0"),
        (("--resample-to", "1,2"), 2, "1 or 3 number(s)"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, flags, code, says):
    known = {"a": truth()}
    path, picks = write_npy(tmp_path / "a", known["a"]), write_csv(tmp_path, known)
    ran = convert(path, "-a", picks, "-o", tmp_path / "o.zarr", *SMALL, *flags)
    assert (ran.code, ran.err.count("\n")) == (code, 1)
    assert says in ran.err


def test_nan_in_the_source_is_an_error_and_names_the_file(tmp_path):
    known = {"a": truth(dtype=np.float32, n_points=5)}
    known["a"].array[...] = np.nan
    flags = (*SMALL, "--voxel-spacing", 10, "--resample-to", 13.3)
    path, picks = write_npy(tmp_path / "a", known["a"]), write_csv(tmp_path, known)
    ran = convert(path, "-a", picks, "-o", tmp_path / "o.zarr", *flags)
    assert (ran.code, ran.err.count("\n")) == (3, 1)
    assert "a.npy" in ran.err
    assert "NaN" in ran.err


def test_a_recipe_file_and_python_know_the_setting(tmp_path):
    import keypatch as package

    known = {"a": truth()}
    path, picks = write_npy(tmp_path / "a", known["a"]), write_csv(tmp_path, known)
    (tmp_path / "r.toml").write_text(
        'volumes = "a.npy"\nannotations = "picks.csv"\nout = "toml.zarr"\n'
        "patch_shape = 8\nds_factor = 4\njitter = 0\nvoxel_spacing = 10\nresample_to = [20, 10, 13.3]\n"
    )
    first = converted(tmp_path / "r.toml")
    settings = {"patch_shape": 8, "ds_factor": 4, "jitter": 0, "voxel_spacing": 10, "resample_to": (20, 10, 13.3)}
    second = package.convert(path, picks, tmp_path / "python.zarr", **settings)
    assert first["digest"] == second.digest
    assert first["recipe"]["resample_to"] == [20.0, 10.0, 13.3]
    assert second.volumes.loc["a", "resampling"]["spacing"] == [20.0, 10.0, 13.3]


def test_slices_that_are_decoded_one_by_one(tmp_path):
    known = {"a": truth(3, (20, 24, 28), n_points=3)}
    path = write_slices(tmp_path / "a", known["a"])
    flags = (*SMALL, "--voxel-spacing", 10, "--resample-to", 15, "--grid", 8)
    converted(path, "-a", write_csv(tmp_path, known), "-o", tmp_path / "out.zarr", *flags)
    assert_store_is_true(tmp_path / "out.zarr", {"a": resampled(path, known["a"], (15.0,) * 3)}, atol=1e-12)


# ----- validate -----


@pytest.fixture
def made(tmp_path):
    known = {"a": truth(0, shape=(18, 24, 28), dtype=np.int16)}
    source = tmp_path / "source"
    source.mkdir()
    write_mrc(source / "a", known["a"])
    flags = ("-a", write_csv(tmp_path, known), "-o", tmp_path / "out.zarr", *SMALL, "--resample-to", 13.3)
    converted(source / "a.mrc", *flags)
    assert not validate(tmp_path / "out.zarr", "full", source).findings
    return tmp_path / "out.zarr", source


def changed(out, **entries):
    path = out / "volumes" / "zarr.json"
    metadata = json.loads(path.read_text())
    record = metadata["attributes"]["keypatch"]["volumes"][0]
    for key, value in entries.items():
        target = record if key in record else record["resampling"]
        target[key] = value
    path.write_text(json.dumps(metadata))


def codes(out, source=None):
    return {finding.code for finding in validate(out, "quick", source).findings} - {"KP115"}  # the digest tells, too


@pytest.mark.parametrize(
    "entries",
    [
        {"resampling": 7},
        {"resampling": {}},
        {"source_shape": [20, 24]},
        {"source_shape": [20, 24, "28"]},
        {"source_shape": [36, 24, 28]},
        {"source_spacing": [10, 10, 0]},
        {"source_spacing": [1e299, 10, 10]},
        {"source_shape": [2**61, 24, 28], "source_spacing": [1e299, 10, 10], "spacing": [1e-299, 13.3, 13.3]},
        {"spacing": [10, 10, 10]},
        {"kernel": ""},
    ],
)
def test_a_record_that_contradicts_itself_is_a_finding(made, entries):
    out, source = made
    changed(out, **entries)
    assert "KP109" in codes(out)
    assert "KP109" in codes(out, source), "and its patches are not cut by it"


def test_without_its_record_the_patches_do_not_fit(made):
    out, source = made
    changed(out, resampling=None)
    assert "KP503" in codes(out, source)


def test_another_source_is_noticed_by_its_own_shape_and_spacing(made, tmp_path):
    out, _ = made
    other = tmp_path / "other"
    for known, code in (
        # 18 and 19 voxels of 10 Å both are 14 of 13.3: only the file's own shape tells.
        (truth(0, shape=(19, 24, 28), dtype=np.int16), "KP503"),
        (truth(0, shape=(18, 24, 28), spacing=(10.5, 10.0, 10.0), dtype=np.int16), "KP505"),
        (truth(5, shape=(18, 24, 28), dtype=np.int16), "KP506"),
    ):
        shutil.rmtree(other, ignore_errors=True)
        other.mkdir()
        write_mrc(other / "a", known)
        assert code in codes(out, other)


def test_a_kernel_of_a_newer_version_is_not_taken_for_ours(made):
    out, source = made
    changed(out, kernel="lanczos5")
    assert codes(out, source) == {"KP502"}


def test_stores_of_before_have_no_record_and_are_sound(made, tmp_path):
    known = {"a": truth(0, dtype=np.int16)}
    out = tmp_path / "plain.zarr"
    write_mrc(tmp_path / "source" / "b", known["a"])
    picks = write_csv(tmp_path, {"b": known["a"]})
    converted(tmp_path / "source" / "b.mrc", "-a", picks, "-o", out, *SMALL)
    path = out / "volumes" / "zarr.json"
    metadata = json.loads(path.read_text())
    assert metadata["attributes"]["keypatch"]["volumes"][0].pop("resampling") is None
    path.write_text(json.dumps(metadata))
    assert not codes(out, tmp_path / "source")


def test_inspect_still_shows_the_file_as_it_is(made):
    _, source = made
    shown = json.loads(keypatch("inspect", source / "a.mrc", "--json").out)
    assert shown["shape"] == [18, 24, 28]
