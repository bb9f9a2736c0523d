"""A smooth displacement that stays a formula, so that keypoints go through it as exactly as through a matrix.

The displacement of the place q is a cubic B-spline over a coarse grid of control points,

    u(q) = sum over k of c[k] * b(q_z / h_z - k_z + 1) * b(q_y / h_y - k_y + 1) * b(q_x / h_x - k_x + 1)

with b the cubic B-spline and h the control points' spacing. It is nowhere longer, on any axis, than the longest c. Its
slope is a weighted mean of the differences between neighbouring c over h: where those of the three axes add up to less
than 1, q + u(q) folds nowhere and is undone by iteration. (That nothing folds is true of somewhat longer c, too: Choi
and Lee, https://doi.org/10.1006/gmod.2000.0531.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from keypatch.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keypatch.geometry import Shape3

LARGEST_SHARE: Final = 1 / 8
"""Of the control points' spacing that a displacement may be: neighbours then differ by a quarter of it at most, and the
slopes of the three axes add up to 3/4."""

_TOLERANCE: Final = 1e-10
_MOST_STEPS: Final = 200
"""Far more than 0.75^n needs to come from a patch's size to the tolerance."""


@dataclass(frozen=True, eq=False)
class Elastic:
    """A displacement of a sample's places.

    Attributes:
        control: (3, a, b, c) float64, in voxels of the sample, along z, y and x.
        spacing: Voxels from one control point to the next.
    """

    control: NDArray[np.float64]
    spacing: float

    def __post_init__(self) -> None:
        if not (self.spacing > 0 and np.isfinite(self.control).all()):
            raise UsageError.at("elastic", expected="finite displacements, a spacing above 0", found=str(self.spacing))
        if self.slope >= 1:
            raise UsageError.at(
                "elastic",
                expected="a displacement that folds nowhere",
                found=f"slopes of up to {self.slope:.2f}",
                hint="take smaller displacements or a wider spacing",
            )

    @classmethod
    def draw(cls, rng: np.random.Generator, shape: Shape3, largest: float, spacing: float) -> Self:
        """Draw control points, each within ``largest`` voxels of its place on every axis."""
        counts = [math.ceil((n - 1) / spacing) + 3 for n in shape]
        return cls(rng.uniform(-largest, largest, (3, *counts)), spacing)

    @property
    def slope(self) -> float:
        """An upper bound of the displacement's slopes, summed over the axes: below 1, nothing folds."""
        beyond = np.pad(self.control, [(0, 0), (1, 1), (1, 1), (1, 1)])
        steps = [np.abs(np.diff(beyond, axis=axis)).max(axis=(1, 2, 3)) for axis in (1, 2, 3)]
        return float(np.sum(steps, axis=0).max() / self.spacing)

    @property
    def reach(self) -> float:
        """Voxels that no displacement exceeds on any axis, however it is rounded."""
        return float(np.abs(self.control).max()) * (1 + 1e-9) + 1e-9

    def weights(self, axis: int, place: NDArray[np.float64]) -> NDArray[np.float64]:
        """(controls, K) values of the axis's B-splines at K places."""
        k = np.arange(self.control.shape[axis + 1], dtype=np.float64)[:, None]
        return _cubic(place / self.spacing - k + 1.0)

    def displacement(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K, 3) displacements at (K, 3) places."""
        z, y, x = (self.weights(axis, points[:, axis]) for axis in range(3))
        moved: NDArray[np.float64] = np.einsum("iabc,ak,bk,ck->ki", self.control, z, y, x, optimize=True)
        return moved

    def jacobian(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K, 3, 3) derivatives of ``q + u(q)`` at (K, 3) places."""
        result = np.tile(np.eye(3), (len(points), 1, 1))
        for j in range(3):
            factors = [self.weights(axis, points[:, axis]) for axis in range(3)]
            k = np.arange(self.control.shape[j + 1], dtype=np.float64)[:, None]
            factors[j] = _cubic_slope(points[:, j] / self.spacing - k + 1.0) / self.spacing
            result[:, :, j] += np.einsum("iabc,ak,bk,ck->ki", self.control, *factors, optimize=True)
        return result

    def undone(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K, 3) the q of which ``q + u(q)`` are the places, by iteration; slopes below 1 make it converge."""
        points = places.copy()
        for _ in range(_MOST_STEPS):
            following = places - self.displacement(points)
            change = np.abs(following - points).max(initial=0.0)
            points = following
            if change < _TOLERANCE:
                break
        return points


def _cubic(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic B-spline: 2/3 at 0, 1/6 at 1, 0 from 2 on."""
    a = np.abs(t)
    inner, outer = 2 / 3 - a * a * (1 - a / 2), np.clip(2 - a, 0, None) ** 3 / 6
    value: NDArray[np.float64] = np.where(a < 1, inner, outer)
    return value


def _cubic_slope(t: NDArray[np.float64]) -> NDArray[np.float64]:
    a = np.abs(t)
    slope = np.where(a < 1, a * (1.5 * a - 2), -(np.clip(2 - a, 0, None) ** 2) / 2)
    signed: NDArray[np.float64] = np.sign(t) * slope
    return signed
