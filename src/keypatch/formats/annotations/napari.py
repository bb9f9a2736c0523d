"""A points layer as napari saves it: ``index, axis-0, axis-1, axis-2`` and a column for each feature of the points.

napari writes a layer's own data, indices of its array from 0, in the array's order of axes; the layer's scale and
translation, which put it on the screen, are not in the file. A layer that was drawn without a scale over an image that
has one holds the screen's units instead: nothing in the file tells.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keypatch.errors import FormatError
from keypatch.formats.annotations.cells import Cells, header_names, read_cells
from keypatch.formats.annotations.table import table_of_cells

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions, AnnotationTable

NAME = "napari"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "napari points (CSV): index, axis-0, axis-1, axis-2 in voxels, and features such as label"
USES: frozenset[str] = frozenset({"columns", "delimiter"})

UNIT_NOTE = (
    "axis-0, axis-1, axis-2 are taken as voxels z, y, x; a layer without a scale over an image that has one "
    "holds that image's units: --unit says so"
)


def matches(_path: Path, head: bytes) -> bool:
    """Whether the header begins with an index and has axes that are numbered."""
    names = header_names(head)
    return names[:1] == ("index",) and "axis-0" in names


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one row a point; a feature called as the table's columns are (label, score, …) counts as there.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If the points are not 3-D, if it holds shapes, or at the first cell that is no number.
        UsageError: If an option names a column that is not there.
    """
    cells = read_cells(path, options)
    _check(cells)
    table = table_of_cells(cells, options)
    convention = replace(
        table.convention,
        inferred=tuple(name for name in table.convention.inferred if name != "index_base"),
        notes=(*table.convention.notes, UNIT_NOTE),
    )
    return replace(table, format=NAME, convention=convention)


def _check(cells: Cells) -> None:
    names = [name.lower() for name in cells.names or ()]
    if "shape-type" in names:
        raise FormatError.at(cells.path, expected="points", found="napari shapes, whose rows are vertices")
    axes = [name for name in names if name.startswith("axis-")]
    if axes != ["axis-0", "axis-1", "axis-2"]:
        raise FormatError.at(
            cells.path, expected="3-D points: axis-0, axis-1, axis-2", found=_dimension(axes), hint=_hint(axes)
        )


def _dimension(axes: Sequence[str]) -> str:
    return f"{len(axes)}-D points: {', '.join(axes)}" if axes else "no such columns"


def _hint(axes: Sequence[str]) -> str:
    if len(axes) <= 3:
        return ""
    return "where these are of one time or channel, name three with --columns z=axis-1,y=axis-2,x=axis-3"
