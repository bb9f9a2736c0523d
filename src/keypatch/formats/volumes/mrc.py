"""MRC and CCP4 maps, also inside gzip or bzip2.

The header is that of MRC2014 (Cheng et al. 2015, https://doi.org/10.1016/j.jsb.2015.04.002), read with mrcfile's
definition of it. mrcfile leaves the data in the file's axis order; here MAPC, MAPR and MAPS are honoured, so that
what is read always has the axes z, y, x.

A map's world is the one that ChimeraX shows it in: ORIGIN where that is set, else NSTART times the voxel size, and the
cell's angles (map_data/src/mrc/mrc_format.py of RBVI/ChimeraX).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import mrcfile.utils
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from keypatch.errors import FormatError
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.packing import open_unpacked, packing
from keypatch.formats.volumes.raw_data import Packing, RawData, check_size, open_raw
from keypatch.formats.volumes.reader import (
    declared_spacing,
    library_errors,
    require_bytes,
    volume_dtype,
    volume_shape,
)
from keypatch.formats.volumes.world import affine_xyz, as_world, seven_digits, turned

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import Peek, Volume, VolumeOptions
    from keypatch.geometry import Vector3, World

NAME = "mrc"
SUFFIXES = tuple(
    suffix + packing for suffix in (".mrc", ".mrcs", ".rec", ".map", ".ali", ".ccp4") for packing in ("", ".gz", ".bz2")
)
DESCRIPTION = "MRC or CCP4 map of mode 0, 1, 2, 6 or 12, also in gzip or bzip2"

_MAP_ID = b"MAP"
"""At byte 208. Some programs leave out the blank of "MAP ", so three bytes are compared, as mrcfile does."""

_REFUSED_MODES = {3: "complex 16-bit integers", 4: "complex 32-bit floats", 16: "RGB", 101: "packed 4-bit integers"}
_MODES = (0, 1, 2, 6, 12)

_TELLING_LENGTH = 2**16
"""An axis shorter than this is never shorter in the wrong byte order: its two low bytes become the high ones."""

# IMOD's words in the header's spare bytes, https://bio3d.colorado.edu/imod/doc/mrc_format.txt. Without the flag for
# signed, IMOD means mode 0 as unsigned.
_IMOD_STAMP = 1146047817
_IMOD_BYTES = slice(152, 160)
_IMOD_SIGNED = 1

_FARTHEST_START = 10
"""Times the longest axis; an NSTART beyond was never set, by ChimeraX's rule."""

_ODD_SPACING_RATIO = 2.0
"""Tomograms are binned alike on all axes; beyond this ratio one axis of the cell was most likely never set."""

_Record: TypeAlias = "np.recarray[Any, np.dtype[Any]]"
"""mrcfile's HEADER_DTYPE in the byte order of the file, no axes."""


def matches(peek: Peek) -> bool:
    """Whether the header's MAP id is there. Headers from before 2000 have none: for these the suffix decides."""
    return len(peek.inner) >= HEADER_DTYPE.itemsize and peek.inner[208:211] == _MAP_ID


def open_volume(path: Path, options: VolumeOptions) -> Volume:
    """Open an MRC file. A compressed one is decoded as a whole at the first ``read``.

    NSTART and the origin move no voxel: coordinates are voxel indices from the first voxel stored, and only those that
    are said to be of the world go through ``info.world``.

    Raises:
        FormatError: If the header is none or contradicts the file's size, or the mode is complex, packed or unknown.
        ReadError: If the file cannot be read.
    """
    with library_errors(path, "a readable MRC file"):
        with path.open("rb") as file:
            packed_with = packing(file.read(3))
        with open_unpacked(path) as file:
            raw = file.read(HEADER_DTYPE.itemsize)
    require_bytes(path, needed=HEADER_DTYPE.itemsize, found=len(raw), what="of MRC header")
    warn: list[str] = []
    header = _header(path, raw, warn)
    signedness = _signedness(raw, header, unsigned=options.unsigned)
    data = _data(path, header, packed_with, unsigned=signedness.startswith("unsigned"), warn=warn)
    beyond = check_size(data)
    if beyond:
        promised = data.offset + data.nbytes
        warn.append(f"{beyond} bytes follow the {promised} that the header promises; they were left out")
    spacing = _voxel_spacing(header, warn)
    info = VolumeInfo(
        path,
        NAME,
        shape=volume_shape(path, data.zyx(data.shape)),
        dtype=volume_dtype(path, data.dtype),
        voxel_spacing=spacing,
        access="mapped" if packed_with is None else "whole",
        conventions=_conventions(header, data, signedness),
        warnings=tuple(warn + _contradictions(header, data)),
        world=None if spacing is None else _world(header, data, spacing),
    )
    return open_raw(info, data)


