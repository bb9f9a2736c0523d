"""Images through maps: against scipy, numpy's flips and pads, and the rule that the compiled code restates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tests.augmented import EVERYTHING, KINDS, maps, seeds
from tests.trials import trials

from keypatch.augment import Geometric, Map
from keypatch.augment import resample as resampling
from keypatch.augment.resample import compiled, resample, resample_window, window_of
from keypatch.errors import UsageError

SCIPY_MODE = {"zero": "grid-constant", "constant": "grid-constant", "edge": "nearest", "reflect": "mirror"}

needs_numba = pytest.mark.skipif(compiled() is None, reason="numba is not installed")


@pytest.fixture
def slow(monkeypatch):
    """As where numba is not installed."""
    monkeypatch.setattr(resampling, "compiled", lambda: None)


def by_scipy(image: np.ndarray, drawn: Map) -> np.ndarray:
    """The same map in scipy's words, in float64."""
    sample = np.indices(drawn.shape, dtype=np.float64).reshape(3, -1).T
    places = drawn.to_patch(sample).T.reshape(3, *drawn.shape)
    mode, fill = SCIPY_MODE[drawn.padding], drawn.fill if drawn.padding == "constant" else 0.0
    return ndimage.map_coordinates(image.astype(np.float64), places, order=drawn.order, mode=mode, cval=fill)


@given(maps(), seeds)
def test_order_1_is_scipys(drawn, seed) -> None:
    assume(drawn.order == 1)
    image = np.random.default_rng(seed).normal(size=drawn.patch_shape)
    np.testing.assert_allclose(resample(image, drawn), by_scipy(image, drawn), atol=1e-9)
    single = image.astype(np.float32)
    np.testing.assert_allclose(resample(single, drawn), by_scipy(single, drawn), atol=4e-6)


@pytest.mark.parametrize("padding", SCIPY_MODE)
def test_order_1_is_scipys_affine_transform(padding) -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(size=(40, 50, 60))
    for settings_ in (EVERYTHING, {**EVERYTHING, "free_rotation": True, "crop": (30, 70, 44)}):
        drawn = Geometric(**settings_, padding=padding, fill=3).draw(rng, image.shape)
        expected = ndimage.affine_transform(
            image,
            drawn.matrix[:3, :3],
            drawn.matrix[:3, 3],
            drawn.shape,
            order=1,
            mode=SCIPY_MODE[padding],
            cval=3.0 if padding == "constant" else 0.0,
        )
        np.testing.assert_allclose(resample(image, drawn), expected, atol=1e-9)


@given(maps(), seeds)
def test_order_0_takes_a_nearest_voxel(drawn, seed) -> None:
    assume(drawn.order == 0)
    image = np.random.default_rng(seed).integers(0, 200, drawn.patch_shape).astype(np.uint8)
    found = resample(image, drawn)
    assert set(np.unique(found)) <= {*np.unique(image).tolist(), 7 if drawn.padding == "constant" else 0}
    sample = np.indices(drawn.shape, dtype=np.float64).reshape(3, -1).T
    places = drawn.to_patch(sample)
    inside = np.all((places >= 0) & (places <= np.array(drawn.patch_shape) - 1), axis=1)
    # Between two voxels, either may be called the nearest.
    clear = inside & np.all(np.abs(places - np.floor(places) - 0.5) > 1e-9, axis=1)
    z, y, x = np.rint(places[clear]).astype(int).T
    assert np.array_equal(found.ravel()[clear], image[z, y, x])


@needs_numba
@settings(max_examples=trials(200))
@given(maps(), seeds, st.sampled_from(["uint8", "int16", "float16", "float32", "int32"]))
def test_compiled_code_gives_the_bits_of_the_rule(drawn, seed, dtype) -> None:
    image = (np.random.default_rng(seed).normal(size=drawn.patch_shape) * 30 + 100).astype(dtype)
    fast = np.array(resample(image, drawn))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "compiled", lambda: None)
        slow = resample(image, drawn)
    assert np.array_equal(fast, slow)
    assert fast.dtype == slow.dtype == np.dtype(dtype)


