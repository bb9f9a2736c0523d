"""The name of the store: who may build there, what may be replaced, and when it appears."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.builds import digest_of, left_beside, make_sources, plan_of
from tests.sources import convert as convert_command
from tests.sources import every_file

from keypatch.converters import build, target
from keypatch.converters.journal import Journal
from keypatch.errors import ReadError, StoreError, UsageError, WriteError
from keypatch.formats.store import Store
from keypatch.formats.store.building import build_folder

HOLD = """
import sys
from pathlib import Path
from keypatch.converters.journal import Journal
from keypatch.formats.store.building import build_folder
out = Path(sys.argv[1])
with Journal(build_folder(out)).held(out):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp("sources"), "ab", n_points=1)


@pytest.fixture(scope="module")
def plan(folder):
    return plan_of(folder)


@pytest.fixture(scope="module")
def other(folder):
    """Another store from the same sources."""
    return plan_of(folder, padding="edge", seed=1)


@pytest.fixture(scope="module")
def finished(plan, tmp_path_factory):
    """A store to copy, and its digest."""
    path = tmp_path_factory.mktemp("finished") / "out.zarr"
    return path, digest_of(plan, path)


@pytest.fixture
def out(tmp_path, finished):
    """A finished store that lies there."""
    return Path(shutil.copytree(finished[0], tmp_path / "there" / "out.zarr"))


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the build folder of a store."""
    started = []

    def hold(out):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "held\n"
        started.append(process)
        return process

    yield hold
    for process in started:
        process.communicate()


class StoppedError(Exception):
    """Ends a build where a test wants it to end."""


def stop(*_, **__):
    raise StoppedError


# ----- one build at a time -----


def test_a_second_build_is_told_who_builds_and_leaves_with_2(folder, plan, tmp_path, holder):
    out = tmp_path / "out.zarr"
    process = holder(out)
    before = every_file(build_folder(out))
    with pytest.raises(UsageError, match=rf"out\.zarr: .*process {process.pid} on {os.uname().nodename}"):
        digest_of(plan, out)
    flags = ("--voxel-spacing", 10, "--patch-shape", 8, "--ds-factor", 4, "--restart", "--overwrite")
    ran = convert_command(f"{folder}/*.npy", "-a", f"{folder}/picks.csv", "-o", out, *flags)
    assert ran.code == 2
    assert f"process {process.pid}" in ran.err
    assert ran.err.count("\n") == 1
    assert every_file(build_folder(out)) == before
    assert not out.exists()


def test_the_folder_is_free_once_its_build_was_killed(plan, tmp_path, holder, finished):
    out = tmp_path / "out.zarr"
    process = holder(out)
    process.kill()
    process.wait()
    assert digest_of(plan, out) == finished[1]
    assert left_beside(out) == []


def test_a_build_between_its_two_renames_is_not_disturbed(out, holder):
    old = out.with_name(".out.zarr.old")
    holder(out)
    out.rename(old)
    with pytest.raises(UsageError, match="no other build or repair of it"):
        target.check_target(out, overwrite=True)
    assert old.exists()
    assert not out.exists()


# ----- what may be replaced -----


def test_what_is_there_is_not_replaced_unasked(plan, out, finished):
    before = every_file(out.parent)
    with pytest.raises(UsageError, match="--overwrite"):
        digest_of(plan, out)
    assert every_file(out.parent) == before


@pytest.mark.parametrize("make", ["file", "folder", "empty folder", "zarr"])
def test_overwrite_takes_nothing_for_a_store_that_is_none(plan, tmp_path, make):
    out = tmp_path / "there" / "out.zarr"
    out.parent.mkdir()
    if make == "file":
        out.write_text("a letter")
    else:
        out.mkdir()
    if make == "folder":
        (out / "thesis.tex").write_text("three years")
    if make == "zarr":
        (out / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    before = every_file(out.parent)
    with pytest.raises(UsageError, match="keypatch store to overwrite"):
        digest_of(plan, out, overwrite=True)
    assert every_file(out.parent) == before
    assert left_beside(out) == []


@pytest.mark.parametrize("damage", ["no image metadata", "attributes that lack some", "cut attributes", "version 2"])
def test_overwrite_takes_a_damaged_or_unknown_store_for_one(out, damage):
    text = (out / "zarr.json").read_text()
    if damage == "no image metadata":
        (out / "image" / "zarr.json").unlink()
    elif damage == "attributes that lack some":
        (out / "zarr.json").write_text(text.replace('"counts"', '"count"'))
    elif damage == "cut attributes":
        (out / "zarr.json").write_text(text[:300])
    else:
        (out / "zarr.json").write_text(text.replace('"schema_version": "1.', '"schema_version": "2.'))
    with pytest.raises(StoreError):
        Store(out)
    target.check_target(out, overwrite=True)


def test_overwrite_replaces_a_damaged_store(other, out):
    os.truncate(out / "zarr.json", 300)
    digest = digest_of(other, out, overwrite=True)
    assert Store(out).digest == digest
    assert left_beside(out) == []


def test_the_old_store_is_whole_until_the_swap(other, out, finished, monkeypatch):
    seen = []

    def look(*arguments, **keywords):
        seen.append((every_file(out), Store(out).digest))
        return write_metadata(*arguments, **keywords)

    write_metadata = build.write_metadata
    monkeypatch.setattr(build, "write_metadata", look)
    before = every_file(out)
    digest = digest_of(other, out, overwrite=True)
    assert seen == [(before, finished[1])]
    assert Store(out).digest == digest != finished[1]
    assert left_beside(out) == []


@pytest.mark.parametrize("where", ["write_metadata", "check_unchanged", "publish"])
def test_a_build_that_ends_early_leaves_the_old_store_alone(other, out, where, monkeypatch):
    before = every_file(out)
    monkeypatch.setattr(build, where, stop)
    with pytest.raises(StoppedError):
        digest_of(other, out, overwrite=True)
    assert every_file(out) == before
    assert left_beside(out) == [build_folder(out).name]


def test_the_old_store_comes_back_when_the_new_one_cannot_get_its_name(other, out, monkeypatch):
    before, rename = every_file(out), Path.rename

    def refuse(self, to):
        if self.name == "store":
            raise OSError(5, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(WriteError, match="Input/output error"):
        digest_of(other, out, overwrite=True)
    assert every_file(out) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_came_to_lie_there_during_the_build_stays(plan, tmp_path, overwrite, monkeypatch):
    out = tmp_path / "out.zarr"

    def write_a_thesis(*arguments):
        out.mkdir()
        (out / "thesis.tex").write_text("three years")
        return check_unchanged(*arguments)

    check_unchanged = build.check_unchanged
    monkeypatch.setattr(build, "check_unchanged", write_a_thesis)
    with pytest.raises(UsageError):
        digest_of(plan, out, overwrite=overwrite)
    assert every_file(out) == {"thesis.tex": b"three years"}
    assert left_beside(out) == [build_folder(out).name]


def test_a_zip_store_is_replaced_too(other, finished, tmp_path):
    out = tmp_path / "out.zip"
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in every_file(finished[0]).items():
            archive.writestr(name, content)
    digest = digest_of(other, out, overwrite=True)
    assert Store(out).digest == digest
    assert left_beside(out) == []


# ----- links -----


def test_a_link_stays_a_link_and_what_it_points_at_is_replaced(other, out, tmp_path):
    link = tmp_path / "link.zarr"
    link.symlink_to(out)
    digest = digest_of(other, link, overwrite=True)
    assert link.is_symlink()
    assert Store(out).digest == Store(link).digest == digest
    assert left_beside(out) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.zarr", "there"]


def test_a_link_to_nothing_is_filled(plan, tmp_path, finished):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link.zarr"
    link.symlink_to(tmp_path / "disk" / "out.zarr")
    assert digest_of(plan, link) == finished[1]
    assert link.is_symlink()
    assert Store(tmp_path / "disk" / "out.zarr").digest == finished[1]


# ----- killed in the last moment -----


def kept(plan, out, monkeypatch, where="publish"):
    """Leave the folder of a build that was killed just before its store got the name."""
    monkeypatch.setattr(build, where, stop)
    with pytest.raises(StoppedError):
        digest_of(plan, out, overwrite=True)
    monkeypatch.undo()
    return Journal(build_folder(out))


def test_killed_between_the_renames(other, out, finished, monkeypatch):
    kept(other, out, monkeypatch)
    out.rename(out.with_name(".out.zarr.old"))
    with pytest.raises(UsageError, match="--overwrite"):
        digest_of(other, out)
    assert Store(out).digest == finished[1]
    digest = digest_of(other, out, overwrite=True)
    assert Store(out).digest == digest != finished[1]
    assert left_beside(out) == []


def test_killed_after_the_renames(other, out, finished, monkeypatch):
    journal = kept(other, out, monkeypatch)
    digest = (journal.folder / "digest").read_text()
    out.rename(out.with_name(".out.zarr.old"))
    journal.store.rename(out)
    with pytest.raises(UsageError, match="--overwrite"):
        digest_of(other, out)
    assert Store(out).digest == digest != finished[1]
    assert left_beside(out) == []


def test_killed_while_the_old_store_was_taken_away(other, out, finished, monkeypatch):
    journal = kept(other, out, monkeypatch)
    old = out.with_name(".out.zarr.old")
    out.rename(old)
    journal.store.rename(out)
    (old / "zarr.json").unlink()
    with pytest.raises(UsageError, match="--overwrite"):
        digest_of(other, out)
    assert left_beside(out) == []


def test_killed_while_its_own_folder_was_taken_away(other, out, finished, monkeypatch):
    journal = kept(other, out, monkeypatch)
    shutil.rmtree(out)
    journal.store.rename(out)
    shutil.rmtree(journal.folder / "units")
    (journal.folder / "build.json").unlink()
    target.check_target(out, overwrite=True)
    assert left_beside(out) == []


# ----- places -----


def test_a_parent_that_is_missing(plan, tmp_path):
    out = tmp_path / "no" / "such" / "out.zarr"
    with pytest.raises(WriteError, match=r"out\.zarr: expected a folder to write into, found no folder"):
        digest_of(plan, out)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_gone_before_anything_was_built(plan, folder, tmp_path):
    out = tmp_path / "out.zarr"
    (folder / "a.npy").rename(folder / "gone")
    try:
        with pytest.raises(ReadError, match=r"a\.npy"):
            digest_of(plan, out)
    finally:
        (folder / "gone").rename(folder / "a.npy")
    assert list(tmp_path.iterdir()) == []
