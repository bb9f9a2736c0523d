"""The data set of numpy arrays: what a sample has, and what it depends on."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from tests.stores import Design, make_store

import keypatch
from keypatch import gaussian
from keypatch.augment import Geometric, Patches, collate, split_keypoints
from keypatch.augment.batch import EXAMPLE_KEYS, POINT_KEYS
from keypatch.errors import UsageError

TURNS = Geometric(flip="zyx", rot90=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def store(folder) -> keypatch.Store:
    return keypatch.open(make_store(folder / "one", Design(source_dtype="float32", dtype="float32")).path)


@pytest.fixture(scope="module")
def other(folder) -> keypatch.Store:
    """Other classes, other sigmas, no Gaussians, integers."""
    design = Design(seed=1, classes=("ribosome", "proteasome"), gaussian_dtype=None, ds_sigma=(1.0, 1.0, 0.8))
    return keypatch.open(make_store(folder / "other", design).path)


def noisy(image):
    return image + np.random.normal(size=image.shape).astype(image.dtype)  # noqa: NPY002


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_a_sample_without_augmentation_is_the_patch(store) -> None:
    patches = Patches(store)
    assert len(patches) == len(store)
    for i, patch in enumerate(store):
        example = patches[i]
        assert set(example) == set(EXAMPLE_KEYS) | set(POINT_KEYS) - {"covariance"}
        assert np.array_equal(example["image"], patch.image[None])
        assert np.array_equal(example["target"], store.read_gaussian(i))
        assert np.array_equal(example["keypoints"], patch.local_rs_coords)
        assert np.array_equal(example["class_index"], patch.class_index)
        assert np.array_equal(example["annotation_index"], patch.annotation_index)
        assert example["weight"].tolist() == [1] * len(patch.class_index)
        assert np.array_equal(example["sigma"], np.tile(patch.ds_sigma, (len(patch.class_index), 1)))
        assert patches.kinds[example["kind"]] == patch.kind
        assert (example["patch"], example["store"], example["fold"]) == (i, 0, patch.fold)
        assert example["volume"] == patch.volume
        assert np.array_equal(example["origin"], patch.origin)
        assert np.array_equal(example["matrix"], np.eye(4))
        assert example["draw"].tolist() == [0, 0, i, 0]


def test_the_stored_target_is_read_where_nothing_was_drawn(store, monkeypatch) -> None:
    read = []
    original = keypatch.Store.read_gaussian
    monkeypatch.setattr(keypatch.Store, "read_gaussian", lambda self, i: read.append(i) or original(self, i))
    Patches(store)[3]
    assert read == [3]
    sigma = tuple(store[0].ds_sigma)
    for settings in (
        {"geometric": TURNS, "seed": 1},
        {"ds_factor": 2},
        {"sigma_ds": 2.0},
        {"classes": ["ribosome", "motor"]},
        {"classes": ["motor"]},
    ):
        patches = Patches(store, **settings)
        assert settings.get("seed") is None or not np.array_equal(patches[3]["matrix"], np.eye(4))
        patches[3]
    assert read == [3]
    Patches(store, ds_factor=store.ds_factor, sigma_ds=sigma, classes=store.classes)[4]
    assert read == [3, 4]


def test_any_factor_and_sigma_can_be_asked_for(store, other) -> None:
    """A wide Gaussian reaches in from annotations that the patch did not keep."""
    for one in (store, other):
        for i in range(len(one)):
            patch = one[i]
            all_there = one.annotations[one.annotations["volume"] == patch.volume]
            local = all_there[["z", "y", "x"]].to_numpy() - patch.origin
            for asked, settings, sigma in (
                ((2, 4, 8), {}, patch.angstrom_sigma / (np.array([2, 4, 8]) * patch.voxel_spacing)),
                (one.ds_factor, {"sigma_ds": (0.5, 1, 2)}, (0.5, 1, 2)),
                ((4, 4, 4), {"sigma_angstrom": 30}, 30 / (4 * patch.voxel_spacing)),
                (one.ds_factor, {}, patch.ds_sigma),
            ):
                factor = np.array(asked)
                found = Patches(one, ds_factor=asked, **settings)[i]["target"]
                expected = gaussian.render(
                    (local + 0.5) / factor - 0.5,
                    [one.classes.index(name) for name in all_there["class_name"]],
                    n_classes=len(one.classes),
                    grid=np.array(one.patch_shape) // factor,
                    sigma=sigma,
                )
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_store_without_gaussians_is_rendered(other) -> None:
    assert not other.has_gaussian
    for i in range(len(other)):
        assert np.array_equal(Patches(other)[i]["target"], other[i].gaussian())


def test_mixed_stores_by_name(store, other) -> None:
    """Classes by name: each store's keypoints land in the channel of their name."""
    patches = Patches([store, other], classes={"motor": "machine", "proteasome": "machine", "ribosome": "ribosome"})
    assert patches.classes == ("machine", "ribosome")
    for example in patches:
        one = patches.stores[example["store"]]
        patch = one[int(example["patch"])]
        names = [one.classes[c] for c in patch.class_index]
        expected = [{"ribosome": 1}.get(name, 0) for name in names]
        assert example["class_index"].tolist() == expected
        assert example["target"].shape == (2, *one.grid_shape)
    alone = Patches([store, other], classes=["proteasome"])
    for i in range(len(store)):
        assert not len(alone[i]["keypoints"])
        assert not alone[i]["target"].any()
    batch = collate([patches[i] for i in range(0, len(patches), 3)])
    assert batch["image"].dtype == np.float32


