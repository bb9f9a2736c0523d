"""One array in every format, written by the format's own library, gives one store, byte by byte."""

from __future__ import annotations

import csv

import nibabel
import numpy as np
import pytest
from tests.builds import SETTINGS
from tests.sources import truth, write_csv
from tests.volume_cases import CASES

import keypatch
from keypatch.converters.build import BuildOptions, convert
from keypatch.converters.plan import build_plan
from keypatch.converters.recipe import Recipe

TABLES = ("patches", "keypoints", "annotations")


DTYPES = ("uint8", "int16", "float32")
"""Between them every format holds one. That all ways hold all their dtypes is in test_volumes.py."""


def one_way_a_format(dtype):
    ways = [case for case, (_, held) in CASES.items() if dtype in held]
    return list({case.split("-")[0]: case for case in reversed(ways)}.values())


def built(folder, case, known):
    """Store of the volume "v", written in one way, and its picks."""
    folder.mkdir()
    CASES[case][0](folder, known.array)
    write_csv(folder, {"v": known})
    volume = next(path for path in sorted(folder.iterdir()) if path.name in ("v", *NAMES))
    settings = {"volumes": [str(volume)], "annotations": [str(folder / "picks.csv")], **SETTINGS, "negatives": 2}
    plan = build_plan(Recipe.from_mapping(settings))
    convert(plan, folder / "out.zarr", BuildOptions(workers=1))
    return folder / "out.zarr"


NAMES = [
    "v.zarr", "v.tif", "v.mrc", "v.mrc.gz", "v.mrc.bz2", "v.npy", "v.h5", "v.nii", "v.nii.gz", "v.nii.bz2", "v.nrrd",
    "v.nhdr", "v.mha", "v.mhd", "v.em",
]  # fmt: skip


def voxels_and_points(store):
    """The bytes of every file of the arrays that training reads; ``volumes`` and the digests name the format."""
    folders = [store / name for name in ("image", "gaussian", *TABLES, "integrity")]
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    return {file.relative_to(store).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_store_is_the_same_from_every_format(tmp_path, dtype):
    known = truth(4, shape=(18, 20, 22), n_points=3, dtype=dtype)
    cases = one_way_a_format(dtype)
    expected = voxels_and_points(built(tmp_path / cases[0], cases[0], known))
    assert {name.split("/")[0] for name in expected} == {"image", "gaussian", *TABLES, "integrity"}
    for case in cases[1:]:
        store = built(tmp_path / case, case, known)
        found = voxels_and_points(store)
        assert sorted(found) == sorted(expected), case
        assert [name for name in expected if found[name] != expected[name]] == [], case
        assert keypatch.open(store).volumes["format"].tolist() == [case.split("-")[0]]


def test_every_format_is_among_them():
    from keypatch.formats.volumes import FORMATS

    compared = {case.split("-")[0] for dtype in DTYPES for case in one_way_a_format(dtype)}
    assert compared == {volume_format.NAME for volume_format in FORMATS}


def test_real_landmarks_lie_in_the_real_scan_where_nibabel_puts_them(real_data, tmp_path):
    """32 landmarks of a brain, in mm to the right and front; the scan's own axes run to the right, front and top."""
    folder = real_data / "matched/afids_mni"
    scan, fcsv = folder / "tpl-MNI152NLin2009cAsym_res-02_T1w.nii.gz", folder / "tpl-MNI152NLin2009cAsym_afids.fcsv"
    settings = {"patch_shape": 16, "ds_factor": 4, "volumes": [str(scan)], "annotations": [str(fcsv)]}
    convert(build_plan(Recipe.from_mapping(settings)), tmp_path / "out.zarr", BuildOptions(workers=1))
    with fcsv.open() as file:
        rows = [row for row in csv.reader(file) if not row[0].startswith("#")]
    ras = np.array([[float(row[column]) for column in (1, 2, 3)] for row in rows])
    expected = nibabel.affines.apply_affine(np.linalg.inv(nibabel.load(scan).affine), ras)[:, ::-1]
    store = keypatch.open(tmp_path / "out.zarr")
    found = store.annotations[["z", "y", "x"]].to_numpy()
    assert store.volumes["voxel_spacing"].tolist() == [pytest.approx([2e7, 2e7, 2e7])]
    assert len(found) == 32
    np.testing.assert_allclose(found, expected, atol=1e-4)
