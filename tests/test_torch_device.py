"""Targets, mixing and maps on tensors against the definitions: numpy's, and scipy's interpolation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from tests.batches import FACTOR, N_CLASSES, SHAPE, as_tensors, random_batch
from tests.stores import Design, make_store
from tests.trials import trials

import keypatch
from keypatch.augment import CoarseDropout, CutMix, CutMixup, Geometric, Map, Mixup, mix
from keypatch.augment.batch import render_targets
from keypatch.errors import UsageError

torch = pytest.importorskip("torch", reason="torch is not installed; make test-torch installs it")

from keypatch.torch import Collate, PatchDataset, collate, rendering, resample, to_device  # noqa: E402 - needs torch

GRID = tuple(n // FACTOR for n in SHAPE)
SCIPY_MODES = {"zero": "grid-constant", "constant": "grid-constant", "edge": "nearest", "reflect": "mirror"}


@settings(max_examples=trials(40))
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 30), st.booleans())
def test_targets_are_those_of_numpy(seed, n_samples, n_points, covariance) -> None:
    batch = random_batch(seed, n_samples, n_points, covariance=covariance)
    expected = render_targets(batch, n_classes=N_CLASSES, grid=GRID)
    found = rendering.render(as_tensors(batch), n_classes=N_CLASSES, grid=GRID)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max(initial=0) <= 2**-23


def test_thousands_of_keypoints_come_in_steps(monkeypatch) -> None:
    batch = random_batch(0, 3, 5000)
    monkeypatch.setattr(rendering, "LARGEST_STEP", 1000)
    found = rendering.render(as_tensors(batch), n_classes=N_CLASSES, grid=GRID)
    assert np.abs(found.numpy() - batch["target"]).max() <= 2**-23


@settings(max_examples=trials(60))
@given(
    st.sampled_from([Mixup(), CutMix(), CutMixup(), CoarseDropout(), CoarseDropout(fill=3.0, keypoints="keep")]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.sampled_from(["float32", "float64", "uint8", "int16"]),
    st.booleans(),
)
def test_mixing_is_that_of_numpy(mixing, seed, n_samples, dtype, covariance) -> None:
    batch = random_batch(seed, n_samples, 12, dtype=dtype, covariance=covariance)
    expected = mix(batch, [mixing], np.random.default_rng(seed))
    found = mix(as_tensors(batch), [mixing], np.random.default_rng(seed))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        tensor = found[key].numpy()
        assert tensor.dtype == value.dtype, key
        assert tensor.shape == value.shape, key
        if key in ("image", "target", "weight"):
            np.testing.assert_allclose(tensor.astype(float), value.astype(float), rtol=2e-6, atol=2**-23, err_msg=key)
        else:
            assert np.array_equal(tensor, value), key


def random_map(rng: np.random.Generator, padding: str, order: int) -> Map:
    """Turned, stretched, sheared and moved about the centre, so that a part of it leaves the patch."""
    matrix = np.eye(4)
    matrix[:3, :3] += rng.uniform(-0.3, 0.3, (3, 3))
    center = (np.array(SHAPE) - 1) / 2
    matrix[:3, 3] = center - matrix[:3, :3] @ center + rng.uniform(-4, 4, 3)
    fill = 3.5 if padding == "constant" else 0.0
    return Map(matrix, (6, 10, 14), SHAPE, padding=padding, fill=fill, order=order)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("padding", SCIPY_MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_images_go_through_maps_as_in_scipy(padding, order, dtype) -> None:
    batch = random_batch(3, 4, 2, dtype=dtype)
    batch["image"] = (batch["image"] / batch["image"].max() * 200).astype(dtype)
    rng = np.random.default_rng(7)
    maps = [random_map(rng, padding, order) for _ in range(4)]
    found = resample(as_tensors(batch) | {"map": maps})
    assert "map" not in found
    places = np.stack(np.meshgrid(*map(np.arange, maps[0].shape), indexing="ij")).reshape(3, -1)
    for i, drawn in enumerate(maps):
        there = drawn.matrix[:3, :3] @ places + drawn.matrix[:3, 3:]
        expected = map_coordinates(
            batch["image"][i, 0].astype(float), there, order=order, mode=SCIPY_MODES[padding], cval=drawn.fill
        ).reshape(drawn.shape)
        assert (expected == drawn.fill).any() or padding in ("edge", "reflect")
        assert found["image"][i, 0].numpy().dtype == dtype
        within = 0.5 + 1e-2 if dtype == "uint8" else 200 * 1e-4
        assert np.abs(found["image"][i, 0].numpy() - expected).max() < within


GEOMETRIC = {
    "turned": Geometric(flip="zyx", rotate=180, scale=(0.8, 1.25), shear=0.1, shift=4, free_rotation=True),
    "in the plane": Geometric(half_turn=True, rotate=30, stretch=(0.9, 1.1), shift=(0, 2, 5), crop=(8, 16, 24)),
    "elastic": Geometric(elastic=2, elastic_spacing=20, rotate=20, sigma="covariance"),
    "nothing": Geometric(),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> keypatch.Store:
    design = Design(source_dtype="float32", dtype="float32")
    return keypatch.open(make_store(tmp_path_factory.mktemp("stores"), design).path)


@pytest.mark.parametrize("padding", SCIPY_MODES)
@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_batch_that_is_resampled_on_a_device_is_that_of_the_workers(store, name, padding) -> None:
    geometric = replace(GEOMETRIC[name], padding=padding, fill=50.0 if padding == "constant" else 0.0)
    here, later = (PatchDataset(store, geometric=geometric, seed=4, resample=done) for done in (True, False))
    expected = collate([here[i] for i in range(len(here))])
    batch = collate([later[i] for i in range(len(here))])
    assert batch["image"].shape[-3:] == store.patch_shape
    found = resample(batch)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if key == "image":
            assert found[key].shape == value.shape
            assert (found[key] - value).abs().max() <= 1e-4 * value.abs().max()
        else:
            assert found[key] == value if key == "volume" else torch.equal(found[key], value), key


def test_mixing_comes_after_the_maps(store) -> None:
    dataset = PatchDataset(store, geometric=GEOMETRIC["turned"], resample=False)
    with pytest.raises(UsageError, match=r"gone through their maps, found others; call keypatch\.torch\.resample"):
        Collate([CutMix()])([dataset[0], dataset[1]])
    with pytest.raises(UsageError, match="intensity: expected none where images are resampled later"):
        PatchDataset(store, resample=False, intensity=abs)


def test_voxels_that_cannot_be_interpolated() -> None:
    image = torch.zeros((1, 1, *SHAPE), dtype=torch.int64)
    matrix = np.eye(4)
    matrix[0, 3] = 0.5
    with pytest.raises(UsageError, match=r"resample: expected voxels of torch.uint8.*found torch.int64"):
        resample({"image": image, "map": [Map(matrix, SHAPE, SHAPE)]})


def test_flips_give_the_very_voxels_back() -> None:
    batch = random_batch(3, 1, 2)
    matrix = np.diag([-1.0, 1, -1, 1])
    matrix[:3, 3] = SHAPE[0] - 1, 0, SHAPE[2] - 1
    for padding in SCIPY_MODES:
        drawn = Map(matrix, SHAPE, SHAPE, padding=padding)
        found = resample(as_tensors(batch) | {"map": [drawn]})["image"][0, 0].numpy()
        np.testing.assert_allclose(found, batch["image"][0, 0, ::-1, :, ::-1], rtol=0, atol=0.15)  # of 1536


@pytest.mark.parametrize("padding", SCIPY_MODES)
def test_a_patch_of_one_plane(padding) -> None:
    image = torch.arange(12.0).reshape(1, 1, 1, 3, 4)
    matrix = np.eye(4)
    matrix[0, 3] = 0.25
    found = resample({"image": image, "map": [Map(matrix, (1, 3, 4), (1, 3, 4), padding=padding)]})["image"]
    expected = 0.75 * image if padding in ("zero", "constant") else image
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5)


def test_maps_that_do_not_fit_together() -> None:
    batch = as_tensors(random_batch(0, 2, 2))
    with pytest.raises(
        UsageError, match=r"a batch with maps, found one without; make the data set with resample=False"
    ):
        resample(batch)
    maps = [Map(np.eye(4), shape, SHAPE) for shape in ((4, 4, 4), (4, 4, 8))]
    with pytest.raises(UsageError, match=r"maps to one shape, found \(4, 4, 4\) and \(4, 4, 8\)"):
        resample(batch | {"map": maps})


def test_to_device_moves_tensors_and_leaves_the_rest() -> None:
    batch = as_tensors(random_batch(0, 2, 2)) | {"volume": ["a", "b"]}
    moved = to_device(batch, "meta")
    assert moved["image"].device.type == "meta"
    assert moved["volume"] == ["a", "b"]
