"""Picks of copick: one JSON file for one object in one run.

Read from copick's ``models.py`` (``CopickPicksFile``, ``CopickPoint``) and ``docs/geometry.md``, version 1.27.
Positions are in Å, x y z; "the full position … is p_location + t_transform", t being the last column of the 4x4. On the
zero this text says two things: "origin: corner of the tomogram volume" and, of a voxel's index i, "p_physical = i * s",
which puts zero at the centre of the first voxel.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, VolumeHint, point_frame, zyx
from keypatch.formats.annotations.source import finite_numbers, head_text, read_json, shortened
from keypatch.formats.annotations.units import UNIT_OF_WORD

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.annotations.base import AnnotationOptions
    from keypatch.geometry import Unit

NAME = "copick"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "copick picks (JSON): pickable_object_name, run_name, points[location, transformation_]"
USES: frozenset[str] = frozenset()

ZERO_NOTE = (
    "copick's text calls zero the volume's corner and its formula puts it at the centre of the first voxel; "
    "the formula is followed, --zero corner takes half a voxel off"
)


def matches(_path: Path, head: bytes) -> bool:
    """Whether it is a JSON object that names a pickable object, or begins with copick's points."""
    text = head_text(head)
    if text is None or not text.lstrip().startswith("{"):
        return False
    return '"pickable_object_name"' in text or bool(re.match(r'\s*\{\s*"points"\s*:\s*\[\s*\{\s*"location"', text))


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read the picks; the translation in a point's ``transformation_`` is added to its location.

    One writer repeats the location there: such a translation is not added, and a warning says so.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it is not such a JSON file, a coordinate is no number, a matrix no 4x4 or the unit not known.
    """
    picks = read_json(path)
    if not isinstance(picks, dict):
        raise FormatError.at(path, expected="copick picks, a JSON object", found=f"a JSON {type(picks).__name__}")
    class_name = _text(path, picks, "pickable_object_name")
    if class_name is None:
        raise FormatError.at(path, expected="copick picks with a pickable_object_name", found="none")
    volume = _text(path, picks, "run_name")
    entries = picks.get("points") or []
    if not isinstance(entries, list):
        raise FormatError.at(path, expected="a list of points", found=shortened(entries))
    locations = np.array([_location(path, row, entry) for row, entry in enumerate(entries)], np.float64).reshape(-1, 3)
    translations = np.array([_translation(path, row, entry) for row, entry in enumerate(entries)], np.float64)
    coords, notes, warnings = with_translations(locations, translations.reshape(-1, 3))
    spacing = _spacing(path, picks)
    if volume is None and spacing is not None:
        notes.append(f"the picks are of voxel spacing {spacing:g} Å and name no run")
    convention = Convention(
        _unit(path, picks, options), "xyz", inferred=("zero",), notes=(ZERO_NOTE, *notes)
    ).overridden(options)
    points = point_frame(
        zyx(coords, convention.axis_order),
        volume=[volume] * len(coords),
        source_row=np.arange(len(coords)),
        class_name=[class_name] * len(coords),
        score=[_score(path, row, entry) for row, entry in enumerate(entries)],
    )
    hint = VolumeHint(voxel_spacing=None if spacing is None else (spacing, spacing, spacing))
    return AnnotationTable(
        path, NAME, convention, points, {} if volume is None else {volume: hint}, warnings=tuple(warnings)
    )


def with_translations(
    locations: NDArray[np.float64], translations: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[str], list[str]]:
    """Add translations to locations, but for those that merely repeat their location.

    Args:
        locations: (K, 3) in any one unit and order.
        translations: (K, 3) in the same.

    Returns:
        (K, 3) float64, notes and warnings.
    """
    moved = (translations != 0).any(axis=1)
    repeats = moved & np.isclose(translations, locations, rtol=1e-6, atol=1e-6).all(axis=1)
    added = moved & ~repeats
    notes, warnings = [], []
    if added.any():
        notes.append(
            f"the translation in transformation_ was added to {np.count_nonzero(added)} of {len(added)} points"
        )
    if repeats.any():
        warnings.append(
            f"the translation in transformation_ repeats the location of {np.count_nonzero(repeats)} "
            f"of {len(repeats)} points and was not added to these"
        )
    return locations + np.where(added[:, None], translations, 0.0), notes, warnings


def _text(path: Path, picks: dict[str, Any], key: str) -> str | None:
    value = picks.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise FormatError.at(path, expected=f"text as {key}", found=shortened(value))
    return value


def _unit(path: Path, picks: dict[str, Any], options: AnnotationOptions) -> Unit:
    """The picks' unit. copick takes any text there and knows none but "angstrom" itself."""
    word = picks.get("unit", "angstrom")
    unit = UNIT_OF_WORD.get(word.strip().lower()) if isinstance(word, str) else None
    if unit is None and options.unit is None:
        raise FormatError.at(
            path, expected="a unit such as angstrom, nm or pixel", found=shortened(word), hint="give --unit"
        )
    return unit or "angstrom"


def _spacing(path: Path, picks: dict[str, Any]) -> float | None:
    value = picks.get("voxel_spacing")
    if value is None:
        return None
    if not finite_numbers([value]) or value <= 0:
        raise FormatError.at(path, expected="a voxel_spacing above 0, or null", found=shortened(value))
    return float(value)


def _location(path: Path, row: int, entry: object) -> Sequence[float]:
    location = entry.get("location") if isinstance(entry, dict) else None
    values = [location.get(axis) for axis in "xyz"] if isinstance(location, dict) else []
    if len(values) == 3 and finite_numbers(values):
        return values
    found = shortened(entry if location is None else location)
    raise FormatError.at(path, expected=f"numbers x, y and z as location of point {row}", found=found)


def _translation(path: Path, row: int, entry: dict[str, Any]) -> list[float]:
    matrix = entry.get("transformation_")
    if matrix is None:
        return [0.0, 0.0, 0.0]
    if not (isinstance(matrix, list) and len(matrix) == 4 and all(_is_matrix_row(line) for line in matrix)):
        raise FormatError.at(path, expected=f"4x4 numbers as transformation_ of point {row}", found=shortened(matrix))
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise FormatError.at(
            path, expected=f"0, 0, 0, 1 as last row of the matrix of point {row}", found=shortened(matrix[3])
        )
    return [line[3] for line in matrix[:3]]


def _is_matrix_row(line: object) -> bool:
    return isinstance(line, list) and len(line) == 4 and finite_numbers(line)


def _score(path: Path, row: int, entry: dict[str, Any]) -> float:
    score = entry.get("score")
    if score is None:
        return np.nan
    if not finite_numbers([score]):
        raise FormatError.at(path, expected=f"a number as score of point {row}", found=shortened(score))
    return float(score)
