"""Making files durable, and saying plainly when a disk does not take them."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from keypatch.errors import KeypatchError, WriteError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while writing at or below ``path`` into a `WriteError`."""
    try:
        yield
    except KeypatchError:
        raise
    except OSError as error:
        raise WriteError.at(
            error.filename or path,
            expected="to write there",
            found=error.strerror or str(error),
            hint="free some space or choose another place",
        ) from error


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
