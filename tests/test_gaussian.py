"""The Gaussian target against its formula in plain numpy and scipy, and its bytes against recorded ones."""

from __future__ import annotations

import hashlib
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.trials import trials

from keypatch import geometry
from keypatch.gaussian import REACH, exp_reproducible, render


def formula(centers, classes, n_classes, grid, sigma) -> np.ndarray:
    """The definition, one keypoint after the other, in float64 with numpy's exp."""
    j = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).astype(np.float64)
    target = np.zeros((n_classes, *grid))
    for center, c in zip(centers, classes, strict=True):
        exponent = -0.5 * (((j - np.asarray(center)) / np.asarray(sigma)) ** 2).sum(axis=-1)
        target[c] = np.maximum(target[c], np.exp(exponent))
    return target


grids = st.tuples(*[st.integers(1, 8)] * 3)
sigmas = st.tuples(*[st.floats(0.3, 4)] * 3)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, list[int], tuple[int, int, int], tuple[float, float, float]]:
    grid, sigma = draw(grids), draw(sigmas)
    place = st.tuples(*[st.floats(-0.5 - 6 * s, n - 0.5 + 6 * s) for n, s in zip(grid, sigma, strict=True)])
    centers = draw(st.lists(place, max_size=6))
    classes = [draw(st.integers(0, 2)) for _ in centers]
    return np.array(centers).reshape(-1, 3), classes, grid, sigma


@given(scenes())
def test_against_the_formula(scene) -> None:
    """To 1e-12 in float64, and then rounded once: within half a step of the stored dtype."""
    centers, classes, grid, sigma = scene
    expected = formula(centers, classes, 3, grid, sigma)
    exact = render(centers, classes, n_classes=3, grid=grid, sigma=sigma, dtype=np.float64)
    assert exact.shape == (3, *grid)
    np.testing.assert_allclose(exact, expected, rtol=1e-12, atol=1e-300)
    for dtype, step in ((np.float32, 2.0**-24), (np.float16, 2.0**-11)):
        stored = render(centers, classes, n_classes=3, grid=grid, sigma=sigma, dtype=dtype)
        assert stored.dtype == dtype
        assert stored.flags.c_contiguous
        assert np.array_equal(stored, exact.astype(dtype))
        assert np.abs(stored.astype(np.float64) - expected).max(initial=0) <= step


def test_against_scipy() -> None:
    """A normal density, scaled to 1 at its centre, is the same thing."""
    sigma, center, grid = (0.9, 1.4, 2.0), (2.3, 3.1, 1.8), (5, 6, 7)
    density = stats.multivariate_normal(center, np.diag(np.square(sigma)))
    j = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1)
    expected = density.pdf(j) / density.pdf(center)
    found = render([center], [0], n_classes=1, grid=grid, sigma=sigma, dtype=np.float64)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_one_number_is_the_sigma_of_every_axis() -> None:
    one = render([[1.2, 2.3, 3.4]], [0], n_classes=1, grid=(4, 5, 6), sigma=1.5)
    assert np.array_equal(one, render([[1.2, 2.3, 3.4]], [0], n_classes=1, grid=(4, 5, 6), sigma=(1.5, 1.5, 1.5)))


def test_a_peak_between_voxels_is_not_stretched() -> None:
    target = render([[1.5, 1.5, 1.5]], [0], n_classes=1, grid=(4, 4, 4), sigma=1.0)
    assert target.max() == np.float32(np.exp(-0.5 * 3 * 0.25))
    assert render([[1, 2, 3]], [0], n_classes=1, grid=(4, 4, 4), sigma=1.0)[0, 1, 2, 3] == 1


@given(scenes())
def test_the_larger_of_two_counts(scene) -> None:
    """Rendering points together is the maximum of rendering them one by one; order and doubles do not matter."""
    centers, classes, grid, sigma = scene
    settings_ = {"n_classes": 3, "grid": grid, "sigma": sigma}
    together = render(centers, classes, **settings_)
    alone = [render([p], [c], **settings_) for p, c in zip(centers, classes, strict=True)]
    assert np.array_equal(together, np.maximum.reduce([np.zeros_like(together), *alone]))
    assert np.array_equal(together, render(centers[::-1], classes[::-1], **settings_))
    assert np.array_equal(together, render(np.repeat(centers, 2, axis=0), np.repeat(classes, 2), **settings_))


