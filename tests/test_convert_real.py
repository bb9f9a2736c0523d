"""Real files from end to end; what must come out is read from them by other means, or written out here by hand."""

from __future__ import annotations

import csv
import itertools
import json

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from tests.sources import Truth, assert_store_is_true, convert, converted, keypatch
from tests.store_truth import read_tables

# ----- two microtubules with RELION 5 picks -----

MICROTUBULES = {"13pf_MT": "TS_01", "14pf_MT": "TS_02"}
SPACING = 10.52


@pytest.fixture
def microtubules(real_data):
    folder = real_data / "matched" / "cylindra_mt"
    rows = [line.split() for line in (folder / "particles.star").read_text().splitlines() if line.startswith("TS_")]
    known = {}
    for stem, name in MICROTUBULES.items():
        array = tifffile.imread(folder / f"{stem}.tif")
        points = [
            tuple(float(row[k]) / SPACING + array.shape[3 - k] / 2 for k in (3, 2, 1)) for row in rows if row[0] == name
        ]
        known[stem] = Truth(array, tuple(points), ("keypoint",) * len(points), (SPACING,) * 3)
    return folder, known


def from_the_axis(shape, points):
    """Distance of every voxel from the line through the points, one after the other."""
    places = np.stack(np.indices(shape), axis=-1).astype(float)
    nearest = np.full(shape, np.inf)
    for first, last in itertools.pairwise(points):
        way = last - first
        along = np.clip((places - first) @ way / (way @ way), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(places - first - along[..., None] * way, axis=-1))
    return nearest


def wall_contrast(array, points):
    """How much brighter a tube is than its lumen: the wall of a microtubule is 9 to 12 nm from its axis."""
    distance = from_the_axis(array.shape, points)
    return array[(distance >= 8.5) & (distance < 12)].mean() - array[distance < 6].mean()


def test_picks_lie_on_the_axis_of_their_microtubules(microtubules, tmp_path):
    folder, known = microtubules
    out = tmp_path / "out.zarr"
    report = converted(
        folder / "13pf_MT.tif",
        folder / "14pf_MT.tif",
        "-a",
        folder / "optimisation_set.star",
        "-o",
        out,
        "--patch-shape",
        32,
        "--ds-factor",
        8,
        "--sigma-angstrom",
        100,
        "--centered",
        2,
    )
    assert report["annotations"] == {"keypoint": 5}
    assert not report["left_out"]
    tables = assert_store_is_true(out, known, atol=1e-4)
    for v, (stem, one) in enumerate(known.items()):
        assert tables.volumes[v]["id"] == stem
        points = tables["annotations/coords"][tables.annotations_of(v)]
        assert wall_contrast(one.array, points) > 15
        assert wall_contrast(one.array, points + np.array([0, 0, 15])) < 5


def test_the_sizes_in_tomograms_star_would_put_them_beside_it_and_are_told_to_be_wrong(microtubules, tmp_path):
    folder, known = microtubules
    one = known["13pf_MT"]
    misplaced = np.array(one.points) - np.array(one.array.shape) / 2 + np.array((44, 136, 84)) / 2
    assert wall_contrast(one.array, np.array(one.points)) > 15
    assert wall_contrast(one.array, misplaced) < 5
    ran = convert(
        folder / "13pf_MT.tif", "-a", folder / "optimisation_set.star", "--dry-run", "--json", "--patch-shape", 32
    )
    (shapes,) = [found for found in ran.report["findings"] if found["code"] == "KP622"]
    assert shapes["volumes"] == ["13pf_MT"]
    assert shapes["evidence"] == {"header": {"13pf_MT": [36, 206, 94]}, "annotations": {"13pf_MT": [44, 136, 84]}}


def test_particles_alone_need_to_be_told_what_their_names_mean(microtubules, tmp_path):
    folder, known = microtubules
    volumes = [folder / f"{stem}.tif" for stem in known]
    settings = ("--patch-shape", 32, "--ds-factor", 8, "--jitter", 0)
    ran = convert(*volumes, "-a", folder / "particles.star", "-o", tmp_path / "a.zarr", *settings)
    assert ran.code == 2
    assert "--map" in ran.err
    maps = [part for stem, name in MICROTUBULES.items() for part in ("--map", f"{name}={stem}")]
    converted(*volumes, "-a", folder / "particles.star", "-o", tmp_path / "b.zarr", *settings, *maps)
    assert_store_is_true(tmp_path / "b.zarr", known, atol=1e-4)


