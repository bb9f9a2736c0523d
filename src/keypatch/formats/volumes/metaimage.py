"""MetaImage (.mha, or .mhd with its data beside it), read without ITK.

The header is lines of ``Key = value`` up to ElementDataFile (https://itk.org/Wiki/ITK/MetaIO/Documentation). World
coordinates are those of ITK: ``Offset + D (ElementSpacing * index)`` in mm, x to the left, y to the back, z up. The
first three numbers of TransformMatrix are the direction of the first axis and so the first *column* of D (proved
against SimpleITK in the tests). CenterOfRotation and AnatomicalOrientation change nothing there, nor here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.neighbours import beside, link_warnings
from keypatch.formats.volumes.raw_data import RawData, check_size, open_raw
from keypatch.formats.volumes.reader import library_errors, volume_dtype, volume_shape
from keypatch.formats.volumes.units import angstrom_per_unit
from keypatch.formats.volumes.world import affine_xyz, placed, turned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from keypatch.formats.volumes.base import Peek, Volume, VolumeOptions
    from keypatch.geometry import Vector3, World

NAME = "metaimage"
SUFFIXES = (".mha", ".mhd")
DESCRIPTION = "MetaImage (.mha, or .mhd with its data file)"

_HEADER_BYTES = 2**16
"""No header is longer, but for one that lists a file for each of very many slices."""

_LINE = re.compile(rb"\s*([^=:]+?)\s*[=:]\s*(.*)")
_FIRST_KEY = re.compile(rb"\s*(ObjectType|ObjectSubType|Comment|Name|ID|NDims|TransformType|CompressedData)\s*[=:]")
_TELLING_KEY = re.compile(rb"^\s*(NDims|DimSize|ElementType|ElementDataFile)\s*[=:]", re.MULTILINE)

# Names that mean the same (MetaIO, metaObject.cxx and metaImage.cxx), the first that is there counts.
_OFFSET = ("Offset", "Position", "Origin")
_MATRIX = ("TransformMatrix", "Rotation", "Orientation")
_SPACING = ("ElementSpacing", "ElementSize")
_BIG_ENDIAN = ("ElementByteOrderMSB", "BinaryDataByteOrderMSB")

_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
"""MetaIO's MET_LONG has 4 bytes on every machine (metaTypes.h, MET_ValueTypeSize)."""

_MM = "mm"


def matches(peek: Peek) -> bool:
    """Whether the content begins with lines of a MetaImage header."""
    return _FIRST_KEY.match(peek.head) is not None and _TELLING_KEY.search(peek.head) is not None


def open_volume(path: Path, options: VolumeOptions) -> Volume:  # noqa: ARG001 - the signature of all readers
    """Open a MetaImage. A compressed one is decoded as a whole at the first ``read``.

    Raises:
        FormatError: If the header is damaged, promises more than there is, names a data file outside its own folder or
            one file a slice, or the voxels are text, colours or vectors.
        ReadError: If it or its data file cannot be read.
    """
    with library_errors(path, "a readable MetaImage"), path.open("rb") as file:
        raw = file.read(_HEADER_BYTES)
    header, data_start = _header(path, raw)
    _refuse_other_kinds(path, header)
    warn: list[str] = []
    data = _data(path, header, data_start, warn)
    beyond = check_size(data)
    if beyond:
        warn.append(f"{beyond} bytes follow the voxels that the header promises; they were left out")
    spacing, world, details = _placed(path, header, warn)
    info = VolumeInfo(
        path,
        NAME,
        data.shape,
        volume_dtype(path, data.dtype),
        voxel_spacing=spacing,
        access="mapped" if data.packing is None else "whole",
        conventions={
            "axis_order": "zyx",
            "element_type": header["ElementType"],
            "byte_order": "big" if _is_true(_first(header, _BIG_ENDIAN)) else "little",
            "compressed": data.packing is not None,
            "data_file": header["ElementDataFile"],
            **details,
        },
        warnings=tuple(warn),
        world=world,
    )
    return open_raw(info, data)


def _header(path: Path, raw: bytes) -> tuple[dict[str, str], int]:
    """The header's entries and the byte after it.

    Raises:
        FormatError: If a line is none of ``Key = value``, or there is no ElementDataFile.
    """
    header: dict[str, str] = {}
    position = 0
    while position < len(raw):
        end = raw.find(b"\n", position)
        line, position = (raw[position:end], end + 1) if end >= 0 else (raw[position:], len(raw))
        entry = _LINE.fullmatch(line.rstrip(b"\r"))
        if entry is None:
            if not line.strip():
                continue
            found = f"{line[:40]!r} after {', '.join(header) or 'nothing'}"
            raise FormatError.at(path, expected="lines of Key = value in a MetaImage header", found=found)
        key, value = entry[1].decode("ascii", "replace"), entry[2].decode("utf-8", "replace").strip()
        header[key] = value
        if key == "ElementDataFile":
            return header, position
    raise FormatError.at(path, expected="a MetaImage header that ends with ElementDataFile", found="none")


def _refuse_other_kinds(path: Path, header: Mapping[str, str]) -> None:
    for key in ("NDims", "DimSize", "ElementType"):
        if key not in header:
            raise FormatError.at(path, expected=f"{key} in the MetaImage header", found="none")
    if header.get("ObjectType", "Image").lower() != "image":
        raise FormatError.at(path, expected="ObjectType = Image", found=header["ObjectType"])
    if not _is_true(header.get("BinaryData", "True")):
        hint = "write it anew as binary"
        raise FormatError.at(path, expected="BinaryData = True", found="voxels written as text", hint=hint)
    channels = _numbers(path, header, "ElementNumberOfChannels")
    if channels not in ([], [1.0]):
        found = f"ElementNumberOfChannels = {header['ElementNumberOfChannels']}"
        raise FormatError.at(path, expected="one grey channel", found=found, hint="save one channel alone")


