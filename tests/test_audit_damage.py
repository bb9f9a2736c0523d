"""Damage: bytes of a good store change and no digest is made to fit. Each numbered way gives its code at its place."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from keypatch.audit.validate import validate
from keypatch.errors import KeypatchError

from .stores import (
    Case,
    Made,
    Spoiled,
    attribute,
    copy_of,
    edit_attributes,
    edit_table,
    flip,
    flipped,
    make_store,
    nested,
    swap,
)

IMAGE0 = "image/c/0/0/0/0"
IMAGE1 = "image/c/1/0/0/0"
TARGET2 = "gaussian/c/2/0/0/0/0"
DIGESTS = ("zarr.json", "attributes", "keypatch", "digests")
RS_CHUNK = "keypoints/local_rs_coords/c/0/0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


@pytest.fixture
def store(made: Made, tmp_path: Path) -> Spoiled:
    return copy_of(made, tmp_path)


def _behind_a_link(store: Spoiled, name: str) -> None:
    outside = store.path.parent / "outside"
    shutil.move(store / name, outside)
    (store / name).symlink_to(outside)


def _append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


DAMAGE = [
    # shards
    Case("bit in a chunk of an image", flipped(IMAGE1, 40), "KP201", IMAGE1, "full"),
    Case("the same, decoded", flipped(IMAGE1, 40), "KP204", f"{IMAGE1}: patch 3, chunk 0", "full"),
    Case("bit in a Gaussian", flipped(TARGET2, 9), "KP204", f"{TARGET2}: patch 6", "full"),
    Case("bit in a shard's index", flipped(IMAGE1, -20), "KP202", IMAGE1, "full"),
    Case("bit in the checksum of an index", flipped(IMAGE1, -1), "KP202", IMAGE1, "full"),
    Case("shard removed", lambda s: (s / IMAGE1).unlink(), "KP113", IMAGE1),
    Case("shard removed with its folder", lambda s: shutil.rmtree(s / "image/c/1"), "KP113", IMAGE1),
    Case("shard of a Gaussian removed", lambda s: (s / TARGET2).unlink(), "KP113", TARGET2),
    Case("shard emptied", lambda s: (s / IMAGE1).write_bytes(b""), "KP114", IMAGE1),
    Case("shard cut", lambda s: os.truncate(s / IMAGE1, 1000), "KP114", IMAGE1),
    Case("shard cut, its index", lambda s: os.truncate(s / IMAGE1, 1000), "KP202", IMAGE1, "full"),
    Case("shard cut below its index", lambda s: os.truncate(s / IMAGE1, 5), "KP202", IMAGE1, "full"),
    Case("byte behind a shard", lambda s: _append(s / IMAGE1, b"0"), "KP114", IMAGE1),
    Case("shards swapped", lambda s: swap(s / IMAGE1, s / IMAGE0), "KP201", IMAGE1, "full"),
    Case("image and Gaussian swapped", lambda s: swap(s / IMAGE1, s / TARGET2), "KP202", IMAGE1, "full"),
    # what is no part of a store
    Case("stray file", lambda s: (s / "notes.txt").write_text("x"), "KP111", "notes.txt"),
    Case("half-written shard", lambda s: (s / f"{IMAGE1}.partial").write_text("x"), "KP111", f"{IMAGE1}.partial"),
    Case("unit too many", lambda s: shutil.copytree(s / "image/c/1", s / "image/c/99"), "KP111", "image/c/99"),
    Case("unit 01", lambda s: shutil.copytree(s / "image/c/1", s / "image/c/01"), "KP111", "image/c/01"),
    Case("stray chunk", lambda s: (s / "patches/kind/c/1").write_bytes(b"x"), "KP111", "patches/kind/c/1"),
    Case("stray folder", lambda s: (s / "patches/more").mkdir(), "KP111", "patches/more"),
    Case("pipe", lambda s: os.mkfifo(s / "image/pipe"), "KP111", "image/pipe"),
    Case("link that leaves the store", lambda s: _behind_a_link(s, IMAGE1), "KP112", IMAGE1),
    Case("metadata behind a link", lambda s: _behind_a_link(s, "patches/kind/zarr.json"), "KP101", "patches/kind/"),
    Case("folder behind a link", lambda s: _behind_a_link(s, "annotations"), "KP112", "annotations"),
    Case("link in a loop", lambda s: (s / "loop").symlink_to(s / "loop"), "KP112", "loop"),
    # metadata
    Case("table removed", lambda s: shutil.rmtree(s / "patches/origin"), "KP101", "patches/origin/zarr.json"),
    Case("group's metadata removed", lambda s: (s / "keypoints/zarr.json").unlink(), "KP101", "keypoints/zarr.json"),
    Case("list of volumes removed", lambda s: (s / "volumes/zarr.json").unlink(), "KP101", "volumes/zarr.json"),
    Case("image's metadata emptied", lambda s: (s / "image/zarr.json").write_text(""), "KP102", "image/zarr.json"),
    Case("image's metadata removed", lambda s: (s / "image/zarr.json").unlink(), "KP101", "image/zarr.json"),
    Case("image's metadata a list", lambda s: (s / "image/zarr.json").write_text("[1]"), "KP102", "image/zarr.json"),
    Case("bit in a table's metadata", flipped("patches/fold/zarr.json", 0, 7), "KP102", "patches/fold/zarr.json"),
    Case("blank in metadata", lambda s: _append(s / "patches/zarr.json", b" "), "KP115", "patches/zarr.json"),
    Case("blank in the root", lambda s: _append(s / "zarr.json", b" "), "KP120", "zarr.json: line "),
    Case(
        "other attributes beside ours", nested("zarr.json", "attributes", "more", value=1), "KP120", "zarr.json: line "
    ),
    Case(
        "digest in the list", nested(*DIGESTS, "files", "patches/zarr.json", value="0"), "KP115", "zarr.json: digests."
    ),
    Case("list of digests removed", nested(*DIGESTS, "files", value=None), "KP106", "zarr.json: digests"),
    Case("digest too many", nested(*DIGESTS, "more", value="x"), "KP106", "zarr.json: digests"),
    Case("list of volumes no JSON", lambda s: (s / "volumes/zarr.json").write_text("{"), "KP102", "volumes/zarr.json"),
    Case("deep nesting", lambda s: (s / "patches/zarr.json").write_text("[" * 99999), "KP102", "patches/zarr.json"),
    Case("attribute edited", attribute(recipe={"padding": "zero"}), "KP116", "zarr.json: digests.store"),
    Case("digests removed", lambda s: edit_attributes(s, lambda a: a.pop("digests")), "KP106", "zarr.json: digests"),
    Case("root an array", nested("zarr.json", "node_type", value="array"), "KP102", "zarr.json"),
    # tables
    Case("chunk of a table removed", lambda s: (s / "patches/kind/c/0").unlink(), "KP208", "patches/kind/c/0"),
    Case("chunk emptied", lambda s: (s / "patches/kind/c/0").write_bytes(b""), "KP209", "patches/kind/c/0"),
    Case("chunk swollen", lambda s: _append(s / "patches/kind/c/0", bytes(9999)), "KP209", "patches/kind/c/0"),
    Case("bit in a table", flipped(RS_CHUNK, 30), "KP209", RS_CHUNK),
    Case(
        "tables swapped",
        lambda s: swap(s / "patches/valid_start/c/0/0", s / "patches/valid_stop/c/0/0"),
        "KP310",
        "patches/valid_start[0]",
        "full",
    ),
]


@pytest.mark.parametrize("case", DAMAGE, ids=str)
def test_damage_is_found(store: Spoiled, case: Case) -> None:
    case.mutate(store)
    report = validate(store, case.depth)
    found = [finding for finding in report.findings if finding.code == case.code]
    assert any(finding.where.startswith(case.where) for finding in found), [str(f) for f in report.findings]
    assert not report.passed()


@pytest.mark.parametrize("seed", range(30))
def test_a_random_bit_anywhere_is_found(store: Spoiled, seed: int) -> None:
    rng = random.Random(seed)
    path = rng.choice(sorted(p for p in store.path.rglob("*") if p.is_file()))
    flip(path, rng.randrange(path.stat().st_size), rng.randrange(8))
    try:
        report = validate(store, "full")
    except KeypatchError:
        assert path == store / "zarr.json"
        return
    assert not report.passed()


def test_a_swapped_shard_is_named(store: Spoiled) -> None:
    swap(store / IMAGE1, store / IMAGE0)
    found = {f.where: f.found for f in validate(store, "full").findings if f.code == "KP201"}
    assert found == {IMAGE0: "the shard of unit 1", IMAGE1: "the shard of unit 0"}


def test_a_link_within_the_store_is_followed(store: Spoiled) -> None:
    assert (store / IMAGE1).stat().st_size != (store / IMAGE0).stat().st_size
    (store / IMAGE1).unlink()
    (store / IMAGE1).symlink_to(store / IMAGE0)
    assert {f.code for f in validate(store, "full").findings} >= {"KP114", "KP201"}


def test_a_shard_that_cannot_be_read_is_a_finding(store: Spoiled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who may read everything, so the refusal is acted."""
    real = os.open

    def refuse(path: object, *args: object, **options: object) -> int:
        if path == store / IMAGE1:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    report = validate(store, "full")
    assert {(f.code, f.where) for f in report.findings} == {("KP117", IMAGE1)}
    assert report.checked.units == store.made.layout.n_units


