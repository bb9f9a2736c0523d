"""Volumes whose header says where a run of voxels lies: mapped where it lies open, else decoded as a whole.

A header's sizes are compared with the file's before anything is allocated.
"""

from __future__ import annotations

import bz2
import gzip
import math
import zlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.volumes.reader import ArrayVolume, VolumeReader, library_errors, require_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import VolumeInfo
    from keypatch.geometry import Shape3

Packing: TypeAlias = Literal["gzip", "bzip2", "zlib"]

_LARGEST_FACTOR: dict[Packing, int] = {"gzip": 1032, "zlib": 1032, "bzip2": 45_900_000 // 32}
"""By which decompression can enlarge: deflate by 1032 (https://zlib.net/zlib_tech.html); a block of bzip2 has at least
32 bytes and at most 900 000, five of which may stand for a run of 255."""

_PIECE_BYTES = 2**22
_REST_BYTES = 2**26
"""That are decompressed after the voxels, in search of the end."""

_ANY_DEFLATE = zlib.MAX_WBITS | 32
"""zlib's word for "a zlib or a gzip header, as it comes"."""


@dataclass(frozen=True)
class RawData:
    """Where the voxels lie.

    Attributes:
        path: The file that holds them.
        offset: Bytes before them; in a compressed stream, bytes of what comes out of it.
        shape: Of the stored array, the axis that changes fastest last.
        dtype: As stored.
        to_zyx: Permutes the stored axes to z, y, x.
        packing: What the stream is compressed with; None where the voxels lie open.
        stream_start: Byte of the file at which the compressed stream begins.
    """

    path: Path
    offset: int
    shape: Shape3
    dtype: np.dtype[Any]
    to_zyx: tuple[int, int, int] = (0, 1, 2)
    packing: Packing | None = None
    stream_start: int = 0

    @property
    def nbytes(self) -> int:
        """Of the voxels."""
        return math.prod(self.shape) * self.dtype.itemsize

    def zyx(self, values: tuple[int, ...]) -> list[int]:
        """One value for each stored axis, in the order z, y, x."""
        return [values[axis] for axis in self.to_zyx]


def check_size(data: RawData) -> int:
    """See that the file can hold the voxels that a header promises.

    Returns:
        Bytes of the file beyond the last voxel; 0 for a compressed stream, whose length shows when it is decoded.

    Raises:
        FormatError: If it is too short for them, however well they are compressed.
    """
    file_size = data.path.stat().st_size
    promised = data.offset + data.nbytes
    what = f"for a header of {data.offset} bytes and {data.shape} voxels of {data.dtype}"
    if data.packing is None:
        require_bytes(data.path, needed=promised, found=file_size, what=what)
        return file_size - promised
    compressed = max(0, file_size - data.stream_start)
    if promised > compressed * _LARGEST_FACTOR[data.packing]:
        found = (
            f"{compressed} bytes of {data.packing}, which can hold {_LARGEST_FACTOR[data.packing]} times that at most"
        )
        hint = "the file is cut short or its header is wrong"
        raise FormatError.at(data.path, expected=f"{promised} bytes {what}", found=found, hint=hint)
    return 0


def open_raw(info: VolumeInfo, data: RawData) -> VolumeReader:
    """A volume over the voxels, mapped or to be decoded at its first ``read``.

    Raises:
        FormatError: As `check_size`.
        ReadError: If the file cannot be mapped.
    """
    check_size(data)
    if data.packing is not None:
        return PackedVolume(info, data)
    with library_errors(data.path, "a file that can be memory mapped"):
        array = np.memmap(data.path, data.dtype, mode="r", offset=data.offset, shape=data.shape)
    return ArrayVolume(info, array.transpose(data.to_zyx))


class PackedVolume(VolumeReader):
    """A volume inside a compressed stream, which cannot be read from the middle."""

    def __init__(self, info: VolumeInfo, data: RawData) -> None:
        super().__init__(info)
        self._data = data
        self._array: NDArray[Any] | None = None

    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        if self._array is None:
            stored = self._decoded().view(self._data.dtype).reshape(self._data.shape)
            self._array = stored.transpose(self._data.to_zyx)
        return self._array[z, y, x]

    def close(self) -> None:
        """Let the decoded volume go; a later ``read`` decodes it again."""
        self._array = None

    def _decoded(self) -> NDArray[np.uint8]:
        data = self._data
        with library_errors(data.path, f"undamaged {data.packing} data"), data.path.open("rb") as file:
            file.seek(data.stream_start)
            stream = _unpacked(file, data.packing)
            voxels = np.empty(data.nbytes, np.uint8)
            head = sum(map(len, _pieces(stream, data.offset)))
            filled = 0
            for piece in _pieces(stream, data.nbytes):
                voxels[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                filled += len(piece)
            # The checksums are compared only once the end is reached, to which a damaged stream may be far.
            deque(_pieces(stream, _REST_BYTES), maxlen=0)
        require_bytes(data.path, needed=data.offset + data.nbytes, found=head + filled, what="once decompressed")
        return voxels


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Inflated:
    """What zlib's streams hold. The standard library opens those of gzip and bzip2 as files, but not these."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(_ANY_DEFLATE)

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; empty at the end.

        Raises:
            zlib.error: If the stream is damaged.
            EOFError: If it is cut short.
        """
        while not self._inflate.eof:
            compressed = self._inflate.unconsumed_tail or self._file.read(_PIECE_BYTES)
            piece = self._inflate.decompress(compressed, size)
            if piece:
                return piece
            if not compressed:
                message = "the stream ends before its end marker"
                raise EOFError(message)
        return b""


def _unpacked(file: BinaryIO, packing: Packing | None) -> _Stream:
    if packing == "gzip":
        return gzip.GzipFile(fileobj=file)
    return bz2.BZ2File(file) if packing == "bzip2" else _Inflated(file)


def _pieces(stream: _Stream, nbytes: int) -> Iterator[bytes]:
    """The next ``nbytes`` of a stream, or fewer where it ends, without a second copy of all of them."""
    while nbytes > 0 and (piece := stream.read(min(nbytes, _PIECE_BYTES))):
        nbytes -= len(piece)
        yield piece
