"""`keypatch.formats.store.Store`: what it gives, what it refuses, and that it changes nothing."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from keypatch import gaussian, geometry
from keypatch.errors import EXIT_UNREADABLE, CorruptionError, StoreError
from keypatch.formats.store import Store
from keypatch.formats.store.schema import KINDS, parse_version

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(made) -> Store:
    return Store(made.folder)


@pytest.fixture
def folder(made, tmp_path: Path) -> Path:
    return shutil.copytree(made.folder, tmp_path / "s.zarr")


def test_what_it_says_of_itself(store, made) -> None:
    assert len(store) == 11
    assert store.patch_shape == (16, 24, 32)
    assert store.ds_factor == (8, 4, 16)
    assert store.grid_shape == (2, 6, 2)
    assert store.classes == ("motor", "ribosome é")
    assert store.kinds == KINDS
    assert store.has_gaussian
    assert store.volume_ids == ("tomo_0", "tomo_1", "tomo_2")
    assert store.source_paths == ("one.csv", "two.csv")
    assert repr(store) == f"<keypatch.Store {made.folder}: 11 patches of 16×24×32, classes motor, ribosome é>"


def test_patches_hold_what_was_written(store, made) -> None:
    columns = made.columns
    offsets = columns["patches/keypoint_offsets"]
    for i, patch in enumerate(store):
        rows = slice(offsets[i], offsets[i + 1])
        assert patch.index == i
        assert patch.volume == f"tomo_{columns['patches/volume_index'][i]}"
        assert patch.kind == KINDS[columns["patches/kind"][i]]
        assert patch.fold == columns["patches/fold"][i]
        for name in ("origin", "valid_start", "valid_stop", "ds_sigma", "angstrom_sigma", "voxel_spacing"):
            assert np.array_equal(getattr(patch, name), columns[f"patches/{name}"][i])
        for name in ("global_coords", "local_rs_coords", "local_ds_coords", "class_index", "annotation_index"):
            assert np.array_equal(getattr(patch, name), columns[f"keypoints/{name}"][rows])
        assert np.array_equal(patch.image, made.images[i])
        assert patch.image is patch.image
        expected = gaussian.render(
            patch.local_ds_coords, patch.class_index, n_classes=2, grid=(2, 6, 2), sigma=patch.ds_sigma
        )
        assert np.array_equal(patch.gaussian(), expected)
        assert patch.gaussian(np.float16).dtype == np.float16


def test_frames_hold_what_was_written(store, made) -> None:
    columns = made.columns
    patches, keypoints, annotations = store.patches, store.keypoints, store.annotations
    assert patches["kind"].tolist() == [KINDS[k] for k in columns["patches/kind"]]
    assert patches["volume"].tolist() == [f"tomo_{k}" for k in columns["patches/volume_index"]]
    assert patches["n_keypoints"].tolist() == np.diff(columns["patches/keypoint_offsets"]).tolist()
    assert np.array_equal(patches[["origin_z", "origin_y", "origin_x"]], columns["patches/origin"])
    assert np.array_equal(patches[["ds_sigma_z", "ds_sigma_y", "ds_sigma_x"]], columns["patches/ds_sigma"])
    assert [store[int(p)].kind for p in keypoints["patch"]] == patches["kind"][keypoints["patch"]].tolist()
    assert np.array_equal(keypoints[["local_ds_z", "local_ds_y", "local_ds_x"]], columns["keypoints/local_ds_coords"])
    assert keypoints["class_name"].tolist() == [made.attributes["classes"][c] for c in columns["keypoints/class_index"]]
    assert np.array_equal(annotations[["z", "y", "x"]], columns["annotations/coords"])
    assert annotations["source"].tolist() == [["one.csv", "two.csv"][k] for k in columns["annotations/source_index"]]
    assert annotations["score"].isna().tolist() == np.isnan(columns["annotations/score"]).tolist()
    assert store.volumes.index.tolist() == ["tomo_0", "tomo_1", "tomo_2"]


def test_coordinates_of_a_patch_agree(store) -> None:
    for patch in store:
        assert np.array_equal(patch.local_rs_coords, patch.global_coords - patch.origin)
        assert np.array_equal(patch.local_ds_coords, geometry.local_ds(patch.local_rs_coords, store.ds_factor))


def test_indices(store, made) -> None:
    assert store[-1].index == 10
    assert (store.read_image(-11) == made.images[0]).all()
    assert (store.read_image(np.int64(3)) == made.images[3]).all()
    for index in (11, -12, 10**12):
        for read in (store.read_image, store.read_gaussian, store.__getitem__):
            with pytest.raises(IndexError, match="a store with 11 patches"):
                read(index)


@pytest.mark.parametrize(
    ("start", "shape"),
    [((-1, 0, 0), None), ((0, 0, 1), (16, 24, 32)), ((0, 25, 0), None), ((0, 0, 0), (1, -1, 1)), (None, (17, 1, 1))],
)
def test_windows_that_leave_the_patch(store, start, shape) -> None:
    with pytest.raises(IndexError, match="leaves the patch"):
        store.read_image(0, start, shape)


@pytest.mark.parametrize(("start", "shape"), [((0, 0), None), ((0, 0, 0, 0), None), (None, (1, 1))])
def test_windows_of_another_rank(store, start, shape) -> None:
    with pytest.raises(ValueError, match="zip"):
        store.read_image(0, start, shape)


def test_windows_at_the_edges(store, made) -> None:
    assert store.read_image(2, (16, 24, 32)).shape == (0, 0, 0)
    assert store.read_image(2, (3, 0, 0), (0, 5, 5)).shape == (0, 5, 5)
    assert (store.read_image(2, (15, 23, 31)) == made.images[2][15:, 23:, 31:]).all()
    assert (store.read_image(2, shape=(1, 2, 3)) == made.images[2][:1, :2, :3]).all()


def test_what_it_gives_can_be_written_to_or_not(store) -> None:
    """Images are the caller's own; tables are shared by all patches and may not be changed through one of them."""
    image = store.read_image(0)
    image += 1
    assert not (store.read_image(0) == image).all()
    for values in (store.table("patches/origin"), store[0].origin, store[0].local_ds_coords):
        with pytest.raises(ValueError, match="read-only"):
            values[...] = 0


