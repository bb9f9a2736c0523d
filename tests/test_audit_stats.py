"""`stats`: every figure against a count or a calculation that does not use keypatch's own."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numcodecs
import numpy as np
import pytest

from keypatch.audit.stats import StoreStats, stats
from keypatch.errors import CorruptionError, StoreError, UsageError

from .stores import Design, Made, copy_of, make_store

CHECKSUM = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, real_fsync: None) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def figures(made: Made) -> StoreStats:
    return stats(made.path)


def _files(folder: Path) -> int:
    return sum((Path(base) / name).stat().st_size for base, _, names in os.walk(folder) for name in names)


def test_the_parts_are_the_files(made: Made, figures: StoreStats) -> None:
    parts = {part.name: part for part in figures.parts}
    n = made.layout.n_patches
    assert parts["image"].raw == n * 16 * 32 * 24
    assert parts["image"].on_disk == _files(made.path / "image/c")
    assert parts["gaussian"].raw == n * 2 * 4 * 4 * 6 * 4
    assert parts["gaussian"].on_disk == _files(made.path / "gaussian/c")
    for group in ("patches", "keypoints", "annotations"):
        assert parts[group].raw == sum(v.nbytes for k, v in made.columns.items() if k.startswith(group))
    assert parts["integrity"].raw == made.layout.n_units * 2 * (32 + 8)
    assert figures.on_disk == _files(made.path)
    assert figures.raw == sum(part.raw for part in figures.parts)
    blocks = sum(p.stat().st_blocks * 512 for p in made.path.rglob("*") if p.is_file())
    assert sum(part.allocated or 0 for part in figures.parts) == blocks


def test_patches_are_counted(made: Made, figures: StoreStats) -> None:
    kinds = made.columns["patches/kind"].tolist()
    assert figures.patches == len(kinds)
    assert figures.patches_by_kind["centered"] == kinds.count(0)
    assert figures.patches_by_kind["grid"] == kinds.count(4)
    assert sum(figures.patches_by_kind.values()) == len(kinds)
    assert figures.patches_by_fold == {0: 5, 1: 5}
    assert figures.patches_by_volume == {"tomo_0": 5, "tomo_1": 5}
    assert figures.digest == made.digest


def test_keypoints_are_counted(made: Made, figures: StoreStats) -> None:
    size = made.layout.patch_shape
    offsets = made.columns["patches/keypoint_offsets"].tolist()
    inside_of: dict[int, list[int]] = {0: [], 1: []}
    per_patch, used_inside, used = [], set(), set()
    totals = {0: 0, 1: 0}
    for patch in range(made.layout.n_patches):
        found = {0: 0, 1: 0}
        for row in range(offsets[patch], offsets[patch + 1]):
            c = int(made.columns["keypoints/class_index"][row])
            point = made.columns["keypoints/local_rs_coords"][row]
            annotation = int(made.columns["keypoints/annotation_index"][row])
            totals[c] += 1
            used.add(annotation)
            if all(-0.5 <= point[k] < size[k] - 0.5 for k in range(3)):
                found[c] += 1
                used_inside.add(annotation)
        for c in (0, 1):
            inside_of[c].append(found[c])
        per_patch.append(sum(found.values()))
    for c, name in enumerate(("motor", "ribosome")):
        counts = figures.classes[name]
        mine = np.flatnonzero(made.columns["annotations/class_index"] == c).tolist()
        assert counts.annotations == len(mine)
        assert counts.in_no_patch == sum(a not in used_inside for a in mine)
        assert counts.out_of_reach == sum(a not in used for a in mine)
        assert (counts.keypoints, counts.inside) == (totals[c], sum(inside_of[c]))
        assert counts.outside == totals[c] - sum(inside_of[c])
        assert counts.patches == sum(n > 0 for n in inside_of[c])
        assert counts.per_patch == {n: inside_of[c].count(n) for n in set(inside_of[c])}
    assert figures.keypoints_per_patch == {n: per_patch.count(n) for n in set(per_patch)}
    assert any(figures.classes[name].outside for name in figures.classes)


def _full_target(made: Made, patch: int) -> np.ndarray:
    """(C, D, H, W) float64 at full resolution, from the formula with numpy's own exponential, point by point."""
    target = np.zeros((2, *made.layout.patch_shape))
    axes = np.meshgrid(*map(np.arange, made.layout.patch_shape), indexing="ij")
    sigma = made.columns["patches/ds_sigma"][patch] * made.layout.ds_factor
    offsets = made.columns["patches/keypoint_offsets"]
    for row in range(offsets[patch], offsets[patch + 1]):
        point = made.columns["keypoints/local_rs_coords"][row]
        exponent = sum(((axis - c) / s) ** 2 for axis, c, s in zip(axes, point, sigma, strict=True))
        c = made.columns["keypoints/class_index"][row]
        target[c] = np.maximum(target[c], np.exp(-exponent / 2))
    return target


