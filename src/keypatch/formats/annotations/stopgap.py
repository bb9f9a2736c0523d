"""Motive lists of STOPGAP (STAR): one block ``data_stopgap_motivelist``.

Read from STOPGAP's ``sg_get_motl_fields.m``, ``sg_motl_apply_shifts.m`` (position = orig + shift, in voxels) and
``calculate_subtomo_coords.m``, which indexes MATLAB's arrays, whose first voxel is 1, with these numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, point_frame, zyx
from keypatch.formats.annotations.hints import listed
from keypatch.formats.annotations.source import head_text
from keypatch.formats.annotations.star import Block, read_star
from keypatch.formats.annotations.tomogram_numbers import class_names, name_volumes, whole_numbers

if TYPE_CHECKING:
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "stopgap"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "STOPGAP motive list (STAR): data_stopgap_motivelist with orig_x/y/z, x/y/z_shift, tomo_num, class"
USES: frozenset[str] = frozenset({"tomograms"})

_BLOCK: Final = "stopgap_motivelist"
_ORIGINS: Final = ("orig_x", "orig_y", "orig_z")
_SHIFTS: Final = ("x_shift", "y_shift", "z_shift")


def matches(_path: Path, head: bytes) -> bool:
    """Whether the text has a motive list's block."""
    text = head_text(head)
    return text is not None and f"data_{_BLOCK}" in text


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one row a particle; its position is its origin plus its shift.

    Volumes are named by ``tomo_num``, or by the file that ``options.tomograms`` lists for it. Classes are the numbers
    of ``class``, 0 for none.

    Raises:
        ReadError: If a file is missing or unreadable.
        FormatError: If it is no such STAR file, a column is missing or a value no number.
    """
    block = _motive_list(path)
    if not len(block):
        convention = _convention(options, ())
        return AnnotationTable(
            path,
            NAME,
            convention,
            point_frame(zyx([], convention.axis_order), volume=[], source_row=[]),
            warnings=(f"data_{_BLOCK} has no rows",),
        )
    tomograms = whole_numbers(path, block.floats("tomo_num"), "tomo_num")
    volumes = name_volumes(path, tomograms, options.tomograms)
    classes, class_warnings = class_names(whole_numbers(path, block.floats("class"), "class"))
    convention = _convention(options, volumes.notes)
    points = point_frame(
        zyx(block.vectors(_ORIGINS) + block.vectors(_SHIFTS), convention.axis_order),
        volume=volumes.names,
        source_row=np.arange(len(block)),
        class_name=classes,
        score=block.floats("score") if block.has("score") else None,
    )
    warnings = (*volumes.warnings, *class_warnings)
    return AnnotationTable(path, NAME, convention, points, volumes.hints, warnings=warnings)


def _motive_list(path: Path) -> Block:
    blocks = read_star(path)
    if _BLOCK not in blocks:
        raise FormatError.at(path, expected=f"the block data_{_BLOCK}", found=f"data_{', data_'.join(blocks)}")
    block = blocks[_BLOCK]
    missing = [name for name in (*_ORIGINS, *_SHIFTS, "tomo_num", "class") if not block.has(name)]
    if missing:
        raise FormatError.at(path, expected=f"the columns of data_{_BLOCK}", found=f"no {listed(missing, 8)}")
    return block


def _convention(options: AnnotationOptions, notes: tuple[str, ...]) -> Convention:
    shifts = "x_shift, y_shift, z_shift were added"
    return Convention("voxel", "xyz", index_base=1, inferred=("zero", "index_base"), notes=(shifts, *notes)).overridden(
        options
    )
