"""Real picks on a real structure: a microtubule is a bright wall around a dark core, and its picks lie on its axis."""

from __future__ import annotations

import numpy as np
import pytest

from keypatch.converters.catalog import build_catalog
from keypatch.converters.recipe import Recipe
from keypatch.formats.volumes import open_volume

WALL = (10, 15)
"""nm from the axis: a microtubule of 13 or 14 protofilaments is 25 nm across (its voxels are 1.052 nm)."""

CORE = 7


@pytest.fixture(scope="module")
def tomograms(real_data):
    """Id, voxels in units of their standard deviation, and picks of both tomograms."""
    folder = real_data / "matched" / "cylindra_mt"
    recipe = Recipe.from_mapping(
        {
            "volumes": [f"{folder}/*.tif"],
            "annotations": [f"{folder}/particles.star"],
            "map": ["TS_01=13pf_MT", "TS_02=14pf_MT"],
            "patch_shape": 16,
            "ds_factor": 4,
        }
    )
    found = []
    for volume in build_catalog(recipe).volumes:
        with open_volume(volume.path) as opened:
            voxels = opened.read((0, 0, 0), opened.info.shape).astype(np.float64)
        found.append((volume.id, (voxels - voxels.mean()) / voxels.std(), volume.points.coords))
    return found


def wall_over_core(voxels, points):
    """(K,) mean of the wall less the mean of the core, around each point, as far as the volume goes."""
    z, y, x = np.indices(voxels.shape)
    contrasts = []
    for point in points:
        distance = np.sqrt((z - point[0]) ** 2 + (y - point[1]) ** 2 + (x - point[2]) ** 2) * 1.052
        wall = voxels[(distance > WALL[0]) & (distance < WALL[1])].mean()
        contrasts.append(wall - voxels[distance < CORE].mean())
    return np.array(contrasts)


def test_the_picks_are_five_in_two_tomograms(tomograms):
    assert [(name, len(points)) for name, _, points in tomograms] == [("13pf_MT", 3), ("14pf_MT", 2)]


def test_picks_lie_on_the_microtubule_and_shuffled_points_do_not(tomograms):
    for name, voxels, points in tomograms:
        rng = np.random.default_rng(0)
        elsewhere = rng.uniform(0, np.array(voxels.shape) - 1, (60, 3))
        least = wall_over_core(voxels, points).min()
        share = float((wall_over_core(voxels, elsewhere) < least).mean())
        assert share > 0.9, (name, least, share)


@pytest.mark.parametrize("wrong", ["swapped y and x", "doubled", "halved"])
def test_wrong_readings_of_the_same_picks_miss_it(tomograms, wrong):
    change = {
        "swapped y and x": lambda p: p[:, [0, 2, 1]],
        "doubled": lambda p: p * 2,
        "halved": lambda p: p / 2,
    }[wrong]
    right, missed = [], []
    for _, voxels, points in tomograms:
        right += wall_over_core(voxels, points).tolist()
        changed = change(points)
        inside = (changed >= 0).all(axis=1) & (changed < np.array(voxels.shape)).all(axis=1)
        missed += [float("-inf")] * int((~inside).sum()) + wall_over_core(voxels, changed[inside]).tolist()
    assert np.median(missed) < min(right)
