"""NRRD (.nrrd, or .nhdr with its data beside it): pynrrd reads the header, the voxels are mapped or decoded here.

Format: https://teem.sourceforge.net/nrrd/format.html. pynrrd's own reading of the voxels is not used: it opens any path
that a header names and decompresses without a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.neighbours import beside, link_warnings
from keypatch.formats.volumes.raw_data import Packing, RawData, check_size, open_raw
from keypatch.formats.volumes.reader import (
    declared_spacing,
    library_errors,
    optional_library,
    volume_dtype,
    volume_shape,
)
from keypatch.formats.volumes.units import angstrom_per_unit
from keypatch.formats.volumes.world import RAS_TO_LPS, affine_xyz, placed, turned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import Peek, Volume, VolumeOptions
    from keypatch.geometry import Vector3, World

NAME = "nrrd"
SUFFIXES = (".nrrd", ".nhdr")
DESCRIPTION = "NRRD (.nrrd, or .nhdr with its data file)"

_MAGIC = b"NRRD000"
_HEADER_BYTES = 2**20
_LONGEST_SKIP = 10_000
"""Lines; "line skip" jumps over the text header of some other format."""

_PACKINGS: dict[str, Packing | None] = {"raw": None, "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}

_TO_LPS = {
    "left-posterior-superior": np.eye(4),
    "right-anterior-superior": RAS_TO_LPS,
    "left-anterior-superior": np.diag([1.0, -1.0, 1.0, 1.0]),
}
_SHORT_SPACES = {
    "lps": "left-posterior-superior",
    "ras": "right-anterior-superior",
    "las": "left-anterior-superior",
}
_MM = "mm"


@dataclass(frozen=True)
class _Axes:
    """The axes of the array that are x, y and z of the volume, in the order of the header: the fastest first."""

    positions: tuple[int, ...]
    lengths: tuple[int, ...]


def matches(peek: Peek) -> bool:
    """Whether the content begins with the magic of NRRD."""
    return peek.head.startswith(_MAGIC)


def open_volume(path: Path, options: VolumeOptions) -> Volume:  # noqa: ARG001 - the signature of all readers
    """Open a NRRD. A compressed one is decoded as a whole at the first ``read``.

    Raises:
        FormatError: If the header is damaged, promises more than there is, names a data file outside its own folder or
            one file a slice, or the array has not three spatial axes and no longer other axis.
        MissingExtraError: If pynrrd is not installed.
        ReadError: If it or its data file cannot be read.
    """
    header, data_start = _header(path)
    warn: list[str] = []
    axes = _axes(path, header)
    data = _data(path, header, axes, data_start, warn)
    beyond = check_size(data)
    if beyond:
        warn.append(f"{beyond} bytes follow the voxels that the header promises; they were left out")
    spacing, world, details = _placed(path, header, axes, warn)
    info = VolumeInfo(
        path,
        NAME,
        data.shape,
        volume_dtype(path, data.dtype),
        voxel_spacing=spacing,
        access="mapped" if data.packing is None else "whole",
        conventions={
            "axis_order": "zyx",
            "type": header["type"],
            "encoding": header["encoding"],
            "byte_order": header.get("endian"),
            "data_file": _data_file(header),
            **details,
        },
        warnings=tuple(warn),
        world=world,
    )
    return open_raw(info, data)


def _header(path: Path) -> tuple[Mapping[str, Any], int]:
    """The fields of the header and the byte after it."""
    pynrrd = optional_library("nrrd", path, "medical")
    with library_errors(path, "a readable NRRD file"), path.open("rb") as file:
        raw = file.read(_HEADER_BYTES)
    text, blank, end = _until_blank_line(raw)
    with library_errors(path, "a NRRD header"):
        header: dict[str, Any] = dict(pynrrd.read_header(text.splitlines(keepends=True)))
    for field in ("type", "dimension", "sizes", "encoding"):
        if field not in header:
            raise FormatError.at(path, expected=f"{field!r} in the NRRD header", found="none")
    if not blank and _data_file(header) is None:
        found = f"none in the first {len(raw)} bytes"
        raise FormatError.at(path, expected="a blank line between header and voxels", found=found)
    return header, end


def _until_blank_line(raw: bytes) -> tuple[bytes, bool, int]:
    """The header's lines, whether a blank line ends them, and the byte after it."""
    ends = [(raw.find(mark), len(mark)) for mark in (b"\n\n", b"\n\r\n")]
    found = [(at, length) for at, length in ends if at >= 0]
    if not found:
        return raw, False, len(raw)
    at, length = min(found)
    return raw[: at + 1], True, at + length


