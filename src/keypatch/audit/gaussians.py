"""The deep depth: every stored Gaussian rendered again from its formula and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch import gaussian
from keypatch.audit.ranges import valid_offsets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keypatch.audit.findings import Findings
    from keypatch.audit.layout import Target

TOLERANCE: Final = {"float32": 1e-6, "float16": 1e-3}
"""Largest difference of a value: a few roundings of values in 0 … 1 (2^-24 and 2^-11 the largest)."""

PEAK_TOLERANCE: Final = 0.05
"""Coarse voxels. The naive rule ``rs / f`` is off by (f - 1) / (2 f): 0.25 with f = 2, 0.47 with f = 16."""

_FAINTEST: Final = 1e-3
"""Values below it say too little of where the peak is once they are rounded to float16."""

_NEEDED: Final = (
    "patches/keypoint_offsets",
    "patches/ds_sigma",
    "keypoints/local_ds_coords",
    "keypoints/class_index",
)


@dataclass(frozen=True)
class Comparison:
    """One stored Gaussian against its formula.

    Attributes:
        difference: Largest absolute difference of a value.
        equal: Whether all bytes are equal.
        peak_offsets: (M,) distances in coarse voxels, largest over the axes, between a keypoint and the peak that the
            stored values around it describe; only of the keypoints that stand alone there.
    """

    difference: float
    equal: bool
    peak_offsets: NDArray[np.float64]


@dataclass(frozen=True)
class Keypoints:
    """The keypoints of one patch, as far as a Gaussian needs them: local_ds (K, 3), class (K,), sigma (3,)."""

    local_ds: NDArray[np.float64]
    class_index: NDArray[np.int32]
    sigma: NDArray[np.float64]


@dataclass(frozen=True)
class KeypointRows:
    """The keypoints of the patches of one unit. It pickles.

    Attributes:
        first: Number of the first patch.
        offsets: (n + 1,) rows of the next two, of each patch.
        local_ds: (K, 3) coarse voxels.
        class_index: (K,).
        sigma: (n, 3) of the patches, coarse voxels.
        n_classes: In the store.
    """

    first: int
    offsets: NDArray[np.int64]
    local_ds: NDArray[np.float64]
    class_index: NDArray[np.int32]
    sigma: NDArray[np.float64]
    n_classes: int

    def of(self, patch: int) -> Keypoints | None:
        """Those of one patch; None where they cannot be rendered, which the quick depth has reported."""
        row = patch - self.first
        if not 0 <= row < len(self.offsets) - 1:
            return None
        rows = slice(*self.offsets[row : row + 2].tolist())
        found = Keypoints(self.local_ds[rows], self.class_index[rows], self.sigma[row])
        renderable = (
            np.isfinite(found.local_ds).all()
            and np.isfinite(found.sigma).all()
            and (found.sigma > 0).all()
            and ((found.class_index >= 0) & (found.class_index < self.n_classes)).all()
        )
        return found if renderable else None


def has_usable_offsets(target: Target) -> bool:
    """Whether each patch can be asked for its keypoints."""
    return target.has(*_NEEDED) and valid_offsets(
        target.tables["patches/keypoint_offsets"], len(target.tables["keypoints/class_index"])
    )


def keypoint_rows(target: Target, patches: range) -> KeypointRows:
    """The keypoints of some neighbouring patches of a store with usable offsets."""
    offsets = target.tables["patches/keypoint_offsets"][patches.start : patches.stop + 1]
    rows = slice(int(offsets[0]), int(offsets[-1])) if len(offsets) else slice(0, 0)
    return KeypointRows(
        patches.start,
        offsets - offsets[:1],
        target.tables["keypoints/local_ds_coords"][rows],
        target.tables["keypoints/class_index"][rows],
        target.tables["patches/ds_sigma"][patches.start : patches.stop],
        len(target.attributes["classes"]),
    )


def keypoints_of(target: Target, patch: int) -> Keypoints | None:
    """The keypoints of one patch of a store with usable offsets; None where they cannot be rendered."""
    return keypoint_rows(target, range(patch, patch + 1)).of(patch)


def check_gaussian(patch: int, stored: NDArray[Any], keypoints: Keypoints, findings: Findings) -> Comparison:
    """Render a patch's Gaussian and compare.

    Args:
        patch: Its number.
        stored: (C, d, h, w) finite values.
        keypoints: Of the patch.
        findings: Added to.
    """
    rendered = gaussian.render(
        keypoints.local_ds,
        keypoints.class_index,
        n_classes=len(stored),
        grid=stored.shape[1:],
        sigma=keypoints.sigma,
        dtype=stored.dtype,
    )
    difference = np.abs(stored.astype(np.float64) - rendered.astype(np.float64))
    largest = float(difference.max(initial=0))
    where = f"gaussian: patch {patch}"
    if largest > TOLERANCE[stored.dtype.name]:
        place = tuple(int(n) for n in np.unravel_index(difference.argmax(), difference.shape))
        expected, found = f"{rendered[place]:.7g} at {place}", f"{stored[place]:.7g}, {largest:.3g} off"
        findings.add("KP401", where, expected=expected, found=found, within="gaussian")
    offsets, axes = peak_offsets(stored, keypoints)
    if offsets.max(initial=0) > PEAK_TOLERANCE:
        worst = int(offsets.argmax())
        found = f"{offsets[worst]:.3g} off along {'zyx'[axes[worst]]}"
        expected = f"peaks within {PEAK_TOLERANCE} coarse voxels of their keypoints"
        findings.add("KP402", where, expected=expected, found=found, within="gaussian")
    return Comparison(largest, rendered.tobytes() == np.ascontiguousarray(stored).tobytes(), offsets)


def peak_offsets(stored: NDArray[Any], keypoints: Keypoints) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How far the stored peaks lie from their keypoints, below the grid's own resolution.

    The logarithm of a Gaussian is a parabola, so three values along an axis give its vertex exactly:
    ``c = j + sigma^2 / 2 * ln(v[j+1] / v[j-1])``. Keypoints near the border of the grid, or so near another of their
    class that its Gaussian reaches into these values, are passed over.

    Returns:
        Distances in coarse voxels, largest over the axes, and the axis (0, 1, 2 for z, y, x) of each.
    """
    grid = np.array(stored.shape[1:])
    worst, axes = [], []
    for k in _alone(keypoints, grid):
        j = np.rint(keypoints.local_ds[k]).astype(np.int64)
        channel = stored[keypoints.class_index[k]]
        vertex = [_vertex(channel, j, axis, float(keypoints.sigma[axis])) for axis in range(3)]
        if any(v is None for v in vertex):
            continue
        offset = np.abs(np.array(vertex, np.float64) - keypoints.local_ds[k])
        worst.append(float(offset.max()))
        axes.append(int(offset.argmax()))
    return np.array(worst, np.float64), np.array(axes, np.int64)


def _alone(keypoints: Keypoints, grid: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keypoints inside the grid, with no other of their class within 6 sigmas and 3 voxels."""
    points = keypoints.local_ds
    inner = np.flatnonzero(((np.rint(points) >= 1) & (np.rint(points) <= grid - 2)).all(axis=1))
    lone = []
    for k in inner:
        near = (np.abs(points - points[k]) < gaussian.REACH * keypoints.sigma + 3).all(axis=1)
        if np.count_nonzero(near & (keypoints.class_index == keypoints.class_index[k])) == 1:
            lone.append(k)
    return np.array(lone, np.int64)


def _vertex(channel: NDArray[Any], j: NDArray[np.int64], axis: int, sigma: float) -> float | None:
    step = np.zeros(3, np.int64)
    step[axis] = 1
    before, after = (float(channel[tuple(j + sign * step)]) for sign in (-1, 1))
    if not (before > _FAINTEST and after > _FAINTEST):
        return None
    return float(j[axis]) + sigma**2 / 2 * float(np.log(after / before))
