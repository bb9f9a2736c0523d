"""OME-TIFF images that are spread over several files, all in one folder.

The OME-XML says which page of which file holds which slice. It stands in one of the files, in all of them, or in a
companion file (.companion.ome) to which the files point (https://docs.openmicroscopy.org/ome-model, "OME-TIFF").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from keypatch.errors import FormatError
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.neighbours import beside, link_warnings
from keypatch.formats.volumes.reader import VolumeReader, library_errors, volume_dtype, volume_shape
from keypatch.formats.volumes.slice_cache import SliceCache
from keypatch.formats.volumes.tiff_metadata import listed, ome_calibration, ome_xml
from keypatch.formats.volumes.tiff_pages import check_page, log_as_errors, page_array

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import Volume
    from keypatch.geometry import Shape3

_OME = re.compile(rb"<(\w+:)?OME[\s>]")
_XML_BYTES = 64 * 2**20
"""Tens of thousands of planes take a few MB."""

_SMALLEST_PAGE = 18
"""Bytes of a list of one tag."""

_GREY = (0, 1)
"""TIFF's PhotometricInterpretation WhiteIsZero and BlackIsZero."""


@dataclass(frozen=True)
class Plane:
    """One slice: page ``page`` of a file, counted from 0."""

    file: Path
    page: int


