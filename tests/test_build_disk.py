"""Disks that are full, small or not to be written, files that are cut while they are read, and a build's memory."""

from __future__ import annotations

import collections
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tests.builds import PATIENCE, digest_of, left_beside, make_sources, plan_of, units_kept
from tests.sources import keypatch

from keypatch.converters import build
from keypatch.errors import WriteError
from keypatch.formats.store import Store

PATCH = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Volume a of zeros, which take no room, and b of noise, which no codec makes smaller: six patches each."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    np.save(folder / "a.npy", np.zeros((PATCH, PATCH, 6 * PATCH), np.uint8))
    np.save(folder / "b.npy", rng.integers(0, 256, (PATCH, PATCH, 6 * PATCH), np.uint8, endpoint=False))
    rows = [f"{name},16,16,{PATCH * i + 16}" for name in "ab" for i in range(6)]
    (folder / "picks.csv").write_text("\n".join(["volume,z,y,x", *rows]) + "\n")
    return folder


@pytest.fixture
def out(tmp_path):
    (tmp_path / "built").mkdir()
    return tmp_path / "built" / "out.zarr"


def plan(folder, **settings):
    return plan_of(folder, **{"patch_shape": PATCH, "jitter": 0, **settings})


def arguments(folder, out, *flags):
    """The same build on the command line."""
    return [
        "convert", f"{folder}/[ab].npy", "-a", f"{folder}/picks.csv", "-o", str(out), "--voxel-spacing", "10",
        "--patch-shape", str(PATCH), "--ds-factor", "4", "--jitter", "0", "--workers", "1", *flags,
    ]  # fmt: skip


def command(folder, out, *flags, before=None):
    """It in a process of its own, with a limit."""
    return subprocess.run(
        [sys.executable, "-m", "keypatch", *arguments(folder, out, *flags)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        preexec_fn=before,
    )


def one_line(ran):
    """The line of a build that ended since it could not write or read."""
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith("keypatch: ")
    assert ran.stderr.count("\n") == 1, ran.stderr
    return ran.stderr


def no_file_beyond(n_bytes):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    return limit


# ----- the space is looked at before anything is written -----

Usage = collections.namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("codec", "share"), [("none", 1), ("auto", 0.5)])
def test_a_disk_without_room_is_refused_with_the_figures(folder, out, monkeypatch, codec, share):
    planned = plan(folder, codec=codec)
    need = round(share * 12 * (PATCH**3 + 8**3 * 4))
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: Usage(0, 0, need - 1))
    figures = rf"out\.zarr: expected {need / 1e6:.1f} MB of free space, found {need / 1e6:.1f} MB"
    with pytest.raises(WriteError, match=figures):
        digest_of(planned, out, workers=1)
    assert left_beside(out) == []
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: Usage(0, 0, need))
    digest_of(planned, out, workers=1)


def test_only_the_missing_units_need_room(folder, out, monkeypatch):
    planned = plan(folder, codec="none")
    with stopped_after(6), pytest.raises(WriteError):
        digest_of(planned, out, workers=1)
    assert units_kept(out) == set(range(6))
    need = 6 * (PATCH**3 + 8**3 * 4)
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: Usage(0, 0, need - 1))
    with pytest.raises(WriteError, match="free space"):
        digest_of(planned, out, workers=1)
    assert units_kept(out) == set(range(6))
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: Usage(0, 0, need))
    digest_of(planned, out, workers=1)


@contextlib.contextmanager
def stopped_after(n_units):
    """Let the disk be full when so many units are written."""
    from keypatch.converters import units

    def write_unit(folder, layout, unit, patches):
        if unit == n_units:
            raise WriteError.at(folder, expected="to write there", found="No space left on device")
        return original(folder, layout, unit, patches)

    original = units.write_unit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "write_unit", write_unit)
        yield


# ----- it fills up all the same -----


def test_a_shard_that_the_system_refuses(folder, out):
    line = one_line(command(folder, out, before=no_file_beyond(20_000)))
    assert "File too large" in line
    assert "image/c/6/0/0/0" in line
    assert not out.exists()
    assert units_kept(out) == set(range(6))
    ran = keypatch(*arguments(folder, out))
    assert (ran.code, ran.err) == (0, "")
    assert left_beside(out) == []


