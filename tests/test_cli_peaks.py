"""``keypatch peaks`` on the command line: what it writes, what it prints, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import zarr
from numpy.testing import assert_allclose
from tests.sources import Truth, converted, keypatch, write_csv, write_npy
from tests.stores import Design, make_store

import keypatch as package
from keypatch.cli import peaks as command
from keypatch.detections import AGREEMENT
from keypatch.export import FORMATS
from keypatch.peaks import THRESHOLD

POINTS = ((16.25, 15.5, 14.0), (2.0, 28.0, 20.0))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peaks")
    known = {"v": Truth(np.zeros((32, 32, 32), np.uint8), POINTS, ("motor",) * 2)}
    known["w"] = Truth(np.zeros((32, 32, 32), np.uint8))
    for name, one in known.items():
        write_npy(folder / name, one)
    flags = ["--patch-shape", "16", "--ds-factor", "4", "--sigma-ds", "1", "--voxel-spacing", "10", "--grid", "8"]
    converted(folder / "*.npy", "-a", write_csv(folder, known), "-o", folder / "out.zarr", *flags)
    store = package.open(folder / "out.zarr")
    np.save(folder / "predicted.npy", np.stack([patch.gaussian(np.float16) for patch in store]))
    return folder


def test_from_a_file_of_numpy_to_a_table(made, tmp_path):
    ran = keypatch("peaks", made / "predicted.npy", made / "out.zarr", "-o", tmp_path / "picks.csv")
    assert ran.code == 0, ran.err
    assert ran.err == f"keypatch: wrote {tmp_path / 'picks.csv'}\n"
    assert re.search(r"detections +2\n", ran.out)
    assert "1 of 2 with a detection" in ran.out
    table = pd.read_csv(tmp_path / "picks.csv").sort_values("z")
    assert_allclose(table[["z", "y", "x"]].to_numpy(), sorted(POINTS), atol=0.05)


def test_the_stores_own_targets_are_a_trial(made, tmp_path):
    ran = keypatch("peaks", made / "out.zarr" / "gaussian", made / "out.zarr", "-o", tmp_path / "x.csv", "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["detections"] == report["written"] == 2
    assert report["by_volume"] == {"v": 2, "w": 0}
    assert report["by_class"] == {"motor": 2}
    assert report["files"] == [str(tmp_path / "x.csv")]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format(made, tmp_path, form):
    out = tmp_path / "x"
    ran = keypatch("peaks", made / "predicted.npy", made / "out.zarr", "-o", out, "--format", form, "--json")
    assert ran.code == 0, ran.err
    assert out.exists()
    assert json.loads(ran.out)["written"] == (1 if form == "byu" else 2)


def test_options_reach_where_they_should(made, tmp_path):
    common = ("peaks", made / "predicted.npy", made / "out.zarr", "-o", tmp_path / "x.csv", "--json")
    for flags, n in (
        (("--threshold", "1.2"), 0),
        (("--merge-voxels", "100"), 1),
        (("--merge-angstrom", "1000"), 1),
        (("--sigma-ds", "1,1,1"), 2),
        (("--fit-sigma",), 2),
        (("--agreement", "1"), 2),
    ):
        ran = keypatch(*common, *flags)
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["detections"] == n, flags


def test_the_flags_defaults_are_the_librarys():
    assert command.FORMATS == FORMATS
    defaults = {p.name: p.default for p in command.command.params}
    assert (defaults["threshold"], defaults["agreement"]) == (THRESHOLD, AGREEMENT)


def write(path, array):
    np.save(path, array)
    return path


def test_what_is_refused(made, tmp_path):
    store, right = made / "out.zarr", np.load(made / "predicted.npy")
    text = tmp_path / "text.npy"
    text.write_text("no array")
    cut = tmp_path / "cut.npy"
    cut.write_bytes((made / "predicted.npy").read_bytes()[:-100])
    empty = tmp_path / "empty.npy"
    empty.write_bytes(b"")
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{}]), allow_pickle=True)
    zarr.create_group(tmp_path / "group.zarr").create_array("logits", shape=(1,), dtype="f4")
    cases = [
        (tmp_path / "none.npy", 3, "nothing there"),
        (text, 3, "no .npy"),
        (cut, 3, "a .npy file"),
        (empty, 3, "a .npy file"),
        (pickled, 3, "pickled objects"),
        (write(tmp_path / "flat.npy", np.zeros(3)), 3, "(N, C, d, h, w)"),
        (write(tmp_path / "words.npy", np.full((1, 1, 1, 1, 1), "a")), 3, "(N, C, d, h, w)"),
        (tmp_path / "group.zarr", 3, "the arrays: logits"),
        (store, 3, "a keypatch store"),
        (tmp_path, 3, "a Zarr array"),
        (write(tmp_path / "short.npy", right[:-1]), 2, "patches"),
        (write(tmp_path / "two.npy", np.concatenate([right, right], axis=1)), 2, "a channel for each"),
        (write(tmp_path / "nan.npy", np.full_like(right, np.nan)), 2, "finite numbers"),
        (write(tmp_path / "grid.npy", right[..., :3]), 2, "divides"),
    ]
    for path, code, words in cases:
        ran = keypatch("peaks", path, store, "-o", tmp_path / "x.csv")
        assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1), (path, ran.err)
        assert words in ran.err, ran.err
        assert not (tmp_path / "x.csv").exists()
    good = made / "predicted.npy"
    for arguments, code in (
        ((good, tmp_path, "-o", tmp_path / "x.csv"), 3),
        ((good, store, "-o", tmp_path / "none" / "x.csv"), 3),
        ((good, store, "-o", tmp_path / "x.csv", "--class", "none"), 2),
        ((good, store, "-o", tmp_path / "x.csv", "--threshold", "0"), 2),
        ((good, store, "-o", tmp_path / "x.csv", "--sigma-ds", "0"), 2),
        ((good, store, "-o", tmp_path / "x.csv", "--agreement", "2"), 2),
        ((good, store, "-o", tmp_path / "x.csv", "--sigma-ds", "1", "--fit-sigma"), 2),
        ((good, store), 2),
    ):
        ran = keypatch("peaks", *arguments)
        assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1), ran.err


def test_a_damaged_chunk_of_zarr_is_one_line(made, tmp_path):
    copy = tmp_path / "predicted.zarr"
    right = np.load(made / "predicted.npy")
    zarr.create_array(copy, data=right, chunks=(1, *right.shape[1:]))
    assert keypatch("peaks", copy, made / "out.zarr", "-o", tmp_path / "x.csv").code == 0
    (copy / "c" / "3" / "0" / "0" / "0" / "0").write_bytes(b"damage")
    ran = keypatch("peaks", copy, made / "out.zarr", "-o", tmp_path / "y.csv")
    assert (ran.code, ran.err.count("\n")) == (3, 1), ran.err
    assert "heatmap 3" in ran.err


def test_a_byu_submission_of_several_classes_asks_for_one(tmp_path):
    store = make_store(tmp_path, Design()).path
    out = tmp_path / "x.csv"
    heatmaps = store / "gaussian"
    ran = keypatch("peaks", heatmaps, store, "-o", out, "--format", "byu")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "--class motor" in ran.err
    ran = keypatch("peaks", heatmaps, store, "-o", out, "--format", "byu", "--class", "motor", "--json")
    assert ran.code == 0, ran.err
    assert len(pd.read_csv(out)) == 2
    shutil.rmtree(store / "gaussian")
