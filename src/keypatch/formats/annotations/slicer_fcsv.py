"""3D Slicer's older list of points, ``.fcsv``: header lines that begin with "#", then one point a line.

Read from Slicer's ``vtkMRMLMarkupsFiducialStorageNode``. The columns are id, x, y, z, ow, ox, oy, oz, vis, sel, lock,
label, desc, associatedNodeID; a line may end before the last. A file without a version is of Slicer 3 and has
label, x, y, z, sel, vis. Neither ``vis`` nor ``sel`` says that a point is wrong: they are what the screen showed.
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from keypatch.errors import FormatError
from keypatch.formats.annotations.slicer import FRAMES, SlicerPoint, table_of_points
from keypatch.formats.annotations.source import finite_float, head_text, read_text, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions, AnnotationTable
    from keypatch.formats.annotations.slicer import Frame

NAME = "slicer-fcsv"
SUFFIXES: tuple[str, ...] = (".fcsv",)
DESCRIPTION = "3D Slicer fiducials (.fcsv): # header, id, x, y, z in mm, RAS or LPS, …, label, desc"
USES: frozenset[str] = frozenset({"columns"})

_COLUMNS = ("id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label", "desc", "associatednodeid")
_HEADER_LINE = re.compile(r"#\s*([^=]+?)\s*=\s*(.*?)\s*")
_VERSION = "Markups fiducial file version"
_FIRST_WITH_LPS = (4, 11)


def matches(_path: Path, head: bytes) -> bool:
    """Whether its first line begins as Slicer's does, and some line states a version or columns."""
    text = (head_text(head) or "").lstrip()
    return text.startswith("#") and bool(re.search(rf"^#\s*({_VERSION}|columns)\s*=", text, re.MULTILINE))


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one point a line; ``source_row`` counts the lines that are neither header nor blank.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If the coordinate system is unknown, the columns have no x, y, z, or a line has no three numbers.
        UsageError: If ``options.columns`` cannot be carried out.
    """
    lines = list(enumerate(read_text(path).split("\n"), 1))
    header = {found[1]: found[2] for _, line in lines if (found := _HEADER_LINE.fullmatch(line))}
    body = [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]
    if not header:
        first = shortened(body[0][1]) if body else "no such line"
        raise FormatError.at(path, expected=f"a header line '# {_VERSION} = …'", found=first)
    columns = _columns(path, header)
    frame, warnings = _frame(path, header)
    points = [_point(path, row, number, line, columns, frame) for row, (number, line) in enumerate(body)]
    if not points:
        warnings = (*warnings, "the list has no points")
    return table_of_points(path, NAME, points, options, warnings=warnings)


def _columns(path: Path, header: dict[str, str]) -> Sequence[str]:
    if "columns" not in header:
        return _COLUMNS
    names = [name.strip().lower() for name in header["columns"].split(",")]
    if not {"x", "y", "z"} <= set(names):
        raise FormatError.at(path, expected="x, y and z in the line '# columns ='", found=shortened(header["columns"]))
    return names


def _frame(path: Path, header: dict[str, str]) -> tuple[Frame, tuple[str, ...]]:
    """The stated frame; where none is stated, the one that the version took for granted, and a warning."""
    stated = header.get("CoordinateSystem")
    if stated is not None:
        frame = FRAMES.get(stated.upper())
        if frame is None:
            hint = "IJK counts voxels of a volume that the file does not hold" if stated in {"2", "IJK"} else ""
            expected = "a CoordinateSystem of 0, RAS, 1 or LPS"
            raise FormatError.at(path, expected=expected, found=shortened(stated), hint=hint)
        return frame, ()
    version = tuple(int(part) for part in re.findall(r"\d+", header.get(_VERSION, ""))[:2])
    frame = "LPS" if version >= _FIRST_WITH_LPS else "RAS"
    return frame, (f"no CoordinateSystem is stated; {frame}, which 3D Slicer took for granted then, is assumed",)


def _point(path: Path, row: int, number: int, line: str, columns: Sequence[str], frame: Frame) -> SlicerPoint:
    cells = dict(zip(columns, _cells(line), strict=False))
    x, y, z = (finite_float(cells.get(axis, "")) for axis in "xyz")
    if x is None or y is None or z is None:
        found = ", ".join(shortened(cells.get(axis, "")) for axis in "xyz")
        raise FormatError.at(path, expected=f"numbers x, y and z in line {number}", found=found)
    return SlicerPoint((x, y, z), frame, cells.get("label", "").strip(), cells.get("desc", "").strip(), row)


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error:  # a cell longer than the library takes: no number is
        return [line]
