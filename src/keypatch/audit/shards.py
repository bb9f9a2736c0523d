"""Reading the shards of one unit for an audit: every byte hashed, every chunk decoded, one patch in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keypatch.audit.contents import expected_and_found, largest_encoded
from keypatch.audit.shardfile import Memory, ShardFile
from keypatch.audit.voxels import are_finite
from keypatch.errors import CorruptionError
from keypatch.formats.store.shard import MISSING, index_size, parse_index
from keypatch.formats.store.writer import chunk_boxes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from keypatch.audit.findings import Findings
    from keypatch.audit.layout import Target
    from keypatch.audit.metadata import ShardedSpec


@dataclass(frozen=True)
class Shard:
    """The shard file of one unit, which was there when the audit began.

    Attributes:
        array: `image` or `gaussian`.
        unit: Its number.
        name: Of the file, below the store.
        spec: Of its array; None where its metadata is damaged, so that the file can only be hashed.
    """

    array: str
    unit: int
    name: str
    spec: ShardedSpec | None


class ReadPatch(NamedTuple):
    """One patch whose chunks are all there and decode.

    Attributes:
        number: In the store.
        values: Of the array's item shape; the memory of the next patch, too.
        finite: Whether there is no NaN and no infinity in it.
    """

    number: int
    values: NDArray[Any]
    finite: bool


class UnitMemory:
    """What a process reads shards into, one after the other: encoded bytes, the values of a patch, those of a chunk."""

    def __init__(self) -> None:
        self.encoded = Memory()
        self._values, self._chunk = Memory(), Memory()

    def values(self, spec: ShardedSpec) -> NDArray[Any]:
        """An array for one patch."""
        return self._array(self._values, spec.item_shape, spec.dtype)

    def chunk(self, spec: ShardedSpec) -> NDArray[Any]:
        """An array for one inner chunk."""
        return self._array(self._chunk, spec.chunk_shape, spec.dtype)

    @staticmethod
    def _array(memory: Memory, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        n_bytes = math.prod(shape) * dtype.itemsize
        return memory.take(n_bytes).view(dtype).reshape(shape)


class UnitArray:
    """A shard, read patch by patch; damage becomes findings, never an error.

    Reads no more than the file has, whatever its metadata claim.

    Args:
        folder: Of the store.
        shard: Which.
        spec: Of its array.
        findings: Added to.
        memory: To read into.
        hashed: Whether `sha256` will be asked for.
    """

    def __init__(
        self,
        folder: Path,
        shard: Shard,
        spec: ShardedSpec,
        findings: Findings,
        memory: UnitMemory,
        *,
        hashed: bool,
    ) -> None:
        self._shard, self._spec, self._findings, self._memory = shard, spec, findings, memory
        self._patches = spec.unit_patches(shard.unit)
        self._codec = self._spec.codec()
        self._limit = largest_encoded(self._codec)
        self._boxes = list(chunk_boxes(self._spec.item_shape, self._spec.chunk_shape))
        self._file: ShardFile | None = None
        self._index: NDArray[np.uint64] | None = None
        self._open(folder, hashed=hashed)

    @property
    def size(self) -> int:
        """Bytes of the file; 0 where it cannot be read."""
        return 0 if self._file is None else self._file.size

    @property
    def patches(self) -> range:
        """Of the unit; none where the index cannot be read, so that nobody goes through what metadata claim."""
        return range(0) if self._index is None else self._patches

    def check_index(self) -> int:
        """Report patches without all of their chunks, and chunks of patches that do not exist.

        Returns:
            Chunks that are there.
        """
        if self._index is None:
            return 0
        present = self._index[:, 0] != MISSING
        n_expected = len(self.patches) * self._spec.chunks_per_patch
        for entry in np.flatnonzero(~present[:n_expected]):
            self._add("KP203", self._place(int(entry)), "a chunk", "none in the shard's index")
        for entry in np.flatnonzero(present[n_expected:]) + n_expected:
            self._add("KP207", self._place(int(entry)), "no chunk", "one in the shard's index")
        return int(np.count_nonzero(present))

    def items(self) -> Iterator[ReadPatch]:
        """Every sound patch of the unit, in order; the others become findings."""
        for number in self.patches:
            patch = self.read(number)
            if patch is not None:
                yield patch

    def read(self, number: int) -> ReadPatch | None:
        """One patch of the unit; None where a chunk is missing or damaged, which is a finding."""
        if self._index is None:
            return None
        first = (number - self._patches[0]) * self._spec.chunks_per_patch
        values = self._memory.values(self._spec)
        sound = finite = True
        for k, box in enumerate(self._boxes):
            part = values[box]
            # The codec decodes in place, and a chunk is looked at while it is in the processor's cache.
            chunk = part if part.flags.c_contiguous else self._memory.chunk(self._spec)
            if not self._read_chunk(first + k, chunk):
                sound = False
                continue
            finite = finite and are_finite(chunk)
            if chunk is not part:
                part[...] = chunk
        return ReadPatch(number, values, finite) if sound else None

    def sha256(self) -> bytes | None:
        """Of the whole file; None where it cannot be read, which is a finding."""
        return None if self._file is None else _hashed(self._file, self._shard, self._findings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self, folder: Path, *, hashed: bool) -> None:
        name, n_entries = self._shard.name, self._spec.patches_per_shard * self._spec.chunks_per_patch
        length = index_size(n_entries)
        try:
            self._file = ShardFile(folder / name, length, self._memory.encoded, hashed=hashed)
        except OSError as error:
            _report_unreadable(self._shard, error, self._findings)
            return
        if self._file.size < length:
            self._add("KP202", name, f"an index of {length} bytes at the end", f"a file of {self._file.size} bytes")
            return
        try:
            self._index = parse_index(self._file.end, n_entries, self._file.size, name)
        except CorruptionError as error:
            self._add("KP202", name, *expected_and_found(error, "a sound index"))

    def _read_chunk(self, entry: int, out: NDArray[Any]) -> bool:
        assert self._file is not None  # noqa: S101 - there is an index
        assert self._index is not None  # noqa: S101
        offset, size = self._index[entry].tolist()
        if offset == MISSING:
            self._add("KP203", self._place(entry), "a chunk", "none in the shard's index")
            return False
        if size > self._limit:
            self._add("KP204", self._place(entry), f"at most {self._limit} bytes", size)
            return False
        try:
            self._codec.decode(self._file.read(offset, size), out, self._place(entry))
        except CorruptionError as error:
            self._add("KP204", self._place(entry), *expected_and_found(error, "a chunk that decodes"))
        except OSError as error:
            _report_unreadable(self._shard, error, self._findings)
        else:
            return True
        return False

    def _place(self, entry: int) -> str:
        row, chunk = divmod(entry, self._spec.chunks_per_patch)
        of_several = f", chunk {chunk}" if self._spec.chunks_per_patch > 1 else ""
        return f"{self._shard.name}: patch {self._patches[0] + row}{of_several}"

    def _add(self, code: str, where: str, expected: object, found: object) -> None:
        self._findings.add(code, where, expected=expected, found=found, within=self._spec.name)


def hash_shard(folder: Path, shard: Shard, findings: Findings, memory: UnitMemory) -> tuple[bytes, int] | None:
    """The sha256 and the size of a shard of which no more can be known; None where it cannot be read: a finding."""
    try:
        with ShardFile(folder / shard.name, 0, memory.encoded) as file:
            digest = _hashed(file, shard, findings)
            return None if digest is None else (digest, file.size)
    except OSError as error:
        _report_unreadable(shard, error, findings)
        return None


def _hashed(file: ShardFile, shard: Shard, findings: Findings) -> bytes | None:
    try:
        return file.sha256()
    except OSError as error:
        _report_unreadable(shard, error, findings)
        return None


def _report_unreadable(shard: Shard, error: OSError, findings: Findings) -> None:
    found = error.strerror or error
    findings.add("KP117", shard.name, expected="a readable file", found=found, within=shard.array)


def check_hash(target: Target, shard: Shard, digest: bytes, findings: Findings) -> bool:
    """Hold the sha256 of a shard against the one in ``integrity/``; another unit's is named as such.

    Returns:
        Whether there is one.
    """
    hashes = target.record(shard.array, "sha256")
    if hashes is None or shard.unit >= len(hashes):
        return False
    recorded = hashes[shard.unit].tobytes()
    if digest != recorded:
        same = np.flatnonzero((hashes == np.frombuffer(digest, np.uint8)).all(axis=1))
        found = f"the shard of unit {same[0]}" if len(same) else f"sha256 {digest.hex()}"
        findings.add("KP201", shard.name, expected=f"sha256 {recorded.hex()}", found=found, within=shard.array)
    return True
