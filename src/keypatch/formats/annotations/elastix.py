"""Points of elastix and transformix: the list that goes in, and the ``outputpoints.txt`` that comes out.

Read from elastix' ``itkTransformixInputPointFileReader.hxx`` and ``elxTransformBase.hxx``. The list is "point" or
"index", the number of points, and that many x y z, all apart by blanks; points are world coordinates, indices count
voxels, and where neither word stands there they are indices. A line of ``outputpoints.txt`` is fields apart by
semicolons, each a name and its numbers in brackets; ``OutputPoint`` is the world position in the moving image.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, point_frame, zyx
from keypatch.formats.annotations.source import finite_float, head_text, read_text, shortened

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "elastix"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "elastix points (point or index, their number, then x y z) and transformix' outputpoints.txt"
USES: frozenset[str] = frozenset()

_INPUT = re.compile(r"\s*(point|index)\s+\d+\s")
_OUTPUT = re.compile(r"\s*Point\s+\d+\s*;\s*InputIndex\s*=")
_OUTPUT_POINT = re.compile(r";\s*OutputPoint\s*=\s*\[([^\]]*)\]")

_WORLD = Convention("mm", "xyz", "world", inferred=("unit",), notes=("world coordinates of ITK, which are LPS",))
_INDEX = Convention("voxel", "xyz")
_OUTPUT_WORLD = replace(_WORLD, notes=(*_WORLD.notes, "OutputPoint is read: where the points lie in the moving image"))


def matches(_path: Path, head: bytes) -> bool:
    """Whether it begins as a list of points does, or as transformix' output."""
    text = head_text(head) or ""
    return bool(_INPUT.match(f"{text}\n") or _OUTPUT.match(text))


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read all points, none of which has a class.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If there are not as many points as stated, if they are 2-D, or a number is none.
    """
    text = read_text(path)
    if _OUTPUT.match(text):
        coords, convention = _output_points(path, text), _OUTPUT_WORLD
    else:
        coords, convention = _input_points(path, text)
    convention = convention.overridden(options)
    points = point_frame(
        zyx(coords, convention.axis_order), volume=[None] * len(coords), source_row=np.arange(len(coords))
    )
    return AnnotationTable(path, NAME, convention, points, warnings=() if len(coords) else ("the list has no points",))


def _input_points(path: Path, text: str) -> tuple[NDArray[np.float64], Convention]:
    words = [(word, number) for number, line in enumerate(text.split("\n"), 1) for word in line.split()]
    kind = words[0][0] if words else ""
    stated = kind in {"point", "index"}
    count, line = words[stated] if len(words) > stated else ("", 1)
    if not count.isdecimal():
        expected = "'point' or 'index' and the number of points" if not stated else "the number of points"
        raise FormatError.at(path, expected=expected, found=f"{shortened(count)} in line {line}")
    values = [_number(path, word, number) for word, number in words[stated + 1 :]]
    n = int(count)
    if len(values) == 2 * n > 0 and {len(row.split()) for row in text.split("\n")[line:]} <= {0, 2}:
        raise FormatError.at(path, expected="3-D points, x y z", found=f"2-D points: {n} of 2 numbers")
    if len(values) != 3 * n:
        raise FormatError.at(
            path,
            expected=f"{n} points of 3 numbers, as line {line} says",
            found=f"{len(values)} numbers",
            hint="is the file cut short?" if len(values) < 3 * n else "",
        )
    coords = np.array(values, np.float64).reshape(-1, 3)
    if kind == "point":
        return coords, _WORLD
    notes = [] if stated else ["neither point nor index is stated: elastix takes them as indices"]
    if (coords % 1 != 0).any():
        notes.append("elastix rounds indices to whole voxels; here they are kept as they are")
    return coords, replace(_INDEX, notes=tuple(notes))


def _output_points(path: Path, text: str) -> NDArray[np.float64]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    coords = []
    for number, line in lines:
        found = _OUTPUT_POINT.search(line)
        if found is None:
            raise FormatError.at(path, expected=f"OutputPoint = [ x y z ] in line {number}", found=shortened(line))
        point = [_number(path, word, number) for word in found[1].split()]
        if len(point) != 3:
            raise FormatError.at(
                path, expected=f"3-D points, x y z, in line {number}", found=f"{len(point)} numbers as OutputPoint"
            )
        coords.append(point)
    return np.array(coords, np.float64)


def _number(path: Path, word: str, line: int) -> float:
    value = finite_float(word)
    if value is None:
        raise FormatError.at(path, expected="a number", found=f"{shortened(word)} in line {line}")
    return value
