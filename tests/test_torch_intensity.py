"""Intensity by the real libraries: MONAI, torchvision and kornia, each on a whole volume and seeded by the sample."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest

from keypatch.augment import Intensity

torch = pytest.importorskip("torch", reason="torch is not installed; make test-torch installs it")

IMAGE = np.random.default_rng(0).uniform(0.2, 0.8, (6, 16, 20)).astype(np.float32)


def library(name: str):
    """A library that may be missing, or built for another torch; what it warns of at its import is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"{name}: {error}")


def quietly(intensity: Intensity, image: np.ndarray, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's use of torch
        return intensity(image, np.random.default_rng(seed))


def monai(name: str):
    transforms = library("monai.transforms")
    return {
        "noise": lambda: transforms.RandGaussianNoise(prob=1, std=0.1),
        "contrast": lambda: transforms.RandAdjustContrast(prob=1, gamma=(0.5, 2)),
        "blur": lambda: transforms.RandGaussianSmooth(prob=1),
        "shift": lambda: transforms.RandShiftIntensity(prob=1, offsets=0.2),
        "compose": lambda: transforms.Compose(
            [transforms.RandGaussianNoise(prob=0.5), transforms.RandScaleIntensity(prob=1, factors=0.5)]
        ),
    }[name]()


def torchvision(name: str):
    v2 = library("torchvision.transforms.v2")
    return {
        "noise": lambda: v2.GaussianNoise(sigma=0.1),
        "blur": lambda: v2.GaussianBlur(3, sigma=(0.5, 2)),
        "jitter": lambda: v2.ColorJitter(brightness=0.5, contrast=0.5),
        "compose": lambda: v2.Compose([v2.ColorJitter(brightness=0.5), v2.GaussianNoise()]),
    }[name]()


def kornia(name: str):
    augmentation = library("kornia.augmentation")
    return {
        "noise": lambda: augmentation.RandomGaussianNoise(std=0.1, p=1),
        "blur": lambda: augmentation.RandomGaussianBlur((3, 3), (0.5, 2), p=1),
        "brightness": lambda: augmentation.RandomBrightness((0.6, 1.4), p=1),
        "gamma": lambda: augmentation.RandomGamma((0.5, 2), p=1),
        "motion blur 3D": lambda: augmentation.RandomMotionBlur3D(3, 35.0, 0.5, p=1.0),
    }[name]()


CASES = [
    *[(monai, name) for name in ("noise", "contrast", "blur", "shift", "compose")],
    *[(torchvision, name) for name in ("noise", "blur", "jitter", "compose")],
    *[(kornia, name) for name in ("noise", "blur", "brightness", "gamma", "motion blur 3D")],
]


@pytest.mark.parametrize(("source", "name"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_a_sample_always_gets_the_same(source, name) -> None:
    intensity = Intensity(source(name))
    handed = IMAGE.copy()
    one, again, other = (quietly(intensity, handed, seed) for seed in (1, 1, 2))
    fresh = quietly(Intensity(source(name)), handed, 1)  # as in another worker
    assert one.shape == IMAGE.shape
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    assert np.array_equal(one, again)
    assert np.array_equal(one, fresh)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, IMAGE)
    assert np.array_equal(handed, IMAGE)


@pytest.mark.parametrize(
    ("source", "name"), [(monai, "shift"), (torchvision, "jitter"), (kornia, "brightness"), (kornia, "gamma")]
)
def test_all_slices_get_one_draw(source, name) -> None:
    """A volume whose slices are alike has alike slices afterwards: no flicker along z."""
    image = np.repeat(IMAGE[:1], 6, axis=0)
    changed = quietly(Intensity(source(name)), image, 3)
    assert not np.array_equal(changed, image)
    np.testing.assert_allclose(changed, np.repeat(changed[:1], 6, axis=0), rtol=1e-6)


def test_monai_blurs_in_three_dimensions() -> None:
    image = np.zeros((9, 9, 9), np.float32)
    image[4, 4, 4] = 1
    blurred = quietly(Intensity(monai("blur")), image, 0)
    assert blurred[3, 4, 4] > 0.001
    assert blurred[4, 3, 4] > 0.001


def test_what_a_transform_draws_is_what_the_library_draws() -> None:
    """The adapter adds nothing: MONAI called by hand with the same seed gives the same."""
    transform = monai("noise")
    seed = int(np.random.default_rng(5).integers(2**32 - 1, endpoint=True))
    transform.set_random_state(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_hand = np.asarray(transform(torch.from_numpy(IMAGE[None])))[0]
    assert np.array_equal(quietly(Intensity(monai("noise")), IMAGE, 5), by_hand)


def test_other_ranges_than_0_to_1() -> None:
    """torchvision and kornia cut values off at 0 and 1; with value_range nothing of a tomogram's range is lost."""
    image = IMAGE * 1000 - 500
    lost = quietly(Intensity(torchvision("jitter")), image, 1)
    assert lost.min() >= 0
    assert lost.max() <= 1
    kept = quietly(Intensity(torchvision("jitter"), value_range=(-500, 500)), image, 1)
    unit = quietly(Intensity(torchvision("jitter")), IMAGE, 1)
    np.testing.assert_allclose(kept, unit * 1000 - 500, rtol=1e-5, atol=1e-2)


def test_the_generator_of_torch_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    Intensity(lambda image: image + torch.rand_like(image), container="torch")(IMAGE, np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), before)
