"""The words that sources use for the unit of their coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keypatch.geometry import Unit

_WORDS: dict[Unit, tuple[str, ...]] = {
    # "å" is U+00E5; the Ångström sign U+212B becomes it in lower case.
    "angstrom": ("a", "å", "ang", "angst", "angstrom", "angstroms", "ångström", "ångstrom", "angström"),
    "nm": ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    # "µ" is U+00B5; the Greek letter U+03BC is the same word.
    "um": ("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"),
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "voxel": ("px", "pix", "pixel", "pixels", "vx", "vox", "voxel", "voxels"),
    "fraction": ("fraction", "frac"),
}
UNIT_OF_WORD: dict[str, Unit] = {word: unit for unit, words in _WORDS.items() for word in words}
"""Lower-case word to unit."""
