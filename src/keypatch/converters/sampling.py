"""Where patches are cut: the origins of every kind of patch of one volume.

"Inside" is meant as everywhere (`geometry.inside`): the voxel that holds the point belongs to the box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch import geometry
from keypatch.converters.draw import Draw

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from keypatch.converters.recipe import Recipe
    from keypatch.formats.store.schema import Kind
    from keypatch.geometry import Shape3

TRIES: Final = 200
"""Draws before a place for one more patch is given up: misses 1 in 10^9 where one draw in ten would do."""


@dataclass(frozen=True)
class Sampled:
    """Patches of one kind in one volume.

    Attributes:
        kind: Of all of them.
        origins: (n, 3) int64.
        missing: Patches that were asked for and have no place.
        why: They have none; a phrase that follows the volume's name.
    """

    kind: Kind
    origins: NDArray[np.int64]
    missing: int = 0
    why: str = ""


def sample_volume(volume_id: str, shape: Shape3, coords: NDArray[np.float64], recipe: Recipe) -> list[Sampled]:
    """Place the patches of one volume.

    Args:
        volume_id: Seeds the draws, together with the recipe's seed.
        shape: Of the volume, voxels.
        coords: (A, 3) voxel-index coordinates of its annotations, inside the volume.
        recipe: Says how many of each kind.

    Returns:
        One `Sampled` a kind that was asked for, in the order of the kinds.
    """
    space = _Space(volume_id, np.asarray(shape, np.int64), coords, recipe)
    asked: list[tuple[int, Callable[[_Space, int], Sampled]]] = [
        (recipe.centered, _centered),
        (recipe.multi, _multi),
        (recipe.hard_negatives, _hard_negatives),
        (recipe.negatives, _negatives),
        (1 if recipe.grid else 0, _grid),
    ]
    return [place(space, n) for n, place in asked if n]


class _Space:
    """One volume with its points, and the questions that placing patches asks of it."""

    def __init__(self, volume_id: str, shape: NDArray[np.int64], coords: NDArray[np.float64], recipe: Recipe) -> None:
        self.volume_id = volume_id
        from scipy.spatial import cKDTree  # noqa: PLC0415 - 250 ms that other commands need not wait for

        self.shape = shape
        self.coords = coords
        self.recipe = recipe
        self.patch = np.asarray(recipe.patch_shape, np.int64)
        # A patch larger than the volume may lie anywhere that keeps the whole volume inside it.
        self.low = np.minimum(0, shape - self.patch)
        self.high = np.maximum(0, shape - self.patch)
        # In units of the patch, a box of the patch's size is a cube of side 1, which a tree finds quickly.
        self._tree = cKDTree(coords / self.patch) if len(coords) else None

    def draw(self, kind: Kind) -> Draw:
        return Draw(self.recipe.seed, self.volume_id, kind)

    def placed(self, origins: NDArray[np.int64]) -> NDArray[np.int64]:
        """Origins as the padding allows them: moved into the volume where nothing may be filled."""
        return np.clip(origins, self.low, self.high) if self.recipe.padding == "inside" else origins

    def near(self, center: NDArray[np.float64], patches: float) -> NDArray[np.int64]:
        """Points within so many patch sizes of a place on every axis; a candidate list, slightly too long."""
        if self._tree is None:
            return np.empty(0, np.int64)
        found = self._tree.query_ball_point(center / self.patch, patches * (1 + 1e-9), p=np.inf)
        return np.sort(np.asarray(found, np.int64))

    def holds_point(self, origin: NDArray[np.int64]) -> bool:
        candidates = self.near(origin + (self.patch - 1) / 2, 0.5)
        return bool(geometry.inside(self.coords[candidates] - origin, self.patch).any())


def _centered(space: _Space, n: int) -> Sampled:
    jitter = np.asarray(space.recipe.jitter, np.int64)
    centers = np.repeat(geometry.centered_origin(space.coords, space.patch), n, axis=0)
    moved = centers + space.draw("centered").integers(-jitter, jitter, centers.shape)
    return Sampled("centered", space.placed(moved))


def _multi(space: _Space, n: int) -> Sampled:
    """A random point, a random other one within a patch of it, and a random box around both."""
    draw = space.draw("multi")

    def place() -> NDArray[np.int64] | None:
        first = draw.choice(len(space.coords))
        near = space.near(space.coords[first], 1.0)
        others = near[near != first]
        if not len(others):
            return None
        both = space.coords[[first, others[draw.choice(len(others))]]]
        low = np.floor(both.max(axis=0) - space.patch + 0.5).astype(np.int64) + 1
        high = np.floor(both.min(axis=0) + 0.5).astype(np.int64)
        if (low > high).any():
            return None
        origin = space.placed(draw.integers(low, high, (3,)))
        return origin if geometry.inside(both - origin, space.patch).all() else None

    return _search("multi", n, place, lacks="two annotations" if len(space.coords) < 2 else "")


def _hard_negatives(space: _Space, n: int) -> Sampled:
    """A box that has a point within half a patch of its border and none inside."""
    draw = space.draw("hard_negative")

    def place() -> NDArray[np.int64] | None:
        point = space.coords[draw.choice(len(space.coords))]
        origin = geometry.centered_origin(point, space.patch) + draw.integers(-space.patch, space.patch, (3,))
        origin = np.clip(origin, space.low, space.high)
        beside = bool((np.abs(point - origin - (space.patch - 1) / 2) <= space.patch).all())
        return origin if beside and not space.holds_point(origin) else None

    return _search("hard_negative", n, place, lacks="" if len(space.coords) else "annotations")


def _negatives(space: _Space, n: int) -> Sampled:
    draw = space.draw("negative")

    def place() -> NDArray[np.int64] | None:
        origin = draw.integers(space.low, space.high, (3,))
        return None if space.holds_point(origin) else origin

    return _search("negative", n, place)


def _grid(space: _Space, _: int) -> Sampled:
    """Boxes at every stride that cover the volume; the last of an axis is moved back to end with it."""
    stride = np.asarray(space.recipe.grid, np.int64)
    axes = [
        np.unique(np.append(np.arange(0, max(int(last), 0), step), last))
        for last, step in zip(space.shape - space.patch, stride, strict=True)
    ]
    axes = [np.array([-((-int(axis[0])) // 2)]) if axis[0] < 0 else axis for axis in axes]
    corners = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return Sampled("grid", corners.astype(np.int64))


def _search(kind: Kind, n: int, place: Callable[[], NDArray[np.int64] | None], *, lacks: str = "") -> Sampled:
    """Draw until ``n`` different places are found or one more takes too many tries; where ``lacks``, do not begin."""
    found: dict[tuple[int, ...], NDArray[np.int64]] = {}
    while len(found) < n and not lacks:
        for _ in range(TRIES):
            origin = place()
            if origin is not None and tuple(origin.tolist()) not in found:
                found[tuple(origin.tolist())] = origin
                break
        else:
            break
    origins = np.stack(list(found.values())) if found else np.empty((0, 3), np.int64)
    return Sampled(kind, origins, n - len(found), f"has no {lacks or 'room for more'}")
