"""From a predicted heatmap to points: local maxima, each moved to the centre of the Gaussian that its samples show.

The logarithm of a sampled Gaussian is a quadratic, so its centre and its height follow from a few samples by linear
least squares, exactly, wherever the centre lies between them or beyond the border:

    ln v(j) = ln a - 1/2 * sum over axes ((j - c) / sigma)^2

With sigma known, ``ln v + 1/2 * sum (j / sigma)^2`` is linear in j: two samples an axis are enough, and noise has
little to act on. Without it, all ten coefficients of the quadratic are fitted, so a Gaussian that a map has scaled,
sheared or turned is found as exactly. A sample counts by its value squared, since noise of one size moves ``ln v`` by
1 / v.

The target takes the maximum where Gaussians of one class overlap. A sample in which another Gaussian stands higher, one
outside of the grid too, tells nothing of this one, and is left out of its fit.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

THRESHOLD: Final = 0.3
"""Height of a Gaussian from which on it is a peak, where nothing else is said."""

LEAST_SAMPLE: Final = 0.25
"""Share of the threshold that a peak's highest sample must reach. A Gaussian of sigma s whose centre lies between eight
coarse voxels shows exp(-3 / (8 s^2)) of its height; below s = 0.52 that is less than this share, and flat noise would
look the same."""

LARGEST_WINDOW: Final = 3
"""Samples on either side of a maximum that are fitted at most; it is about one sigma otherwise."""

FARTHEST: Final = 1.0
"""Coarse voxels along an axis from a peak's highest sample to its centre, at most; outwards at a border, any."""

LARGEST_EXCESS: Final = 1.5
"""A fitted height over the greatest one that the highest sample allows, from which on there is no Gaussian there: the
flank of a long one that lies askew and outside has maxima too."""

_REASSIGNMENTS: Final = 10
"""Rounds at most; few are needed but where peaks are less than three sigmas apart. Twice as many find no more."""
_SETTLED: Final = 1e-9
_RIDGE: Final = 1e-11
"""Of the weights' sum: keeps an axis along which there is only one sample where that sample is."""
_SAME_PEAK: Final = 0.5
"""Coarse voxels within which two maxima of equal height are one peak between two voxels."""


@dataclass(frozen=True, eq=False)
class Peaks:
    """The peaks of one heatmap, by class and then by falling score.

    Attributes:
        local_ds: (P, 3) float64 index coordinates on the coarse grid, z, y, x; beyond the grid where a Gaussian reaches
            in from outside.
        class_index: (P,) int32 channel.
        score: (P,) float64 height of the fitted Gaussian. It is above the sample where the centre lies between voxels.
        value: (P,) float64 the highest sample.
    """

    local_ds: NDArray[np.float64]
    class_index: NDArray[np.int32]
    score: NDArray[np.float64]
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.local_ds)


def find_peaks(
    heatmap: ArrayLike, *, sigma: ArrayLike | None, covariance: ArrayLike | None = None, threshold: float = THRESHOLD
) -> Peaks:
    """Find the peaks of a heatmap, to a fraction of a coarse voxel.

    Args:
        heatmap: (C, d, h, w) numbers, about 1 where a keypoint is and 0 where none is.
        sigma: (3,) or one number, the Gaussian's sigma in coarse voxels that the network was taught. None fits it,
            which asks more of the samples, and three voxels of every axis.
        covariance: (3, 3) in coarse voxels squared, in place of sigma.
        threshold: Least height of a Gaussian.

    Returns:
        Its peaks, those beyond the border included.

    Raises:
        UsageError: If the heatmap has other axes or values that are not finite, if sigma, covariance or threshold are
            not above 0, both sigma and covariance are given, or neither and an axis has fewer than three voxels.
    """
    values = _checked_heatmap(heatmap)
    precision = _precision(sigma, covariance, values.shape[1:])
    if not threshold > 0:
        raise UsageError.at("threshold", expected="a number above 0", found=f"{threshold}")
    parts = [_of_channel(channel, precision, threshold) for channel in values]
    return Peaks(
        np.concatenate([part[0] for part in parts]),
        np.repeat(np.arange(len(parts), dtype=np.int32), [len(part[0]) for part in parts]),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
    )


