"""NIfTI 1 and 2 (.nii, .nii.gz, and pairs of .hdr and .img): nibabel reads the header, the voxels are mapped here.

The affine map is nibabel's choice: the sform where its code is set, else the qform. It leads to mm with x to the right
and y to the front; here x and y are turned round, to the LPS of all our worlds. Where a header scales its voxels
(scl_slope, scl_inter), the scaled values are what is read.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from keypatch.errors import FormatError, ReadError
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.neighbours import beside, link_warnings
from keypatch.formats.volumes.packing import open_unpacked, packing
from keypatch.formats.volumes.raw_data import RawData, check_size, open_raw
from keypatch.formats.volumes.reader import (
    VolumeReader,
    declared_spacing,
    library_errors,
    optional_library,
    require_bytes,
    volume_dtype,
    volume_shape,
)
from keypatch.formats.volumes.world import RAS_TO_LPS, placed, rounded, shortest_single, turned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import Peek, Volume, VolumeOptions
    from keypatch.geometry import Shape3, Vector3, World

Header: TypeAlias = Any
"""nibabel's Nifti1Header or Nifti2Header, whose fields are those of nifti1.h and nifti2.h."""

NAME = "nifti"
SUFFIXES = (".nii", ".nii.gz", ".nii.bz2", ".hdr", ".hdr.gz", ".img", ".img.gz")
DESCRIPTION = "NIfTI 1 or 2 (.nii, .nii.gz, or .hdr with .img)"

_SIZES = {348: 1, 540: 2}
"""sizeof_hdr, the first number of a header, to the version of NIfTI."""
_MAGIC_AT = {1: slice(344, 348), 2: slice(4, 8)}
_MAGICS = {b"n+1\0": True, b"ni1\0": False, b"n+2\0": True, b"ni2\0": False}
"""Whether header and voxels are in one file."""

_UNITS = {0: ("mm", 1e7), 1: ("meter", 1e10), 2: ("mm", 1e7), 3: ("micron", 1e4)}
"""Name and Å of the lower three bits of xyzt_units (nifti1.h); 0 is unknown, and mm is what all programs then take."""

_NOTICEABLE = 0.5
"""Voxels between the places that sform and qform give a corner, beyond which their difference is told."""


def matches(peek: Peek) -> bool:
    """Whether the magic of NIfTI is there, of either version and byte order, also inside gzip."""
    return _version(peek.inner) is not None


def open_volume(path: Path, options: VolumeOptions) -> Volume:  # noqa: ARG001 - the signature of all readers
    """Open a NIfTI image. A compressed one is decoded as a whole at the first ``read``.

    Raises:
        FormatError: If the header is damaged or promises more than there is, there are several time points or channels,
            or the voxels are complex or colours.
        MissingExtraError: If nibabel is not installed.
        ReadError: If it, or the other file of its pair, cannot be read.
    """
    header_path = _sibling(path, ".img", ".hdr") or path
    header, in_one_file = _header(header_path)
    data_path = path if in_one_file else _sibling(header_path, ".hdr", ".img") or path
    warn = [] if data_path == path else link_warnings(path, data_path)
    with library_errors(header_path, "a known type of voxel"):
        stored = np.dtype(header.get_data_dtype())
    data = _data(header_path, data_path, header, stored, in_one_file=in_one_file)
    beyond = check_size(data)
    if beyond:
        warn.append(f"{beyond} bytes follow the voxels that the header promises; they were left out")
    spacing, world, details = _placed(header_path, header, data.shape, warn)
    info = VolumeInfo(
        path,
        NAME,
        data.shape,
        volume_dtype(path, stored),
        voxel_spacing=spacing,
        access="mapped" if data.packing is None else "whole",
        conventions={
            "axis_order": "zyx",
            "version": _SIZES[int(header["sizeof_hdr"])],
            "byte_order": "big" if header.endianness == ">" else "little",
            "stored_dtype": stored.name,
            "space": "RAS, turned to LPS",
            **details,
        },
        warnings=tuple(warn),
        world=world,
    )
    return _scaled(header_path, header, info, data)


