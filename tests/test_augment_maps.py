"""Drawing maps: all that is drawn is one matrix, settings are checked, and recipes come back."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.augmented import EVERYTHING, KINDS, maps, seeds

from keypatch.augment import Geometric, Map
from keypatch.augment.elastic import Elastic
from keypatch.errors import UsageError

SHAPE = (20, 24, 24)


@given(maps(), maps(), seeds)
def test_one_map_after_another_is_the_product_of_their_matrices(first, second, seed) -> None:
    points = np.random.default_rng(seed).uniform(-5, 20, (6, 3))
    straight = [Map(part.matrix, part.shape, part.patch_shape) for part in (first, second)]
    both = Map(straight[0].matrix @ straight[1].matrix, second.shape, first.patch_shape)
    expected = straight[0].to_patch(straight[1].to_patch(points))
    np.testing.assert_allclose(both.to_patch(points), expected, atol=1e-9)


@given(seeds)
def test_all_that_is_drawn_is_the_product_of_its_parts(seed) -> None:
    """A draw of several settings is the product of the draws of each, as each takes its own random numbers."""

    def drawn(**settings) -> Map:
        return Geometric(**settings).draw(np.random.default_rng(seed), SHAPE)

    turns = {"flip": "zyx", "half_turn": True, "rot90": True}
    crop = {"crop": (12, 10, 14)}
    center = np.eye(4)
    center[:3, 3] = (np.array(crop["crop"]) - 1) / 2

    def around(**settings) -> np.ndarray:
        matrix = drawn(**settings, **crop).matrix
        placed = drawn(**crop).matrix
        return np.linalg.inv(center) @ np.linalg.inv(placed) @ matrix @ center

    parts = [around(scale=(0.7, 1.4)) @ around(stretch=(0.8, 1.2)), around(shear=0.2), around(rotate=90)]
    together = around(scale=(0.7, 1.4), stretch=(0.8, 1.2), shear=0.2, rotate=90, shift=3)
    shift = around(shift=3)
    expected = parts[0] @ parts[1] @ parts[2] @ shift
    np.testing.assert_allclose(together, expected, atol=1e-12)
    everything = drawn(**turns, **crop, scale=(0.7, 1.4), stretch=(0.8, 1.2), shear=0.2, rotate=90, shift=3).matrix
    turned = drawn(**turns, **crop).matrix
    np.testing.assert_allclose(everything, turned @ center @ together @ np.linalg.inv(center), atol=1e-9)


def test_nothing_is_drawn_by_default() -> None:
    for seed in range(5):
        assert Geometric().draw(np.random.default_rng(seed), SHAPE).is_identity
        never = Geometric(rotate=180, elastic=2, probability=0).draw(np.random.default_rng(seed), SHAPE)
        assert never.is_identity


def test_the_same_numbers_draw_the_same_map() -> None:
    geometric = Geometric(**EVERYTHING, elastic=1.0)
    one, two, other = (geometric.draw(np.random.default_rng(seed), SHAPE) for seed in (1, 1, 2))
    assert np.array_equal(one.matrix, two.matrix)
    assert np.array_equal(one.elastic.control, two.elastic.control)
    assert not np.array_equal(one.matrix, other.matrix)


def test_the_wedges_axis_stays_unless_rotation_is_free() -> None:
    """z stays z, up or down; free, it goes everywhere."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        matrix = Geometric(**EVERYTHING).draw(rng, SHAPE).matrix
        assert not matrix[0, 1:3].any()
        assert not matrix[1:3, 0].any()
    tilted = [Geometric(rotate=180, free_rotation=True).draw(rng, SHAPE).matrix[0, 0] for _ in range(400)]
    # The cosine of an even orientation's tilt is even between -1 and 1.
    assert abs(np.mean(tilted)) < 0.1
    assert abs(np.mean(np.abs(tilted)) - 0.5) < 0.05