def test_patches_compare_and_print_without_reading(store) -> None:
    patch = store[0]
    assert patch == patch  # noqa: PLR0124 - arrays among the fields made this raise
    assert patch != store[1]
    assert len({patch, store[1]}) == 2
    assert "_store" not in repr(patch)


def test_a_store_without_gaussians(make_store, tmp_path) -> None:
    made = make_store(tmp_path, gaussian_dtype=None)
    made.write()
    store = Store(tmp_path)
    assert not store.has_gaussian
    with pytest.raises(StoreError, match=r"found a store built with --no-gaussian; use store\[i\]\.gaussian\(\)"):
        store.read_gaussian(0)
    assert store[0].gaussian().shape == (2, *store.grid_shape)
    with pytest.raises(StoreError, match="gaussian_size"):
        store.table("integrity/gaussian_size")


def test_a_store_without_keypoints(make_store, tmp_path) -> None:
    made = make_store(tmp_path, n_patches=2)
    for path, values in made.columns.items():
        if path.startswith(("keypoints/", "annotations/")):
            made.columns[path] = values[:0]
    made.columns["patches/keypoint_offsets"][:] = 0
    made.write()
    store = Store(tmp_path)
    assert len(store.keypoints) == len(store.annotations) == 0
    assert store[1].local_ds_coords.shape == (0, 3)
    assert store[1].gaussian().max() == 0


def snapshot(folder: Path) -> list[tuple[str, int, int]]:
    paths = [folder, *folder.rglob("*")]
    return sorted((path.as_posix(), path.stat().st_mtime_ns, path.stat().st_size) for path in paths)


def test_reading_changes_nothing(folder) -> None:
    before = snapshot(folder)
    store = Store(folder)
    for patch in store:
        patch.image.sum()
        store.read_gaussian(patch.index)
    frames = (store.patches, store.keypoints, store.annotations, store.volumes)
    assert all(len(frame) for frame in frames)
    assert store.digest
    del store
    assert snapshot(folder) == before


def test_a_store_that_may_not_be_written_can_be_read(folder, made) -> None:
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        store = Store(folder)
        assert (store.read_image(5) == made.images[5]).all()
        assert len(store.patches) == 11
    finally:
        for path in paths:
            path.chmod(0o755)


