"""Volume readers: one module a format, one registry, one way in.

A module in `FORMATS` has ``NAME``, ``SUFFIXES``, ``DESCRIPTION``, a function ``matches(peek) -> bool`` that looks at
content only, and ``open_volume(path, options) -> Volume``. Formats are told by content first; the suffix decides only
where no content does (a format without magic bytes), and never against it. Other packages add
formats by entry points; docs/new-format.md shows how.
"""

from __future__ import annotations

from keypatch.formats.volumes.base import Access, Peek, Volume, VolumeInfo, VolumeOptions
from keypatch.formats.volumes.registry import FORMATS, detect_format, open_volume, volume_stem

__all__ = [
    "FORMATS",
    "Access",
    "Peek",
    "Volume",
    "VolumeInfo",
    "VolumeOptions",
    "detect_format",
    "open_volume",
    "volume_stem",
]