class ScaledVolume(VolumeReader):
    """Voxels times a slope plus an intercept, computed in float64."""

    def __init__(self, info: VolumeInfo, stored: VolumeReader, slope: float, intercept: float) -> None:
        super().__init__(info)
        self._stored = stored
        self._slope, self._intercept = slope, intercept

    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        return self._scaled(self._stored.read((z.start, y.start, x.start), (z.stop, y.stop, x.stop)))

    def _scaled(self, stored: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(all="ignore"):  # what overflows is infinite, as nibabel has it
            return (stored * np.float64(self._slope) + self._intercept).astype(self.info.dtype)

    def blocks(self, start: Shape3, stop: Shape3) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """See `Volume.blocks`: the pieces that lie in the file, scaled."""
        for part, block in self._stored.blocks(start, stop):
            yield part, self._scaled(block)

    def close(self) -> None:
        """Close what is scaled."""
        self._stored.close()


def _scaled(path: Path, header: Header, info: VolumeInfo, data: RawData) -> Volume:
    with library_errors(path, "scl_slope and scl_inter that are numbers"):
        slope, intercept = header.get_slope_inter()
    slope, intercept = (1.0, 0.0) if slope is None else (float(slope), float(intercept))
    scaling = {"scl_slope": slope, "scl_inter": intercept}
    info = dataclasses.replace(info, conventions={**info.conventions, **scaling})
    if (slope, intercept) == (1.0, 0.0):
        return open_raw(info, data)
    # float32 holds what has 16 bits and is scaled; beyond, its 24 bits of mantissa would lose some.
    fits = data.dtype.itemsize <= 2 or data.dtype == np.float32
    dtype = np.dtype(np.float32 if fits else np.float64)
    told = f"the header scales its {info.dtype} voxels: {slope:g} x stored + {intercept:g} was read, as {dtype}"
    scaled = dataclasses.replace(info, dtype=dtype, warnings=(*info.warnings, told))
    return ScaledVolume(scaled, open_raw(info, data), slope, intercept)


def _version(head: bytes) -> int | None:
    for version, place in _MAGIC_AT.items():
        if head[place] in _MAGICS and int(head[place][2:3]) == version:
            return version
    return None


def _sibling(path: Path, suffix: str, other: str) -> Path | None:
    """The other file of a pair, packed or not; None for a path without this suffix."""
    stem = path.name.removesuffix(".gz")
    if not stem.lower().endswith(suffix):
        return None
    name = stem[: -len(suffix)] + (other.upper() if stem.endswith(suffix.upper()) else other)
    there = [candidate for candidate in (name, f"{name}.gz") if (path.parent / candidate).exists()]
    if not there:
        raise ReadError.at(path, expected=f"{name} beside it", found="no such file")
    return beside(path, there[0], "the other file of the pair")


def _header(path: Path) -> tuple[Header, bool]:
    """Nibabel's header in the byte order of the file, and whether the voxels follow in the same file."""
    nibabel = optional_library("nibabel", path, "medical")
    with library_errors(path, "a readable NIfTI file"), open_unpacked(path) as file:
        raw = file.read(max(_SIZES))
    version = _version(raw)
    if version is None:
        hint = "an Analyze 7.5 file? Convert it to NIfTI" if raw[:4] in (b"\x5c\1\0\0", b"\0\0\1\x5c") else ""
        raise FormatError.at(path, expected="a NIfTI header", found="no magic of NIfTI", hint=hint)
    size = {number: size for size, number in _SIZES.items()}[version]
    require_bytes(path, needed=size, found=len(raw), what="of NIfTI header")
    byte_order = {size.to_bytes(4, "little"): "<", size.to_bytes(4, "big"): ">"}.get(raw[:4])
    if byte_order is None:
        raise FormatError.at(path, expected=f"sizeof_hdr = {size}", found=f"{raw[:4].hex(' ')}")
    kind = nibabel.Nifti1Header if version == 1 else nibabel.Nifti2Header
    with library_errors(path, "a NIfTI header"):
        # Without nibabel's check, which mends in silence or prints; what is wrong is found below.
        header = kind(raw[:size], endianness=byte_order, check=False)
    return header, _MAGICS[raw[_MAGIC_AT[version]]]


def _data(header_path: Path, path: Path, header: Header, stored: np.dtype[Any], *, in_one_file: bool) -> RawData:
    with library_errors(path, "a readable NIfTI file"), path.open("rb") as file:
        packed_with = packing(file.read(3))
    start = float(header["vox_offset"])
    if not math.isfinite(start) or start != int(start):
        raise FormatError.at(header_path, expected="vox_offset to be a whole number", found=f"{start}")
    # A header and the four bytes that say whether extensions follow; 0 means "just after" (nibabel, nifti1.py).
    smallest = int(header["sizeof_hdr"]) + 4 if in_one_file else 0
    offset = int(start) or smallest
    if offset < smallest:
        raise FormatError.at(header_path, expected=f"vox_offset of at least {smallest}", found=f"{offset}")
    return RawData(path, offset, _shape(header_path, header), stored, packing=packed_with)


def _shape(path: Path, header: Header) -> Shape3:
    n_axes = int(header["dim"][0])
    if not 1 <= n_axes <= 7:
        raise FormatError.at(path, expected="1 to 7 axes in dim[0]", found=f"{n_axes}")
    lengths = [int(n) for n in header["dim"][1 : n_axes + 1]]
    if any(n != 1 for n in lengths[3:]):
        found = f"{len(lengths)} axes of {' x '.join(map(str, lengths))}"
        hint = "save one time point or channel as a volume of its own"
        raise FormatError.at(path, expected="one time point and one channel", found=found, hint=hint)
    return volume_shape(path, lengths[2::-1] if n_axes >= 3 else lengths[::-1])


def _placed(
    path: Path,
    header: Header,
    shape: Shape3,
    warn: list[str],
) -> tuple[Vector3 | None, World | None, dict[str, Any]]:
    unit, angstrom = _UNITS.get(int(header["xyzt_units"]) & 7, (None, 0.0))
    inferred = ["unit"] if int(header["xyzt_units"]) & 7 == 0 else []
    codes = {"sform_code": int(header["sform_code"]), "qform_code": int(header["qform_code"])}
    details: dict[str, Any] = {"unit": unit, **codes, "inferred": inferred}
    if unit is None:
        found = f"xyzt_units {int(header['xyzt_units'])}"
        raise FormatError.at(path, expected="a known unit of length", found=found)
    if not any(code > 0 for code in codes.values()):
        warn.append("neither sform nor qform is set: the file has no world coordinates")
        sizes = (angstrom * abs(shortest_single(float(header["pixdim"][axis]))) for axis in (3, 2, 1))
        return declared_spacing(sizes, warn, "the header (pixdim)"), None, details | {"affine_from": None}
    source = "sform" if codes["sform_code"] > 0 else "qform"
    with library_errors(path, f"a {source} that is an affine map"):
        affine = header.get_sform() if source == "sform" else header.get_qform()
    if source == "sform" and codes["qform_code"] > 0:
        _compare(path, header, affine, shape, warn)
    scale = np.diag([angstrom, angstrom, angstrom, 1.0])
    spacing, world = placed(turned(scale @ RAS_TO_LPS @ affine), warn, f"the header ({source})")
    if spacing is not None:
        z, y, x = (rounded(shortest_single(length / angstrom) * angstrom) for length in spacing)
        spacing = (z, y, x)
    return spacing, world, details | {"affine_from": source}


def _compare(path: Path, header: Header, sform: NDArray[np.float64], shape: Shape3, warn: list[str]) -> None:
    """Tell if the qform puts the volume elsewhere than the sform does."""
    try:
        with library_errors(path, "a qform that is an affine map"):
            qform = header.get_qform()
    except FormatError:
        warn.append("the qform is no affine map; the sform was taken")
        return
    corners = np.array([[0, 0, 0, 1], [shape[2] - 1, shape[1] - 1, shape[0] - 1, 1]], np.float64).T
    with np.errstate(all="ignore"):
        apart = float(np.linalg.norm(((qform - sform) @ corners)[:3], axis=0).max())
        voxel = float(np.linalg.norm(sform[:3, :3], axis=0).min())
    if not apart <= _NOTICEABLE * voxel:
        warn.append(f"sform and qform put a corner {apart:.3g} apart; the sform was taken, as nibabel does")
