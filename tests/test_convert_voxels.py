"""Voxels from a volume to a stored patch: scaling and padding against plain numpy, over all dtypes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store_truth import crop

from keypatch.converters.crop import PADDINGS, cut
from keypatch.converters.recipe import Recipe
from keypatch.converters.scaling import STORABLE, Scaling, check_range, measure, needs_range, resolve_dtype
from keypatch.errors import FormatError, UsageError
from keypatch.formats.volumes.base import Volume, VolumeInfo

INTEGERS = [name for name in STORABLE if np.dtype(name).kind in "iu"]
FLOATS = [name for name in STORABLE if np.dtype(name).kind == "f"]


class InMemory(Volume):
    info = None

    def __init__(self, array):
        self.array = array
        self.info = VolumeInfo(Path("memory"), "memory", array.shape, array.dtype, None, "region")

    def read(self, start, stop):
        return self.array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]


@st.composite
def arrays(draw, dtypes=STORABLE):
    """Small volumes with the extremes of their dtype among the values."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype.kind == "f":
        array = (rng.normal(0, 1, shape) * draw(st.sampled_from([1e-3, 1, 1e3]))).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        array = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        array.flat[0], array.flat[-1] = limits.min, limits.max
    return array


@st.composite
def boxes(draw, shape):
    """A patch that shares at least one voxel with the volume."""
    patch = tuple(draw(st.integers(1, 14)) for _ in range(3))
    origin = tuple(draw(st.integers(1 - p, n - 1)) for p, n in zip(patch, shape, strict=True))
    return np.array(origin), np.array(patch)


@given(st.data(), arrays(), st.sampled_from(PADDINGS))
def test_a_patch_is_the_volume_where_it_lies_in_it_and_its_padding_elsewhere(data, array, padding):
    origin, patch = data.draw(boxes(array.shape))
    found = cut(InMemory(array), origin.tolist(), tuple(patch), scaling=Scaling(array.dtype.name), padding=padding)
    expected = crop(array, origin, patch, "zero" if padding == "inside" else padding)
    assert found.dtype == array.dtype
    assert found.flags.c_contiguous
    if padding == "mean" and array.dtype.kind == "f":
        rtol = {2: 1e-3, 4: 1e-6, 8: 1e-12}[array.dtype.itemsize]
        np.testing.assert_allclose(found, expected.astype(array.dtype), rtol=rtol, atol=1e-7)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", [name for name in INTEGERS if np.dtype(name).itemsize == 8])
@pytest.mark.parametrize("extreme", ["min", "max"])
def test_the_mean_of_64_bit_integers_does_not_overflow(name, extreme):
    value = getattr(np.iinfo(name), extreme)
    array = np.full((3, 3, 3), value, name)
    found = cut(InMemory(array), (-1, 0, 0), (3, 3, 3), scaling=Scaling(name), padding="mean")
    assert (found == value).all()


def slabs(array, n):
    return lambda: iter(np.array_split(array, min(n, len(array))))


percentiles = st.tuples(st.floats(0, 49), st.floats(51, 100))


@given(
    arrays(),
    st.sampled_from([d for d in STORABLE if np.dtype(d).itemsize < 8 or d == "float64"]),
    percentiles,
    st.integers(1, 4),
)
def test_percentiles_become_the_extremes_of_the_dtype(array, stored, pair, n_slabs):
    stored = np.dtype(stored)
    low, high = (float(v) for v in np.percentile(array, pair, method="inverted_cdf"))
    if not low < high:
        with pytest.raises(FormatError, match="different values at the percentiles"):
            measure("volume", slabs(array, n_slabs), stored, pair)
        return
    scaling = measure("volume", slabs(array, n_slabs), stored, pair)
    assert (scaling.low, scaling.high) == (low, high)
    outside = np.count_nonzero((array.astype(float) < low) | (array.astype(float) > high))
    assert scaling.clipped_share == pytest.approx(outside / array.size, abs=1e-15)
    found = scaling.apply(array).astype(np.float64)
    least, most = (0.0, 1.0) if stored.kind == "f" else (float(np.iinfo(stored).min), float(np.iinfo(stored).max))
    exact = least + (np.clip(array.astype(np.float64), low, high) - low) / (high - low) * (most - least)
    if stored.kind == "f":
        np.testing.assert_allclose(found, exact, rtol=2 * float(np.finfo(stored).eps), atol=1e-7)
    else:
        assert np.abs(found - exact).max() <= 0.5 + 1e-6 * (most - least) / 2**16
        assert (found.min(), found.max()) == (least, most)


@pytest.mark.parametrize("stored", ["int64", "uint64"])
def test_a_map_onto_64_bit_integers_is_refused(stored):
    with pytest.raises(UsageError, match="at most 32 bits"):
        check_range(np.dtype("float32"), np.dtype(stored), None)
    with pytest.raises(UsageError, match="at most 32 bits"):
        check_range(np.dtype("uint8"), np.dtype(stored), (1.0, 99.0))
    check_range(np.dtype("uint8"), np.dtype(stored), None)


@given(arrays(), st.sampled_from(STORABLE))
def test_a_cast_without_percentiles_keeps_every_value_or_is_a_map(array, name):
    stored = np.dtype(name)
    if needs_range(array.dtype, stored, None):
        assert stored.kind != "f"
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if stored == np.float16 and np.abs(array.astype(np.float64)).max() > 65519:
            with pytest.raises(ValueError, match="beyond the range"):
                Scaling(name).apply(array)
            return
        found = Scaling(name).apply(array)
    if np.can_cast(array.dtype, stored, "safe"):
        np.testing.assert_array_equal(found, array)
    else:
        np.testing.assert_allclose(
            found.astype(np.longdouble), array.astype(np.longdouble), rtol=float(np.finfo(stored).eps), atol=1e-7
        )


def test_what_a_plain_cast_cannot_hold_names_volume_and_box():
    array = np.full((4, 4, 4), 1e6, np.float32)
    with pytest.raises(FormatError, match=r"memory, voxels z\[1:3\] y\[0:2\] x\[2:4\].*float16"):
        cut(InMemory(array), (1, 0, 2), (2, 2, 2), scaling=Scaling("float16"), padding="zero")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_voxel_that_is_no_number_stops_both_ways(value, dtype):
    array = np.zeros((4, 4, 4), dtype)
    array[1, 2, 3] = value
    with pytest.raises(FormatError, match="1 NaN or infinite"):
        cut(InMemory(array), (0, 0, 0), (4, 4, 4), scaling=Scaling(dtype), padding="zero")
    with pytest.raises(FormatError, match="1 NaN or infinite"):
        measure("volume", slabs(array, 1), np.dtype("uint8"), (1, 99))
    cut(InMemory(array), (2, 0, 0), (2, 4, 4), scaling=Scaling(dtype), padding="zero")


def test_a_dtype_that_cannot_be_stored_is_wrong_usage():
    with pytest.raises(UsageError, match="--dtype"):
        resolve_dtype("source", np.dtype("complex64"))
    with pytest.raises(UsageError, match="--dtype"):
        Recipe.from_mapping({"volumes": ["v"], "annotations": ["a"], "dtype": "bool"})


@given(arrays(["float32"]), percentiles)
def test_a_scaling_is_the_same_after_its_trip_through_json(array, pair):
    if not np.ptp(array):
        return
    try:
        scaling = measure("volume", slabs(array, 1), np.dtype("int16"), pair)
    except FormatError:
        return
    assert Scaling.from_json(scaling.to_json() | {"from a newer minor version": 1}) == scaling
