"""Percentiles against numpy, and the map from source voxels to stored ones and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.trials import trials

from keypatch.converters.scaling import STORABLE, Scaling, check_range, measure, needs_range, resolve_dtype
from keypatch.errors import FormatError, UsageError

SOURCES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64", "uint64", "int64")
QUANTISED = ("uint8", "int8", "uint16", "int16", "uint32", "int32")


def measured(values: np.ndarray, stored: str, percentiles: tuple[float, float], cuts: Sequence[int] = ()) -> Scaling:
    blocks = np.split(values.reshape(-1, 1, 1), sorted(cuts))
    return measure("volume.mrc", lambda: iter(blocks), np.dtype(stored), percentiles)


@st.composite
def volumes(draw: st.DrawFn, dtypes: tuple[str, ...] = SOURCES) -> np.ndarray:
    """Voxels of any dtype: wide, narrow, with many equal ones, with both zeros."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    if dtype.kind == "f":
        # squares and ranges of the largest float64 are beyond float64 itself; they have their own test
        limit = min(float(np.finfo(dtype).max), 1e300)
        elements: st.SearchStrategy[Any] = st.floats(-limit, limit, width=8 * dtype.itemsize)  # type: ignore[arg-type]
        elements |= st.sampled_from([0.0, -0.0, 1.0, -1.0])
    else:
        elements = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) | st.integers(0, 3)
    return draw(hnp.arrays(dtype, st.integers(1, 200), elements=elements))


percents = st.one_of(st.integers(0, 100).map(float), st.floats(0, 100), st.sampled_from([0.1, 0.5, 1.0, 99.0, 99.9]))


@settings(max_examples=trials(150))
@given(volumes(), st.tuples(percents, percents).map(sorted).map(tuple), st.data())
def test_percentiles_are_numpys_in_any_blocks(values, percentiles, data) -> None:
    """numpy's ``inverted_cdf`` over the whole, however the volume is cut into blocks; and the share outside."""
    expected = [np.sort(values)[max(int(np.ceil(q / 100 * values.size)), 1) - 1] for q in percentiles]
    exact = values.astype(np.float64) if values.dtype.kind == "f" else values
    assert expected == [np.percentile(exact, q, method="inverted_cdf") for q in percentiles]
    cuts = data.draw(st.lists(st.integers(0, values.size), max_size=4))
    if not float(expected[0]) < float(expected[1]):
        with pytest.raises(FormatError, match=r"volume\.mrc: expected different values at the percentiles"):
            measured(values, "uint8", percentiles, cuts)
        return
    scaling = measured(values, "uint8", percentiles, cuts)
    assert (scaling.low, scaling.high) == (float(expected[0]), float(expected[1]))
    assert scaling.percentiles == percentiles
    outside = np.count_nonzero((values < expected[0]) | (values > expected[1]))
    assert scaling.clipped_share == outside / values.size


@settings(max_examples=trials(100))
@given(
    volumes(("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32")), st.sampled_from(QUANTISED)
)
def test_back_within_half_a_step(values, stored) -> None:
    """Of what lies between the percentiles; the rest comes back as the nearer of the two."""
    if values.min() == values.max():
        return
    scaling = measured(values, stored, (0.0, 100.0))
    mapped = scaling.apply(values.reshape(-1, 1, 1)).reshape(-1)
    assert mapped.dtype == stored
    source = values.astype(np.float64)
    back = mapped * scaling.scale + scaling.offset
    ulp = 4 * np.spacing(max(abs(scaling.low), abs(scaling.high), abs(scaling.offset)))  # what float64 itself rounds
    assert np.abs(back - source).max() <= scaling.scale / 2 + ulp
    order = np.argsort(source, kind="stable")
    assert (np.diff(mapped[order].astype(np.int64)) >= 0).all()


@pytest.mark.parametrize("stored", QUANTISED)
@pytest.mark.parametrize("source", SOURCES)
def test_an_integer_dtype_is_filled_from_end_to_end(source, stored) -> None:
    values = (np.arange(101) % 101).astype(source)
    scaling = measured(values, stored, (10.0, 90.0))
    assert (scaling.low, scaling.high) == (10, 90)
    assert scaling.clipped_share == pytest.approx(20 / 101)
    mapped = scaling.apply(values.reshape(-1, 1, 1)).reshape(-1)
    limits = np.iinfo(stored)
    assert (mapped[:11] == limits.min).all()
    assert (mapped[90:] == limits.max).all()
    assert limits.min < mapped[50] < limits.max


