"""Volumes on a grid of another voxel spacing, resampled while they are read.

The kernel is Lanczos with three lobes (Duchon 1979, https://doi.org/10.1175/1520-0450(1979)018<1016:LFIOAT>2.0.CO;2),
one axis at a time. Towards coarser voxels it is stretched by the ratio of the spacings, so that it filters what the new
grid cannot hold as it interpolates: up to half the new Nyquist frequency it passes all within 1.6 %, beyond 1.35 times
Nyquist it damps by more than 20 dB, beyond 1.45 times by more than 35. Outside of the volume lies its mirror image.

A resampled voxel is one fixed sum: the same source voxels and weights in the same order, whatever box it is read in.
Weights and sums are made of additions, multiplications and divisions of float64 alone, each rounded as IEEE 754 says,
and of no library's sine or matrix product, so every machine gives the same bytes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from keypatch import geometry
from keypatch.converters.settings import MOST_ON_AN_AXIS
from keypatch.errors import StoreError, UsageError
from keypatch.formats.volumes.reader import VolumeReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.volumes import Volume, VolumeInfo
    from keypatch.geometry import Shape3, Vector3, World

SAME_SPACING: Final = 1e-3
"""Relative difference up to which a volume has the spacing already: headers round, as 13.33 for 40/3."""

KERNEL: Final = "lanczos3"
LOBES: Final = 3

SLAB_BYTES: Final = 32 * 2**20
"""Source voxels that are read at once, so that a coarse patch of a fine volume does not bring all of it into memory."""


@dataclass(frozen=True)
class Resampling:
    """From the grid of a source to the one that its patches are cut on.

    Attributes:
        source_shape: Voxels of the source, z, y, x.
        source_spacing: Å, z, y, x, that counts for the source.
        spacing: Å, z, y, x, of the new grid.
    """

    source_shape: Shape3
    source_spacing: Vector3
    spacing: Vector3

    @classmethod
    def towards(cls, target: Vector3 | None, path: Path, shape: Shape3, spacing: Vector3) -> Self | None:
        """What brings a volume to a spacing; None where none is asked for or it has that already.

        Args:
            target: Å, z, y, x, or None.
            path: For messages.
            shape: Voxels of the volume.
            spacing: Å, z, y, x, that counts for it.

        Raises:
            UsageError: If the volume would have no voxel, or too many.
        """
        if target is None or has_spacing(spacing, target):
            return None
        new = geometry.resampled_shape(shape, spacing, target)
        if not all(0 < n <= MOST_ON_AN_AXIS for n in new):
            raise UsageError.at(
                "--resample-to",
                expected=f"a spacing at which every axis has 1 to {MOST_ON_AN_AXIS} voxels",
                found=f"{new} voxels for {path} of {shape} at {spacing} Å",
            )
        return cls(shape, spacing, target)

    @property
    def shape(self) -> Shape3:
        """Voxels of the new grid."""
        return geometry.resampled_shape(self.source_shape, self.source_spacing, self.spacing)

    def coords(self, source: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K, 3) index coordinates of the source, z, y, x, on the new grid."""
        return geometry.resampled(source, self.source_spacing, self.spacing)

    def info(self, source: VolumeInfo) -> VolumeInfo:
        """The header of the resampled volume."""
        return replace(
            source,
            shape=self.shape,
            voxel_spacing=self.spacing,
            access="region" if source.access == "mapped" else source.access,
            world=None if source.world is None else self._world(source.world),
        )

    def _world(self, source: World) -> World:
        # The affine map of the source after that from the new grid's index to the source's.
        ratio = np.divide(self.spacing, self.source_spacing)
        to_source = np.diag([*ratio, 1.0])
        to_source[:3, 3] = geometry.resampled(np.zeros(3), self.spacing, self.source_spacing)
        return tuple(tuple(map(float, row)) for row in np.asarray(source) @ to_source)

    def to_json(self) -> dict[str, Any]:
        """As it lies in the store."""
        return {
            "kernel": KERNEL,
            "source_shape": list(self.source_shape),
            "source_spacing": list(self.source_spacing),
            "spacing": list(self.spacing),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Self | None:
        """Read `to_json`'s form, or None; keys of a newer minor version are passed over.

        Raises:
            KeyError: If a key is missing.
            TypeError: If a value is of another type.
            ValueError: If a value is another than it can be.
            StoreError: If the kernel is none that this program knows.
        """
        if value is None:
            return None
        if value["kernel"] != KERNEL:
            hint = "a newer keypatch may know it"
            raise StoreError.at("resampling", expected=f"the kernel {KERNEL}", found=repr(value["kernel"]), hint=hint)
        d, h, w = map(int, value["source_shape"])
        (a, b, c), (z, y, x) = map(float, value["source_spacing"]), map(float, value["spacing"])
        return cls((d, h, w), (a, b, c), (z, y, x))


def has_spacing(spacing: Vector3, target: Vector3) -> bool:
    """Whether a volume's spacing is the target already, within `SAME_SPACING` on every axis."""
    return all(abs(s - t) <= SAME_SPACING * t for s, t in zip(spacing, target, strict=True))


class ResampledVolume(VolumeReader):
    """A volume as `Resampling` says. It owns the volume that it reads from.

    Args:
        source: Open.
        resampling: For a source of this shape.
    """

    def __init__(self, source: Volume, resampling: Resampling) -> None:
        super().__init__(resampling.info(source.info))
        self.source = source
        self._resampling = resampling

    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        """Plane by plane of the source: along y and x at once, along z into sums that end with their last plane."""
        axes = zip((z, y, x), *_axes(self._resampling), strict=True)
        taps = [Taps.of(s.start, s.stop, n, old, new) for s, n, old, new in axes]
        along_z, along_y, along_x = taps
        out = np.empty((z.stop - z.start, y.stop - y.start, x.stop - x.start), self.info.dtype)
        sums: dict[int, NDArray[np.float64]] = {}
        shares = along_z.shares()
        # A voxel that is NaN or infinite spreads, and who cuts the patch tells the person.
        with np.errstate(invalid="ignore", over="ignore"):
            for index, plane in self._planes(along_z, along_y, along_x):
                # After y the axes are exchanged, so that x too is taken row by row.
                coarse = along_x.apply(np.ascontiguousarray(along_y.apply(plane.astype(np.float64)).T))
                for k, weight, is_last in shares.get(index, ()):
                    sums[k] = sums[k] + weight * coarse if k in sums else weight * coarse
                    if is_last:
                        out[k] = _stored(sums.pop(k), out.dtype).T
        return out

    def _planes(self, z: Taps, y: Taps, x: Taps) -> Iterator[tuple[int, NDArray[Any]]]:
        """The z planes of the source window, by their index in it."""
        plane_bytes = (y.stop - y.start) * (x.stop - x.start) * self.info.dtype.itemsize
        depth = max(1, SLAB_BYTES // plane_bytes)
        for first in range(z.start, z.stop, depth):
            last = min(first + depth, z.stop)
            block = self.source.read((first, y.start, x.start), (last, y.stop, x.stop))
            for k, plane in enumerate(block):
                yield first - z.start + k, plane

    def close(self) -> None:
        """Close the source."""
        self.source.close()


def original(volume: Volume) -> VolumeInfo:
    """The header of the file itself, where a volume may be a resampled one."""
    return volume.source.info if isinstance(volume, ResampledVolume) else volume.info


def _axes(resampling: Resampling) -> tuple[Shape3, Vector3, Vector3]:
    return resampling.source_shape, resampling.source_spacing, resampling.spacing


@dataclass(frozen=True)
class Taps:
    """Which source voxels make the new voxels of one axis, and with which weights.

    Attributes:
        start: First source voxel of the window.
        stop: First source voxel behind it.
        index: (T, n) of the source voxels in the window, for n new voxels, in the order in which they are added.
        weight: (T, n) float64; the T weights of a new voxel sum up to 1.
    """

    start: int
    stop: int
    index: NDArray[np.intp]
    weight: NDArray[np.float64]

    @classmethod
    def of(cls, first: int, last: int, n_source: int, spacing: float, new_spacing: float) -> Self:
        """The taps of the new voxels ``first`` to ``last`` (exclusive) of an axis with ``n_source`` source voxels."""
        center = geometry.resampled(np.arange(first, last), new_spacing, spacing)
        if spacing == new_spacing:
            return cls._within(center.astype(np.intp)[None], np.ones((1, last - first)))
        stretch = max(new_spacing / spacing, 1.0)
        begin = np.floor(center - LOBES * stretch).astype(np.intp) + 1
        place = begin + np.arange(math.ceil(2 * LOBES * stretch))[:, None]
        weight = lanczos((place - center) / stretch)
        weight /= _sum_in_order(weight)
        return cls._within(_mirrored(place, n_source), weight)

    @classmethod
    def _within(cls, place: NDArray[np.intp], weight: NDArray[np.float64]) -> Self:
        start = int(place.min())
        return cls(start, int(place.max()) + 1, place - start, weight)

    def apply(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Resample the first axis of a (stop - start, m) array; gives (n, m)."""
        total: NDArray[np.float64] = np.take(rows, self.index[0], axis=0)
        total *= self.weight[0][:, None]
        part = np.empty_like(total)
        for index, weight in zip(self.index[1:], self.weight[1:], strict=True):
            np.take(rows, index, axis=0, out=part, mode="clip")  # the mode that needs no buffer; none is out of range
            part *= weight[:, None]
            total += part
        return total

    def shares(self) -> Mapping[int, list[tuple[int, float, bool]]]:
        """By source voxel of the window: the new voxels that it goes into, its weight there, whether it is the last."""
        last = self.index.max(axis=0)
        shares: dict[int, list[tuple[int, float, bool]]] = defaultdict(list)
        for k, (places, weights) in enumerate(zip(self.index.T.tolist(), self.weight.T.tolist(), strict=True)):
            mine: dict[int, float] = defaultdict(float)
            for place, weight in zip(places, weights, strict=True):
                mine[place] += weight  # near an end the mirror image brings a voxel in twice
            for place, weight in mine.items():
                shares[place].append((k, weight, place == last[k]))
        return shares


def lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """``sinc(x) sinc(x / 3)`` between -3 and 3, else 0, with ``sinc(x) = sin(πx) / (πx)``."""
    near_zero = np.abs(x) < 1e-8  # where the quotient is 1 to the last bit, and x² could be 0
    square = np.where(near_zero, 1.0, x * x)
    value = LOBES * _sin_pi(x) * _sin_pi(x / LOBES) / (math.pi * math.pi * square)
    return np.where(near_zero, 1.0, np.where(np.abs(x) < LOBES, value, 0.0))


_SINE_TERMS: Final = 12
"""Of the series of sin(πx) up to x = 1/2: the next one is below 2^-60."""


def _sin_pi(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """sin(πx) by its power series: libraries of different machines differ in a sine's last bit."""
    turns = np.rint(x)
    rest = x - turns
    square = rest * rest
    terms = [math.pi]
    for k in range(1, _SINE_TERMS):
        terms.append(-terms[-1] * math.pi * math.pi / (2 * k * (2 * k + 1)))
    value = np.zeros_like(x)
    for term in reversed(terms):
        value = value * square + term
    sine: NDArray[np.float64] = value * rest * (1 - 2 * np.mod(turns, 2))
    return sine


def _sum_in_order(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum along the first axis, one row after the other; numpy's own order depends on the processor."""
    total = np.zeros(values.shape[1:])
    for row in values:
        total += row
    return total


def _mirrored(place: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Indices before 0 and behind n - 1 as in a mirror at the volume's face: -1 is 0, n is n - 1, and so on."""
    folded = np.mod(place, 2 * n)
    mirrored: NDArray[np.intp] = np.minimum(folded, 2 * n - 1 - folded)
    return mirrored


def _stored(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The nearest values that the dtype holds; a kernel with negative lobes reaches beyond those of the source."""
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        return np.where(np.isfinite(values), np.clip(values, -limit, limit), values).astype(dtype)
    limits = np.iinfo(dtype)
    # The largest 64-bit integers are no float64: the one below is taken, as the next above does not fit.
    high = float(limits.max) if float(limits.max) <= limits.max else float(np.nextafter(float(limits.max), 0))
    return np.clip(np.rint(values), float(limits.min), high).astype(dtype)
