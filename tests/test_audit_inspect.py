"""`inspect`: descriptions of stores, patches, volumes and annotation files."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from keypatch.audit.inspect import describe_annotations, describe_patch, describe_store, describe_volume
from keypatch.errors import CorruptionError, ReadError, StoreError
from keypatch.formats.annotations import AnnotationOptions
from keypatch.formats.store import Store
from keypatch.formats.volumes import VolumeOptions

from .stores import Design, Made, copy_of, flip, make_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


def test_a_store_is_described(made: Made) -> None:
    found = describe_store(made.path)
    assert (found.schema_version, found.digest) == ("1.0", made.digest)
    assert (found.patch_shape, found.ds_factor, found.grid_shape) == ((16, 32, 24), (4, 8, 4), (4, 4, 6))
    assert found.classes == ("motor", "ribosome")
    assert found.counts == made.attributes["counts"]
    image, target = found.arrays
    assert (image.name, image.shape, image.dtype) == ("image", (10, 16, 32, 24), "uint8")
    assert (image.chunk_shape, image.patches_per_shard, image.shards) == ((8, 16, 24), 3, 4)
    assert (image.codec, image.raw) == ("zstd:1, crc32c", 10 * 16 * 32 * 24)
    assert (target.shape, target.codec) == ((10, 2, 4, 4, 6), "blosc-lz4:7 bitshuffle, crc32c")
    assert [(v["id"], v["patches"], v["annotations"]) for v in found.volumes] == [("tomo_0", 5, 6), ("tomo_1", 5, 5)]
    assert found.sources[0]["path"] == "first.csv"
    assert found.left_out == ({"what": "rows", "reason": "outside", "count": 1, "items": ["row 3"]},)
    assert found.recipe["padding"] == "zero"
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["arrays"][0]["shards"] == 4


def test_a_store_without_gaussians_and_compression_is_described(tmp_path: Path) -> None:
    made = make_store(tmp_path, Design(gaussian_dtype=None, folds=0, codec="none"))
    found = describe_store(made.path)
    assert [array.codec for array in found.arrays] == ["none, crc32c"]
    assert found.folds == 0


@pytest.mark.parametrize("index", [0, 3, 9, -1])
def test_a_patch_is_described(made: Made, index: int) -> None:
    found = describe_patch(Store(made.path), index)
    k = index % made.layout.n_patches
    image, target = made.images[k], made.gaussians[k]
    assert found.index == k
    assert found.origin == tuple(made.columns["patches/origin"][k].tolist())
    assert found.stop == tuple((made.columns["patches/origin"][k] + (16, 32, 24)).tolist())
    assert (found.minimum, found.maximum) == (image.min(), image.max())
    assert found.mean == pytest.approx(image.astype(float).mean())
    assert found.gaussian_maximum == {"motor": float(target[0].max()), "ribosome": float(target[1].max())}
    start, stop = made.columns["patches/valid_start"][k], made.columns["patches/valid_stop"][k]
    assert found.padded_share == pytest.approx(1 - np.prod(stop - start) / image.size)
    rows = range(*made.columns["patches/keypoint_offsets"][k : k + 2].tolist())
    assert len(found.keypoints) == len(rows)
    for row, keypoint in zip(rows, found.keypoints, strict=True):
        annotation = int(made.columns["keypoints/annotation_index"][row])
        rs = made.columns["keypoints/local_rs_coords"][row]
        score = made.columns["annotations/score"][annotation]
        assert keypoint.annotation == annotation
        assert keypoint.local_rs == tuple(rs)
        assert keypoint.inside == all(-0.5 <= c < n - 0.5 for c, n in zip(rs, (16, 32, 24), strict=True))
        assert keypoint.source == ("first.csv", "second.csv")[made.columns["annotations/source_index"][annotation]]
        assert keypoint.source_row == annotation
        assert keypoint.score == (None if np.isnan(score) else score)
    json.dumps(found.to_json(), allow_nan=False)


def test_a_damaged_patch_is_an_error(made: Made, tmp_path: Path) -> None:
    store = copy_of(made, tmp_path)
    flip(store / "image/c/0/0/0/0", 40)
    with pytest.raises(CorruptionError, match="crc32c"):
        describe_patch(Store(store.path), 0)
    with pytest.raises(IndexError):
        describe_patch(Store(store.path), 10)


def test_what_is_no_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        describe_store(tmp_path)


def test_a_volume_is_described(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 6, 7)).astype("float32")
    values[1, 2, 3] = np.nan
    np.save(tmp_path / "tomo.npy", values)
    found = describe_volume(tmp_path / "tomo.npy")
    assert (found.format, found.shape, found.dtype, found.raw) == ("npy", (5, 6, 7), "float32", 840)
    assert found.voxel_spacing is None
    assert found.extent is None
    assert (found.minimum, found.maximum) == (np.nanmin(values), np.nanmax(values))
    assert (found.not_finite, found.looked_at) == (1, "all voxels")
    json.dumps(found.to_json(), allow_nan=False)


def test_of_a_large_volume_the_middle_slice_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "tomo.npy", np.zeros((65, 1025, 1024), np.uint8))
    array = np.load(tmp_path / "tomo.npy", mmap_mode="r+")
    array[32, 5, 5], array[0, 0, 0] = 7, 200
    array.flush()
    found = describe_volume(tmp_path / "tomo.npy")
    assert (found.looked_at, found.maximum) == ("the middle slice", 7)


def test_a_volume_of_nothing_but_nan_is_described(tmp_path: Path) -> None:
    np.save(tmp_path / "tomo.npy", np.full((2, 2, 2), np.nan))
    found = describe_volume(tmp_path / "tomo.npy")
    assert found.not_finite == 8
    assert found.to_json()["minimum"] is None


def test_a_real_mrc_is_described(real_data: Path) -> None:
    path = real_data / "matched/portal_fixture/run1.rec"
    raw = path.read_bytes()
    columns, rows, sections = struct.unpack_from("<3i", raw, 0)
    cell = struct.unpack_from("<3f", raw, 40)
    found = describe_volume(path)
    assert found.format == "mrc"
    assert found.shape == (sections, rows, columns)
    assert found.voxel_spacing == pytest.approx((cell[2] / sections, cell[1] / rows, cell[0] / columns))
    assert found.extent == pytest.approx((cell[2], cell[1], cell[0]))
    assert (found.minimum, found.maximum, found.mean) == (0, 63, 31.5)  # the file holds 0 … 63


def test_a_volume_of_a_named_format_is_read_as_that(tmp_path: Path) -> None:
    (tmp_path / "tomo.npy").write_bytes(b"no volume")
    with pytest.raises(ReadError):
        describe_volume(tmp_path / "tomo.npy", VolumeOptions(format="npy"))
    with pytest.raises(ReadError):
        describe_volume(tmp_path / "nothing.mrc")


def test_real_labels_are_described(real_data: Path) -> None:
    path = real_data / "csv/byu_train_labels.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    motors = [row for row in rows if float(row["Motor axis 0"]) >= 0]
    found = describe_annotations(path)
    assert found.points == len(motors) == 451
    assert len(found.by_volume) == len({row["tomo_id"] for row in rows}) == 648
    for name in ("tomo_003acc", motors[0]["tomo_id"], motors[-1]["tomo_id"]):
        assert found.by_volume[name] == sum(row["tomo_id"] == name for row in motors)
    assert found.low == tuple(min(float(row[f"Motor axis {k}"]) for row in motors) for k in range(3))
    assert found.high == tuple(max(float(row[f"Motor axis {k}"]) for row in motors) for k in range(3))
    assert len(found.first_rows) == 10
    assert found.first_rows[0]["z"] == float(motors[0]["Motor axis 0"])
    assert found.convention["unit"] == "voxel"
    hint = found.volume_hints["tomo_003acc"]
    first = next(row for row in rows if row["tomo_id"] == "tomo_003acc")
    assert hint["shape"] == tuple(int(float(first[f"Array shape (axis {k})"])) for k in range(3))
    json.dumps(found.to_json(), allow_nan=False)


def test_annotations_without_volumes_and_classes_are_described(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("z,y,x\n1,2,3\n4,5,6\n")
    found = describe_annotations(tmp_path / "points.csv", AnnotationOptions())
    assert (found.by_volume, found.by_class) == ({"": 2}, {"": 2})
    assert (found.low, found.high) == ((1, 2, 3), (4, 5, 6))
    assert found.left_out == ()
    assert found.first_rows[0]["score"] is None
    json.dumps(found.to_json(), allow_nan=False)


def test_annotations_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        describe_annotations(tmp_path / "nothing.csv")