@pytest.mark.parametrize("stored", ["float16", "float32", "float64"])
def test_floats_map_to_0_and_1(stored) -> None:
    values = np.arange(101, dtype=np.float32)
    scaling = measured(values, stored, (10.0, 90.0))
    mapped = scaling.apply(values.reshape(-1, 1, 1)).reshape(-1)
    assert mapped.dtype == stored
    np.testing.assert_allclose(mapped, np.clip((values - 10) / 80, 0, 1), rtol=1e-3 if stored == "float16" else 1e-7)


EXTREMES = [
    # a wide float of which a narrow range is mapped: rounding must not carry a voxel past the dtype's last value
    (np.array([1e16, 1e16 + 2, 1e16 + 4]), "int8"),
    (np.array([-1e16, -1e16 + 4]), "int16"),
    (np.array([1e6, 1e6 + 1], np.float32), "int32"),
    (np.array([1e6, 1e6 + 1], np.float32), "uint32"),
    (np.array([16777215, 16777216], np.float32), "uint32"),
    (np.array([0.1, 0.3]), "int32"),
    (np.array([-(2**63), 2**63 - 1]), "int32"),
    (np.array([-(2**63), 2**63 - 1]), "uint8"),
    (np.array([0, 2**64 - 1], np.uint64), "int8"),
    (np.array([-128, 127], np.int8), "uint32"),
    (np.array([5e-324, 1e-310]), "uint8"),
]


@pytest.mark.parametrize(("values", "stored"), EXTREMES)
def test_extremes_do_not_wrap_around(values, stored) -> None:
    scaling = measured(values, stored, (0.0, 100.0))
    mapped = scaling.apply(values.reshape(-1, 1, 1)).reshape(-1).astype(np.int64)
    limits, steps = np.iinfo(stored), 2 * np.spacing(np.abs(values.astype(np.float64)).max()) / scaling.scale + 1
    assert abs(mapped[0] - limits.min) <= steps
    assert abs(mapped[-1] - limits.max) <= steps
    assert (np.diff(mapped) >= 0).all()


@pytest.mark.parametrize("stored", ["uint8", "float32"])
@pytest.mark.parametrize("values", [[-1e308, 1.7e308], [0.0, 5e-324]])
def test_a_range_that_no_float64_holds(values, stored) -> None:
    if stored == "float32" and values[0] == 0.0:
        return  # the step is the range itself, which float64 holds
    with pytest.raises(FormatError, match=r"volume\.mrc: expected a range that float64 can divide"):
        measured(np.array(values), stored, (0.0, 100.0))


def test_the_two_zeros_are_one_value() -> None:
    """-0.0 sorts before 0.0 by its bits, but no voxel that equals `low` is clipped."""
    values = np.array([-0.0] * 50 + [0.0] * 40 + [1.0] * 10, np.float32)
    scaling = measured(values, "uint8", (60.0, 95.0))
    assert (scaling.low, scaling.high, scaling.clipped_share) == (0.0, 1.0, 0.0)
    assert json.dumps(measured(-values, "uint8", (0.0, 60.0)).to_json()["high"]) == "0.0"


@pytest.mark.parametrize("dtype", SOURCES)
def test_a_constant_volume(dtype) -> None:
    with pytest.raises(FormatError, match="found 7 at both; widen --clip-percentiles or store the source's dtype"):
        measured(np.full(9, 7, dtype), "uint8", (0.1, 99.9))


def test_a_volume_of_mostly_one_value() -> None:
    values = np.zeros(100_000, np.float32)
    values[:50] = 1
    with pytest.raises(FormatError, match=r"different values at the percentiles 0\.1 and 99\.9"):
        measured(values, "uint8", (0.1, 99.9))
    assert measured(values, "uint8", (0.0, 100.0)).high == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_voxels_that_are_no_numbers(dtype, bad) -> None:
    values = np.arange(30, dtype=dtype)
    values[[3, 17]] = bad
    with pytest.raises(FormatError, match=r"volume\.mrc: expected finite voxels, found 2 NaN or infinite ones"):
        measured(values, "uint8", (0.0, 100.0))


