"""`repair`: a damaged shard becomes the one that was written, to the bit, or stays as it is."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.permissions import as_nobody, open_folder
from tests.sources import converted, every_file, keypatch, truth, write_csv, write_npy

import keypatch as package
from keypatch.audit.repair import repair
from keypatch.audit.validate import validate
from keypatch.converters.journal import Journal
from keypatch.errors import ReadError, StoreError, UsageError, WriteError
from keypatch.formats.store import codecs
from keypatch.formats.store.building import build_folder
from keypatch.formats.store.shard import ShardWriter

from .stores import (
    Design,
    Made,
    Mutation,
    Spoiled,
    copy_of,
    edit_attributes,
    edit_json,
    edit_table,
    flip,
    make_store,
    swap,
)

IMAGE0, IMAGE1, IMAGE3 = (f"image/c/{k}/0/0/0" for k in (0, 1, 3))
TARGET1, TARGET2 = (f"gaussian/c/{k}/0/0/0/0" for k in (1, 2))

DESIGNS = {
    "default": Design(),
    "float": Design(seed=1, padding="mean", dtype="float32", source_dtype="float32", gaussian_dtype="float16"),
    "no-gaussian": Design(seed=2, padding="reflect", gaussian_dtype=None, folds=0, source_dtype="uint8"),
    "uncompressed": Design(seed=3, padding="edge", codec="none", dtype="int16"),
    "inside": Design(seed=4, padding="inside", codec="blosc:5", source_dtype="float64", dtype="float32"),
    "strong": Design(seed=5, codec="zstd:12", patches_per_shard=2, chunk_shape=(16, 32, 24)),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module", params=DESIGNS.values(), ids=DESIGNS.keys())
def any_made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("any"), request.param)


@pytest.fixture
def store(made: Made, tmp_path: Path) -> Spoiled:
    return copy_of(made, tmp_path)


def _remove(name: str) -> Mutation:
    return lambda store: (store / name).unlink()


def _cut(name: str, n_bytes: int) -> Mutation:
    return lambda store: os.truncate(store / name, n_bytes)


def _append(name: str) -> Mutation:
    return lambda store: (store / name).write_bytes((store / name).read_bytes() + b"0")


def _swap_parts(store: Spoiled) -> None:
    """Two images, then one of them with a Gaussian where there are any."""
    swap(store / IMAGE0, store / IMAGE1)
    if (store / TARGET1).exists():
        swap(store / IMAGE1, store / TARGET1)


def _remove_all(store: Spoiled) -> None:
    for array in ("image", "gaussian"):
        shutil.rmtree(store / array / "c", ignore_errors=not (store / array).exists())


def _link_out(name: str) -> Mutation:
    def change(store: Spoiled) -> None:
        outside = store.path.parent / "outside"
        shutil.move(store / name, outside)
        (store / name).symlink_to(outside)

    return change


def _link_to_another(store: Spoiled) -> None:
    (store / IMAGE1).unlink()
    (store / IMAGE1).symlink_to(store / IMAGE0)


DAMAGE: dict[str, Mutation] = {
    "a flipped bit": lambda s: flip(s / IMAGE1, 40),
    "a cut shard": _cut(IMAGE1, 1000),
    "an emptied shard": _cut(IMAGE1, 0),
    "a removed shard": _remove(IMAGE1),
    "swapped shards": _swap_parts,
    "all shards removed": _remove_all,
}

MORE_DAMAGE: dict[str, Mutation] = {
    "a flipped bit of the index": lambda s: flip(s / IMAGE1, -20),
    "a cut index": _cut(IMAGE1, 5),
    "a byte too many": _append(IMAGE1),
    "a removed folder": lambda s: shutil.rmtree(s / "image/c/1"),
    "the last shard removed": lambda s: shutil.rmtree(max((s / "image/c").iterdir(), key=lambda p: int(p.name))),
    "a link out of the store": _link_out(IMAGE1),
    "a link to another shard": _link_to_another,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_to_the_shards_of_any_store_is_undone(any_made: Made, tmp_path: Path, damage: Mutation) -> None:
    _is_undone(any_made, copy_of(any_made, tmp_path), damage)


@pytest.mark.parametrize("damage", MORE_DAMAGE.values(), ids=MORE_DAMAGE.keys())
def test_odd_damage_to_shards_is_undone(made: Made, store: Spoiled, damage: Mutation) -> None:
    _is_undone(made, store, damage)


def _is_undone(made: Made, store: Spoiled, damage: Mutation) -> None:
    before = every_file(store.path)
    damage(store)
    report = repair(store, made.source)
    assert report.passed, report
    assert report.repaired
    assert report.digest == report.original_digest == made.digest
    assert every_file(store.path) == before
    assert not any(path.is_symlink() for path in store.path.rglob("*"))
    again = validate(store, "full", source=made.source)
    assert (again.findings, again.digest) == ((), made.digest)
    assert {p.name for p in store.path.parent.iterdir()} - {"outside"} == {"copy.zarr"}


@pytest.mark.parametrize("name", ["default", "float"])
def test_gaussians_need_no_source(name: str, tmp_path: Path) -> None:
    made = make_store(tmp_path / "made", DESIGNS[name])
    store = copy_of(made, tmp_path)
    before = every_file(store.path)
    flip(store / TARGET2, 9)
    (store / TARGET1).unlink()
    report = repair(store, gaussians_only=True)
    assert report.passed
    assert {shard.file: shard.fault for shard in report.repaired} == {
        TARGET1: "missing",
        TARGET2: "other bytes than were written",
    }
    assert (report.arrays, report.shards_checked) == (("gaussian",), 4)
    assert every_file(store.path) == before


def test_resampled_and_quantised_volumes_are_cut_as_they_were(tmp_path: Path) -> None:
    known = {name: truth(k, n_points=3, dtype=np.float32) for k, name in enumerate("ab")}
    (tmp_path / "in").mkdir()
    for name, volume in known.items():
        write_npy(tmp_path / "in" / name, volume)
    picks, out = write_csv(tmp_path, known), tmp_path / "out.zarr"
    flags = ("--voxel-spacing", 10, "--resample-to", 13, "--patch-shape", 8, "--ds-factor", 4, "--padding", "mean")
    digest = converted(f"{tmp_path}/in/*.npy", "-a", picks, "-o", out, *flags, "--dtype", "uint8")["digest"]
    before = every_file(out)
    shutil.rmtree(out / "image/c")
    shutil.rmtree(out / "gaussian/c")
    report = repair(out, tmp_path / "in")
    assert (report.passed, report.digest) == (True, digest)
    assert every_file(out) == before


def test_gaussians_alone_leave_images_as_they_are(store: Spoiled) -> None:
    flip(store / IMAGE1, 40)
    flip(store / TARGET2, 9)
    out = keypatch("repair", store, "--gaussians").out
    assert "images not looked at" in out
    assert "as it was built" not in out
    assert {f.where for f in validate(store, "full").findings if f.code == "KP201"} == {IMAGE1}


def test_without_a_source_the_gaussians_are_repaired_and_the_images_named(store: Spoiled) -> None:
    (store / IMAGE1).unlink()
    (store / TARGET2).unlink()
    report = repair(store)
    assert [shard.file for shard in report.repaired] == [TARGET2]
    (left,) = report.remaining
    assert (left.file, left.array, left.unit, left.first_patch, left.last_patch) == (IMAGE1, "image", 1, 3, 5)
    assert left.fault == "missing"
    assert "needs the volume day0/tomo_0.npy: give --source" in left.reason
    assert not report.passed
    assert report.rebuild == ""


def test_a_sound_store_is_not_touched(made: Made, store: Spoiled) -> None:
    before = {p: p.stat().st_mtime_ns for p in [store.path, *store.path.rglob("*")]}
    report = repair(store, made.source, remove_stray=True)
    assert (report.passed, report.shards, report.digest) == (True, (), made.digest)
    assert report.shards_checked == 8
    assert report.bytes_hashed == sum(p.stat().st_size for p in store.path.glob("*/c/*/0/0/**/*") if p.is_file())
    assert {p: p.stat().st_mtime_ns for p in [store.path, *store.path.rglob("*")]} == before


def test_a_dry_run_changes_nothing(made: Made, store: Spoiled) -> None:
    flip(store / IMAGE1, 40)
    (store / "notes.txt").write_text("x")
    before = every_file(store.path)
    report = package.repair(store, made.source, dry_run=True, remove_stray=True)
    assert [(s.file, s.repaired, s.reason) for s in report.shards] == [(IMAGE1, False, "")]
    assert (report.strays, report.removed, report.passed) == (("notes.txt",), (), False)
    assert every_file(store.path) == before
    assert not build_folder(store.path).exists()


# ----- sources that are not those of the store -----


def _source_copy(made: Made, folder: Path) -> Path:
    return Path(shutil.copytree(made.source, folder / "other"))


def _change_everywhere(path: Path) -> None:
    np.save(path, np.load(path) + 1)


SOURCES = {
    "another volume": (_change_everywhere, "is not the one that was read: patch 0, which is sound"),
    "another shape": (lambda p: np.save(p, np.load(p)[1:]), "volume tomo_0: expected (40, 90, 60)"),
    "another dtype": (lambda p: np.save(p, np.load(p).astype("float32")), "expected int16, found float32"),
    "no volume": (lambda p: p.unlink(), "found no such file"),
    "no volume but text": (lambda p: p.write_text("hello"), "expected a readable volume"),
}


@pytest.mark.parametrize(("change", "says"), SOURCES.values(), ids=SOURCES.keys())
def test_a_wrong_source_is_refused_and_nothing_changed(
    made: Made, store: Spoiled, tmp_path: Path, change, says
) -> None:
    source = _source_copy(made, tmp_path)
    change(source / "day0/tomo_0.npy")
    flip(store / IMAGE1, 40)
    before = every_file(store.path)
    report = repair(store, source)
    (left,) = report.remaining
    assert says in left.reason
    assert report.rebuild.startswith(f"keypatch convert {source}/day0/tomo_0.npy")
    assert every_file(store.path) == before
    assert not build_folder(store.path).exists()


def test_a_source_that_changed_only_there_is_told(made: Made, store: Spoiled, tmp_path: Path) -> None:
    source = _source_copy(made, tmp_path)
    path = source / "day1/tomo_1.npy"
    values = np.load(path)
    values[
        tuple(made.columns["patches/origin"][made.layout.n_patches - 1] + made.columns["patches/valid_start"][-1])
    ] = 9
    np.save(path, values)
    (store / IMAGE3).unlink()
    (left,) = repair(store, source).remaining
    assert "its source changed where its patches lie" in left.reason


def test_without_a_sound_shard_the_cause_is_left_open(made: Made, store: Spoiled, tmp_path: Path) -> None:
    source = _source_copy(made, tmp_path)
    for path in source.rglob("*.npy"):
        _change_everywhere(path)
    shutil.rmtree(store / "image/c")
    report = repair(store, source)
    assert len(report.remaining) == 4
    assert all("no sound shard of the same volumes to tell" in shard.reason for shard in report.remaining)


@pytest.mark.parametrize("file", [IMAGE1, TARGET1])
def test_a_library_that_compresses_otherwise_is_told(
    made: Made, store: Spoiled, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zstd and blosc may change their output between versions, and decode to the same values."""
    real = codecs._compressor

    def other_version(declared: dict[str, Any], dtype: np.dtype[Any]) -> object:
        configuration = dict(declared["configuration"])
        configuration |= {"clevel": 1, "shuffle": "noshuffle"} if declared["name"] == "blosc" else {"level": 9}
        return real({**declared, "configuration": configuration}, dtype)

    (store / file).unlink()
    before = every_file(store.path)
    monkeypatch.setattr(codecs, "_compressor", other_version)
    (left,) = repair(store, made.source).remaining
    assert "compresses to other bytes here" in left.reason
    assert every_file(store.path) == before