def test_classes_have_their_own_channels() -> None:
    target = render([[1, 1, 1], [2, 2, 2]], [2, 0], n_classes=4, grid=(4, 4, 4), sigma=0.5)
    assert target[2, 1, 1, 1] == target[0, 2, 2, 2] == 1
    assert not target[1].any()
    assert not target[3].any()
    assert target[2, 2, 2, 2] < 0.01


def test_nothing_to_draw() -> None:
    for empty in ([], np.empty((0, 3))):
        target = render(empty, [], n_classes=2, grid=(3, 4, 5), sigma=1.0)
        assert target.shape == (2, 3, 4, 5)
        assert not target.any()
    assert render([], [], n_classes=0, grid=(3, 4, 5), sigma=1.0).shape == (0, 3, 4, 5)


def test_a_point_outside_reaches_in() -> None:
    target = render([[-1.5, 2, 2]], [0], n_classes=1, grid=(4, 5, 5), sigma=1.0)[0]
    assert target[0, 2, 2] == np.float32(np.exp(-1.125))
    assert target.argmax() == np.ravel_multi_index((0, 2, 2), (4, 5, 5))
    far = render([[1e100, -1e100, 0]], [0], n_classes=1, grid=(4, 5, 5), sigma=1.0)
    assert not far.any()


@settings(max_examples=trials(50))
@given(st.lists(st.tuples(*[st.floats(-60, 60)] * 3), max_size=8), grids, sigmas)
def test_what_is_beyond_reach_hardly_counts(coords, grid, sigma) -> None:
    """A patch keeps the points within 6 sigmas of its box. The rest would change the target by under 2e-8 each."""
    points = np.array(coords).reshape(-1, 3)
    kept = geometry.within_reach(points, grid, sigma, REACH)
    classes = np.zeros(len(points), int)
    with_all = render(points, classes, n_classes=1, grid=grid, sigma=sigma, dtype=np.float64)
    with_kept = render(points[kept], classes[kept], n_classes=1, grid=grid, sigma=sigma, dtype=np.float64)
    assert np.abs(with_all - with_kept).max() < 2e-8


@pytest.mark.parametrize(
    ("coords", "classes", "sigma", "message"),
    [
        ([[1, 1, 1]], [0, 0], 1.0, "one class a keypoint, found 2 classes and 1 keypoints"),
        ([[1, 1, 1]], [], 1.0, "one class a keypoint"),
        ([[1, 1, 1]], [2], 1.0, "classes in 0 … 1, found 2 … 2"),
        ([[1, 1, 1]], [-1], 1.0, "classes in 0 … 1, found -1"),
        ([[1, 1, 1]], [0], 0.0, "a sigma above 0"),
        ([[1, 1, 1]], [0], (1, -1, 1), "a sigma above 0"),
        ([[1, 1, 1]], [0], (1, np.nan, 1), "a sigma above 0"),
        ([], [], 0.0, "a sigma above 0"),
        # points given as columns have as many numbers as points given as rows
        ([[1, 2], [3, 4], [5, 6]], [0, 0], 1.0, r"keypoints of shape \(K, 3\), found \(3, 2\)"),
        ([1, 2, 3, 4, 5, 6], [0, 0], 1.0, r"keypoints of shape \(K, 3\), found \(6,\)"),
        ([[1, np.nan, 1]], [0], 1.0, "keypoints that are numbers, found NaN"),
    ],
)
def test_what_cannot_be_drawn(coords, classes, sigma, message) -> None:
    with pytest.raises(ValueError, match=message):
        render(coords, classes, n_classes=2, grid=(4, 4, 4), sigma=sigma)


@pytest.mark.parametrize("k", [25383, 40175, 46423, 64990, 79054, 104303, 110303, 172656, 190547])
def test_float16_is_rounded_once(k) -> None:
    """By way of float32 these values land on the middle between two float16 and go to the farther one."""
    where = {"n_classes": 1, "grid": (1, 1, 1), "sigma": 0.7}
    exact, stored = (
        render([(0, 0, k / 2**18)], [0], **where, dtype=dtype).item() for dtype in (np.float64, np.float16)
    )
    by_float32 = float(np.float16(np.float32(exact)))
    assert stored != by_float32
    assert abs(stored - exact) < abs(by_float32 - exact)


