"""Any table with a row a keypoint: comma, tab, semicolon, pipe or blank separated text, or Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, VolumeHint, point_frame, zyx
from keypatch.formats.annotations.cells import PARQUET_MAGIC, Cells, header_names, read_cells, read_parquet
from keypatch.formats.annotations.hints import listed
from keypatch.formats.annotations.roles import Roles, find_roles, has_coordinates, unit_of
from keypatch.formats.annotations.source import read_head
from keypatch.formats.annotations.units import UNIT_OF_WORD

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "table"
SUFFIXES: tuple[str, ...] = (".csv", ".tsv", ".txt", ".tab", ".coords", ".parquet", ".pq")
DESCRIPTION = (
    "CSV, TSV, any delimiter, or Parquet: [volume,] z, y, x [, class] [, score], named by the header or --columns"
)
USES: frozenset[str] = frozenset({"columns", "delimiter", "header"})


def matches(_path: Path, head: bytes) -> bool:
    """Whether it is Parquet, or a delimited text whose header names z, y and x."""
    return head.startswith(PARQUET_MAGIC) or has_coordinates(header_names(head))


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one row a keypoint.

    A row that names a volume and leaves z, y and x empty states that the volume has no keypoint.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If the columns cannot be told, or at the first cell that is no number.
        UsageError: If an option names a column that is not there.
        MissingExtraError: If Parquet needs a library that is not installed.
    """
    return table_of_cells(
        read_parquet(path) if read_head(path).startswith(PARQUET_MAGIC) else read_cells(path, options), options
    )


def table_of_cells(cells: Cells, options: AnnotationOptions) -> AnnotationTable:
    """Give the cells of a table their meaning; see `read`, whose errors but the first it raises."""
    roles = find_roles(cells, options)
    values = np.column_stack([cells.floats(column, may_be_empty=True) for column in roles.coords])
    volumes = None if roles.volume is None else cells.volume_names(roles.volume)
    classes = None if roles.class_name is None else cells.texts(roles.class_name)
    scores = None if roles.score is None else cells.floats(roles.score, may_be_empty=True)
    convention = _convention(cells, roles, options)
    stated_empty = _stated_empty(cells, roles, values)
    row = np.flatnonzero(~stated_empty)
    points = point_frame(
        zyx(values[row], convention.axis_order),
        volume=[None] * len(row) if volumes is None else volumes[row].tolist(),
        source_row=row,
        class_name=None if classes is None else [name or None for name in classes[row]],
        score=None if scores is None else scores[row],
    )
    warnings = _warnings(roles, convention, volumes, stated_empty)
    unlabelled = 0 if classes is None else int(np.count_nonzero(classes[row] == ""))
    if unlabelled:
        warnings.append(f"{unlabelled} of {len(row)} keypoints have no class")
    names = () if volumes is None else pd.unique(volumes)
    return AnnotationTable(
        cells.path, NAME, convention, points, {name: VolumeHint() for name in names}, warnings=tuple(warnings)
    )


def _convention(cells: Cells, roles: Roles, options: AnnotationOptions) -> Convention:
    stated = roles.unit is not None and options.unit is None
    unit = unit_of(cells, roles.unit) if stated and roles.unit else "voxel"
    inferred = ("zero", "index_base") if roles.unit else ("unit", "zero", "index_base")
    return Convention(unit, roles.axis_order, inferred=inferred, notes=_notes(cells, roles)).overridden(options)


def _notes(cells: Cells, roles: Roles) -> tuple[str, ...]:
    used = {roles.volume, *roles.coords, roles.class_name, roles.score}
    reads = {"volume": roles.volume, "class": roles.class_name, "score": roles.score}
    reads |= dict(zip(roles.axis_order, roles.coords, strict=True))
    notes = [", ".join(f"{role} is {cells.name(column)}" for role, column in reads.items() if column is not None)]
    unused = [cells.name(column).removeprefix("column ") for column in range(cells.n_columns) if column not in used]
    if unused:
        notes.append(f"columns not used: {listed(unused, 12)}")
    if roles.unit is not None and UNIT_OF_WORD.get(roles.unit) == "mm":
        notes.append("mm are counted from the centre of the first voxel; --zero world reads a scanner's coordinates")
    return tuple(notes)


def _stated_empty(cells: Cells, roles: Roles, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows without any coordinate; a row with only some, or one that names no volume either, is an error."""
    empty = np.isnan(values)
    all_empty = np.asarray(empty.all(axis=1), np.bool_)
    wrong = np.array(empty.any(axis=1))
    if roles.volume is not None:
        wrong &= ~all_empty
    if wrong.any():
        row = int(np.argmax(wrong))
        column = roles.coords[int(np.argmax(empty[row]))]
        found = f"an empty cell in {cells.where(row)}"
        raise FormatError.at(cells.path, expected=f"a number in {cells.name(column)}", found=found)
    return all_empty


def _warnings(
    roles: Roles, convention: Convention, volumes: NDArray[Any] | None, stated_empty: NDArray[np.bool_]
) -> list[str]:
    warnings = []
    if not len(stated_empty):
        warnings.append("the table has no rows")
    if convention.axis_order != roles.axis_order:
        warnings.append(
            f"the axis order {convention.axis_order} was given, the columns are called {', '.join(roles.axis_order)}"
        )
    if volumes is not None and stated_empty.any():
        both = set(volumes[stated_empty]) & set(volumes[~stated_empty])
        if both:
            warnings.append(f"a row without coordinates beside keypoints for {listed(sorted(both))}")
    return warnings
