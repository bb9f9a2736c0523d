"""Keypoints and targets through maps: they follow the image, and the target stays its formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.augmented import EVERYTHING, KINDS, blob, centroid, maps, seeds
from tests.trials import trials

from keypatch import gaussian, geometry
from keypatch.augment import Geometric, Keypoints, Map, Sample
from keypatch.augment.reading import mapped
from keypatch.augment.resample import resample
from keypatch.errors import UsageError

SHAPE = (64, 64, 64)
SIGMA = np.full(3, 4.0)


def sample_of(keypoints: Keypoints, drawn: Map) -> Sample:
    image = np.zeros(drawn.shape, np.float32)
    return Sample(image, keypoints, 0, "grid", -1, "v", (1.0, 1.0, 1.0), np.zeros(3, np.int64), drawn)


@pytest.mark.parametrize("padding", ["zero", "constant", "edge", "reflect"])
@pytest.mark.parametrize("name", KINDS)
def test_a_blob_lies_where_its_keypoint_lies(name, padding) -> None:
    """Within 0.1 voxel, mirror images too, over random draws; what is mirrored is counted so that it is tested."""
    rng = np.random.default_rng(sorted(KINDS).index(name))
    geometric = Geometric(**KINDS[name], padding=padding)
    seen = 0
    for _ in range(16):
        drawn = geometric.draw(rng, SHAPE)
        center = rng.uniform(14, 49, 3)
        found = resample(blob(SHAPE, center, 2.5), drawn)
        points = mapped(Keypoints.of([center], [0], [0]), drawn, SIGMA).local_rs
        whole = np.all((points >= 12) & (points <= np.array(drawn.shape) - 13), axis=1)
        for point in points[whole]:
            assert np.abs(centroid(found, point, 11) - point).max() < 0.1
            seen += 1
    assert seen >= 3


def test_a_mirrored_blob_has_a_mirrored_keypoint() -> None:
    """A patch shrunk to a third is surrounded by its mirror images: each blob is seen, each on its point."""
    drawn = Geometric(scale=(0.3, 0.3), crop=(64, 64, 64), padding="reflect").draw(np.random.default_rng(0), SHAPE)
    center = np.array([20.0, 30.0, 44.0])
    found = resample(blob(SHAPE, center, 5.0), drawn)
    points = mapped(Keypoints.of([center], [0], [9]), drawn, SIGMA)
    inside = geometry.inside(points.local_rs, drawn.shape)
    assert inside.sum() >= 27
    assert set(points.annotation_index) == {9}
    drawn_points = gaussian.render(
        points.local_rs, points.class_index, n_classes=1, grid=drawn.shape, sigma=5 * 0.3, dtype=np.float64
    )
    # Every blob of the image has its keypoint, and every keypoint its blob.
    assert np.abs(drawn_points[0] - found).max() < 0.15


def test_a_keypoint_on_a_mirror_has_no_image() -> None:
    shift = np.eye(4)
    shift[0, 3] = -10.5
    drawn = Map(shift, (16, 16, 16), (16, 16, 16), padding="reflect")
    on_it = mapped(Keypoints.of([[0.0, 8, 8]], [0], [0]), drawn, np.full(3, 0.1)).local_rs
    assert on_it.tolist() == [[10.5, 8, 8]]
    off_it = mapped(Keypoints.of([[2.0, 8, 8]], [0], [0]), drawn, np.full(3, 0.1)).local_rs
    assert sorted(off_it.tolist()) == [[8.5, 8, 8], [12.5, 8, 8]]


def test_a_keypoint_that_no_voxel_shows_is_dropped() -> None:
    shift = np.eye(4)
    shift[0, 3] = -10.0
    points = Keypoints.of([[-3, 8, 8], [-12, 8, 8], [8, 8, 8], [-3, -1, 8]], [0, 0, 0, 0], [0, 1, 2, 3])
    for padding in ("zero", "edge", "reflect"):
        drawn = Map(shift, (16, 16, 16), (16, 16, 16), padding=padding)
        kept = mapped(points, drawn, np.full(3, 1.0))
        assert 0 not in kept.annotation_index
        assert {1, 3} <= set(kept.annotation_index.tolist()) or padding == "reflect"
    unseen = mapped(points, Map(shift, (16, 16, 16), (16, 16, 16), keep_unseen=True), np.full(3, 1.0))
    assert sorted(unseen.annotation_index) == [0, 1, 2, 3]


@given(maps(), seeds)
def test_points_go_and_come_back(drawn, seed) -> None:
    points = np.random.default_rng(seed).uniform(-20, 40, (10, 3))
    np.testing.assert_allclose(drawn.to_patch(drawn.to_sample(points)), points, atol=1e-7)
    np.testing.assert_allclose(drawn.to_sample(drawn.to_patch(points)), points, atol=1e-7)


@given(maps(), seeds)
def test_the_linear_part_is_the_derivative(drawn, seed) -> None:
    points = np.random.default_rng(seed).uniform(0, 10, (4, 3))
    step = 1e-4
    sample = drawn.to_sample(points)
    for axis in range(3):
        aside = points + step * np.eye(3)[axis]
        slope = (drawn.to_sample(aside) - sample) / step
        np.testing.assert_allclose(drawn.linear(sample)[:, :, axis], slope, atol=2e-3)


# Targets


@settings(max_examples=trials(60))
@given(st.sampled_from(sorted(KINDS)), seeds, st.sampled_from([1, 2, 4]))
def test_a_target_is_its_formula(name, seed, factor) -> None:
    """Below 1e-6, for every transform: written here voxel by voxel from the moved points."""
    rng = np.random.default_rng(seed)
    drawn = Geometric(**{**KINDS[name], "crop": (8, 12, 16)}).draw(rng, (16, 16, 16))
    local, classes = rng.uniform(0, 15, (5, 3)), rng.integers(0, 3, 5)
    points = mapped(Keypoints.of(local, classes, np.arange(5)), drawn, np.full(3, 2.0))
    points = replace(points, weight=rng.uniform(0, 1, len(points)).astype(np.float32))
    sigma = rng.uniform(0.5, 2, 3)
    found = sample_of(points, drawn).target(3, ds_factor=factor, sigma_ds=sigma)
    expected = np.zeros(found.shape)
    for row, weight in zip(points.annotation_index, points.weight, strict=True):
        place = (drawn.to_sample(local[row])[0] + 0.5) / factor - 0.5
        j = np.stack(np.meshgrid(*map(np.arange, found.shape[1:]), indexing="ij"), -1)
        value = weight * np.exp(-0.5 * (((j - place) / sigma) ** 2).sum(-1))
        expected[classes[row]] = np.maximum(expected[classes[row]], value)
    assert np.abs(found - expected).max() < 1e-6


@given(seeds)
def test_crops_commute_with_the_target(seed) -> None:
    """The target of a crop is the crop of the target, where the crop begins at a coarse voxel."""
    rng = np.random.default_rng(seed)
    local, classes = rng.uniform(-8, 40, (6, 3)), rng.integers(0, 2, 6)
    every = Keypoints.of(local, classes, np.arange(6))
    whole = Map.identity((32, 32, 32))
    begin = rng.integers(0, 5, 3)
    matrix = np.eye(4)
    matrix[:3, 3] = 4 * begin
    crop = Map(matrix, (16, 16, 16), (32, 32, 32))
    wanted = {"ds_factor": 4, "sigma_ds": 1.0}
    full = sample_of(mapped(every, whole, SIGMA), whole).target(2, **wanted)
    part = sample_of(mapped(every, crop, SIGMA), crop).target(2, **wanted)
    z, y, x = (slice(b, b + 4) for b in begin)
    assert np.abs(full[:, z, y, x] - part).max() < 2e-8 + 1e-7


def test_sigma_is_fixed_scaled_or_a_covariance() -> None:
    rng = np.random.default_rng(0)
    point = Keypoints.of([[30.0, 33.0, 31.0]], [0], [0])
    geometric = Geometric(**{**EVERYTHING, "free_rotation": True, "scale": (1.5, 1.5)})
    drawn = geometric.draw(rng, SHAPE)
    sigma_rs, factor = np.array([3.0, 4.0, 5.0]), np.array([2, 4, 2])
    found = {}
    for mode in ("fixed", "scaled", "covariance"):
        keypoints = mapped(point, replace(drawn, sigma=mode), sigma_rs)
        sample = sample_of(keypoints, drawn)
        found[mode] = sample.target(1, ds_factor=factor, sigma_ds=sigma_rs / factor, dtype=np.float64)[0]
    linear = np.linalg.inv(drawn.matrix[:3, :3])
    j = np.stack(np.meshgrid(*map(np.arange, found["fixed"].shape), indexing="ij"), -1)
    place = drawn.to_sample(point.local_rs)[0]
    apart = (j + 0.5) * factor - 0.5 - place

    def expected(covariance: np.ndarray) -> np.ndarray:
        return stats.multivariate_normal(np.zeros(3), covariance).pdf(apart) * np.sqrt(
            np.linalg.det(2 * np.pi * covariance)
        )

    stretched = sigma_rs * np.linalg.norm(linear, axis=1)
    np.testing.assert_allclose(found["fixed"], expected(np.diag(sigma_rs**2)), atol=1e-9)
    np.testing.assert_allclose(found["scaled"], expected(np.diag(stretched**2)), atol=1e-9)
    np.testing.assert_allclose(found["covariance"], expected(linear @ np.diag(sigma_rs**2) @ linear.T), atol=1e-9)


def test_a_covariance_is_what_the_image_shows() -> None:
    """A blob of the target's sigma, drawn into the image and mapped, is the target at factor 1."""
    center, sigma = np.array([31.0, 33.0, 30.0]), np.array([4.0, 5.0, 6.0])
    z, y, x = np.ogrid[:64, :64, :64]
    image = np.exp(-0.5 * sum(((c - m) / s) ** 2 for c, m, s in zip((z, y, x), center, sigma, strict=True)))
    for seed in range(4):
        geometric = Geometric(**{**EVERYTHING, "free_rotation": True}, sigma="covariance", padding="edge")
        drawn = geometric.draw(np.random.default_rng(seed), SHAPE)
        keypoints = mapped(Keypoints.of([center], [0], [0]), drawn, sigma)
        target = sample_of(keypoints, drawn).target(1, ds_factor=1, sigma_ds=sigma)[0]
        assert np.abs(target - resample(image, drawn)).max() < 0.03


