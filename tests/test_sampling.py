"""Where patches are cut. That every kind keeps its promise is checked with random recipes in test_plan."""

from __future__ import annotations

import numpy as np
import pytest

from keypatch.converters.recipe import Recipe
from keypatch.converters.sampling import sample_volume

SHAPE = (60, 50, 40)


def sample(points=(), shape=SHAPE, volume="v", **settings):
    recipe = Recipe.from_mapping(
        {"volumes": ["v"], "annotations": ["a"], "patch_shape": "16,12,8", "ds_factor": 4, "centered": 0, **settings}
    )
    coords = np.array(points, np.float64).reshape(-1, 3)
    return {one.kind: one for one in sample_volume(volume, shape, coords, recipe)}


@pytest.mark.parametrize(
    ("point", "origin"),
    [
        ((30, 20, 10), (22, 14, 6)),
        ((30.49, 20.49, 10.49), (22, 14, 6)),
        ((30.5, 20.5, 10.5), (23, 15, 7)),
        ((29.5, 19.5, 9.5), (22, 14, 6)),
        ((-0.5, 0, 0), (-8, -6, -4)),
    ],
)
def test_a_patch_without_jitter_has_its_keypoint_in_voxel_half_the_size(point, origin):
    found = sample([point], centered=1, jitter=0)["centered"]
    assert found.origins.tolist() == [list(origin)]


def test_the_jitter_reaches_its_limits_and_goes_no_further():
    found = sample([(30, 20, 10)], centered=2000, jitter="3,2,1")["centered"]
    moved = found.origins - (22, 14, 6)
    assert moved.min(axis=0).tolist() == [-3, -2, -1]
    assert moved.max(axis=0).tolist() == [3, 2, 1]
    assert np.abs(moved.mean(axis=0)).max() < 0.15


def test_inside_moves_a_patch_as_little_as_possible():
    found = sample([(1, 25, 39)], centered=1, jitter=0, padding="inside")["centered"]
    assert found.origins.tolist() == [[0, 19, 32]]


def test_a_patch_and_a_volume_of_one_shape_have_one_place():
    found = sample([(8, 6, 4)], shape=(16, 12, 8), centered=3, jitter=2, padding="inside", grid=8, negatives=1)
    assert np.unique(found["centered"].origins, axis=0).tolist() == [[0, 0, 0]]
    assert found["grid"].origins.tolist() == [[0, 0, 0]]
    assert found["negative"].missing == 1


def test_a_grid_steps_by_its_stride_and_ends_with_the_volume():
    found = sample(shape=(40, 24, 9), grid="16,6,8")["grid"].origins
    assert np.unique(found[:, 0]).tolist() == [0, 16, 24]
    assert np.unique(found[:, 1]).tolist() == [0, 6, 12]
    assert np.unique(found[:, 2]).tolist() == [0, 1]
    assert len(found) == 3 * 3 * 2


def test_a_grid_patch_larger_than_the_volume_has_it_in_the_middle():
    found = sample(shape=(10, 12, 3), grid=8)["grid"].origins
    assert found.tolist() == [[-3, 0, -2]]


def test_negatives_and_hard_negatives_lie_in_the_volume_and_differ():
    points = [(20, 20, 20), (45, 40, 10)]
    found = sample(points, negatives=40, hard_negatives=40)
    for kind in ("negative", "hard_negative"):
        origins = found[kind].origins
        assert len(np.unique(origins, axis=0)) == 40
        assert (origins >= 0).all()
        assert (origins <= np.subtract(SHAPE, (16, 12, 8))).all()
    assert len(np.unique(found["negative"].origins[:, 0])) > 15  # anywhere, not beside the points


def test_what_is_asked_and_has_no_place_is_counted_with_its_reason():
    found = sample(multi=2, hard_negatives=3, negatives=1)
    assert (found["multi"].missing, found["multi"].why) == (2, "has no two annotations")
    assert (found["hard_negative"].missing, found["hard_negative"].why) == (3, "has no annotations")
    assert found["negative"].missing == 0
    full = sample([(z, y, x) for z in range(0, 60, 7) for y in range(0, 50, 5) for x in range(0, 40, 3)], negatives=2)
    assert (full["negative"].missing, full["negative"].why) == (2, "has no room for more")


def test_points_too_far_apart_for_one_patch_give_no_multi():
    found = sample([(5, 5, 5), (50, 40, 30)], multi=3)["multi"]
    assert (found.missing, found.why) == (3, "has no room for more")
    assert found.origins.shape == (0, 3)


def test_points_a_patch_apart_are_just_too_far_and_a_little_less_is_not():
    assert sample([(5, 5, 5), (21, 5, 5)], multi=1)["multi"].missing == 1
    assert sample([(5, 5, 5), (20.9, 5, 5)], multi=1)["multi"].missing == 1  # in voxel 21
    assert sample([(5, 5, 5), (20.4, 5, 5)], multi=1)["multi"].origins[:, 0].tolist() == [5]


def test_other_volumes_and_seeds_draw_others():
    draws = [
        sample([(30, 20, 10)], centered=5, volume=volume, seed=seed)["centered"].origins.tolist()
        for volume, seed in [("a", 0), ("b", 0), ("a", 1), ("a", 0)]
    ]
    assert draws[0] == draws[3]
    assert len({str(one) for one in draws}) == 3
