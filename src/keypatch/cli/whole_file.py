"""A report's file: written whole or not at all, and never into what was looked at."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from keypatch.errors import UsageError, WriteError
from keypatch.formats.store.disk import resolved, writing

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_place(path: Path, audited: Iterable[str | Path], flag: str = "--output") -> None:
    """See that a file may be written there, before there is anything to write.

    Args:
        path: Of the file.
        audited: Stores, or other folders, in which nothing may be written.
        flag: Of the command line, for messages.

    Raises:
        UsageError: If it is a folder or a device, or lies in what is audited.
        WriteError: If its folder is not there, or takes no files.
    """
    target = resolved(path)
    if os.path.exists(target) and not os.path.isfile(target):  # noqa: PTH110, PTH113 - those of Path may raise
        raise UsageError.at(f"{flag} {path}", expected="the name of a file", found="something else of that name")
    check_outside(path, audited, flag)
    if not os.path.isdir(target.parent):  # noqa: PTH112
        raise WriteError.at(path, expected="a folder to write in", found=f"no folder {path.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise WriteError.at(path, expected="to write there", found="Permission denied")


def check_outside(path: Path, audited: Iterable[str | Path], flag: str) -> None:
    """See that a file or folder to write does not lie in what is looked at.

    Raises:
        UsageError: If it does.
    """
    for store in audited:
        if resolved(path).is_relative_to(resolved(Path(store))):
            raise UsageError.at(
                f"{flag} {path}", expected="a place outside the store", found=f"one in {store}", hint="choose another"
            )


def write(path: Path, text: str) -> None:
    """Write a file beside its place and give it its name when all of it is on the disk.

    Raises:
        WriteError: If the disk does not take it; what was there under that name is there still.
    """
    target = resolved(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with writing(path):
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
                file.write(text.encode())
                file.flush()
                os.fsync(descriptor)
            partial.replace(target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
