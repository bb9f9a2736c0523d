"""Annotations to store to target to peaks and back to the annotations, within 0.05 voxel of full resolution."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from tests.sources import Truth, converted, write_csv, write_npy

import keypatch
from keypatch.augment import Geometric, read_sample
from keypatch.detections import COLUMNS, Found, Search, detect, merge
from keypatch.errors import UsageError

CLASSES = ("motor", "ribosome")
ALLOWED = 0.05
"""Voxels of full resolution."""


def drawn(seed):
    """Volumes whose points keep apart, some of them on the border, and the flags of a store of overlapping patches."""
    rng = np.random.default_rng(seed)
    factor = rng.integers(2, 9, 3)
    grid = rng.integers(5, 8, 3)
    sigma = rng.uniform(0.7, 1.5, 3)
    spacing = np.round(rng.uniform(5, 20, 3), 2)
    apart = np.maximum(4 * sigma, 3) * factor
    known = {}
    for name in "ab":
        shape = factor * grid + rng.integers(0, 20, 3)
        points, names = [], []
        for k in range(40):
            point = rng.uniform(-0.5, shape - 0.5)
            if k % 3 == 0:
                axis = rng.integers(3)
                point[axis] = rng.choice([-0.5, 0.0, shape[axis] - 1, shape[axis] - 0.51])
            if all((np.abs(point - other) / apart).max() > 1 for other in points):
                points.append(point)
                names.append(CLASSES[k % 2])
        array = np.zeros(shape, np.uint8)
        known[name] = Truth(array, tuple(map(tuple, points)), tuple(names))
    patch = factor * grid
    stride = np.maximum(patch // 2, 1)
    flags = {
        "--patch-shape": patch,
        "--ds-factor": factor,
        "--sigma-ds": np.round(sigma, 3),
        "--voxel-spacing": spacing,
        "--grid": stride,
        "--padding": ["edge"],
    }
    return known, [part for flag, value in flags.items() for part in (flag, ",".join(map(str, value)))]


def built(folder, known, flags):
    folder.mkdir(exist_ok=True)
    for name, one in known.items():
        write_npy(folder / name, one)
    table = write_csv(folder, known)
    converted(folder / "*.npy", "-a", table, "-o", folder / "out.zarr", *flags)
    return keypatch.open(folder / "out.zarr")


def assert_back(found, known, allowed=ALLOWED):
    """Every annotation once, and nothing else."""
    for volume, one in known.items():
        for name in set(CLASSES):
            truth = np.array(one.of_class(name)).reshape(-1, 3)
            rows = found[(found["volume"] == volume) & (found["class_name"] == name)]
            coords = rows[["z", "y", "x"]].to_numpy()
            assert len(coords) == len(truth), (volume, name)
            if not len(truth):
                continue
            off = np.abs(coords[:, None] - truth).max(axis=2)
            nearest = off.argmin(axis=1)
            assert sorted(nearest) == list(range(len(truth)))
            assert off.min(axis=1).max() < allowed


@pytest.mark.parametrize("seed", range(12))
def test_there_and_back(tmp_path, seed):
    known, flags = drawn(seed)
    store = built(tmp_path, known, flags)
    assert sum(len(one.points) for one in known.values()) > 5
    heatmaps = np.stack([store.read_gaussian(i) for i in range(len(store))])
    found = detect(store, heatmaps)
    assert_back(found, known)
    assert_allclose(found["score"], 1, atol=0.05)
    assert found["n_views"].max() > 1