def is_companion(head: bytes) -> bool:
    """Whether a file begins as OME-XML."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and _OME.search(head) is not None


def companion(path: Path) -> dict[str, Any]:
    """The OME-XML of a companion file.

    Raises:
        FormatError: If it is none.
        ReadError: If it cannot be read.
    """
    with library_errors(path, "a readable companion file"), path.open("rb") as file:
        raw = file.read(_XML_BYTES + 1)
    if len(raw) > _XML_BYTES:
        raise FormatError.at(path, expected=f"OME-XML of at most {_XML_BYTES} bytes", found="more")
    with library_errors(path, "OME-XML in UTF-8"):
        text = raw.decode("utf-8-sig")
    return ome_xml(path, text)


def of_several_files(path: Path, tif: tifffile.TiffFile) -> dict[str, Any] | None:
    """The OME-XML of the image that a TIFF is a part of; None where all its planes are in the file itself.

    Raises:
        FormatError: If the OME-XML is damaged or names a companion outside the folder.
        ReadError: If the companion is missing.
    """
    if not tif.is_ome:
        return None
    ome = ome_xml(path, tif.ome_metadata or "")
    if isinstance(ome.get("BinaryOnly"), dict):
        return companion(beside(path, str(ome["BinaryOnly"].get("MetadataFile", "")), "BinaryOnly MetadataFile"))
    own_id, own_name = ome.get("UUID"), path.name.lower()
    with library_errors(path, "OME-XML with images"):
        planes = [plane for image in listed(ome, "Image") for plane in listed(image.get("Pixels", {}), "TiffData")]
        named = [uuid for plane in planes for uuid in listed(plane, "UUID") if isinstance(uuid, dict)]
    others = [
        uuid
        for uuid in named
        if (own_id is None or uuid.get("value") != own_id) and str(uuid.get("FileName")).lower() != own_name
    ]
    return ome if others else None


def open_parts(path: Path, name: str, ome: dict[str, Any]) -> Volume:
    """Open the volume that the files of an image are together.

    Args:
        path: The file that the person named: one of the TIFFs, or the companion.
        name: Of the format.
        ome: Its OME-XML.

    Raises:
        FormatError: If there is not one image of one channel and time point, a plane is missing or unlike the others,
            or a file is named that would lie outside the folder.
        ReadError: If a file is missing.
    """
    pixels = _pixels(path, ome)
    with library_errors(path, "SizeX, SizeY and SizeZ in the OME-XML"):
        shape = volume_shape(path, [int(pixels[f"Size{axis}"]) for axis in "ZYX"])
    planes = _planes(path, pixels, shape[0])
    dtype = _checked(planes, shape)
    files = list(dict.fromkeys(plane.file for plane in planes))
    scale = ome_calibration(ome)
    warn = [warning for file in files for warning in link_warnings(path, file)]
    told = [f"the image is spread over {len(files)} files, of which this is one; all of it was read"]
    info = VolumeInfo(
        path,
        name,
        shape,
        volume_dtype(path, dtype),
        scale.voxel_spacing,
        access="slices",
        conventions={
            "axis_order": "zyx",
            "kind": "ome",
            "stored_dtype": dtype.str,
            "files": [file.name for file in files],
            "voxel_spacing_from": scale.source,
            "unit": scale.unit,
        },
        warnings=(*(told if path in files else []), *warn, *scale.warnings),
    )
    return PartsVolume(info, planes)


class PartsVolume(VolumeReader):
    """A volume whose slices are pages of several files; a file is open only while a page of it is decoded."""

    def __init__(self, info: VolumeInfo, planes: Sequence[Plane]) -> None:
        super().__init__(info)
        self._planes = planes
        self._cache = SliceCache(self._decode)

    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        return self._cache.read(z, y, x)

    def _decode(self, index: int) -> NDArray[Any]:
        plane = self._planes[index]
        expected = f"page {plane.page + 1} whole"
        with library_errors(plane.file, expected), tifffile.TiffFile(plane.file, is_ome=False) as tif:
            return page_array(plane.file, tif.pages[plane.page], expected)

    def close(self) -> None:
        """Let the decoded pages go."""
        self._cache.clear()


def _pixels(path: Path, ome: dict[str, Any]) -> dict[str, Any]:
    images = listed(ome, "Image")
    if len(images) != 1 or not isinstance(images[0], dict) or not isinstance(images[0].get("Pixels"), dict):
        hint = "save one image alone"
        raise FormatError.at(path, expected="OME-XML of one image", found=f"{len(images)}", hint=hint)
    pixels: dict[str, Any] = images[0]["Pixels"]
    others = {name: pixels.get(f"Size{name}", 1) for name in "CT"}
    if any(size != 1 for size in others.values()):
        found = f"SizeC = {others['C']}, SizeT = {others['T']}"
        hint = "save one channel and time point alone"
        raise FormatError.at(path, expected="one channel and one time point", found=found, hint=hint)
    return pixels


def _planes(path: Path, pixels: dict[str, Any], n_slices: int) -> list[Plane]:
    """Where each slice lies, z = 0 first."""
    found: dict[int, Plane] = {}
    for element in listed(pixels, "TiffData"):
        with library_errors(path, "numbers and a file name in each TiffData"):
            first, page = int(element.get("FirstZ", 0)), int(element.get("IFD", 0))
            # Without IFD and PlaneCount all pages of a file are meant, with IFD alone the one.
            count = int(element.get("PlaneCount", 1 if "IFD" in element else n_slices))
            uuid = element.get("UUID", {})
            name = str(uuid["FileName"]) if isinstance(uuid, dict) and "FileName" in uuid else path.name
        file = beside(path, name, "TiffData")
        if first < 0 or page < 0 or first + count > n_slices or count > file.stat().st_size // _SMALLEST_PAGE:
            expected = f"planes from 0 to {n_slices - 1} in each TiffData, and room for them in {file.name}"
            raise FormatError.at(path, expected=expected, found=f"{count} from {first}, of page {page}")
        found |= {first + step: Plane(file, page + step) for step in range(count)}
    missing = next((z for z in range(n_slices) if z not in found), None)
    if missing is not None:
        found_there = f"none for z = {missing}"
        raise FormatError.at(path, expected=f"a TiffData for each of {n_slices} slices", found=found_there)
    return [found[z] for z in range(n_slices)]


def _checked(planes: Sequence[Plane], shape: Shape3) -> np.dtype[Any]:
    """See that every plane is there, grey, and like the first; gives their dtype as stored."""
    by_file: dict[Path, list[int]] = {}
    for plane in planes:
        by_file.setdefault(plane.file, []).append(plane.page)
    dtypes = [_checked_file(file, pages, shape) for file, pages in by_file.items()]
    unlike = next((file for file, dtype in zip(by_file, dtypes, strict=True) if dtype != dtypes[0]), None)
    if unlike is not None:
        found = ", ".join(sorted({str(dtype) for dtype in dtypes}))
        raise FormatError.at(unlike, expected="voxels of one dtype in all files", found=found)
    return dtypes[0]


def _checked_file(path: Path, numbers: Sequence[int], shape: Shape3) -> np.dtype[Any]:
    expected = "an undamaged TIFF file"
    with library_errors(path, expected), log_as_errors(path, expected), tifffile.TiffFile(path, is_ome=False) as tif:
        pages = list(tif.pages)
        for number in numbers:
            if number >= len(pages):
                raise FormatError.at(path, expected=f"a page {number + 1}", found=f"{len(pages)} pages")
            page: Any = pages[number]
            check_page(path, page, number + 1)
            if page.shape != shape[1:] or page.photometric not in _GREY:
                found = f"{' x '.join(map(str, page.shape))} in page {number + 1}"
                raise FormatError.at(path, expected=f"grey pages of {shape[1]} x {shape[2]}", found=found)
        kinds = {np.dtype(pages[number].dtype) for number in numbers}
        if len(kinds) > 1:
            raise FormatError.at(path, expected="pages of one dtype", found=", ".join(map(str, kinds)))
        return kinds.pop()
