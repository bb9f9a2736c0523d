"""Damage: every flipped bit, every cut, every missing piece is an error, never other voxels."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trials import trials

from keypatch.errors import CorruptionError, StoreError
from keypatch.formats.store import Store
from keypatch.formats.store.arrays import OPEN_SHARDS, ShardedArray
from keypatch.formats.store.codecs import ChunkCodec, chain_metadata, choose_codec
from keypatch.formats.store.shard import MISSING, ShardWriter, index_size, parse_index

if TYPE_CHECKING:
    from collections.abc import Callable

SHARD = "image/c/1/0/0/0"


@pytest.fixture
def store_folder(made, tmp_path: Path) -> Path:
    return shutil.copytree(made.folder, tmp_path / "s.zarr")


def read_unit(folder: Path, made: Any, unit: int = 1) -> None:
    """Read every patch of one unit; voxels other than those written must not come out."""
    store = Store(folder)
    for i in made.layout.unit_patches(unit):
        assert (store.read_image(i) == made.images[i]).all()


@pytest.mark.parametrize("codec", ["none", "zstd", "lz4", "blosc"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_flipped_bit_is_noticed(make_store, tmp_path, codec, dtype) -> None:
    """The file has no byte that nothing refers to: some chunk or the index fails wherever the bit lies."""
    made = make_store(tmp_path, n_patches=2, codec=codec, dtype=dtype, patch_shape=(4, 4, 4), ds_factor=(2, 2, 2))
    made.write()
    path = tmp_path / "image/c/0/0/0/0"
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(CorruptionError, match="image"):
            read_unit(tmp_path, made, 0)
    path.write_bytes(whole)
    read_unit(tmp_path, made, 0)


@settings(max_examples=trials(60), deadline=None)
@given(data=st.data())
def test_flipped_bits_of_larger_shards(made, tmp_path_factory, data) -> None:
    folder = tmp_path_factory.getbasetemp() / "flipped"
    if not folder.exists():
        shutil.copytree(made.folder, folder)
    whole = (made.folder / SHARD).read_bytes()
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / SHARD).write_bytes(damaged)
    with pytest.raises(CorruptionError, match="image"):
        read_unit(folder, made)


@settings(max_examples=trials(40), deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_cut_shard_is_noticed(made, tmp_path_factory, share) -> None:
    folder = tmp_path_factory.getbasetemp() / "cut"
    if not folder.exists():
        shutil.copytree(made.folder, folder)
    whole = (made.folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CorruptionError, match=SHARD):
        read_unit(folder, made)


def overwrite_index(path: Path, entries: np.ndarray) -> None:
    raw = path.read_bytes()
    index = entries.astype("<u8").tobytes()
    path.write_bytes(raw[: -len(index) - 4] + index + google_crc32c.value(index).to_bytes(4, "little"))


def index_of(path: Path, n_chunks: int) -> np.ndarray:
    return np.frombuffer(path.read_bytes()[-16 * n_chunks - 4 : -4], "<u8").reshape(-1, 2).copy()


N_CHUNKS = 4 * 4  # patches a shard, chunks a patch of `made`


def test_missing_shard(store_folder, made) -> None:
    (store_folder / SHARD).unlink()
    with pytest.raises(CorruptionError, match=r"c/1/0/0/0: expected a shard, found no such file"):
        read_unit(store_folder, made)
    read_unit(store_folder, made, 0)  # the others are still there


def test_empty_shard(store_folder, made) -> None:
    (store_folder / SHARD).write_bytes(b"")
    with pytest.raises(CorruptionError, match="the file is cut"):
        read_unit(store_folder, made)


def test_longer_shard(store_folder, made) -> None:
    with (store_folder / SHARD).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CorruptionError, match="crc32c"):
        read_unit(store_folder, made)


def test_folder_in_place_of_a_shard(store_folder, made) -> None:
    (store_folder / SHARD).unlink()
    (store_folder / SHARD).mkdir()
    with pytest.raises(StoreError, match=SHARD):
        read_unit(store_folder, made)


def test_chunk_missing_in_a_shard(store_folder, made) -> None:
    entries = index_of(store_folder / SHARD, N_CHUNKS)
    entries[5] = MISSING
    overwrite_index(store_folder / SHARD, entries)
    with pytest.raises(CorruptionError, match=r"chunk \(0, 0, 1\) of item 5, found none in the shard's index"):
        read_unit(store_folder, made)


@pytest.mark.parametrize(
    ("column", "value"), [(0, 2**40), (0, 2**64 - 2), (1, 2**40), (1, 2**64 - 1), (1, 2**63), (0, 2**63 + 5)]
)
def test_index_that_points_beyond_the_file(store_folder, made, column, value) -> None:
    entries = index_of(store_folder / SHARD, N_CHUNKS)
    entries[3, column] = value
    overwrite_index(store_folder / SHARD, entries)
    with pytest.raises(CorruptionError, match="chunk 3 beyond"):
        read_unit(store_folder, made)


def test_index_that_points_into_another_chunk(store_folder, made) -> None:
    entries = index_of(store_folder / SHARD, N_CHUNKS)
    entries[3, 0] += 1
    overwrite_index(store_folder / SHARD, entries)
    with pytest.raises(CorruptionError, match="crc32c"):
        read_unit(store_folder, made)


def test_chunk_shorter_than_its_checksum(store_folder, made) -> None:
    entries = index_of(store_folder / SHARD, N_CHUNKS)
    entries[3, 1] = 3
    overwrite_index(store_folder / SHARD, entries)
    with pytest.raises(CorruptionError, match="3 bytes"):
        read_unit(store_folder, made)


def test_disk_that_fails_while_reading(made, monkeypatch) -> None:
    store = Store(made.folder)

    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(StoreError, match=r"c/0/0/0/0: .*Input/output error"):
        store.read_image(0)


@pytest.mark.parametrize("n_chunks", [0, 1, 7])
def test_the_index_is_as_the_specification_has_it(tmp_path, n_chunks) -> None:
    bodies = [bytes([k]) * k for k in range(n_chunks)]
    with ShardWriter(tmp_path / "a/b", n_chunks + 1) as writer:
        for k in reversed(range(n_chunks)):
            writer.add(k, bodies[k])
        writer.close()
    raw = (tmp_path / "a/b").read_bytes()
    index, checksum = raw[-16 * (n_chunks + 1) - 4 : -4], raw[-4:]
    entries = [struct.unpack_from("<QQ", index, 16 * k) for k in range(n_chunks + 1)]
    assert entries[n_chunks] == (2**64 - 1, 2**64 - 1)
    assert [raw[at : at + size] for at, size in entries[:n_chunks]] == bodies
    assert struct.unpack("<I", checksum)[0] == google_crc32c.value(index)
    parsed = parse_index(raw[-index_size(n_chunks + 1) :], n_chunks + 1, len(raw), "x")
    assert parsed.tolist() == [list(entry) for entry in entries]


UNCHECKED = {
    "zstd": {"name": "zstd", "configuration": {"level": 1, "checksum": True}},
    "gzip": {"name": "gzip", "configuration": {"level": 1}},
    "blosc": {
        "name": "blosc",
        "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 2, "blocksize": 0},
    },
}


@pytest.mark.parametrize("compressor", UNCHECKED)
def test_damaged_chunks_of_foreign_chains_without_crc(compressor) -> None:
    """Any flipped bit of a checksummed compressor is an error of ours or harmless; any cut is an error of ours."""
    dtype, shape = np.dtype("uint16"), (6, 5, 4)
    values = (np.arange(120) % 7).astype(dtype).reshape(shape)
    serializer = {"name": "bytes", "configuration": {"endian": "little"}}
    codec = ChunkCodec([serializer, UNCHECKED[compressor]], dtype, shape)
    encoded = codec.encode(values)
    out = np.empty(shape, dtype)
    for length in range(len(encoded)):
        with pytest.raises(CorruptionError, match="here"):
            codec.decode(encoded[:length], out, "here")
    for position in range(8 * len(encoded)):
        damaged = bytearray(encoded)
        damaged[position // 8] ^= 1 << position % 8
        try:
            codec.decode(bytes(damaged), out, "here")
        except CorruptionError:
            continue
        # blosc has no checksum; gzip's and zstd's headers have bits that mean nothing
        assert compressor == "blosc" or (out == values).all()


def test_zstd_frame_that_does_not_declare_its_size() -> None:
    """Streaming encoders leave Frame_Content_Size out; the frame is whole all the same."""
    values = np.zeros((4, 4, 4), np.uint8)
    codec = ChunkCodec([{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}], values.dtype, (4, 4, 4))
    # magic, descriptor 0 (no content size, no checksum), window of 1 KiB, one last block of type RLE: 64 zeros
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x00" + (1 | 1 << 1 | 64 << 3).to_bytes(3, "little") + b"\x00"
    assert bytes(numcodecs.Zstd().decode(frame)) == bytes(64)
    out = np.ones((4, 4, 4), np.uint8)
    codec.decode(frame, out, "here")
    assert (out == 0).all()
    shorter = frame[:6] + (1 | 1 << 1 | 63 << 3).to_bytes(3, "little") + b"\x00"
    with pytest.raises(CorruptionError, match="a chunk of 64 bytes, found 63"):
        codec.decode(shorter, out, "here")


@pytest.mark.parametrize("codec", ["none", "zstd", "lz4", "blosc"])
def test_whole_chunk_of_another_size(codec) -> None:
    """numcodecs leaves the rest of a larger target as it was, so sizes are held against each other before."""
    dtype = np.dtype("uint16")
    chain = chain_metadata(choose_codec(codec, dtype), dtype)
    smaller = ChunkCodec(chain, dtype, (2, 3, 4)).encode(np.ones((2, 3, 4), dtype))
    with pytest.raises(CorruptionError, match="a chunk of 120 bytes, found 48"):
        ChunkCodec(chain, dtype, (3, 4, 5)).decode(smaller, np.empty((3, 4, 5), dtype), "here")


# The small arrays, read through zarr-python, which gives zeros where a file is missing.


@pytest.mark.parametrize("table", ["patches/origin", "patches/kind", "keypoints/local_ds_coords", "annotations/coords"])
def test_missing_chunk_of_a_table(store_folder, table) -> None:
    shutil.rmtree(store_folder / table / "c")
    with pytest.raises(CorruptionError, match=f"{table}: expected chunks, found none"):
        Store(store_folder).table(table)


@pytest.mark.parametrize("table", ["patches/origin", "keypoints/class_index"])
def test_flipped_bits_of_a_table(store_folder, table) -> None:
    path = next(path for path in (store_folder / table / "c").rglob("*") if path.is_file())
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=table):
            Store(store_folder).table(table)


def replace_table(folder: Path, path: str, values: np.ndarray) -> None:
    shutil.rmtree(folder / path)
    zarr.create_array(folder, name=path, data=values, config={"write_empty_chunks": True})


WRONG_TABLES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "kind beyond the list": ("patches/kind", lambda v: v + np.int8(5), "positions in a list of 5"),
    "negative kind": ("patches/kind", lambda v: v - np.int8(5), "positions in a list of 5"),
    "volume beyond the list": ("patches/volume_index", lambda v: v + np.int32(3), "positions in a list of 3"),
    "class beyond the list": ("keypoints/class_index", lambda v: v + np.int32(2), "positions in a list of 2"),
    "source beyond the list": ("annotations/source_index", lambda v: v + np.int32(2), "positions in a list of 2"),
    "row too few": ("patches/origin", lambda v: v[:-1], r"int64 of shape \(11, 3\)"),
    "row too many": ("patches/fold", lambda v: np.append(v, v[:1]), r"int16 of shape \(11,\)"),
    "other dtype": ("patches/ds_sigma", lambda v: v.astype(np.float32), r"float64 of shape \(11, 3\)"),
    "two columns": ("keypoints/global_coords", lambda v: v[:, :2], "float64 of shape"),
    "keypoints too few": ("keypoints/local_rs_coords", lambda v: v[1:], "float64 of shape"),
    "offsets that fall": ("patches/keypoint_offsets", lambda v: v[::-1], "offsets that rise from 0"),
    "offsets that begin late": ("patches/keypoint_offsets", lambda v: v + 1, "offsets that rise from 0"),
    "annotations too few": ("annotations/score", lambda v: v[1:], "float64 of shape"),
    "a number": ("annotations/source_row", lambda v: v[0], "int64 of shape"),
}


@pytest.mark.parametrize("name", WRONG_TABLES)
def test_table_that_is_not_the_schemas(store_folder, made, name) -> None:
    """What is looked up in a list must be in it: a negative index would name the wrong one without a word."""
    path, change, message = WRONG_TABLES[name]
    replace_table(store_folder, path, np.array(change(made.columns[path]), order="C"))
    store = Store(store_folder)
    with pytest.raises(StoreError, match=message):
        store.table(path)
    frame = path.partition("/")[0]
    with pytest.raises(StoreError):
        getattr(store, frame)
    assert (store.read_image(0) == made.images[0]).all()


def test_a_table_of_a_newer_minor_version_is_read_as_it_is(store_folder) -> None:
    zarr.create_array(store_folder, name="patches/mood", data=np.arange(5.0))
    assert Store(store_folder).table("patches/mood").tolist() == [0, 1, 2, 3, 4]


# Stores that only zarr-python can read


def zipped(folder: Path, path: Path, leave_out: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            name = file.relative_to(folder).as_posix()
            if file.is_file() and name != leave_out:
                archive.write(file, name)
    return path


def test_zipped_store_reads_alike(made, tmp_path) -> None:
    store, zipped_store = Store(made.folder), Store(zipped(made.folder, tmp_path / "s.zip"))
    assert len(zipped_store) == len(store)
    for i, image in enumerate(made.images):
        assert (zipped_store.read_image(i) == image).all()
        assert (zipped_store.read_gaussian(i) == made.targets[i]).all()
    assert zipped_store.patches.equals(store.patches)
    assert zipped_store.keypoints.equals(store.keypoints)
    assert zipped_store.digest == store.digest


def test_missing_shard_of_a_zipped_store(made, tmp_path) -> None:
    store = Store(zipped(made.folder, tmp_path / "s.zip", leave_out=SHARD))
    assert (store.read_image(0) == made.images[0]).all()
    with pytest.raises(CorruptionError, match=f"{SHARD}: expected a shard, found none"):
        store.read_image(4)


def test_missing_chunk_of_a_zipped_table(made, tmp_path) -> None:
    store = Store(zipped(made.folder, tmp_path / "s.zip", leave_out="patches/fold/c/0"))
    with pytest.raises(CorruptionError, match="patches/fold"):
        store.table("patches/fold")


def test_flipped_bit_of_a_zipped_shard(made, tmp_path) -> None:
    path = zipped(made.folder, tmp_path / "s.zip")
    raw = bytearray(path.read_bytes())
    at = raw.find((made.folder / SHARD).read_bytes())
    raw[at + 100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptionError):
        read_unit(path, made)


def test_cut_zip(made, tmp_path) -> None:
    path = zipped(made.folder, tmp_path / "s.zip")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"s\.zip: expected a folder or a zip file"):
        Store(path)


def test_many_shards_do_not_use_up_the_open_files(make_store, tmp_path) -> None:
    made = make_store(tmp_path, n_patches=OPEN_SHARDS + 10, patches_per_shard=1, patch_shape=(8, 4, 16))
    for unit in range(made.layout.n_units):
        made.write_unit(unit)
    (tmp_path / "image/zarr.json").write_text(json.dumps(made.layout.array_metadata("image")))
    array = ShardedArray(tmp_path / "image")
    open_before = n_open_files()
    for _ in range(2):
        for i, image in enumerate(made.images):
            assert (array.read(i, (0, 0, 0), image.shape) == image).all()
    assert n_open_files() - open_before in (0, OPEN_SHARDS)
    del array
    assert n_open_files() == open_before


def n_open_files() -> int:
    """Of this process; 0 on a system that does not show them."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
