"""A folder of z slices: JPEG, PNG or TIFF files in the natural order of their names (slice_2 before slice_10)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from PIL import Image

from keypatch.errors import FormatError
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.reader import VolumeReader, library_errors, volume_dtype, volume_shape
from keypatch.formats.volumes.slice_cache import SliceCache
from keypatch.formats.volumes.tiff_pages import enum_name, log_as_errors, page_array

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import Peek, Volume, VolumeOptions

NAME = "slices"
SUFFIXES: tuple[str, ...] = ()
DESCRIPTION = "folder of z slices (JPEG, PNG or TIFF), numbered without a gap"

_KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}

_DIGITS = re.compile(r"(\d+)")

_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's modes of one channel that are values, not entries of a palette."""

_TIFF_MODES = {0: "MINISWHITE", 1: "MINISBLACK", 2: "RGB"}
"""By the value of the tag PhotometricInterpretation."""


@dataclass(frozen=True)
class _Folder:
    """The slices of a folder, in the order of z, and what else lies there."""

    kind: str
    files: tuple[Path, ...]
    first: int | None
    step: int
    ignored: int


def matches(peek: Peek) -> bool:
    """Whether the folder holds an image file."""
    return any(_kind(name) for name in peek.names)


def open_volume(path: Path, options: VolumeOptions) -> Volume:  # noqa: ARG001 - the signature of all readers
    """Open a folder of slices. The first and the last are decoded now, each of the others when it is read.

    Raises:
        FormatError: If the names leave a gap or are not of one series, or the first and last slice differ or are
            not of one grey channel.
        ReadError: If the folder or a slice cannot be read.
    """
    with library_errors(path, "a readable folder of slices"):
        names = [entry.name for entry in path.iterdir() if entry.is_file()]
        others = sum(1 for _ in path.iterdir()) - len(names)
    folder = _ordered(path, names, others)
    grey = _decoded(folder.files[0], folder.kind)
    info = VolumeInfo(
        path,
        NAME,
        volume_shape(path, (len(folder.files), *grey.array.shape)),
        volume_dtype(folder.files[0], grey.array.dtype),
        voxel_spacing=None,
        access="slices",
        conventions=_conventions(folder, grey),
        warnings=tuple(_oddities(folder, grey)),
    )
    volume = _SliceVolume(info, folder, grey)
    volume.read((len(folder.files) - 1, 0, 0), (len(folder.files), 1, 1))
    return volume


@dataclass(frozen=True)
class _Slice:
    """One decoded slice: (y, x) values, and the mode that the file stored them in."""

    array: NDArray[Any]
    mode: str


class _SliceVolume(VolumeReader):
    def __init__(self, info: VolumeInfo, folder: _Folder, first: _Slice) -> None:
        super().__init__(info)
        self._folder = folder
        self._mode = first.mode
        self._stored_dtype = first.array.dtype
        self._cache = SliceCache(self._decode)

    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        return self._cache.read(z, y, x)

    def _decode(self, index: int) -> NDArray[Any]:
        file = self._folder.files[index]
        decoded = _decoded(file, self._folder.kind)
        expected = (self.info.shape[1:], self._stored_dtype, self._mode)
        found = (decoded.array.shape, decoded.array.dtype, decoded.mode)
        if found != expected:
            raise FormatError.at(file, expected=f"{_phrase(*expected)} as in the first slice", found=_phrase(*found))
        return decoded.array

    def close(self) -> None:
        """Let the decoded slices go."""
        self._cache.clear()


def _kind(name: str) -> str | None:
    """Of an image file; None for every other, and for hidden files such as the ._* of macOS."""
    return None if name.startswith(".") else _KINDS.get("." + name.rpartition(".")[2].lower())


def _ordered(path: Path, names: Iterable[str], others: int) -> _Folder:
    images = {name: kind for name in names if (kind := _kind(name))}
    ignored = sum(1 for name in names if name not in images) + others
    kinds = sorted(set(images.values()))
    if len(kinds) != 1:
        hint = "leave only the slices in the folder"
        raise FormatError.at(path, expected="slices of one kind", found=" and ".join(kinds) or "no image", hint=hint)
    if len(images) == 1:
        (name,) = images
        return _Folder(kinds[0], (path / name,), first=None, step=1, ignored=ignored)
    numbers = _numbers(path, sorted(images))
    step = _step(path, sorted(numbers))
    files = tuple(path / numbers[number] for number in sorted(numbers))
    return _Folder(kinds[0], files, first=min(numbers), step=step, ignored=ignored)