def test_samples_depend_on_seed_epoch_index_and_turn_alone(store) -> None:
    patches = Patches(store, geometric=TURNS, intensity=noisy, seed=3)
    first = [patches[i] for i in range(len(patches))]
    for i in reversed(range(len(patches))):
        assert equal(patches[i], first[i])
    assert equal(pickle.loads(pickle.dumps(patches))[4], first[4])
    assert equal(patches[4, 0], first[4])
    assert not np.array_equal(patches[4, 1]["image"], first[4]["image"])
    patches.set_epoch(1)
    assert not np.array_equal(patches[4]["image"], first[4]["image"])
    assert patches[4]["draw"].tolist() == [3, 1, 4, 0]
    assert equal(patches.example(4, epoch=0), first[4])
    patches.set_epoch(0)
    assert equal(patches[4], first[4])
    assert equal(patches[4 - len(patches)], first[4])
    other_seed = Patches(store, geometric=TURNS, intensity=noisy, seed=4)
    assert not np.array_equal(other_seed[4]["image"], first[4]["image"])
    drawn = {tuple(patches[0, turn]["matrix"].ravel().tolist()) for turn in range(100)}
    assert len(drawn) == 8  # all flips there are; a half turn is two of them


def test_the_way_back_to_the_volume(store) -> None:
    patches = Patches(store, geometric=TURNS)
    for i in range(len(patches)):
        example, patch = patches[i], store[i]
        homogeneous = np.c_[example["keypoints"], np.ones(len(example["keypoints"]))]
        back = (homogeneous @ example["matrix"].T)[:, :3] + example["origin"]
        np.testing.assert_allclose(back, patch.global_coords, atol=1e-9)
        assert np.array_equal(patches.sample(i).image, example["image"][0])


def test_dtypes(store, other) -> None:
    assert Patches(other)[0]["image"].dtype == np.float32
    assert Patches(other, dtype=None)[0]["image"].dtype == np.uint8
    assert Patches(store, dtype="float16")[0]["image"].dtype == np.float16
    assert "target" not in Patches(store, with_target=False)[0]


def test_intensities_run_in_their_order(store) -> None:
    patches = Patches(store, intensity=[lambda image: image + 1, lambda image: image * 2])
    assert np.array_equal(patches[0]["image"][0], (store[0].image + np.float32(1)) * 2)


def test_split_keypoints_undoes_collate(store) -> None:
    patches = Patches(store)
    examples = [patches[i] for i in (5, 0, 0, 7)]
    batch = collate(examples)
    assert batch["volume"] == [example["volume"] for example in examples]
    for example, points in zip(examples, split_keypoints(batch), strict=True):
        assert all(np.array_equal(points[key], example[key]) for key in POINT_KEYS if key in example)
    for key in EXAMPLE_KEYS:
        assert all(np.array_equal(batch[key][i], example[key]) for i, example in enumerate(examples))


