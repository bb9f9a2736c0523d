"""Which patches a data set takes, and how often each is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stores import Design, make_store
from tests.trials import trials

import keypatch
from keypatch.augment.balance import NOTHING, epoch_order, patch_weights
from keypatch.augment.selection import Selection, select
from keypatch.errors import StoreError, UsageError
from keypatch.formats.store.schema import KINDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def store(folder) -> keypatch.Store:
    return keypatch.open(make_store(folder / "one").path)


@pytest.fixture(scope="module")
def other(folder) -> keypatch.Store:
    """With the same classes in another order, and one more."""
    return keypatch.open(make_store(folder / "other", Design(seed=1, classes=("ribosome", "proteasome", "motor"))).path)


# ----- which patches -----


def test_all_of_a_store(store) -> None:
    selection = select(store)
    assert selection.classes == store.classes
    assert selection.patch.tolist() == list(range(len(store)))
    assert [selection.kinds[k] for k in selection.kind] == [patch.kind for patch in store]
    for i, patch in enumerate(store):
        inside = ((patch.local_rs_coords >= -0.5) & (patch.local_rs_coords < np.array(store.patch_shape) - 0.5)).all(1)
        expected = [bool((inside & (patch.class_index == c)).any()) for c in range(2)]
        assert selection.holds[i].tolist() == expected


def test_filters(store) -> None:
    kinds = [patch.kind for patch in store]
    folds = [patch.fold for patch in store]
    assert select(store, kinds="centered").patch.tolist() == [i for i, kind in enumerate(kinds) if kind == "centered"]
    assert select(store.path, folds=1).patch.tolist() == [i for i, fold in enumerate(folds) if fold == 1]
    both = select(store, kinds=["grid", "centered"], folds=(0,))
    assert both.patch.tolist() == [i for i, fold in enumerate(folds) if fold == 0]
    holding = select(store, holding="motor")
    assert holding.patch.tolist() == np.flatnonzero(select(store).holds[:, 0]).tolist()
    assert 0 < len(holding) < len(store)


def test_stores_one_after_the_other(store) -> None:
    two = select([store.path, store])
    assert two.store.tolist() == [0] * len(store) + [1] * len(store)
    assert two.patch.tolist() == list(range(len(store))) * 2


def test_classes_of_mixed_stores_by_name(store, other) -> None:
    chosen = select([store, other], classes=["ribosome", "motor"])
    assert chosen.classes == ("ribosome", "motor")
    assert [mapped.tolist() for mapped in chosen.channels] == [[1, 0], [0, -1, 1]]
    merged = select([store, other], classes={"motor": "machine", "proteasome": "machine", "ribosome": None})
    assert merged.classes == ("machine",)
    assert [mapped.tolist() for mapped in merged.channels] == [[0, -1], [-1, 0, 0]]


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"kinds": "center"}, "kinds: expected some of centered, multi, .*, found center"),
        ({"kinds": []}, "kinds: expected some of .*, found none|selection"),
        ({"folds": 7}, "folds: expected some of 0, 1, found 7"),
        ({"holding": "membrane"}, "holding: expected some of motor, ribosome, found membrane"),
        ({"classes": ["membrane"]}, "classes: expected some of motor, ribosome, found membrane"),
        ({"classes": []}, "classes: expected at least one channel, found none"),
        ({"classes": "motor"}, "a list or a mapping of names, found 'motor'"),
        ({"classes": {"motor": "m"}}, "a name for every class, found none for ribosome; map what is to be left out"),
        ({"classes": {"motor": None, "ribosome": None}}, "at least one channel"),
        (
            {"kinds": "multi"},
            r"at least one patch, found none with kinds 'multi' among 6 centered, 4 grid in folds 0, 1",
        ),
    ],
)
def test_selections_that_cannot_be(store, settings_, message) -> None:
    with pytest.raises(UsageError, match=message):
        select(store, **settings_)


def test_stores_that_cannot_be(store, other, tmp_path) -> None:
    with pytest.raises(UsageError, match="at least one store, found none"):
        select([])
    with pytest.raises(UsageError, match=r"same classes in the same order.*proteasome.*name the channels"):
        select([store, other])
    with pytest.raises(StoreError, match="a keypatch store"):
        select(tmp_path)


# ----- how often -----


def selection_of(kind: list[int], holds: list[list[int]]) -> Selection:
    n = len(kind)
    zeros = np.zeros(n, np.int64)
    names = tuple("abc"[: len(holds[0])])
    return Selection((), names, KINDS, (), zeros, np.arange(n), np.array(kind), np.array(holds, bool))


def test_kinds_alike_whatever_their_numbers() -> None:
    chosen = selection_of([0, 3, 3, 3], [[1], [0], [0], [0]])
    np.testing.assert_allclose(patch_weights(chosen), [1 / 2, 1 / 6, 1 / 6, 1 / 6])
    np.testing.assert_allclose(patch_weights(chosen, kinds={"centered": 1, "negative": 3}), [1 / 4] * 4)
    np.testing.assert_allclose(patch_weights(chosen, kinds={"negative": 1}), [0, 1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(patch_weights(chosen, kinds=None, classes=None), [1 / 4] * 4)


def test_classes_alike_within_a_kind() -> None:
    """Three patches hold a, one holds b, one both."""
    chosen = selection_of([0] * 5, [[1, 0], [1, 0], [1, 0], [0, 1], [1, 1]])
    np.testing.assert_allclose(patch_weights(chosen), [1 / 8, 1 / 8, 1 / 8, 1 / 4, 3 / 8])
    by_name = patch_weights(chosen, classes={"b": 1})
    np.testing.assert_allclose(by_name, [0, 0, 0, 1 / 2, 1 / 2])


def test_patches_that_hold_nothing_are_a_class() -> None:
    chosen = selection_of([4] * 4, [[1], [0], [0], [0]])
    np.testing.assert_allclose(patch_weights(chosen), [1 / 2, 1 / 6, 1 / 6, 1 / 6])
    np.testing.assert_allclose(patch_weights(chosen, classes={"a": 1, NOTHING: 3}), [1 / 4] * 4)
    np.testing.assert_allclose(patch_weights(chosen, classes={"a": 1}), [1, 0, 0, 0])


@settings(max_examples=trials(60))
@given(st.lists(st.tuples(st.integers(0, 4), *[st.integers(0, 1)] * 3), min_size=1, max_size=30))
def test_shares_add_up(rows) -> None:
    kind, holds = np.array([row[0] for row in rows]), np.array([row[1:] for row in rows], bool)
    weights = patch_weights(selection_of(kind.tolist(), holds.tolist()))
    assert np.isclose(weights.sum(), 1)
    assert (weights > 0).all()
    there = np.unique(kind)
    for k in there:
        assert np.isclose(weights[kind == k].sum(), 1 / len(there))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"kinds": {"center": 1}}, 'kinds: expected "equal", or numbers for some of centered, '),
        ({"kinds": "even"}, "found 'even'"),
        ({"kinds": {"centered": -1}}, "finite numbers from 0"),
        ({"kinds": {"centered": float("nan")}}, "finite numbers from 0"),
        ({"kinds": {"multi": 1}}, "no patch of multi"),
        ({"kinds": {"centered": 0}}, "a patch that can be drawn"),
        ({"kinds": {"negative": 1}, "classes": {"a": 1}}, "a patch that can be drawn"),
        ({"classes": {"z": 1}}, "classes: expected"),
    ],
)
def test_shares_that_cannot_be(settings_, message) -> None:
    with pytest.raises(UsageError, match=message):
        patch_weights(selection_of([0, 3], [[1], [0]]), **settings_)


def test_an_epoch_is_drawn_from_seed_and_epoch_alone() -> None:
    weights = np.array([0.7, 0.2, 0.1])
    order, turns = epoch_order(weights, 5000, seed=3, epoch=2)
    again, _ = epoch_order(weights, 5000, seed=3, epoch=2)
    assert np.array_equal(order, again)
    assert not np.array_equal(order, epoch_order(weights, 5000, seed=3, epoch=3)[0])
    assert not np.array_equal(order, epoch_order(weights, 5000, seed=4, epoch=2)[0])
    np.testing.assert_allclose(np.bincount(order) / 5000, weights, atol=0.03)
    seen: dict[int, int] = {}
    for index, turn in zip(order.tolist(), turns.tolist(), strict=True):
        assert turn == seen.get(index, 0)
        seen[index] = turn + 1