def _header(path: Path, raw: bytes, warn: list[str]) -> _Record:
    """The header as a record in the byte order that it was written in."""
    has_id = raw[208:211] == _MAP_ID
    stamp = raw[212:216]
    try:
        stamped = mrcfile.utils.byte_order_from_machine_stamp(stamp)
    except ValueError:
        stamped = None
        warn.append(
            f"machine stamp {stamp.hex(' ')} names no byte order; it was told from the axis lengths and the mode"
        )
    orders = ("<", ">") if stamped != ">" else (">", "<")
    records = {
        order: np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order)).reshape(()).view(np.recarray) for order in orders
    }
    order = next((order for order in orders if _is_plausible(records[order])), None)
    if order is None and not has_id:
        raise FormatError.at(path, expected="an MRC header", found="no MAP id and no sensible axis lengths and mode")
    if order is not None and stamped is not None and order != stamped:
        warn.append(
            f"machine stamp {stamp.hex(' ')} contradicts the byte order of the axis lengths; it was not followed"
        )
    if not has_id:
        warn.append("no MAP id in the header (written before 2000, or by a program that leaves it out)")
    return records[order or orders[0]]


def _is_plausible(header: _Record) -> bool:
    lengths = (int(header.nx), int(header.ny), int(header.nz))
    return all(0 < n < _TELLING_LENGTH for n in lengths) and int(header.mode) in (*_MODES, *_REFUSED_MODES)


def _signedness(raw: bytes, header: _Record, *, unsigned: bool) -> str:
    """How the bytes of mode 0 are read and who says so; empty for the other modes."""
    if int(header.mode) != 0:
        return ""
    if unsigned:
        return "unsigned, as asked for"
    stamp, flags = np.frombuffer(raw[_IMOD_BYTES], header.nx.dtype)
    if int(stamp) != _IMOD_STAMP:
        return "signed, the rule of MRC2014"
    return "signed, by IMOD's flag" if int(flags) & _IMOD_SIGNED else "unsigned, by IMOD's flag"


def _data(path: Path, header: _Record, packed_with: Packing | None, *, unsigned: bool, warn: list[str]) -> RawData:
    dtype = np.dtype(np.uint8) if unsigned else _mode_dtype(path, header)
    shape = volume_shape(path, [int(header[name]) for name in ("nz", "ny", "nx")])
    if mrcfile.utils.spacegroup_is_volume_stack(header.ispg):
        found = f"a stack of volumes (space group {int(header['ispg'])})"
        raise FormatError.at(path, expected="one volume", found=found, hint="save each volume to a file of its own")
    extended = int(header.nsymbt)
    if extended < 0:
        raise FormatError.at(path, expected="an extended header of 0 bytes or more", found=f"{extended} bytes")
    stored_axes = tuple(int(header[name]) for name in ("maps", "mapr", "mapc"))
    if stored_axes == (0, 0, 0):
        warn.append("MAPC, MAPR and MAPS are 0; columns, rows and sections were taken for x, y and z")
        stored_axes = (3, 2, 1)
    if sorted(stored_axes) != [1, 2, 3]:
        found = ", ".join(map(str, reversed(stored_axes)))
        raise FormatError.at(path, expected="1, 2 and 3 in MAPC, MAPR and MAPS", found=found)
    z, y, x = (stored_axes.index(axis) for axis in (3, 2, 1))
    return RawData(path, HEADER_DTYPE.itemsize + extended, shape, dtype, (z, y, x), packed_with)


def _mode_dtype(path: Path, header: _Record) -> np.dtype[Any]:
    mode = int(header.mode)
    if mode not in _MODES:
        found = f"mode {mode} ({_REFUSED_MODES.get(mode, 'unknown')})"
        raise FormatError.at(path, expected="MRC mode 0, 1, 2, 6 or 12", found=found, hint="convert it to mode 2")
    dtype: np.dtype[Any] = mrcfile.utils.data_dtype_from_header(header)
    return dtype


