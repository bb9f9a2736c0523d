"""Writing: the same bytes every time, digests as schema.md says, and nothing half done on a disk that fails."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest

from keypatch.errors import ReadError, StoreError, UsageError, WriteError
from keypatch.formats.store import Store, write_unit
from keypatch.formats.store.codecs import ChunkCodec, chain_metadata, choose_codec
from keypatch.formats.store.layout import (
    CHUNK_MAX,
    CHUNK_MIN,
    check_chunk_shape,
    choose_chunk_shape,
    choose_patches_per_shard,
)
from keypatch.formats.store.shard import ShardWriter


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The same bytes


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_same_input_same_bytes_in_any_order_of_units(make_store, tmp_path, dtype) -> None:
    first, second = (make_store(tmp_path / name, dtype=dtype, chunk_shape=(8, 12, 32)) for name in "ab")
    first.write()
    second.write(reversed(range(second.layout.n_units)))
    assert first.digest == second.digest
    assert files(first.folder) == files(second.folder)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_blosc_gives_the_same_bytes_on_any_thread(monkeypatch, dtype) -> None:
    """With threads of its own, which numcodecs turns on in the main thread, blosc's blocks lie in any order."""
    monkeypatch.setattr(numcodecs.blosc, "use_threads", None)  # its default, which zarr-python changes on import
    numbers = np.random.default_rng(0).standard_normal(2**20) * 1000
    chunk = numbers.astype(dtype).reshape(64, 128, 128)
    codec = ChunkCodec(chain_metadata(choose_codec("auto", chunk.dtype), chunk.dtype), chunk.dtype, chunk.shape)
    encoded = {codec.encode(chunk) for _ in range(5)}
    thread = threading.Thread(target=lambda: encoded.add(codec.encode(chunk)))
    thread.start()
    thread.join()
    assert len(encoded) == 1
    out = np.empty_like(chunk)
    codec.decode(encoded.pop(), out, "here")
    assert (out == chunk).all()


