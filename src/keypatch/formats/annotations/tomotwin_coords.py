"""Coordinates of TomoTwin (.coords): x, y and z apart by blanks, without a header.

Read from TomoTwin's ``coords_format.py`` and napari-boxmanager's ``coords.py``. Three bare numbers a line name nothing,
so that the suffix tells the format.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, point_frame, zyx
from keypatch.formats.annotations.cells import read_cells

if TYPE_CHECKING:
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "tomotwin-coords"
SUFFIXES: tuple[str, ...] = (".coords",)
DESCRIPTION = "TomoTwin coordinates (.coords): x y z apart by blanks, no header"
USES: frozenset[str] = frozenset({"delimiter"})


def matches(_path: Path, _head: bytes) -> bool:
    """Never: the content of three numbers a line is that of many formats."""
    return False


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one line a keypoint; the file names neither a volume nor a class.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If a line has not three numbers.
    """
    cells = read_cells(path, replace(options, header=False, delimiter=options.delimiter or "space"))
    if cells.n_columns != 3:
        raise FormatError.at(path, expected="x, y and z in a line", found=f"{cells.n_columns} columns")
    coords = np.column_stack([cells.floats(column) for column in range(3)])
    convention = Convention("voxel", "xyz", inferred=("zero", "index_base")).overridden(options)
    points = point_frame(
        zyx(coords, convention.axis_order), volume=[None] * len(coords), source_row=np.arange(len(coords))
    )
    return AnnotationTable(path, NAME, convention, points)
