"""`stats`: histograms, folds, borders, coverage and overlap, each against plain loops or numpy on the whole arrays."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trials import trials

from keypatch.audit.coverage import count_pairs, count_voxels
from keypatch.audit.intensity import _FloatTally, measure_intensity
from keypatch.audit.stats import StoreStats, stats
from keypatch.errors import CorruptionError, UsageError
from keypatch.formats.store import Store

from .stores import Design, Made, copy_of, edit_attributes, edit_table, flip, make_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def figures(made: Made) -> StoreStats:
    return stats(made.path)


def _valid_voxels(made: Made, v: int, patches: list[int] | None = None) -> np.ndarray:
    """Every stored voxel of a volume's patches that is no padding, flat."""
    parts = []
    for i in np.flatnonzero(made.columns["patches/volume_index"] == v):
        if patches is None or i in patches:
            box = zip(made.columns["patches/valid_start"][i], made.columns["patches/valid_stop"][i], strict=True)
            parts.append(made.images[i][tuple(slice(a, b) for a, b in box)].ravel())
    return np.concatenate(parts)


# ----- intensities -----


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16", "float32", "float64", "int32"])
def test_voxels_are_counted_by_volume(tmp_path: Path, dtype: str) -> None:
    source = "int8" if dtype == "int8" else "uint8" if dtype == "uint16" else "int16"
    made = make_store(tmp_path, Design(source_dtype=source, dtype=dtype, gaussian_dtype=None))
    found = measure_intensity(Store(made.path))
    assert [volume.volume for volume in found] == ["tomo_0", "tomo_1"]
    for v, volume in enumerate(found):
        voxels = _valid_voxels(made, v).astype(np.float64)
        assert (volume.patches_read, volume.patches) == (5, 5)
        assert (volume.voxels, volume.not_finite) == (voxels.size, 0)
        assert (volume.minimum, volume.maximum) == (voxels.min(), voxels.max())
        assert volume.mean == pytest.approx(voxels.mean(), rel=1e-9)
        assert volume.std == pytest.approx(voxels.std(), rel=1e-9)
        exact = np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize <= 2
        for percentile, value in volume.percentiles.items():
            true = np.percentile(voxels, percentile, method="inverted_cdf")
            assert value == true if exact else abs(value - true) <= 1.0  # whole numbers: one of them is in the bin
        assert volume.below + sum(volume.counts) + volume.above == voxels.size
        if exact:
            assert list(volume.counts) == np.histogram(voxels, volume.edges)[0].tolist()
            assert volume.below == np.count_nonzero(voxels < volume.edges[0])


@pytest.mark.parametrize(("offset", "outlier"), [(0.0, 0.0), (1e5, 0.0), (-3e4, 1e30), (0.0, -1e12)])
def test_neither_an_offset_nor_an_outlier_spoils_a_histogram_of_floats(offset: float, outlier: float) -> None:
    values = np.random.default_rng(0).normal(offset, 2.0, 200_000)
    if outlier:
        values[77] = outlier
    tally = _FloatTally()
    for part in np.array_split(values, 7):
        tally.add(part)
    edges, below = tally.cumulated()
    for value in np.quantile(values, [0.01, 0.1, 0.5, 0.9, 0.99]):
        share = np.interp(value, edges, below) / len(values)
        assert share == pytest.approx(np.mean(values <= value), abs=2e-3)


@settings(max_examples=trials(60))
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_no_bin_is_wider_than_promised(values: list[float]) -> None:
    tally = _FloatTally()
    tally.add(np.array(values))
    edges, below = tally.cumulated()
    assert (np.diff(edges) >= 0).all()
    assert below[-1] == len(values)
    largest = float(np.finfo(np.float32).max)
    for value in values:
        distance = min(abs(value - values[0]), largest)
        k = max(int(np.searchsorted(edges, value, side="right")) - 1, 0)
        assert below[min(k + 1, len(below) - 1)] >= 1
        width = min(edges[min(k + 1, len(edges) - 1)], max(values)) - max(edges[k], min(values))
        assert (
            width <= max(distance / 64, 1e-38, 4 * np.spacing(max(abs(value), abs(values[0])))) or distance == largest
        )


