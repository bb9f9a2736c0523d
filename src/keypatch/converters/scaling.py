"""From the source's voxels to the stored dtype: a plain cast, or a linear map between two percentiles.

A percentile is taken of all voxels of a volume, exactly, in one pass for 8- and 16-bit data and two for 32-bit, and
with 1 MiB of memory: values become integers that sort alike, and each pass counts their next 16 bits.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from keypatch.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

STORABLE: Final = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
)
DEFAULT_PERCENTILES: Final = (0.1, 99.9)
"""Taken when a dtype is asked for that cannot hold the source's values and no percentiles were given."""

_DIGIT_BITS: Final = 16


class NotFiniteError(ValueError):
    """Voxels that are NaN or infinite."""


@dataclass(frozen=True)
class Scaling:
    """How the voxels of one volume become stored voxels; the ``scaling`` of a volume in the store.

    ``stored = (clip(source, low, high) - offset) / scale``, rounded for an integer dtype, so ``source`` is near
    ``stored * scale + offset``.

    Attributes:
        dtype: Stored.
        scale: Source units a step.
        offset: Source value of a stored 0.
        low: Source value below which voxels were clipped; None for a plain cast.
        high: The same above.
        percentiles: That gave ``low`` and ``high``.
        clipped_share: Of all voxels of the volume, those outside [low, high].
    """

    dtype: str
    scale: float = 1.0
    offset: float = 0.0
    low: float | None = None
    high: float | None = None
    percentiles: tuple[float, float] | None = None
    clipped_share: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As it lies in the store."""
        return asdict(self) | {"percentiles": None if self.percentiles is None else list(self.percentiles)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read `to_json`'s form; keys of a newer minor version are passed over."""
        pair = value.get("percentiles")
        return cls(
            dtype=str(value["dtype"]),
            scale=float(value["scale"]),
            offset=float(value["offset"]),
            low=value.get("low"),
            high=value.get("high"),
            percentiles=None if pair is None else (float(pair[0]), float(pair[1])),
            clipped_share=value.get("clipped_share"),
        )

    def apply(self, block: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Map a (D, H, W) block of source voxels to stored ones.

        Plane by plane, so that the float64 in between stays within a processor's cache.

        Args:
            block: Source voxels.
            out: Array of the same shape and the stored dtype to write into; a new one when left out.

        Returns:
            ``out``, or a new C-contiguous array.

        Raises:
            NotFiniteError: If a voxel is NaN or infinite.
            ValueError: If a plain cast would change a value that the dtype cannot hold.
        """
        stored = np.empty(block.shape, self.dtype) if out is None else out
        for plane, target in zip(block, stored, strict=True):
            if plane.dtype.kind == "f" and not np.isfinite(plane).all():
                message = f"{np.count_nonzero(~np.isfinite(block))} NaN or infinite ones"
                raise NotFiniteError(message)
            self._apply_plane(plane, target)
        return stored

    def _apply_plane(self, plane: NDArray[Any], target: NDArray[Any]) -> None:
        if self.low is not None and self.high is not None:
            mapped = (np.clip(plane.astype(np.float64), self.low, self.high) - self.offset) / self.scale
            target[...] = mapped if target.dtype.kind == "f" else _rounded(mapped, target.dtype)
            return
        try:
            with np.errstate(over="raise"):
                target[...] = plane
        except FloatingPointError as error:
            message = f"values beyond the range of {self.dtype}"
            raise ValueError(message) from error


def _rounded(mapped: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """The nearest integers that the dtype holds; a range that is narrow for its offset may round past the last one."""
    limits = np.iinfo(dtype)
    return np.clip(np.rint(mapped, out=mapped), limits.min, limits.max, out=mapped)


def resolve_dtype(asked: str, source: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that ``--dtype`` means for a source.

    Raises:
        UsageError: If it names none that a store can have.
    """
    name = source.name if asked == "source" else asked
    if name not in STORABLE:
        raise UsageError.at("--dtype", expected=f"source, {', '.join(STORABLE)}", found=repr(asked))
    return np.dtype(name)


def needs_range(source: np.dtype[Any], stored: np.dtype[Any], percentiles: tuple[float, float] | None) -> bool:
    """Whether the voxels must be mapped between percentiles: it was asked for, or integers cannot hold the source.

    What goes to floats is cast: it loses digits, not values. A value beyond their range is an error later.
    """
    return percentiles is not None or (stored.kind != "f" and not np.can_cast(source, stored, "safe"))


def check_range(source: np.dtype[Any], stored: np.dtype[Any], percentiles: tuple[float, float] | None) -> None:
    """See that voxels can be mapped onto the dtype, where they must be.

    Raises:
        UsageError: If it has 64-bit integers, whose extremes a float64 does not hold.
    """
    if stored.kind != "f" and stored.itemsize > 4 and needs_range(source, stored, percentiles):
        raise UsageError.at(
            "--dtype",
            expected=f"floats or integers of at most 32 bits where {source.name} is mapped between percentiles",
            found=stored.name,
        )


def measure(
    where: str,
    blocks: Callable[[], Iterable[NDArray[Any]]],
    stored: np.dtype[Any],
    percentiles: tuple[float, float],
) -> Scaling:
    """Find the linear map from the percentiles of a whole volume.

    The percentile q is the smallest value that at least q % of the voxels do not exceed (numpy's ``inverted_cdf``),
    so it is a voxel's own value. An integer dtype is filled from its least to its greatest value; floats map to [0, 1].

    Args:
        where: The volume's path, for messages.
        blocks: Called once a pass; gives the voxels in any blocks, all of one dtype.
        stored: The dtype to fill.
        percentiles: Low and high, in 0 … 100.

    Raises:
        FormatError: If a voxel is NaN or infinite, or all voxels are equal between the percentiles, or their range is
            too large or too small for a float64.
    """
    low, high, clipped_share = _exact_range(where, blocks, percentiles)
    if not low < high:
        raise FormatError.at(
            where,
            expected=f"different values at the percentiles {percentiles[0]:g} and {percentiles[1]:g}",
            found=f"{low:g} at both",
            hint="widen --clip-percentiles or store the source's dtype",
        )
    if stored.kind == "f":
        scale, offset = high - low, low
    else:
        limits = np.iinfo(stored)
        scale = (high - low) / (int(limits.max) - int(limits.min))
        offset = low - scale * int(limits.min)
    if not (scale > 0 and math.isfinite(scale)):
        raise FormatError.at(
            where,
            expected="a range that float64 can divide",
            found=f"{low:g} … {high:g}",
            hint="narrow --clip-percentiles",
        )
    return Scaling(stored.name, scale, offset, low, high, percentiles, clipped_share)


@dataclass
class _Rank:
    """One percentile on its way: the digits found so far, the rank among the values that share them."""

    rank: int
    prefix: int = 0
    smaller: int = 0
    equal: int = 0

    def narrow(self, counts: NDArray[np.int64]) -> None:
        below = np.cumsum(counts)
        digit = int(np.searchsorted(below, self.rank))
        skipped = int(below[digit - 1]) if digit else 0
        self.rank -= skipped
        self.smaller += skipped
        self.equal = int(counts[digit])
        self.prefix = self.prefix << _DIGIT_BITS | digit


def _exact_range(
    where: str, blocks: Callable[[], Iterable[NDArray[Any]]], percentiles: tuple[float, float]
) -> tuple[float, float, float]:
    """The values at two percentiles and the share of voxels outside them, by radix selection.

    Each pass narrows both ranks to one more digit of 16 bits: one pass for 8- and 16-bit data, two for 32-bit.
    """
    counts, total, dtype = _digit_counts(where, blocks, None, 0)
    ranks = [_Rank(max(math.ceil(q / 100 * total), 1)) for q in percentiles]
    n_digits = max(1, 8 * dtype.itemsize // _DIGIT_BITS)
    for digit in range(n_digits):
        if digit:
            counts, _, _ = _digit_counts(where, blocks, [rank.prefix for rank in ranks], digit)
        for rank, count in zip(ranks, counts, strict=True):
            rank.narrow(count)
    low, high = ranks
    outside = low.smaller + total - high.smaller - high.equal
    return _value(low.prefix, dtype), _value(high.prefix, dtype), outside / total


def _digit_counts(
    where: str, blocks: Callable[[], Iterable[NDArray[Any]]], prefixes: list[int] | None, digit: int
) -> tuple[list[NDArray[np.int64]], int, np.dtype[Any]]:
    """Count one digit of all keys that begin with each prefix; of all keys where there is none yet."""
    n_values = 1 << _DIGIT_BITS
    counts = [np.zeros(n_values, np.int64) for _ in range(2)]
    total, dtype = 0, np.dtype(np.uint8)
    for block in blocks():
        total, dtype = total + block.size, block.dtype
        keys = _sortable(where, block)
        shift = max(8 * dtype.itemsize, _DIGIT_BITS) - (digit + 1) * _DIGIT_BITS
        heads = keys >> np.uint64(shift + _DIGIT_BITS) if digit else keys
        for which in range(2 if prefixes else 1):
            mine = keys[heads == np.uint64(prefixes[which])] if prefixes else keys
            digits = (mine >> np.uint64(shift)) & np.uint64(n_values - 1)
            counts[which] += np.bincount(digits.astype(np.int64), minlength=n_values)
    return counts if prefixes else [counts[0], counts[0]], total, dtype


def _sortable(where: str, block: NDArray[Any]) -> NDArray[np.uint64]:
    """Unsigned integers that sort as the values do: the sign bit flipped, and all bits of negative floats."""
    flat = np.ascontiguousarray(block).reshape(-1)
    width = 8 * flat.dtype.itemsize
    if flat.dtype.kind == "u":
        return flat.astype(np.uint64)
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        n = int(np.count_nonzero(~np.isfinite(flat)))
        raise FormatError.at(
            where, expected="finite voxels", found=f"{n} NaN or infinite ones", hint="clean the volume first"
        )
    if flat.dtype.kind == "f":
        flat = flat + flat.dtype.type(0)  # turns -0.0 into 0.0, which equals it
    bits = flat.view(f"u{flat.dtype.itemsize}").astype(np.uint64)
    sign = np.uint64(1 << (width - 1))
    if flat.dtype.kind == "i":
        return bits ^ sign
    return np.where(bits & sign, ~bits & np.uint64((1 << width) - 1), bits | sign)


def _value(key: int, dtype: np.dtype[Any]) -> float:
    """The value of a key of `_sortable`."""
    width = 8 * dtype.itemsize
    sign = 1 << (width - 1)
    if dtype.kind == "i":
        key ^= sign
    elif dtype.kind == "f":
        key = key ^ sign if key & sign else ~key & ((1 << width) - 1)
    return float(np.array([key], np.uint64).astype(f"u{dtype.itemsize}").view(dtype)[0])