def test_a_shard_that_shrinks_while_it_is_read_is_a_finding(store: Spoiled, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (store / IMAGE1).stat().st_size
    monkeypatch.setattr(os, "fstat", _larger(os.fstat, store / IMAGE1, 10))
    found = {(f.code, f.where): f.found for f in validate(store, "full").findings}
    assert set(found) == {("KP117", IMAGE1)}
    assert "cut meanwhile" in found["KP117", IMAGE1]
    assert (store / IMAGE1).stat().st_size == size


def _larger(real, path: Path, more: int):
    """``os.fstat`` as if there were more bytes in one file."""
    number = path.stat().st_ino

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if status.st_ino != number:
            return status
        fields = list(status)
        fields[6] += more
        return os.stat_result(fields)

    return fstat


@pytest.mark.parametrize("name", ["size", "sha256"])
def test_a_shard_is_not_blamed_for_a_damaged_record(store: Spoiled, name: str) -> None:
    """A row of ``integrity/`` changed with its checksum: the table is not the one that was written, the shards are."""
    edit_table(store, f"integrity/image_{name}", lambda values: values.__setitem__(1, values[1] ^ 1))
    found = {(f.code, f.where) for f in validate(store, "full").findings}
    assert found == {("KP115", f"integrity/image_{name}/c/0" + ("/0" if name == "sha256" else ""))}


@pytest.mark.parametrize("name", ["image", "gaussian"])
def test_shards_are_hashed_though_the_metadata_of_their_array_is_lost(store: Spoiled, name: str) -> None:
    (store / name / "zarr.json").write_text("{")
    shard = {"image": IMAGE1, "gaussian": TARGET2}[name]
    flip(store / shard, 40)
    found = {(f.code, f.where) for f in validate(store, "full").findings}
    assert {("KP102", f"{name}/zarr.json"), ("KP201", shard)} <= found
    (store / shard).unlink()
    assert ("KP113", shard) in {(f.code, f.where) for f in validate(store, "quick").findings}