# The exponential

exponents = st.floats(-745.2, 0) | st.floats(-1, 0) | st.floats(-1e-12, 0)


@settings(max_examples=trials(300))
@given(exponents)
def test_exp_within_two_units_in_the_last_place(x) -> None:
    found = float(exp_reproducible(np.array([x]))[0])
    with localcontext(prec=50):
        error = abs(Decimal(found) - Decimal(x).exp()) / Decimal(float(np.spacing(max(found, 2.0**-1022))))
    assert error <= 2


def test_exp_against_numpy() -> None:
    x = -np.concatenate([np.linspace(0, 746, 100_001), np.logspace(-20, 3, 10_001)])
    np.testing.assert_allclose(exp_reproducible(x), np.exp(x), rtol=5e-16, atol=5e-324)


def test_exp_at_the_ends() -> None:
    assert exp_reproducible(np.array([0.0, -0.0])).tolist() == [1, 1]
    assert exp_reproducible(np.array([-745.3, -1e4, -np.inf])).tolist() == [0, 0, 0]
    assert exp_reproducible(np.zeros((2, 0, 3))).shape == (2, 0, 3)
    falling = exp_reproducible(-np.linspace(0, 760, 200_001))
    assert (np.diff(falling) <= 0).all()


FIXED = [
    (0.0, "0x1.0000000000000p+0"),
    (-1e-300, "0x1.0000000000000p+0"),
    (-0.1, "0x1.cf46d99d52b3ap-1"),
    (-0.34657359027997264, "0x1.6a09e667f3bccp-1"),
    (-0.3465735902799727, "0x1.6a09e667f3bccp-1"),
    (-0.5, "0x1.368b2fc6f960ap-1"),
    (-1.0, "0x1.78b56362cef38p-2"),
    (-2.0, "0x1.152aaa3bf81ccp-3"),
    (-3.141592653589793, "0x1.620227b598efap-5"),
    (-4.5, "0x1.6c0504695c418p-7"),
    (-10.0, "0x1.7cd79b5647c9ap-15"),
    (-18.0, "0x1.05a628c699fa1p-26"),
    (-36.7, "0x1.0998b04bdd190p-53"),
    (-100.0, "0x1.a8c1f14e2af5dp-145"),
    (-500.0, "0x1.9265e78d4438dp-722"),
    (-700.5, "0x1.4ff475c68ca02p-1011"),
    (-708.4, "0x0.ff15b469edf89p-1022"),
    (-720.25, "0x0.000077564144fp-1022"),
    (-745.13, "0x0.0000000000001p-1022"),
    (-745.2, "0x0.0p+0"),
    (-746.0, "0x0.0p+0"),
]


@pytest.mark.parametrize(("x", "bits"), FIXED)
def test_exp_has_the_same_bits_everywhere(x, bits) -> None:
    """Recorded once. Several differ in the last bit from the C library's: this is what every machine must give."""
    assert float(exp_reproducible(np.array([x]))[0]).hex() == bits
    inside = exp_reproducible(np.full((3, 5), x))  # whole vectors take other paths through a processor
    assert {value.hex() for value in inside.ravel().tolist()} == {bits}


RECORDED = {
    "float32": "cfffd83d1e6aff8f9642b0a5951e7c92661a5471f4cdaeca3d16e47e15506a5b",
    "float16": "b76178ebdc53693205a29d4096bc4405caa6a2b2abed66baf1971ea1731ecb27",
    "float64": "4ae44228589df475dd0f7b84ab5f3efcb65c93edcb3b1272a80a7c43886a0846",
}


@pytest.mark.parametrize("dtype", RECORDED)
def test_a_target_has_the_same_bytes_everywhere(dtype) -> None:
    """The sha256 of one target, recorded once: another machine or version that gives another one breaks stores."""
    centers = (np.arange(30).reshape(10, 3) * 0.7310585786300049) % 9 - 0.5
    target = render(centers, np.arange(10) % 2, n_classes=2, grid=(6, 7, 8), sigma=(0.8, 1.0, 1.3), dtype=dtype)
    assert hashlib.sha256(target.astype(target.dtype.newbyteorder("<")).tobytes()).hexdigest() == RECORDED[dtype]
