"""The map that a sample draws: from the sample's voxels to the patch's, all of it in one matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

import numpy as np

from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from keypatch.geometry import Shape3

Padding: TypeAlias = Literal["zero", "constant", "edge", "reflect", "none"]
PADDINGS: Final[tuple[Padding, ...]] = ("zero", "constant", "edge", "reflect", "none")
"""What a sample shows where its map leaves the patch: 0, a fill value, the nearest voxel, the patch mirrored at the
centres of its outermost voxels (numpy.pad's "reflect"); "none" refuses such a map."""

Sigma: TypeAlias = Literal["fixed", "scaled", "covariance"]
SIGMAS: Final[tuple[Sigma, ...]] = ("fixed", "scaled", "covariance")
"""What becomes of a keypoint's sigma: it stays, it grows along each axis as the map stretches it, or a whole covariance
is carried through the map."""

LARGEST_CONDITION: Final = 1e6
"""Ratio of the longest to the shortest axis of a mapped ball from which on a map counts as singular."""


@dataclass(frozen=True, eq=False)
class Map:
    """Where each voxel of a sample comes from.

    Attributes:
        matrix: (4, 4) float64, sample index (z, y, x, 1) to patch index (z, y, x, 1).
        shape: Voxels of the sample.
        patch_shape: Voxels of the patch.
        padding: What lies outside of the patch.
        fill: The value for padding "constant".
        order: 0 takes the nearest voxel, 1 interpolates linearly.
        sigma: What becomes of the keypoints' sigma.
    """

    matrix: NDArray[np.float64]
    shape: Shape3
    patch_shape: Shape3
    padding: Padding = "zero"
    fill: float = 0.0
    order: int = 1
    sigma: Sigma = "fixed"

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or matrix[3].tolist() != [0, 0, 0, 1]:
            raise UsageError.at("map", expected="a finite (4, 4) affine matrix", found=str(matrix.tolist()))
        if np.linalg.cond(matrix[:3, :3]) > LARGEST_CONDITION:
            raise UsageError.at("map", expected="a matrix that has an inverse", found=str(matrix.tolist()))
        if any(n < 1 for n in (*self.shape, *self.patch_shape)):
            raise UsageError.at("map", expected="shapes of 1 voxel or more", found=f"{self.shape}, {self.patch_shape}")
        matrix.flags.writeable = False
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def identity(cls, shape: Sequence[int]) -> Self:
        """The map that changes nothing."""
        z, y, x = shape
        return cls(np.eye(4), (z, y, x), (z, y, x))

    @property
    def is_identity(self) -> bool:
        """Whether the sample is the patch."""
        return self.shape == self.patch_shape and np.array_equal(self.matrix, np.eye(4))

    @property
    def is_exact(self) -> bool:
        """Whether voxels fall on voxels: flips, 90° turns, crops and whole shifts, which need no interpolation."""
        linear = self.matrix[:3, :3]
        whole = np.array_equal(self.matrix, np.rint(self.matrix))
        return whole and np.array_equal(np.abs(linear) @ np.ones(3), np.ones(3)) and abs(np.linalg.det(linear)) > 0.5

    def to_patch(self, points: ArrayLike) -> NDArray[np.float64]:
        """(K, 3) index coordinates of the sample as those of the patch."""
        return _applied(self.matrix, np.asarray(points, np.float64).reshape(-1, 3))

    def to_sample(self, points: ArrayLike) -> NDArray[np.float64]:
        """(K, 3) index coordinates of the patch as those of the sample."""
        return _applied(np.linalg.inv(self.matrix).astype(np.float64), np.asarray(points, np.float64).reshape(-1, 3))


def _applied(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    # einsum adds in one order whatever the number of points; a matrix product of BLAS does not.
    moved: NDArray[np.float64] = np.einsum("ij,kj->ki", matrix[:3, :3], points) + matrix[:3, 3]
    return moved