# ----- what cannot be repaired -----


def test_damaged_tables_are_named_and_shards_repaired_all_the_same(made: Made, store: Spoiled) -> None:
    flip(store / "annotations/score/c/0", 30)
    (store / IMAGE1).unlink()
    report = repair(store, made.source)
    assert [shard.file for shard in report.repaired] == [IMAGE1]
    assert {f.code for f in report.metadata} == {"KP209", "KP115"}
    assert not report.passed
    assert report.rebuild.startswith("keypatch convert ")


def test_shards_that_the_damaged_tables_describe_are_left(made: Made, store: Spoiled) -> None:
    """An origin edited with a valid checksum: the shard comes out otherwise, so it is not put in place."""
    edit_table(store, "patches/origin", lambda values: values.__setitem__((3, 0), values[3, 0] + 1))
    (store / IMAGE1).unlink()
    report = repair(store, made.source)
    (left,) = report.remaining
    assert "or the store's tables did" in left.reason
    assert not (store / IMAGE1).exists()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda s: shutil.rmtree(s / "integrity/image_sha256"), "KP101"),
        (lambda s: (s / "patches/origin/zarr.json").write_text("{"), "KP102"),
        (lambda s: (s / "image/zarr.json").unlink(), "KP101"),
        (lambda s: (s / "volumes/zarr.json").write_text("[]"), "KP102"),
        (lambda s: edit_attributes(s, lambda a: a["recipe"].update(padding="odd")), "KP116"),
        (lambda s: edit_attributes(s, lambda a: a.pop("digests")), "KP106"),
        (lambda s: edit_attributes(s, lambda a: a.update(sources=[1])), "KP110"),
        (_link_out("patches/kind/c/0"), "KP208"),
    ],
)
def test_damaged_metadata_are_a_clear_report(made: Made, store: Spoiled, damage: Mutation, code: str) -> None:
    (store / IMAGE1).unlink()
    (store / TARGET1).unlink()
    damage(store)
    report = repair(store, made.source)
    assert code in {f.code for f in report.metadata}
    assert not report.passed
    json.dumps(report.to_json(), allow_nan=False)
    ran = keypatch("repair", store, "--source", made.source, "--dry-run")
    assert ran.code == 1
    assert "CANNOT BE REPAIRED" in ran.out
    assert "restore these files from a copy" in ran.out