def _data_file(header: Mapping[str, Any]) -> str | None:
    name = header.get("data file", header.get("datafile"))
    return None if name is None else str(name)


def _axes(path: Path, header: Mapping[str, Any]) -> _Axes:
    """Which axes are spatial: those that have a direction, or are no channel or time by their kind.

    Raises:
        FormatError: If there are not three, or another axis is longer than 1.
    """
    sizes = [int(size) for size in header["sizes"]]
    if header["dimension"] != len(sizes):
        raise FormatError.at(path, expected=f"{header['dimension']} sizes", found=f"{len(sizes)}")
    described = f"sizes {' x '.join(map(str, sizes))}, kinds {' '.join(header.get('kinds', [])) or 'not given'}"
    directions = _directions(path, header, len(sizes))
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    if directions is not None:
        spatial = [axis for axis, direction in enumerate(directions) if np.isfinite(direction).all()]
    elif len(kinds) == len(sizes):
        spatial = [axis for axis, kind in enumerate(kinds) if kind in ("domain", "space", "???", "none")]
    else:
        spatial = list(range(len(sizes)))
    if len(sizes) > 3 and len(spatial) != 3:
        spatial = [axis for axis, size in enumerate(sizes) if size != 1]
    others = [size for axis, size in enumerate(sizes) if axis not in spatial]
    if any(size != 1 for size in others):
        hint = "save one channel or time point as a volume of its own"
        raise FormatError.at(path, expected="one channel and one time point", found=described, hint=hint)
    volume_shape(path, [sizes[axis] for axis in spatial])
    return _Axes(tuple(spatial), tuple(sizes[axis] for axis in spatial))


def _directions(path: Path, header: Mapping[str, Any], n_axes: int) -> NDArray[np.float64] | None:
    """(axes, 3): the step along each axis; not a number where an axis has none."""
    if "space directions" not in header:
        return None
    given = header["space directions"]
    rows = [np.full(3, np.nan) if row is None else np.asarray(row, np.float64) for row in given]
    if len(rows) != n_axes or any(row.shape != (3,) for row in rows):
        found = f"{len(rows)} of {', '.join(str(len(row)) for row in rows)} numbers"
        raise FormatError.at(path, expected=f"{n_axes} space directions of 3 numbers", found=found)
    return np.array(rows)


def _data(path: Path, header: Mapping[str, Any], axes: _Axes, data_start: int, warn: list[str]) -> RawData:
    encoding = str(header["encoding"]).lower()
    if encoding not in _PACKINGS:
        hint = "write it anew as raw or gzip"
        raise FormatError.at(path, expected="encoding raw, gzip or bzip2", found=encoding, hint=hint)
    packing = _PACKINGS[encoding]
    dtype = _dtype(path, header)
    shape = volume_shape(path, axes.lengths[::-1])
    file, start = path, data_start
    name = _data_file(header)
    if name is not None:
        file, start = _separate_file(path, name), 0
        warn += link_warnings(path, file)
    start = _after_lines(file, start, int(header.get("line skip", header.get("lineskip", 0))))
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    if skip < -1 or (skip == -1 and packing is not None):
        raise FormatError.at(path, expected="a byte skip of 0 or more (or -1 in raw data)", found=f"{skip}")
    if packing is not None:
        return RawData(file, skip, shape, dtype, packing=packing, stream_start=start)
    data = RawData(file, start + max(0, skip), shape, dtype)
    if skip == -1:  # the voxels are the file's last bytes
        return RawData(file, max(start, file.stat().st_size - data.nbytes), shape, dtype)
    return data


