"""Bad input: one clear line, the right exit code, and nothing left under the output's name or beside it."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from tests.sources import Truth, convert, converted, names_in, truth, write_csv, write_mrc, write_npy, write_slices

SMALL = ("--patch-shape", "8", "--ds-factor", "4", "--voxel-spacing", "10")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to stand in, with one good volume and its picks."""
    monkeypatch.chdir(tmp_path)
    write_npy(tmp_path / "good", truth(1))
    write_csv(tmp_path, {"good": truth(1)})
    return tmp_path


def refused(*arguments, code, says=(), out="out.zarr", check=()):
    """One line on stderr with these words, below what the check had to say; nothing on stdout or new on the disk."""
    before = names_in_here()
    ran = convert(*arguments, "-o", out)
    assert (ran.code, ran.out) == (code, ""), ran.err
    told, prefix, line = ran.err.rpartition("keypatch: ")
    assert prefix
    assert line.count("\n") == 1, ran.err
    assert re.findall("KP...", told) == list(check)
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err
    for words in says:
        assert words in ran.err
    assert names_in_here() == before
    return ran.err


def names_in_here():
    return names_in(Path())


# ----- volumes -----


def write_missing(path):
    pass


def write_empty(path):
    path.write_bytes(b"")


def write_garbage(path):
    path.write_bytes(bytes(range(256)) * 8)


def write_cut_mrc(path):
    write_mrc(path, truth(1, dtype=np.int16))
    path.write_bytes(path.read_bytes()[:-1000])


def write_promising_mrc(path):
    write_mrc(path, truth(1, dtype=np.int16))
    with mrcfile.open(path, "r+") as mrc:
        mrc.header.nz = 1000


def write_headless_mrc(path):
    path.write_bytes(b"\0" * 208 + b"MAP ")


def write_cut_npy(path):
    write_npy(path, truth(1))
    path.write_bytes(path.read_bytes()[:-1])


def write_flat_npy(path):
    np.save(path, np.zeros((40, 40), np.uint8))


def write_pickled_npy(path):
    np.save(path, np.array([[[{}]]], dtype=object), allow_pickle=True)


def write_complex_npy(path):
    np.save(path, np.zeros((20, 20, 20), np.complex64))


def write_nan_npy(path):
    array = truth(1, dtype=np.float32).array
    array[:] = np.nan
    np.save(path, array)


def write_gap_in_slices(path):
    write_slices(path, truth(1))
    (path / "slice_7.png").unlink()