def test_pickled_store_reads_alike(store, made) -> None:
    store.read_image(0)
    assert len(store.patches) == 11
    twin = pickle.loads(pickle.dumps(store))
    assert all((twin.read_image(i) == made.images[i]).all() for i in range(11))
    assert twin.patches.equals(store.patches)
    assert not twin.table("patches/origin").flags.writeable
    assert (pickle.loads(pickle.dumps(store[3])).image == made.images[3]).all()


def test_path_as_text_and_with_a_slash(made, monkeypatch) -> None:
    monkeypatch.chdir(made.folder.parent)
    for path in ("s.zarr", "./s.zarr/", str(made.folder)):
        assert (Store(path).read_image(1) == made.images[1]).all()


# What is no store


def change(path: Path, keys: tuple[str | int, ...], value: object) -> None:
    """Replace one value in a JSON file; a value of ``...`` takes its key away."""
    text = json.loads(path.read_text(encoding="utf-8"))
    inner: Any = text
    for key in keys[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_text(json.dumps(text))


def refused(path: object, match: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StoreError, match=match) as caught:
            Store(path)  # type: ignore[arg-type]
    assert caught.value.exit_code == EXIT_UNREADABLE
    assert "\n" not in str(caught.value)


def test_no_such_path(tmp_path) -> None:
    refused(tmp_path / "nope", "nope: expected a keypatch store, found no such file or folder")
    refused("a" * 5000, "File name too long")
    refused("a\0b", "null")
    refused("", "zarr.json|keypatch store")


def test_empty_folder(tmp_path) -> None:
    refused(tmp_path, "found a folder without zarr.json")


def test_file_that_is_no_zip(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    refused(tmp_path / "a.txt", r"a\.txt: expected a folder or a zip file")
    (tmp_path / "b.txt").write_text("")
    refused(tmp_path / "b.txt", r"b\.txt: expected a folder or a zip file")


def test_zarr_json_that_is_a_folder(tmp_path) -> None:
    (tmp_path / "zarr.json").mkdir()
    refused(tmp_path, r"zarr\.json: expected a keypatch store, found Is a directory")


def test_other_zarr_data(tmp_path) -> None:
    zarr.create_group(tmp_path / "group", attributes={"ome": {"version": "0.5"}})
    refused(tmp_path / "group", "found a Zarr group of something else; build one with keypatch convert")
    zarr.create_array(tmp_path / "array", shape=(3,), dtype="u1")
    refused(tmp_path / "array", "found a Zarr group of something else")
    zarr.create_group(tmp_path / "old", zarr_format=2)
    refused(tmp_path / "old", "a folder without zarr.json")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null", b'"x"', b"{}", b'{"attributes": []}']
)
def test_broken_root(folder, raw) -> None:
    (folder / "zarr.json").write_bytes(raw)
    refused(folder, "zarr.json: expected JSON|a Zarr group of something else")


def test_half_a_root(folder) -> None:
    whole = (folder / "zarr.json").read_bytes()
    for size in range(0, len(whole) - 1, 97):
        (folder / "zarr.json").write_bytes(whole[:size])
        refused(folder, "expected JSON")


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0"])
def test_another_major_version(folder, version) -> None:
    change(folder / "zarr.json", ("attributes", "keypatch", "schema_version"), version)
    refused(folder, rf"expected schema 1\.x, found schema '{version}'; this keypatch knows 1\.0")


@pytest.mark.parametrize("version", [1.0, 1, "1", "1.0.0", "", "1.x", "²", "1.²", None, [], ["1.0"], "-1.0", ...])
def test_a_version_that_is_none(folder, version) -> None:
    change(folder / "zarr.json", ("attributes", "keypatch", "schema_version"), version)
    refused(folder, "expected schema 1")
    assert parse_version(version) is None


def test_a_newer_minor_version_is_read(folder, made) -> None:
    change(folder / "zarr.json", ("attributes", "keypatch", "schema_version"), "1.7")
    change(folder / "zarr.json", ("attributes", "keypatch", "mood"), {"new": True})
    store = Store(folder)
    assert store.schema_version == "1.7"
    assert (store.read_image(0) == made.images[0]).all()


NEEDED = ("axes", "patch_shape", "ds_factor", "grid_shape", "classes", "kinds", "counts", "gaussian")


@pytest.mark.parametrize("key", NEEDED)
def test_missing_attribute(folder, key) -> None:
    change(folder / "zarr.json", ("attributes", "keypatch", key), ...)
    refused(folder, f"found none of {key}")


WRONG_ATTRIBUTES = [
    *((key, value) for key in ("patch_shape", "ds_factor", "grid_shape") for value in (
        None, 16, "16", [], [16, 24], [16, 24, 32, 1], [16.0, 24, 32], ["16", "24", "32"], [True, 1, 1], [0, 24, 32],
        [-16, 24, 32], {"z": 1, "y": 2, "x": 3}, [2**40, 1, 1],
    )),
    *((key, value) for key in ("classes", "kinds") for value in (None, "ab", {"a": 0}, [1, 2], [None], [["a"]])),
    *(("gaussian", value) for value in (None, [], {}, True, {"stored": 1}, {"stored": "yes"}, {"dtype": "float32"})),
    *(("counts", value) for value in (None, [], 11, {"patches": "11"}, {"patches": -1}, {"patches": 1.5})),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG_ATTRIBUTES)
def test_attribute_of_another_type(folder, key, value) -> None:
    change(folder / "zarr.json", ("attributes", "keypatch", key), value)
    refused(folder, f"expected a valid attribute '{key}'")


def test_attributes_that_contradict_the_arrays(folder) -> None:
    """Windows are checked against the attribute and read from the array: they must be of one shape."""
    for shape in ([16, 24, 16], [32, 24, 32], [24, 16, 32]):
        change(folder / "zarr.json", ("attributes", "keypatch", "patch_shape"), shape)
        refused(folder, r"image: expected items of shape .* found an array of shape \(11, 16, 24, 32\)")
    change(folder / "zarr.json", ("attributes", "keypatch", "patch_shape"), [16, 24, 32])
    change(folder / "zarr.json", ("attributes", "keypatch", "classes"), ["only one"])
    with pytest.raises(StoreError, match=r"gaussian: expected items of shape \(1, 2, 6, 2\)"):
        Store(folder).read_gaussian(0)


@pytest.mark.parametrize("value", [None, [], "x", 5, ...])
def test_digests_of_another_type_are_no_digest(folder, value) -> None:
    change(folder / "zarr.json", ("attributes", "keypatch", "digests"), value)
    assert Store(folder).digest == ""


@pytest.mark.parametrize("value", [None, 5, "x", [{}], ["x"], [None]])
def test_sources_of_another_type(folder, value) -> None:
    change(folder / "zarr.json", ("attributes", "keypatch", "sources"), value)
    with pytest.raises(StoreError, match="a list of sources with paths"):
        _ = Store(folder).annotations


@pytest.mark.parametrize(
    "value", [None, [], {}, {"volumes": None}, {"volumes": "x"}, {"volumes": ["x"]}, {"volumes": [{}]}, ...]
)
def test_volumes_of_another_type(folder, value) -> None:
    change(folder / "volumes/zarr.json", ("attributes", "keypatch"), value)
    store = Store(folder)
    for name in ("volume_ids", "volumes", "patches", "annotations"):
        with pytest.raises(StoreError, match="volumes: expected a list of volumes"):
            getattr(store, name)


def test_too_few_volumes(folder) -> None:
    change(folder / "volumes/zarr.json", ("attributes", "keypatch", "volumes"), [{"id": "only"}])
    with pytest.raises(CorruptionError, match="positions in a list of 1"):
        Store(folder)[0]


SHARDING = ("codecs", 0, "configuration")
WRONG_ARRAYS = [
    *((("shape",), value) for value in (
        None, "x", [], [11, 16, 24], ["a", 1, 1, 1], [11, 0, 24, 32], [-11, 16, 24, 32], [11.0, 16, 24, 32], ...
    )),
    *((("data_type",), value) for value in (
        None, "foo", "object", "O", "V8", "string", "bytes", {"name": "x"}, ["u1"], "datetime64[s]", ...
    )),
    *((("chunk_grid",), value) for value in (
        None, {}, [], "x", {"name": "regular"}, {"name": "regular", "configuration": {"chunk_shape": []}}, ...
    )),
    *((("chunk_grid", "configuration", "chunk_shape"), value) for value in (
        None, [4], [0, 16, 24, 32], ["x", 16, 24, 32], [-4, 16, 24, 32], [4.0, 16, 24, 32]
    )),
    *((("chunk_key_encoding",), value) for value in (None, "x", {}, {"name": "x"})),
    *((("codecs",), value) for value in (None, [], {}, ["x"], [{}], "x", 5, ...)),
    *((SHARDING, value) for value in (None, {}, [], "x", {"chunk_shape": [1, 0, 24, 16]})),
    *(((*SHARDING, "chunk_shape"), value) for value in (
        None, [], [1, 8, 24], [1, 0, 24, 16], [1, -8, 24, 16], [1, "a", 24, 16], [0, 8, 24, 16]
    )),
    *(((*SHARDING, "codecs"), value) for value in (
        None, [], ["x"], [{}], [{"name": "x"}], [{"name": "bytes", "configuration": None}],
        [{"name": "bytes"}, {"name": "blosc", "configuration": {}}],
        [{"name": "bytes"}, {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "x"}}],
        [{"name": "bytes"}, {"name": "zstd", "configuration": "x"}],
    )),
    *(((*SHARDING, "index_codecs"), value) for value in (None, ["x"], [{}])),
    *(((*SHARDING, "index_location"), value) for value in (None, "middle", 5)),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "value"), WRONG_ARRAYS)