def _numbers(path: Path, names: Sequence[str]) -> dict[int, str]:
    """Each slice's number and its name: of the numbers in the names, the one that differs."""
    hint = "leave only the slices of one volume in the folder, named by one number that counts them"
    split = {name: _DIGITS.split(name.rpartition(".")[0]) for name in names}
    by_text = {tuple(parts[::2]): name for name, parts in split.items()}
    if len(by_text) > 1:
        found = " and ".join(sorted(by_text.values())[:2])
        raise FormatError.at(path, expected="slices that differ by their number alone", found=found, hint=hint)
    columns = list(zip(*(map(int, parts[1::2]) for parts in split.values()), strict=True))
    counting = [column for column in columns if len(set(column)) > 1]
    if len(counting) > 1:
        found = f"{len(counting)} numbers that differ ({names[0]} and {names[-1]})"
        raise FormatError.at(path, expected="one number that counts the slices", found=found, hint=hint)
    numbered = dict(zip(counting[0], names, strict=True)) if counting else {}
    if len(numbered) < len(names):
        twice = [name for name in names if name not in numbered.values()]
        found = f"a number that occurs twice ({', '.join(twice[:2])})"
        raise FormatError.at(path, expected="one slice a number", found=found, hint=hint)
    return numbered


def _step(path: Path, numbers: Sequence[int]) -> int:
    """The distance between slice numbers, the same throughout: a lost slice would shift all that follow it."""
    steps = {after - before for before, after in pairwise(numbers)}
    if len(steps) == 1:
        return steps.pop()
    step = min(steps)
    before, after = next((a, b) for a, b in pairwise(numbers) if b - a != step)
    found = f"no slice between {before} and {after}"
    hint = "put the missing slices back; if the volume never had them, number the files without a gap"
    raise FormatError.at(path, expected="slices numbered without a gap", found=found, hint=hint)


def _decoded(file: Path, kind: str) -> _Slice:
    decoded = _tiff_slice(file) if kind == "TIFF" else _pillow_slice(file, kind)
    if decoded.array.size == 0:
        raise FormatError.at(file, expected="at least one voxel", found=f"an image of shape {decoded.array.shape}")
    if decoded.array.ndim == 2:
        return decoded
    channels = decoded.array.reshape(*decoded.array.shape[:2], -1)
    if channels.shape[2] != 3 or np.any(channels != channels[..., :1]):
        hint = "convert the slices to grey"
        raise FormatError.at(file, expected="one grey channel", found=f"colours ({decoded.mode})", hint=hint)
    return _Slice(np.ascontiguousarray(channels[..., 0]), decoded.mode)


def _pillow_slice(file: Path, kind: str) -> _Slice:
    with library_errors(file, f"an undamaged {kind} file"), Image.open(file, formats=[kind]) as image:
        mode, frames = image.mode, getattr(image, "n_frames", 1)
        array = np.asarray(image)
    if mode not in (*_GREY_MODES, "RGB") or frames != 1:
        found = f"mode {mode}" if frames == 1 else f"{frames} frames"
        raise FormatError.at(file, expected="one grey channel", found=found, hint="convert the slices to grey")
    # Pillow before 11.3 decodes PNG's 16 bits, the most it has, as 32-bit integers (mode I).
    return _Slice(array.astype(np.uint16) if kind == "PNG" and mode == "I" else array, mode)


def _tiff_slice(file: Path) -> _Slice:
    what = "an undamaged TIFF file"
    with library_errors(file, what), log_as_errors(file, what), tifffile.TiffFile(file) as tif:
        if len(tif.pages) != 1:
            raise FormatError.at(file, expected="a TIFF of one page", found=f"{len(tif.pages)} pages")
        page = tif.pages.first
        mode = _TIFF_MODES.get(int(page.photometric))
        if mode is None:
            found, hint = enum_name(page.photometric), "convert the slices to grey"
            raise FormatError.at(file, expected="one grey channel", found=found, hint=hint)
        return _Slice(page_array(file, page, what), mode)


def _phrase(shape: tuple[int, ...], dtype: np.dtype[Any], mode: str) -> str:
    return f"{' x '.join(map(str, shape))} {dtype} ({mode})"


def _conventions(folder: _Folder, first: _Slice) -> dict[str, Any]:
    return {
        "axis_order": "zyx",
        "inferred": ["axis_order"],
        "kind": folder.kind,
        "mode": first.mode,
        "channel": "first of three equal ones" if first.mode == "RGB" else "the only one",
        "first_slice": folder.files[0].name,
        "last_slice": folder.files[-1].name,
        "first_number": folder.first,
        "number_step": folder.step,
        "files_ignored": folder.ignored,
    }


def _oddities(folder: _Folder, first: _Slice) -> list[str]:
    found = []
    if first.mode == "RGB":
        found.append("the slices are stored as colours whose three channels are equal; one was taken")
    if first.mode == "MINISWHITE":
        found.append("low values are meant to look white (MinIsWhite); they were read as stored")
    if folder.step != 1:
        found.append(f"slice numbers go up by {folder.step}; the slices were taken as neighbours")
    if len(folder.files) == 1:
        found.append("the folder holds a single slice")
    return found
