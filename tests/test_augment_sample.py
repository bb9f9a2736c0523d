"""Samples without a map, and with flips and turns alone."""

from __future__ import annotations

import numpy as np
import pytest
from tests.stores import make_store

import keypatch
from keypatch.augment import Geometric, Keypoints, read_sample
from keypatch.errors import UsageError


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> keypatch.Store:
    return keypatch.open(make_store(tmp_path_factory.mktemp("stores")).path)


def test_a_sample_without_a_map_is_the_patch(store) -> None:
    for patch in store:
        sample = read_sample(store, patch.index)
        assert np.array_equal(sample.image, patch.image)
        assert np.array_equal(sample.keypoints.local_rs, patch.local_rs_coords)
        np.testing.assert_allclose(sample.to_volume(sample.keypoints.local_rs), patch.global_coords, atol=1e-9)
        assert np.array_equal(sample.matrix, np.eye(4))
        target = sample.target(len(store.classes), ds_factor=store.ds_factor, sigma_ds=patch.ds_sigma)
        assert np.array_equal(target, store.read_gaussian(patch.index))


def test_flips_and_turns_move_voxels_and_keypoints_together(store) -> None:
    geometric = Geometric(flip="zyx", rot90=True)
    rng = np.random.default_rng(0)
    for index in rng.integers(0, len(store), 20).tolist():
        sample = read_sample(store, index, geometric.draw(rng, store.patch_shape))
        z, y, x = np.indices(sample.image.shape).reshape(3, -1)
        a, b, c = sample.map.to_patch(np.stack([z, y, x], 1)).astype(int).T
        assert np.array_equal(sample.image.ravel(), store[index].image[a, b, c])
        there = sample.to_volume(sample.keypoints.local_rs)
        np.testing.assert_allclose(there, store[index].global_coords, atol=1e-9)


def test_a_target_of_another_factor_and_weight(store) -> None:
    sample = read_sample(store, 0)
    full = sample.target(2, ds_factor=1, sigma_ds=4.0)
    assert full.shape == (2, *store.patch_shape)
    for factor in (7, 2.5, 0):
        with pytest.raises(UsageError, match=r"target: patch shape .* is not a multiple"):
            sample.target(2, ds_factor=factor, sigma_ds=1.0)
    for settings, words in (({"sigma_rs": (1, 2)}, "sigma_rs: expected one number or three"), ({"reach": -1}, "reach")):
        with pytest.raises(UsageError, match=words):
            read_sample(store, 0, **settings)


def test_keypoints_are_put_together_and_taken_apart() -> None:
    first, second = Keypoints.of([[1, 2, 3]], [0], [5]), Keypoints.of([[4, 5, 6], [7, 8, 9]], [1, 0], [6, 7])
    both = Keypoints.concatenate([first, second])
    assert len(both) == 3
    assert both.take(both.class_index == 1).annotation_index.tolist() == [6]
    assert both.linear is None