def write_broken_slice(path):
    write_slices(path, truth(1))
    (path / "slice_0.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def write_folder(path):
    path.mkdir()


def write_text(path):
    path.write_text("volume,z,y,x\n")


VOLUMES = [
    ("bad.mrc", write_missing, 3, "nothing of that name"),
    ("bad.mrc", write_empty, 3, "empty file"),
    ("bad.tif", write_garbage, 3, "formats"),
    ("bad.mrc", write_cut_mrc, 3, "bad.mrc"),
    ("bad.mrc", write_promising_mrc, 3, "bad.mrc"),
    ("bad.mrc", write_headless_mrc, 3, "bad.mrc"),
    ("bad.npy", write_cut_npy, 3, "bad.npy"),
    ("bad.npy", write_flat_npy, 3, "3 axes"),
    ("bad.npy", write_pickled_npy, 3, "bad.npy"),
    ("bad.npy", write_complex_npy, 3, "bad.npy"),
    ("bad.npy", write_nan_npy, 3, "NaN"),
    ("bad", write_gap_in_slices, 3, "between 6 and 8"),
    ("bad", write_broken_slice, 3, "slice_0.png"),
    ("bad", write_folder, 3, "empty folder"),
    ("bad.zarr", write_folder, 3, "empty folder"),
    ("bad.csv", write_text, 3, "formats"),
]


@pytest.mark.parametrize(("name", "write", "code", "says"), VOLUMES, ids=[write.__name__ for _, write, _, _ in VOLUMES])
def test_a_bad_volume(here, name, write, code, says):
    write(here / name)
    (here / "p.csv").write_text("volume,z,y,x\nbad,10,10,10\ngood,10,10,10\n")
    dtype = ("--dtype", "float32")
    refused(name, "good.npy", "-a", "p.csv", *SMALL, *dtype, code=code, says=(name, says))
    check = ("KP632",) if write is write_nan_npy else ()  # the headers were read: there was something to check
    refused(name, "-a", "p.csv", *SMALL, *dtype, code=code, says=(name, says), check=check)


def test_nan_is_found_too_where_percentiles_are_measured(here):
    write_nan_npy(here / "bad.npy")
    (here / "p.csv").write_text("volume,z,y,x\nbad,10,10,10\n")
    refused("bad.npy", "-a", "p.csv", *SMALL, "--dtype", "uint8", code=3, says=("bad.npy", "NaN"))


def test_a_volume_that_is_all_one_value_has_no_percentiles(here):
    np.save(here / "flat.npy", np.full((20, 20, 20), 3, np.float32))
    (here / "p.csv").write_text("volume,z,y,x\nflat,10,10,10\n")
    refused("flat.npy", "-a", "p.csv", *SMALL, "--dtype", "uint8", code=3, says=("flat.npy", "3 at both"))


def test_a_bad_volume_that_only_a_glob_found_is_left_out_and_listed(here):
    write_cut_mrc(here / "bad.mrc")
    (here / "p.csv").write_text("volume,z,y,x\nbad,10,10,10\ngood,10,10,10\n")
    report = converted("*.npy", "*.mrc", "-a", "p.csv", *SMALL, "--dry-run")
    reasons = {entry["reason"]: entry["items"] for entry in report["left_out"]}
    assert reasons["matched by the pattern, but not readable as a volume"][0].startswith("bad.mrc: expected")
    assert reasons["their volume was not given"] == ["p.csv: bad (1 rows)"]


def test_a_volume_smaller_than_the_patch_and_no_padding(here):
    says = ("smaller than the patch", "--padding inside")
    flags = ("--patch-shape", 32, "--voxel-spacing", 10, "--padding", "inside")
    refused("good.npy", "-a", "picks.csv", *flags, code=2, says=says)


def test_volumes_of_several_dtypes(here):
    write_npy(here / "other", truth(2, dtype=np.int16))
    (here / "p.csv").write_text("volume,z,y,x\nother,10,10,10\ngood,10,10,10\n")
    refused("good.npy", "other.npy", "-a", "p.csv", *SMALL, code=2, says=("int16, uint8", "--dtype"))
    converted("good.npy", "other.npy", "-a", "p.csv", *SMALL, "--dtype", "int16", "-o", "out.zarr")


# ----- annotations -----

TABLES = {
    "empty": ("", 3, "empty"),
    "text where a number belongs": ("volume,z,y,x\ngood,1,2,3\ngood,ten,2,3\n", 3, "ten"),
    "half a point": ("volume,z,y,x\ngood,1,2,\n", 3, "empty cell"),
    "infinite": ("volume,z,y,x\ngood,inf,2,3\n", 3, "inf"),
    "no coordinates": ("volume,a,b\ngood,1,2\n", 3, "p.csv"),
    "only points outside": ("volume,z,y,x\ngood,99,2,3\n", 2, "outside their volume"),
    "only other volumes": ("volume,z,y,x\nother,1,2,3\nmore,1,2,3\n", 2, "their volume was not given"),
    "an unknown format": ("\x00\x01\x02", 3, "p.csv"),
    "a volume stated empty": ("volume,z,y,x\ngood,,,\n", 2, "--negatives"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_bad_table(here, case):
    content, code, says = TABLES[case]
    (here / "p.csv").write_text(content)
    check = ("KP602", "KP604") if case == "only points outside" else ()
    refused("good.npy", "-a", "p.csv", *SMALL, code=code, says=(says,), check=check)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "picks.json"),
        ('{"pickable_object_name": "a", "points": [{"location": {"x": "1", "y": 2, "z": 3}}]}', "point 0"),
        ('{"pickable_object_name": "a", "points": [{"location": {"x": NaN, "y": 2, "z": 3}}]}', "point 0"),
        ("[1, 2]", "picks.json"),
    ],
)
def test_a_bad_json(here, content, says):
    (here / "picks.json").write_text(content)
    refused("good.npy", "-a", "picks.json", *SMALL, code=3, says=(says,))


def test_what_is_not_there(here):
    refused("good.npy", "-a", "none.csv", *SMALL, code=3, says=("none.csv",))
    refused("none/*.npy", "-a", "picks.csv", *SMALL, code=3, says=("none/*.npy",))
    refused("good.npy", *SMALL, code=2, says=("annotations",))
    refused("none.toml", code=3, says=("none.toml", "recipe"))


