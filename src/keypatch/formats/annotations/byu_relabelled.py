"""The community's relabelling of the BYU tomograms: a list of fractional coordinates in one cell."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, LeftOut, VolumeHint, point_frame, zyx
from keypatch.formats.annotations.byu import CLASS_NAME
from keypatch.formats.annotations.cells import Cells, header_names, read_cells
from keypatch.formats.annotations.hints import hints_of_rows, listed
from keypatch.formats.annotations.source import finite_numbers, shortened

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "byu-relabelled"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "BYU relabelled: tomo_id, …, coordinates as a list of fractional (z, y, x), fold"
USES: frozenset[str] = frozenset({"delimiter"})

_REQUIRED = ("tomo_id", "z_shape", "y_shape", "x_shape", "voxel_spacing", "coordinates")
# What a list of tuples of numbers is written with; nothing else reaches the parser.
_LIST_OF_NUMBERS = re.compile(r"[\[\](),\s0-9eE.+-]*\Z")
_AGREES = 1.0  # voxels between the columns z, y, x and the nearest entry of the list


def matches(_path: Path, head: bytes) -> bool:
    """Whether the header has the relabelling's columns."""
    return set(header_names(head)) >= set(_REQUIRED)


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read the ``coordinates`` of every row; an empty list states that the tomogram has no motor.

    The columns z, y, x repeat one motor of the row; they are compared, not used.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If a column is missing, a cell is no number, or ``coordinates`` is no list of three numbers each.
    """
    cells = read_cells(path, options)
    column = cells.columns(_REQUIRED)
    volumes = cells.volume_names(column["tomo_id"])
    lists = [_coordinates(cells, row, text) for row, text in enumerate(cells.texts(column["coordinates"]))]
    repeated = _repeats(volumes, lists)
    shapes = np.column_stack([cells.floats(column[f"{axis}_shape"], may_be_empty=True) for axis in "zyx"])
    spacings = cells.floats(column["voxel_spacing"], may_be_empty=True)
    hints, warnings = hints_of_rows(volumes, shapes, spacings)
    used = [row for row in range(len(lists)) if row not in repeated]
    source_row = np.repeat(used, [len(lists[row]) for row in used]).astype(np.int64)
    fractions = np.array([point for row in used for point in lists[row]], np.float64).reshape(-1, 3)
    warnings += _list_warnings(volumes[used], fractions)
    warnings += _column_warnings(cells, column, lists, hints, volumes)
    convention = Convention("fraction", "zyx", inferred=("zero",), notes=_fold_notes(cells, column)).overridden(options)
    points = point_frame(
        zyx(fractions, convention.axis_order),
        volume=volumes[source_row].tolist(),
        source_row=source_row,
        class_name=[CLASS_NAME] * len(source_row),
    )
    return AnnotationTable(path, NAME, convention, points, hints, _left_out(repeated), tuple(warnings))


def _coordinates(cells: Cells, row: int, text: str) -> tuple[tuple[float, float, float], ...]:
    try:
        entries = ast.literal_eval(text) if _LIST_OF_NUMBERS.match(text) else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        entries = None
    if isinstance(entries, list) and all(_is_point(entry) for entry in entries):
        return tuple((float(z), float(y), float(x)) for z, y, x in entries)
    raise FormatError.at(
        cells.path,
        expected="a list of (z, y, x) in the column 'coordinates'",
        found=f"{shortened(text)} in {cells.where(row)}",
    )


def _is_point(entry: object) -> bool:
    return isinstance(entry, list | tuple) and len(entry) == 3 and finite_numbers(entry)


def _repeats(volumes: NDArray[Any], lists: list[tuple[tuple[float, float, float], ...]]) -> set[int]:
    """Rows that give their tomogram's list once more: with one row a motor, every row holds the whole list."""
    seen: set[tuple[str, tuple[tuple[float, float, float], ...]]] = set()
    repeats = set()
    for row, key in enumerate(zip(volumes, lists, strict=True)):
        if key in seen:
            repeats.add(row)
        seen.add(key)
    return repeats


def _left_out(repeated: set[int]) -> tuple[LeftOut, ...]:
    if not repeated:
        return ()
    return (LeftOut("repeats the list of coordinates of an earlier row of its tomogram", tuple(sorted(repeated))),)


def _list_warnings(volumes: NDArray[Any], fractions: NDArray[np.float64]) -> list[str]:
    warnings = []
    names = pd.Series(volumes, dtype=object)
    several = names[names.duplicated()].unique()
    if len(several):
        warnings.append(f"rows give different lists of coordinates, all of them read, for {listed(several)}")
    beyond = int(np.count_nonzero(((fractions < 0) | (fractions > 1)).any(axis=1)))
    if beyond:
        warnings.append(
            f"{beyond} of {len(fractions)} points are no fractions of 0 to 1; if they are voxels, give --unit voxel"
        )
    return warnings


def _column_warnings(
    cells: Cells,
    column: dict[str, int],
    lists: list[tuple[tuple[float, float, float], ...]],
    hints: dict[str, VolumeHint],
    volumes: NDArray[Any],
) -> list[str]:
    """Compare the columns z, y, x with the list, as voxels and as fractions."""
    if not {"z", "y", "x"} <= set(column):
        return []
    stated = np.column_stack([cells.floats(column[axis], may_be_empty=True) for axis in "zyx"])
    unlike = []
    for row, (values, points) in enumerate(zip(stated, lists, strict=True)):
        shape = hints[volumes[row]].shape
        if shape is None or np.isnan(values).any():
            continue
        size = np.asarray(shape, np.float64)
        voxels = np.array(points, np.float64).reshape(-1, 3) * size
        off = [np.abs(voxels - candidate).max(axis=1).min(initial=np.inf) for candidate in (values, values * size)]
        says_none = not points and (values < 0).all()
        if min(off) > _AGREES and not says_none:
            unlike.append(str(volumes[row]))
    if not unlike:
        return []
    return [f"the columns z, y, x are no entry of coordinates, which are used, for {listed(dict.fromkeys(unlike))}"]


def _fold_notes(cells: Cells, column: dict[str, int]) -> tuple[str, ...]:
    notes = ["the column coordinates is read, an empty list states that a tomogram has no motor"]
    if "fold" in column:
        counts = pd.Series(cells.texts(column["fold"]), dtype=object).value_counts(sort=False)
        shown = ", ".join(f"{fold or 'none'} ({count})" for fold, count in sorted(counts.items()))
        notes.append(f"folds of the source and their rows, -1 is external data: {shown}")
    return tuple(notes)