def _separate_file(path: Path, name: str) -> Path:
    if name.upper().startswith("LIST") or "%" in name:
        hint = "write the volume with one data file"
        raise FormatError.at(path, expected="all voxels in one data file", found=f"several ({name})", hint=hint)
    return beside(path, name, "data file")


def _after_lines(file: Path, start: int, lines: int) -> int:
    """The byte after so many lines of a file."""
    if not 0 <= lines <= _LONGEST_SKIP:
        raise FormatError.at(file, expected=f"a line skip of 0 to {_LONGEST_SKIP}", found=f"{lines}")
    if lines == 0:
        return start
    with library_errors(file, "readable lines before the voxels"), file.open("rb") as opened:
        opened.seek(start)
        for _ in range(lines):
            opened.readline(_HEADER_BYTES)
        return opened.tell()


def _dtype(path: Path, header: Mapping[str, Any]) -> np.dtype[Any]:
    named = str(header["type"]).lower()
    kind = next((kind for kind, names in _TYPES.items() if named in names), None)
    if kind is None:
        raise FormatError.at(path, expected="a type of integers or floats", found=repr(named))
    dtype = np.dtype(kind)
    if dtype.itemsize == 1:
        return dtype
    orders = {"little": "<", "big": ">"}
    endian = str(header.get("endian", "none")).lower()
    if endian not in orders:
        raise FormatError.at(path, expected="endian little or big", found=endian)
    return np.dtype(orders[endian] + kind)


def _placed(
    path: Path, header: Mapping[str, Any], axes: _Axes, warn: list[str]
) -> tuple[Vector3 | None, World | None, dict[str, Any]]:
    units = [str(unit) for unit in header.get("space units", header.get("units", [])) if unit]
    unit = units[-1] if units else _MM
    scale = angstrom_per_unit(unit) if len(set(units)) < 2 else None
    details: dict[str, Any] = {"unit": unit, "inferred": [] if units else ["unit"]}
    if scale is None:
        warn.append(f"the header's units are {', '.join(units)}, not one unit of length; give --voxel-spacing")
        return None, None, details
    directions = _directions(path, header, len(header["sizes"]))
    if directions is None:
        return _spacings(header, axes, scale, warn), None, details
    affine = affine_xyz(directions[list(axes.positions)].T * scale, scale * _origin(path, header, warn))
    space, to_lps = _space(header, warn)
    spacing, world = placed(turned(to_lps @ affine), warn, "the header (space directions and origin)")
    return spacing, world, details | {"space": space}


def _spacings(header: Mapping[str, Any], axes: _Axes, scale: float, warn: list[str]) -> Vector3 | None:
    spacings: Sequence[float] = header.get("spacings", [])
    if len(spacings) != len(header["sizes"]):
        warn.append("the header has no space directions and no spacings; give --voxel-spacing")
        return None
    sizes = [scale * abs(float(spacings[position])) for position in axes.positions]
    return declared_spacing(reversed(sizes), warn, "the header (spacings)")


def _origin(path: Path, header: Mapping[str, Any], warn: list[str]) -> NDArray[np.float64]:
    if "space origin" not in header:
        warn.append("the header has no space origin; the first voxel was taken for it")
        return np.zeros(3)
    origin = np.asarray(header["space origin"], np.float64)
    if origin.shape != (3,):
        raise FormatError.at(path, expected="3 numbers in space origin", found=f"{origin.tolist()}")
    return origin


def _space(header: Mapping[str, Any], warn: list[str]) -> tuple[str | None, NDArray[np.float64]]:
    """Name of the space and the map that turns it to LPS; a space without an anatomy stays as it is."""
    written = header.get("space")
    name = str(written or "").lower().removesuffix("-time")
    name = _SHORT_SPACES.get(name.removesuffix("t"), name)
    if name in _TO_LPS:
        return name, _TO_LPS[name]
    told = f"the space is {written!r}" if written else "the header names no space"
    warn.append(f"{told}: its world coordinates were taken as they are, not turned to LPS")
    return (str(written) if written else None), np.eye(4)
