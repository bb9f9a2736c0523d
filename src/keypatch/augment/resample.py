"""Images through a map: exact copies where voxels fall on voxels, else one pass of interpolation."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch.augment.rule import REAL_OF, Rule
from keypatch.errors import UsageError
from keypatch.formats.store.recycled import Recycler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from keypatch.augment.maps import Map
    from keypatch.geometry import Shape3

_LARGEST_INDEX: Final = 2**31 - 1
"""Voxels that compiled code can count; a larger window goes the slow way."""

_memory = Recycler()


@cache
def compiled() -> ModuleType | None:
    """`keypatch.augment.compiled`, or None where numba is not installed."""
    try:
        from keypatch.augment import compiled as loops  # noqa: PLC0415 - numba takes a second to import
    except ImportError:
        return None
    return loops


def resample(image: NDArray[Any], map: Map, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Bring a patch's image through a map.

    Args:
        image: (D, H, W) of the map's ``patch_shape``.
        map: As `Geometric.draw` gives it.
        out: C-contiguous array of the map's shape and the image's dtype to write into; a new one when left out.

    Returns:
        ``out``, or a new such array; never a view of the image.

    Raises:
        UsageError: If the image has another shape, a dtype that cannot be interpolated or that does not hold the fill
            value, or if the map leaves the patch where padding is "none".
    """
    if image.shape != map.patch_shape:
        raise UsageError.at("map", expected=f"an image of {map.patch_shape} voxels", found=str(image.shape))
    return resample_window(image, (0, 0, 0), map, out)


def window_of(map: Map) -> tuple[Shape3, Shape3]:
    """First voxel and shape of the part of the patch that a map needs; at least one voxel.

    Raises:
        UsageError: If the map leaves the patch and padding is "none".
    """
    lowest, highest = map.bounds()
    last = np.array(map.patch_shape, np.float64) - 1
    if map.padding == "none" and (np.any(lowest < 0) or np.any(highest > last)):
        raise UsageError.at(
            "map",
            expected=f"a sample that lies inside of the patch, 0 to {last.tolist()}",
            found=f"{lowest.round(3).tolist()} to {highest.round(3).tolist()}",
            hint="choose a padding",
        )
    if map.padding == "reflect":
        lowest, highest = _reflected(lowest, highest, last)
    first = np.clip(np.floor(lowest), 0, np.maximum(last - 1, 0)).astype(int)
    stop = np.clip(np.floor(highest), 0, np.maximum(last - 1, 0)).astype(int) + np.minimum(last, 1).astype(int) + 1
    (z, y, x), (d, h, w) = first.tolist(), (stop - first).tolist()
    return (z, y, x), (d, h, w)