def test_array_metadata_that_makes_no_sense(folder, keys, value) -> None:
    change(folder / "image/zarr.json", keys, value)
    refused(folder, "/image")


SHIFTED = [
    (("data_type",), "uint16"),
    ((*SHARDING, "chunk_shape"), [1, 4, 24, 16]),
    ((*SHARDING, "chunk_shape"), [1, 5, 7, 9]),
    ((*SHARDING, "codecs"), [{"name": "bytes"}, {"name": "crc32c"}]),
    ((*SHARDING, "codecs"), [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}, {"name": "crc32c"}]),
    ((*SHARDING, "index_codecs"), [{"name": "bytes", "configuration": {"endian": "little"}}]),
    ((*SHARDING, "index_codecs"), []),
    ((*SHARDING, "index_location"), "start"),
    (("chunk_key_encoding",), {"name": "v2"}),
    (("chunk_key_encoding",), {"name": "default", "configuration": {"separator": "."}}),
    (("chunk_grid", "configuration", "chunk_shape"), [3, 16, 24, 32]),
    (("chunk_grid", "configuration", "chunk_shape"), [5, 16, 24, 32]),
]


@pytest.mark.parametrize(("keys", "value"), SHIFTED)
def test_array_metadata_that_is_not_that_of_the_shards(folder, keys, value) -> None:
    """Sensible in itself, so it opens; the first patch then fails its checks and no wrong voxel comes out."""
    change(folder / "image/zarr.json", keys, value)
    with pytest.raises(StoreError, match="image"):
        Store(folder).read_image(0)


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, None])
@pytest.mark.parametrize("array", ["image", "gaussian"])
def test_broken_array_metadata(folder, array, raw) -> None:
    if raw is None:
        (folder / array / "zarr.json").unlink()
    else:
        (folder / array / "zarr.json").write_bytes(raw)
    with pytest.raises(StoreError, match=rf"{array}/zarr\.json: expected"):
        Store(folder).read_gaussian(0)


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, None])
@pytest.mark.parametrize("table", ["patches/origin", "keypoints/class_index"])
def test_broken_table_metadata(folder, table, raw) -> None:
    if raw is None:
        (folder / table / "zarr.json").unlink()
    else:
        (folder / table / "zarr.json").write_bytes(raw)
    with pytest.raises(StoreError, match=rf"{table}/zarr\.json: expected"):
        Store(folder)[0]


def test_remote_store_without_fsspec(monkeypatch) -> None:
    pytest.importorskip("zarr")
    try:
        import fsspec  # noqa: F401
    except ImportError:
        refused("s3://nothing/there", "expected fsspec for a remote store")
    else:
        refused("memory://nothing", "expected a keypatch store")


def test_remote_store(made) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not among the dependencies; remote stores need it")
    remote = fsspec.filesystem("memory")
    for path in made.folder.rglob("*"):
        if path.is_file():
            remote.pipe(f"/s.zarr/{path.relative_to(made.folder).as_posix()}", path.read_bytes())
    store = Store("memory://s.zarr")
    assert all((store.read_image(i) == made.images[i]).all() for i in range(len(store)))
    assert len(store.patches) == 11
