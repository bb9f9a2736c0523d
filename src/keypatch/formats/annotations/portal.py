"""Points of the CryoET Data Portal: one JSON object a line, of the type point, orientedPoint or instancePoint.

Read from the portal's documentation and the converter of its ingestion (``point_converter.py``), which divides by a
binning and writes x, y, z in voxels of the tomogram. A file holds the points of one object in one tomogram and names
neither.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, point_frame, zyx
from keypatch.formats.annotations.source import finite_numbers, head_text, read_text, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "portal"
SUFFIXES: tuple[str, ...] = (".ndjson", ".jsonl")
DESCRIPTION = "CryoET Data Portal (ndjson): a point, orientedPoint or instancePoint a line"
USES: frozenset[str] = frozenset()

_TYPES = ("point", "orientedPoint", "instancePoint")


def matches(_path: Path, head: bytes) -> bool:
    """Whether the first line is a JSON object with a type and a location."""
    text = head_text(head)
    first = next((line for line in (text or "").splitlines() if line.strip()), "")
    try:
        entry = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and entry.get("type") in _TYPES and "location" in entry


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one point a line; ``source_row`` counts the lines that are not blank.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: At the first line that is no JSON, of another type, or without three numbers as location.
    """
    lines = enumerate(read_text(path).split("\n"), 1)
    coords = np.array([_location(path, number, line) for number, line in lines if line.strip()], np.float64).reshape(
        -1, 3
    )
    convention = Convention(
        "voxel",
        "xyz",
        inferred=("zero", "index_base"),
        notes=("older files of the portal list z, y, x under the names x, y, z: --axis-order zyx reads these",),
    ).overridden(options)
    points = point_frame(
        zyx(coords, convention.axis_order), volume=[None] * len(coords), source_row=np.arange(len(coords))
    )
    return AnnotationTable(path, NAME, convention, points)


def _location(path: Path, number: int, line: str) -> Sequence[float]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "a value that cannot be read"
        raise FormatError.at(path, expected=f"a JSON object in line {number}", found=reason) from None
    if not isinstance(entry, dict) or entry.get("type") not in _TYPES:
        found = shortened(entry.get("type") if isinstance(entry, dict) else entry)
        raise FormatError.at(path, expected=f"a type of {', '.join(_TYPES)} in line {number}", found=found)
    location = entry.get("location")
    values = [location.get(axis) for axis in "xyz"] if isinstance(location, dict) else []
    if len(values) == 3 and finite_numbers(values):
        return values
    raise FormatError.at(path, expected=f"numbers x, y and z as location in line {number}", found=shortened(location))
