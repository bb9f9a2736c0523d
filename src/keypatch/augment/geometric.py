"""Drawing geometric augmentations: all that a sample draws becomes one map."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from keypatch.augment.maps import Map
from keypatch.augment.reading import read_sample
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from keypatch.geometry import Shape3

__all__ = ["Geometric", "read_sample"]


@dataclass(frozen=True)
class Geometric:
    """What may be drawn. With every setting left out, nothing is.

    Attributes:
        flip: Axes of "zyx" that are mirrored, each in half of the samples.
        rot90: Whether quarter turns about z are drawn, of those that keep the shape.
    """

    flip: str = ""
    rot90: bool = False

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """From a recipe's table.

        Raises:
            UsageError: If a key is unknown or a value is not what it must be.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(settings) - known):
            raise UsageError.at("augmentation", expected=f"the keys {', '.join(sorted(known))}", found=str(unknown))
        return cls(**settings)

    def to_json(self) -> dict[str, Any]:
        """What `from_mapping` takes."""
        return asdict(self)

    def draw(self, rng: np.random.Generator, shape: Sequence[int]) -> Map:
        """Draw the map of one sample.

        Args:
            rng: Of the sample alone, so that it is the same whatever else is drawn.
            shape: (3,) voxels of the patch.
        """
        z, y, x = (int(n) for n in shape)
        patch_shape: Shape3 = (z, y, x)
        mirrored = rng.random(3) < 0.5
        turns = int(rng.integers(4))
        matrix = np.eye(4)
        for axis, name in enumerate("zyx"):
            if name in self.flip and mirrored[axis]:
                matrix = matrix @ _flip(axis, patch_shape)
        if self.rot90:
            matrix = matrix @ _turned(turns if y == x else 2 * (turns // 2), patch_shape)
        return Map(matrix, patch_shape, patch_shape)


def _flip(axis: int, shape: Shape3) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1.0, shape[axis] - 1.0
    return matrix


def _turned(quarters: int, shape: Shape3) -> NDArray[np.float64]:
    """Quarter turns about z."""
    half = _flip(1, shape) @ _flip(2, shape)
    quarter = np.eye(4)
    quarter[1:3, 1:3], quarter[1, 3] = [[0, -1], [1, 0]], shape[1] - 1.0
    return np.eye(4) if quarters == 0 else {1: quarter, 2: half, 3: half @ quarter}[quarters]
