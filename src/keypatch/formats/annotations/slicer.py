"""What 3D Slicer's two files of points have in common: the frame of their coordinates, their labels and descriptions.

Slicer's text of a coordinate system is "RAS" or "LPS"; before version 4.11 it wrote the number of it, 0 or 1
(``vtkMRMLMarkupsStorageNode::GetCoordinateSystemFromString`` reads all four).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from keypatch.errors import UsageError
from keypatch.formats.annotations.base import AnnotationTable, Convention, point_frame, zyx
from keypatch.formats.annotations.hints import listed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions, LeftOut
    from keypatch.geometry import Unit, Vector3

Frame: TypeAlias = Literal["RAS", "LPS"]

FRAMES: dict[str, Frame] = {"0": "RAS", "1": "LPS", "RAS": "RAS", "LPS": "LPS"}

RAS_NOTE = "coordinates are RAS: x and y changed their signs, so that they count in LPS as everywhere here"

_CLASS_COLUMNS = {"label": "label", "desc": "description", "description": "description"}


@dataclass(frozen=True)
class SlicerPoint:
    """One control point.

    Attributes:
        position: x, y, z as in the file.
        frame: Of the position.
        label: Shown beside the point; "" for none.
        description: "" for none.
        row: Number of the control point in its file.
    """

    position: Vector3
    frame: Frame
    label: str
    description: str
    row: int


def table_of_points(
    path: Path,
    name: str,
    points: Sequence[SlicerPoint],
    options: AnnotationOptions,
    *,
    unit: Unit = "mm",
    left_out: tuple[LeftOut, ...] = (),
    warnings: tuple[str, ...] = (),
) -> AnnotationTable:
    """The table of one file's points, in LPS.

    All points are of one class unless ``options.columns`` says that the label or the description is the class: a list
    of cells has the labels F-1, F-2, F-3 …, which are no classes, and one of landmarks has a name for each.

    Args:
        path: The file.
        name: Of the format.
        points: All that count.
        options: As given.
        unit: Of the positions.
        left_out: Points that do not count.
        warnings: One line each.

    Raises:
        UsageError: If ``options.columns`` names something else than the class as label or description.
    """
    class_column = _class_column(options)
    convention = Convention(unit, "xyz", "world").overridden(options)
    coords = zyx([point.position for point in points], convention.axis_order)
    is_ras = np.array([point.frame == "RAS" for point in points], bool) & (convention.zero == "world")
    coords[is_ras] *= (1.0, -1.0, -1.0)
    notes = [RAS_NOTE] if is_ras.any() else []
    labels = dict.fromkeys(point.label or point.description for point in points)
    if class_column is None and len(labels) > 1:
        notes.append(
            f"the labels {listed(map(repr, labels), 3)} are not taken as classes: --columns class=label "
            "or class=description makes each of them one"
        )
    return AnnotationTable(
        path,
        name,
        replace(convention, notes=tuple(notes)),
        point_frame(
            coords,
            volume=[None] * len(points),
            source_row=[point.row for point in points],
            class_name=None if class_column is None else [getattr(point, class_column) or None for point in points],
        ),
        left_out=left_out,
        warnings=(*warnings, *_unnamed(points, class_column)),
    )


def _class_column(options: AnnotationOptions) -> str | None:
    stated = dict(options.columns)
    column = stated.pop("class", None)
    if stated:
        found = ", ".join(f"{role}={value}" for role, value in stated.items())
        raise UsageError.at(
            "--columns", expected="class=label or class=description for 3D Slicer's points", found=found
        )
    if column is None:
        return None
    if column.lower() not in _CLASS_COLUMNS:
        raise UsageError.at(
            "--columns class", expected="label or description for 3D Slicer's points", found=repr(column)
        )
    return _CLASS_COLUMNS[column.lower()]


def _unnamed(points: Sequence[SlicerPoint], class_column: str | None) -> list[str]:
    if class_column is None:
        return []
    unnamed = sum(not getattr(point, class_column) for point in points)
    return [f"{unnamed} of {len(points)} points have no {class_column}, so no class"] if unnamed else []
