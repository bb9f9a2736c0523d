"""Plans over random volumes, points and recipes, each checked in full against the truth; no voxel is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sources import Truth
from tests.store_truth import KINDS, Tables, assert_tables_are_true
from tests.trials import trials

from keypatch.converters.catalog import Catalog
from keypatch.converters.catalog_volume import CatalogVolume
from keypatch.converters.plan import count_by_kind, plan_catalog
from keypatch.converters.points import Points
from keypatch.converters.recipe import Recipe
from keypatch.errors import UsageError
from keypatch.formats.volumes.base import VolumeInfo

CLASSES = ("a", "b", "c")


def catalog_of(known, classes=CLASSES):
    volumes = []
    for name, one in sorted(known.items()):
        n = len(one.points)
        points = Points(
            coords=np.array(one.points, np.float64).reshape(-1, 3),
            class_index=np.array([classes.index(own) for own in one.names], np.int32),
            source_index=np.zeros(n, np.int32),
            source_row=np.arange(n, dtype=np.int64),
            score=np.full(n, np.nan),
        )
        path = Path(f"{name}.npy")
        info = VolumeInfo(path, "npy", one.array.shape, one.array.dtype, None, "mapped")
        volumes.append(CatalogVolume(name, path, path.name, info, one.spacing, "flag", points))
    return Catalog(tuple(volumes), classes, (), (), (), ())


def recipe_of(**given):
    return Recipe.from_mapping({"volumes": ["v"], "annotations": ["a"], **given})


def tables_of(plan):
    missing = dict.fromkeys(KINDS, 0)
    for entry in plan.left_out:
        if entry.what == "patches":
            missing[next(kind for kind in KINDS if entry.reason.startswith(f"of kind {kind}:"))] += entry.count
    records = [{"id": v.id, "fold": int(f)} for v, f in zip(plan.catalog.volumes, plan.folds, strict=True)]
    return Tables(plan.columns, plan.recipe.to_json(), plan.catalog.classes, records, missing)


def volume(*points, shape=(40, 40, 40), names=None, spacing=(10.0, 10.0, 10.0)):
    array = np.broadcast_to(np.uint8(0), shape)
    return Truth(array, tuple(map(tuple, points)), tuple(names or ["a"] * len(points)), spacing)


@st.composite
def truths(draw):
    """Points on 1/64 of a voxel, so that they hit borders of voxels, patches and reaches exactly."""
    shape = draw(st.tuples(*[st.integers(1, 24)] * 3))
    coordinate = [st.integers(-32, 64 * n - 33).map(lambda k: k / 64) for n in shape]
    labelled = st.tuples(st.tuples(*coordinate), st.sampled_from(CLASSES))
    found = draw(st.lists(labelled, max_size=8, unique=True))
    spacing = draw(st.tuples(*[st.sampled_from([1.0, 8.0, 13.48])] * 3))
    return volume(*[p for p, _ in found], shape=shape, names=[c for _, c in found], spacing=spacing)


@st.composite
def recipes(draw, n_volumes):
    factor = draw(st.tuples(*[st.integers(1, 5)] * 3))
    patch = tuple(f * draw(st.integers(1 if f > 2 else 3, 4)) for f in factor)
    given = {
        "patch_shape": patch,
        "ds_factor": factor,
        "padding": draw(st.sampled_from(["zero", "edge", "inside"])),
        "seed": draw(st.integers(0, 3)),
        "folds": draw(st.sampled_from([0, *range(2, n_volumes + 1)])),
        "centered": draw(st.integers(0, 3)),
        **{kind: draw(st.integers(0, 3)) for kind in ("multi", "hard_negatives", "negatives")},
    }
    name = draw(st.sampled_from(["sigma_ds", "sigma_angstrom"]))
    given[name] = draw(st.tuples(*[st.sampled_from([0.125, 0.5, 1.0, 2.5])] * 3))
    if draw(st.booleans()):
        given["jitter"] = tuple(draw(st.integers(0, (n - 1) // 2)) for n in patch)
    if draw(st.booleans()):
        given["grid"] = tuple(draw(st.integers((n + 1) // 2, n)) for n in patch)
    return given


@settings(max_examples=trials(100), deadline=None)
@given(st.data())
def test_any_plan_follows_from_its_truth(data):
    known = {f"v{i}": data.draw(truths()) for i in range(data.draw(st.integers(1, 3)))}
    given = data.draw(recipes(len(known)))
    try:
        plan = plan_catalog(recipe_of(**given), catalog_of(known))
    except UsageError as error:
        assert any(words in str(error) for words in ("one patch", "copies", "every kind", "--folds"))  # noqa: PT017
        return
    assert_tables_are_true(tables_of(plan), known)
    assert sum(count_by_kind(plan).values()) == plan.layout.n_patches == len(plan.columns["patches/origin"])


@settings(max_examples=trials(60), deadline=None)
@given(st.data())
def test_a_volumes_patches_do_not_depend_on_the_others(data):
    known = {f"v{i}": data.draw(truths()) for i in range(3)}
    given = {**data.draw(recipes(1)), "folds": 0, "padding": "zero", "negatives": 1, "centered": 1, "grid": None}
    try:
        first = plan_catalog(recipe_of(**given), catalog_of({"v1": known["v1"]}))
    except UsageError as error:
        assert "one patch" in str(error)  # noqa: PT017
        return
    whole = plan_catalog(recipe_of(**given), catalog_of(known))
    place = [volume.id for volume in whole.catalog.volumes]
    if "v1" not in place:
        return
    mine = whole.columns["patches/volume_index"] == place.index("v1")
    np.testing.assert_array_equal(whole.columns["patches/origin"][mine], first.columns["patches/origin"])
    np.testing.assert_array_equal(whole.columns["patches/kind"][mine], first.columns["patches/kind"])


@settings(max_examples=trials(60), deadline=None)
@given(truths(), st.data())
def test_a_kinds_patches_do_not_depend_on_the_other_kinds(known, data):
    asked = {"negatives": 2, "hard_negatives": 2, "multi": 2, "centered": 1}
    given = {**data.draw(recipes(1)), "folds": 0, **asked}
    try:
        whole = plan_catalog(recipe_of(**given), catalog_of({"v": known}))
    except UsageError as error:
        assert "one patch" in str(error)  # noqa: PT017
        return
    for k, (kind, name) in enumerate(zip(KINDS, ["centered", "multi", "hard_negatives", "negatives"], strict=False)):
        alone = dict.fromkeys(["centered", "multi", "hard_negatives", "negatives"], 0) | {name: given[name]}
        try:
            only = plan_catalog(recipe_of(**{**given, **alone, "grid": None}), catalog_of({"v": known}))
        except UsageError:
            assert k not in whole.columns["patches/kind"]
            continue
        mine = whole.columns["patches/kind"] == k
        np.testing.assert_array_equal(whole.columns["patches/origin"][mine], only.columns["patches/origin"], kind)


def test_another_seed_draws_others_and_the_same_seed_the_same():
    known = {"v": volume((20, 20, 20))}
    plans = [
        plan_catalog(recipe_of(patch_shape=16, centered=8, seed=seed), catalog_of(known)).columns["patches/origin"]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(plans[0], plans[1])
    assert (plans[0] != plans[2]).any()


def test_the_draws_are_these_on_every_machine_and_with_every_numpy():
    """Written down once: a change here changes every store that anybody has built."""
    known = {"TS_01": volume((20, 20, 20), (22, 19, 25))}
    given = {"patch_shape": 16, "multi": 2, "hard_negatives": 2, "negatives": 2, "seed": 7}
    plan = plan_catalog(recipe_of(**given), catalog_of(known))
    assert plan.columns["patches/origin"].tolist() == RECORDED


RECORDED = [[10, 11, 14], [17, 8, 18], [20, 15, 18], [12, 12, 11], [24, 14, 21], [0, 15, 23], [12, 2, 4], [7, 2, 17]]


@pytest.mark.parametrize("padding", ["zero", "mean", "edge", "reflect"])
def test_a_volume_smaller_than_the_patch_is_padded_and_said(padding):
    known = {"small": volume((3, 3, 3), shape=(8, 40, 40)), "large": volume((3, 3, 3))}
    plan = plan_catalog(recipe_of(patch_shape=16, padding=padding, negatives=1, grid=16), catalog_of(known))
    assert_tables_are_true(tables_of(plan), known)
    assert any("small.npy (8×40×40): smaller than the patch" in warning for warning in plan.warnings)


def test_a_volume_smaller_than_the_patch_has_no_place_inside():
    known = {"small": volume((3, 3, 3), shape=(8, 40, 40)), "large": volume((3, 3, 3))}
    plan = plan_catalog(recipe_of(patch_shape=16, padding="inside"), catalog_of(known))
    assert [one.id for one in plan.catalog.volumes] == ["large"]
    assert ("volumes", 1, ("small.npy (8×40×40)",)) in [(o.what, o.count, o.items) for o in plan.left_out]
    with pytest.raises(UsageError, match=r"at least one patch.*smaller than the patch"):
        plan_catalog(recipe_of(patch_shape=16, padding="inside"), catalog_of({"small": known["small"]}))


def test_volumes_without_annotations_give_no_centred_patch():
    with pytest.raises(UsageError, match=r"volumes without annotations.*--negatives or --grid"):
        plan_catalog(recipe_of(patch_shape=16), catalog_of({"v": volume()}))


def test_what_has_no_place_is_told_once_a_reason():
    known = {f"v{i}": volume(shape=(16, 16, 16)) for i in range(3)} | {"w": volume((8, 8, 8), shape=(16, 16, 16))}
    asked = {"centered": 0, "multi": 1, "hard_negatives": 2, "negatives": 3, "grid": 16}
    plan = plan_catalog(recipe_of(patch_shape=16, **asked), catalog_of(known))
    assert_tables_are_true(tables_of(plan), known)
    told = {entry.reason: (entry.count, entry.items) for entry in plan.left_out}
    assert told["of kind multi: their volume has no two annotations"] == (
        4,
        ("1 in v0", "1 in v1", "1 in v2", "1 in w"),
    )
    assert told["of kind hard_negative: their volume has no annotations"] == (6, ("2 in v0", "2 in v1", "2 in v2"))
    assert told["of kind negative: their volume has no room for more"] == (
        9,
        ("2 in v0", "2 in v1", "2 in v2", "3 in w"),
    )


def test_two_annotations_at_one_place_make_a_patch_with_two():
    known = {"v": volume((20, 20, 20), (20, 20, 20), names=["a", "b"])}
    plan = plan_catalog(recipe_of(patch_shape=16, centered=0, multi=4), catalog_of(known))
    assert count_by_kind(plan) == {"multi": 4}
    assert_tables_are_true(tables_of(plan), known)


def test_volumes_of_several_dtypes_need_a_choice():
    known = {
        "a": volume((3, 3, 3)),
        "b": dataclasses.replace(volume((3, 3, 3)), array=np.zeros((40, 40, 40), np.int16)),
    }
    with pytest.raises(UsageError, match=r"volumes of one dtype, found int16, uint8.*--dtype"):
        plan_catalog(recipe_of(patch_shape=16), catalog_of(known))
    assert plan_catalog(recipe_of(patch_shape=16, dtype="int16"), catalog_of(known)).layout.image_dtype == np.int16


def test_more_folds_than_volumes_is_wrong_usage():
    with pytest.raises(UsageError, match="--folds: expected 2 to 2, the number of volumes, found 3"):
        plan_catalog(recipe_of(patch_shape=16, folds=3), catalog_of({"a": volume((3, 3, 3)), "b": volume((3, 3, 3))}))


def test_each_volume_has_its_own_sigma_when_it_is_given_in_angstrom():
    known = {"a": volume((3, 3, 3), spacing=(5.0, 10.0, 20.0)), "b": volume((3, 3, 3), spacing=(10.0,) * 3)}
    plan = plan_catalog(recipe_of(patch_shape="16,32,64", ds_factor="4,8,16", sigma_angstrom=160), catalog_of(known))
    assert plan.columns["patches/ds_sigma"].tolist() == [[8.0, 2.0, 0.5], [4.0, 2.0, 1.0]]
    assert plan.columns["patches/angstrom_sigma"].tolist() == [[160.0] * 3] * 2


def test_thousands_of_annotations_in_one_volume_find_their_patches():
    """Not all against all: 3000 points and their 3000 patches are 9 million pairs, and few are in reach."""
    rng = np.random.default_rng(0)
    points = [tuple(p) for p in (rng.integers(0, 64 * 500, (3000, 3)) / 64).tolist()]
    known = {"v": volume(*points, shape=(500, 500, 500))}
    plan = plan_catalog(recipe_of(patch_shape=32, ds_factor=8, sigma_ds=0.5), catalog_of(known))
    rs = plan.columns["keypoints/local_rs_coords"]
    assert np.all((rs >= -0.5 - 24) & (rs < 31.5 + 24))
    brute = 0
    coords = np.array(points)
    for origin in plan.columns["patches/origin"]:
        local = coords - origin
        brute += np.count_nonzero(((local >= -0.5 - 24) & (local < 31.5 + 24)).all(axis=1))
    assert len(rs) == brute