@pytest.mark.parametrize("setting", [None, True, False])
def test_encoding_in_many_threads_leaves_blosc_as_it_was(monkeypatch, setting) -> None:
    monkeypatch.setattr(numcodecs.blosc, "use_threads", setting)
    chunk = np.arange(2**15, dtype=np.float32).reshape(32, 32, 32)
    codec = ChunkCodec(chain_metadata(choose_codec("auto", chunk.dtype), chunk.dtype), chunk.dtype, chunk.shape)
    encoded = set()

    def work() -> None:
        encoded.update(codec.encode(chunk) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    assert len(encoded) == 1
    assert numcodecs.blosc.use_threads is setting


def test_a_shard_without_compression_is_what_the_specification_says(make_store, tmp_path) -> None:
    """Chunks in C order, each with its crc32c; the index; its crc32c. The last unit's missing patches are 2^64 - 1."""
    made = make_store(
        tmp_path,
        n_patches=3,
        patch_shape=(2, 2, 4),
        ds_factor=(1, 1, 1),
        chunk_shape=(1, 2, 2),
        dtype="int16",
        codec="none",
        patches_per_shard=2,
    )
    record = made.write_unit(1)
    chunks = []
    for z in range(2):
        for x in (0, 2):
            body = made.images[2][z : z + 1, :, x : x + 2].astype("<i2").tobytes()
            chunks.append(body + struct.pack("<I", google_crc32c.value(body)))
    index = b"".join(struct.pack("<QQ", 12 * k, 12) for k in range(4)) + b"\xff" * 16 * 4
    expected = b"".join(chunks) + index + struct.pack("<I", google_crc32c.value(index))
    assert (tmp_path / "image/c/1/0/0/0").read_bytes() == expected
    assert record.image.size == len(expected)
    assert record.image.sha256 == hashlib.sha256(expected).digest()


def test_json_has_the_same_line_ends_everywhere(made) -> None:
    for path in made.folder.rglob("zarr.json"):
        raw = path.read_bytes()
        assert b"\r" not in raw
        raw.decode("utf-8")
    assert "ribosome é".encode() in (made.folder / "zarr.json").read_bytes()


def test_nothing_of_this_machine_is_in_a_store(made) -> None:
    needles = [str(made.folder.parent).encode(), os.uname().nodename.encode()] if hasattr(os, "uname") else []
    for name, raw in files(made.folder).items():
        if name.endswith("zarr.json"):
            assert not any(needle in raw for needle in needles), name


# Digests


def test_digests_as_the_schema_defines_them(made) -> None:
    """Recomputed from the text of schema.md, with nothing of ours."""
    everything = files(made.folder)
    shards = {name for name in everything if name.startswith(("image/c/", "gaussian/c/"))}
    listed = sorted(everything.keys() - shards - {"zarr.json"}, key=lambda name: name.encode())
    lines = "".join(f"{hashlib.sha256(everything[name]).hexdigest()}  {name}\n" for name in listed)
    metadata = hashlib.sha256(lines.encode()).hexdigest()
    root = json.loads(everything["zarr.json"])["attributes"]["keypatch"]
    digests = root.pop("digests")
    canonical = json.dumps(root, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    whole = hashlib.sha256(f"{metadata}\n{canonical}\n".encode()).hexdigest()
    assert digests == {
        "metadata": metadata,
        "store": whole,
        "files": {name: hashlib.sha256(everything[name]).hexdigest() for name in listed},
    }
    assert made.digest == whole == Store(made.folder).digest


def test_the_root_is_written_as_the_schema_says(made) -> None:
    text = (made.folder / "zarr.json").read_bytes()
    root = json.loads(text)
    assert list(root) == ["zarr_format", "node_type", "attributes"]
    assert list(root["attributes"]) == ["keypatch"]
    assert text == (json.dumps(root, indent=1, ensure_ascii=False) + "\n").encode()


@pytest.mark.parametrize("array", ["image", "gaussian"])
def test_integrity_holds_the_hash_and_size_of_every_shard(made, array) -> None:
    store = Store(made.folder)
    suffix = "/0" * (3 if array == "image" else 4)
    shards = [(made.folder / f"{array}/c/{unit}{suffix}").read_bytes() for unit in range(made.layout.n_units)]
    assert len(list((made.folder / array / "c").iterdir())) == len(shards) == 3
    assert store.table(f"integrity/{array}_size").tolist() == [len(shard) for shard in shards]
    hashes = store.table(f"integrity/{array}_sha256")
    assert [row.tobytes() for row in hashes] == [hashlib.sha256(shard).digest() for shard in shards]


def test_every_byte_counts_in_the_digest(make_store, tmp_path) -> None:
    digests = set()
    for change in ("nothing", "voxel", "keypoint", "volume", "attribute"):
        made = make_store(tmp_path / change)
        if change == "voxel":
            made.images[7, 3, 4, 5] += 1
        elif change == "keypoint":
            made.columns["keypoints/global_coords"][0, 0] += 1e-9
        elif change == "volume":
            made.volumes[0]["id"] = "another"
        elif change == "attribute":
            made.attributes["classes"] = ["Motor", "ribosome é"]
        made.write()
        digests.add(made.digest)
    assert len(digests) == 5


# A disk that does not take it


@pytest.mark.parametrize("room", [0, 1, 700, 8000])
def test_full_disk(make_store, tmp_path, monkeypatch, room) -> None:
    made = make_store(tmp_path, codec="none", n_patches=2, patch_shape=(16, 16, 16), ds_factor=(8, 8, 8))
    left, write = room, os.write

    def write_while_there_is_room(descriptor: int, data: memoryview) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        n = write(descriptor, data[:left])
        left -= n
        return n

    monkeypatch.setattr(os, "write", write_while_there_is_room)
    with pytest.raises(WriteError, match=r"image/c/0/0/0/0: .*No space left on device"):
        made.write_unit(0)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("array", ["image", "gaussian"])
def test_disk_that_fails_at_the_end_of_a_shard(make_store, tmp_path, monkeypatch, call, array) -> None:
    """The unit's other shard, already finished, goes too: a unit is written whole or not at all."""
    made = make_store(tmp_path)
    fail = OSError(errno.EIO, os.strerror(errno.EIO))
    if call == "fsync":
        fsync = os.fsync

        def failing_fsync(descriptor: int) -> None:
            if array in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
                raise fail
            fsync(descriptor)

        if not Path("/proc/self/fd").is_dir():
            pytest.skip("this system does not show the paths of open files")
        monkeypatch.setattr(os, "fsync", failing_fsync)
    else:
        replace = Path.replace

        def failing_replace(path: Path, target: Path) -> Path:
            if array in str(target.relative_to(tmp_path)):
                raise fail
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", failing_replace)
    with pytest.raises(WriteError, match=rf"{array}/c/0.*Input/output error"):
        made.write_unit(0)
    assert files(tmp_path) == {}


LIMITED = """
import resource, signal, sys, numpy as np
from pathlib import Path
from keypatch.errors import WriteError
from keypatch.formats.store.shard import ShardWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
path = Path(sys.argv[1]) / "c/0"
try:
    with ShardWriter(path, 8) as writer:
        for k in range(8):
            writer.add(k, bytes(30_000))
        writer.close()
except WriteError as error:
    print(error)
    sys.exit(len([p for p in Path(sys.argv[1]).rglob("*") if p.is_file()]))
sys.exit(99)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_limit_of_the_system(tmp_path) -> None:
    """The real call that fails, in the real order: buffered bytes fail when they are flushed."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "c/0: expected to write there, found File too large; free some space" in run.stdout


def test_full_disk_while_the_metadata_is_written(make_store, tmp_path, monkeypatch) -> None:
    """What was a store before is none then, and the same call makes it one again."""
    made = make_store(tmp_path)
    made.write()
    digest = made.digest
    write_bytes = Path.write_bytes

    def failing(path: Path, data: bytes) -> int:
        if path == tmp_path / "volumes/zarr.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(WriteError, match=r"volumes/zarr.json: .*No space left on device"):
        made.write_metadata()
    with pytest.raises(StoreError, match=r"a folder without zarr\.json"):
        Store(tmp_path)
    monkeypatch.undo()
    made.write_metadata()
    assert made.digest == digest == Store(tmp_path).digest


def test_full_disk_while_a_table_is_written(make_store, tmp_path, monkeypatch) -> None:
    made = make_store(tmp_path)
    made.records = [made.write_unit(unit) for unit in range(3)]
    (tmp_path / "patches/origin").mkdir(parents=True)
    (tmp_path / "patches/origin/c").write_text("in the way")
    monkeypatch.setattr("zarr.storage.LocalStore.delete_dir", _no_delete)
    with pytest.raises(WriteError, match="patches/origin"):
        made.write_metadata()
    with pytest.raises(StoreError):
        Store(tmp_path)


async def _no_delete(*_: object) -> None:
    return None


def test_folder_that_cannot_be_made(make_store, tmp_path) -> None:
    made = make_store(tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr")
    (tmp_path / "s.zarr").write_text("a file")
    with pytest.raises(WriteError, match=r"s\.zarr"):
        made.write_unit(0)
    with pytest.raises(WriteError, match=r"s\.zarr"):
        ShardWriter(tmp_path / "s.zarr/x", 1)


# What the caller must give


def test_source_that_fails_leaves_nothing(make_store, tmp_path) -> None:
    made = make_store(tmp_path)

    def patches() -> Iterator[Any]:
        yield made.images[0], made.targets[0]
        raise ReadError.at("volume.mrc", expected="voxels", found="the end of the file")

    with pytest.raises(ReadError, match=r"volume\.mrc"):
        write_unit(tmp_path, made.layout, 0, patches())
    assert files(tmp_path) == {}


WRONG_PATCHES = {
    "too few": lambda made: [(made.images[0], made.targets[0])],
    "none": lambda _: [],
    "another shape": lambda made: [(made.images[0][:, :-1], made.targets[0])] * 4,
    "another dtype": lambda made: [(made.images[0].astype(np.int8), made.targets[0])] * 4,
    "another byte order": lambda made: [(made.images[0], made.targets[0].astype(">f4"))] * 4,
    "no target": lambda made: [(made.images[0], None)] * 4,
    "target of another shape": lambda made: [(made.images[0], made.targets[0][:1])] * 4,
    "too many": lambda made: [(made.images[0], made.targets[0])] * 5,
    "without end": lambda made: itertools.repeat((made.images[0], made.targets[0])),
}


@pytest.mark.parametrize("name", WRONG_PATCHES)
def test_patches_that_are_not_the_layouts(make_store, tmp_path, name) -> None:
    made = make_store(tmp_path)
    with pytest.raises(ValueError, match="expected"):
        write_unit(tmp_path, made.layout, 0, WRONG_PATCHES[name](made))
    assert files(tmp_path) == {}


def test_views_are_written_like_copies(make_store, tmp_path) -> None:
    plain, views = make_store(tmp_path / "a"), make_store(tmp_path / "b")
    views.images = np.asfortranarray(views.images)
    assert plain.write_unit(0) == views.write_unit(0)


def test_a_chunk_is_added_once(tmp_path) -> None:
    with ShardWriter(tmp_path / "s", 2) as writer:
        writer.add(1, b"a")
        with pytest.raises(ValueError, match="twice"):
            writer.add(1, b"b")
    assert files(tmp_path) == {}  # it was not closed


def test_an_older_shard_stays_until_the_new_one_is_whole(tmp_path) -> None:
    (tmp_path / "s").write_bytes(b"older")
    with ShardWriter(tmp_path / "s", 1) as writer:
        writer.add(0, b"new")
        assert (tmp_path / "s").read_bytes() == b"older"
    assert files(tmp_path) == {"s": b"older"}


@pytest.mark.parametrize("table", ["patches/origin", "keypoints/class_index", "annotations/class_index"])
def test_missing_table(make_store, tmp_path, table) -> None:
    made = make_store(tmp_path)
    del made.columns[table]
    with pytest.raises(ValueError, match=table):
        made.write()


def test_wrong_table(make_store, tmp_path) -> None:
    made = make_store(tmp_path)
    made.columns["patches/fold"] = made.columns["patches/fold"].astype(np.int64)
    with pytest.raises(ValueError, match=r"expected int16 of shape \(11,\), found int64"):
        made.write()
    with pytest.raises(StoreError):
        Store(tmp_path)


@pytest.mark.parametrize("units", [[0, 1], [0, 1, 1], []])
def test_missing_unit(make_store, tmp_path, units) -> None:
    with pytest.raises(ValueError, match="a record of each of 3 units"):
        make_store(tmp_path).write(units)


def test_attributes_that_json_has_no_word_for(make_store, tmp_path) -> None:
    made = make_store(tmp_path)
    made.attributes["recipe"] = {"sigma": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        made.write()
    with pytest.raises(StoreError):
        Store(tmp_path)


# The layout


def test_chunk_shapes() -> None:
    assert choose_chunk_shape((128, 128, 128), 1) == (128, 128, 128)  # 2 MiB
    assert choose_chunk_shape((160, 288, 288), 1) == (80, 288, 288)  # 12.7 MiB, cut along z
    assert choose_chunk_shape((128, 128, 128), 4) == (128, 128, 128)  # 8 MiB is still whole
    assert choose_chunk_shape((192, 192, 192), 4) == (48, 192, 192)
    assert choose_chunk_shape((16, 16, 16), 1) == (16, 16, 16)  # a small patch is not joined with others


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1, 1), (211, 307, 401), (7, 4096, 4096), (8192, 8192, 1), (288, 160, 320)])
def test_chunks_are_equal_parts_of_at_most_8_mib(shape, itemsize) -> None:
    chunk = choose_chunk_shape(shape, itemsize)
    assert all(n % c == 0 for n, c in zip(shape, chunk, strict=True))
    assert np.prod(chunk) * itemsize <= CHUNK_MAX
    if np.prod(shape) * itemsize <= CHUNK_MAX:
        assert chunk == shape
    # 211, 307 and 401 are prime: no cut keeps to the range
    elif shape != (211, 307, 401):
        assert np.prod(chunk) * itemsize >= CHUNK_MIN


@pytest.mark.parametrize("chunk", [(3, 8, 8), (0, 8, 8), (-8, 8, 8), (32, 8, 8)])
def test_chunk_shape_that_does_not_divide_the_patch(chunk) -> None:
    with pytest.raises(UsageError, match="--chunk-shape"):
        check_chunk_shape(chunk, (16, 16, 16))
    assert check_chunk_shape((4, 8, 16), (16, 16, 16)) == (4, 8, 16)


@pytest.mark.parametrize(
    ("n_patches", "patch_bytes", "expected"),
    [(10**6, 2**21, 96), (640, 2**21, 40), (1, 2**21, 1), (65, 2**21, 5), (10**6, 2**30, 1), (64, 1, 4)],
)
def test_patches_per_shard(n_patches, patch_bytes, expected) -> None:
    assert choose_patches_per_shard(n_patches, patch_bytes) == expected


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        ("auto", "uint8", "zstd:1"),
        ("auto", "float32", "lz4:7"),
        ("blosc", "float32", "blosc:3"),
        ("none", "uint8", "none"),
        ("zstd:22", "int16", "zstd:22"),
        ("blosc:9", "uint8", "blosc:9"),
    ],
)
def test_codecs_by_name(text, dtype, expected) -> None:
    assert str(choose_codec(text, np.dtype(dtype))) == expected


@pytest.mark.parametrize(
    "text", ["", "gzip", "zstd:0", "zstd:23", "zstd:x", "zstd:-1", "zstd:²", "blosc:10", "lz4:10", "none:1"]
)
def test_codecs_that_are_none(text) -> None:
    with pytest.raises(UsageError, match="--codec"):
        choose_codec(text, np.dtype("uint8"))
