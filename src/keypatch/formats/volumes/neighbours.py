"""Files that a header names: only those in the header's own folder.

A header is text from somewhere else: it must not make us read a file that the person did not put beside it. Symbolic
links are followed, since no header can make one and data sets under version control consist of them (git-annex), but
one that leads out of the folder is told.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

from keypatch.errors import FormatError, ReadError

_ENTRIES_LOOKED_AT = 10_000
"""Of a folder whose links are looked for: some 20 ms."""


def beside(header: Path, name: str, what: str) -> Path:
    """The file of this name in a header's own folder.

    Args:
        header: The file that names it.
        name: As written there; "./" before it counts as nothing.
        what: Which entry of the header, for messages.

    Raises:
        FormatError: If it is no plain file name: absolute, or with folders in it.
        ReadError: If no such file lies there, or it is no regular file.
    """
    plain = name.removeprefix("./")
    if not plain or plain in (".", "..") or "\0" in plain or not _is_plain(plain):
        hint = "put the data file beside the header and write its plain name"
        expected = f"{what} to name a file in the header's own folder"
        raise FormatError.at(header, expected=expected, found=repr(name), hint=hint)
    file = header.parent / plain
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise ReadError.at(
            header, expected=f"the file {plain} beside it ({what})", found=error.strerror or str(error)
        ) from error
    if not stat.S_ISREG(mode):
        raise ReadError.at(file, expected=f"a regular file ({what})", found="a folder, device, socket or pipe")
    return file


def leads_out(folder: Path, file: Path) -> Path | None:
    """Where a file really is, if links take it out of a folder."""
    real = Path(os.path.realpath(file))
    return None if real.is_relative_to(os.path.realpath(folder)) else real


def link_warnings(header: Path, file: Path) -> list[str]:
    """A line if a data file beside its header is a link that leads out of their folder."""
    real = leads_out(header.parent, file)
    return [] if real is None else [f"{file.name} is a symbolic link out of its folder; it was followed"]


def link_out_of(folder: Path, where: Path) -> str | None:
    """Name of the first symbolic link under ``where`` that leads out of ``folder``; None if none was found.

    The first `_ENTRIES_LOOKED_AT` entries are looked at.
    """
    looked_at = 0
    waiting = [where]
    while waiting and looked_at < _ENTRIES_LOOKED_AT:
        try:
            entries = sorted(os.scandir(waiting.pop()), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            looked_at += 1
            if entry.is_symlink() and leads_out(folder, Path(entry.path)):
                return Path(entry.path).relative_to(folder).as_posix()
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
    return None


def _is_plain(name: str) -> bool:
    return PurePosixPath(name).name == name and PureWindowsPath(name).name == name
