"""Not being root for a while, who may read and write everything."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOBODY = 65534


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Within the block files are opened as a user who owns none; that is so already where root runs no tests.

    Modules that are first imported there may not be found: Python itself may lie where only root looks.
    """
    if not hasattr(os, "geteuid"):
        pytest.skip("no users to change to on this system")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everyone may enter, which pytest's own is not; taken away whatever its permissions are by then."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for place, folders, _ in os.walk(folder):
            for name in folders:
                Path(place, name).chmod(0o755)
        folder.chmod(0o755)
        shutil.rmtree(folder)