@given(maps(), seeds)
def test_a_window_is_all_that_a_map_needs(drawn, seed) -> None:
    image = np.random.default_rng(seed).normal(size=drawn.patch_shape).astype(np.float32)
    start, shape = window_of(drawn)
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    window = image[box].copy()
    assert window.shape == shape
    assert np.array_equal(resample_window(window, start, drawn), resample(image, drawn))


def test_a_small_crop_needs_a_small_window() -> None:
    drawn = Geometric(crop=(16, 16, 16), rotate=180).draw(np.random.default_rng(0), (100, 100, 100))
    assert max(window_of(drawn)[1]) <= 16 * np.sqrt(2) + 3


@pytest.mark.parametrize("name", ["flip", "half_turn", "rot90", "cube", "crop", "crop beyond"])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "complex64", "bool"])
@pytest.mark.parametrize("padding", SCIPY_MODE)
def test_flips_turns_and_crops_copy_voxels_of_any_dtype(name, dtype, padding) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 2**40, (60, 60, 60)).astype(dtype)
    for _ in range(4):
        drawn = Geometric(**KINDS[name], padding=padding).draw(rng, image.shape)
        assert drawn.is_exact
        found = resample(image, drawn)
        wide = [(20, 20)] * 3
        mode = {"zero": "constant", "constant": "constant"}.get(padding, padding)
        padded = np.pad(image, wide, mode=mode)
        places = drawn.to_patch(np.indices(drawn.shape).reshape(3, -1).T).astype(int) + 20
        assert np.array_equal(found.ravel(), padded[tuple(places.T)])
        assert found.flags.c_contiguous
        assert not np.shares_memory(found, image)


def test_whole_shifts_are_exact() -> None:
    image = np.random.default_rng(0).normal(size=(8, 9, 10)).astype(np.float32)
    matrix = np.eye(4)
    matrix[:3, 3] = 3, -20, 0
    for padding in ("zero", "edge", "reflect", "constant"):
        drawn = Map(matrix, (8, 9, 10), (8, 9, 10), padding=padding, fill=2.5)
        assert drawn.is_exact
        np.testing.assert_allclose(resample(image, drawn), by_scipy(image, drawn), atol=1e-6)


def test_flips_twice_are_the_identity() -> None:
    image = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    for seed in range(8):
        flip = Geometric(flip="zyx").draw(np.random.default_rng(seed), image.shape)
        assert np.array_equal(resample(resample(image, flip), flip), image)
        assert np.array_equal(flip.matrix @ flip.matrix, np.eye(4))


def test_a_map_and_its_inverse_return_a_smooth_image() -> None:
    z, y, x = np.indices((40, 44, 48)) / 8
    image = np.sin(z) * np.cos(y) * np.sin(x + 1)
    rng = np.random.default_rng(0)
    drawn = Geometric(**{**EVERYTHING, "rot90": False}, padding="edge").draw(rng, image.shape)
    back = Map(drawn.inverse, image.shape, image.shape, padding="edge")
    middle = (slice(14, -14),) * 3
    np.testing.assert_allclose(resample(resample(image, drawn), back)[middle], image[middle], atol=0.02)


def test_integers_are_rounded_to_the_nearest_and_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    for dtype in ("uint8", "int16", "int32"):
        limits = np.iinfo(dtype)
        image = rng.choice(np.array([limits.min, limits.max, 0], dtype), (12, 12, 12))
        drawn = Geometric(**EVERYTHING, padding="reflect").draw(rng, image.shape)
        expected = by_scipy(image, drawn)
        assert np.abs(resample(image, drawn) - expected).max() <= 0.5 + 1e-6 * (limits.max - float(limits.min))


