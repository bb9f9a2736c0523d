"""3D Slicer's markups, ``.mrk.json``: lists of control points, each with a type, a coordinate system and a unit.

Read from Slicer's markups schemas 1.0.0 to 1.0.3 and ``vtkMRMLMarkupsJsonStorageNode``: the coordinate system is LPS
where none is stated, the unit mm, the position's status "defined". Of the types, "Fiducial" alone is a list of
keypoints; the control points of a line, curve, angle, plane or region of interest are what that shape hangs on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import LeftOut
from keypatch.formats.annotations.slicer import FRAMES, SlicerPoint, table_of_points
from keypatch.formats.annotations.source import finite_numbers, head_text, read_json, shortened
from keypatch.formats.annotations.units import UNIT_OF_WORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions, AnnotationTable
    from keypatch.formats.annotations.slicer import Frame
    from keypatch.geometry import Unit

NAME = "slicer-markups"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "3D Slicer markups (.mrk.json): control points in mm, RAS or LPS, with label and description"
USES: frozenset[str] = frozenset({"columns"})

_POINT_LISTS = ("Fiducial", "PointList")
_STATUSES = ("defined", "undefined", "preview")
_NOT_PLACED = "its positionStatus says that the point was never placed"


def matches(_path: Path, head: bytes) -> bool:
    """Whether it is a JSON object with markups, by its schema or by their control points."""
    text = head_text(head)
    if text is None or not text.lstrip().startswith("{"):
        return False
    return '"markups"' in text and ("markups-schema" in text or '"controlPoints"' in text)


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read the control points of every point list; ``source_row`` counts all control points of the file.

    Points that were never placed, and those of other shapes, are left out and listed.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it is no such JSON file, a coordinate system or unit is unknown, units differ, or a position is
            no three numbers.
        UsageError: If ``options.columns`` cannot be carried out.
    """
    content = read_json(path)
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or not all(isinstance(markup, dict) for markup in markups):
        raise FormatError.at(path, expected="a JSON object with a list of markups", found=shortened(content))
    points: list[SlicerPoint] = []
    never_placed: list[int] = []
    of_shapes: dict[str, list[int]] = {}
    units: set[Unit] = set()
    row = 0
    for markup in markups:
        kind = str(markup.get("type"))
        entries = _control_points(path, markup)
        rows = range(row, row + len(entries))
        row += len(entries)
        if kind not in _POINT_LISTS:
            of_shapes.setdefault(kind, []).extend(rows)
            continue
        frame = _frame(path, markup)
        units.add(_unit(path, markup, options))
        for number, entry in zip(rows, entries, strict=True):
            if _is_placed(path, number, entry):
                points.append(_point(path, number, entry, frame))
            else:
                never_placed.append(number)
    if len(units) > 1:
        raise FormatError.at(path, expected="one unit for all markups", found=", ".join(sorted(units)))
    return table_of_points(
        path,
        NAME,
        points,
        options,
        unit=next(iter(units), "mm"),
        left_out=tuple(_left_out(never_placed, of_shapes)),
        warnings=() if points else ("the markups hold no placed point",),
    )


def _left_out(never_placed: list[int], of_shapes: dict[str, list[int]]) -> Iterator[LeftOut]:
    if never_placed:
        yield LeftOut(_NOT_PLACED, tuple(never_placed))
    for kind, rows in of_shapes.items():
        if rows:
            yield LeftOut("control point of a shape, not of a point list", tuple(rows), kind)


def _control_points(path: Path, markup: dict[str, Any]) -> list[dict[str, Any]]:
    entries = markup.get("controlPoints", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise FormatError.at(path, expected="a list of controlPoints", found=shortened(entries))
    return entries


def _frame(path: Path, markup: dict[str, Any]) -> Frame:
    stated = markup.get("coordinateSystem", "LPS")
    frame = FRAMES.get(stated) if isinstance(stated, str) else None
    if frame is None:
        raise FormatError.at(path, expected="a coordinateSystem of LPS or RAS", found=shortened(stated))
    return frame


def _unit(path: Path, markup: dict[str, Any], options: AnnotationOptions) -> Unit:
    """A unit is a word, or a code such as ``["um", "UCUM", "micrometer"]``."""
    stated = markup.get("coordinateUnits", "mm")
    word = stated[0] if isinstance(stated, list) and stated else stated
    unit = UNIT_OF_WORD.get(word) if isinstance(word, str) else None
    if unit is None and options.unit is None:
        raise FormatError.at(
            path, expected="coordinateUnits such as mm, um or nm", found=shortened(stated), hint="give --unit"
        )
    return unit or "mm"


def _is_placed(path: Path, number: int, entry: dict[str, Any]) -> bool:
    status = entry.get("positionStatus", "defined")
    if status not in _STATUSES:
        expected = f"a positionStatus of {', '.join(_STATUSES)} for point {number}"
        raise FormatError.at(path, expected=expected, found=shortened(status))
    return bool(status == "defined")


def _point(path: Path, number: int, entry: dict[str, Any], frame: Frame) -> SlicerPoint:
    position = entry.get("position")
    if not (isinstance(position, list) and len(position) == 3 and finite_numbers(position)):
        raise FormatError.at(path, expected=f"three numbers as position of point {number}", found=shortened(position))
    x, y, z = (float(value) for value in position)
    return SlicerPoint((x, y, z), frame, _text(entry, "label"), _text(entry, "description"), number)


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return value.strip() if isinstance(value, str) else ""