def _checked_heatmap(heatmap: ArrayLike) -> NDArray[np.float64]:
    given = np.asarray(heatmap)
    if given.ndim != 4 or not given.size or given.dtype.kind not in "fiub":
        found = f"{given.dtype} of shape {given.shape}"
        raise UsageError.at("heatmap", expected="numbers of shape (C, d, h, w)", found=found)
    values = given.astype(np.float64)
    if not np.isfinite(values).all():
        raise UsageError.at(
            "heatmap", expected="finite numbers", found=f"{np.count_nonzero(~np.isfinite(values))} others"
        )
    return values


def _precision(
    sigma: ArrayLike | None, covariance: ArrayLike | None, grid: Sequence[int]
) -> NDArray[np.float64] | None:
    """(3, 3) inverse of the covariance; None to fit it."""
    if sigma is not None and covariance is not None:
        raise UsageError.at("sigma", expected="a sigma or a covariance", found="both")
    if covariance is not None:
        return _inverted(np.asarray(covariance, np.float64))
    if sigma is None:
        if min(grid) < 3:
            found = " × ".join(map(str, grid))
            raise UsageError.at(
                "heatmap", expected="three voxels an axis, to fit sigma", found=found, hint="give sigma"
            )
        return None
    sigmas = np.asarray(sigma, np.float64)
    if sigmas.shape not in ((), (3,)) or not np.all(sigmas > 0) or not np.isfinite(sigmas).all():
        raise UsageError.at("sigma", expected="one number or three, above 0", found=str(sigmas.tolist()))
    return np.diag(np.broadcast_to(sigmas, (3,)) ** -2.0)


