"""Which volume formats there are, and which of them a path holds."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from keypatch.errors import FormatError, ReadError, UsageError
from keypatch.formats.volumes import mrc, npy, slices, tiff, zarr_volume
from keypatch.formats.volumes.base import Peek, VolumeOptions
from keypatch.formats.volumes.packing import open_unpacked, packing
from keypatch.formats.volumes.reader import library_errors

if TYPE_CHECKING:
    from keypatch.formats.volumes.base import Volume

HEAD_BYTES = 2048


class VolumeFormat(Protocol):
    """What a module in `FORMATS` has."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a constant of the module
        """For `VolumeOptions.format` and `VolumeInfo.format`."""
        ...

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """In lower case, each with its dot."""
        ...

    @property
    def DESCRIPTION(self) -> str:  # noqa: N802
        """One phrase for a person."""
        ...

    def matches(self, peek: Peek) -> bool:
        """Whether the content is of this format."""
        ...

    def open_volume(self, path: Path, options: VolumeOptions) -> Volume:
        """Open it."""
        ...


FORMATS: tuple[VolumeFormat, ...] = (mrc, zarr_volume, tiff, npy, slices)
"""In the order in which they are asked. Folders of slices come last: a Zarr is none, whatever images lie in it."""

_TOLD_BY_SUFFIX: tuple[VolumeFormat, ...] = (mrc,)
"""Formats that also exist without magic bytes: an MRC header from before 2000 has no MAP id."""


def peek(path: Path) -> Peek:
    """Take a first look at a path.

    Raises:
        ReadError: If it is missing, cannot be read, or is neither a file nor a folder.
        FormatError: If it is an empty file, or a compressed file that is damaged.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            names = frozenset(entry.name for entry in path.iterdir())
            return Peek(path, is_dir=True, head=b"", inner=b"", names=names)
        if not stat.S_ISREG(mode):
            raise ReadError.at(path, expected="a file or a folder", found="a device, socket or pipe")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise ReadError.at(path, expected="a file or a folder", found="nothing at this path") from error
    except PermissionError as error:
        raise ReadError.at(path, expected="a file that may be read", found="no permission to read it") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError.at(path, expected="a file or a folder", found=f"{type(error).__name__}: {error}") from error
    if not head:
        raise FormatError.at(path, expected="a volume", found="an empty file")
    return Peek(path, is_dir=False, head=head, inner=_inner(path, head), names=frozenset())


def detect_format(path: Path, options: VolumeOptions = VolumeOptions()) -> VolumeFormat:  # noqa: B008 - frozen
    """Tell the format of a volume: as ``options.format`` says, else by its content, else by its suffix.

    The suffix decides only for a format that also exists without magic bytes, and never against the content.

    Raises:
        UsageError: If ``options.format`` names no format.
        ReadError: As `peek`.
        FormatError: As `peek`, or if no format matches; the message lists the formats.
    """
    if options.format is not None:
        return _named(options.format)
    seen = peek(path)
    by_content = next((volume_format for volume_format in FORMATS if volume_format.matches(seen)), None)
    if by_content is not None:
        return by_content
    name = _name(path)
    by_suffix = next((f for f in _TOLD_BY_SUFFIX if not seen.is_dir and name.lower().endswith(f.SUFFIXES)), None)
    if by_suffix is not None:
        return by_suffix
    candidates = ", ".join(volume_format.NAME for volume_format in FORMATS)
    raise FormatError.at(path, expected=f"a volume of one of the formats {candidates}", found=_unmatched(seen))


def open_volume(path: Path | str, options: VolumeOptions = VolumeOptions()) -> Volume:  # noqa: B008 - frozen
    """Open a volume of any format.

    Args:
        path: A file or a folder.
        options: What flags settle.

    Returns:
        The open volume; close it, or use it as a context manager.

    Raises:
        UsageError: If ``options.format`` names no format.
        ReadError: If the path is missing or cannot be read.
        FormatError: If the content is not what its format demands, or of no known format.
        MissingExtraError: If the file needs a library that is not installed.
    """
    where = Path(path)
    volume_format = detect_format(where, options)
    if options.format is not None:
        peek(where)  # a missing or empty file is told as such, whatever format was asked for
    return volume_format.open_volume(where, options)


def volume_stem(path: Path | str) -> str:
    """Name of a volume without its folder and without the suffix of its format.

    ``tomo.mrc.gz`` gives ``tomo``, ``run1.ome.zarr`` gives ``run1``, a folder of slices its own name, and an array
    inside a Zarr (``run1.zarr/0``) the name of the Zarr. One suffix is taken off, so ``ts01.mrc_15.00Apx.mrc`` gives
    ``ts01.mrc_15.00Apx``. Only the text counts: the path need not exist.
    """
    name = _name(Path(path))
    suffix = _suffix(name)
    if suffix:
        return name[: -len(suffix)]
    hierarchy = next((part for part in reversed(Path(path).parts[:-1]) if _suffix(part) in zarr_volume.SUFFIXES), None)
    return name if hierarchy is None else hierarchy[: -len(_suffix(hierarchy))]


def _named(name: str) -> VolumeFormat:
    by_name = {volume_format.NAME: volume_format for volume_format in FORMATS}
    if name not in by_name:
        raise UsageError.at("volume format", expected=f"one of {', '.join(by_name)}", found=repr(name))
    return by_name[name]


def _inner(path: Path, head: bytes) -> bytes:
    if packing(head) is None:
        return head
    with library_errors(path, f"an undamaged {packing(head)} file"), open_unpacked(path) as file:
        return file.read(HEAD_BYTES)


def _name(path: Path) -> str:
    """The last part of a path, also of "." and ".."; symbolic links keep their own name."""
    return os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119 - Path.resolve would follow links


def _suffix(name: str) -> str:
    """The longest suffix of any format that a name ends in, leaving a stem; empty if there is none."""
    known = (suffix for volume_format in FORMATS for suffix in volume_format.SUFFIXES)
    return max((s for s in known if name.lower().endswith(s) and len(name) > len(s)), key=len, default="")


def _unmatched(seen: Peek) -> str:
    if seen.is_dir:
        some = ", ".join(sorted(seen.names)[:3])
        return f"a folder with {len(seen.names)} entries ({some})" if seen.names else "an empty folder"
    begins = f"a file that begins with {seen.head[:8]!r}"
    return begins if seen.inner == seen.head else f"a {packing(seen.head)} file of something else; decompress it first"
