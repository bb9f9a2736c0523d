"""A shard file of Zarr v3's ``sharding_indexed`` codec, streamed out and read by position.

Layout (zarr-specs, codecs/sharding-indexed): the encoded chunks in any order, then the index, one (offset, size) pair
of little-endian uint64 for each chunk of the shard in C order, then the crc32c of the index. A chunk that is not there
has 2^64 - 1 in both.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import google_crc32c
import numpy as np

from keypatch.errors import CorruptionError
from keypatch.formats.store.blockfile import BlockFile
from keypatch.formats.store.disk import sync_folder, writing

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

MISSING: Final = 2**64 - 1
_ENTRY_BYTES: Final = 16
_CHECKSUM_BYTES: Final = 4


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a finished shard without reading it.

    Attributes:
        sha256: Of the whole file, 32 bytes.
        size: Of the whole file, bytes.
    """

    sha256: bytes
    size: int


class ShardWriter:
    """Streams the encoded chunks of one shard into a file, and gives the file its name only when it is whole.

    Chunk after chunk goes to disk and into the hash, so memory stays at one chunk. On ``close`` the index is
    written, the file is fsynced and renamed, and its folder is fsynced. Leaving the ``with`` block by an error
    removes what was written, the finished shard too: a unit's shards are all there or none is.

    Args:
        path: Where the finished shard lies; folders are made.
        n_chunks: Entries of the index.

    Raises:
        WriteError: If the file cannot be written, from any method.
    """

    def __init__(self, path: Path, n_chunks: int) -> None:
        self.path = path
        self._partial = path.with_name(path.name + ".partial")
        self._index = np.full((n_chunks, 2), MISSING, "<u8")
        self._named = False
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = BlockFile(self._partial)

    def add(self, chunk: int, *parts: bytes | memoryview) -> None:
        """Append an encoded chunk, in one part or several; ``chunk`` is its place in the index, each at most once."""
        if self._index[chunk, 0] != MISSING:
            message = f"chunk {chunk} of {self.path} was added twice"
            raise ValueError(message)
        self._index[chunk] = self._file.size, sum(len(part) for part in parts)
        with writing(self.path):
            for part in parts:
                self._file.write(part)

    def close(self) -> ShardRecord:
        """Write the index, make the file durable and give it its name."""
        index = self._index.tobytes()
        with writing(self.path):
            self._file.write(index + int(google_crc32c.value(index)).to_bytes(_CHECKSUM_BYTES, "little"))
            sha256 = self._file.finish()
            self._partial.replace(self.path)
            self._named = True
            sync_folder(self.path.parent)
        return ShardRecord(sha256, self._file.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)
            if kind is not None and self._named:
                self.path.unlink(missing_ok=True)


def index_size(n_chunks: int, *, checked: bool = True) -> int:
    """Bytes of the index of ``n_chunks`` chunks, with its crc32c."""
    return n_chunks * _ENTRY_BYTES + (_CHECKSUM_BYTES if checked else 0)


def parse_index(raw: bytes, n_chunks: int, shard_size: int, where: str, *, checked: bool = True) -> NDArray[np.uint64]:
    """Check the bytes of an index and give it as (n_chunks, 2) uint64, offset and size.

    Args:
        raw: As it lies in the shard, `index_size` bytes.
        n_chunks: Entries expected.
        shard_size: Bytes of the whole file; an entry that points beyond it is damage.
        where: The shard's path, for the message.
        checked: Whether a crc32c follows the entries.

    Raises:
        CorruptionError: If the length, the checksum or an entry is wrong.
    """
    if len(raw) != index_size(n_chunks, checked=checked):
        raise CorruptionError.at(
            where,
            expected=f"an index of {index_size(n_chunks, checked=checked)} bytes",
            found=f"{len(raw)} bytes (the file is cut)",
        )
    entries = raw[: n_chunks * _ENTRY_BYTES]
    if checked and int(google_crc32c.value(entries)) != int.from_bytes(raw[-_CHECKSUM_BYTES:], "little"):
        raise CorruptionError.at(where, expected="an index that matches its crc32c", found="one that does not")
    index = np.frombuffer(entries, "<u8").reshape(n_chunks, 2).astype(np.uint64)
    present = index[:, 0] != MISSING
    size = np.uint64(shard_size)
    # Compared without adding, so that an offset near 2^64 cannot wrap around.
    beyond = present & ((index[:, 0] > size) | (index[:, 1] > size - np.minimum(index[:, 0], size)))
    if beyond.any():
        raise CorruptionError.at(
            where,
            expected=f"chunks within {shard_size} bytes",
            found=f"chunk {int(beyond.argmax())} beyond them",
        )
    return index
