"""TIFF stacks: ImageJ, OME-TIFF, BigTIFF and plain pages.

Contiguous uncompressed stacks are memory mapped, all others read page by page. An OME-TIFF of several files is one
volume, whichever of them is named.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from keypatch.errors import FormatError
from keypatch.formats.volumes import tiff_parts as parts
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.reader import (
    ArrayVolume,
    VolumeReader,
    library_errors,
    require_bytes,
    volume_dtype,
    volume_shape,
)
from keypatch.formats.volumes.slice_cache import SliceCache
from keypatch.formats.volumes.tiff_metadata import Calibration, calibration
from keypatch.formats.volumes.tiff_pages import check_page, enum_name, log_as_errors, page_array

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import Access, Peek, Volume, VolumeOptions
    from keypatch.geometry import Shape3

NAME = "tiff"
SUFFIXES = (".ome.tif", ".ome.tiff", ".companion.ome", ".tif", ".tiff", ".btf", ".tf8")
DESCRIPTION = "TIFF stack (ImageJ, OME-TIFF, BigTIFF, plain pages)"

_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNNAMED_AXES = "QI"
"""tifffile's letters for a page axis that the file does not name."""

_MIN_IS_WHITE, _MIN_IS_BLACK = 0, 1
_PHOTOMETRICS = (_MIN_IS_WHITE, _MIN_IS_BLACK)


def matches(peek: Peek) -> bool:
    """Whether the content is a TIFF or BigTIFF of either byte order, or the OME-XML that tells of several TIFFs."""
    return peek.head.startswith(_MAGICS) or parts.is_companion(peek.head)


def open_volume(path: Path, options: VolumeOptions) -> Volume:  # noqa: ARG001 - the signature of all readers
    """Open a TIFF stack.

    Raises:
        FormatError: If it is damaged, or not one grey stack of three axes.
        MissingExtraError: If its compression needs imagecodecs, which is not installed.
        ReadError: If it, or another file of its image, cannot be read.
    """
    with library_errors(path, "a readable TIFF file"), path.open("rb") as file:
        is_companion = not file.read(4).startswith(_MAGICS)
    if is_companion:
        return parts.open_parts(path, NAME, parts.companion(path))
    with ExitStack() as on_failure:
        with library_errors(path, "an undamaged TIFF file"), log_as_errors(path, "an undamaged TIFF file") as log:
            # Micro-Manager's files are read as the plain stacks they also are: tifffile would open the files they name.
            tif = on_failure.enter_context(tifffile.TiffFile(path, is_mmstack=False, is_ndtiff=False))
            ome = parts.of_several_files(path, tif)
        if ome is not None:
            return parts.open_parts(path, NAME, ome)
        with library_errors(path, "an undamaged TIFF file"), log_as_errors(path, "an undamaged TIFF file") as more:
            n_pages = len(tif.pages)  # walks the whole chain of pages, so that a broken one is seen
            series = list(tif.series)
        volume = _opened(path, tif, _only_stack(path, series), {"pages": n_pages}, log + more)
        on_failure.pop_all()
    return volume


class PagedVolume(VolumeReader):
    """A stack that is decoded page by page."""

    def __init__(self, info: VolumeInfo, tif: tifffile.TiffFile, pages: list[Any]) -> None:
        super().__init__(info)
        self._tif = tif
        self._pages = pages
        self._cache = SliceCache(self._decode)

    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        return self._cache.read(z, y, x)

    def _decode(self, index: int) -> NDArray[Any]:
        return page_array(self.info.path, self._pages[index], f"page {index + 1} whole")

    def close(self) -> None:
        """Close the file and let the decoded pages go."""
        self._cache.clear()
        self._tif.close()


def _opened(path: Path, tif: tifffile.TiffFile, stack: Any, counts: dict[str, Any], log: list[str]) -> Volume:  # noqa: ANN401
    shape = volume_shape(path, stack.shape)
    stored_dtype = np.dtype(stack.dtype).newbyteorder(tif.byteorder)
    with library_errors(path, "readable calibration"):
        scale = calibration(tif)
    info = VolumeInfo(
        path,
        NAME,
        shape,
        volume_dtype(path, stored_dtype),
        scale.voxel_spacing,
        access=_access(stack),
        conventions=counts | _conventions(tif, stack, scale),
        warnings=(*log, *scale.warnings, *_oddities(stack)),
    )
    if info.access == "mapped":
        return _mapped(info, tif, stack, stored_dtype)
    volume = PagedVolume(info, tif, _checked_pages(path, stack, shape))
    volume.read((0, 0, 0), (1, 1, 1))  # a codec that is missing is said now, not in the middle of a build
    return volume


