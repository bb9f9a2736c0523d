"""Motive lists of TOM, av3 and Artiatomi (.em): 20 numbers a particle, in an EM file.

Read from TOM's ``tom_emread.m`` (512 bytes of header: machine, type and three sizes first), av3's description of the
list, ArtiaX's ``ArtiatomiParticleData.py`` (which takes off 1) and cryoCAT's ``Motl``. Rows count from 1: 1 the score,
5 the tomogram, 8 to 10 the position, 11 to 13 its shift after the rotation, 14 to 16 the shift before it, 20 the class.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch.errors import FormatError, UsageError
from keypatch.formats.annotations.base import AnnotationTable, Convention, point_frame, zyx
from keypatch.formats.annotations.source import read_bytes, shortened
from keypatch.formats.annotations.tomogram_numbers import class_names, name_volumes, whole_numbers

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "motive-list"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "motive list of TOM, av3, Artiatomi (.em): 20 rows, x y z in 8 to 10, shifts in 11 to 13, class in 20"
USES: frozenset[str] = frozenset({"columns", "tomograms"})

_HEADER_SIZE: Final = 512
_N_ROWS: Final = 20
# Machines by the first byte: OS-9, SGI and Mac are big-endian, the PC is not; VAX and Convex have floats of their own.
_BYTE_ORDERS: Final = {0: ">", 3: ">", 5: ">", 6: "<"}
_DTYPES: Final = {2: "i2", 4: "i4", 5: "f4", 9: "f8"}

# Rows from 0.
_SCORE: Final = 0
_TOMOGRAM: Final = 4
_COORDINATES: Final = slice(7, 10)
_SHIFTS: Final = {"11": slice(10, 13), "14": slice(13, 16)}
_CLASS: Final = 19


def matches(_path: Path, head: bytes) -> bool:
    """Whether it is an EM file of 20 × N × 1 numbers; a volume has other sizes."""
    layout = _layout(head)
    return layout is not None and layout[1] > 0


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one column a particle; its position is its coordinate plus its shift.

    ``options.columns["shift"]`` is the first row of the shifts: 11, or 14 in some dialects. Volumes are named by the
    tomogram's number (row 5), or by the file that ``options.tomograms`` lists for it. Classes are the numbers of row
    20, 0 for none.

    Raises:
        ReadError: If a file is missing or unreadable.
        FormatError: If it is no such file, cut short, or holds a number that is not finite.
        UsageError: If ``options.columns`` names anything but the shift's row.
    """
    shift_row = _shift_row(options)
    particles = _particles(path)
    shifts = particles[:, _SHIFTS[shift_row]]
    volumes = name_volumes(path, whole_numbers(path, particles[:, _TOMOGRAM], "tomogram (row 5)"), options.tomograms)
    classes, class_warnings = class_names(whole_numbers(path, particles[:, _CLASS], "class (row 20)"))
    notes = (f"the shifts of rows {shift_row} to {int(shift_row) + 2} were added",) if shifts.any() else ()
    convention = Convention(
        "voxel", "xyz", index_base=1, inferred=("zero", "index_base"), notes=(*notes, *volumes.notes)
    ).overridden(options)
    score = particles[:, _SCORE]
    points = point_frame(
        zyx(particles[:, _COORDINATES] + shifts, convention.axis_order),
        volume=volumes.names,
        source_row=np.arange(len(particles)),
        class_name=classes,
        score=score if score.any() else None,
    )
    warnings = (*volumes.warnings, *class_warnings, *_shift_warnings(particles, shift_row))
    return AnnotationTable(path, NAME, convention, points, volumes.hints, warnings=warnings)


def _shift_row(options: AnnotationOptions) -> str:
    unknown = [role for role in options.columns if role != "shift"]
    if unknown:
        raise UsageError.at(
            "--columns", expected="shift, the first row of the shifts, for a motive list", found=", ".join(unknown)
        )
    row = options.columns.get("shift", "11").strip()
    if row not in _SHIFTS:
        raise UsageError.at("--columns shift", expected=" or ".join(_SHIFTS), found=repr(row))
    return row


def _shift_warnings(particles: NDArray[np.float64], shift_row: str) -> list[str]:
    (other,) = _SHIFTS.keys() - {shift_row}
    n_shifted = int(np.count_nonzero(particles[:, _SHIFTS[other]].any(axis=1)))
    if not n_shifted:
        return []
    rows = f"rows {other} to {int(other) + 2} of {n_shifted} particles"
    return [f"{rows} are not 0 and were not added; if these are the shifts, --columns shift={other} adds them instead"]


def _layout(head: bytes) -> tuple[np.dtype[np.generic], int] | None:
    """Number type and number of particles; None where it is no EM file of 20 × N × 1."""
    if len(head) < _HEADER_SIZE or head[0] not in _BYTE_ORDERS or head[3] not in _DTYPES:
        return None
    order = _BYTE_ORDERS[head[0]]
    n_rows, n_particles, n_slices = struct.unpack_from(f"{order}3i", head, 4)
    if n_rows != _N_ROWS or n_slices != 1 or n_particles < 0:
        return None
    return np.dtype(order + _DTYPES[head[3]]), n_particles


def _particles(path: Path) -> NDArray[np.float64]:
    """(K, 20) float64."""
    data = read_bytes(path)
    layout = _layout(data)
    if layout is None:
        raise FormatError.at(
            path, expected="a motive list, an EM file of 20 × N × 1 numbers", found=shortened(data[:16])
        )
    dtype, n_particles = layout
    expected = _N_ROWS * n_particles * dtype.itemsize
    if len(data) - _HEADER_SIZE != expected:
        found = f"{len(data) - _HEADER_SIZE}"
        raise FormatError.at(path, expected=f"{expected} bytes for {n_particles} particles", found=found)
    values = np.frombuffer(data, dtype, offset=_HEADER_SIZE).reshape(n_particles, _N_ROWS).astype(np.float64)
    used = [_SCORE, _TOMOGRAM, *range(7, 16), _CLASS]
    wrong = ~np.isfinite(values[:, used]).all(axis=1)
    if wrong.any():
        raise FormatError.at(
            path, expected="finite numbers", found=f"NaN or infinity in particle {int(np.argmax(wrong))}"
        )
    return values