def test_rotations_and_turns_keep_the_hand_and_flips_change_it() -> None:
    rng = np.random.default_rng(0)
    for name in ("half_turn", "rot90", "cube", "rotate", "free"):
        for _ in range(10):
            linear = Geometric(**KINDS[name]).draw(rng, SHAPE).matrix[:3, :3]
            np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-12)
            assert np.linalg.det(linear) == pytest.approx(1)
    assert np.linalg.det(Geometric(flip="z").draw(np.random.default_rng(3), SHAPE).matrix) in {1, -1}


def test_turns_keep_the_shape() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        drawn = Geometric(rot90=True, free_rotation=True).draw(rng, (10, 24, 24))
        assert drawn.shape == (10, 24, 24)
        seen.add(drawn.matrix[:3, :3].tobytes())
    assert len(seen) == 8  # the turns of a square plate
    oblong = {Geometric(rot90=True).draw(rng, (4, 6, 8)).matrix[:3, :3].tobytes() for _ in range(40)}
    assert len(oblong) == 2
    cropped = {Geometric(rot90=True, crop=(4, 6, 6)).draw(rng, (4, 6, 8)).matrix[:3, :3].tobytes() for _ in range(60)}
    assert len(cropped) == 4


def test_a_rotation_is_one_of_space_where_voxels_are_no_cubes() -> None:
    spacing = np.array([20.0, 10.0, 5.0])
    geometric = Geometric(rotate=180, free_rotation=True)
    linear = geometric.draw(np.random.default_rng(0), SHAPE, spacing).matrix[:3, :3]
    physical = np.diag(spacing) @ linear @ np.diag(1 / spacing)
    np.testing.assert_allclose(physical @ physical.T, np.eye(3), atol=1e-12)


def test_crops_lie_everywhere_in_the_patch() -> None:
    rng = np.random.default_rng(0)
    begins = {tuple(Geometric(crop=(19, 23, 24)).draw(rng, SHAPE).matrix[:3, 3].astype(int)) for _ in range(60)}
    assert begins == {(z, y, 0) for z in (0, 1) for y in (0, 1)}
    wider = Geometric(crop=(24, 24, 29)).draw(rng, SHAPE)
    assert wider.matrix[:3, 3].tolist() == [-2, 0, -2]


def test_scale_and_shift_have_the_sign_that_a_person_expects() -> None:
    """Above 1 things get larger, and a shift moves them by so much."""
    drawn = Geometric(scale=(2, 2)).draw(np.random.default_rng(0), SHAPE)
    middle = (np.array(SHAPE) - 1) / 2
    np.testing.assert_allclose(drawn.to_sample(middle + 1), [middle + 2])
    for seed in range(5):
        moved = Geometric(shift=(0, 5, 0)).draw(np.random.default_rng(seed), SHAPE).to_sample(middle)[0] - middle
        assert moved[0] == moved[2] == 0
        assert 0 < abs(moved[1]) <= 5


# Elastic


@given(seeds, st.floats(0.5, 4))
def test_an_elastic_map_folds_nowhere_and_is_undone(seed, largest) -> None:
    rng = np.random.default_rng(seed)
    elastic = Elastic.draw(rng, (40, 50, 60), largest, 32.0)
    assert elastic.slope <= 0.75
    points = rng.uniform(-30, 90, (50, 3))
    there = points + elastic.displacement(points)
    assert np.abs(elastic.displacement(points)).max() <= largest
    np.testing.assert_allclose(elastic.undone(there), points, atol=1e-8)
    assert np.linalg.det(elastic.jacobian(points)).min() > 0


def test_an_elastic_displacement_is_a_cubic_b_spline() -> None:
    from scipy.interpolate import BSpline

    rng = np.random.default_rng(0)
    elastic = Elastic.draw(rng, (30, 40, 50), 2.0, 16.0)
    points = rng.uniform(0, 29, (5, 3))
    expected = np.zeros((5, 3))
    basis = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)
    for k in np.ndindex(elastic.control.shape[1:]):
        weight = np.nan_to_num(basis(points / 16 - np.array(k) + 1)).prod(axis=1)
        expected += weight[:, None] * elastic.control[(slice(None), *k)]
    np.testing.assert_allclose(elastic.displacement(points), expected, atol=1e-12)


