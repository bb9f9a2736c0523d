"""The table that copick exports, in Å: ``run_name, x, y, z, transform_00 … transform_33, score``.

Read from copick's ``util/formats.py``, ``write_picks_csv``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keypatch.formats.annotations.base import AnnotationTable, Convention, VolumeHint, point_frame, zyx
from keypatch.formats.annotations.cells import header_names, read_cells
from keypatch.formats.annotations.copick import ZERO_NOTE, with_translations

if TYPE_CHECKING:
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "copick-csv"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "copick's CSV: run_name, x, y, z in Å, transform_00 … transform_33, score"
USES: frozenset[str] = frozenset({"delimiter"})

_TRANSLATION = ("transform_03", "transform_13", "transform_23")
_REQUIRED = ("run_name", "x", "y", "z", *_TRANSLATION)


def matches(_path: Path, head: bytes) -> bool:
    """Whether the header has a run, a position and the translation of a matrix."""
    return set(header_names(head)) >= set(_REQUIRED)


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read the table; the matrix' translation is treated as in `keypatch.formats.annotations.copick`.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If a column is missing or a cell is no number.
    """
    cells = read_cells(path, options)
    column = cells.columns(_REQUIRED)
    volumes = cells.volume_names(column["run_name"])
    locations = np.column_stack([cells.floats(column[axis]) for axis in "xyz"])
    translations = np.column_stack([cells.floats(column[name]) for name in _TRANSLATION])
    coords, notes, warnings = with_translations(locations, translations)
    convention = Convention("angstrom", "xyz", inferred=("zero",), notes=(ZERO_NOTE, *notes)).overridden(options)
    points = point_frame(
        zyx(coords, convention.axis_order),
        volume=volumes.tolist(),
        source_row=np.arange(len(coords)),
        score=cells.floats(column["score"], may_be_empty=True) if "score" in column else None,
    )
    hints = {name: VolumeHint() for name in pd.unique(volumes)}
    return AnnotationTable(path, NAME, convention, points, hints, warnings=tuple(warnings))
