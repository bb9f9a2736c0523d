"""The map that a sample draws: from the sample's voxels to the patch's, all that was drawn in one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias, get_args

import numpy as np

from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from keypatch.augment.elastic import Elastic
    from keypatch.geometry import Shape3

Padding: TypeAlias = Literal["zero", "constant", "edge", "reflect", "none"]
PADDINGS: Final[tuple[Padding, ...]] = get_args(Padding)
"""What a sample shows where its map leaves the patch: 0, a fill value, the nearest voxel, or the patch in mirrors that
stand at the centres of its outermost voxels (numpy.pad's "reflect"); "none" refuses such a map."""

Sigma: TypeAlias = Literal["fixed", "scaled", "covariance"]
SIGMAS: Final[tuple[Sigma, ...]] = get_args(Sigma)
"""What becomes of a keypoint's sigma: it stays, it grows along each axis as the map stretches it, or a whole covariance
is carried through the map."""

LARGEST_CONDITION: Final = 1e6
"""Ratio of the longest to the shortest axis of a mapped ball from which on a map counts as singular."""


@dataclass(frozen=True, eq=False)
class Map:
    """Where each voxel of a sample comes from: from ``matrix (q + u(q))``, with u the elastic displacement.

    Attributes:
        matrix: (4, 4) float64, sample index (z, y, x, 1) to patch index (z, y, x, 1).
        shape: Voxels of the sample.
        patch_shape: Voxels of the patch.
        elastic: The displacement, or None.
        padding: What lies outside of the patch.
        fill: The value for padding "constant".
        order: 0 takes the nearest voxel, 1 interpolates linearly.
        sigma: What becomes of the keypoints' sigma.
        keep_unseen: Whether a keypoint stays that lies outside of the patch and inside of the sample, where no voxel of
            its own shows.

    Raises:
        UsageError: If the matrix is not finite, not affine or singular, or another value is not what it must be.
    """

    matrix: NDArray[np.float64]
    shape: Shape3
    patch_shape: Shape3
    elastic: Elastic | None = None
    padding: Padding = "zero"
    fill: float = 0.0
    order: int = 1
    sigma: Sigma = "fixed"
    keep_unseen: bool = False

    def __post_init__(self) -> None:
        matrix = _numbers(self.matrix)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or matrix[3].tolist() != [0, 0, 0, 1]:
            raise UsageError.at("map", expected="a finite (4, 4) affine matrix", found=str(matrix.tolist()))
        if not np.linalg.cond(matrix[:3, :3]) < LARGEST_CONDITION:
            raise UsageError.at("map", expected="a matrix that has an inverse", found=str(matrix.tolist()))
        for name, value, known in (
            ("padding", self.padding, PADDINGS),
            ("sigma", self.sigma, SIGMAS),
            ("order", self.order, (0, 1)),
        ):
            if value not in known:
                raise UsageError.at(f"map, {name}", expected=f"one of {', '.join(map(str, known))}", found=repr(value))
        for name, shape in (("shape", self.shape), ("patch_shape", self.patch_shape)):
            if len(shape) != 3 or any(n < 1 or int(n) != n for n in shape):
                raise UsageError.at(f"map, {name}", expected="three axes of 1 voxel or more", found=str(shape))
            object.__setattr__(self, name, tuple(int(n) for n in shape))
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
        return self.shape == self.patch_shape and self.elastic is None and np.array_equal(self.matrix, np.eye(4))

    @property
    def is_exact(self) -> bool:
        """Whether voxels fall on voxels: flips, quarter turns, crops and whole shifts, which need no interpolation."""
        linear = np.abs(self.matrix[:3, :3])
        turned = np.array_equal(np.sort(linear, axis=1), [[0, 0, 1]] * 3) and linear.sum(axis=0).tolist() == [1, 1, 1]
        return self.elastic is None and turned and np.array_equal(self.matrix, np.rint(self.matrix))

    @cached_property
    def inverse(self) -> NDArray[np.float64]:
        """(4, 4) inverse of the matrix."""
        inverse: NDArray[np.float64] = np.linalg.inv(self.matrix).astype(np.float64)
        return inverse

    def to_patch(self, points: ArrayLike) -> NDArray[np.float64]:
        """(K, 3) index coordinates of the sample as those of the patch."""
        sample = np.asarray(points, np.float64).reshape(-1, 3)
        return moved(self.matrix, sample if self.elastic is None else sample + self.elastic.displacement(sample))

    def to_sample(self, points: ArrayLike) -> NDArray[np.float64]:
        """(K, 3) index coordinates of the patch as those of the sample."""
        places = moved(self.inverse, np.asarray(points, np.float64).reshape(-1, 3))
        return places if self.elastic is None else self.elastic.undone(places)

    def linear(self, sample: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K, 3, 3) from a small step in the patch to that in the sample, at (K, 3) points of the sample."""
        inverse = self.inverse[:3, :3]
        if self.elastic is None:
            return np.tile(inverse, (len(sample), 1, 1))
        steps: NDArray[np.float64] = np.linalg.inv(self.elastic.jacobian(sample)) @ inverse
        return steps

    def bounds(self, margin: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest place in the patch, (3,) each, of the sample's voxels' centres and a margin around."""
        slack = margin if self.elastic is None else margin + self.elastic.reach
        ends = [(-slack, n - 1 + slack) for n in self.shape]
        # The operations of `rule.Rule.places`, whose results grow with each index, rounded or not.
        corners = [
            [((a * z + b * y) + t) + c * x for a, b, c, t in self.matrix[:3].tolist()]
            for z, y, x in itertools.product(*ends)
        ]
        return np.min(corners, axis=0), np.max(corners, axis=0)


def _numbers(matrix: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.array(matrix, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError.at("map", expected="a finite (4, 4) affine matrix", found=str(error)) from error


def moved(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K, 3) points through a (4, 4) matrix."""
    # einsum adds in one order whatever the number of points; a matrix product of BLAS does not.
    places: NDArray[np.float64] = np.einsum("ij,kj->ki", matrix[:3, :3], points) + matrix[:3, 3]
    return places
