"""Histograms of the stored voxels by volume, streamed: one patch in memory, and no second look at a voxel.

Values of 8 and 16 bits are counted each for itself. Wider ones go into bins that are laid out around the volume's
first value and grow with the distance from it, by the first 16 bits of that distance as a float32 (sign, exponent,
7 bits of mantissa): no range has to be known beforehand, a bin is never wider than 1/128 of its distance, and neither
an outlier nor a large offset spoils it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from keypatch.audit.metadata import dig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from keypatch.formats.store import Store

ALL_BELOW: Final = 2**29
"""Voxels of all patches together up to which every one is read: a few seconds of work."""

SAMPLE_VOXELS: Final = 2**28
"""Voxels that are read where there are more."""

BINS: Final = 64
"""Of a histogram as it is handed out."""

PERCENTILES: Final = (0.1, 1.0, 50.0, 99.0, 99.9)

_KEYS: Final = 1 << 16
_SLAB: Final = 1 << 20
"""Voxels that are counted at a time: some MiB of what numpy makes of them, beside the patch itself."""


@dataclass(frozen=True)
class VolumeIntensity:
    """The stored values of one volume's patches, padding left out. A voxel counts once for each patch that has it.

    Attributes:
        volume: Its id.
        patches_read: Patches that were read.
        patches: Patches of the volume.
        voxels: Finite ones that were counted.
        not_finite: NaN and infinite ones, left out of all the rest.
        minimum: None without a voxel, like all that follows.
        maximum: Of them.
        mean: Of them.
        std: Of them.
        percentiles: Percentile (see `PERCENTILES`) to value.
        edges: Of the histogram's bins, even from the least to the greatest percentile, rounded outwards for integers.
        counts: Voxels a bin.
        below: Voxels below the first edge.
        above: Voxels beyond the last edge.
        at_ends: Share of voxels at the lowest and at the highest value that the stored dtype or the scaling has, where
            clipped voxels end up; None for floats that were not scaled.
        source_clipped: Share of the source's voxels that the conversion clipped, as recorded; None where not scaled.
    """

    volume: str
    patches_read: int
    patches: int
    voxels: int
    not_finite: int
    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    percentiles: Mapping[float, float]
    edges: Sequence[float]
    counts: Sequence[int]
    below: int
    above: int
    at_ends: tuple[float, float] | None
    source_clipped: float | None


def measure_intensity(
    store: Store, sample: int | None = None, seed: int = 0, *, every: bool = False
) -> tuple[VolumeIntensity, ...]:
    """Histograms of every volume that has patches, in the store's order.

    Args:
        store: Opened.
        sample: Patches that are drawn, spread over the volumes as evenly as they have patches; None takes all where
            that is little work, else as many as make `SAMPLE_VOXELS`.
        seed: Of the draw.
        every: Read all patches, however many.

    Raises:
        StoreError: If a patch cannot be read.
    """
    owner = store.table("patches/volume_index")
    drawn = np.arange(len(store)) if every else _drawn(store, owner, sample, seed)
    return tuple(
        _measure_volume(store, v, drawn[owner[drawn] == v], int(np.count_nonzero(owner == v)))
        for v in np.unique(owner).tolist()
    )


def _drawn(store: Store, owner: NDArray[np.int32], sample: int | None, seed: int) -> NDArray[np.int64]:
    n, per_patch = len(store), math.prod(store.patch_shape)
    if sample is None:
        sample = n if n * per_patch <= ALL_BELOW else max(2, SAMPLE_VOXELS // per_patch)
    if sample >= n:
        return np.arange(n)
    mixed = np.random.default_rng(seed).permutation(n)
    by_volume = np.argsort(owner[mixed], kind="stable")
    first = np.searchsorted(owner[mixed][by_volume], owner[mixed][by_volume])
    turn = np.empty(n, np.int64)
    turn[by_volume] = np.arange(n) - first
    # The first patch of each volume, then the second of each, and so on.
    return np.sort(mixed[np.argsort(turn, kind="stable")[:sample]])


def _measure_volume(store: Store, v: int, indices: NDArray[np.int64], n_patches: int) -> VolumeIntensity:
    dtype = store.image_array.dtype
    record = store.volume_records[v]
    ends = _ends(dtype, record)
    tally: _Tally = _IntegerTally(dtype) if dtype.kind in "iu" and dtype.itemsize <= 2 else _FloatTally(ends or ())
    for slab in _slabs(store, indices):
        tally.add(slab)
    return _summary(record["id"], len(indices), n_patches, tally, ends, dig(record, "scaling"))


def _slabs(store: Store, indices: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """The voxels that lie in the volume, flat, some planes at a time."""
    image = np.empty(store.patch_shape, store.image_array.dtype)
    start, stop = store.table("patches/valid_start"), store.table("patches/valid_stop")
    for i in indices.tolist():
        store.read_image(i, out=image)
        valid = image[tuple(slice(a, b) for a, b in zip(start[i].tolist(), stop[i].tolist(), strict=True))]
        if not valid.size:
            continue
        planes = max(1, _SLAB // valid[0].size)
        for z in range(0, len(valid), planes):
            yield valid[z : z + planes].reshape(-1)


class _Tally(Protocol):
    """Counts of keys, each of which stands for a range of values."""

    @property
    def voxels(self) -> int:
        """Finite ones so far."""

    @property
    def not_finite(self) -> int:
        """The others so far."""

    def add(self, values: NDArray[Any]) -> None:
        """Count them."""

    def at(self, value: float) -> int:
        """Voxels of exactly this value; only the ends of a dtype or a scaling are asked for."""

    def moments(self) -> tuple[float, float, float, float]:
        """Minimum, maximum, mean and standard deviation."""

    def cumulated(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ascending values, and the voxels below each."""


