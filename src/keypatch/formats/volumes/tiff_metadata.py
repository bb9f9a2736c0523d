"""Voxel spacing of TIFF files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tifffile

from keypatch.formats.safe_xml import parse_xml
from keypatch.formats.volumes.reader import declared_spacing, library_errors
from keypatch.formats.volumes.units import angstrom_per_unit

if TYPE_CHECKING:
    from pathlib import Path

    from keypatch.geometry import Vector3

_OME_DEFAULT_UNIT = "µm"
"""Of PhysicalSizeX, Y and Z (OME schema 2016-06, attribute PhysicalSizeXUnit)."""

_NO_UNITS = ("", "pixel", "pixels", "none")


@dataclass(frozen=True)
class Calibration:
    """What a TIFF says of its voxels' size.

    Attributes:
        voxel_spacing: Å, z, y, x; None where the file does not say, or says pixels.
        source: Which metadata says so.
        unit: As written in the file.
        warnings: One line each.
    """

    voxel_spacing: Vector3 | None = None
    source: str | None = None
    unit: str | None = None
    warnings: tuple[str, ...] = ()


def calibration(tif: tifffile.TiffFile) -> Calibration:
    """Voxel spacing from the metadata of ImageJ or of OME.

    Plain TIFF declares dots an inch in x and y and nothing in z, mostly a program's default: it counts as nothing.
    """
    if tif.is_imagej:
        return _imagej(tif)
    if tif.is_ome:
        return ome_calibration(ome_xml(tif.filename, tif.ome_metadata or ""))
    return Calibration()


def _imagej(tif: tifffile.TiffFile) -> Calibration:
    metadata = tif.imagej_metadata or {}
    unit = str(metadata.get("unit", ""))
    if unit.lower() in _NO_UNITS:
        return Calibration(unit=unit or None)
    units = (str(metadata.get("zunit", unit)), str(metadata.get("yunit", unit)), unit)
    # ImageJ writes the spacing only where it is not 1 (ij.io.FileSaver, getDescriptionString).
    depth = metadata.get("spacing", 1.0)
    page = tif.pages.first
    sizes = [depth, *(_dots(page, name) for name in ("YResolution", "XResolution"))]
    notes = () if "spacing" in metadata else ("ImageJ names no spacing of the slices, which means 1 " + unit,)
    return _converted(sizes, units, "ImageJ", notes)


def _dots(page: Any, name: str) -> float | None:  # noqa: ANN401 - tifffile is untyped
    """Size of a pixel in the file's unit, from pixels a unit, a ratio of 32-bit integers: 9 digits."""
    numerator, denominator = page.tags.valueof(name, (0, 0))
    return float(f"{denominator / numerator:.9g}") if numerator else None


def ome_calibration(ome: dict[str, Any]) -> Calibration:
    """Voxel spacing of the only image of an OME-XML."""
    images = listed(ome, "Image")
    pixels = images[0].get("Pixels", {}) if len(images) == 1 else {}
    sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    if all(size is None for size in sizes):
        return Calibration()
    units = [str(pixels.get(f"PhysicalSize{axis}Unit", _OME_DEFAULT_UNIT)) for axis in "ZYX"]
    return _converted(sizes, (units[0], units[1], units[2]), "OME-XML")


def ome_xml(where: Path | str, text: str) -> dict[str, Any]:
    """OME-XML as nested dicts of its attributes and children.

    Raises:
        FormatError: If it is no OME-XML, or declares a document type.
    """
    parse_xml(where, text)  # refuses entities, which the next parser would expand
    with library_errors(where, "OME-XML"):
        ome: dict[str, Any] = dict(tifffile.xml2dict(text)["OME"])
    return ome


def listed(element: dict[str, Any], name: str) -> list[Any]:
    """Children of one name: tifffile gives a dict for one and a list for several."""
    children = element.get(name, [])
    return list(children) if isinstance(children, list | tuple) else [children]


def _converted(sizes: list[Any], units: tuple[str, str, str], source: str, notes: tuple[str, ...] = ()) -> Calibration:
    warn = list(notes)
    written = ", ".join(dict.fromkeys(units))
    scales = [angstrom_per_unit(unit) for unit in units]
    if None in scales:
        warn.append(f"{source} gives the voxel spacing in {written}, no unit of length; give --voxel-spacing")
        return Calibration(None, source, written, tuple(warn))
    spacing = declared_spacing(map(_product, sizes, scales), warn, source)
    return Calibration(spacing, source, written, tuple(warn))


def _product(size: Any, scale: float | None) -> float:  # noqa: ANN401
    """Size in Å; not a number where the file has none, or text, in its place."""
    is_number = isinstance(size, int | float) and not isinstance(size, bool)
    return float(size) * scale if is_number and scale is not None else float("nan")
