"""A build that ended early, and what the same call makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.builds import digest_of, left_beside, make_sources, plan_of, units_kept
from tests.sources import converted, every_file, truth, write_slices

from keypatch.converters import build, units
from keypatch.converters.journal import Journal
from keypatch.errors import BuildIncompleteError, ReadError, UsageError, WriteError
from keypatch.formats.store import Store
from keypatch.formats.store.building import build_folder

RANGE = {"dtype": "uint8", "clip_percentiles": (1, 99)}


@pytest.fixture
def folder(tmp_path):
    """Volumes a, b and c of four patches, each a unit: a has units 0 to 3, b 4 to 7, c 8 to 11."""
    return make_sources(tmp_path / "sources", "abc", n_points=4, dtype=np.uint16)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "built").mkdir()
    return tmp_path / "built" / "out.zarr"


@pytest.fixture
def written(monkeypatch):
    """The units that were written, in order."""
    numbers = []

    def write_unit(store, layout, unit, patches):
        numbers.append(unit)
        return original(store, layout, unit, patches)

    original = units.write_unit
    monkeypatch.setattr(units, "write_unit", write_unit)
    return numbers


@contextlib.contextmanager
def unreadable(name, *, measuring=True):
    """A volume of which no voxel can be read for a while, at least while units are written."""
    path = f"{name}.npy"

    def refuse(where):
        if Path(where).name == path:
            raise ReadError.at(where, expected="voxels", found="a broken disk")

    def cut(volume, *rest, **more):
        refuse(volume.info.path)
        return original_cut(volume, *rest, **more)

    def measure(where, *rest):
        refuse(where)
        return original_measure(where, *rest)

    original_cut, original_measure = units.cut, units.measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "cut", cut)
        if measuring:
            patch.setattr(units, "measure", measure)
        yield


def stopped_at_b(folder, out, **settings):
    """A build that kept the units of volume a; gives its plan."""
    plan = plan_of(folder, **settings)
    with unreadable("b"), pytest.raises(ReadError, match=r"b\.npy"):
        digest_of(plan, out, workers=1)
    return plan


# ----- going on -----


def test_the_same_call_writes_only_what_is_missing(folder, out, written, tmp_path):
    plan = stopped_at_b(folder, out)
    assert written == [0, 1, 2, 3, 4]
    assert units_kept(out) == {0, 1, 2, 3}
    assert not out.exists()
    written.clear()
    digest = digest_of(plan, out, workers=1)
    assert written == list(range(4, 12))
    assert left_beside(out) == []
    assert digest == digest_of(plan, tmp_path / "undisturbed.zarr", workers=1)


def test_skip_builds_what_it_can_and_lists_the_rest(folder, out, written):
    plan = plan_of(folder)
    with unreadable("b"), pytest.raises(BuildIncompleteError, match=r"4 of 12 units") as caught:
        digest_of(plan, out, workers=1, on_error="skip")
    assert set(caught.value.failures) == {4, 5, 6, 7}
    assert all("b.npy" in reason for reason in caught.value.failures.values())
    assert units_kept(out) == {0, 1, 2, 3, 8, 9, 10, 11}
    assert written == list(range(12))
    written.clear()
    digest_of(plan, out, workers=1)
    assert written == [4, 5, 6, 7]


def test_scalings_are_kept_too_and_missing_ones_fail_their_units(folder, out, monkeypatch):
    plan = plan_of(folder, **RANGE)
    with unreadable("b"), pytest.raises(BuildIncompleteError) as caught:
        digest_of(plan, out, workers=1, on_error="skip")
    assert set(caught.value.failures) == {4, 5, 6, 7}
    assert units_kept(out) == {0, 1, 2, 3, 8, 9, 10, 11}
    measured = []

    def measure(where, *rest):
        measured.append(Path(where).name)
        return original(where, *rest)

    original = units.measure
    monkeypatch.setattr(units, "measure", measure)
    digest_of(plan, out, workers=1)
    assert measured == ["b.npy"]


def test_restart_drops_what_was_kept(folder, out, written):
    plan = stopped_at_b(folder, out)
    written.clear()
    digest_of(plan, out, workers=1, restart=True)
    assert written == list(range(12))
    assert left_beside(out) == []


# ----- not going on -----


def refusal(plan, out):
    """The line of a build that refuses to go on, after which all is as it was."""
    before = every_file(build_folder(out))
    with pytest.raises(UsageError, match="--restart") as caught:
        digest_of(plan, out, workers=1)
    after = every_file(build_folder(out))
    assert {name for name in before if before[name] != after.get(name)} <= {"holder.json"}
    assert not out.exists()
    return str(caught.value)


def test_another_setting_is_named(folder, out):
    stopped_at_b(folder, out)
    line = refusal(plan_of(folder, padding="edge", sigma_ds=2), out)
    assert 'padding was "zero", is "edge"' in line
    assert "sigma_ds was [1.0, 1.0, 1.0], is [2, 2, 2]" in line
    assert "patch_shape" not in line


def test_a_changed_source_is_named(folder, out, monkeypatch):
    stopped_at_b(folder, out)
    np.save(folder / "c.npy", np.load(folder / "c.npy") + 1)
    line = refusal(plan_of(folder), out)
    assert "c.npy has changed on disk" in line
    assert "a.npy" not in line


def test_a_changed_annotation_file_is_named(folder, out, monkeypatch):
    stopped_at_b(folder, out)
    (folder / "picks.csv").write_text((folder / "picks.csv").read_text() + "c,1,1,1,motor\n")
    assert "picks.csv has changed on disk" in refusal(plan_of(folder), out)


def test_a_volume_more_or_less_is_named(folder, out, monkeypatch):
    stopped_at_b(folder, out)
    (folder / "c.npy").rename(folder / "d.npy")
    picks = folder / "picks.csv"
    picks.write_text(picks.read_text().replace("\nc,", "\nd,"))
    line = refusal(plan_of(folder), out)
    assert "d.npy is new" in line
    assert "c.npy is no longer given" in line


def test_slices_that_swapped_names_are_noticed(tmp_path, out):
    folder = make_sources(tmp_path / "sliced", "b", n_points=2)
    slices = write_slices(folder / "a", truth(5))
    first, last = slices / "slice_3.png", slices / "slice_4.png"
    with (folder / "picks.csv").open("a") as picks:
        picks.write("a,5,5,5,motor\n")
    size = max(path.stat().st_size for path in (first, last))
    for path in (first, last):  # as alike as two files can be
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, (0, 0) if path == first else (1, 1))
    before = build.fingerprints(plan_of(folder, volumes=[str(slices)]))
    first.rename(folder / "x")
    last.rename(first)
    (folder / "x").rename(last)
    with pytest.raises(ReadError, match=r"sliced/a: .*changed"):
        build.check_unchanged(before)


@pytest.mark.parametrize("has_units", [True, False])
def test_a_build_of_another_version_is_refused_and_kept(folder, out, has_units):
    plan = stopped_at_b(folder, out)
    path = build_folder(out) / "build.json"
    if not has_units:
        shutil.move(build_folder(out) / "units", build_folder(out) / "finished-shards")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    assert "another version of keypatch (build format 0, not 1)" in refusal(plan, out)
    digest_of(plan, out, workers=1, restart=True)
    assert left_beside(out) == []


@pytest.mark.parametrize("content", ["", "[1]", '{"format": 1, "rec'])
def test_a_damaged_head_of_the_records_is_refused(folder, out, content):
    plan = stopped_at_b(folder, out)
    (build_folder(out) / "build.json").write_text(content)
    assert "build.json is damaged" in refusal(plan, out)


def test_nothing_is_refused_where_nothing_was_kept(folder, out, monkeypatch):
    journal = Journal(build_folder(out))
    with journal.held(out):
        journal.begin(out, {"recipe": {"seed": 5}, "sources": {}, "plan": "another"}, restart=False)
    digest_of(plan_of(folder), out, workers=1)
    assert left_beside(out) == []


# ----- what a power failure or a person left of the records -----


def spoil(out, what):
    store = build_folder(out) / "store"
    records = build_folder(out) / "units"
    if what == "image gone":
        (store / "image/c/1/0/0/0").unlink()
    elif what == "gaussian gone":
        (store / "gaussian/c/1/0/0/0/0").unlink()
    elif what == "image cut":
        os.truncate(store / "image/c/1/0/0/0", 5)
    elif what == "gaussian longer":
        with (store / "gaussian/c/1/0/0/0/0").open("ab") as file:
            file.write(b"\0")
    else:
        (records / "1.json").write_bytes({"empty": b"", "zeros": bytes(90), "cut": b'{"image": ["ab'}[what])


@pytest.mark.parametrize(
    "what", ["image gone", "gaussian gone", "image cut", "gaussian longer", "empty", "zeros", "cut"]
)
def test_a_unit_that_is_not_whole_is_written_again(folder, out, written, what):
    plan = stopped_at_units(folder, out)
    spoil(out, what)
    written.clear()
    with unreadable("c"), pytest.raises(ReadError, match=r"c\.npy"):
        digest_of(plan, out, workers=1)
    assert written == [1, *range(4, 9)]


def stopped_at_units(folder, out):
    """Kept: all scalings, and the units of volume a."""
    plan = plan_of(folder, **RANGE)
    with unreadable("b", measuring=False), pytest.raises(ReadError, match=r"b\.npy"):
        digest_of(plan, out, workers=1)
    return plan


def test_a_torn_scaling_is_measured_again(folder, out, written, tmp_path):
    plan = stopped_at_units(folder, out)
    (build_folder(out) / "scalings" / "0.json").write_text("")
    written.clear()
    digest = digest_of(plan, out, workers=1)
    assert written == list(range(4, 12))
    assert digest == digest_of(plan, tmp_path / "undisturbed.zarr", workers=1)


def test_leftovers_do_not_get_into_the_store(folder, out, tmp_path):
    plan = stopped_at_b(folder, out)
    store = build_folder(out) / "store"
    leftovers = ["image/c/5/0/0/0.partial", "gaussian/c/5/0/0/0/0.partial", "image/zarr.json", "patches/zarr.json"]
    leftovers += ["patches/origin/c/0/0", "zarr.json", "old_table/c/0", "integrity/x/zarr.json", "stray"]
    for name in leftovers:
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(b"half")
    (store / "image/c/999").mkdir()
    (build_folder(out) / "units" / ".4.json.77").write_text("{")
    (build_folder(out) / "active" / "1-1").write_text("4")
    digest = digest_of(plan, out, workers=1)
    undisturbed = tmp_path / "undisturbed.zarr"
    assert digest == digest_of(plan, undisturbed, workers=1)
    assert every_file(out) == every_file(undisturbed)
    assert not (out / "image/c/999").exists()


# ----- ends before there is anything to keep -----


def test_a_failure_before_any_unit_leaves_nothing(folder, out):
    plan = plan_of(folder)
    with unreadable("a"), pytest.raises(ReadError, match=r"a\.npy"):
        digest_of(plan, out, workers=1)
    assert left_beside(out) == []
    assert not out.exists()


def test_a_failure_of_ours_before_any_unit_leaves_nothing(folder, out, monkeypatch):
    def refuse(*_, **__):
        message = "a bug"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(units, "write_unit", refuse)
    with pytest.raises(ZeroDivisionError):
        digest_of(plan_of(folder), out, workers=1)
    assert left_beside(out) == []


# ----- sources that change while a store is built from them -----


@pytest.mark.parametrize("change", ["touch", "content", "vanish", "annotations"])
def test_a_source_that_changes_during_the_build(folder, out, monkeypatch, change):
    def write_unit(*arguments):
        record = original(*arguments)
        if arguments[2] == 2:
            alter(folder, change)
        return record

    original = units.write_unit
    monkeypatch.setattr(units, "write_unit", write_unit)
    name = "picks.csv" if change == "annotations" else "a.npy"
    with pytest.raises(ReadError, match=rf"{name}: expected the source"):
        digest_of(plan_of(folder), out, workers=1)
    assert not out.exists()
    assert 0 in units_kept(out)


def alter(folder, change):
    path = folder / "a.npy"
    if change == "touch":
        os.utime(path, ns=(0, 0))
    elif change == "content":
        with path.open("r+b") as file:
            file.seek(200)
            file.write(b"other voxels")
    elif change == "vanish":
        path.unlink()
    else:
        (folder / "picks.csv").write_text("volume,z,y,x\na,1,1,1\n")


def test_a_volume_that_is_replaced_by_one_of_another_shape(folder, out, monkeypatch):
    plan = plan_of(folder)
    before = build.fingerprints(plan)
    np.save(folder / "b.npy", np.zeros((4, 4, 4), np.uint16))
    monkeypatch.setattr(build, "fingerprints", lambda _: before)
    with pytest.raises(ReadError, match=r"b\.npy: "):
        digest_of(plan, out, workers=1)
    assert not out.exists()


def test_a_disk_that_refuses_ends_the_build_though_it_shall_skip(folder, out, written, monkeypatch):
    def record_unit(self, record):
        if record.unit == 2:
            raise WriteError.at(out, expected="to write there", found="No space left on device")
        return original(self, record)

    original = Journal.record_unit
    monkeypatch.setattr(Journal, "record_unit", record_unit)
    with pytest.raises(WriteError, match="No space left"):
        digest_of(plan_of(folder), out, workers=1, on_error="skip")
    assert written == [0, 1, 2]
    assert units_kept(out) == {0, 1}


def test_the_command_line_goes_on_too(folder, out, written):
    stopped_at_b(folder, out)
    written.clear()
    flags = ("--voxel-spacing", 10, "--patch-shape", 8, "--ds-factor", 4)
    report = converted(f"{folder}/[a-z].*", "-a", f"{folder}/picks.csv", "-o", out, *flags)
    assert written == list(range(4, 12))
    assert report["digest"] == Store(out).digest
