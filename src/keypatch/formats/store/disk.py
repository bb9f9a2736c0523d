"""Making files durable, opening none that is no file, and saying plainly when a disk does not take or give them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from keypatch.errors import KeypatchError, WriteError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METADATA_BYTES: Final = 2**28
"""Most that a JSON file of a store may have: that of the volumes takes about 2 kB a volume, so enough for 100 000."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while writing at or below ``path`` into a `WriteError`."""
    try:
        yield
    except KeypatchError:
        raise
    except OSError as error:
        # A file that is written beside its place has a hidden name, which nobody has asked for.
        hidden = os.path.basename(str(error.filename or ".")).startswith(".")  # noqa: PTH119 - or a descriptor
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
        raise WriteError.at(
            path if hidden else error.filename,
            expected="to write there",
            found=error.strerror or str(error),
            hint="free some space or choose another place" if full else "choose another place",
        ) from error


def open_file(path: str | Path) -> int:
    """Open a file for reading.

    Returns:
        Its descriptor.

    Raises:
        OSError: If it cannot be opened, or is no file: who reads a pipe may wait for ever, and a device has no end.
    """
    # Without O_NONBLOCK a pipe that nobody writes to would not even open; a file does not heed it.
    flags = (getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NONBLOCK"))
    descriptor = os.open(path, os.O_RDONLY | sum(flags))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "a pipe, socket or device", str(path))


def resolved(path: Path) -> Path:
    """Where a path leads, through links; as it is where they go in a circle, which `Path.resolve` does not take."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def is_device(path: str) -> bool:
    """Whether a pipe, socket or device has this path; False where nothing has."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - the path may be a URL
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def read_metadata(path: Path) -> bytes:
    """A file that is small in every store, whole.

    Raises:
        OSError: If it cannot be read, is no file, or is larger than any that keypatch writes.
    """
    with os.fdopen(open_file(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > METADATA_BYTES:
            raise OSError(errno.EFBIG, f"{size} bytes, and metadata have at most {METADATA_BYTES}", str(path))
        return file.read()


def sync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; a system without folder handles (Windows) has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