def test_claims_of_many_shards_cost_nothing(made: Made, store: Spoiled) -> None:
    def claim(value: dict[str, Any]) -> None:
        value["shape"][0] = 10**18

    edit_json(store / "image/zarr.json", claim)
    report = repair(store, made.source)
    assert report.shards_checked == 8
    assert report.metadata


# ----- strays -----


def _with_strays(store: Spoiled) -> None:
    (store / "notes.txt").write_text("x")
    (store / "more/deep/empty").mkdir(parents=True)
    (store / "more/deep/file").write_text("x")
    shutil.copytree(store / "image/c/1", store / "image/c/99")
    (store / f"{IMAGE1}.partial").write_text("half")
    (store / "loop").symlink_to(store / "loop")
    (store.path.parent / "precious").write_text("stays")
    (store / "away").symlink_to(store.path.parent / "precious")
    os.mkfifo(store / "image/pipe")


STRAYS = ("away", "image/c/1/0/0/0.partial", "image/c/99/0/0/0", "image/pipe", "loop", "more/deep/empty")
STRAYS = (*STRAYS, "more/deep/file", "notes.txt")


def test_strays_are_listed_and_stay(made: Made, store: Spoiled) -> None:
    _with_strays(store)
    (store / IMAGE1).unlink()
    report = repair(store, made.source)
    assert (report.strays, report.removed) == (STRAYS, ())
    assert len(report.repaired) == 1
    assert not report.passed
    assert all(os.path.lexists(store / name) for name in STRAYS)


