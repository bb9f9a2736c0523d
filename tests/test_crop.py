"""Patches against slices of the whole volume, padded by numpy or by an index formula."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.trials import trials

from keypatch.converters.crop import PADDINGS, cut
from keypatch.converters.scaling import Scaling, measure
from keypatch.errors import FormatError
from keypatch.formats.volumes import Volume, VolumeInfo


class InMemory(Volume):
    """A volume that gives a read-only view, as a memory map would, and remembers the boxes that were read."""

    info: Any = None

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.boxes: list[Any] = []
        self.info = VolumeInfo(Path("volume.mrc"), "memory", values.shape, values.dtype, (1.0, 1.0, 1.0), "region")

    def read(self, start, stop) -> np.ndarray:
        assert all(0 <= a < b <= n for a, b, n in zip(start, stop, self.values.shape, strict=True))
        assert all(type(n) is int for n in (*start, *stop))
        self.boxes.append((start, stop))
        view = self.values[tuple(map(slice, start, stop))]
        view.flags.writeable = False
        return view

    def close(self) -> None: ...


def cast(values: np.ndarray) -> Scaling:
    return Scaling(values.dtype.name)


shapes = st.tuples(*[st.integers(1, 7)] * 3)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A volume's shape and a patch that touches it, often larger than the volume or beginning before it."""
    volume, patch = draw(shapes), draw(shapes)
    origin = tuple(draw(st.integers(1 - p, v - 1)) for p, v in zip(patch, volume, strict=True))
    return volume, patch, origin


def whole_padded(values: np.ndarray, patch: tuple[int, ...], origin: tuple[int, ...], **mode: Any) -> np.ndarray:
    """numpy pads the whole volume by a patch on every side; the patch is then a slice."""
    padded = np.pad(values, [(p, p) for p in patch], **mode)
    return padded[tuple(slice(o + p, o + 2 * p) for o, p in zip(origin, patch, strict=True))]


def valid_part(values: np.ndarray, patch: tuple[int, ...], origin: tuple[int, ...]) -> np.ndarray:
    return values[tuple(slice(max(o, 0), o + p) for o, p in zip(origin, patch, strict=True))]


@given(boxes(), st.sampled_from(["uint8", "int16", "float32"]), st.integers(0, 3))
def test_zero_and_edge_are_numpys_pad_of_the_whole_volume(box, dtype, seed) -> None:
    volume, patch, origin = box
    values = np.random.default_rng(seed).integers(1, 100, volume).astype(dtype)
    for padding, mode in (("zero", "constant"), ("edge", "edge"), ("inside", "constant")):
        found = cut(InMemory(values), origin, patch, scaling=cast(values), padding=padding)
        assert found.dtype == dtype
        assert found.flags.c_contiguous
        assert found.flags.writeable
        assert np.array_equal(found, whole_padded(values, patch, origin, mode=mode)), padding


@given(boxes(), st.integers(0, 3))
def test_mean_is_that_of_the_patchs_own_voxels(box, seed) -> None:
    volume, patch, origin = box
    for dtype, low, high in (("uint8", 0, 256), ("int16", -300, 300)):
        values = np.random.default_rng(seed).integers(low, high, volume).astype(dtype)
        valid = valid_part(values, patch, origin)
        mean = Fraction(int(valid.astype(object).sum()), valid.size)
        expected = whole_padded(
            values, patch, origin, mode="constant", constant_values=math.floor(mean + Fraction(1, 2))
        )
        found = cut(InMemory(values), origin, patch, scaling=cast(values), padding="mean")
        assert np.array_equal(found, expected)


@given(boxes(), st.integers(0, 3))
def test_mean_of_floats(box, seed) -> None:
    volume, patch, origin = box
    values = np.random.default_rng(seed).normal(50, 20, volume).astype(np.float32)
    mean = np.float32(
        math.fsum(valid_part(values, patch, origin).ravel().tolist()) / valid_part(values, patch, origin).size
    )
    found = cut(InMemory(values), origin, patch, scaling=cast(values), padding="mean")
    expected = whole_padded(values, patch, origin, mode="constant", constant_values=mean)
    np.testing.assert_allclose(found, expected, rtol=2e-7)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "uint32"])
def test_mean_of_the_largest_integers(dtype) -> None:
    """Their sum is beyond 64 bits."""
    limits = np.iinfo(dtype)
    for value in (limits.max, limits.max - 1, limits.min):
        values = np.full((4, 5, 6), value, dtype)
        found = cut(InMemory(values), (-2, 0, 0), (4, 5, 6), scaling=cast(values), padding="mean")
        assert (found == value).all()


