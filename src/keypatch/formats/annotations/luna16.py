"""The tables of the LUNA16 challenge: ``annotations.csv``, ``candidates.csv`` and a submission.

``seriesuid, coordX, coordY, coordZ`` and one of ``diameter_mm`` (a nodule), ``class`` (1 for a nodule, 0 for none) and
``probability``. Coordinates are world mm of the scan's .mhd, which ITK keeps in LPS; ``seriesuid`` is that file's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keypatch.formats.annotations.base import AnnotationTable, Convention, VolumeHint, point_frame, zyx
from keypatch.formats.annotations.cells import header_names, read_cells

if TYPE_CHECKING:
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions
    from keypatch.formats.annotations.cells import Cells

NAME = "luna16"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "LUNA16: seriesuid, coordX, coordY, coordZ in world mm, diameter_mm, class or probability"
USES: frozenset[str] = frozenset({"delimiter"})

NODULE = "nodule"
NO_NODULE = "no-nodule"

_REQUIRED = ("seriesuid", "coordx", "coordy", "coordz")
_CLASSES = {"1": NODULE, "0": NO_NODULE}


def matches(_path: Path, head: bytes) -> bool:
    """Whether the header has a series and its three coordinates."""
    return set(header_names(head)) >= set(_REQUIRED)


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one row a finding. The diameter is not part of a keypoint and is not kept.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If a column is missing or a cell is no number.
    """
    cells = read_cells(path, options)
    column = cells.columns(_REQUIRED)
    volumes = cells.volume_names(column["seriesuid"])
    coords = np.column_stack([cells.floats(column[name]) for name in _REQUIRED[1:]])
    notes = ["world coordinates of the scan's .mhd in mm, which are LPS"]
    if "diameter_mm" in column:
        notes.append("diameter_mm is not kept")
    if "class" in column:
        notes.append(f"class 1 is called {NODULE}, class 0 {NO_NODULE}")
    convention = Convention("mm", "xyz", "world", inferred=("zero",), notes=tuple(notes)).overridden(options)
    points = point_frame(
        zyx(coords, convention.axis_order),
        volume=volumes.tolist(),
        source_row=np.arange(len(coords)),
        class_name=_class_names(cells, column),
        score=cells.floats(column["probability"], may_be_empty=True) if "probability" in column else None,
    )
    warnings = () if len(coords) else ("the table has no rows",)
    hints = {name: VolumeHint() for name in pd.unique(volumes)}
    return AnnotationTable(path, NAME, convention, points, hints, warnings=warnings)


def _class_names(cells: Cells, column: dict[str, int]) -> list[str]:
    if "class" not in column:
        return [NODULE] * len(cells.frame)
    texts = cells.texts(column["class"])
    return [_CLASSES.get(text, text) for text in texts]