def test_metadata_that_the_system_refuses(tmp_path, out):
    """The last thing that is written; all units are kept."""
    folder = tmp_path / "sources"
    folder.mkdir()
    np.save(folder / "a.npy", np.zeros((PATCH, PATCH, 2 * PATCH), np.uint8))
    points = np.random.default_rng(0).uniform(0, PATCH - 1, (2000, 3))
    rows = "".join(f"a,{z:.9f},{y:.9f},{x:.9f}\n" for z, y, x in points)
    (folder / "picks.csv").write_text("volume,z,y,x\n" + rows)
    flags = ("--centered", "0", "--grid", str(PATCH), "--no-gaussian")
    line = one_line(command(folder, out, *flags, before=no_file_beyond(8000)))
    assert "File too large" in line
    assert not out.exists()
    assert units_kept(out) == {0, 1}
    assert keypatch(*arguments(folder, out, *flags)).code == 0
    assert len(Store(out).annotations) == 2000
    assert left_beside(out) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB; gives its folder and what makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )

    if sys.platform != "linux" or os.geteuid() != 0 or mount("size=256k").returncode:
        pytest.skip("only a person who may mount file systems has a small one")
    yield folder, lambda: mount("remount,size=8m")
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_disk_that_fills_up(folder, small_disk, on_error):
    disk, enlarge = small_disk
    out = disk / "out.zarr"
    line = one_line(command(folder, out, "--on-error", on_error))
    assert "No space left on device" in line
    assert "free some space" in line
    assert not out.exists()
    kept = units_kept(out)
    assert set(range(6)) < kept < set(range(12))
    assert enlarge().returncode == 0
    ran = keypatch(*arguments(folder, out))
    assert (ran.code, ran.err) == (0, "")
    assert left_beside(out) == []


def test_a_folder_that_may_not_be_written(folder):
    """Root may write anywhere, so it acts as nobody for a moment; nobody may not look into pytest's own folders."""
    planned = plan(folder)
    sources = build.fingerprints(planned)
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o555)
        with pytest.MonkeyPatch.context() as patch, nobody():
            patch.setattr(build, "fingerprints", lambda _: sources)
            with pytest.raises(WriteError, match=rf"{place}.*: expected to write there, found Permission denied"):
                digest_of(planned, place / "out.zarr", workers=1)
        assert list(place.iterdir()) == []
    finally:
        place.chmod(0o755)
        shutil.rmtree(place)


@contextlib.contextmanager
def nobody():
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# ----- a file that is cut while it is memory mapped -----

CUT_AND_CONVERT = """
import os, sys
from keypatch.cli import main
from keypatch.converters import units
write_unit = units.write_unit
def cut_after_two(folder, layout, unit, patches):
    record = write_unit(folder, layout, unit, patches)
    if unit == 1:
        os.truncate(sys.argv[0], 4096)
    return record
units.write_unit = cut_after_two
sys.argv = sys.argv[1:]
main()
"""


def test_a_file_that_is_cut_while_it_is_read_ends_in_a_line_and_no_signal(tmp_path, out):
    folder = make_sources(tmp_path / "sources", "a", n_points=4, dtype=np.float32)
    flags = ["--voxel-spacing", "10", "--patch-shape", "8", "--ds-factor", "4", "--workers", "1"]
    script = CUT_AND_CONVERT.replace("sys.argv[0]", repr(str(folder / "a.npy")))
    arguments = ["keypatch", "convert", f"{folder}/a.npy", "-a", f"{folder}/picks.csv", "-o", str(out), *flags]
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert "a.npy: expected the source as it was, found that it changed" in one_line(ran)
    assert units_kept(out) == {0, 1}
    assert not out.exists()


# ----- memory -----

BUILD_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
import zarr  # what the program itself takes does not count
from keypatch.converters.build import BuildOptions, convert
from tests.builds import plan_of
folder, patch, budget = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
plan = plan_of(folder, patch_shape=patch, jitter=0)
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
limit = int(status["VmData"].split()[0]) * 1024 + budget
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones(budget + 2**20, np.uint8)
except MemoryError:
    convert(plan, Path(sys.argv[4]), BuildOptions(workers=1))
    print("built")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to RLIMIT_DATA")
def test_a_volume_of_two_gigabytes_needs_no_more_memory_than_six_patches_and_250_mb(tmp_path, out):
    """Memory of its own; pages of a mapped file are the system's to take back."""
    patch, dtype = 64, np.dtype(np.float32)
    shape = (1024, 1024, 512)
    file = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=dtype, shape=shape)  # all holes
    del file
    corners = np.random.default_rng(0).integers(patch, np.array(shape) - patch, (8, 3))
    (tmp_path / "picks.csv").write_text("volume,z,y,x\n" + "".join(f"a,{z},{y},{x}\n" for z, y, x in corners))
    budget = 6 * patch**3 * dtype.itemsize + 250 * 10**6
    ran = subprocess.run(
        [sys.executable, "-c", BUILD_WITH_LITTLE_MEMORY, tmp_path, str(patch), str(budget), out],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE,
    )
    assert (ran.stdout, ran.stderr) == ("built\n", "")
    assert len(Store(out)) == 8