def _only_stack(path: Path, series: list[Any]) -> Any:  # noqa: ANN401
    """The one series of a file, when its axes are z, y, x."""
    if len(series) != 1:
        found = f"{len(series)} images: " + ", ".join(f"{s.axes} {s.shape} {s.dtype}" for s in series[:4])
        raise FormatError.at(path, expected="one stack of equal pages", found=found, hint="save the stack alone")
    stack = series[0]
    found = f"axes {stack.axes} of shape {stack.shape}"
    if stack.dtype is None:
        raise FormatError.at(
            path, expected="8, 16, 32 or 64 bits a voxel", found=f"{stack.keyframe.bitspersample} bits"
        )
    if "S" in stack.axes or stack.keyframe.photometric not in _PHOTOMETRICS:
        found += f" ({enum_name(stack.keyframe.photometric)})"
        raise FormatError.at(path, expected="grey voxels", found=found, hint="convert the colours to one grey channel")
    if stack.axes == "YX":
        hint = "where each slice is a file of its own, give the folder that holds them"
        raise FormatError.at(path, expected="a stack of pages", found="a single plane", hint=hint)
    if len(stack.axes) != 3 or stack.axes[0] not in "Z" + _UNNAMED_AXES or stack.axes[1:] != "YX":
        hint = "save one channel and one time point as a stack over Z"
        raise FormatError.at(path, expected="axes ZYX", found=found, hint=hint)
    return stack


def _access(stack: Any) -> Access:  # noqa: ANN401
    return "slices" if stack.dataoffset is None else "mapped"


def _mapped(info: VolumeInfo, tif: tifffile.TiffFile, stack: Any, dtype: np.dtype[Any]) -> Volume:  # noqa: ANN401
    end = stack.dataoffset + int(np.prod(info.shape, dtype=object)) * dtype.itemsize
    require_bytes(info.path, needed=end, found=tif.filehandle.size, what=f"for {info.shape} voxels of {dtype}")
    tif.close()
    with library_errors(info.path, "a file that can be memory mapped"):
        array = np.memmap(info.path, dtype, mode="r", offset=stack.dataoffset, shape=info.shape)
    return ArrayVolume(info, array)


def _checked_pages(path: Path, stack: Any, shape: Shape3) -> list[Any]:  # noqa: ANN401
    """The pages of a stack, one a slice, all there and whole; tifffile reads a page that is missing as zeros."""
    with library_errors(path, "a readable list of pages"), log_as_errors(path, "a readable list of pages"):
        pages = list(stack.pages)
    if stack.keyframe.shape != shape[1:]:
        found = f"compressed pages of shape {stack.keyframe.shape}"
        raise FormatError.at(path, expected=f"pages of {shape[1]} x {shape[2]}", found=found)
    if len(pages) != shape[0] or None in pages:
        there = sum(page is not None for page in pages)
        raise FormatError.at(path, expected=f"{shape[0]} pages, as its metadata says", found=f"{there} pages")
    for number, page in enumerate(pages, start=1):
        check_page(path, page, number)
    return pages


def _conventions(tif: tifffile.TiffFile, stack: Any, scale: Calibration) -> dict[str, Any]:  # noqa: ANN401
    return {
        "axis_order": "zyx",
        "stored_axes": stack.axes,
        "inferred": ["axis_order"] if stack.axes[0] in _UNNAMED_AXES else [],
        "kind": stack.kind,
        "byte_order": "big" if tif.byteorder == ">" else "little",
        "bigtiff": bool(tif.is_bigtiff),
        "compression": _compression(stack.keyframe.compression),
        "voxel_spacing_from": scale.source,
        "unit": scale.unit,
    }


def _compression(value: Any) -> str:  # noqa: ANN401
    return "none" if value == tifffile.COMPRESSION.NONE else enum_name(value).lower()


def _oddities(stack: Any) -> Iterator[str]:  # noqa: ANN401
    if stack.axes[0] in _UNNAMED_AXES:
        yield "the file does not name its page axis; it was taken for z"
    if stack.keyframe.photometric == _MIN_IS_WHITE:
        yield "low values are meant to look white (MinIsWhite); they were read as stored"
