"""Reading a file by position into memory that is there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from keypatch.errors import ReadError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class PositionedFile:
    """An open file without a place of its own, so that forked processes may share it.

    Args:
        path: Of the file.

    Raises:
        OSError: If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))

    def read(self, offset: int, memory: NDArray[Any]) -> None:
        """Fill ``memory``, C-contiguous, with the bytes at ``offset``.

        Raises:
            ReadError: If the file ends before, or the system cannot read.
        """
        rest = memory.reshape(-1).view("u1").data
        while len(rest):
            n_read = self._some(offset, rest)
            if not n_read:
                raise ReadError.at(
                    self._path,
                    expected=f"{len(rest)} more bytes from byte {offset} on",
                    found="the end of the file",
                    hint="it was cut while it was read: restore it and build again",
                )
            offset, rest = offset + n_read, rest[n_read:]

    def _some(self, offset: int, memory: memoryview) -> int:
        try:
            if hasattr(os, "preadv"):
                return os.preadv(self._descriptor, [memory], offset)
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            part = os.read(self._descriptor, len(memory))
            memory[: len(part)] = part
            return len(part)
        except OSError as error:
            raise ReadError.at(
                self._path, expected=f"{len(memory)} bytes from byte {offset} on", found=error.strerror or str(error)
            ) from error

    def close(self) -> None:
        """Let the file go; may be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()
