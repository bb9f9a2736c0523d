"""Any callable as intensity: what it is handed, what it may give back, and where its random numbers come from."""

from __future__ import annotations

import random

import numpy as np
import pytest

from keypatch.augment import Intensity
from keypatch.errors import UsageError

IMAGE = np.random.default_rng(0).normal(10, 3, (4, 5, 6)).astype(np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noisy(image):
    return image + np.random.normal(size=image.shape)  # noqa: NPY002 - what other libraries do


def brighter(image):
    return image * random.uniform(1, 2)


@pytest.mark.parametrize("change", [noisy, brighter])
def test_global_generators_are_seeded_and_left_as_they_were(change) -> None:
    intensity = Intensity(change)
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    one, again, other = intensity(IMAGE, rng(1)), intensity(IMAGE, rng(1)), intensity(IMAGE, rng(2))
    assert np.array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert random.getstate() == before[1]
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.dtype == np.float32
    assert not np.array_equal(one, IMAGE)


def test_generators_are_left_as_they_were_after_an_error() -> None:
    def broken(image):
        random.random()
        raise RuntimeError("no")

    before = random.getstate()
    with pytest.raises(RuntimeError, match="no"):
        Intensity(broken)(IMAGE, rng())
    assert random.getstate() == before


class OwnGenerator:
    """As MONAI's transforms are: a state of its own, set by name."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def set_random_state(self, seed: int) -> None:
        self.seen.append(seed)
        self.state = np.random.RandomState(seed)

    def __call__(self, image):
        return image + self.state.normal(size=image.shape)


def test_a_state_of_its_own_is_seeded() -> None:
    transform = OwnGenerator()
    one, again = (Intensity(transform)(IMAGE, rng(3)) for _ in range(2))
    assert np.array_equal(one, again)
    assert transform.seen[0] == transform.seen[1] != 0


def test_seed_with_is_called_in_place_of_others() -> None:
    seeds: list[int] = []
    transform = OwnGenerator()
    transform.set_random_state(0)
    Intensity(transform, seed_with=seeds.append)(IMAGE, rng(3))
    assert len(seeds) == len(transform.seen) == 1
    assert 0 <= seeds[0] < 2**32


def test_the_generator_of_the_sample_may_be_handed_over() -> None:
    intensity = Intensity(lambda image, rng: image + rng.standard_normal(image.shape, np.float32), takes_rng=True)
    one, again, other = intensity(IMAGE, rng(1)), intensity(IMAGE, rng(1)), intensity(IMAGE, rng(2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert abs((one - IMAGE).std() - 1) < 0.2


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        (None, (4, 5, 6)),
        ("DHW", (4, 5, 6)),
        ("CDHW", (1, 4, 5, 6)),
        ("DCHW", (4, 1, 5, 6)),
        ("BDHW", (1, 4, 5, 6)),
        ("BCDHW", (1, 1, 4, 5, 6)),
    ],
)
def test_axes(axes, shape) -> None:
    seen = []

    def look(image):
        seen.append(image.shape)
        return image[..., ::-1]

    found = Intensity(look, axes=axes)(IMAGE, rng())
    assert seen == [shape]
    assert np.array_equal(found, IMAGE[..., ::-1])
    assert found.flags.c_contiguous


def test_value_range_goes_there_and_back() -> None:
    seen = []

    def look(image):
        seen.append((image.min(), image.max()))
        return np.clip(image, 0, 0.5)

    image = np.array([0, 50, 100, 200], np.uint8).reshape(1, 2, 2)
    found = Intensity(look, value_range=(0, 200))(image, rng())
    assert seen == [(0, 1)]
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == [0, 50, 100, 100]
    shifted = Intensity(lambda image: image + 1, value_range=(0, 200))(image, rng())
    assert shifted.ravel().tolist() == [200, 250, 255, 255]  # no overflow


def test_what_comes_back_must_fit() -> None:
    with pytest.raises(UsageError, match=r"shape \(4, 5, 6\) back, found one of \(5, 6\)"):
        Intensity(lambda image: image[0])(IMAGE, rng())
    with pytest.raises(UsageError, match=r"uint8 back, found float64; read images as floats"):
        Intensity(noisy)(np.zeros((2, 3, 4), np.uint8), rng())
    assert Intensity(lambda image: image.astype(np.float64))(IMAGE, rng()).dtype == np.float32
    flipped = Intensity(lambda image: 255 - image)(np.zeros((2, 3, 4), np.uint8), rng())
    assert flipped.dtype == np.uint8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transform": 3}, "a callable on an image, found 3"),
        ({"container": "jax"}, 'container: expected "numpy" or "torch"'),
        ({"axes": "XYZ"}, "axes: expected one of DHW"),
        ({"value_range": (1, 1)}, "value_range: expected low < high"),
        ({"value_range": (0, float("nan"))}, "value_range: expected low < high"),
    ],
)
def test_settings_that_make_no_sense(settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        Intensity(**{"transform": noisy, **settings})
