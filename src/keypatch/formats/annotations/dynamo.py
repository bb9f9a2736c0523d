"""Particle tables of Dynamo (.tbl): numbers in columns, without a header.

Read from Dynamo's wiki (Table_convention), whose columns are numbered from 1, and from ArtiaX and dynamo2m, which both
take ``x + dx`` as the position. Dynamo counts the first voxel as 1, as everything in MATLAB; these two take its numbers
as they are, one voxel further.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, point_frame, zyx
from keypatch.formats.annotations.cells import Cells, read_cells
from keypatch.formats.annotations.source import head_text
from keypatch.formats.annotations.tomogram_numbers import class_names, name_volumes, whole_numbers

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "dynamo"
SUFFIXES: tuple[str, ...] = (".tbl",)
DESCRIPTION = "Dynamo table (.tbl): 26 columns of numbers or more, x y z in 24 to 26, shifts in 4 to 6"
USES: frozenset[str] = frozenset({"delimiter", "tomograms"})

# Columns from 0; the convention counts them from 1.
_SHIFTS: Final = (3, 4, 5)
_CC: Final = 9
_TOMOGRAM: Final = 19
_CLASS: Final = 21
_COORDINATES: Final = (23, 24, 25)
_APIX: Final = 35
# The convention ends with column 42, an older one with 35; the coordinates' last is 26.
_WIDTHS: Final = range(26, 43)

_REAL = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
# MATLAB writes a column with one complex number as complex throughout: "0+1.2074e-06i".
_COMPLEX = re.compile(rf"({_REAL})[+-](?:\d+\.?\d*(?:[eE][+-]?\d+)?|Inf|NaN)i")
_CELL = re.compile(rf"{_COMPLEX.pattern}|{_REAL}|NaN|[+-]?Inf", re.IGNORECASE)


def matches(_path: Path, head: bytes) -> bool:
    """Whether the first line is as many numbers, apart by blanks, as a table of Dynamo has."""
    cells = (head_text(head) or "").lstrip().partition("\n")[0].split()
    return len(cells) in _WIDTHS and all(_CELL.fullmatch(cell) for cell in cells)


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one row a particle; its position is its coordinate plus its shift.

    Volumes are named by the tomogram's number (column 20), or by the file that ``options.tomograms`` lists for it.
    Classes are the numbers of column 22, 0 for none.

    Raises:
        ReadError: If a file is missing or unreadable.
        FormatError: If a row is too short, or at the first cell in use that is no number.
    """
    cells = _cells(path, options)
    tomograms = whole_numbers(path, cells.floats(_TOMOGRAM), "tomogram number (column 20)")
    volumes = name_volumes(path, tomograms, options.tomograms, spacing=_spacings(cells))
    classes, class_warnings = class_names(whole_numbers(path, cells.floats(_CLASS), "class number (column 22)"))
    shifts = np.column_stack([cells.floats(column) for column in _SHIFTS])
    positions = np.column_stack([cells.floats(column) for column in _COORDINATES]) + shifts
    convention = Convention(
        "voxel", "xyz", index_base=1, inferred=("zero", "index_base"), notes=(*_notes(shifts), *volumes.notes)
    ).overridden(options)
    cc = cells.floats(_CC)
    points = point_frame(
        zyx(positions, convention.axis_order),
        volume=volumes.names,
        source_row=np.arange(len(positions)),
        class_name=classes,
        score=cc if cc.any() else None,
    )
    warnings = (*volumes.warnings, *class_warnings)
    return AnnotationTable(path, NAME, convention, points, volumes.hints, warnings=warnings)


def _cells(path: Path, options: AnnotationOptions) -> Cells:
    """The table's cells, complex numbers replaced by their real parts."""
    cells = read_cells(path, replace(options, header=False, delimiter=options.delimiter or "space"))
    if cells.n_columns < _WIDTHS.start:
        raise FormatError.at(
            path, expected=f"a Dynamo table of {_WIDTHS.start} columns or more", found=f"{cells.n_columns}"
        )
    if cells.text is None or "i" not in cells.text:
        return cells
    frame = cells.frame.apply(lambda column: column.str.replace(rf"^{_COMPLEX.pattern}$", r"\1", regex=True))
    return replace(cells, frame=frame)


def _spacings(cells: Cells) -> NDArray[np.float64] | None:
    """Å a pixel, NaN where a row leaves the column 0."""
    if cells.n_columns <= _APIX:
        return None
    apix = cells.floats(_APIX)
    return np.where(apix == 0, np.nan, apix)


def _notes(shifts: NDArray[np.float64]) -> tuple[str, ...]:
    base = "Dynamo counts voxels from 1; dynamo2m and ArtiaX take its numbers from 0 (--index-base 0)"
    return (base, "the shifts dx, dy, dz were added") if shifts.any() else (base,)