def _chunks(channel: np.ndarray, shape: tuple[int, int, int]) -> list[np.ndarray]:
    d, h, w = shape
    return [
        np.ascontiguousarray(channel[z : z + d, y : y + h, x : x + w])
        for z in range(0, channel.shape[0], d)
        for y in range(0, channel.shape[1], h)
        for x in range(0, channel.shape[2], w)
    ]


def _compressed(made: Made, dtype: str, codec: numcodecs.abc.Codec, top: float = 0) -> int:
    total = 0
    for patch in range(made.layout.n_patches):
        for channel in _full_target(made, patch):
            stored = np.rint(channel * top).astype(dtype) if top else channel.astype(dtype)
            total += sum(len(codec.encode(c)) + CHECKSUM for c in _chunks(stored, made.layout.chunk_shape))
    return total


def test_the_full_gaussian_is_compressed_with_the_images_codec(made: Made, figures: StoreStats) -> None:
    full = {(entry.dtype, entry.codec): entry for entry in figures.full_gaussian}
    assert list(full) == [
        ("uint8", "zstd:1, crc32c"),
        ("float16", "zstd:1, crc32c"),
        ("float16", "blosc-lz4:7 bitshuffle, crc32c"),
        ("float32", "zstd:1, crc32c"),
        ("float32", "blosc-lz4:7 bitshuffle, crc32c"),
    ]
    zstd, lz4 = numcodecs.Zstd(1), numcodecs.Blosc("lz4", 7, numcodecs.Blosc.BITSHUFFLE)
    voxels = made.layout.n_patches * 2 * math.prod(made.layout.patch_shape)
    for key, codec, top in (
        (("uint8", "zstd:1, crc32c"), zstd, 255),
        (("float16", "zstd:1, crc32c"), zstd, 0),
        (("float32", "blosc-lz4:7 bitshuffle, crc32c"), lz4, 0),
    ):
        entry = full[key]
        assert entry.raw == voxels * np.dtype(key[0]).itemsize
        # The last bit of the exponentials differs, and with it a few compressed bytes.
        assert entry.compressed.value == pytest.approx(_compressed(made, key[0], codec, top), rel=2e-3)
        assert entry.compressed.exact
        assert entry.compressed.low == entry.compressed.value == entry.compressed.high


def test_the_ratios_follow_from_the_bytes(made: Made, figures: StoreStats) -> None:
    parts = {part.name: part for part in figures.parts}
    for entry in figures.full_gaussian:
        pair_raw = parts["image"].raw + entry.raw
        assert entry.ratio_raw == pytest.approx(pair_raw / sum(part.raw for part in figures.parts))
        pair = _files(made.path / "image/c") + entry.compressed.value
        assert entry.ratio_on_disk.value == pytest.approx(pair / _files(made.path))
        assert entry.gaussian_ratio_raw == pytest.approx(entry.raw / parts["gaussian"].raw)
        assert entry.gaussian_ratio_on_disk == pytest.approx(entry.compressed.value / parts["gaussian"].on_disk)
    float32 = figures.full_gaussian[-1]
    assert float32.gaussian_ratio_raw == 4 * 8 * 4
    assert figures.savings.gaussian_grid == 4 * 8 * 4
    assert figures.savings.dtype == 2  # int16 sources, stored as uint8
    assert figures.savings.image_codec == pytest.approx(parts["image"].raw / parts["image"].on_disk)
    assert figures.savings.gaussian_codec == pytest.approx(parts["gaussian"].raw / parts["gaussian"].on_disk)


