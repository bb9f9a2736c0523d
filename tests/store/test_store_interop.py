"""Shards written by us, read by the general Zarr libraries, and the way back: equal bit for bit."""

from __future__ import annotations

import copy
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorstore
import zarr
import zarrs  # noqa: F401 - registers its codec pipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.trials import trials

from keypatch.formats.store import Store
from keypatch.formats.store.arrays import ShardedArray
from keypatch.formats.store.zarr_array import ZarrArray

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

BATCHED = "zarr.core.codec_pipeline.BatchedCodecPipeline"
ZARRS = "zarrs.ZarrsCodecPipeline"

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")


def read_with_zarr(folder: Path, pipeline: str = BATCHED) -> NDArray[Any]:
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        return np.asarray(zarr.open_array(folder, mode="r")[...])


def read_with_tensorstore(folder: Path) -> NDArray[Any]:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}
    return np.asarray(tensorstore.open(spec, open=True).result().read().result())


READERS: dict[str, Callable[[Path], NDArray[Any]]] = {
    "zarr": read_with_zarr,
    "zarrs": lambda folder: read_with_zarr(folder, ZARRS),
    "tensorstore": read_with_tensorstore,
}


def write_with_zarr(folder: Path, values: NDArray[Any], pipeline: str = BATCHED) -> None:
    with zarr.config.set({"codec_pipeline.path": pipeline, "array.write_empty_chunks": True}):
        zarr.open_array(folder, mode="r+")[...] = values


def write_with_tensorstore(folder: Path, values: NDArray[Any]) -> None:
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(folder)},
        "store_data_equal_to_fill_value": True,
    }
    tensorstore.open(spec, open=True).result()[...] = values


WRITERS: dict[str, Callable[[Path, NDArray[Any]], None]] = {
    "zarr": write_with_zarr,
    "zarrs": lambda folder, values: write_with_zarr(folder, values, ZARRS),
    "tensorstore": write_with_tensorstore,
}


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    factor = tuple(draw(st.integers(1, 4)) for _ in range(3))
    cells = tuple(draw(st.integers(1, 3)) for _ in range(3))
    patch_shape = tuple(f * n for f, n in zip(factor, cells, strict=True))
    chunk_shape = tuple(draw(st.sampled_from([c for c in range(1, n + 1) if n % c == 0])) for n in patch_shape)
    n_patches = draw(st.integers(1, 9))
    return {
        "n_patches": n_patches,
        "patch_shape": patch_shape,
        "ds_factor": factor,
        "chunk_shape": chunk_shape,
        "dtype": draw(st.sampled_from(DTYPES)),
        "codec": draw(st.sampled_from(["auto", "none", "zstd:3", "lz4:2", "blosc:5"])),
        "patches_per_shard": draw(st.integers(1, n_patches + 2)),
        "gaussian_dtype": draw(st.sampled_from([None, "float32", "float16"])),
        "seed": draw(st.integers(0, 9)),
    }


@settings(max_examples=trials(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipe=layouts(), data=st.data())
def test_what_we_write_is_read_equal_by_every_library(make_store, tmp_path_factory, recipe, data) -> None:
    folder = tmp_path_factory.mktemp("layout")
    made = make_store(folder, **recipe)
    for unit in data.draw(st.permutations(range(made.layout.n_units))):
        made.write_unit(unit)
    arrays = {"image": made.images} | ({} if made.targets is None else {"gaussian": made.targets})
    for name, values in arrays.items():
        (folder / name / "zarr.json").write_text(json.dumps(made.layout.array_metadata(name)))
        ours = ShardedArray(folder / name)
        assert all(same_bits(ours.read(i, [0] * len(item.shape), item.shape), item) for i, item in enumerate(values))
        for library, read in READERS.items():
            assert same_bits(read(folder / name), values), f"{name} by {library}"

    ours = ShardedArray(folder / "image")
    item = data.draw(st.integers(0, recipe["n_patches"] - 1))
    box = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in recipe["patch_shape"]]
    window = ours.read(item, [a for a, _ in box], [b for _, b in box])
    assert same_bits(window, made.images[item][tuple(slice(a, b) for a, b in box)].copy())
    shutil.rmtree(folder)


def test_a_whole_store_is_a_plain_zarr_group(made) -> None:
    group = zarr.open_group(made.folder, mode="r")
    assert same_bits(np.asarray(group["image"][...]), made.images)
    assert same_bits(np.asarray(group["gaussian"][...]), made.targets)
    assert group["image"].metadata.dimension_names == ("patch", "z", "y", "x")
    assert group["gaussian"].metadata.dimension_names == ("patch", "class", "z", "y", "x")
    for path, values in made.columns.items():
        assert same_bits(np.asarray(group[path][...]), values), path
    assert group["volumes"].attrs["keypatch"]["volumes"] == made.volumes


def little(dtype: np.dtype[Any]) -> dict[str, Any]:
    return {"name": "bytes", "configuration": {"endian": "little"}} if dtype.itemsize > 1 else {"name": "bytes"}


