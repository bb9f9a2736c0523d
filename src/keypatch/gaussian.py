"""The Gaussian target: the one place where it is written down.

    value[c, j] = max over keypoints k of class c of exp(-1/2 * sum over axes ((j - local_ds[k]) / sigma)^2)

The sum in the exponent separates, so a keypoint costs d + h + w exponentials and one outer product. The exponential
is our own, of additions and multiplications only: the C library's and numpy's differ in the last bit between
processors, and a store must have the same bytes wherever it was built.

Augmentation adds two things: a keypoint may have a weight, which its Gaussian is multiplied by before the maximum is
taken, and a whole covariance in place of a sigma an axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

REACH = 6.0
"""Sigmas beyond a patch's box up to which its keypoints are kept: exp(-18) = 1.5e-8 is left out there."""

# ln 2 in two parts, the first with 21 trailing zero bits so that k * LN2_HIGH is exact for |k| < 2^20
# (Cody and Waite's reduction; the two constants are those of the public-domain fdlibm, e_exp.c).
_LN2_HIGH = float.fromhex("0x1.62e42feep-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_LOG2_E = float.fromhex("0x1.71547652b82fep+0")
# Taylor's coefficients 1/n!. On |r| <= ln2/2 the first term left out, r^14/14!, is below 5e-18 of the sum.
_COEFFICIENTS = tuple(
    1.0 / n for n in (6227020800, 479001600, 39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1)
)
_UNDERFLOW = -745.2


def exp_reproducible(exponent: NDArray[np.float64]) -> NDArray[np.float64]:
    """``exp`` of numbers <= 0 with the same bits on every machine, within 2 units in the last place.

    Args:
        exponent: Any shape, float64, not above 0. Below -745.2 the result is 0, as in the C library.

    Returns:
        Same shape, float64.
    """
    bounded = np.maximum(exponent, _UNDERFLOW)
    k = np.rint(bounded * _LOG2_E)
    r = (bounded - k * _LN2_HIGH) - k * _LN2_LOW
    total = np.full_like(r, _COEFFICIENTS[0])
    for coefficient in _COEFFICIENTS[1:]:
        total = total * r + coefficient
    return np.where(exponent < _UNDERFLOW, 0.0, np.ldexp(total, k.astype(np.int32)))


def render(
    local_ds_coords: ArrayLike,
    class_index: ArrayLike,
    *,
    n_classes: int,
    grid: Sequence[int],
    sigma: ArrayLike,
    weight: ArrayLike | None = None,
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """Write the Gaussian target of one patch from its formula.

    The centres are floats: a sampled peak may be below 1 and is not stretched. Keypoints outside the grid reach in.

    Args:
        local_ds_coords: (K, 3) float index coordinates on the coarse grid, z, y, x.
        class_index: (K,) integers in [0, n_classes).
        n_classes: Channels C of the result.
        grid: (d, h, w) of the coarse grid.
        sigma: (K, 3), (3,) or one number, in coarse voxels, above 0.
        weight: (K,) factors on the keypoints' Gaussians, not below 0; 1 each when left out.
        dtype: float32 or float16; rounded once, from float64.

    Returns:
        (C, d, h, w) array of ``dtype``, values in [0, 1], or up to the largest weight.

    Raises:
        ValueError: If the shapes do not fit, a coordinate is NaN, a class is out of range, a sigma is not above 0 or
            a weight is below 0.
    """
    centers, classes, weights = _checked(local_ds_coords, class_index, weight, n_classes)
    if not np.all(np.asarray(sigma, np.float64) > 0):
        message = f"expected a sigma above 0, found {np.asarray(sigma).tolist()}"
        raise ValueError(message)
    widths = np.broadcast_to(np.asarray(sigma, np.float64), (len(centers), 3))
    target = np.zeros((n_classes, *grid), np.float64)
    # A point far off in a narrow Gaussian overflows to infinity, whose exponential is the 0 that is meant.
    with np.errstate(over="ignore"):
        profiles = [
            exp_reproducible(
                -0.5 * ((np.arange(n, dtype=np.float64) - centers[:, axis, None]) / widths[:, axis, None]) ** 2
            )
            for axis, n in enumerate(grid)
        ]
    for k, c in enumerate(classes):
        z, y, x = (profile[k] for profile in profiles)
        height = 1.0 if weights is None else weights[k]
        np.maximum(target[c], (height * z)[:, None, None] * (y[:, None] * x), out=target[c])
    return target.astype(dtype)


def render_covariance(
    local_ds_coords: ArrayLike,
    class_index: ArrayLike,
    *,
    n_classes: int,
    grid: Sequence[int],
    covariance: ArrayLike,
    weight: ArrayLike | None = None,
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """As `render`, with a whole covariance a keypoint: ``exp(-1/2 (j - c)^T covariance^-1 (j - c))``.

    It is what `render` writes where every covariance is ``diag(sigma ** 2)``.

    Args:
        local_ds_coords: As for `render`.
        class_index: As for `render`.
        n_classes: As for `render`.
        grid: As for `render`.
        covariance: (K, 3, 3) or (3, 3), in coarse voxels squared, symmetric, z, y, x.
        weight: As for `render`.
        dtype: As for `render`.

    Returns:
        (C, d, h, w) array of ``dtype``.

    Raises:
        ValueError: As for `render`, and if a covariance is not symmetric and positive definite.
    """
    centers, classes, weights = _checked(local_ds_coords, class_index, weight, n_classes)
    precisions = _precisions(np.broadcast_to(np.asarray(covariance, np.float64), (len(centers), 3, 3)))
    target = np.zeros((n_classes, *grid), np.float64)
    for k, (c, p) in enumerate(zip(classes, precisions, strict=True)):
        z, y, x = np.ogrid[tuple(slice(0.0, n) for n in grid)]
        z, y, x = z - centers[k, 0], y - centers[k, 1], x - centers[k, 2]
        with np.errstate(over="ignore", invalid="ignore"):
            square = p[0, 0] * z * z + p[1, 1] * y * y + p[2, 2] * x * x
            square = square + 2 * (p[0, 1] * z * y + p[0, 2] * z * x + p[1, 2] * y * x)
        # Far off, infinities of both signs meet in a NaN that stands for a distance no double holds.
        value = exp_reproducible(-0.5 * np.where(np.isnan(square), np.inf, np.maximum(square, 0.0)))
        np.maximum(target[c], value if weights is None else weights[k] * value, out=target[c])
    return target.astype(dtype)


def _precisions(covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    skew = np.abs(covariances - covariances.transpose(0, 2, 1)).max(axis=(1, 2), initial=0)
    symmetric = np.all(skew <= 1e-9 * np.abs(covariances).max(axis=(1, 2), initial=0))
    if not symmetric or not np.all(np.linalg.eigvalsh(covariances) > 0):
        message = f"expected covariances that are symmetric and positive definite, found {covariances.tolist()}"
        raise ValueError(message)
    precisions: NDArray[np.float64] = np.linalg.inv(covariances).astype(np.float64)
    return precisions


def _checked(
    local_ds_coords: ArrayLike, class_index: ArrayLike, weight: ArrayLike | None, n_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64] | None]:
    """Keypoints, their classes and their weights."""
    centers = _rows(local_ds_coords)
    classes = np.asarray(class_index, np.int64).reshape(-1)
    if len(centers) != len(classes):
        message = f"expected one class a keypoint, found {len(classes)} classes and {len(centers)} keypoints"
        raise ValueError(message)
    if len(classes) and not (classes.min() >= 0 and classes.max() < n_classes):
        message = f"expected classes in 0 … {n_classes - 1}, found {classes.min()} … {classes.max()}"
        raise ValueError(message)
    if weight is None:
        return centers, classes, None
    weights = np.asarray(weight, np.float64).reshape(-1)
    if len(weights) != len(centers) or not np.all(weights >= 0):
        message = f"expected {len(centers)} weights that are not below 0, found {weights.tolist()}"
        raise ValueError(message)
    return centers, classes, weights


def _rows(coords: ArrayLike) -> NDArray[np.float64]:
    """Keypoints as (K, 3); points given as columns hold as many numbers, and are an error, not another scene."""
    centers = np.asarray(coords, np.float64)
    if centers.size == 0:
        return centers.reshape(0, 3)
    if centers.ndim != 2 or centers.shape[1] != 3:
        message = f"expected keypoints of shape (K, 3), found {centers.shape}"
        raise ValueError(message)
    if np.isnan(centers).any():
        message = "expected keypoints that are numbers, found NaN"
        raise ValueError(message)
    return centers
