"""Maps and scenes that the tests of augmentation share."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from keypatch.augment import Geometric, Map

EVERYTHING: dict[str, Any] = {
    "flip": "zyx",
    "half_turn": True,
    "rot90": True,
    "rotate": 180,
    "scale": (0.8, 1.25),
    "stretch": (0.9, 1.1),
    "shear": 0.1,
    "shift": 6.0,
}

KINDS: dict[str, dict[str, Any]] = {
    "flip": {"flip": "zyx"},
    "half_turn": {"half_turn": True},
    "rot90": {"rot90": True},
    "cube": {"rot90": True, "free_rotation": True},
    "rotate": {"rotate": 180},
    "free": {"rotate": 180, "free_rotation": True},
    "tilt": {"rotate": 20, "free_rotation": True},
    "scale": {"scale": (0.8, 1.25)},
    "stretch": {"stretch": (0.8, 1.25)},
    "shear": {"shear": 0.2},
    "free shear": {"shear": 0.2, "free_rotation": True},
    "shift": {"shift": (2.0, 7.5, 6.0)},
    "crop": {"crop": (40, 48, 56)},
    "crop beyond": {"crop": (80, 64, 72)},
    "elastic": {"elastic": 3.0, "elastic_spacing": 32.0},
    "everything": EVERYTHING,
    "everything, free": {**EVERYTHING, "free_rotation": True, "crop": (56, 60, 52)},
    "everything, elastic": {**EVERYTHING, "elastic": 3.0, "elastic_spacing": 32.0},
}
"""One draw of each setting, and of all of them."""

shapes = st.tuples(*[st.integers(1, 12)] * 3)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def maps(draw: st.DrawFn, shape: st.SearchStrategy[tuple[int, int, int]] = shapes) -> Map:
    """Drawn as a person draws them, of every kind and padding."""
    settings: dict[str, Any] = dict(draw(st.sampled_from(list(KINDS.values()))))
    if "crop" in settings:
        settings["crop"] = draw(shapes)
    padding = draw(st.sampled_from(["zero", "constant", "edge", "reflect"]))
    order = draw(st.sampled_from([0, 1, 1]))
    geometric = Geometric(**settings, padding=padding, order=order, fill=7)
    return geometric.draw(np.random.default_rng(draw(seeds)), draw(shape))


def blob(shape: tuple[int, int, int], center: NDArray[np.float64], sigma: float) -> NDArray[np.float32]:
    """A Gaussian of height 1."""
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    square = (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2
    return np.exp(-square / (2 * sigma**2)).astype(np.float32)


def centroid(image: NDArray[Any], near: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Mean place, weighted with the values, in the cube around a place."""
    first = np.rint(near).astype(int) - radius
    box = image[tuple(slice(a, a + 2 * radius + 1) for a in first)].astype(np.float64)
    places = np.indices(box.shape).reshape(3, -1) + first[:, None]
    mean: NDArray[np.float64] = places @ box.ravel() / box.sum()
    return mean