def test_a_volume_of_one_value_and_one_with_nan() -> None:
    tally = _FloatTally()
    tally.add(np.full(10, 3.5, np.float32))
    tally.add(np.array([np.nan, np.inf, 3.5], np.float32))
    assert (tally.voxels, tally.not_finite) == (11, 2)
    assert tally.moments() == (3.5, 3.5, 3.5, 0.0)
    edges, below = tally.cumulated()
    assert edges[0] == 3.5 < edges[-1]
    assert below.tolist() == [0, 11]


def test_nan_alone_has_no_figures(tmp_path: Path) -> None:
    made = make_store(tmp_path, Design(source_dtype="float32", dtype="float32", gaussian_dtype=None))
    store = Store(made.path)
    store.read_image = lambda _, out: out.fill(np.nan)  # type: ignore[method-assign]
    volume = measure_intensity(store)[0]
    assert (volume.voxels, volume.minimum, volume.percentiles, volume.counts) == (0, None, {}, [])
    assert volume.not_finite == _valid_voxels(made, 0).size


def test_clipped_voxels_are_counted(made: Made, figures: StoreStats) -> None:
    for v, volume in enumerate(figures.intensity):
        voxels = _valid_voxels(made, v)
        assert volume.at_ends == (np.mean(voxels == 0), np.mean(voxels == 255))
        assert volume.source_clipped == made.records[v]["scaling"]["clipped_share"]
        assert volume.source_clipped > 0


def test_a_sample_is_spread_over_the_volumes(made: Made) -> None:
    store = Store(made.path)
    found = measure_intensity(store, sample=4, seed=3)
    assert [(v.patches_read, v.patches) for v in found] == [(2, 5), (2, 5)]
    assert found == measure_intensity(store, sample=4, seed=3)
    sizes = {measure_intensity(store, sample=4, seed=seed)[0].mean for seed in range(4)}
    assert len(sizes) > 1
    assert measure_intensity(store, sample=4, every=True) == measure_intensity(store)
    one = measure_intensity(store, sample=2, seed=0)[1]
    assert any(one.mean == pytest.approx(_valid_voxels(made, 1, [i]).mean()) for i in range(10) if i >= 5)


def test_all_and_a_sample_exclude_each_other(made: Made) -> None:
    with pytest.raises(UsageError, match="either a sample or --all"):
        stats(made.path, sample=4, every=True)


def test_a_damaged_patch_gives_no_figures(made: Made, tmp_path: Path) -> None:
    store = copy_of(made, tmp_path)
    flip(store / "image/c/0/0/0/0", 100)
    with pytest.raises(CorruptionError, match="crc32c"):
        stats(store)


# ----- folds -----


def test_folds_are_counted(made: Made, figures: StoreStats) -> None:
    columns, size = made.columns, made.layout.patch_shape
    assert list(figures.folds) == [0, 1]
    for fold, counts in figures.folds.items():
        mine = [i for i in range(made.layout.n_patches) if columns["patches/fold"][i] == fold]
        inside, empty = {"motor": 0, "ribosome": 0}, 0
        for i in mine:
            before = sum(inside.values())
            for row in range(columns["patches/keypoint_offsets"][i], columns["patches/keypoint_offsets"][i + 1]):
                point = columns["keypoints/local_rs_coords"][row]
                if all(-0.5 <= point[k] < size[k] - 0.5 for k in range(3)):
                    inside[("motor", "ribosome")[columns["keypoints/class_index"][row]]] += 1
            empty += sum(inside.values()) == before
        assert (counts.patches, counts.volumes, counts.empty) == (len(mine), 1, empty)
        assert counts.keypoints == inside
        assert counts.kinds["centered"] == sum(columns["patches/kind"][i] == 0 for i in mine)
        annotated = columns["annotations/class_index"][columns["annotations/volume_index"] == fold]
        assert counts.annotations == {"motor": sum(annotated == 0), "ribosome": sum(annotated == 1)}


