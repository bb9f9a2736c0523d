"""What all volume readers share: the checks of shape, dtype and box, and how a library's error becomes ours."""

from __future__ import annotations

import math
import mmap
import sys
import warnings
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from keypatch.errors import FormatError, KeypatchError, ReadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import VolumeInfo
    from keypatch.geometry import Shape3, Vector3

_KINDS_OF_NUMBERS = "iuf"
_WIDEST_NUMBER = 8
"""Bytes; a longer float (numpy's longdouble) differs between machines and no store dtype holds it."""


MAPPED_BYTES = 64 * 2**20
"""Of a memory-mapped file that a reader keeps at most, or the planes of one box where these are more."""


class VolumeReader(ABC):
    """Base of the readers: checks the box, hands out arrays in the machine's byte order."""

    def __init__(self, info: VolumeInfo) -> None:
        self._info = info

    @property
    def info(self) -> VolumeInfo:
        """What the header says."""
        return self._info

    def read(self, start: Shape3, stop: Shape3) -> NDArray[Any]:
        """Read the box ``start`` (inclusive) to ``stop`` (exclusive).

        Args:
            start: Voxel indices z, y, x.
            stop: Voxel indices z, y, x; beyond ``start`` on every axis and not beyond the shape.

        Returns:
            Array of shape ``stop - start`` and ``info.dtype``, usable after ``close``; of a memory-mapped file it is a
            read-only view, which spares a copy of every patch.

        Raises:
            ValueError: If the box is empty or does not lie inside the volume.
            ReadError: If the bytes are not there or cannot be decoded.
        """
        if not all(0 <= a < b <= n for a, b, n in zip(start, stop, self._info.shape, strict=True)):
            message = f"box {tuple(start)} to {tuple(stop)} is empty or outside the volume of shape {self._info.shape}"
            raise ValueError(message)
        z, y, x = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        return np.asarray(self._read_box(z, y, x), dtype=self._info.dtype)

    @abstractmethod
    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        """The box as the file gives it, axes z, y, x; it may be a view and in any byte order."""

    def close(self) -> None:  # noqa: B027
        """Let files and caches go; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class ArrayVolume(VolumeReader):
    """A volume whose file is one array that indexing reads: a memory map.

    What a map has read counts as memory of the process until something else needs it. So that a worker stays small
    whatever the volume's size, pages are let go of before they would be more than `MAPPED_BYTES`; the file cache keeps
    them. They are counted as whole planes: a system maps the neighbours of a page that is in its cache, too.
    """

    def __init__(self, info: VolumeInfo, array: NDArray[Any]) -> None:
        super().__init__(info)
        self._array: NDArray[Any] | None = array
        self._pages = _Pages.under(array)
        self._touched = 0

    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        if self._array is None:
            message = f"{self._info.path} is closed"
            raise ValueError(message)
        box = self._array[z, y, x]
        if self._pages is not None:
            touched = max(abs(stride) * n for stride, n in zip(box.strides, box.shape, strict=True))
            if self._touched and self._touched + touched > MAPPED_BYTES:
                self._pages.let_go()
                self._touched = 0
            self._touched += touched
            self._pages.bring_in(box)
        return box

    def close(self) -> None:
        """Let the map go, and with it the file."""
        self._array = self._pages = None


class _Pages:
    """The pages of a memory map, as far as the system lets a program say which it wants (Linux 5.14 and newer)."""

    _POPULATE_READ: Final = 22
    """MADV_POPULATE_READ of linux/mman.h, which Python's mmap has no name for."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self._address: int = np.frombuffer(mapping, np.uint8, 1).ctypes.data
        self._populates = sys.platform == "linux"

    @classmethod
    def under(cls, array: NDArray[Any]) -> Self | None:
        """The pages under an array and its views; None where there is no map, or the system cannot let pages go."""
        base: Any = array
        while base is not None and not isinstance(base, mmap.mmap):
            base = getattr(base, "base", None)
        return cls(base) if base is not None and hasattr(mmap, "MADV_DONTNEED") else None

    def let_go(self) -> None:
        """Take all pages out of the process; reading one brings it back from the file cache."""
        self._mapping.madvise(mmap.MADV_DONTNEED)

    def bring_in(self, box: NDArray[Any]) -> None:
        """Map the rows of a box, one call a plane; page by page, as each is first read, costs several times as much."""
        planes = np.moveaxis(box, int(np.argmax(np.abs(box.strides))), 0)
        for plane in planes if self._populates else ():
            first = plane.ctypes.data - self._address
            last = first + sum(stride * (n - 1) for stride, n in zip(plane.strides, plane.shape, strict=True))
            start = first // mmap.PAGESIZE * mmap.PAGESIZE
            try:
                self._mapping.madvise(self._POPULATE_READ, start, last + plane.itemsize - start)
            except OSError:  # an older kernel does not know it; reading does the same, slowly
                self._populates = False
                return