def test_a_recycled_image_is_not_one_that_is_still_held() -> None:
    image = np.zeros((128, 300, 300), np.float32)
    shift = np.eye(4)
    shift[:3, 3] = 0.5
    drawn = Map(shift, image.shape, image.shape, padding="edge")
    held = [resample(image + k, drawn) for k in range(4)]
    assert [float(part.max()) for part in held] == [0, 1, 2, 3]


def test_bytes_may_lie_the_other_way_round() -> None:
    image = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    shift = np.eye(4)
    shift[:3, 3] = 0.5
    drawn = Map(shift, image.shape, image.shape)
    assert np.array_equal(resample(image.astype(">f4"), drawn), resample(image, drawn))


def test_it_can_write_into_an_array() -> None:
    drawn = Geometric(**EVERYTHING).draw(np.random.default_rng(0), (6, 7, 8))
    image, out = np.ones((6, 7, 8), np.float32), np.empty(drawn.shape, np.float32)
    assert resample(image, drawn, out) is out
    with pytest.raises(ValueError, match="out of shape"):
        resample(image, drawn, np.empty((1, 2, 3), np.float32))
    with pytest.raises(ValueError, match="dtype float32"):
        resample(image, drawn, np.empty(drawn.shape, np.float64))


# What cannot be

TURN = Geometric(rotate=180).draw(np.random.default_rng(0), (6, 6, 6))


@pytest.mark.parametrize("dtype", ["int64", "uint64", "bool", "complex64", "longdouble"])
def test_a_dtype_that_cannot_be_interpolated(dtype) -> None:
    if np.dtype(dtype) == np.float64:
        pytest.skip("long double is float64 here")
    with pytest.raises(UsageError, match=f"can be interpolated, found {np.dtype(dtype).name}; use only flips"):
        resample(np.ones((6, 6, 6), dtype), TURN)


@pytest.mark.parametrize(
    ("dtype", "fill"), [("uint8", -1), ("uint8", 256), ("int16", 0.5), ("uint8", np.nan), ("float16", 1e6)]
)
def test_a_fill_value_that_the_dtype_does_not_hold(dtype, fill) -> None:
    drawn = Map(TURN.matrix, (6, 6, 6), (6, 6, 6), padding="constant", fill=fill)
    with pytest.raises(UsageError, match=f"a value that {dtype} holds"):
        resample(np.ones((6, 6, 6), dtype), drawn)


def test_nan_may_lie_outside_of_floats() -> None:
    matrix = np.eye(4)
    matrix[0, 3] = 2.5
    drawn = Map(matrix, (6, 6, 6), (6, 6, 6), padding="constant", fill=np.nan)
    found = resample(np.ones((6, 6, 6), np.float32), drawn)
    assert np.isnan(found[3:]).all()
    assert np.array_equal(found[:3], np.ones((3, 6, 6)))


def test_a_window_outside_of_the_patch_without_padding() -> None:
    inside = np.diag([0.5, 0.5, 0.5, 1.0])
    assert resample(np.ones((6, 6, 6), np.float32), Map(inside, (11, 11, 11), (6, 6, 6), padding="none")).min() == 1
    for offset in (-0.01, 0.01):
        matrix = inside.copy()
        matrix[1, 3] = offset
        with pytest.raises(UsageError, match=r"lies inside of the patch.*choose a padding"):
            window_of(Map(matrix, (11, 11, 11), (6, 6, 6), padding="none"))


def test_an_image_of_another_shape() -> None:
    with pytest.raises(UsageError, match=r"an image of \(6, 6, 6\) voxels, found \(5, 6, 7\)"):
        resample(np.ones((5, 6, 7), np.float32), TURN)


def test_without_numba_it_works(slow) -> None:
    image = np.random.default_rng(0).normal(size=(6, 6, 6))
    np.testing.assert_allclose(resample(image, TURN), by_scipy(image, TURN), atol=1e-12)
