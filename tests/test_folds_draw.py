"""Random draws that are the same everywhere, and volumes shared out into folds."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keypatch.converters.draw import Draw, stable_order
from keypatch.converters.folds import assign_folds
from keypatch.errors import UsageError

# ----- draws -----


class Pcg64:
    """PCG XSL RR 128/64 in Python's integers, from the paper and numpy's documented seeding."""

    MULTIPLIER = 47026247687942121848144207491837523525

    def __init__(self, seed):
        words = [int(w) for w in np.random.SeedSequence(seed).generate_state(4, np.uint64)]
        start, self.increment = words[0] << 64 | words[1], ((words[2] << 64 | words[3]) << 1 | 1) % 2**128
        self.state = self.increment
        self.state = (self.state + start) % 2**128
        self._step()

    def _step(self):
        self.state = (self.state * self.MULTIPLIER + self.increment) % 2**128

    def word(self):
        self._step()
        value, turn = (self.state >> 64) ^ (self.state % 2**64), self.state >> 122
        return (value >> turn | value << (64 - turn)) % 2**64


@given(
    st.integers(0, 2**70),
    st.lists(st.text(max_size=5), max_size=3),
    st.lists(st.tuples(st.integers(-99, 99), st.integers(0, 2**40)), max_size=5),
)
def test_draws_are_the_top_53_bits_of_a_known_generator(seed, names, spans):
    key = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
    reference, draw = Pcg64(int.from_bytes(key[:16], "little")), Draw(seed, *names)
    for low, span in spans:
        unit = (reference.word() >> 11) / 2**53
        assert int(draw.integers(low, low + span)) == low + int(unit * (span + 1))


@given(st.integers(-(2**50), 2**50), st.integers(0, 2**50), st.integers(0, 99))
def test_both_ends_are_possible_and_nothing_beyond(low, span, seed):
    values = Draw(seed, "x").integers(low, low + span, (200,))
    assert values.min() >= low
    assert values.max() <= low + span


def test_small_ranges_are_uniform():
    values = Draw(0, "x").integers(0, 4, (50_000,))
    counts = np.bincount(values, minlength=5)
    assert len(counts) == 5
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 18.5  # chi square of 4 degrees of freedom, 1 in 1000


def test_bounds_are_broadcast():
    values = Draw(0, "x").integers([-3, 0, 5], [3, 0, 6], (1000, 3))
    assert values.min(axis=0).tolist() == [-3, 0, 5]
    assert values.max(axis=0).tolist() == [3, 0, 6]


def test_other_names_are_other_streams():
    streams = [
        Draw(*key).integers(0, 2**40, (50,)).tolist() for key in [(0, "a", "b"), (0, "a"), (1, "a", "b"), (0, "b", "a")]
    ]
    assert len({tuple(stream) for stream in streams}) == 4
    assert Draw(0, "a", "b").integers(0, 2**40, (50,)).tolist() == streams[0]


@given(st.lists(st.text(max_size=6), unique=True, max_size=12), st.randoms())
def test_a_stable_order_does_not_depend_on_the_order_given(names, random):
    shuffled = random.sample(names, len(names))
    assert [names[i] for i in stable_order(3, names)] == [shuffled[i] for i in stable_order(3, shuffled)]


# ----- folds -----


@st.composite
def counted(draw):
    n_volumes, n_classes = draw(st.integers(2, 12)), draw(st.integers(1, 3))
    rows = st.lists(st.integers(0, 20), min_size=n_classes, max_size=n_classes)
    counts = draw(st.lists(rows, min_size=n_volumes, max_size=n_volumes))
    return [f"v{i}" for i in range(n_volumes)], np.array(counts, np.int64), draw(st.integers(2, n_volumes))


@given(counted(), st.randoms())
def test_folds_do_not_depend_on_the_order_of_volumes_and_none_is_empty(known, random):
    names, counts, n_folds = known
    folds = dict(zip(names, assign_folds(names, counts, n_folds, 5).tolist(), strict=True))
    order = random.sample(range(len(names)), len(names))
    again = assign_folds([names[i] for i in order], counts[order], n_folds, 5).tolist()
    assert dict(zip([names[i] for i in order], again, strict=True)) == folds
    assert set(folds.values()) == set(range(n_folds))


@given(st.integers(2, 60), st.integers(2, 8), st.integers(0, 5))
def test_equal_volumes_are_shared_out_evenly(n_volumes, n_folds, seed):
    n_folds = min(n_folds, n_volumes)
    folds = assign_folds([f"v{i}" for i in range(n_volumes)], np.ones((n_volumes, 2), np.int64), n_folds, seed)
    sizes = np.bincount(folds, minlength=n_folds)
    assert sizes.max() - sizes.min() <= 1


def test_every_class_is_in_every_fold_where_there_is_enough_of_it():
    rng = np.random.default_rng(0)
    counts = rng.poisson([3.0, 0.4, 1.0], (100, 3))
    folds = assign_folds([f"v{i}" for i in range(100)], counts, 5, 0)
    loads = np.array([counts[folds == fold].sum(axis=0) for fold in range(5)])
    assert (loads.max(axis=0) - loads.min(axis=0) <= np.maximum(0.15 * loads.mean(axis=0), 3)).all()
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 6


def test_empty_volumes_are_shared_out_too():
    folds = assign_folds([f"v{i}" for i in range(30)], np.zeros((30, 1), np.int64), 3, 0)
    assert np.bincount(folds).tolist() == [10, 10, 10]


def test_no_folds_is_minus_one():
    folds = assign_folds(["a", "b"], np.zeros((2, 1), np.int64), 0, 0)
    assert folds.tolist() == [-1, -1]
    assert folds.dtype == np.int16


@pytest.mark.parametrize(
    ("n_volumes", "n_folds", "says"), [(2, 3, "2 to 2"), (5, 1, "2 to 5"), (1, 2, "0, with a single volume")]
)
def test_folds_that_cannot_be_are_wrong_usage(n_volumes, n_folds, says):
    with pytest.raises(UsageError, match=f"--folds: expected {says}.*found {n_folds}"):
        assign_folds([f"v{i}" for i in range(n_volumes)], np.ones((n_volumes, 1), np.int64), n_folds, 0)
