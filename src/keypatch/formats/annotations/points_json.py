"""A JSON map from a volume's name to its points: ``{"run": [[z, y, x], …], "other run": []}``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, VolumeHint, point_frame, zyx
from keypatch.formats.annotations.source import finite_numbers, head_text, read_json, shortened

if TYPE_CHECKING:
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "points-json"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = 'JSON map of volume to points: {"run": [[z, y, x], …]}, an empty list for none'
USES: frozenset[str] = frozenset()

_STARTS_WITH_A_LIST = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\[\s*[\[\]]')


def matches(_path: Path, head: bytes) -> bool:
    """Whether it is an object whose first value is a list of lists, or an empty one."""
    text = head_text(head)
    return text is not None and _STARTS_WITH_A_LIST.match(text) is not None


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read the map; a volume with an empty list has no keypoint. Points are numbered through the whole file.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it is no JSON map of names to lists of three numbers each, or a name stands there twice.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise FormatError.at(
            path, expected='a map {"volume": [[z, y, x], …]}', found=f"a JSON {type(content).__name__}"
        )
    for volume, points in content.items():
        _check(path, volume, points)
    coords = np.array([point for points in content.values() for point in points], np.float64).reshape(-1, 3)
    names = [volume for volume, points in content.items() for _ in points]
    convention = Convention(
        "voxel",
        "zyx",
        inferred=("unit", "axis_order", "zero", "index_base"),
        notes=("an empty list states that a volume has no keypoint",),
    ).overridden(options)
    return AnnotationTable(
        path,
        NAME,
        convention,
        point_frame(zyx(coords, convention.axis_order), volume=names, source_row=np.arange(len(coords))),
        {volume: VolumeHint() for volume in content},
        warnings=() if content else ("the map names no volume",),
    )


def _check(path: Path, volume: str, points: object) -> None:
    if not isinstance(points, list):
        raise FormatError.at(path, expected=f"a list of points for {shortened(volume)}", found=shortened(points))
    for point in points:
        if not (isinstance(point, list) and len(point) == 3 and finite_numbers(point)):
            raise FormatError.at(
                path, expected=f"three numbers a point for {shortened(volume)}", found=shortened(point)
            )
