"""Boxes of crYOLO and TomoTwin (.cbox): a STAR file with a block ``data_cryolo``.

Read from TomoTwin's ``cbox_format.py`` and napari-boxmanager's ``cbox.py``: ``CoordinateX`` and ``CoordinateY`` are a
box's lower corner, to which half its width and height are added; ``CoordinateZ`` is the slice of its centre already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, point_frame, zyx
from keypatch.formats.annotations.hints import listed
from keypatch.formats.annotations.source import head_text
from keypatch.formats.annotations.star import Block, read_star

if TYPE_CHECKING:
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "cbox"
SUFFIXES: tuple[str, ...] = (".cbox",)
DESCRIPTION = "crYOLO and TomoTwin boxes (.cbox): data_cryolo with CoordinateX/Y/Z, Width, Height"
USES: frozenset[str] = frozenset()

_BLOCK: Final = "cryolo"
_COORDINATES: Final = ("CoordinateX", "CoordinateY", "CoordinateZ")
_SIZES: Final = ("Width", "Height")
_NOTE = "half of Width and Height was added to the box's corner; CoordinateZ is the centre's slice already"


def matches(_path: Path, head: bytes) -> bool:
    """Whether the text has a block of boxes."""
    text = head_text(head)
    return text is not None and f"data_{_BLOCK}" in text and "_CoordinateX" in text


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one box a keypoint, its centre; the file names neither a volume nor a class.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it is no such STAR file, a column is missing, or a box is of one image only (2-D).
    """
    boxes = _boxes(path)
    centres = boxes.vectors(_COORDINATES)
    centres[:, :2] += boxes.vectors(_SIZES) / 2
    convention = Convention("voxel", "xyz", inferred=("zero", "index_base"), notes=(_NOTE,)).overridden(options)
    points = point_frame(
        zyx(centres, convention.axis_order),
        volume=[None] * len(boxes),
        source_row=np.arange(len(boxes)),
        score=boxes.floats("Confidence", may_be_nan=True) if boxes.has("Confidence") else None,
    )
    warnings = () if len(boxes) else (f"data_{_BLOCK} has no rows",)
    return AnnotationTable(path, NAME, convention, points, warnings=warnings)


def _boxes(path: Path) -> Block:
    blocks = read_star(path)
    if _BLOCK not in blocks:
        raise FormatError.at(path, expected=f"the block data_{_BLOCK}", found=f"data_{', data_'.join(blocks)}")
    boxes = blocks[_BLOCK]
    missing = [name for name in (*_COORDINATES, *_SIZES) if not boxes.has(name)]
    if missing == ["CoordinateZ"]:
        raise FormatError.at(path, expected="boxes in a volume", found="boxes of images (no CoordinateZ)")
    if missing:
        raise FormatError.at(path, expected=f"the columns of data_{_BLOCK}", found=f"no {listed(missing, 8)}")
    return boxes