def test_mirrors_without_end_are_refused() -> None:
    """They would fill the memory; the smallest scale that can be drawn is no such case."""
    shape = (16, 32, 24)
    points = Keypoints.of([(8, 16, 12)], [0], [0])
    smallest = Geometric(scale=(0.05, 0.05), rotate=180, free_rotation=True, padding="reflect")
    assert len(mapped(points, smallest.draw(np.random.default_rng(0), shape), np.ones(3))) > 1000
    for factor in (1e3, 1e30):
        drawn = Map(np.diag([factor] * 3 + [1.0]), shape, shape, padding="reflect")
        with pytest.raises(UsageError, match=r"at most 131072 mirror images of the patch, found one of .*; take"):
            mapped(points, drawn, np.ones(3))


def test_thousands_of_keypoints_and_none() -> None:
    rng = np.random.default_rng(0)
    drawn = Geometric(**EVERYTHING, padding="reflect").draw(rng, SHAPE)
    many = Keypoints.of(rng.uniform(0, 63, (5000, 3)), rng.integers(0, 3, 5000), np.arange(5000))
    assert len(mapped(many, drawn, SIGMA)) >= 2000
    none = mapped(many.take(np.zeros(0, int)), drawn, SIGMA)
    assert len(none) == 0
    target = sample_of(none, drawn).target(3, ds_factor=8, sigma_ds=1.0)
    assert target.shape == (3, 8, 8, 8)
    assert not target.any()
    far = mapped(Keypoints.of([[1e6, 0, 0]], [0], [0]), drawn, SIGMA)
    assert len(far) == 0