def _voxel_spacing(header: _Record, warn: list[str]) -> Vector3 | None:
    cell = {axis: float(header.cella[axis]) for axis in "zyx"}
    samples = {"z": int(header.mz), "y": int(header.my), "x": int(header.mx)}
    sizes = (seven_digits(cell[axis] / samples[axis]) if samples[axis] > 0 else 0.0 for axis in "zyx")
    spacing = declared_spacing(sizes, warn, "the header (CELLA / MX, MY, MZ)")
    if spacing is not None and max(spacing) > _ODD_SPACING_RATIO * min(spacing):
        z, y, x = spacing
        warn.append(f"voxel spacing differs much between the axes (z, y, x: {z:g}, {y:g}, {x:g} Å); is it right?")
    return spacing


def _world(header: _Record, data: RawData, spacing: Vector3) -> World:
    """Index to Å as ChimeraX places the map."""
    steps = _cell_axes(header) * np.asarray(spacing[::-1])
    return as_world(turned(affine_xyz(steps, _origin(header, data, steps))))


def _cell_axes(header: _Record) -> NDArray[np.float64]:
    """Unit vectors along the cell's axes a, b, c as columns: a along x, b in the plane of x and y."""
    degrees = np.array([float(header.cellb[name]) for name in ("alpha", "beta", "gamma")])
    if not (np.isfinite(degrees).all() and (degrees > 0).all() and (degrees < 180).all()):
        return np.eye(3)
    cosines = np.where(degrees == 90, 0.0, np.cos(np.radians(degrees)))
    alpha, beta, gamma = cosines
    sine = math.sqrt(1 - gamma**2)
    up = (alpha - beta * gamma) / sine
    height = 1 - beta**2 - up**2
    if height <= 0:
        return np.eye(3)  # no three edges enclose such angles
    return np.array([[1.0, gamma, beta], [0.0, sine, up], [0.0, 0.0, math.sqrt(height)]])


def _origin(header: _Record, data: RawData, steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """World x, y, z of the centre of the first voxel, in Å."""
    origin = np.array([float(header.origin[axis]) for axis in "xyz"])
    # An origin so far out that one voxel more makes no difference was never set.
    sizes = np.linalg.norm(steps, axis=0).astype(np.float32)
    told_apart = np.isfinite(origin).all() and (origin.astype(np.float32) + sizes != origin.astype(np.float32)).all()
    if header["map"].tobytes().startswith(_MAP_ID) and origin.any() and told_apart:
        return origin
    start = np.array(_nstart(header, data)[::-1], np.float64)
    longest = max(*data.shape, *(int(header[name]) for name in ("mx", "my", "mz")))
    if (np.abs(start) > _FARTHEST_START * longest).any():
        return np.zeros(3)
    return steps @ start


def _nstart(header: _Record, data: RawData) -> list[int]:
    return data.zyx(tuple(int(header[name]) for name in ("nzstart", "nystart", "nxstart")))


def _contradictions(header: _Record, data: RawData) -> list[str]:
    found = []
    angles = [seven_digits(float(header.cellb[name])) for name in ("alpha", "beta", "gamma")]
    if any(angle not in (0.0, 90.0) for angle in angles):
        found.append(f"cell angles {angles} are not right angles; voxels were taken as if they were")
    if data.dtype == np.int8 and float(header.dmax) > 127:
        found.append(
            f"mode 0 is signed but DMAX is {float(header.dmax):g}: most likely meant unsigned; give --unsigned"
        )
    if data.dtype == np.uint8 and float(header.dmin) < 0:
        found.append(f"mode 0 was read as unsigned but DMIN is {float(header.dmin):g}")
    if data.shape[0] == 1:
        found.append("one section only: a single image, not a tomogram?")
    return found


def _conventions(header: _Record, data: RawData, signedness: str) -> dict[str, Any]:
    conventions: dict[str, Any] = {
        "axis_order": "zyx",
        "mode": int(header.mode),
        "byte_order": "big" if mrcfile.utils.byte_orders_equal(header.mode.dtype.byteorder, ">") else "little",
        "mapc_mapr_maps": [int(header[name]) for name in ("mapc", "mapr", "maps")],
        "sampling_zyx": [int(header[name]) for name in ("mz", "my", "mx")],
        "cell_angles": [_finite(header.cellb[name]) for name in ("alpha", "beta", "gamma")],
        "nstart_zyx": _nstart(header, data),
        "origin_zyx": [_finite(header.origin[axis]) for axis in "zyx"],
        "origin_applied": False,
        "space_group": int(header.ispg),
        "extended_header_bytes": data.offset - HEADER_DTYPE.itemsize,
    }
    return conventions | ({"mode_0": signedness} if signedness else {})


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return seven_digits(float(value)) if math.isfinite(value) else None