def test_strays_are_removed_when_asked(made: Made, store: Spoiled) -> None:
    before = every_file(store.path)
    _with_strays(store)
    report = repair(store, made.source, remove_stray=True)
    assert (report.strays, report.removed) == ((), STRAYS)
    assert report.passed
    assert report.digest == made.digest
    assert every_file(store.path) == before
    assert validate(store, "full").findings == ()
    assert (store.path.parent / "precious").read_text() == "stays"


def test_where_metadata_are_damaged_nothing_is_taken_for_a_stray(made: Made, store: Spoiled) -> None:
    """With fewer patches in the metadata, a good shard looks like a stray."""

    def fewer(value: dict[str, Any]) -> None:
        value["shape"][0] = 9

    edit_json(store / "image/zarr.json", fewer)
    before = every_file(store.path)
    report = repair(store, made.source, remove_stray=True)
    assert "image/c/3/0/0/0" in report.strays
    assert report.removed == ()
    assert every_file(store.path) == before


def test_a_folder_behind_a_link_is_not_written_into(made: Made, store: Spoiled, tmp_path: Path) -> None:
    shutil.move(store / "image/c/1", tmp_path / "elsewhere")
    (store / "image/c/1").symlink_to(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere/0")
    (left,) = repair(store, made.source).remaining
    assert "image/c/1 is a link: remove it first" in left.reason
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_at_the_place_of_a_shard_stays(made: Made, store: Spoiled) -> None:
    (store / IMAGE1).unlink()
    (store / IMAGE1).mkdir()
    (left,) = repair(store, made.source).remaining
    assert "cannot be put in place" in left.reason


# ----- no store, no permission, somebody else -----


def test_what_is_no_store_or_no_source_is_an_error(made: Made, store: Spoiled, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        repair(tmp_path)
    with pytest.raises(ReadError, match="check --source"):
        repair(store, tmp_path / "nowhere")
    (store / "zarr.json").write_bytes(b"")
    with pytest.raises(StoreError):
        repair(store, made.source)


@pytest.mark.parametrize("beside", [0o555, 0o777])
def test_a_store_that_may_not_be_written_is_a_clear_line(made: Made, beside: int) -> None:
    with open_folder() as folder:
        store = copy_of(made, folder)
        (store / TARGET1).unlink()
        for path in (store.path, *store.path.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        folder.chmod(beside)
        before = every_file(store.path)
        with as_nobody():
            ran = keypatch("repair", store)
            with pytest.raises(WriteError, match="permission to write"):
                repair(store)
            assert repair(store, dry_run=True).shards
        assert every_file(store.path) == before
        assert not build_folder(store.path).exists()
    assert ran.code == 3
    assert ran.err.count("\n") == 1
    assert "expected permission to write, to repair a store, found none; repair a copy" in ran.err


def test_two_repairs_or_a_build_do_not_meet(made: Made, store: Spoiled) -> None:
    (store / IMAGE1).unlink()
    expected = pytest.raises(UsageError, match="no other build or repair of it, found one by process")
    with Journal(build_folder(store.path)).held(store.path), expected:
        repair(store, made.source)
    assert not (store / IMAGE1).exists()
    assert repair(store, made.source).passed


def test_a_store_that_was_replaced_meanwhile_is_left_alone(
    made: Made, store: Spoiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that overwrites the store ends between the look at it and the lock."""
    other = make_store(tmp_path / "other", Design(seed=9))
    (store / IMAGE1).unlink()
    held = Journal.held

    def swapped_before(self: Journal, out: Path) -> object:
        shutil.rmtree(store.path)
        shutil.copytree(other.path, store.path)
        return held(self, out)

    monkeypatch.setattr(Journal, "held", swapped_before)
    with pytest.raises(UsageError, match="another by now"):
        repair(store, made.source)
    assert every_file(store.path) == every_file(other.path)


def test_a_kept_build_beside_the_store_is_kept(made: Made, store: Spoiled) -> None:
    """An unfinished build that will overwrite the store goes on afterwards."""
    (store / IMAGE1).unlink()
    journal = Journal(build_folder(store.path))
    with journal.held(store.path):
        journal.begin(store.path, {"recipe": {}, "sources": {}, "plan": ""}, restart=False)
        (journal.folder / "units/0.json").write_text("{}")
    assert repair(store, made.source).passed
    assert journal.has_results()
    assert not (journal.folder / "repair").exists()


def test_what_a_killed_repair_left_is_taken_away_though_nothing_is_damaged(made: Made, store: Spoiled) -> None:
    work = build_folder(store.path) / "repair"
    work.mkdir(parents=True)
    (work / "image-1.partial").write_bytes(b"half")
    with Journal(build_folder(store.path)).held(store.path):  # somebody may be at work there
        assert repair(store, made.source).passed
        assert work.exists()
    assert repair(store, made.source, dry_run=True).passed
    assert work.exists()
    assert repair(store, made.source).passed
    assert not build_folder(store.path).exists()


def test_a_disk_that_fills_up_is_an_error_and_harms_nothing(
    made: Made, store: Spoiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / IMAGE1).unlink()
    flip(store / TARGET2, 9)
    before = every_file(store.path)

    def full(self: ShardWriter, chunk: int, *parts: bytes) -> None:
        raise WriteError.at(self.path, expected="to write there", found="No space left on device")

    monkeypatch.setattr(ShardWriter, "add", full)
    with pytest.raises(WriteError, match="No space left"):
        repair(store, made.source)
    assert every_file(store.path) == before
    assert not build_folder(store.path).exists()


# ----- killed -----


def _damaged(store: Path, made: Made) -> set[str]:
    """Shards whose bytes are not those of the made store, without our own code. Nothing else may differ."""
    expected, found = every_file(made.path), every_file(store)
    assert found.keys() <= expected.keys()
    other = {name for name, data in expected.items() if found.get(name) != data}
    assert all(name.startswith(("image/c/", "gaussian/c/")) for name in other)
    return other


def test_a_repair_that_is_killed_never_makes_it_worse(tmp_path: Path) -> None:
    made = make_store(tmp_path / "made", Design(volume_shapes=((60, 90, 60),) * 6, n_annotations=(6,) * 6))
    store = copy_of(made, tmp_path)
    rng = random.Random(0)
    shards = sorted(name for name in every_file(made.path) if name.startswith(("image/c/", "gaussian/c/")))
    for k, name in enumerate(shards):
        if k % 3:
            flip(store / name, rng.randrange((store / name).stat().st_size))
        else:
            (store / name).unlink()
    damaged = {name: (store / name).read_bytes() if (store / name).exists() else None for name in shards}
    assert _damaged(store.path, made) == set(shards)
    program = "from keypatch.audit.repair import repair; import sys; print('on', flush=True); repair(*sys.argv[1:])"
    left, n_killed = set(shards), 0
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(store.path), str(made.source)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        n_killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
        now = _damaged(store.path, made)
        assert now <= left
        for name in now:  # a shard that is not whole yet is what it was
            assert ((store / name).read_bytes() if (store / name).exists() else None) == damaged[name]
        left = now
        if not left:
            break
    assert n_killed
    report = repair(store, made.source)
    assert report.passed
    assert not _damaged(store.path, made)
    assert validate(store, "full", source=made.source).findings == ()
    assert not build_folder(store.path).exists()


# ----- on the command line -----


def test_the_command_repairs_and_says_so(made: Made, store: Spoiled) -> None:
    digest = hashlib.sha256((store / IMAGE1).read_bytes()).hexdigest()
    flip(store / IMAGE1, 40)
    dry = keypatch("repair", store, "--dry-run")
    assert (dry.code, dry.err) == (1, "")
    assert dry.out.splitlines()[0] == f"{store}: 1 shard of it damaged"
    assert f"damaged   {IMAGE1} (patches 3 … 5): other bytes than were written" in dry.out
    ran = keypatch("repair", store, "--source", made.source)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == f"{store}: repaired, 1 shard"
    assert f"digest    {made.digest}, as it was built" in ran.out
    assert hashlib.sha256((store / IMAGE1).read_bytes()).hexdigest() == digest
    again = keypatch("repair", store)
    assert again.code == 0
    assert again.out.startswith(f"{store}: no shard is damaged")


def test_the_command_gives_json(made: Made, store: Spoiled) -> None:
    (store / IMAGE1).unlink()
    (store / TARGET1).unlink()
    ran = keypatch("repair", store, "--json")
    assert (ran.code, ran.err) == (1, "")
    report = ran.report
    assert [(s["file"], s["repaired"]) for s in report["shards"]] == [(IMAGE1, False), (TARGET1, True)]
    assert report["passed"] is False
    assert report["original_digest"] == report["digest"] == made.digest


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nowhere.zarr",), 3, "no such file or folder"),
        (("{store}", "--source", "nowhere"), 3, "check --source"),
        (("{store}", "--fix"), 2, "--fix"),
        ((), 2, "STORE"),
    ],
)
def test_wrong_calls_are_one_line(store: Spoiled, arguments: tuple[str, ...], code: int, says: str) -> None:
    ran = keypatch("repair", *(argument.format(store=store) for argument in arguments))
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.count("\n") == 1
    assert says in ran.err
