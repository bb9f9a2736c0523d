"""What an augmentation gives: an image, its keypoints, and the way back to the volume."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from keypatch import gaussian, geometry
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from keypatch.augment.maps import Map
    from keypatch.geometry import Vector3


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The keypoints of a sample: one array an attribute, all of one length K.

    Attributes:
        local_rs: (K, 3) float64 index coordinates in the sample's image, z, y, x; some lie outside and reach in.
        class_index: (K,) int32, positions in the store's classes.
        weight: (K,) float32 that a keypoint's Gaussian is multiplied by; mixing lowers it.
        annotation_index: (K,) int64, rows of the store's annotations. Mirror images share one.
        sigma_scale: (K, 3) float64 factor on the target's sigma along each axis; 1 unless sigma is "scaled".
        linear: (K, 3, 3) float64 from a small step in the patch to the step in the sample that it has become, which
            makes a covariance of the target's sigma; None unless sigma is "covariance".
    """

    local_rs: NDArray[np.float64]
    class_index: NDArray[np.int32]
    weight: NDArray[np.float32]
    annotation_index: NDArray[np.int64]
    sigma_scale: NDArray[np.float64]
    linear: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, local_rs: ArrayLike, class_index: ArrayLike, annotation_index: ArrayLike) -> Self:
        """Keypoints of weight 1 whose sigma stays as it is."""
        points = np.asarray(local_rs, np.float64).reshape(-1, 3)
        return cls(
            points,
            np.asarray(class_index, np.int32),
            np.ones(len(points), np.float32),
            np.asarray(annotation_index, np.int64),
            np.ones((len(points), 3)),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Keypoints]) -> Self:
        """All keypoints of the parts, in their order.

        Raises:
            ValueError: If there is no part, or only some have ``linear``.
        """
        if len({part.linear is None for part in parts}) != 1:
            message = "keypoints with and without a linear map cannot be put together: sigma must be of one mode"
            raise ValueError(message)
        linear = [part.linear for part in parts if part.linear is not None]
        return cls(
            np.concatenate([part.local_rs for part in parts]),
            np.concatenate([part.class_index for part in parts]),
            np.concatenate([part.weight for part in parts]),
            np.concatenate([part.annotation_index for part in parts]),
            np.concatenate([part.sigma_scale for part in parts]),
            np.concatenate(linear) if linear else None,
        )

    def take(self, rows: NDArray[Any]) -> Self:
        """Those of a mask or of row numbers."""
        return replace(
            self,
            local_rs=self.local_rs[rows],
            class_index=self.class_index[rows],
            weight=self.weight[rows],
            annotation_index=self.annotation_index[rows],
            sigma_scale=self.sigma_scale[rows],
            linear=None if self.linear is None else self.linear[rows],
        )

    def __len__(self) -> int:
        return len(self.local_rs)


@dataclass(frozen=True, eq=False)
class Sample:
    """One patch as a network sees it.

    Attributes:
        image: (D, H, W) voxels.
        keypoints: In the image's index coordinates.
        patch: Number of the patch in its store.
        kind: Of the patch.
        fold: Of its volume; -1 where there are no folds.
        volume: Id of its volume.
        voxel_spacing: Å a voxel of the volume, z, y, x.
        origin: (3,) int64, volume index of the patch's voxel (0, 0, 0).
        map: From the sample's index to the patch's, as it was drawn.
    """

    image: NDArray[Any]
    keypoints: Keypoints
    patch: int
    kind: str
    fold: int
    volume: str
    voxel_spacing: Vector3
    origin: NDArray[np.int64]
    map: Map

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(4, 4) from the sample's index (z, y, x, 1) to the patch's, less the elastic part: `to_volume` has it all."""
        return self.map.matrix

    def to_volume(self, points: ArrayLike) -> NDArray[np.float64]:
        """(K, 3) index coordinates of the sample as voxel-index coordinates of the volume: the way back."""
        return self.map.to_patch(points) + self.origin

    def target(
        self, n_classes: int, *, ds_factor: ArrayLike, sigma_ds: ArrayLike, dtype: DTypeLike = np.float32
    ) -> NDArray[Any]:
        """Write the Gaussian target from its formula; weights multiply.

        Args:
            n_classes: Channels C.
            ds_factor: (3,) or one number, fine voxels a coarse one; must divide the image's shape.
            sigma_ds: (3,) or one number, in coarse voxels, of a keypoint that no map has scaled.
            dtype: float32 or float16.

        Returns:
            (C, d, h, w) array.

        Raises:
            UsageError: If the factor does not divide the shape, a class is out of range or a sigma is not above 0.
        """
        points = self.keypoints
        try:
            factor = np.broadcast_to(np.asarray(ds_factor), (3,))
            sigma = np.broadcast_to(np.asarray(sigma_ds, np.float64), (3,))
            grid = geometry.grid_shape(self.image.shape, factor.tolist())
            where = geometry.local_ds(points.local_rs, factor)
            if points.linear is None:
                return gaussian.render(
                    where,
                    points.class_index,
                    n_classes=n_classes,
                    grid=grid,
                    sigma=sigma * points.sigma_scale if len(points) else sigma,
                    weight=points.weight,
                    dtype=dtype,
                )
            return gaussian.render_covariance(
                where,
                points.class_index,
                n_classes=n_classes,
                grid=grid,
                covariance=coarse_covariance(points.linear, sigma, factor),
                weight=points.weight,
                dtype=dtype,
            )
        except ValueError as error:
            message = f"target: {error}"
            raise UsageError(message) from error


def coarse_covariance(
    linear: NDArray[np.float64], sigma_ds: NDArray[np.float64], factor: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(K, 3, 3) covariances on the coarse grid: ``A A^T`` with ``A = F^-1 L F diag(sigma)``, F of the factors."""
    if not np.all(sigma_ds > 0):
        message = f"expected a sigma above 0, found {sigma_ds.tolist()}"
        raise ValueError(message)
    coarse = linear * (factor / factor[:, None]) * sigma_ds
    covariance: NDArray[np.float64] = coarse @ coarse.transpose(0, 2, 1)
    return covariance