def blosc(cname: str, shuffle: str, dtype: np.dtype[Any]) -> dict[str, Any]:
    configuration = {"cname": cname, "clevel": 5, "shuffle": shuffle, "typesize": dtype.itemsize, "blocksize": 0}
    return {"name": "blosc", "configuration": configuration}


CRC = {"name": "crc32c"}

VARIANTS: dict[str, Callable[[np.dtype[Any]], dict[str, Any]]] = {
    "as we write": lambda _: {},
    "gzip": lambda dtype: {"codecs": [little(dtype), {"name": "gzip", "configuration": {"level": 1}}, CRC]},
    "gzip, no crc": lambda dtype: {"codecs": [little(dtype), {"name": "gzip", "configuration": {"level": 6}}]},
    "blosc lz4": lambda dtype: {"codecs": [little(dtype), blosc("lz4", "bitshuffle", dtype), CRC]},
    "blosc zlib, no crc": lambda dtype: {"codecs": [little(dtype), blosc("zlib", "noshuffle", dtype)]},
    "zstd with its checksum": lambda dtype: {
        "codecs": [little(dtype), {"name": "zstd", "configuration": {"level": 3, "checksum": True}}]
    },
    "raw": lambda dtype: {"codecs": [little(dtype)]},
    "big-endian": lambda _: {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}, CRC]},
    "big-endian zstd": lambda _: {
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "big"}},
            {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        ]
    },
    "index at the start": lambda _: {"index_location": "start"},
    "index without crc": lambda _: {"index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]},
}

SLOW_PATH: dict[str, Callable[[np.dtype[Any]], dict[str, Any]]] = {
    "transposed": lambda dtype: {
        "codecs": [{"name": "transpose", "configuration": {"order": [0, 3, 2, 1]}}, little(dtype)]
    },
    "big-endian index": lambda _: {"index_codecs": [{"name": "bytes", "configuration": {"endian": "big"}}, CRC]},
    "two compressors": lambda dtype: {
        "codecs": [
            little(dtype),
            {"name": "gzip", "configuration": {"level": 1}},
            {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        ]
    },
}


def rewrite(made: Any, folder: Path, change: dict[str, Any], write: Callable[[Path, NDArray[Any]], None]) -> None:
    """The image written anew by another library, under changed metadata."""
    metadata = copy.deepcopy(made.layout.array_metadata("image"))
    metadata["codecs"][0]["configuration"] |= change
    shutil.rmtree(folder / "image", ignore_errors=True)
    (folder / "image").mkdir(parents=True)
    (folder / "image" / "zarr.json").write_text(json.dumps(metadata))
    write(folder / "image", made.images)


@pytest.fixture(scope="module", params=["uint8", "float32"])
def source(request: pytest.FixtureRequest, make_store, tmp_path_factory) -> Any:
    made = make_store(tmp_path_factory.mktemp("source") / "s.zarr", dtype=request.param, chunk_shape=(8, 12, 32))
    made.images[:, ::8, ::12] = 1  # zarrs leaves out a chunk that is all fill value; a keypatch store has every one
    made.write()
    return made


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_foreign_shards_stay_on_the_fast_path(source, tmp_path, variant, writer) -> None:
    rewrite(source, tmp_path, VARIANTS[variant](source.images.dtype), WRITERS[writer])
    array = ShardedArray(tmp_path / "image")
    assert all(same_bits(array.read(i, (0, 0, 0), item.shape), item) for i, item in enumerate(source.images))
    assert same_bits(array.read(5, (3, 5, 7), (12, 18, 27)), source.images[5][3:12, 5:18, 7:27].copy())


@pytest.mark.parametrize("variant", SLOW_PATH)
def test_other_codecs_are_left_to_zarr(source, tmp_path, variant) -> None:
    shutil.copytree(source.folder, tmp_path / "s.zarr")
    rewrite(source, tmp_path / "s.zarr", SLOW_PATH[variant](source.images.dtype), write_with_zarr)
    store = Store(tmp_path / "s.zarr")
    assert isinstance(store.image_array, ZarrArray)
    assert store.image_array.patches_per_shard == 4
    assert store.image_array.chunk_shape == (8, 12, 32)
    assert all(same_bits(store.read_image(i), source.images[i]) for i in range(len(store)))
    assert same_bits(store.read_image(5, (3, 5, 7), (9, 13, 20)), source.images[5][3:12, 5:18, 7:27].copy())


def test_unsharded_image_is_left_to_zarr(made, tmp_path) -> None:
    shutil.copytree(made.folder, tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr" / "image")
    zarr.create_array(tmp_path / "s.zarr", name="image", data=made.images, chunks=(3, 16, 24, 32))
    store = Store(tmp_path / "s.zarr")
    assert isinstance(store.image_array, ZarrArray)
    assert all(same_bits(store.read_image(i), made.images[i]) for i in range(len(store)))
