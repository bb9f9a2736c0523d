"""Where a heatmap lies in its volume, and how much of a Gaussian it holds there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch import geometry
from keypatch.augment.sample import coarse_covariance
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from keypatch.augment.maps import Map
    from keypatch.augment.sample import Sample
    from keypatch.formats.store import Store
    from keypatch.geometry import Shape3, Vector3

BEYOND: Final = 1.0
"""Coarse voxels outside a patch up to which a peak is believed: noise may move one on the border across it."""

WHOLE_WITHIN: Final = 2.0
"""Sigmas from the border from which on a peak counts in full: 95 % of a Gaussian's axis lie within two."""

LEAST_WEIGHT: Final = 0.05

PADDING_WITHIN: Final = 0.5
"""Sigmas outside of its patch from which on a sample's peak lies in padding. Nearer, it is a keypoint on the border
that noise has moved, or its mirror image, which is less than a sigma from it and becomes one with it."""


@dataclass(frozen=True, eq=False)
class View:
    """One heatmap's place: a patch, or a sample that a map has made of one.

    Attributes:
        patch: Of the store.
        volume_index: Of the patch's volume.
        origin: (3,) int64 of the patch in the volume.
        patch_shape: Voxels of the patch.
        volume_shape: Voxels of the volume.
        grid: (d, h, w) of the heatmap.
        factor: (3,) int64 fine voxels a coarse one.
        spacing: (3,) Å a voxel of the volume.
        sigma_ds: (3,) float64, of the target in coarse voxels of the heatmap.
        map: From the image that the heatmap was predicted from to the patch; None where it is the patch.
    """

    patch: int
    volume_index: int
    origin: NDArray[np.int64]
    patch_shape: Shape3
    volume_shape: Shape3
    grid: tuple[int, ...]
    factor: NDArray[np.int64]
    spacing: NDArray[np.float64]
    sigma_ds: NDArray[np.float64]
    map: Map | None = None

    @classmethod
    def of_patch(cls, store: Store, patch: int, grid: Sequence[int], sigma_ds: Vector3 | None = None) -> View:
        """A heatmap of a patch as it lies in the store.

        Args:
            store: Opened; its images are not read.
            patch: Number.
            grid: Of the heatmap; need not be the store's.
            sigma_ds: In coarse voxels of the heatmap; that of the store, which is a length, when left out.

        Raises:
            UsageError: If the grid does not divide the patch.
        """
        return cls._of(store, patch, store.patch_shape, grid, sigma_ds, None)

    @classmethod
    def of_sample(cls, store: Store, sample: Sample, grid: Sequence[int], sigma_ds: Vector3 | None = None) -> View:
        """A heatmap of a sample of a patch; the sample's image is not kept.

        Raises:
            UsageError: If the sample is of no patch of the store, or the grid does not divide its image.
        """
        if not 0 <= sample.patch < len(store) or store[sample.patch].volume != sample.volume:
            found = f"one of patch {sample.patch} in {sample.volume}"
            raise UsageError.at("samples", expected=f"samples of {store.path}", found=found)
        drawn = None if sample.map.is_identity else sample.map
        return cls._of(store, sample.patch, sample.image.shape, grid, sigma_ds, drawn)

    @classmethod
    def _of(
        cls,
        store: Store,
        patch: int,
        image_shape: Sequence[int],
        grid: Sequence[int],
        sigma_ds: Vector3 | None,
        drawn: Map | None,
    ) -> View:
        volume_index = int(store.table("patches/volume_index")[patch])
        z, y, x = (int(n) for n in store.volume_records[volume_index]["shape"])
        factor, spacing = _factor(image_shape, grid), store.table("patches/voxel_spacing")[patch]
        sigma = geometry.ds_sigma(store.table("patches/angstrom_sigma")[patch], factor, spacing)
        return cls(
            patch,
            volume_index,
            store.table("patches/origin")[patch],
            store.patch_shape,
            (z, y, x),
            tuple(grid),
            factor,
            spacing,
            sigma if sigma_ds is None else np.asarray(sigma_ds, np.float64),
            drawn,
        )

    @cached_property
    def covariance(self) -> NDArray[np.float64] | None:
        """(3, 3) of every Gaussian, in coarse voxels of the heatmap; None where it is another at each place."""
        if self.map is None or self.map.sigma == "fixed":
            return np.diag(self.sigma_ds**2)
        if self.map.elastic is not None:
            return None
        steps = np.asarray(np.linalg.inv(self.map.matrix[:3, :3]), np.float64)
        if self.map.sigma == "covariance":
            return np.asarray(coarse_covariance(steps[None], self.sigma_ds, self.factor)[0], np.float64)
        return np.diag((self.sigma_ds * np.linalg.norm(steps, axis=1)) ** 2)

    def to_volume(self, local_ds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Peaks in the volume, and which of them are this view's to report.

        Not its own are peaks more than a coarse voxel outside its box or its volume, and peaks in the padding of a
        sample, which may be mirror images. What lies just outside the volume is put on its border.

        Args:
            local_ds: (P, 3) on the grid.

        Returns:
            (P, 3) float64 voxel-index coordinates in the volume, (P,) bool.
        """
        outside = np.maximum(-0.5 - local_ds, local_ds - (np.array(self.grid) - 0.5))
        own = (outside <= BEYOND).all(axis=1)
        in_patch = self._in_patch(local_ds)
        if self.map is not None:
            own = own & (_sigmas_inside(in_patch, self.patch_shape, self.sigma_ds * self.factor) >= -PADDING_WITHIN)
        coords = in_patch + self.origin
        border = np.nextafter(np.array(self.volume_shape) - 0.5, 0)
        bounded = np.clip(coords, -0.5, border)
        own = own & (np.abs(coords - bounded) <= BEYOND * self.factor).all(axis=1)
        return bounded, np.asarray(own)

    def weight(self, local_ds: NDArray[np.float64]) -> NDArray[np.float64]:
        """(P,) in (0, 1]: how much of its Gaussian the heatmap holds, by the distance from the nearest border.

        The border of the patch counts as that of the sample: beyond it a sample has padding.
        """
        return self._weight(local_ds, self._in_patch(local_ds))

    def weight_of_places(self, coords: NDArray[np.float64]) -> NDArray[np.float64]:
        """As `weight`, for (P, 3) places in the volume; 0 for those outside the view."""
        in_patch = coords - self.origin
        local_rs = in_patch if self.map is None else self.map.to_sample(in_patch)
        local_ds = geometry.local_ds(local_rs, self.factor)
        seen = geometry.inside(local_ds, self.grid) & geometry.inside(in_patch, self.patch_shape)
        return np.where(seen, self._weight(local_ds, in_patch), 0.0)

    def _in_patch(self, local_ds: NDArray[np.float64]) -> NDArray[np.float64]:
        local_rs = geometry.rs_from_ds(local_ds, self.factor)
        return local_rs if self.map is None else self.map.to_patch(local_rs)

    def _weight(self, local_ds: NDArray[np.float64], in_patch: NDArray[np.float64]) -> NDArray[np.float64]:
        held = _sigmas_inside(local_ds, self.grid, self.sigma_ds)
        if self.map is not None:
            held = np.minimum(held, _sigmas_inside(in_patch, self.patch_shape, self.sigma_ds * self.factor))
        weight: NDArray[np.float64] = np.clip(held / WHOLE_WITHIN, LEAST_WEIGHT, 1.0)
        return weight


def _sigmas_inside(
    points: NDArray[np.float64], shape: Sequence[int], sigma: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(P,) from (P, 3) points to the nearest border of a box."""
    inside = np.minimum(points + 0.5, np.array(shape) - 0.5 - points) / sigma
    return np.asarray(inside.min(axis=1, initial=np.inf), np.float64)


def _factor(shape: Sequence[int], grid: Sequence[int]) -> NDArray[np.int64]:
    if not all(grid) or any(n % g for n, g in zip(shape, grid, strict=True)):
        expected = f"a grid that divides the {' × '.join(map(str, shape))} voxels of the image"
        raise UsageError.at("heatmaps", expected=expected, found=" × ".join(map(str, grid)))
    return np.array([n // g for n, g in zip(shape, grid, strict=True)], np.int64)
