"""What all volume readers share: the checks of shape, dtype and box, and how a library's error becomes ours."""

from __future__ import annotations

import importlib
import math
import mmap
import warnings
from abc import abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from keypatch.errors import FormatError, KeypatchError, MissingExtraError, ReadError
from keypatch.formats.volumes.base import Volume
from keypatch.formats.volumes.positioned import PositionedFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import VolumeInfo
    from keypatch.geometry import Shape3, Vector3

_KINDS_OF_NUMBERS = "iuf"
_WIDEST_NUMBER = 8
"""Bytes; a longer float (numpy's longdouble) differs between machines and no store dtype holds it."""


BLOCK_BYTES: Final = 2**20
"""Of a file that is read at once, so that a processor's cache still has it when it is copied to its place."""

GAP_BYTES: Final = 12 * 1024
"""Of other voxels that are read along with a row to save a call: a call costs 1.5 µs, as much as this many bytes."""


class VolumeReader(Volume):
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
            Array of shape ``stop - start`` and ``info.dtype``, usable after ``close``; it may be strided.

        Raises:
            ValueError: If the box is empty or does not lie inside the volume.
            ReadError: If the bytes are not there or cannot be decoded.
        """
        return np.asarray(self._read_box(*self._slices(start, stop)), dtype=self._info.dtype)

    def _slices(self, start: Shape3, stop: Shape3) -> tuple[slice, slice, slice]:
        if not all(0 <= a < b <= n for a, b, n in zip(start, stop, self._info.shape, strict=True)):
            message = f"box {tuple(start)} to {tuple(stop)} is empty or outside the volume of shape {self._info.shape}"
            raise ValueError(message)
        z, y, x = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        return z, y, x

    @abstractmethod
    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        """The box as the file gives it, axes z, y, x; it may be a view and in any byte order."""

    def close(self) -> None:
        """Let files and caches go; may be called twice."""


class ArrayVolume(VolumeReader):
    """A volume whose file is one array that indexing reads.

    Args:
        info: What the header says.
        array: Memory map of the file's voxels, or a view of one, axes z, y, x. It only tells where each voxel lies; its
            pages are never touched. Reading by position costs no more than pages that are mapped and let go of, nothing
            of it counts as the process's memory, and a file that is cut while it is read gives an error, not a signal
            that ends the process. Any other array, one in memory, is indexed.

    Raises:
        OSError: If the file cannot be opened.
    """

    def __init__(self, info: VolumeInfo, array: NDArray[Any]) -> None:
        super().__init__(info)
        self._array: NDArray[Any] | None = array
        root = _root(array)
        self._file = None if root is None else PositionedFile(Path(str(root.filename)))
        self._first_byte = 0 if root is None else int(root.offset) - _address(root)
        self._scratch = np.empty(0, np.uint8)

    def blocks(self, start: Shape3, stop: Shape3) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """See `Volume.blocks`: along the axis that is slowest in the file, each small enough for a cache."""
        if self._file is None:
            yield from super().blocks(start, stop)
            return
        box = self._located(*self._slices(start, stop))
        axis = _slowest_axis(box)
        everything = tuple(slice(0, n) for n in box.shape)
        n, step = box.shape[axis], box.strides[axis]
        thickness = _thickness(np.moveaxis(box, axis, 0))
        window: _Window | None = None
        for at in range(0, n, thickness):
            part = (*everything[:axis], slice(at, min(at + thickness, n)), *everything[axis + 1 :])
            view = box[part]
            if _is_sparse(view):
                block = self._read_view(view, self._file)
            else:
                if window is None or window.array.shape != view.shape:
                    window = _Window.of(view, self._memory(_span(view)))
                    base = window.lowest - at * step
                self._file.read(self._first_byte + base + at * step, window.memory)
                block = window.array
            yield part, np.asarray(block, dtype=self._info.dtype)

    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        box = self._located(z, y, x)
        return box if self._file is None else self._read_view(box, self._file)

    def _located(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        if self._array is None:
            message = f"{self._info.path} is closed"
            raise ValueError(message)
        return self._array[z, y, x]

    def _read_view(self, view: NDArray[Any], file: PositionedFile) -> NDArray[Any]:
        """The voxels of a view of the map: as one span of the file, or part by part where that is mostly others."""
        if not _is_sparse(view):
            window = _Window.of(view, np.empty(_span(view), np.uint8))
            file.read(self._first_byte + window.lowest, window.memory)
            return window.array
        out = np.empty(view.shape, view.dtype)
        axis = _slowest_axis(view)
        for at in range(view.shape[axis]):
            part = (slice(None),) * axis + (slice(at, at + 1),)
            out[part] = self._read_view(view[part], file)
        return out

    def _memory(self, n_bytes: int) -> NDArray[np.uint8]:
        if self._scratch.nbytes < n_bytes:
            self._scratch = np.empty(n_bytes, np.uint8)
        return self._scratch[:n_bytes]

    def close(self) -> None:
        """Let the file go."""
        self._array = None
        self._scratch = np.empty(0, np.uint8)
        if self._file is not None:
            self._file.close()


class _Window(NamedTuple):
    """Memory for a span of a file, and the array that lies in it as a view of the map lies in the file.

    Attributes:
        memory: Of the span.
        array: Shape, dtype and strides of the view.
        lowest: Address in the map of the span's first byte.
    """

    memory: NDArray[np.uint8]
    array: NDArray[Any]
    lowest: int

    @classmethod
    def of(cls, view: NDArray[Any], memory: NDArray[np.uint8]) -> Self:
        back = sum(min(0, stride * (n - 1)) for stride, n in zip(view.strides, view.shape, strict=True))
        array: NDArray[Any] = np.ndarray(view.shape, view.dtype, memory.data, -back, view.strides)
        return cls(memory, array, _address(view) + back)


def _root(array: NDArray[Any]) -> np.memmap[Any, Any] | None:
    """The memory map that an array is a view of; None of an array in memory."""
    root: Any = array
    while root is not None and not isinstance(getattr(root, "base", None), mmap.mmap):
        root = getattr(root, "base", None)
    return root if isinstance(root, np.memmap) and root.filename is not None else None


def _address(array: NDArray[Any]) -> int:
    address: int = array.ctypes.data
    return address


def _span(view: NDArray[Any]) -> int:
    """Bytes from a view's first to its last."""
    gaps: int = sum(abs(stride) * (n - 1) for stride, n in zip(view.strides, view.shape, strict=True))
    return view.itemsize + gaps


def _slowest_axis(view: NDArray[Any]) -> int:
    return max(range(view.ndim), key=lambda axis: (view.shape[axis] > 1, abs(view.strides[axis])))


def _is_sparse(view: NDArray[Any]) -> bool:
    """Whether so much lies between the parts of a view that they are better read one by one."""
    span = view.itemsize
    for stride, n in sorted((abs(stride), n) for stride, n in zip(view.strides, view.shape, strict=True) if n > 1):
        if stride - span > GAP_BYTES:
            return True
        span += stride * (n - 1)
    return False


def _thickness(planes: NDArray[Any]) -> int:
    """How many planes to read at once: what a cache holds, and one by one where much lies between them."""
    plane = _span(planes[0])
    if abs(planes.strides[0]) - plane > GAP_BYTES:
        return 1
    return max(1, BLOCK_BYTES // plane)


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


def optional_library(name: str, where: str | Path, extra: str) -> Any:  # noqa: ANN401 - a module
    """Import a library that only some formats need.

    Raises:
        MissingExtraError: If it is not installed; it names the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError.needs(str(where), extra) from error


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
