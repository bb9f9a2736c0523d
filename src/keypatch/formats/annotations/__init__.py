"""Annotation readers: one module a format, one registry, one way in.

A module in `FORMATS` has ``NAME``, ``SUFFIXES``, ``DESCRIPTION``, a function ``matches(path, head) -> bool`` that
looks at content only, and ``read(path, options) -> AnnotationTable``. Other packages add
formats by entry points; docs/new-format.md shows how.
"""

from __future__ import annotations

from keypatch.formats.annotations.base import (
    POINT_COLUMNS,
    AnnotationOptions,
    AnnotationTable,
    Convention,
    LeftOut,
    VolumeHint,
)
from keypatch.formats.annotations.registry import FORMATS, detect_format, read_annotations

__all__ = [
    "FORMATS",
    "POINT_COLUMNS",
    "AnnotationOptions",
    "AnnotationTable",
    "Convention",
    "LeftOut",
    "VolumeHint",
    "detect_format",
    "read_annotations",
]