class _IntegerTally:
    """Every value of 8 or 16 bits for itself."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._lowest = int(np.iinfo(dtype).min)
        self._counts = np.zeros(1 << 8 * dtype.itemsize, np.int64)
        self._unsigned = np.dtype(f"u{dtype.itemsize}")

    @property
    def not_finite(self) -> int:
        return 0

    @property
    def voxels(self) -> int:
        return int(self._counts.sum())

    def add(self, values: NDArray[Any]) -> None:
        keys = values.view(self._unsigned)
        if keys.itemsize == 1 and len(keys) >= _KEYS:
            # Two neighbours at once, the pairs taken apart afterwards: half the additions.
            even = len(keys) // 2 * 2
            pairs = np.bincount(keys[:even].view(np.uint16), minlength=_KEYS).reshape(256, 256)
            self._counts += pairs.sum(axis=0) + pairs.sum(axis=1)
            keys = keys[even:]
        self._counts += np.bincount(keys, minlength=len(self._counts))

    def at(self, value: float) -> int:
        return int(self._ordered()[int(value) - self._lowest])

    def moments(self) -> tuple[float, float, float, float]:
        counts = self._ordered()
        there = np.flatnonzero(counts)
        values, weights = there + self._lowest, counts[there]
        mean = float(np.average(values, weights=weights))
        return float(values[0]), float(values[-1]), mean, math.sqrt(np.average((values - mean) ** 2, weights=weights))

    def cumulated(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        counts = self._ordered()
        edges = np.arange(len(counts) + 1, dtype=np.float64) + (self._lowest - 0.5)
        return edges, np.concatenate([[0.0], counts.cumsum()])

    def _ordered(self) -> NDArray[np.int64]:
        """By value: two's complement has the negative ones behind the others."""
        return np.roll(self._counts, len(self._counts) // 2) if self._lowest else self._counts


class _FloatTally:
    """Bins that grow with the distance from the first value; see the module's text.

    Args:
        exact: Values that are counted for themselves as well.
    """

    def __init__(self, exact: Sequence[float] = ()) -> None:
        self.voxels, self.not_finite = 0, 0
        self._center: float | None = None
        self._counts = np.zeros(_KEYS, np.int64)
        self._minimum, self._maximum, self._sum, self._squares = math.inf, -math.inf, 0.0, 0.0
        self._exact = dict.fromkeys(exact, 0)

    def add(self, values: NDArray[Any]) -> None:
        numbers = values.astype(np.float64)
        finite = np.isfinite(numbers)
        if not finite.all():
            self.not_finite += int(numbers.size - np.count_nonzero(finite))
            numbers = numbers[finite]
        if not numbers.size:
            return
        if self._center is None:
            self._center = float(numbers[0])
        self.voxels += numbers.size
        self._minimum, self._maximum = min(self._minimum, numbers.min()), max(self._maximum, numbers.max())
        for end in self._exact:
            self._exact[end] += int(np.count_nonzero(numbers == end))
        numbers -= self._center
        self._sum += float(numbers.sum())
        self._squares += float(np.dot(numbers, numbers))
        self._counts += np.bincount(_key(numbers), minlength=_KEYS)

    def at(self, value: float) -> int:
        return self._exact[value]

    def moments(self) -> tuple[float, float, float, float]:
        shift = self._sum / self.voxels
        variance = max(self._squares / self.voxels - shift**2, 0.0)
        return float(self._minimum), float(self._maximum), (self._center or 0.0) + shift, math.sqrt(variance)

    def cumulated(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        there = np.flatnonzero(self._counts)
        first, last = int(there[0]), int(there[-1])
        edges = _lower_edge(np.arange(first, last + 2)) + (self._center or 0.0)
        below = np.concatenate([[0.0], self._counts[first : last + 1].cumsum()])
        edges = np.clip(edges, self._minimum, self._maximum)
        edges[-1] = np.nextafter(self._maximum, math.inf)  # beyond it, so that a volume of one value has a bin, too
        return edges, below


def _key(distances: NDArray[np.float64]) -> NDArray[np.uint16]:
    """16 bits that are in the order of the distances."""
    largest = float(np.finfo(np.float32).max)
    bits = np.clip(distances, -largest, largest).astype(np.float32).view(np.uint32)
    high = (bits >> 16).astype(np.uint16)
    # Negative floats ascend as their bits descend: all their bits are turned, of the others only the sign.
    turned: NDArray[np.uint16] = np.bitwise_xor(high, np.where(high & 0x8000, 0xFFFF, 0x8000).astype(np.uint16))
    return turned


def _lower_edge(keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """The least distance that has each key; the key 0x7FFF is that of -0, and so on downwards."""
    negative = keys < 0x8000
    high = np.where(negative, 0xFFFF - keys, keys - 0x8000).astype(np.uint32)
    # A negative bin begins at its far end, where the mantissa's other bits are all ones: that of the next magnitude.
    bits = np.where(negative, (high + 1) << 16, high << 16).astype(np.uint32)
    edge = (bits & 0x7FFFFFFF).view(np.float32).astype(np.float64)
    return np.where(negative, -edge, edge)


def _ends(dtype: np.dtype[Any], record: Mapping[str, Any]) -> tuple[float, float] | None:
    if dtype.kind in "iu":
        return (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)) if dtype.itemsize <= 2 else None
    return (0.0, 1.0) if dig(record, "scaling", "percentiles") is not None else None


def _summary(
    volume: str, n_read: int, n_patches: int, tally: _Tally, ends: tuple[float, float] | None, scaling: object
) -> VolumeIntensity:
    clipped = dig(scaling, "clipped_share")
    source_clipped = float(clipped) if isinstance(clipped, int | float) else None
    if not tally.voxels:
        nothing = (None, None, None, None)
        return VolumeIntensity(
            volume, n_read, n_patches, 0, tally.not_finite, *nothing, {}, [], [], 0, 0, None, source_clipped
        )
    values, below = tally.cumulated()
    lowest, highest, mean, std = tally.moments()
    integer = isinstance(tally, _IntegerTally)
    percentiles = {
        p: float(np.clip(_value_at(values, below, p / 100 * tally.voxels, integer=integer), lowest, highest))
        for p in PERCENTILES
    }
    edges = _even_edges(percentiles[PERCENTILES[0]], percentiles[PERCENTILES[-1]], integer=integer)
    at_edges = np.rint(np.interp(edges, values, below)).astype(np.int64)
    return VolumeIntensity(
        volume=volume,
        patches_read=n_read,
        patches=n_patches,
        voxels=tally.voxels,
        not_finite=tally.not_finite,
        minimum=lowest,
        maximum=highest,
        mean=mean,
        std=std,
        percentiles=percentiles,
        edges=edges.tolist(),
        counts=np.diff(at_edges).tolist(),
        below=int(at_edges[0]),
        above=int(tally.voxels - at_edges[-1]),
        at_ends=None if ends is None else (tally.at(ends[0]) / tally.voxels, tally.at(ends[1]) / tally.voxels),
        source_clipped=source_clipped,
    )


def _value_at(values: NDArray[np.float64], below: NDArray[np.float64], rank: float, *, integer: bool) -> float:
    """The value that ``rank`` voxels lie at or below: of integers the one itself, else even within a bin."""
    k = max(int(np.searchsorted(below, rank, side="left")), 1)
    if integer:
        return float(values[k - 1] + 0.5)
    share = (rank - below[k - 1]) / (below[k] - below[k - 1])
    return float(values[k - 1] + share * (values[k] - values[k - 1]))


def _even_edges(low: float, high: float, *, integer: bool) -> NDArray[np.float64]:
    """About `BINS` bins; those of integers hold the same number of values each, so that no bin stands out."""
    if not integer:
        top = high if high > low else low + max(abs(low), 1.0) * 1e-6
        return np.linspace(low, top, BINS + 1)
    first, last = math.floor(low + 0.5), math.floor(high + 0.5)
    width = -(-(last - first + 1) // BINS)
    n = -(-(last - first + 1) // width)
    return first - 0.5 + width * np.arange(n + 1, dtype=np.float64)
