"""Markers of ImageJ's Cell Counter and of cellfinder, which writes the same XML.

Read from the Fiji plugin's ``WriteXML`` and ``CellCntrImageCanvas`` and brainglobe-utils' ``IO/cells.py``. MarkerX and
MarkerY are pixels from 0 in both. The plugin writes the number of the current slice, from 1, as MarkerZ (in a stack of
several channels or times it counts those too). cellfinder writes the index of the plane, from 0, and raises whatever
is below 1 to 1; it names no image but "placeholder.tif", which is how its files are told.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, VolumeHint, point_frame, zyx
from keypatch.formats.annotations.source import finite_float, head_text, shortened
from keypatch.formats.annotations.xml import parse_xml

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree import ElementTree as ET

    from numpy.typing import NDArray

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "cell-counter"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "ImageJ Cell Counter or cellfinder (XML): MarkerX, MarkerY, MarkerZ by Marker_Type"
USES: frozenset[str] = frozenset()

_ROOT = "CellCounter_Marker_File"
_CELLFINDER = "placeholder.tif"

_AS_SAID = "MarkerZ counts slices from {}, as was said; MarkerX and MarkerY count from 0"
_OF_CELLFINDER = (
    f"the image's name {_CELLFINDER!r} is cellfinder's, whose MarkerZ counts from 0 (with 0 written as 1); "
    "--index-base 1 takes 1 off z"
)
_OF_IMAGEJ = (
    "MarkerZ is the number of a slice from 1, as ImageJ counts: 1 was taken off z; --index-base 0 leaves it as it is"
)


def matches(_path: Path, head: bytes) -> bool:
    """Whether its root is the plugin's."""
    text = head_text(head)
    return text is not None and text.lstrip().startswith("<") and f"<{_ROOT}" in text


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read every marker; its class is the name that a person gave its type, else the type's number.

    What ``options.index_base`` says counts for MarkerZ alone.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it is no such XML file, or a marker has no three numbers.
    """
    root = parse_xml(path)
    if root.tag != _ROOT:
        raise FormatError.at(path, expected=f"the XML element {_ROOT}", found=shortened(root.tag))
    kinds = root.findall("Marker_Data/Marker_Type")
    if root.find("Marker_Data") is None:
        raise FormatError.at(path, expected="the XML element Marker_Data", found="none")
    markers = [(_class_name(path, kind), marker) for kind in kinds for marker in kind.findall("Marker")]
    coords = np.array([_position(path, row, marker) for row, (_, marker) in enumerate(markers)], np.float64)
    image = (root.findtext("Image_Properties/Image_Filename") or "").strip()
    base, notes = _slice_base(coords.reshape(-1, 3)[:, 2], image, options)
    convention = Convention("voxel", "xyz", inferred=("zero", "index_base"), notes=notes).overridden(options)
    volume = None if image in {"", _CELLFINDER} else image
    points = point_frame(
        zyx(coords.reshape(-1, 3) - (0.0, 0.0, base), convention.axis_order),
        volume=[volume] * len(markers),
        source_row=np.arange(len(markers)),
        class_name=[name for name, _ in markers],
    )
    # The base has been taken off, and off z alone: the convention says what is left.
    return AnnotationTable(
        path, NAME, replace(convention, index_base=0), points, {} if volume is None else {volume: VolumeHint()}
    )


def _class_name(path: Path, kind: ET.Element) -> str:
    number = (kind.findtext("Type") or "").strip()
    if not re.fullmatch(r"-?\d+", number):
        raise FormatError.at(path, expected="a number as Type of every Marker_Type", found=shortened(number))
    name = (kind.findtext("Name") or "").strip()
    return number if name in {"", "<Unnamed>", f"Type {number}"} else name  # the last two are the plugin's own


def _position(path: Path, row: int, marker: ET.Element) -> list[float]:
    texts = [(marker.findtext(f"Marker{axis}") or "").strip() for axis in "XYZ"]
    values = [value for text in texts if (value := finite_float(text)) is not None]
    if len(values) == 3:
        return values
    found = ", ".join(map(shortened, texts))
    raise FormatError.at(path, expected=f"numbers MarkerX, MarkerY and MarkerZ of marker {row}", found=found)


def _slice_base(z: NDArray[np.float64], image: str, options: AnnotationOptions) -> tuple[int, tuple[str, ...]]:
    """What MarkerZ counts the first slice as, and how that is known."""
    if options.index_base is not None:
        return options.index_base, (_AS_SAID.format(options.index_base),)
    if image == _CELLFINDER:
        return 0, (_OF_CELLFINDER,)
    if (z < 1).any():
        return 0, ("a MarkerZ below 1 shows that slices count from 0, other than in ImageJ's Cell Counter",)
    return 1, (_OF_IMAGEJ,)