def mirror(i: int, n: int) -> int:
    """Index i, reflected at the outermost of n voxels, without repeating them, as often as it takes."""
    if n == 1:
        return 0
    i %= 2 * (n - 1)
    return min(i, 2 * (n - 1) - i)


@given(boxes())
def test_reflect_mirrors_the_patchs_own_voxels(box) -> None:
    volume, patch, origin = box
    values = np.arange(math.prod(volume), dtype=np.int32).reshape(volume)
    valid = valid_part(values, patch, origin)
    picks = [[mirror(i - max(-o, 0), n) for i in range(p)] for o, p, n in zip(origin, patch, valid.shape, strict=True)]
    found = cut(InMemory(values), origin, patch, scaling=cast(values), padding="reflect")
    assert np.array_equal(found, valid[np.ix_(*picks)])


@settings(max_examples=trials(60))
@given(st.tuples(*[st.integers(4, 9)] * 3), st.tuples(*[st.integers(-2, 2)] * 3))
def test_reflect_is_numpys_where_enough_of_the_patch_is_inside(volume, shift) -> None:
    values = np.arange(math.prod(volume), dtype=np.float64).reshape(volume)
    margin = [abs(s) for s in shift]
    assume(all(2 * m < n for m, n in zip(margin, volume, strict=True)))
    found = cut(InMemory(values), shift, volume, scaling=cast(values), padding="reflect")
    assert np.array_equal(found, whole_padded(np.pad(values, 2, "reflect"), volume, tuple(s + 2 for s in shift)))


def test_only_the_box_is_read() -> None:
    volume = InMemory(np.zeros((20, 30, 40), np.uint8))
    cut(volume, (-3, 5, 35), (8, 8, 8), scaling=Scaling("uint8"), padding="zero")
    assert volume.boxes == [((0, 5, 35), (5, 13, 40))]


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_patch_inside_needs_no_padding(padding) -> None:
    values = np.random.default_rng(0).integers(0, 255, (9, 9, 9), np.uint8)
    found = cut(InMemory(values), (2, 3, 4), (4, 5, 5), scaling=cast(values), padding=padding)
    assert np.array_equal(found, values[2:6, 3:8, 4:9])
    found[...] = 0
    assert values.any()  # it is the caller's own


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("origin", [(-4, 0, 0), (0, 9, 0), (0, 0, -100), (9, 9, 9)])
def test_a_patch_that_misses_the_volume(origin, padding) -> None:
    values = np.ones((9, 9, 9), np.uint8)
    with pytest.raises(ValueError, match=r"volume\.mrc: the patch at .* lies outside the volume"):
        cut(InMemory(values), origin, (4, 4, 4), scaling=cast(values), padding=padding)


@pytest.mark.parametrize("padding", PADDINGS)
def test_padding_comes_after_scaling(padding) -> None:
    """Zeros are stored zeros, and the mean is that of the stored voxels."""
    values = np.linspace(-5, 3, 4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    scaling = measure("volume.mrc", lambda: [values], np.dtype("uint8"), (0.0, 100.0))
    stored = scaling.apply(values)
    for origin in ((-1, 0, 0), (1, 2, 3)):
        found = cut(InMemory(values), origin, (4, 5, 6), scaling=scaling, padding=padding)
        again = cut(InMemory(stored), origin, (4, 5, 6), scaling=cast(stored), padding=padding)
        assert found.dtype == np.uint8
        assert np.array_equal(found, again)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("percentiles", [None, (0.0, 100.0)])
def test_voxels_that_are_no_numbers(bad, percentiles) -> None:
    values = np.arange(6 * 6 * 6, dtype=np.float32).reshape(6, 6, 6)
    scaling = cast(values)
    if percentiles:
        scaling = measure("volume.mrc", lambda: [values.copy()], np.dtype("uint8"), percentiles)
    values[3, 4, 5] = bad
    place = r"volume\.mrc, voxels z\[2:6\] y\[2:6\] x\[2:6\]: expected finite voxels, found 1 NaN or infinite ones"
    with pytest.raises(FormatError, match=place):
        cut(InMemory(values), (2, 2, 2), (4, 4, 4), scaling=scaling, padding="zero")
    assert cut(InMemory(values), (0, 0, 0), (3, 3, 3), scaling=scaling, padding="zero").shape == (3, 3, 3)


def test_voxels_that_the_dtype_does_not_hold() -> None:
    values = np.zeros((6, 6, 6))
    values[5, 5, 5] = 1e300
    with pytest.raises(FormatError, match=r"z\[2:6\] .*expected values that float32 holds.*choose a wider --dtype"):
        cut(InMemory(values), (2, 2, 2), (4, 4, 4), scaling=Scaling("float32"), padding="zero")
