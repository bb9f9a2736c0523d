"""Which column of a table is the volume, z, y, x, the class and the score."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keypatch.errors import FormatError, UsageError
from keypatch.formats.annotations.base import zyx
from keypatch.formats.annotations.units import UNIT_OF_WORD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keypatch.formats.annotations.base import AnnotationOptions
    from keypatch.formats.annotations.cells import Cells
    from keypatch.geometry import Unit

ROLES = ("volume", "z", "y", "x", "class", "score")

_AXES = ("z", "y", "x")
# First match wins. axis-0, axis-1, axis-2 are napari's and centroid-0, -1, -2 scikit-image's, in the order of their
# arrays: z, y, x.
_ALIASES: dict[str, tuple[str, ...]] = {
    "volume": (
        *("volume", "volume_id", "volume_name", "tomo_id", "tomo_name", "tomo"),
        *("tomogram", "tomogram_id", "tomogram_name", "run_name", "run", "run_id", "experiment"),
    ),
    "class": ("class", "class_name", "label", "object", "object_name", "pickable_object_name", "particle_type"),
    "score": ("score", "confidence", "conf", "probability"),
    **{
        axis: (
            axis,
            f"{axis}_coord",
            f"coord_{axis}",
            f"coord{axis}",
            f"{axis}_coordinate",
            f"coordinate_{axis}",
            f"pos_{axis}",
            f"position_{axis}",
            f"{axis}_position",
            f"center_{axis}",
            f"{axis}_center",
            f"axis_{number}",
            f"centroid_{number}",
        )
        for number, axis in enumerate(_AXES)
    },
}
_UNIT_IN_BRACKETS = re.compile(r"(?P<name>.+?)\s*[\[(]\s*(?P<unit>[^\])]+?)\s*[\])]")
_UNIT_AS_SUFFIX = re.compile(r"(?P<name>.+)[_ ](?P<unit>[^_ ]+)")


@dataclass(frozen=True)
class Roles:
    """The columns of a table that are read, by number.

    Attributes:
        coords: Of the three coordinates, in the order in which the file lists them.
        axis_order: What these three are.
        volume: None where no column names a volume.
        class_name: None where there are no classes.
        score: None where there are no scores.
        unit: Word of the coordinates' unit in the header; None where the header has none.
    """

    coords: tuple[int, int, int]
    axis_order: str
    volume: int | None = None
    class_name: int | None = None
    score: int | None = None
    unit: str | None = None


def has_coordinates(names: Sequence[str]) -> bool:
    """Whether a header names z, y and x in a way that `find_roles` knows."""
    return all(_by_alias(names, axis) for axis in _AXES)


def find_roles(cells: Cells, options: AnnotationOptions) -> Roles:
    """Find the columns by the options first, then by their names.

    Raises:
        UsageError: If ``options.columns`` names a role or a column that is not there.
        FormatError: If a coordinate has no column or several, if the header gives them different units, or if there is
            no header and no option says what the columns are.
    """
    stated = {role: _stated_column(cells, role, name) for role, name in _known_roles(options.columns).items()}
    if cells.names is None and not stated:
        return _headerless(cells, options)
    found = {role: stated[role] if role in stated else _named_column(cells, role) for role in ROLES}
    axis_of = {column: axis for axis in _AXES if (column := found[axis]) is not None}
    if len(axis_of) < len(_AXES):
        raise _no_coordinates(cells, found, options) if None in (found[axis] for axis in _AXES) else _one_for_two(found)
    first, second, third = sorted(axis_of)
    coords = (first, second, third)
    return Roles(
        coords=coords,
        axis_order="".join(axis_of[column] for column in coords),
        volume=found["volume"],
        class_name=found["class"],
        score=found["score"],
        unit=_common_unit(cells, coords),
    )


def unit_of(cells: Cells, word: str) -> Unit:
    """The unit that a word of the header means.

    Raises:
        FormatError: If it is none that this program knows.
    """
    unit = UNIT_OF_WORD.get(word)
    if unit is None:
        raise FormatError.at(
            cells.path,
            expected="coordinates in Å, nm, um, mm or voxels",
            found=f"{word!r} in the header",
            hint="give --unit",
        )
    return unit


def _headerless(cells: Cells, options: AnnotationOptions) -> Roles:
    if options.axis_order is not None and cells.n_columns == 3:
        zyx([], options.axis_order)  # refuses what is no permutation of xyz
        return Roles((0, 1, 2), options.axis_order)
    hint = "say which column, from 0, is what: --columns x=0,y=1,z=2"
    if cells.n_columns == 3:
        hint += "; or give --axis-order xyz or zyx"
    raise FormatError.at(
        cells.path,
        expected="a header that names z, y and x",
        found=f"{cells.n_columns} columns without a header",
        hint=hint,
    )


def _known_roles(columns: Mapping[str, str]) -> Mapping[str, str]:
    unknown = [role for role in columns if role not in ROLES]
    if unknown:
        raise UsageError.at("--columns", expected=f"roles of {', '.join(ROLES)}", found=", ".join(unknown))
    return columns


def _stated_column(cells: Cells, role: str, stated: str) -> int:
    wanted = stated.strip()
    names = cells.names or ()
    exact = [i for i, name in enumerate(names) if name == wanted]
    matching = exact or [i for i, name in enumerate(names) if name.lower() == wanted.lower()]
    if len(matching) > 1:
        found = f"{len(matching)} called {wanted!r} in {cells.path}"
        raise UsageError.at(f"--columns {role}", expected="one column", found=found)
    if matching:
        return matching[0]
    if wanted.isdecimal() and int(wanted) < cells.n_columns:
        return int(wanted)
    there = f"only {', '.join(names)}" if names else f"{cells.n_columns} columns without names"
    raise UsageError.at(f"--columns {role}", expected=f"the column {wanted!r} in {cells.path}", found=there)


def _named_column(cells: Cells, role: str) -> int | None:
    matching = _by_alias(cells.names or (), role)
    if len(matching) > 1 and role in _AXES:
        shown = ", ".join(cells.name(column) for column in matching)
        raise FormatError.at(
            cells.path, expected=f"one column for {role}", found=shown, hint=f"choose with --columns {role}=NAME"
        )
    return matching[0] if matching else None


def _by_alias(names: Sequence[str], role: str) -> list[int]:
    """Columns whose names fit a role, best first."""
    plain = [_plain(name) for name in names]
    return [i for alias in _ALIASES[role] for i, name in enumerate(plain) if name == alias]


def _plain(name: str) -> str:
    """A name without its unit, in lower case, words joined by "_"."""
    return re.sub(r"[\s.-]+", "_", _name_and_unit(name)[0].lower())


def _name_and_unit(name: str) -> tuple[str, str | None]:
    stripped = name.strip()
    if match := _UNIT_IN_BRACKETS.fullmatch(stripped):
        return match["name"], match["unit"].lower()
    match = _UNIT_AS_SUFFIX.fullmatch(stripped)
    if match and len(match["unit"]) > 1 and match["unit"].lower() in UNIT_OF_WORD:
        return match["name"], match["unit"].lower()
    return stripped, None


def _common_unit(cells: Cells, coords: tuple[int, int, int]) -> str | None:
    if cells.names is None:
        return None
    words = [_name_and_unit(cells.names[column])[1] for column in coords]
    if len({UNIT_OF_WORD.get(word, word) if word else None for word in words}) > 1:
        shown = ", ".join(repr(cells.names[column]) for column in coords)
        raise FormatError.at(cells.path, expected="one unit for all three coordinates", found=shown)
    return words[0]


def _one_for_two(found: Mapping[str, int | None]) -> UsageError:
    shown = ", ".join(f"{axis}={found[axis]}" for axis in _AXES)
    return UsageError.at("--columns", expected="a column of its own for each of z, y and x", found=shown)


def _no_coordinates(cells: Cells, found: Mapping[str, int | None], options: AnnotationOptions) -> FormatError:
    missing = [axis for axis in _AXES if found[axis] is None]
    there = f"the columns {', '.join(cells.names)}" if cells.names else f"{cells.n_columns} columns without a header"
    if missing == ["z"] and "z" not in options.columns:
        return FormatError.at(
            cells.path,
            expected="3-D points with z, y and x",
            found=f"2-D points: {there}",
            hint="if one of these is z, name it with --columns z=NAME",
        )
    hint = f"name them with --columns {','.join(f'{axis}=NAME' for axis in missing)}"
    return FormatError.at(cells.path, expected=f"columns for {', '.join(_AXES)}", found=there, hint=hint)