# ----- borders -----


def test_distances_to_the_border(made: Made, figures: StoreStats) -> None:
    columns, size = made.columns, made.layout.patch_shape
    sigma = np.array([0.75, 0.5, 1.0]) * made.layout.ds_factor
    voxels, sigmas = [], []
    for point in columns["keypoints/local_rs_coords"]:
        to_faces = [(point[k] + 0.5, size[k] - 0.5 - point[k]) for k in range(3)]
        if all(a >= 0 and b > 0 for a, b in to_faces):
            voxels.append(min(map(min, to_faces)))
            sigmas.append(min(min(pair) / sigma[k] for k, pair in enumerate(to_faces)))
    borders = figures.borders
    assert borders.keypoints == len(voxels) == sum(borders.counts)
    assert borders.voxels[0.0] == pytest.approx(min(voxels))
    assert borders.voxels[1.0] == pytest.approx(max(voxels))
    assert borders.voxels[0.5] == pytest.approx(float(np.median(voxels)))
    assert borders.edges[-1] == min(size) / 2
    for near, share in borders.nearer_than.items():
        assert share == pytest.approx(sum(s < near for s in sigmas) / len(sigmas))


# ----- coverage -----


def test_every_annotation_in_no_patch_is_named(made: Made, figures: StoreStats) -> None:
    columns, size = made.columns, np.array(made.layout.patch_shape)
    expected = []
    for row, point in enumerate(columns["annotations/coords"]):
        same = columns["patches/volume_index"] == columns["annotations/volume_index"][row]
        local = point - columns["patches/origin"][same]
        if not ((local >= -0.5) & (local < size - 0.5)).all(axis=1).any():
            expected.append(row)
    assert [lost.row for lost in figures.uncovered] == expected
    assert 0 < len(expected) < len(columns["annotations/coords"])
    for lost in figures.uncovered:
        assert lost.coords == tuple(columns["annotations/coords"][lost.row])
        assert lost.volume == f"tomo_{columns['annotations/volume_index'][lost.row]}"
        assert lost.class_name == ("motor", "ribosome")[columns["annotations/class_index"][lost.row]]
        assert lost.source == ("first.csv", "second.csv")[columns["annotations/source_index"][lost.row]]
        assert lost.source_row == columns["annotations/source_row"][lost.row]
        assert lost.in_reach == (lost.row in columns["keypoints/annotation_index"])
    assert sum(counts.in_no_patch for counts in figures.classes.values()) == len(expected)


def test_overlap_is_counted_voxel_by_voxel(made: Made, figures: StoreStats) -> None:
    for v, overlap in enumerate(figures.overlap):
        depth = np.zeros(made.volumes[v].shape, int)
        boxes = []
        for i in np.flatnonzero(made.columns["patches/volume_index"] == v):
            origin = made.columns["patches/origin"][i]
            voxels = {(axis, o + k) for axis, o in enumerate(origin) for k in range(made.layout.patch_shape[axis])}
            index = [[k for k in range(n) if (axis, k) in voxels] for axis, n in enumerate(depth.shape)]
            depth[np.ix_(*index)] += 1
            boxes.append([set(part) for part in index])
        pairs = sum(all(a & b for a, b in zip(p, q, strict=True)) for p, q in itertools.combinations(boxes, 2))
        assert (overlap.patches, overlap.pairs) == (5, pairs)
        assert (overlap.covered, overlap.shared) == (np.count_nonzero(depth), np.count_nonzero(depth > 1))
        assert overlap.volume_voxels == depth.size
        assert overlap.covered_share == pytest.approx(np.mean(depth > 0))
    assert any(overlap.shared for overlap in figures.overlap)