def test_the_pickers_centre_is_a_voxel_off(microtubules, tmp_path):
    folder, known = microtubules
    out = tmp_path / "out.zarr"
    converted(
        *(folder / f"{stem}.tif" for stem in known),
        *("-a", folder / "optimisation_set.star", "-o", out, "--patch-shape", 32, "--zero", "volume-center-minus-1"),
    )
    tables = read_tables(out)
    for v, one in enumerate(known.values()):
        found = tables["annotations/coords"][tables.annotations_of(v)]
        np.testing.assert_allclose(found + 1, one.points, atol=1e-4)


# ----- MRC files with picks made from them -----

# Axes of the file's sections, rows and columns (MAPS, MAPR, MAPC), read off the bytes at 64 to 76.
MRC = {
    "TS_run1.rec": "zyx",
    "tomo_int16.mrc": "zyx",
    "tomo22_z50_ves_4_seg.mrc": "zyx",
    "emd_3197.map.gz": "zyx",
    "EMD-3001.map": "yxz",
    "EMD-3001.map.bz2": "yxz",
    "non_zero_origin_map.ccp4": "xyz",
    "3pqr-mode0.ccp4": "zxy",
}


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")  # mrcfile's, about old headers
@pytest.mark.parametrize("name", MRC)
def test_mrc_with_picks_in_angstrom(real_data, tmp_path, name):
    path = real_data / "mrc" / name
    with mrcfile.open(path, permissive=True) as mrc:
        array = mrc.data.transpose([MRC[name].index(axis) for axis in "zyx"])
        spacing = tuple(float(mrc.voxel_size[axis]) for axis in "zyx")
    shape = np.array(array.shape)
    points = [tuple(((shape - 1) * share).tolist()) for share in (0.0, 0.25, 0.5, 1.0)]
    known = {"v": Truth(array, tuple(points), ("keypoint",) * 4, spacing)}
    lines = [",".join(repr(c * s) for c, s in zip(point[::-1], spacing[::-1], strict=True)) for point in points]
    (tmp_path / "picks.csv").write_text("X [A],Y [A],Z [A]\n" + "\n".join(lines) + "\n")
    volume = tmp_path / ("v" + "".join(path.suffixes))
    volume.symlink_to(path)
    out = tmp_path / "out.zarr"
    converted(
        volume,
        "-a",
        tmp_path / "picks.csv",
        "-o",
        out,
        "--patch-shape",
        16,
        "--ds-factor",
        4,
        "--grid",
        16,
        "--padding",
        "edge",
    )
    assert_store_is_true(out, known, atol=1e-4)


def test_mode_0_is_read_unsigned_when_told(real_data, tmp_path):
    path = real_data / "mrc" / "unsigned_ints.mrc"
    with mrcfile.open(path) as mrc:
        known = {"unsigned_ints": Truth(mrc.data.view(np.uint8), ((1, 1, 1),), ("keypoint",), (14.08,) * 3)}
    (tmp_path / "p.csv").write_text("z,y,x\n1,1,1\n")
    settings = ("-a", tmp_path / "p.csv", "-o", tmp_path / "out.zarr", "--patch-shape", 2, "--ds-factor", 1)
    converted(path, *settings, "--unsigned")
    assert_store_is_true(tmp_path / "out.zarr", known)


def test_a_voxel_size_of_0_is_asked_for(real_data, tmp_path):
    (tmp_path / "p.csv").write_text("z,y,x\n1,1,1\n")
    settings = ("-a", tmp_path / "p.csv", "-o", tmp_path / "out.zarr", "--patch-shape", 2, "--ds-factor", 1)
    ran = convert(real_data / "mrc" / "small_probability_map.mrc", *settings)
    assert ran.code == 2
    assert "--voxel-spacing" in ran.err


# ----- OME-Zarr with copick picks -----


def test_ome_zarr_with_axes_x_y_z_and_copick_picks(real_data, tmp_path):
    volume = real_data / "ome-zarr" / "portal_input_omezarr.zarr"
    picks = real_data / "matched" / "portal_fixture" / "copick.json"
    array = np.asarray(zarr.open_array(volume / "0", mode="r")[...]).transpose(2, 1, 0)
    points = [
        tuple(entry["location"][axis] / 14.08 for axis in "zyx") for entry in json.loads(picks.read_text())["points"]
    ]
    known = {"portal_input_omezarr": Truth(array, tuple(points), ("ribosome",) * len(points), (14.08,) * 3)}
    out = tmp_path / "out.zarr"
    report = converted(volume, "-a", picks, "-o", out, "--patch-shape", 4, "--ds-factor", 2, "--padding", "reflect")
    outside = [entry for entry in report["left_out"] if entry["reason"] == "outside their volume"]
    inside = known["portal_input_omezarr"].usable(["ribosome"])
    assert 0 < len(inside) == len(points) - outside[0]["count"]
    assert_store_is_true(out, known, atol=1e-9)