def test_strided_and_read_only_blocks() -> None:
    values = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    view = np.asfortranarray(values)[:, ::-1]
    view.flags.writeable = False
    found = measure("x", lambda: [view[:3], view[3:]], np.dtype("uint8"), (1.0, 99.0))
    assert found == measured(values, "uint8", (1.0, 99.0))
    assert np.array_equal(found.apply(view), found.apply(values)[:, ::-1])
    assert found.apply(view).flags.c_contiguous


# A plain cast


@pytest.mark.parametrize("dtype", SOURCES)
def test_a_cast_to_the_same_dtype_changes_nothing(dtype) -> None:
    info = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    values = np.array([info.min, 0, 1, info.max], dtype).reshape(2, 1, 2)
    stored = Scaling(dtype).apply(values)
    assert stored.dtype == dtype
    assert stored is not values
    assert np.array_equal(stored, values)


@pytest.mark.parametrize(
    ("source", "stored"),
    [
        ("float64", "float32"),
        *((source, "float16") for source in ("float64", "float32", "uint16", "int64", "uint64", "uint32")),
    ],
)
def test_a_cast_that_would_make_infinity(source, stored) -> None:
    largest = np.finfo(source).max if source.startswith("float") else np.iinfo(source).max
    values = np.zeros((3, 4, 50), source)
    assert (Scaling(stored).apply(values) == 0).all()
    values[2, 3, 49] = largest
    with pytest.raises(ValueError, match=f"values beyond the range of {stored}"):
        Scaling(stored).apply(values)


def test_dtypes_by_name() -> None:
    assert resolve_dtype("source", np.dtype(">i2")) == np.dtype("int16")
    assert [resolve_dtype(name, np.dtype("u1")).name for name in STORABLE] == list(STORABLE)
    for name in ("bool", "complex64", "uint", "float", "u1", "", "SOURCE"):
        with pytest.raises(UsageError, match="--dtype"):
            resolve_dtype(name, np.dtype("u1"))
    with pytest.raises(UsageError, match="--dtype"):
        resolve_dtype("source", np.dtype("complex64"))


@pytest.mark.parametrize(
    ("source", "stored", "percentiles", "expected"),
    [
        ("uint8", "uint8", None, False),
        ("uint8", "int16", None, False),
        ("uint8", "int8", None, True),
        ("int8", "uint8", None, True),
        ("uint16", "int16", None, True),
        ("float32", "uint8", None, True),
        ("float32", "int64", None, True),
        ("float32", "float16", None, False),
        ("int16", "float16", None, False),
        ("uint8", "uint8", (1, 99), True),
        ("float32", "float32", (1, 99), True),
    ],
)
def test_when_a_range_is_needed(source, stored, percentiles, expected) -> None:
    assert needs_range(np.dtype(source), np.dtype(stored), percentiles) is expected


def test_a_range_does_not_go_onto_64_bit_integers() -> None:
    for stored in ("int64", "uint64"):
        with pytest.raises(UsageError, match="at most 32 bits"):
            check_range(np.dtype("float32"), np.dtype(stored), None)
        check_range(np.dtype("uint32"), np.dtype(stored), None)
    check_range(np.dtype("float32"), np.dtype("int32"), None)
    check_range(np.dtype("float32"), np.dtype("float64"), (1, 99))


# In the store


@given(volumes(), st.sampled_from(STORABLE))
def test_to_json_and_back(values, stored) -> None:
    plain = Scaling(stored)
    assert Scaling.from_json(json.loads(json.dumps(plain.to_json()))) == plain
    if np.float64(values.min()) < np.float64(values.max()) and np.dtype(stored).itemsize < 8:
        try:
            scaling = measured(values, stored, (0.0, 100.0))
        except FormatError:
            return
        text = json.dumps(scaling.to_json(), allow_nan=False)
        assert Scaling.from_json(json.loads(text)) == scaling
        newer = json.loads(text) | {"mood": 1}
        assert Scaling.from_json(newer) == scaling


def test_the_words_of_the_schema() -> None:
    keys = {"dtype", "scale", "offset", "low", "high", "percentiles", "clipped_share"}
    assert set(Scaling("uint8").to_json()) == keys
    plain = Scaling("uint8").to_json()
    assert plain == {"dtype": "uint8", "scale": 1.0, "offset": 0.0} | dict.fromkeys(
        ("low", "high", "percentiles", "clipped_share")
    )