_corner = st.tuples(*[st.integers(0, 7)] * 3)


@settings(max_examples=trials(60))
@given(st.lists(st.tuples(_corner, st.tuples(*[st.integers(0, 6)] * 3)), max_size=7))
def test_boxes_are_counted_like_painted_voxels(drawn: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    boxes = np.array([(a, np.add(a, n)) for a, n in drawn], np.int64).reshape(-1, 2, 3)
    depth, masks = np.zeros((14, 14, 14), int), []
    for start, stop in boxes:
        mask = np.zeros(depth.shape, bool)
        mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
        depth += mask
        masks.append(mask)
    assert count_voxels(boxes) == (np.count_nonzero(depth), np.count_nonzero(depth > 1))
    assert count_pairs(boxes) == sum((a & b).any() for a, b in itertools.combinations(masks, 2))


def test_sizes_beyond_any_memory_are_counted_by_their_edges() -> None:
    side = 10**6
    boxes = np.array([[(0, 0, 0), (side,) * 3], [(side - 1,) * 3, (2 * side,) * 3]])
    assert count_voxels(boxes) == (side**3 + (side + 1) ** 3 - 1, 1)


# ----- time and bytes -----


def test_times_are_medians_of_what_there_is(made: Made, figures: StoreStats, tmp_path: Path) -> None:
    timing = figures.timing
    assert (timing.patches, timing.rounds) == (10, 3)
    assert timing.read_gaussian is not None
    assert min(timing.read_gaussian, timing.render_gaussian, timing.read_image) > 0
    bare = stats(make_store(tmp_path, Design(gaussian_dtype=None)).path)
    assert bare.timing.read_gaussian is None
    assert bare.savings.steps[1].target == 0


def test_the_steps_lead_from_the_sources_to_the_disk(made: Made, figures: StoreStats) -> None:
    steps = {step.name: step for step in figures.savings.steps}
    voxels = made.layout.n_patches * 16 * 32 * 24
    assert list(steps) == ["sources", "gaussian", "dtype", "codec", "tables"]
    assert (steps["sources"].image, steps["sources"].target) == (2 * voxels, 2 * voxels * 4)  # int16; two classes
    assert (steps["gaussian"].image, steps["gaussian"].target) == (2 * voxels, 2 * voxels * 4 // (4 * 8 * 4))
    assert (steps["dtype"].image, steps["dtype"].target) == (voxels, steps["gaussian"].target)
    shards = [sum(p.stat().st_size for p in (made.path / name / "c").rglob("*") if p.is_file()) for name in
              ("image", "gaussian")]  # fmt: skip
    assert [steps["codec"].image, steps["codec"].target] == shards
    assert steps["tables"].total == figures.on_disk


def test_memory_is_compared_patch_by_patch(figures: StoreStats) -> None:
    memory = figures.memory
    for full in figures.full_gaussian:
        ours = memory.image + memory.gaussian + memory.keypoints
        expected = (memory.image + 2 * 16 * 32 * 24 * np.dtype(full.dtype).itemsize) / ours
        assert full.ratio_in_memory == pytest.approx(expected)


def test_a_volume_without_a_dtype_is_named(made: Made, tmp_path: Path) -> None:
    store = copy_of(made, tmp_path)
    record = store / "volumes/zarr.json"
    record.write_text(record.read_text().replace('"dtype": "int16"', '"dtype": "what"', 1))
    with pytest.raises(OSError, match="expected a dtype for each volume, found 'what'"):
        stats(store)


def test_a_patch_far_outside_its_volume_is_no_voxel(made: Made, tmp_path: Path) -> None:
    store = copy_of(made, tmp_path)
    for path in ("patches/valid_start", "patches/valid_stop"):
        edit_table(store, path, lambda values: values.__setitem__(0, 0))
    edit_attributes(store, lambda attributes: attributes)
    assert stats(store).intensity[0].voxels < _valid_voxels(made, 0).size