def _data(path: Path, header: Mapping[str, str], data_start: int, warn: list[str]) -> RawData:
    dtype = _dtype(path, header)
    lengths = _integers(path, header, "DimSize")
    if _integers(path, header, "NDims") != [len(lengths)]:
        found = f"{len(lengths)} lengths in DimSize"
        raise FormatError.at(path, expected=f"NDims = {header['NDims']}", found=found)
    # What comes after x, y, z (time, say) is the slowest, so that an axis of length 1 there is no axis.
    while len(lengths) > 3 and lengths[-1] == 1:
        lengths.pop()
    shape = volume_shape(path, lengths[::-1])
    file, start = _data_file(path, header, data_start)
    if file != path:
        warn += link_warnings(path, file)
    if _is_true(header.get("CompressedData")):
        if start < 0:
            raise FormatError.at(path, expected="HeaderSize of 0 or more for compressed data", found="-1")
        return RawData(file, 0, shape, dtype, packing="zlib", stream_start=start)
    data = RawData(file, start, shape, dtype)
    if start < 0:  # HeaderSize = -1: the voxels are the file's last bytes
        return RawData(file, max(0, file.stat().st_size - data.nbytes), shape, dtype)
    return data


def _dtype(path: Path, header: Mapping[str, str]) -> np.dtype[Any]:
    kind = header["ElementType"].upper()
    if kind not in _DTYPES:
        expected = f"ElementType of {', '.join(_DTYPES)}"
        raise FormatError.at(path, expected=expected, found=header["ElementType"])
    return np.dtype(_DTYPES[kind]).newbyteorder(">" if _is_true(_first(header, _BIG_ENDIAN)) else "<")


def _data_file(path: Path, header: Mapping[str, str], data_start: int) -> tuple[Path, int]:
    """The file with the voxels, and the byte of it at which they begin; -1 where they are its end."""
    name = header["ElementDataFile"]
    size = _integers(path, header, "HeaderSize") or [0]
    if len(size) != 1 or size[0] < -1:
        raise FormatError.at(path, expected="HeaderSize of -1 or more", found=header["HeaderSize"])
    if name.upper() == "LOCAL":
        return path, size[0] or data_start
    if name.upper().startswith("LIST") or "%" in name:
        hint = "write the volume as one file (in SimpleITK: read and write it)"
        raise FormatError.at(
            path, expected="all voxels in one data file", found=f"one file a slice ({name})", hint=hint
        )
    return beside(path, name, "ElementDataFile"), size[0]


def _placed(
    path: Path, header: Mapping[str, str], warn: list[str]
) -> tuple[Vector3 | None, World | None, dict[str, Any]]:
    n_axes = len(_integers(path, header, "DimSize"))
    sizes = _vector(path, header, _SPACING, n_axes)
    offset = _vector(path, header, _OFFSET, n_axes)
    matrix = _vector(path, header, _MATRIX, n_axes * n_axes)
    unit = header.get("DistanceUnits", _MM)
    scale = angstrom_per_unit(unit)
    details: dict[str, Any] = {"unit": unit, "space": "LPS", "inferred": [] if "DistanceUnits" in header else ["unit"]}
    if sizes is None:
        warn.append("the header has no ElementSpacing; give --voxel-spacing")
        return None, None, details
    if scale is None:
        warn.append(f"DistanceUnits is {unit!r}, no unit of length; give --voxel-spacing")
        return None, None, details
    directions = np.eye(n_axes) if matrix is None else np.reshape(matrix, (n_axes, n_axes)).T
    steps = scale * directions[:3, :3] * np.asarray(sizes[:3])
    origin = scale * np.asarray([0.0] * 3 if offset is None else offset[:3])
    return *placed(
        turned(affine_xyz(steps, origin)), warn, "the header (ElementSpacing, TransformMatrix, Offset)"
    ), details


def _vector(path: Path, header: Mapping[str, str], keys: Sequence[str], n: int) -> list[float] | None:
    """The numbers under the first of the keys that is there; None where none is."""
    key = next((key for key in keys if key in header), None)
    if key is None:
        return None
    numbers = _numbers(path, header, key)
    if len(numbers) != n:
        raise FormatError.at(path, expected=f"{n} numbers in {key}", found=f"{len(numbers)}: {header[key]}")
    return numbers


def _first(header: Mapping[str, str], keys: Sequence[str]) -> str | None:
    return next((header[key] for key in keys if key in header), None)


def _is_true(value: str | None) -> bool:
    return value is not None and value.strip().lower() in ("true", "t", "1", "yes", "y")


def _numbers(path: Path, header: Mapping[str, str], key: str) -> list[float]:
    """Numbers of an entry, which blanks or commas divide; none where it is not there."""
    try:
        return [float(part) for part in header.get(key, "").replace(",", " ").split()]
    except ValueError as error:
        raise FormatError.at(path, expected=f"numbers in {key}", found=header[key]) from error


def _integers(path: Path, header: Mapping[str, str], key: str) -> list[int]:
    try:
        return [int(part) for part in header.get(key, "").replace(",", " ").split()]
    except ValueError as error:
        raise FormatError.at(path, expected=f"whole numbers in {key}", found=header[key]) from error
