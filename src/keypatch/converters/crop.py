"""Cutting one patch out of one volume: read the box, cast, fill what lies outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from keypatch.converters.scaling import NotFiniteError
from keypatch.errors import FormatError
from keypatch.geometry import Shape3, valid_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from keypatch.converters.scaling import Scaling
    from keypatch.formats.volumes import Volume

Padding: TypeAlias = Literal["zero", "mean", "edge", "reflect", "inside"]
PADDINGS: Final[tuple[Padding, ...]] = ("zero", "mean", "edge", "reflect", "inside")
"""What fills the part of a patch that lies outside its volume: stored zeros, the mean of the patch's own valid
voxels, the nearest of them, their mirror image; "inside" moves the box into the volume so that nothing is filled."""


def cut(
    volume: Volume,
    origin: Sequence[int],
    patch_shape: Shape3,
    *,
    scaling: Scaling,
    padding: Padding,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Cut one patch.

    Args:
        volume: Open.
        origin: (3,) volume index of the patch's voxel (0, 0, 0); may be negative.
        patch_shape: Voxels.
        scaling: From source voxels to stored ones; padding is done after it.
        padding: What fills the rest.
        out: C-contiguous array of ``patch_shape`` in the scaling's dtype to write into; a new one when left out.

    Returns:
        ``out``, or a new such array.

    Raises:
        ReadError: If the volume cannot be read there.
        FormatError: If a voxel is NaN or infinite, or does not fit the stored dtype.
    """
    start, stop = valid_box(origin, patch_shape, volume.info.shape)
    if not (stop > start).all():
        message = f"{volume.info.path}: the patch at {tuple(origin)} lies outside the volume"
        raise ValueError(message)
    patch = np.empty(patch_shape, scaling.dtype) if out is None else out
    valid = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    target = patch[valid]
    first = _shape3(start + origin)
    for where, block in volume.blocks(first, _shape3(stop + origin)):
        _take(block, scaling, target[where], f"{volume.info.path}, voxels {_box(first, where)}")
    _fill(patch, valid, padding)
    return patch


def _take(block: NDArray[Any], scaling: Scaling, target: NDArray[Any], where: str) -> None:
    try:
        scaling.apply(block, target)
    except NotFiniteError as error:
        raise FormatError.at(
            where, expected="finite voxels", found=str(error), hint="clean the volume first"
        ) from error
    except ValueError as error:
        raise FormatError.at(
            where,
            expected=f"values that {scaling.dtype} holds",
            found=str(error),
            hint="choose a wider --dtype or give --clip-percentiles",
        ) from error


def _fill(patch: NDArray[Any], valid: tuple[slice, ...], padding: Padding) -> None:
    """Write what lies outside ``valid``, from what lies inside it."""
    if padding in ("edge", "reflect"):
        margins = [(s.start, n - s.stop) for s, n in zip(valid, patch.shape, strict=True)]
        if any(margin != (0, 0) for margin in margins):
            patch[...] = np.pad(patch[valid], margins, mode="edge" if padding == "edge" else "reflect")
        return
    sides = [side for axis, s in enumerate(valid) for side in _sides(patch, valid, axis, s)]
    if sides:
        value = mean_voxel(patch[valid]) if padding == "mean" else 0
        for side in sides:
            side[...] = value


def _sides(patch: NDArray[Any], valid: tuple[slice, ...], axis: int, s: slice) -> list[NDArray[Any]]:
    """The slabs before and behind the valid part along one axis, within the valid part along the axes before it."""
    slabs = (slice(0, s.start), slice(s.stop, patch.shape[axis]))
    return [patch[(*valid[:axis], slab)] for slab in slabs if slab.stop > slab.start]


def mean_voxel(stored: NDArray[Any]) -> Any:  # noqa: ANN401 - a scalar of the array's dtype
    """What "mean" fills with: the mean, rounded for integers, which are summed exactly to be the same everywhere."""
    if stored.dtype.kind == "f":
        return stored.dtype.type(stored.mean(dtype=np.float64))
    total, n = _exact_sum(stored), stored.size
    return stored.dtype.type((2 * total + n) // (2 * n))


def _exact_sum(values: NDArray[Any]) -> int:
    if values.dtype.itemsize < 8:
        return int(values.sum(dtype=np.int64))
    # Of 64-bit integers the upper and the lower half, so that neither sum overflows.
    upper, lower = (values >> 32).astype(np.int64), (values & 0xFFFFFFFF).astype(np.int64)
    return (int(upper.sum()) << 32) + int(lower.sum())


def _box(first: Shape3, where: Sequence[slice]) -> str:
    return " ".join(f"{axis}[{at + s.start}:{at + s.stop}]" for axis, at, s in zip("zyx", first, where, strict=True))


def _shape3(values: NDArray[Any]) -> Shape3:
    z, y, x = (int(n) for n in values)
    return z, y, x