def test_nothing_vanishes_from_a_dry_run(here):
    (here / "p.csv").write_text(
        "volume,z,y,x,class\ngood,5,5,5,a\ngood,5,5,5,a\ngood,99,5,5,a\ngood,6,6,6,b\nother,1,1,1,a\n"
    )
    write_npy(here / "silent", truth(3))
    (here / "notes.npy").write_text("no volume")
    given = ("*.npy", "-a", "p.csv", *SMALL, "--classes", "a", "--multi", 1, "--dry-run")
    before = names_in(here)
    report = converted(*given)
    told = {(entry["what"], entry["count"]) for entry in report["left_out"]}
    assert told == {("annotations", 1), ("volumes", 1), ("patches", 1)}
    assert sum(entry["count"] for entry in report["left_out"] if entry["what"] == "annotations") == 4
    assert report["annotations"] == {"a": 1}
    assert (report["patches"], report["keypoints"]) == ({"total": 1, "centered": 1}, 1)
    assert (report["image_bytes"], report["gaussian_bytes"]) == (8**3, 2**3 * 4)
    assert report["digest"] is None
    text = convert(*given).out
    for words in ("silent.npy", "notes.npy", "p.csv row 1", "p.csv row 2", "p.csv row 3", "other", "two annotations"):
        assert words in text
    assert "(not written)" in text
    assert names_in(here) == before


# ----- flags -----


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--patch-shape", "10"], "use 8,8,8"),
        (["--patch-shape", "0"], "--patch-shape"),
        (["--patch-shape", "many"], "'many'"),
        (["--sigma-ds", "0"], "numbers above 0"),
        (["--sigma-ds", "1", "--sigma-angstrom", "200"], "drop one"),
        (["--jitter", "4"], "less than half the patch"),
        (["--centered", "0"], "0 of every kind"),
        (["--grid", "9"], "at most the patch shape"),
        (["--dtype", "complex64"], "--dtype"),
        (["--dtype", "int64", "--clip-percentiles", "1,99"], "at most 32 bits"),
        (["--codec", "lzma"], "--codec"),
        (["--codec", "zstd:99"], "--codec"),
        (["--chunk-shape", "3"], "--chunk-shape"),
        (["--clip-percentiles", "99,1"], "--clip-percentiles"),
        (["--padding", "wrap"], "--padding"),
        (["--unit", "pixel"], "--unit"),
        (["--zero", "middle"], "--zero"),
        (["--axis-order", "xxy"], "--axis-order"),
        (["--index-base", "2"], "--index-base"),
        (["--columns", "depth=1"], "--columns"),
        (["--columns", "z=nowhere"], "nowhere"),
        (["--map", "x"], "--map"),
        (["--map", "x=y"], "--map x=y"),
        (["--format", "pdf"], "--format"),
        (["--volume-format", "pdf"], "pdf"),
        (["--shard-size", "big"], "--shard-size"),
        (["--workers", "0"], "--workers"),
        (["--classes", "a,a"], "--classes"),
    ],
)
def test_a_flag_that_cannot_be_carried_out(here, flags, says):
    refused("good.npy", "-a", "picks.csv", *SMALL, *flags, code=2, says=(says,))


def test_more_folds_than_volumes_are_a_finding_as_in_a_dry_run(here):
    given = ("good.npy", "-a", "picks.csv", *SMALL, "--folds", "5")
    refused(*given, code=1, says=("1 for 5 folds", "--folds 0"), check=("KP651",))
    assert convert(*given, "--dry-run").code == 1


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("patch-sahpe = 8", 2, "did you mean patch_shape?"),
        ("patch-shape = [8, 8", 2, "TOML"),
        ('patch-shape = "many"', 2, "patch_shape"),
        ("[patches]\nseed = 1", 2, "patches"),
        ("", 2, "annotations"),
    ],
)
def test_a_bad_recipe_file(here, text, code, says):
    (here / "r.toml").write_text(f'volumes = "good.npy"\n{text}\n')
    line = refused("r.toml", code=code, says=(says,))
    assert "r.toml" in line or says == "annotations"


def test_flags_win_over_the_recipe_file(here):
    (here / "r.toml").write_text(
        'volumes = "good.npy"\nannotations = "picks.csv"\nout = "from_file.zarr"\npatch-shape = 16\nds-factor = 4\n'
        "voxel-spacing = 10\nsigma-angstrom = 80\ngaussian = false\ncentered = 2\n"
    )
    report = converted("r.toml", "--patch-shape", 8, "--sigma-ds", 2, "--gaussian", "-o", "from_flag.zarr")
    assert report["store"] == "from_flag.zarr"
    assert report["patches"]["total"] == 6
    recipe = report["recipe"]
    assert (recipe["patch_shape"], recipe["gaussian"]) == ([8, 8, 8], True)
    assert (recipe["sigma_ds"], recipe["sigma_angstrom"]) == ([2.0, 2.0, 2.0], None)
    assert not (here / "from_file.zarr").exists()