def test_a_loaded_patch_is_counted(made: Made, figures: StoreStats) -> None:
    memory = figures.memory
    assert memory.image == made.images[0].nbytes
    assert memory.gaussian == made.gaussians[0].nbytes
    columns = [v for k, v in made.columns.items() if k.startswith("keypoints/")]
    assert memory.keypoints == pytest.approx(sum(v.nbytes for v in columns) / made.layout.n_patches)
    assert memory.full_gaussian["float32"] == 2 * made.images[0].size * 4


def test_a_sample_is_seeded_and_says_so(made: Made, figures: StoreStats) -> None:
    one, again = stats(made.path, sample=4, seed=7), stats(made.path, sample=4, seed=7)
    assert one.full_gaussian == again.full_gaussian
    others = {stats(made.path, sample=4, seed=seed).full_gaussian[0].compressed.value for seed in range(5)}
    assert len(others) > 1
    for entry, whole in zip(one.full_gaussian, figures.full_gaussian, strict=True):
        assert not entry.compressed.exact
        assert (entry.compressed.n_sampled, entry.compressed.n_patches) == (4, 10)
        assert entry.compressed.low <= entry.compressed.value <= entry.compressed.high
        assert entry.ratio_on_disk.low <= entry.ratio_on_disk.value <= entry.ratio_on_disk.high
        assert entry.raw == whole.raw


def test_the_interval_covers_the_truth_about_19_times_in_20(made: Made, figures: StoreStats) -> None:
    truth = figures.full_gaussian[0].compressed.value
    covered = 0
    for seed in range(25):
        estimate = stats(made.path, sample=6, seed=seed).full_gaussian[0].compressed
        covered += estimate.low <= truth <= estimate.high
    assert covered >= 19  # 25 * 0.95 = 24, less what skew and chance take


def test_a_sample_of_all_is_exact(made: Made, figures: StoreStats) -> None:
    assert stats(made.path, sample=10).full_gaussian == figures.full_gaussian
    assert stats(made.path, sample=999).full_gaussian == figures.full_gaussian


@pytest.mark.parametrize("sample", [-1, 0, 1])
def test_a_sample_too_small_for_an_interval_is_refused(made: Made, sample: int) -> None:
    with pytest.raises(UsageError, match="at least 2 patches"):
        stats(made.path, sample=sample)


def test_a_store_without_gaussians_has_none_to_compare_with(tmp_path: Path) -> None:
    made = make_store(tmp_path, Design(gaussian_dtype=None, folds=0, dtype="int16"))
    figures = stats(made.path)
    assert "gaussian" not in {part.name for part in figures.parts}
    assert figures.savings.gaussian_codec is None
    assert figures.savings.dtype == 1
    assert figures.patches_by_fold == {}
    assert {entry.gaussian_ratio_raw for entry in figures.full_gaussian} == {None}
    assert [(e.dtype, e.codec) for e in figures.full_gaussian] == [
        ("int16", "blosc-lz4:7 bitshuffle, crc32c"),
        ("float16", "blosc-lz4:7 bitshuffle, crc32c"),
        ("float32", "blosc-lz4:7 bitshuffle, crc32c"),
    ]


@pytest.mark.parametrize("dtype", ["uint64", "int64", "int8", "float64"])
def test_every_image_dtype_has_its_full_gaussian(tmp_path: Path, dtype: str) -> None:
    made = make_store(tmp_path, Design(dtype=dtype, source_dtype="uint8" if dtype != "int8" else "int8", codec="none"))
    entry = stats(made.path).full_gaussian[0]
    assert (entry.dtype, entry.codec) == (dtype, "none, crc32c")
    n_chunks = made.layout.n_patches * 2 * made.layout.chunks_per_patch
    assert entry.compressed.value == entry.raw + n_chunks * CHECKSUM


def test_the_result_is_plain_json(figures: StoreStats) -> None:
    value = json.loads(json.dumps(figures.to_json(), allow_nan=False))
    assert value["on_disk"] == figures.on_disk
    assert value["classes"]["motor"]["per_patch"].keys() == {str(n) for n in figures.classes["motor"].per_patch}
    assert value["full_gaussian"][0]["compressed"]["n_sampled"] == 10


def test_a_store_with_a_lost_shard_gives_no_figures(made: Made, tmp_path: Path) -> None:
    store = copy_of(made, tmp_path)
    (store / "image/c/1/0/0/0").unlink()
    with pytest.raises(CorruptionError, match="expected shards of"):
        stats(store)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        stats(tmp_path)
