"""NumPy's .npy: one array, memory mapped. Nothing is ever unpickled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy_format

from keypatch.errors import FormatError
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.reader import ArrayVolume, library_errors, require_bytes, volume_dtype, volume_shape

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from keypatch.formats.volumes.base import Peek, Volume, VolumeOptions

NAME = "npy"
SUFFIXES = (".npy",)
DESCRIPTION = "NumPy array of three axes z, y, x (never pickled)"

_MAGIC = npy_format.MAGIC_PREFIX
_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_NAME_OFFSET = 30
"""A zip file's first member name begins here (PKWARE APPNOTE 4.3.7)."""


def matches(peek: Peek) -> bool:
    """Whether the content is a .npy file, or an .npz, which `open_volume` refuses with a hint."""
    return peek.head.startswith(_MAGIC) or _is_npz(peek.head)


def open_volume(path: Path, options: VolumeOptions) -> Volume:  # noqa: ARG001 - the signature of all readers
    """Open a .npy file.

    Raises:
        FormatError: If it is an .npz, not a .npy, cut short, not of three axes, or not of integers or floats.
        ReadError: If it cannot be read.
    """
    with library_errors(path, "a readable .npy file"), path.open("rb") as file:
        if _is_npz(file.read(2048)):
            hint = "save the one array that is the volume with numpy.save"
            raise FormatError.at(path, expected="one array (.npy)", found="an archive of arrays (.npz)", hint=hint)
        file.seek(0)
        stored_shape, fortran_order, stored_dtype = _header(file)
        offset = file.tell()
    dtype = volume_dtype(path, stored_dtype)
    shape = volume_shape(path, stored_shape)
    size = int(np.prod(shape, dtype=object)) * stored_dtype.itemsize
    require_bytes(path, needed=offset + size, found=path.stat().st_size, what=f"for {shape} voxels of {stored_dtype}")
    with library_errors(path, "a file that can be memory mapped"):
        array = np.memmap(path, stored_dtype, mode="r", offset=offset, shape=shape, order="F" if fortran_order else "C")
    conventions = {
        "axis_order": "zyx",
        "inferred": ["axis_order"],
        "stored_dtype": stored_dtype.str,
        "order": "Fortran" if fortran_order else "C",
    }
    info = VolumeInfo(path, NAME, shape, dtype, voxel_spacing=None, access="mapped", conventions=conventions)
    return ArrayVolume(info, array)


def _is_npz(head: bytes) -> bool:
    name_length = int.from_bytes(head[26:28], "little")
    return head.startswith(_ZIP_MAGIC) and head[_ZIP_NAME_OFFSET : _ZIP_NAME_OFFSET + name_length].endswith(b".npy")


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy_format.read_magic(file)
    if version == (1, 0):
        return npy_format.read_array_header_1_0(file)
    if version == (2, 0):
        return npy_format.read_array_header_2_0(file)
    # numpy writes 3.0 only for records whose field names are not Latin-1 (numpy.lib.format), and records are no voxels.
    message = f"version {version[0]}.{version[1]} of the format; known are 1.0 and 2.0"
    raise ValueError(message)
