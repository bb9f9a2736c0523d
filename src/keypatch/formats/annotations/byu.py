"""The labels of the BYU flagellar motor competition (``train_labels.csv``)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, point_frame, zyx
from keypatch.formats.annotations.cells import Cells, header_names, read_cells
from keypatch.formats.annotations.hints import hints_of_rows, listed

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "byu"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "BYU flagellar motors: tomo_id, Motor axis 0/1/2, one row a motor, -1,-1,-1 for none"
USES: frozenset[str] = frozenset({"delimiter"})

CLASS_NAME = "motor"

_VOLUME = "tomo_id"
_MOTOR = ("motor axis 0", "motor axis 1", "motor axis 2")
_SHAPE = ("array shape axis 0", "array shape axis 1", "array shape axis 2")
_SPACING = "voxel spacing"
_COUNT = "number of motors"
_NO_MOTOR = -1.0


def matches(_path: Path, head: bytes) -> bool:
    """Whether the header names a tomogram and its motor's three axes."""
    names = {_plain(name) for name in header_names(head)}
    return names >= {_VOLUME, *_MOTOR}


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one row a motor; a tomogram whose row is -1, -1, -1 has none and stands in ``volumes`` alone.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If a column is missing, a cell is no number, or only some of a motor's axes are -1.
    """
    cells = read_cells(path, options)
    column = cells.columns((_VOLUME, *_MOTOR), _plain)
    volumes = cells.volume_names(column[_VOLUME])
    motors = np.column_stack([cells.floats(column[name]) for name in _MOTOR])
    none = _states_no_motor(cells, motors)
    hints, warnings = hints_of_rows(volumes, _vectors(cells, column, _SHAPE), _optional(cells, column, _SPACING))
    convention = Convention(
        "voxel", "zyx", inferred=("zero",), notes=("-1, -1, -1 states that a tomogram has no motor",)
    )
    convention = convention.overridden(options)
    row = np.flatnonzero(~none)
    points = point_frame(
        zyx(motors[row], convention.axis_order),
        volume=volumes[row].tolist(),
        source_row=row,
        class_name=[CLASS_NAME] * len(row),
    )
    warnings += _count_warnings(volumes, none, _optional(cells, column, _COUNT))
    return AnnotationTable(path, NAME, convention, points, hints, warnings=tuple(warnings))


def _plain(name: str) -> str:
    """Both spellings of a header as one: ``Array shape (axis 0)`` and ``Array shape axis 0``."""
    return re.sub(r"\s+", " ", re.sub(r"[()]", " ", name)).strip().lower()


def _states_no_motor(cells: Cells, motors: NDArray[np.float64]) -> NDArray[np.bool_]:
    absent = motors == _NO_MOTOR
    none: NDArray[np.bool_] = absent.all(axis=1)
    partly = absent.any(axis=1) & ~none
    if partly.any():
        row = int(np.argmax(partly))
        found = f"{', '.join(f'{value:g}' for value in motors[row])} in {cells.where(row)}"
        raise FormatError.at(cells.path, expected="-1 on all three axes of a motor or on none", found=found)
    return none


def _optional(cells: Cells, column: dict[str, int], name: str) -> NDArray[np.float64]:
    if name not in column:
        return np.full(len(cells.frame), np.nan)
    return cells.floats(column[name], may_be_empty=True)


def _vectors(cells: Cells, column: dict[str, int], names: tuple[str, str, str]) -> NDArray[np.float64]:
    return np.column_stack([_optional(cells, column, name) for name in names])


def _count_warnings(volumes: NDArray[Any], none: NDArray[np.bool_], stated: NDArray[np.float64]) -> list[str]:
    rows = pd.DataFrame({"volume": volumes, "motor": ~none, "none": none, "stated": stated})
    groups = rows.groupby("volume", sort=False)
    motors = groups["motor"].sum()
    both = (motors > 0) & groups["none"].any()
    warnings = []
    if both.any():
        warnings.append(f"a row with a motor and a row without any for {listed(motors.index[both])}")
    wrong = motors.index[
        ((groups["stated"].min() != motors) | (groups["stated"].max() != motors)) & (groups["stated"].count() > 0)
    ]
    if len(wrong):
        shown = listed(f"{name} ({groups['stated'].max()[name]:g} stated, {motors[name]} found)" for name in wrong)
        warnings.append(f"number of motors and rows with one differ for {shown}")
    return warnings
