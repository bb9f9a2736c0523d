"""Units of length by the names that image formats give them."""

from __future__ import annotations

_ANGSTROM_PER_UNIT = {
    "picometer": 1e-2,
    "angstrom": 1.0,
    "nanometer": 10.0,
    "micrometer": 1e4,
    "millimeter": 1e7,
    "centimeter": 1e8,
    "decimeter": 1e9,
    "meter": 1e10,
    "inch": 2.54e8,
}

_OTHER_NAMES = {
    "pm": "picometer",
    "å": "angstrom",
    "a": "angstrom",
    "ångström": "angstrom",
    "nm": "nanometer",
    "µm": "micrometer",
    "um": "micrometer",
    "micron": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "dm": "decimeter",
    "m": "meter",
    "in": "inch",
    "inches": "inch",
}


def angstrom_per_unit(unit: str) -> float | None:
    """Å in one unit of length; None where the name is no unit of length ("pixel", "reference frame").

    Known are the names of OME-Zarr (UDUNITS: "nanometer"; British spelling and plural too), the symbols of OME-TIFF
    ("nm", "µm", "Å") and the words of ImageJ ("micron", "inch" and the escape that it writes for µ).
    """
    # ImageJ escapes what is not ASCII as Java does. Unicode has two of µ (U+00B5 micro, U+03BC mu) and of Å (U+212B).
    name = unit.strip().replace("\\u00B5", "µ").replace("\u03bc", "µ").replace("\u212b", "Å").lower()
    for spelling in (name, name.removesuffix("s")):
        known = _OTHER_NAMES.get(spelling, spelling).replace("metre", "meter")
        if known in _ANGSTROM_PER_UNIT:
            return _ANGSTROM_PER_UNIT[known]
    return None
