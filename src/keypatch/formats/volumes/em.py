"""The EM format of the TOM toolbox (.em), memory mapped.

512 bytes of header: machine, version, unused, type of voxel; three int32 for the lengths of x, y, z; 80 bytes of
comment; 40 int32 of parameters, the seventh of them 1000 times the voxel size in Å; 256 bytes of the user. Read off
IOfun/tom_emread.m of TOM (Nickell et al. 2005, https://doi.org/10.1016/j.jsb.2004.10.006).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.raw_data import RawData, check_size, open_raw
from keypatch.formats.volumes.reader import (
    declared_spacing,
    library_errors,
    require_bytes,
    volume_dtype,
    volume_shape,
)

if TYPE_CHECKING:
    from pathlib import Path

    from keypatch.formats.volumes.base import Peek, Volume, VolumeOptions
    from keypatch.geometry import Shape3, Vector3

NAME = "em"
SUFFIXES = (".em",)
DESCRIPTION = "EM volume of the TOM toolbox"

_HEADER_BYTES = 512
_BYTE_ORDERS = {0: ">", 3: ">", 5: ">", 6: "<"}
"""By machine: OS-9, SGI and Mac wrote big-endian, the PC little-endian."""
_REFUSED_MACHINES = {1: "VAX", 2: "Convex", 4: "Sun"}
"""The floats of the first two are not IEEE's; TOM calls the third "not supported"."""

_DTYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 8: "c8", 9: "f8", 10: "c16"}

_PIXEL_SIZE_AT = 16 + 80 + 4 * 6
_PIXEL_SIZE_FACTOR = 1000
_COLUMNS_OF_A_MOTIVE_LIST = 20


def matches(peek: Peek) -> bool:
    """Whether machine and type are known and the lengths give just the file's size: the format has no magic bytes."""
    if peek.is_dir or len(peek.head) < _HEADER_BYTES or peek.head[0] not in _BYTE_ORDERS or peek.head[3] not in _DTYPES:
        return False
    lengths = _lengths(peek.head)
    nbytes = math.prod(lengths) * np.dtype(_DTYPES[peek.head[3]]).itemsize
    return min(lengths) > 0 and peek.path.stat().st_size == _HEADER_BYTES + nbytes


def open_volume(path: Path, options: VolumeOptions) -> Volume:
    """Open an EM volume.

    Raises:
        FormatError: If the header is none or promises more than there is, the voxels are complex, or it is a motive
            list (20 x N x 1), which holds annotations.
        ReadError: If it cannot be read.
    """
    with library_errors(path, "a readable EM file"), path.open("rb") as file:
        raw = file.read(_HEADER_BYTES)
    require_bytes(path, needed=_HEADER_BYTES, found=len(raw), what="of EM header")
    stored = _stored_dtype(path, raw, unsigned=options.unsigned)
    data = RawData(path, _HEADER_BYTES, _shape(path, raw), stored)
    warn: list[str] = []
    beyond = check_size(data)
    if beyond:
        warn.append(f"{beyond} bytes follow the voxels that the header promises; they were left out")
    if stored.itemsize == 1 and not options.unsigned:
        warn.append("the format does not say whether bytes have a sign; they were read with one; --unsigned is without")
    if data.shape[0] == 1:
        warn.append("one section only: a single image, not a tomogram?")
    info = VolumeInfo(
        path,
        NAME,
        data.shape,
        volume_dtype(path, stored),
        voxel_spacing=_voxel_spacing(raw, warn),
        access="mapped",
        conventions={
            "axis_order": "zyx",
            "machine": raw[0],
            "byte_order": "big" if _BYTE_ORDERS[raw[0]] == ">" else "little",
            "voxel_type": raw[3],
            "inferred": ["sign"] * (stored.itemsize == 1),
        },
        warnings=tuple(warn),
    )
    return open_raw(info, data)


def _stored_dtype(path: Path, raw: bytes, *, unsigned: bool) -> np.dtype[Any]:
    machine, voxel_type = raw[0], raw[3]
    if machine not in _BYTE_ORDERS:
        found = f"machine {machine} ({_REFUSED_MACHINES.get(machine, 'unknown')})"
        raise FormatError.at(path, expected="an EM header of a PC (6), a Mac (5), SGI (3) or OS-9 (0)", found=found)
    if voxel_type not in _DTYPES:
        raise FormatError.at(path, expected="an EM header of a known voxel type", found=f"type {voxel_type}")
    kind = "u1" if voxel_type == 1 and unsigned else _DTYPES[voxel_type]
    return np.dtype(_BYTE_ORDERS[machine] + kind)


def _shape(path: Path, raw: bytes) -> Shape3:
    x, y, z = _lengths(raw)
    if x == _COLUMNS_OF_A_MOTIVE_LIST and z == 1:
        hint = "a motive list holds annotations: give it with -a"
        raise FormatError.at(path, expected="a volume", found=f"a motive list of {y} particles", hint=hint)
    return volume_shape(path, (z, y, x))


def _lengths(raw: bytes) -> tuple[int, int, int]:
    """Lengths of x, y and z."""
    x, y, z = np.frombuffer(raw, _BYTE_ORDERS[raw[0]] + "i4", 3, 4).tolist()
    return x, y, z


def _voxel_spacing(raw: bytes, warn: list[str]) -> Vector3 | None:
    """The same on all axes: the header has one number."""
    size = int(np.frombuffer(raw, _BYTE_ORDERS[raw[0]] + "i4", 1, _PIXEL_SIZE_AT)[0]) / _PIXEL_SIZE_FACTOR
    return declared_spacing((size, size, size), warn, "the header (pixel size in the object plane)")