# ----- BYU -----


@pytest.fixture(scope="module")
def labels(real_data):
    with (real_data / "csv" / "byu_train_labels.csv").open() as file:
        return list(csv.reader(file))[1:]


def make_sparse(folder, rows):
    """A volume of zeros in the right shape for every tomogram, without a byte of it on the disk."""
    for name, shape in {row[1]: tuple(int(float(n)) for n in row[5:8]) for row in rows}.items():
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + int(np.prod(shape)))


def motors(rows):
    return sum(row[2] != "-1.0" for row in rows)


def test_the_whole_label_file_is_planned(real_data, labels, tmp_path):
    assert (len(labels), len({row[1] for row in labels}), motors(labels)) == (737, 648, 451)
    make_sparse(tmp_path, labels)
    report = convert(
        tmp_path / "*.npy",
        "-a",
        real_data / "csv" / "byu_train_labels.csv",
        "--dry-run",
        "--json",
        "--patch-shape",
        "160,288,288",
        "--sigma-angstrom",
        200,
        "--folds",
        5,
    ).report
    assert report["volumes"] == 648
    assert report["annotations"] == {"motor": 451}
    assert report["patches"] == {"total": 451, "centered": 451}
    assert not report["left_out"]
    assert report["image_bytes"] == 451 * 160 * 288 * 288
    assert report["gaussian_bytes"] == 451 * 10 * 18 * 18 * 4


def test_three_tomograms_of_the_label_file(real_data, labels, tmp_path):
    names = ("tomo_003acc", "tomo_00e047", "tomo_00e463")
    mine = [row for row in labels if row[1] in names]
    make_sparse(tmp_path, mine)
    report = convert(
        tmp_path / "*.npy",
        "-a",
        real_data / "csv" / "byu_train_labels.csv",
        "--dry-run",
        "--json",
        "--patch-shape",
        "160,288,288",
        "--sigma-angstrom",
        200,
        "--centered",
        3,
        "--negatives",
        2,
    ).report
    assert report["volumes"] == 3
    assert motors(mine) == 7
    assert report["patches"] == {"total": 27, "centered": 21, "negative": 6}
    (entry,) = report["left_out"]
    assert entry["reason"] == "their volume was not given"
    assert entry["count"] == 451 - 7
    assert len(entry["items"]) == 648 - 3
    assert not (tmp_path / "out.zarr").exists()


def test_the_label_file_without_a_volume_of_it(real_data, tmp_path):
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.zeros((4, 4, 4), np.uint8))
    ran = convert(tmp_path / "*.npy", "-a", real_data / "csv" / "byu_train_labels.csv", "-o", tmp_path / "out.zarr")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "451 annotations: their volume was not given" in ran.err


def test_slices_as_the_competition_gives_them(tmp_path):
    """JPEG slices, the real patch shape and sigma, the spacing from the table."""
    rng = np.random.default_rng(0)
    shape, spacing = (170, 300, 300), 13.1
    folder = tmp_path / "train" / "tomo_1"
    folder.mkdir(parents=True)
    for z in range(shape[0]):
        plane = rng.normal(128, 30, shape[1:]).clip(0, 255).astype(np.uint8)
        Image.fromarray(plane).save(folder / f"slice_{z:04d}.jpg", quality=75)
    decoded = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])
    known = {"tomo_1": Truth(decoded, ((80, 150, 150), (5, 295, 20)), ("motor", "motor"), (spacing,) * 3)}
    head = "row_id,tomo_id,Motor axis 0,Motor axis 1,Motor axis 2,Array shape (axis 0),Array shape (axis 1),"
    head += "Array shape (axis 2),Voxel spacing,Number of motors"
    rows = [
        f"{k},tomo_1,{z}.0,{y}.0,{x}.0,170,300,300,{spacing},2" for k, (z, y, x) in enumerate(known["tomo_1"].points)
    ]
    (tmp_path / "train_labels.csv").write_text("\n".join([head, *rows]) + "\n")
    out = tmp_path / "out.zarr"
    report = converted(
        tmp_path / "train" / "*",
        "-a",
        tmp_path / "train_labels.csv",
        "-o",
        out,
        "--patch-shape",
        "160,288,288",
        "--sigma-angstrom",
        200,
    )
    assert not report["left_out"]
    assert not report["warnings"]
    tables = assert_store_is_true(out, known)
    assert tables.volumes[0]["voxel_spacing_from"] == "annotations"
    np.testing.assert_allclose(tables["patches/ds_sigma"], 200 / (16 * spacing))
    ran = keypatch("validate", out, "--depth", "deep", "--source", tmp_path / "train")
    assert ran.code == 0, ran.out + ran.err
