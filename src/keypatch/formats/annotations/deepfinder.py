"""Object lists of DeepFinder (XML): ``<object tomo_idx class_label x y z …/>``.

Read from DeepFinder's ``utils/objl.py`` and ``training.py``: x, y, z index the voxels of an array from 0, ``tomo_idx``
the list of tomograms that a training gets, also from 0, and the integer ``class_label`` the label map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import AnnotationTable, Convention, VolumeHint, point_frame, zyx
from keypatch.formats.annotations.source import head_text
from keypatch.formats.annotations.tomogram_numbers import NumberedVolumes, name_volumes
from keypatch.formats.annotations.xml import parse_xml
from keypatch.formats.annotations.xml_attributes import coordinates, whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "deepfinder"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "DeepFinder objects (XML): <object tomo_idx class_label x y z/>"
USES: frozenset[str] = frozenset({"tomograms"})


def matches(_path: Path, head: bytes) -> bool:
    """Whether it is XML with a list or an object of DeepFinder."""
    text = head_text(head)
    if text is None or not text.lstrip().startswith("<"):
        return False
    return "<objlist" in text or ("<object " in text and "class_label" in text)


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read one object a keypoint; ``class_label`` is the name of its class.

    Volumes are named by ``tomo_idx``, or by the file that ``options.tomograms`` lists for it, the first one being 0.

    Raises:
        ReadError: If a file is missing or unreadable.
        FormatError: If it is no such XML, or an attribute of an object is missing or no number.
    """
    root = parse_xml(path)
    objects = list(root.iter("object"))
    if not objects and root.tag != "objlist":
        raise FormatError.at(path, expected="objects of DeepFinder in an objlist", found=f"<{root.tag}>")
    coords = [coordinates(path, element, f"object {row}") for row, element in enumerate(objects)]
    volumes = _volumes(path, objects, options)
    convention = Convention("voxel", "xyz", inferred=("zero", "index_base"), notes=volumes.notes).overridden(options)
    points = point_frame(
        zyx(coords, convention.axis_order),
        volume=volumes.names,
        source_row=np.arange(len(objects)),
        class_name=[
            str(whole_number(path, element, "class_label", f"object {row}")) for row, element in enumerate(objects)
        ],
    )
    warnings = volumes.warnings if objects else (*volumes.warnings, "the list has no objects")
    return AnnotationTable(path, NAME, convention, points, volumes.hints, warnings=warnings)


def _volumes(path: Path, objects: Sequence[Element], options: AnnotationOptions) -> NumberedVolumes:
    """Volumes by ``tomo_idx``, which DeepFinder leaves out where there is one tomogram only."""
    numbered = [row for row, element in enumerate(objects) if element.get("tomo_idx") is not None]
    index = np.array([whole_number(path, objects[row], "tomo_idx", f"object {row}") for row in numbered], np.int64)
    found = name_volumes(path, index, options.tomograms, first=0)
    names: list[str | None] = [None] * len(objects)
    for row, name in zip(numbered, found.names, strict=True):
        names[row] = name
    hints: dict[str, VolumeHint] = dict(found.hints)
    return NumberedVolumes(tuple(names), hints, found.notes if numbered else (), found.warnings)