# ----- the output -----


def test_what_is_there_stays(here):
    given = ("good.npy", "-a", "picks.csv", *SMALL)
    (here / "out.zarr").write_text("precious")
    refused(*given, code=2, says=("out.zarr", "--overwrite"))
    refused(*given, "--overwrite", code=2, says=("out.zarr", "something else"))
    assert (here / "out.zarr").read_text() == "precious"
    (here / "folder").mkdir()
    (here / "folder" / "thesis.tex").write_text("precious")
    refused(*given, code=2, says=("folder",), out="folder")
    refused(*given, "--overwrite", code=2, says=("folder", "something else"), out="folder")
    refused(*given, "--overwrite", code=2, says=("something else",), out=".")
    refused(*given, "--overwrite", code=2, says=("something else",), out="good.npy")
    assert (here / "folder" / "thesis.tex").read_text() == "precious"
    (here / "loop").symlink_to("loop")
    refused(*given, "--overwrite", code=2, says=("a link that leads to itself",), out="loop")


def test_a_store_is_replaced_only_when_told_and_only_by_a_whole_one(here):
    given = ("good.npy", "-a", "picks.csv", *SMALL)
    first = converted(*given, "-o", "out.zarr")["digest"]
    refused(*given, code=2, says=("--overwrite",))
    write_nan_npy(here / "bad.npy")
    (here / "p.csv").write_text("volume,z,y,x\nbad,10,10,10\n")
    refused("bad.npy", "-a", "p.csv", *SMALL, "--overwrite", code=3, says=("NaN",))
    assert converted(*given, "--dry-run", "-o", "out.zarr")["digest"] is None
    second = converted(*given, "--seed", 1, "--overwrite", "-o", "out.zarr")["digest"]
    assert first != second
    assert names_in(here) == {"good.npy", "bad.npy", "picks.csv", "p.csv", "out.zarr"}


def test_no_place_to_write(here):
    given = ("good.npy", "-a", "picks.csv", *SMALL)
    refused(*given, code=3, says=("a folder to write into",), out="nowhere/out.zarr")
    refused(*given, code=3, says=("a folder to write into",), out="good.npy/out.zarr")
    for n in (250, 300):
        refused(*given, code=3, says=("o" * n,), out="o" * n)
    line = convert(*given)
    assert line.code == 2
    assert "--out" in line.err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(here):
    (here / "locked").mkdir(mode=0o500)
    refused("good.npy", "-a", "picks.csv", *SMALL, code=3, says=("locked", "Permission"), out="locked/out.zarr")


def test_a_full_disk(here):
    """No file may grow beyond 200 kB in the process: the system says "File too large" where it would say "No space"."""
    write_npy(here / "big", Truth(truth(0, shape=(80, 80, 80)).array))
    (here / "p.csv").write_text("volume,z,y,x\nbig,40,40,40\nbig,41,40,40\n")

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    command = [sys.executable, "-m", "keypatch", "convert", "big.npy", "-a", "p.csv", "-o", "out.zarr"]
    flags = ["--patch-shape", "80", "--ds-factor", "16", "--voxel-spacing", "10"]
    ran = subprocess.run([*command, *flags], capture_output=True, text=True, check=False, preexec_fn=limit)
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.count("\n") == 1
    assert "File too large" in ran.stderr
    assert names_in(here) == {"good.npy", "big.npy", "picks.csv", "p.csv"}
    converted("big.npy", "-a", "p.csv", "-o", "out.zarr", *flags)


def test_a_real_process_says_one_line_too(here):
    """Warnings of libraries, which the tests turn into errors, must not reach a person either."""
    write_cut_mrc(here / "bad.mrc")
    for volume, code in (("bad.mrc", 3), ("none.mrc", 3), ("picks.csv", 3)):
        command = [sys.executable, "-m", "keypatch", "convert", volume, "-a", "picks.csv", "-o", "out.zarr"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (code, "", 1)
    command = [sys.executable, "-m", "keypatch", "convert", "good.npy", "-a", "picks.csv", "-o", "out.zarr", *SMALL]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("store")