def _reflected(
    lowest: NDArray[np.float64], highest: NDArray[np.float64], last: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is needed where mirrors stand at 0 and ``last``; all of an axis where both are reached."""
    low = np.where(lowest < 0, 0, np.minimum(lowest, 2 * last - highest))
    high = np.where(highest > last, last, np.maximum(highest, -lowest))
    whole = (lowest < -last) | (highest > 2 * last) | ((lowest < 0) & (highest > last))
    return np.where(whole, 0, np.maximum(low, 0)), np.where(whole, last, np.minimum(high, last))


def resample_window(
    window: NDArray[Any],
    start: Sequence[int],
    map: Map,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """As `resample`, from the window of the patch that `window_of` names, or a larger one, that begins at ``start``."""
    window = window.astype(window.dtype.newbyteorder("="), copy=False)
    _check_fill(map, window.dtype)
    result = _memory.empty(map.shape, window.dtype) if out is None else out
    if result.shape != map.shape or result.dtype != window.dtype or not result.flags.c_contiguous:
        message = f"out of shape {map.shape} and dtype {window.dtype}, C-contiguous, expected, found {result.shape}"
        raise ValueError(message)
    if map.is_exact:
        _copy(window, start, map, result)
        return result
    if window.dtype.name not in REAL_OF:
        raise UsageError.at(
            "map",
            expected=f"an image of one of the dtypes {', '.join(REAL_OF)}, which can be interpolated",
            found=window.dtype.name,
            hint="use only flips, quarter turns and crops, or another dtype",
        )
    z, y, x = start
    rule = Rule((z, y, x), map.patch_shape, map.matrix[:3].tolist(), map.padding, _fill(map), map.order)
    loops = compiled()
    if loops is None or window.size > _LARGEST_INDEX:
        _slowly(window, rule, map, result)
    elif window.dtype.name == "float16":  # which processors do not calculate in
        result[...] = _quickly(loops, window.astype(np.float32), rule, map, np.empty(map.shape, np.float32))
    else:
        _quickly(loops, window, rule, map, result)
    return result


def _fill(map: Map) -> float:
    return float(map.fill) if map.padding == "constant" else 0.0


def _check_fill(map: Map, dtype: np.dtype[Any]) -> None:
    fill = _fill(map)
    with np.errstate(all="ignore"):
        held = dtype.kind == "f" or (np.isfinite(fill) and fill == np.clip(fill, *_limits(dtype)) and fill == int(fill))
        held = held and (dtype.kind != "f" or not np.isfinite(fill) or bool(np.isfinite(dtype.type(fill))))
    if not held:
        raise UsageError.at("map, fill", expected=f"a value that {dtype.name} holds", found=str(fill))


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind not in "iu":
        return 0.0, 1.0
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def _copy(window: NDArray[Any], start: Sequence[int], map: Map, out: NDArray[Any]) -> None:
    """Flips, quarter turns, crops and whole shifts: each axis of the sample walks along one of the patch."""
    linear, offset = map.matrix[:3, :3].astype(int), map.matrix[:3, 3].astype(int)
    places = []
    for axis, (row, first) in enumerate(zip(linear, offset, strict=True)):
        along = int(np.flatnonzero(row)[0])
        places.append((along, row[along] * np.arange(map.shape[along]) + first, map.patch_shape[axis]))
    # The axes of the patch in the order of the sample's.
    order = np.argsort([along for along, _, _ in places])
    seen, index = [], []
    for axis in order:
        _, place, n = places[axis]
        inside = (place >= 0) & (place < n) if map.padding in {"zero", "constant"} else np.ones(len(place), bool)
        seen.append(_extent(inside))
        index.append(_inside(place[seen[-1]], n, map.padding) - start[axis])
    if any(s.stop - s.start < n for s, n in zip(seen, map.shape, strict=True)):
        out[...] = _fill(map)
    target = out[tuple(seen)]
    if target.size:
        target[...] = _taken(window.transpose(order), index)


def _extent(inside: NDArray[np.bool_]) -> slice:
    """The one run of True."""
    hits = np.flatnonzero(inside)
    return slice(int(hits[0]), int(hits[-1]) + 1) if len(hits) else slice(0, 0)


def _inside(place: NDArray[np.int64], n: int, padding: str) -> NDArray[np.int64]:
    if padding == "reflect" and n > 1:
        place = np.abs((place + n - 1) % (2 * n - 2) - (n - 1))
    return np.clip(place, 0, n - 1)


def _taken(window: NDArray[Any], index: Sequence[NDArray[np.int64]]) -> NDArray[Any]:
    """A view where every axis runs straight, a copy else."""
    for axis, places in enumerate(index):
        step = int(places[1] - places[0]) if len(places) > 1 else 1
        if abs(step) == 1 and np.array_equal(places, places[0] + step * np.arange(len(places))):
            end = int(places[-1]) + step
            along = slice(int(places[0]), end if end >= 0 else None, step)
            window = window[(slice(None),) * axis + (along,)]
        else:
            window = window.take(places, axis=axis)
    return window


def _slowly(window: NDArray[Any], rule: Rule, map: Map, out: NDArray[Any]) -> None:
    """The rule itself, plane by plane."""
    depth, *shape = map.shape
    displacements = _displacements(map) if map.elastic else (None for _ in range(depth))
    for z, displacement in zip(range(depth), displacements, strict=True):
        value = rule.plane(window, rule.places(z, shape, displacement))
        out[z] = np.rint(value) if out.dtype.kind in "iu" else value


def _lattice(map: Map) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Displacements in the patch of an elastic map's control points, their weights (controls, n) along each axis."""
    assert map.elastic is not None  # noqa: S101 - for the type checker
    lattice = np.ascontiguousarray(np.einsum("ij,jabc->iabc", map.matrix[:3, :3], map.elastic.control))
    return lattice, [map.elastic.weights(axis, np.arange(n, dtype=np.float64)) for axis, n in enumerate(map.shape)]


def _displacements(map: Map) -> Iterator[list[NDArray[np.float64]]]:
    """For each plane of the sample and each axis of the patch (h, w), added in the order of the compiled code."""
    lattice, (along_z, along_y, along_x) = _lattice(map)
    for weight in along_z.T:
        rows = sum(w * part for w, part in zip(weight, lattice.transpose(1, 0, 2, 3), strict=True))
        lines = sum(w[:, None] * rows[:, b, None] for b, w in enumerate(along_y))
        yield [sum(w * line[:, c, None] for c, w in enumerate(along_x)) for line in lines]


def _quickly(
    loops: ModuleType,
    window: NDArray[Any],
    rule: Rule,
    map: Map,
    out: NDArray[Any],
) -> NDArray[Any]:
    window = np.ascontiguousarray(window)
    if window.shape[2] == 1:
        window = np.repeat(window, 2, axis=2)  # compiled code reads voxels two by two
    real = np.dtype(REAL_OF[window.dtype.name])
    width = map.shape[2]
    buffers = (
        *(np.empty(width) for _ in range(2)),
        np.empty(width, np.int32),
        *(np.empty(width, real) for _ in range(4)),
    )
    outside = {"reflect": loops.REFLECT, "edge": loops.EDGE}.get(rule.padding, loops.CONSTANT)
    start, full = np.array(rule.start, np.int64), np.array(rule.full, np.int64)
    common = (window, start, full, np.array(map.matrix[:3]), outside, np.array([rule.fill], real))
    rounded = out.dtype.kind in "iu"
    if map.elastic is not None:
        lattice, weights = _lattice(map)
        elastic = (lattice, *weights, _support(weights[2]))
        loops.curved(*common, rule.order, rounded, elastic, (*buffers, np.empty(width)), out)
    elif rule.order == 1 and map.matrix[0, 1] == 0 and map.matrix[0, 2] == 0:
        loops.planar(*common, rounded, buffers, np.empty(window.shape[1:], real), out)
    else:
        loops.general(*common, rule.order, rounded, buffers, out)
    return out


def _support(weight: NDArray[np.float64]) -> NDArray[np.int64]:
    """(c, 2) first voxel that each B-spline reaches, and the first behind."""
    reached = weight != 0
    first = reached.argmax(axis=1)
    stop = weight.shape[1] - reached[:, ::-1].argmax(axis=1)
    return np.stack([first, np.where(reached.any(axis=1), stop, first)], axis=1).astype(np.int64)
