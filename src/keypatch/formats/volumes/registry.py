"""Which volume formats there are, and which of them a path holds.

Our own formats are asked first, then those of other packages (`keypatch.formats.plugins`): a plugin reads what ours
refuse, and takes away nothing that they read. Only a format's name, given by the person, goes before content.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from keypatch.errors import FormatError, KeypatchError, ReadError, UsageError
from keypatch.formats.volumes import em, hdf5, metaimage, mrc, nifti, npy, nrrd, slices, tiff, zarr_volume
from keypatch.formats.volumes.base import Peek, VolumeOptions
from keypatch.formats.volumes.packing import open_unpacked, packing
from keypatch.formats.volumes.plugin import plugin_group
from keypatch.formats.volumes.reader import library_errors

if TYPE_CHECKING:
    from collections.abc import Iterable

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


FORMATS: tuple[VolumeFormat, ...] = (mrc, zarr_volume, tiff, npy, hdf5, nifti, nrrd, metaimage, em, slices)
"""In the order in which they are asked. EM has no magic bytes and comes after all files that have; folders of slices
come last: a Zarr is none, whatever images lie in it."""

_TOLD_BY_SUFFIX: tuple[VolumeFormat, ...] = (mrc, em, nifti)
"""Formats that also exist without magic bytes: an MRC header from before 2000 has no MAP id, EM never has one, and the
.img of a NIfTI pair is bare voxels."""

_OWN_NAMES = frozenset(volume_format.NAME for volume_format in FORMATS)

PLUGINS = plugin_group(_OWN_NAMES)
"""Those of other packages; looked up when they are first asked for."""


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

    The suffix decides only for a format that also exists without magic bytes, and never against the content. Where a
    plugin claims by content what ours would take by the suffix, ours has it if it can open it.

    Raises:
        UsageError: If ``options.format`` names no format, or a plugin that cannot be used.
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
    if by_suffix is not None and _opens(by_suffix, path, options):
        return by_suffix
    by_plugin = next((volume_format for volume_format in PLUGINS.rows() if volume_format.matches(seen)), None)
    if by_plugin is not None:
        return by_plugin
    if by_suffix is not None:
        return by_suffix  # whose reader says what is wrong
    raise FormatError.at(
        path,
        expected=f"a volume of one of the formats {', '.join(_names())}",
        found=_unmatched(seen),
        hint="; ".join(PLUGINS.problems),
    )


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
    # Numbers of a damaged header that overflow become infinite, which the readers refuse with a line of their own.
    with np.errstate(all="ignore"):
        return volume_format.open_volume(where, options)


def volume_stem(path: Path | str, formats: Iterable[str] = ()) -> str:
    """Name of a volume without its folder and without the suffix of its format.

    ``tomo.mrc.gz`` gives ``tomo``, ``run1.ome.zarr`` gives ``run1``, a folder of slices its own name, and an array
    inside a Zarr (``run1.zarr/0``) the name of the Zarr. One suffix is taken off, so ``ts01.mrc_15.00Apx.mrc`` gives
    ``ts01.mrc_15.00Apx``. Only the text counts: the path need not exist.

    Args:
        path: A path, or a name as annotations give it.
        formats: Names of formats in use; of these the suffixes of plugins count too.
    """
    name = _name(Path(path))
    plugins = [row for given in sorted({*formats} - _OWN_NAMES) if (row := PLUGINS.named("volume format", given))]
    known = [suffix for volume_format in (*FORMATS, *plugins) for suffix in volume_format.SUFFIXES]
    suffix = _suffix(name, known)
    if suffix:
        return name[: -len(suffix)]
    parts = reversed(Path(path).parts[:-1])
    hierarchy = next((part for part in parts if _suffix(part, known) in zarr_volume.SUFFIXES), None)
    return name if hierarchy is None else hierarchy[: -len(_suffix(hierarchy, known))]


def _named(name: str) -> VolumeFormat:
    own = next((volume_format for volume_format in FORMATS if name == volume_format.NAME), None)
    found = own or PLUGINS.named("volume format", name)
    if found is None:
        raise UsageError.at("volume format", expected=f"one of {', '.join(_names())}", found=repr(name))
    return found


def _names() -> tuple[str, ...]:
    return (*(volume_format.NAME for volume_format in FORMATS), *PLUGINS.names)


def _opens(volume_format: VolumeFormat, path: Path, options: VolumeOptions) -> bool:
    try:
        volume_format.open_volume(path, options).close()
    except KeypatchError:
        return False
    return True


def _inner(path: Path, head: bytes) -> bytes:
    if packing(head) is None:
        return head
    with library_errors(path, f"an undamaged {packing(head)} file"), open_unpacked(path) as file:
        return file.read(HEAD_BYTES)


def _name(path: Path) -> str:
    """The last part of a path, also of "." and ".."; symbolic links keep their own name."""
    return os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119 - Path.resolve would follow links


def _suffix(name: str, known: Iterable[str]) -> str:
    """The longest known suffix that a name ends in, leaving a stem; empty if there is none."""
    return max((s for s in known if name.lower().endswith(s) and len(name) > len(s)), key=len, default="")


def _unmatched(seen: Peek) -> str:
    if seen.is_dir:
        some = ", ".join(sorted(seen.names)[:3])
        return f"a folder with {len(seen.names)} entries ({some})" if seen.names else "an empty folder"
    begins = f"a file that begins with {seen.head[:8]!r}"
    return begins if seen.inner == seen.head else f"a {packing(seen.head)} file of something else; decompress it first"