def _inverted(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    good = covariance.shape == (3, 3) and np.isfinite(covariance).all() and np.allclose(covariance, covariance.T)
    if not good or not np.linalg.eigvalsh(covariance).min() > 0:
        expected = "a (3, 3) matrix, symmetric and positive definite"
        raise UsageError.at("covariance", expected=expected, found=str(covariance.tolist()))
    return np.asarray(np.linalg.inv(covariance), np.float64)


def _of_channel(
    channel: NDArray[np.float64], precision: NDArray[np.float64] | None, threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centres, heights and highest samples of one class."""
    at = _maxima(channel, threshold * _least_share(precision))
    window = _Window.around(channel, at, precision)
    center, height = window.fit(precision)
    kept = _without_twins(center, height, height >= threshold)
    at, window, center, height = at[kept], window.take(kept), center[kept], height[kept]
    if precision is not None and len(at):
        center, height = _told_apart(window, center, height, precision)
        possible = LARGEST_EXCESS * _possible_height(channel, at, center, precision)
        kept = _without_twins(center, height, (height >= threshold) & (height <= possible))
        at, center, height = at[kept], center[kept], height[kept]
    order = np.argsort(-height, kind="stable")
    return center[order], height[order], channel[tuple(at[order].T)]


def _least_share(precision: NDArray[np.float64] | None) -> float:
    """Share of a Gaussian's height that its highest sample has at least: that of a centre between eight voxels."""
    if precision is None:
        return 1.0
    return max(float(np.exp(-0.5 * _farthest_square(precision))), LEAST_SAMPLE)


def _possible_height(
    channel: NDArray[np.float64],
    at: NDArray[np.int64],
    center: NDArray[np.float64],
    precision: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(P,) greatest height of a Gaussian in the grid whose highest sample is this one; infinite for one outside."""
    inside = ((center > -0.5) & (center < np.array(channel.shape) - 0.5)).all(axis=1)
    greatest = channel[tuple(at.T)] * np.exp(0.5 * _farthest_square(precision))
    return np.asarray(np.where(inside, greatest, np.inf), np.float64)


def _farthest_square(precision: NDArray[np.float64]) -> float:
    """Of the distance, in sigmas, from a centre to the sample that is nearest: its worst case, between eight."""
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
    return float(_squares(corners, precision).max())


def _farthest(precision: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """(3,) as `FARTHEST`; a long Gaussian askew to the axes may show several maxima along its length."""
    if precision is None or np.array_equal(precision, np.diag(np.diag(precision))):
        return np.full(3, FARTHEST)
    sigma = np.sqrt(np.diag(np.linalg.inv(precision)))
    return np.asarray(np.maximum(FARTHEST, np.sqrt(_farthest_square(precision)) * sigma), np.float64)


def _squares(offsets: NDArray[Any], precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """(...) of (..., 3) offsets: ``offset^T precision offset``; the precision may be (3, 3) or one each."""
    return np.asarray(np.einsum("...i,...ij,...j->...", offsets, precision, offsets), np.float64)


def _maxima(channel: NDArray[np.float64], floor: float) -> NDArray[np.int64]:
    """(P, 3) indices of voxels that none of their 26 neighbours exceeds, highest first."""
    from scipy import ndimage  # noqa: PLC0415 - a third of a second that reading stores need not wait for

    highest = ndimage.maximum_filter(channel, size=3, mode="constant", cval=-np.inf)
    at = np.argwhere((channel == highest) & (channel >= floor))
    return at[np.argsort(-channel[tuple(at.T)], kind="stable")]


@dataclass(frozen=True, eq=False)
class _Window:
    """The samples around P maxima.

    Attributes:
        at: (P, 3) the maxima.
        grid: (3,) voxels.
        steps: (P, W, 3) from the maximum to each sample.
        logs: (P, W) of their values; 0 where a value is not above 0.
        weights: (P, W) their values squared, over the maximum's; 0 where a value is not above 0.
    """

    at: NDArray[np.int64]
    grid: NDArray[np.int64]
    steps: NDArray[np.int64]
    logs: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def around(
        cls, channel: NDArray[np.float64], at: NDArray[np.int64], precision: NDArray[np.float64] | None
    ) -> _Window:
        """Boxes of about a sigma to either side, at a border moved inwards so that none has fewer samples."""
        grid = np.array(channel.shape)
        sigma = np.ones(3) if precision is None else np.sqrt(np.diag(np.linalg.inv(precision)))
        radius = np.clip(np.rint(sigma), 1, LARGEST_WINDOW)
        size = np.minimum(2 * radius.astype(np.int64) + 1, grid)
        first = np.clip(at - size // 2, 0, grid - size)
        within = np.array(list(itertools.product(*map(range, size))))
        index = first[:, None] + within
        values = channel[index[..., 0], index[..., 1], index[..., 2]]
        positive = values > 0
        highest = channel[tuple(at.T)][:, None]
        return cls(
            at,
            grid,
            index - at[:, None],
            np.log(np.where(positive, values, 1.0)),
            np.where(positive, values / highest, 0.0) ** 2,
        )

    def take(self, rows: NDArray[Any]) -> _Window:
        return _Window(self.at[rows], self.grid, self.steps[rows], self.logs[rows], self.weights[rows])

    def fit(
        self, precision: NDArray[np.float64] | None, share: NDArray[np.float64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(P, 3) centres and (P,) heights; ``share`` (P, W) of each sample's weight counts."""
        weights = self.weights if share is None else self.weights * share
        shift, precisions = self._shifts(weights, precision)
        shift = self._bounded(shift, _farthest(precision))
        offset = self.steps - shift[:, None]
        square = _squares(offset, precisions[:, None])
        level = np.sum(weights * (self.logs + 0.5 * square), axis=1) / weights.sum(axis=1)
        return self.at + shift, np.exp(np.minimum(level, 700.0))

    def _shifts(
        self, weights: NDArray[np.float64], precision: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(P, 3) from the maxima to the centres, and the (P, 3, 3) precisions, fitted or given."""
        steps = self.steps.astype(np.float64)
        n = len(steps)
        linear = [np.ones(steps.shape[:2]), *np.moveaxis(steps, 2, 0)]
        if precision is not None:
            flattened = self.logs + 0.5 * _squares(steps, precision)
            slope = _least_squares(linear, flattened, weights)[:, 1:]
            return slope @ np.linalg.inv(precision), np.broadcast_to(precision, (n, 3, 3))
        pairs = [(i, j) for i in range(3) for j in range(i, 3)]
        products = [steps[..., i] * steps[..., j] for i, j in pairs]
        found = _least_squares([*linear, *products], self.logs, weights)
        fitted = np.zeros((n, 3, 3))
        for (i, j), coefficient in zip(pairs, found[:, 4:].T, strict=True):
            fitted[:, i, j] -= coefficient
            fitted[:, j, i] -= coefficient
        # A window that is no hill in every direction has no centre: the highest sample stands for it.
        hill = np.linalg.eigvalsh(fitted).min(axis=1, initial=np.inf) > 0
        safe = np.where(hill[:, None, None], fitted, np.eye(3))
        shift = np.linalg.solve(safe, found[:, 1:4, None])[..., 0]
        return np.where(hill[:, None], shift, 0.0), np.where(hill[:, None, None], fitted, 0.0)

    def _bounded(self, shift: NDArray[np.float64], farthest: NDArray[np.float64]) -> NDArray[np.float64]:
        """A centre beyond the next sample contradicts the maximum, but for where there is no next sample."""
        low = np.where(self.at == 0, -np.inf, -farthest)
        high = np.where(self.at == self.grid - 1, np.inf, farthest)
        return np.asarray(np.clip(shift, low, high), np.float64)


def _least_squares(
    columns: Sequence[NDArray[np.float64]], values: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(P, M) coefficients of P weighted fits of M columns, each (P, W)."""
    basis = np.stack(columns, axis=-1)
    weighted = basis * weights[..., None]
    normal = np.einsum("pwm,pwn->pmn", weighted, basis)
    ridge = _RIDGE * weights.sum(axis=1)[:, None, None] * np.diag([0.0] + [1.0] * (len(columns) - 1))
    right = np.einsum("pwm,pw->pm", weighted, values)
    return np.asarray(np.linalg.solve(normal + ridge, right[..., None])[..., 0], np.float64)


def _without_twins(
    center: NDArray[np.float64], height: NDArray[np.float64], wanted: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Rows that are wanted, one of each peak that shows two equal maxima, highest first."""
    from scipy.spatial import cKDTree  # noqa: PLC0415 - as above

    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(-height[rows], kind="stable")]
    if len(rows) < 2:
        return rows
    twin = np.zeros(len(rows), np.bool_)
    for first, second in sorted(cKDTree(center[rows]).query_pairs(_SAME_PEAK, p=np.inf)):
        twin[second] |= not twin[first]
    return rows[~twin]


def _told_apart(
    window: _Window, center: NDArray[np.float64], height: NDArray[np.float64], precision: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit again, each peak by the samples in which nothing else stands higher.

    Another peak that is nearly as high makes a sample count little; so does a value above the peak's own, which the
    tail of a Gaussian outside of the grid leaves there.
    """
    pairs = _neighbours(window)
    samples = window.at[:, None] + window.steps
    at_maximum = (window.steps == 0).all(axis=2)
    first, second = pairs.T
    # The nearest samples are the least of all another peak's: a first guess that leads to the right shares.
    nearest = np.asarray((np.abs(window.steps) <= 1).all(axis=2), np.float64)
    center, height = window.fit(precision, nearest)
    for _ in range(_REASSIGNMENTS):
        own = _log_value(samples, center[:, None], height[:, None], precision)
        other = np.full(own.shape, -np.inf)
        there = _log_value(samples[first], center[second, None], height[second, None], precision)
        np.maximum.at(other, first, there)
        nearly = np.exp(np.minimum(2 * (other - own), 0.0))
        above = np.exp(np.minimum(2 * (own - window.logs), 0.0))
        share: NDArray[np.float64] = np.asarray(np.where(at_maximum, 1.0, (1.0 - nearly) * above))
        before, (center, height) = center, window.fit(precision, share)
        if np.abs(center - before).max() < _SETTLED:
            break
    return center, height


def _neighbours(window: _Window) -> NDArray[np.int64]:
    """(M, 2) pairs, both ways round, of peaks that may be the higher one in some sample of each other's window."""
    from scipy.spatial import cKDTree  # noqa: PLC0415 - as above

    # The samples end about a sigma from their peak; a centre more than twice as far off is lower in all of them.
    scale = np.abs(window.steps).max(axis=(0, 1)) * 2 + 2.0
    pairs = cKDTree(window.at / scale).query_pairs(1.0, p=np.inf, output_type="ndarray")
    return np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int64)


def _log_value(
    samples: NDArray[Any], center: NDArray[np.float64], height: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    value: NDArray[np.float64] = np.log(height) - 0.5 * _squares(samples - center, precision)
    return value