def test_an_elastic_map_that_folds_is_refused() -> None:
    control = np.zeros((3, 5, 5, 5))
    control[0, 2, 2, 2] = 40
    with pytest.raises(UsageError, match=r"folds nowhere, found slopes of up to 7\.50; take smaller"):
        Elastic(control, 16.0)
    with pytest.raises(UsageError, match="finite displacements"):
        Elastic(np.full((3, 4, 4, 4), np.nan), 16.0)


# Recipes and bad input


@pytest.mark.parametrize("name", KINDS)
def test_settings_come_back_from_a_recipe(name) -> None:
    geometric = Geometric(**KINDS[name])
    assert Geometric.from_mapping(json.loads(json.dumps(geometric.to_json()))) == geometric


def test_an_unknown_key_of_a_recipe() -> None:
    with pytest.raises(UsageError, match=r"augmentation: expected the keys flip, .*, found angle, rotation"):
        Geometric.from_mapping({"rotation": 3, "flip": "z", "angle": 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scale", (0.0, 1.0)),
        ("scale", (math.nan, 1.0)),
        ("scale", (1.2, 0.8)),
        ("scale", 1.1),
        ("scale", (1.0, math.inf)),
        ("stretch", (-1.0, 1.0)),
        ("rotate", 181),
        ("rotate", math.nan),
        ("rotate", "90"),
        ("shear", -0.1),
        ("shift", (1, 2)),
        ("shift", math.nan),
        ("crop", (0, 4, 4)),
        ("crop", (4, 4)),
        ("crop", (4.0, 4, 4)),
        ("flip", "xw"),
        ("flip", True),
        ("rot90", 1),
        ("order", 3),
        ("order", True),
        ("padding", "mean"),
        ("sigma", "free"),
        ("fill", "black"),
        ("probability", 1.5),
        ("elastic_spacing", 0),
    ],
)
def test_a_setting_that_cannot_be(key, value) -> None:
    with pytest.raises(UsageError, match=rf"augmentation\.{key}: expected .*, found {re.escape(repr(value))}"):
        Geometric(**{key: value})


def test_an_elastic_that_would_fold() -> None:
    with pytest.raises(UsageError, match="expected at least 80, 8 times elastic"):
        Geometric(elastic=10)


def _matrix(**cells: float) -> np.ndarray:
    matrix = np.eye(4)
    for name, value in cells.items():
        matrix[int(name[1]), int(name[2])] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (_matrix(m00=0.0), "a matrix that has an inverse"),
        (_matrix(m00=1e-9), "a matrix that has an inverse"),
        (_matrix(m12=1.0, m21=1.0), "a matrix that has an inverse"),
        (_matrix(m00=math.nan), "a finite"),
        (_matrix(m03=math.inf), "a finite"),
        (_matrix(m30=1.0), "affine matrix"),
        (np.eye(3), "affine matrix"),
        ([[1, 2], [3]], "affine matrix"),
    ],
)
def test_a_map_that_cannot_be(matrix, message) -> None:
    with pytest.raises(UsageError, match=message):
        Map(matrix, SHAPE, SHAPE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"padding": "mean"}, "map, padding: expected one of zero"),
        ({"order": 3}, "map, order: expected one of 0, 1, found 3"),
        ({"sigma": "none"}, "map, sigma"),
    ],
)
def test_a_map_with_a_word_that_is_unknown(settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        Map(np.eye(4), SHAPE, SHAPE, **settings)


def test_a_map_of_no_voxels() -> None:
    for shape in ((0, 1, 1), (1, 1), (1.5, 1, 1)):
        with pytest.raises(UsageError, match="map, shape: expected three axes of 1 voxel or more"):
            Map(np.eye(4), shape, SHAPE)


def test_lists_and_arrays_stand_for_tuples() -> None:
    given = Geometric(scale=[0.9, 1.1], shift=[1, 2, 3], crop=np.array([4, 5, 6]))
    assert given == Geometric(scale=(0.9, 1.1), shift=(1, 2, 3), crop=(4, 5, 6))
    assert Map(np.eye(4), list(SHAPE), np.array(SHAPE)).is_identity
