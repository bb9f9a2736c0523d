"""Markers of ChimeraX and Chimera (.cmm): XML of marker sets.

Read from ChimeraX's user documentation (Marker Files) and its ``markers/cmm.py``: x, y, z are Å of the scene, in which
a map lies at the origin that its header states; r, g, b are colours; a set has a name, several sets have one root.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, point_frame, zyx
from keypatch.formats.annotations.source import head_text
from keypatch.formats.annotations.xml import parse_xml
from keypatch.formats.annotations.xml_attributes import coordinates

if TYPE_CHECKING:
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "cmm"
SUFFIXES: tuple[str, ...] = (".cmm",)
DESCRIPTION = "ChimeraX markers (.cmm): <marker_set name><marker x y z/>, Å of the scene"
USES: frozenset[str] = frozenset()

_ZERO_NOTE = (
    "markers are in Å of ChimeraX's scene, where a map lies at its header's origin; "
    "of a map shown at zero whatever its header says, --zero voxel-center"
)


def matches(_path: Path, head: bytes) -> bool:
    """Whether it is XML with a set of markers."""
    text = head_text(head)
    return text is not None and text.lstrip().startswith("<") and "<marker_set" in text


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one marker a keypoint; the name of its set is its class. Links between markers are no keypoints.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it is no such XML, or a marker lacks a coordinate.
    """
    root = parse_xml(path)
    sets = list(root.iter("marker_set"))
    if not sets:
        raise FormatError.at(path, expected="a marker_set", found=f"<{root.tag}>")
    markers = [(found.get("name") or None, marker) for found in sets for marker in found.iter("marker")]
    coords = [coordinates(path, marker, f"marker {row}") for row, (_, marker) in enumerate(markers)]
    n_links = sum(1 for found in sets for _ in found.iter("link"))
    notes = (_ZERO_NOTE, f"{n_links} links between markers were not used") if n_links else (_ZERO_NOTE,)
    convention = Convention("angstrom", "xyz", zero="world", inferred=("zero",), notes=notes).overridden(options)
    points = point_frame(
        zyx(coords, convention.axis_order),
        volume=[None] * len(markers),
        source_row=np.arange(len(markers)),
        class_name=[name for name, _ in markers],
    )
    return AnnotationTable(path, NAME, convention, points, warnings=() if markers else ("the file has no markers",))
