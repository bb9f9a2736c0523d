"""A shard file read from front to back, each byte once, so that what is decoded is what was hashed."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch.errors import ReadError
from keypatch.formats.store.disk import open_file

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

BLOCK_BYTES: Final = 2**20
"""Read at once where chunks are smaller, as those of Gaussians are: a call for each costs more than its bytes."""


class Memory:
    """Memory that is used again: fresh pages cost as much as reading into them from the page cache."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def take(self, n_bytes: int) -> NDArray[np.uint8]:
        """The first so many bytes; what was written to them before is kept where they suffice."""
        if self._memory.nbytes < n_bytes:
            self._memory = np.empty(n_bytes, np.uint8)
        return self._memory[:n_bytes]


class ShardFile:
    """One open shard. Its end is read first, since the index is there, then the rest forwards and all of it hashed.

    Chunks may be asked for in any order. In the order of the file, in which keypatch writes them, no byte is read
    twice; one that lies further back is read again.

    Args:
        path: Of the file.
        n_end: Bytes of its end; a file that has fewer has no ``end``.
        memory: What it reads into; must not serve two files at once.
        hashed: Whether `sha256` will be asked for.

    Raises:
        OSError: If it cannot be read, from any method.
    """

    def __init__(self, path: Path, n_end: int, memory: Memory, *, hashed: bool = True) -> None:
        self._path, self._memory = path, memory
        self._descriptor = open_file(path)
        try:
            self.size = os.fstat(self._descriptor).st_size
            self._body = self.size - n_end if n_end <= self.size else self.size
            self.end = self._again(self._body, self.size - self._body).tobytes()
        except BaseException:
            self.close()
            raise
        self._sha256 = hashlib.sha256() if hashed else None
        # The part of the file that lies in memory; all before its stop is hashed.
        self._start = self._stop = 0

    def read(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Bytes of the file, read-only, valid until the next call."""
        stop = offset + size
        if offset < self._start or stop > self._body:
            return _read_only(self._again(offset, size))
        if self._sha256 is None and offset > self._stop:
            self._start = self._stop = offset
        while offset > self._stop:
            self._forward(self._stop, min(offset, self._stop + BLOCK_BYTES))
        if stop > self._stop:
            self._forward(offset, min(max(stop, offset + BLOCK_BYTES), self._body))
        return _read_only(self._memory.take(self._stop - self._start)[offset - self._start : stop - self._start])

    def sha256(self) -> bytes:
        """Of the whole file; reads what nobody asked for.

        Raises:
            ValueError: If nothing was hashed.
        """
        if self._sha256 is None:
            message = "a file that is not hashed"
            raise ValueError(message)
        while self._stop < self._body:
            self._forward(self._stop, min(self._stop + BLOCK_BYTES, self._body))
        whole = self._sha256.copy()
        whole.update(self.end)
        return whole.digest()

    def close(self) -> None:
        """Let the file go; may be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _forward(self, start: int, stop: int) -> None:
        """Have [start, stop) in memory; of it, what is there is kept, and what is new is read and hashed."""
        kept = self._memory.take(self._stop - self._start)[start - self._start :]
        memory = self._memory.take(stop - start)
        memory[: kept.nbytes] = kept
        new = memory[kept.nbytes :]
        self._fill(new, self._stop)
        if self._sha256 is not None:
            self._sha256.update(new.data)
        self._start, self._stop = start, stop

    def _again(self, offset: int, size: int) -> NDArray[np.uint8]:
        found = np.empty(size, np.uint8)
        self._fill(found, offset)
        return found

    def _fill(self, target: NDArray[np.uint8], offset: int) -> None:
        filled = 0
        while filled < target.nbytes:
            n = _read_at(self._descriptor, target[filled:], offset + filled)
            if n == 0:
                raise ReadError.at(self._path, expected=f"{self.size} bytes", found="a file that was cut meanwhile")
            filled += n


def _read_at(descriptor: int, target: NDArray[np.uint8], offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [target.data], offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    data = os.read(descriptor, target.nbytes)
    target[: len(data)] = np.frombuffer(data, np.uint8)
    return len(data)


def _read_only(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    values.flags.writeable = False  # what google-crc32c asks of a buffer
    return values