def volume_dtype(where: str | Path, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that ``read`` returns for an array stored as ``dtype``: the machine's byte order, bool as uint8.

    Raises:
        FormatError: If the voxels are not integers or floats of at most 8 bytes (complex, objects, text, records).
    """
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in _KINDS_OF_NUMBERS or dtype.itemsize > _WIDEST_NUMBER:
        hint = "save the magnitude or the real part" if dtype.kind == "c" else "save it as integers or floats"
        raise FormatError.at(where, expected="voxels that are integers or floats", found=f"dtype {dtype}", hint=hint)
    return dtype.newbyteorder("=")


def volume_shape(where: str | Path, shape: Sequence[int]) -> Shape3:
    """The shape as three Python integers.

    Raises:
        FormatError: If there are not three axes, or one has no voxel.
    """
    if len(shape) != 3:
        found = f"{len(shape)} axes of {' x '.join(map(str, shape))}"
        raise FormatError.at(where, expected="a volume of 3 axes", found=found)
    if min(shape) < 1:
        raise FormatError.at(
            where, expected="at least one voxel on every axis", found=f"shape {tuple(map(int, shape))}"
        )
    z, y, x = map(int, shape)
    return z, y, x


def require_bytes(where: str | Path, *, needed: int, found: int, what: str) -> None:
    """Refuse a file that is shorter than its header promises.

    Raises:
        FormatError: If ``found`` is less than ``needed``.
    """
    if found < needed:
        hint = "the file is cut short or its header is wrong"
        raise FormatError.at(where, expected=f"{needed} bytes {what}", found=f"{found} bytes", hint=hint)


def declared_spacing(values: Iterable[float], warn: list[str], source: str) -> Vector3 | None:
    """A voxel spacing as the file declares it, or None with a warning where it cannot be one.

    Args:
        values: Å, z, y, x.
        warn: Warnings of the volume; added to.
        source: Where the file says so, for the warning.
    """
    z, y, x = map(float, values)
    if not all(math.isfinite(value) and value > 0 for value in (z, y, x)):
        warn.append(f"{source} gives no usable voxel spacing (z, y, x: {z:g}, {y:g}, {x:g}); give --voxel-spacing")
        return None
    return z, y, x


@contextmanager
def library_errors(where: str | Path, expected: str) -> Iterator[None]:
    """Turn whatever a library raises on a broken file into one line of ours, and keep its warnings to ourselves.

    Libraries do not promise which exception a broken file ends in (KeyError, struct.error, AttributeError, a codec's
    own), so all of them are caught. Put nothing but the library's call inside.

    Raises:
        ReadError: If the system could not read.
        FormatError: For every other exception.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except KeypatchError:
        raise
    except OSError as error:
        raise ReadError.at(where, expected=expected, found=_said(error)) from error
    except Exception as error:
        raise FormatError.at(where, expected=expected, found=_said(error)) from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