def test_batches_that_cannot_be(store, folder) -> None:
    with pytest.raises(UsageError, match="at least one sample, found none"):
        collate([])
    larger = Patches(make_store(folder / "larger", Design(patch_shape=(16, 32, 32), chunk_shape=(16, 32, 32))).path)
    with pytest.raises(UsageError, match=r"one shape of image, found \(1, 16, 32, 24\) and \(1, 16, 32, 32\); crop"):
        collate([Patches(store)[0], larger[0]])
    with pytest.raises(UsageError, match="one shape of target"):
        collate([Patches(store)[0], Patches(store, classes=["motor"])[0]])
    with pytest.raises(UsageError, match="samples with the same entries, found target in some"):
        collate([Patches(store)[0], Patches(store, with_target=False)[0]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ds_factor": 0}, "ds_factor: expected one or three whole numbers from 1, found 0"),
        ({"ds_factor": 2.5}, "ds_factor: expected one or three whole numbers"),
        ({"ds_factor": (2, 2)}, "ds_factor: expected one or three whole numbers"),
        ({"sigma_ds": 0}, "sigma_ds: expected one or three finite numbers above 0, found 0"),
        ({"sigma_ds": float("nan")}, "sigma_ds: expected one or three finite numbers above 0, found nan"),
        ({"sigma_angstrom": (1, 2, float("inf"))}, "sigma_angstrom: expected one or three finite numbers"),
        ({"sigma_ds": 1, "sigma_angstrom": 1}, "sigma_ds or sigma_angstrom, found both"),
        ({"dtype": "uint8"}, "dtype: expected a float of numpy's, or None for the store's, found uint8"),
        ({"dtype": "no such"}, "dtype: expected a float of numpy's, or None for the store's, found no such"),
        ({"geometric": {"flip": "z"}}, "geometric: expected a Geometric, found .*from_mapping"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"seed": 0.5}, "seed: expected a whole number from 0"),
        ({"kinds": "negative"}, "at least one patch, found none with kinds 'negative'"),
        ({"intensity": [3]}, "intensity: expected a callable"),
    ],
)
def test_settings_that_make_no_sense(store, settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        Patches(store, **settings)


def test_bad_indices_and_epochs(store) -> None:
    patches = Patches(store)
    for index in (len(patches), -len(patches) - 1):
        with pytest.raises(IndexError, match="of a data set of 10 patches"):
            patches[index]
    with pytest.raises(TypeError, match="integer"):
        patches[1.5]
    for change in (patches.set_epoch, lambda epoch: patches.example(0, epoch=epoch)):
        with pytest.raises(UsageError, match="epoch: expected a whole number from 0, found -1"):
            change(-1)
    with pytest.raises(UsageError, match="turn: expected a whole number from 0"):
        patches[0, -1]
    assert len(list(patches)) == 10  # ends


def test_factors_that_do_not_fit(store, folder) -> None:
    with pytest.raises(UsageError, match=r"a grid that fits the image, found patch shape \(16, 32, 24\).*crop samples"):
        Patches(store, ds_factor=5)[0]
    finer = make_store(folder / "finer", Design(ds_factor=(2, 2, 2))).path
    with pytest.raises(UsageError, match=r"stores of one factor, found \(2, 2, 2\) and \(4, 8, 4\); say ds_factor"):
        Patches([store, finer])
    assert Patches([store, finer], ds_factor=4)[12]["target"].shape == (2, 4, 8, 6)


def test_torch_is_not_imported(store) -> None:
    code = (
        "import sys; from keypatch.augment import Patches, collate, mix, CutMix; import numpy as np; "
        f"p = Patches({store.path!r}); mix(collate([p[0], p[1]]), [CutMix()], np.random.default_rng(0)); "
        "assert 'torch' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_without_torch_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("keypatch.torch")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(keypatch.MissingExtraError, match=r"keypatch\.torch: .*pip install 'keypatch\[torch\]'"):
        importlib.import_module("keypatch.torch")
