"""Peaks of heatmaps: exact for a sampled Gaussian, wherever its centre lies, and honest about the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from keypatch import gaussian
from keypatch.errors import UsageError
from keypatch.peaks import find_peaks


def sampled(center, sigma, grid, height=1.0):
    """The formula itself, in float64, sharing nothing with the renderer."""
    axes = np.ogrid[tuple(slice(0, n) for n in grid)]
    square = sum(((axis - c) / s) ** 2 for axis, c, s in zip(axes, center, sigma, strict=True))
    return height * np.exp(-0.5 * square)[None]


grids = st.tuples(*[st.integers(3, 9)] * 3)
sigmas = st.tuples(*[st.floats(0.5, 2.5)] * 3)
fractions = st.tuples(*[st.floats(0, 1)] * 3)


def placed(fraction, grid):
    """A point of the box [-0.5, n - 0.5), its border included."""
    return np.array([f * n - 0.5 for f, n in zip(fraction, grid, strict=True)])


@given(grids, sigmas, fractions, st.floats(0.4, 1.5))
def test_a_sampled_gaussian_gives_its_centre_and_height_back(grid, sigma, fraction, height):
    center = placed(fraction, grid)
    peaks = find_peaks(sampled(center, sigma, grid, height), sigma=sigma)
    assert len(peaks) == 1
    assert_allclose(peaks.local_ds[0], center, atol=1e-6)
    assert_allclose(peaks.score, height, rtol=1e-6)
    assert peaks.value[0] <= height * (1 + 1e-12)


@given(grids, st.tuples(*[st.floats(0.7, 2.5)] * 3), fractions)
def test_so_does_one_of_unknown_sigma(grid, sigma, fraction):
    center = placed(fraction, grid)
    values = sampled(center, sigma, grid)
    assume(values.max() > 0.31)
    peaks = find_peaks(values, sigma=None)
    assert len(peaks) == 1
    assert_allclose(peaks.local_ds[0], center, atol=1e-4)
    assert_allclose(peaks.score, 1.0, rtol=1e-4)


def test_a_turned_gaussian_is_found_without_its_covariance():
    rng = np.random.default_rng(3)
    for _ in range(20):
        turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        covariance = turn @ np.diag(rng.uniform(0.8, 2, 3) ** 2) @ turn.T
        center = rng.uniform(2, 7, 3)
        values = gaussian.render_covariance([center], [0], n_classes=1, grid=(10, 10, 10), covariance=covariance)
        peaks = find_peaks(values, sigma=None)
        assert_allclose(peaks.local_ds[0], center, atol=1e-4)


def test_a_covariance_that_is_known_needs_no_fit():
    """Also at the border, where half of the samples are missing, and beside another point."""
    rng = np.random.default_rng(4)
    for _ in range(20):
        turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        covariance = turn @ np.diag(rng.uniform(0.8, 1.6, 3) ** 2) @ turn.T
        centers = [(*rng.uniform(-0.4, 2, 2), 1.2), (*rng.uniform(6, 9, 2), 8.3)]
        values = gaussian.render_covariance(centers, [0, 0], n_classes=1, grid=(10, 10, 10), covariance=covariance)
        peaks = find_peaks(values, sigma=None, covariance=covariance)
        assert len(peaks) == 2
        for center in centers:
            assert np.abs(peaks.local_ds - center).max(axis=1).min() < 1e-4
        assert_allclose(peaks.score, 1, rtol=1e-4)


def test_the_flank_of_a_gaussian_outside_is_no_peak():
    """A long one that lies askew shows maxima along its flank, whose Gaussian would be higher than they allow."""
    covariance = np.diag([0.47, 1.15, 1.82]) ** 2
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    covariance = turn @ covariance @ turn.T
    for center in np.random.default_rng(1).uniform(-5, 10, (200, 3)):
        values = gaussian.render_covariance([center], [0], n_classes=1, grid=(6, 6, 6), covariance=covariance)
        peaks = find_peaks(values, sigma=None, covariance=covariance)
        inside = ((peaks.local_ds > -0.5) & (peaks.local_ds < 5.5)).all(axis=1)
        assert np.abs(peaks.local_ds[inside] - center).max(initial=0) < 0.05


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_storing_it_costs_little(dtype):
    rng = np.random.default_rng(0)
    allowed = {np.float32: 1e-4, np.float16: 0.02}[dtype]
    for _ in range(100):
        grid, sigma = rng.integers(3, 12, 3), rng.uniform(0.5, 2, 3)
        center = rng.uniform(-0.5, grid - 0.5)
        peaks = find_peaks(sampled(center, sigma, grid).astype(dtype), sigma=sigma)
        assert len(peaks) == 1
        assert np.abs(peaks.local_ds[0] - center).max() < allowed


@pytest.mark.parametrize("seed", range(40))
def test_points_of_one_class_are_told_apart(seed):
    """From 3 coarse voxels and 4 sigmas on, though the maximum of both cuts into the samples of each."""
    rng = np.random.default_rng(seed)
    grid, sigma = np.array((12, 13, 14)), rng.uniform(0.7, 1.6, 3)
    centers = [rng.uniform(-0.5, grid - 0.5)]
    for other in rng.uniform(-0.5, grid - 0.5, (40, 3)):
        apart = np.abs(other - np.array(centers))
        if (apart.max(axis=1) > 3).all() and (np.linalg.norm(apart / sigma, axis=1) > 4).all():
            centers.append(other)
    assert len(centers) > 2
    target = gaussian.render(centers, [0] * len(centers), n_classes=1, grid=grid, sigma=sigma)
    peaks = find_peaks(target, sigma=sigma)
    assert len(peaks) == len(centers)
    for center in centers:
        assert np.abs(peaks.local_ds - center).max(axis=1).min() < 1e-3
    assert_allclose(peaks.score, 1, atol=2e-3)


@pytest.mark.parametrize("is_askew", [False, True])
def test_gaussians_outside_make_no_peak_inside(is_askew):
    """Where the tails of two of them meet at the border stands a maximum that is of neither."""
    rng = np.random.default_rng(8)
    for _ in range(60):
        grid, sigma = rng.integers(5, 8, 3), rng.uniform(0.7, 1.5, 3)
        turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] if is_askew else np.eye(3)
        covariance = turn @ np.diag(sigma**2) @ turn.T
        centers = np.zeros((0, 3))
        for other in rng.uniform(-3, grid + 2, (12, 3)):
            if (np.linalg.norm(np.linalg.solve(turn * sigma, (other - centers).T), axis=0) > 4).all():
                centers = np.vstack([centers, other])
        classes = np.zeros(len(centers), int)
        values = gaussian.render_covariance(centers, classes, n_classes=1, grid=grid, covariance=covariance)
        peaks = find_peaks(values, sigma=None, covariance=covariance)
        found, wanted = (p[((p > -0.5) & (p < grid - 0.5)).all(axis=1)] for p in (peaks.local_ds, centers))
        assert len(found) == len(wanted)
        for center in wanted:
            assert np.abs(found - center).max(axis=1).min() < 0.02


def test_a_centre_between_eight_voxels_is_one_peak():
    peaks = find_peaks(sampled((1.5, 2.5, 3.5), (1, 1, 1), (6, 6, 8)), sigma=1.0)
    assert len(peaks) == 1
    assert_allclose(peaks.local_ds[0], (1.5, 2.5, 3.5), atol=1e-9)
    assert_allclose(peaks.score, 1.0)
    assert_allclose(peaks.value, np.exp(-0.375))


def test_classes_are_apart_and_scores_fall():
    target = np.concatenate(
        [
            sampled((2, 2, 2), (1, 1, 1), (8, 8, 8), 0.5) + sampled((6, 6, 6), (0.6, 0.6, 0.6), (8, 8, 8), 0.9),
            np.zeros((1, 8, 8, 8)),
            sampled((2, 2, 2), (1, 1, 1), (8, 8, 8), 0.8),
        ]
    )
    peaks = find_peaks(target, sigma=1.0)
    assert peaks.class_index.tolist() == [0, 0, 2]
    assert peaks.class_index.dtype == np.int32
    assert peaks.score[0] > peaks.score[1]


def test_the_threshold_is_of_the_height_not_of_the_sample():
    """With sigma 0.6 the sample between eight voxels is 0.35 of the height."""
    values = sampled((2.5, 2.5, 2.5), (0.6, 0.6, 0.6), (6, 6, 6))
    assert values.max() < 0.36
    assert len(find_peaks(values, sigma=0.6, threshold=0.99)) == 1
    assert len(find_peaks(values, sigma=0.6, threshold=1.01)) == 0


def test_noise_moves_a_peak_little():
    """A sixteenth of a coarse voxel is one voxel."""
    rng = np.random.default_rng(0)
    off = []
    for _ in range(200):
        center = rng.uniform(1, 7, 3)
        noisy = sampled(center, (1, 1, 1), (9, 9, 9)) + rng.normal(0, 0.03, (1, 9, 9, 9))
        peaks = find_peaks(noisy, sigma=1.0)
        assert len(peaks) == 1
        off.append(np.abs(peaks.local_ds[0] - center))
    assert np.mean(off) < 1 / 16


@pytest.mark.parametrize("sigma", [1.0, None])
def test_what_is_no_gaussian_stays_near_its_voxel(sigma):
    spike, flat, saddle = np.zeros((1, 5, 5, 5)), np.full((1, 5, 5, 5), 0.5), -np.ones((1, 5, 5, 5))
    spike[0, 2, 3, 1] = 0.7
    saddle[0, 2, 2, 1:4] = 0.9
    peaks = find_peaks(spike, sigma=sigma)
    assert_allclose(peaks.local_ds, [(2, 3, 1)], atol=1e-3)
    assert_allclose(peaks.score, 0.7, rtol=1e-3)
    assert np.isfinite(find_peaks(flat, sigma=sigma).local_ds).all()
    assert len(find_peaks(saddle, sigma=sigma)) >= 1
    assert len(find_peaks(np.zeros((2, 5, 5, 5)), sigma=sigma)) == 0


def test_an_axis_of_one_voxel_says_nothing_of_where():
    peaks = find_peaks(sampled((0.0, 2.3, 2.0), (1, 1, 1), (1, 5, 2)), sigma=1.0)
    assert_allclose(peaks.local_ds[0], (0, 2.3, 2.0), atol=1e-6)


@pytest.mark.parametrize(
    ("heatmap", "options", "words"),
    [
        (np.zeros((4, 4, 4)), {"sigma": 1}, "(C, d, h, w)"),
        (np.zeros((0, 4, 4, 4)), {"sigma": 1}, "(C, d, h, w)"),
        (np.full((1, 4, 4, 4), "a"), {"sigma": 1}, "<U1"),
        (np.full((1, 4, 4, 4), np.nan), {"sigma": 1}, "64 others"),
        (np.zeros((1, 4, 4, 4)), {"sigma": 0}, "above 0"),
        (np.zeros((1, 4, 4, 4)), {"sigma": (1, 2)}, "one number or three"),
        (np.zeros((1, 4, 4, 4)), {"sigma": np.nan}, "above 0"),
        (np.zeros((1, 4, 4, 4)), {"sigma": 1, "threshold": 0}, "threshold"),
        (np.zeros((1, 4, 4, 4)), {"sigma": 1, "covariance": np.eye(3)}, "both"),
        (np.zeros((1, 4, 4, 4)), {"sigma": None, "covariance": np.eye(2)}, "(3, 3)"),
        (np.zeros((1, 4, 4, 4)), {"sigma": None, "covariance": -np.eye(3)}, "positive definite"),
        (np.zeros((1, 4, 4, 4)), {"sigma": None, "covariance": np.arange(9).reshape(3, 3)}, "symmetric"),
        (np.zeros((1, 4, 2, 4)), {"sigma": None}, "three voxels an axis"),
    ],
)
def test_what_is_refused(heatmap, options, words):
    with pytest.raises(UsageError) as raised:
        find_peaks(heatmap, **options)
    assert words in str(raised.value)
