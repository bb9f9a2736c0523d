"""Reading the shards of one unit for an audit: every byte hashed, every chunk decoded, one patch in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from keypatch.audit.contents import reason
from keypatch.errors import CorruptionError
from keypatch.formats.store.digest import file_sha256
from keypatch.formats.store.shard import MISSING, index_size, parse_index
from keypatch.formats.store.writer import chunk_boxes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from keypatch.audit.findings import Findings
    from keypatch.audit.layout import Target


class UnitArray:
    """The shard of one unit of `image` or `gaussian`, read patch by patch; damage becomes findings, never an error.

    Reads no more than the file has, whatever its metadata claim.

    Args:
        target: The store.
        name: Of the array; its metadata is in order.
        unit: Which shard.
        findings: Added to.
    """

    def __init__(self, target: Target, name: str, unit: int, findings: Findings) -> None:
        self._spec = target.arrays[name]
        self._file_name = target.shard_name(name, unit)
        self._findings = findings
        self.patches = self._spec.unit_patches(unit)
        self._codec = self._spec.codec()
        self._file: BinaryIO | None = None
        self._index: NDArray[np.uint64] | None = None
        if self._file_name in target.tree.files:  # else said by `check_shard_files`
            self._open(target)

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

    def read(self, patch: int) -> NDArray[Any] | None:
        """One patch; None where a chunk is missing or damaged, which is a finding."""
        if self._index is None:
            return None
        values = np.empty(self._spec.item_shape, self._spec.dtype)
        first = (patch - self.patches[0]) * self._spec.chunks_per_patch
        sound = True
        for k, box in enumerate(chunk_boxes(self._spec.item_shape, self._spec.chunk_shape)):
            sound = self._read_chunk(first + k, values[box]) and sound
        return values if sound else None

    def items(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Every sound patch of the unit with its number."""
        for patch in self.patches:
            values = self.read(patch)
            if values is not None:
                yield patch, values

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, target: Target) -> None:
        n_entries = self._spec.patches_per_shard * self._spec.chunks_per_patch
        length, size = index_size(n_entries), target.tree.files[self._file_name]
        if size < length:
            self._add("KP202", self._file_name, f"an index of {length} bytes at the end", f"a file of {size} bytes")
            return
        try:
            self._file = (target.folder / self._file_name).open("rb")
            raw = self._pread(size - length, length)
        except OSError as error:
            self._add("KP117", self._file_name, "a readable file", error.strerror or error)
            return
        try:
            self._index = parse_index(raw, n_entries, size, self._file_name)
        except CorruptionError as error:
            self._add("KP202", self._file_name, "a sound index", reason(error))

    def _read_chunk(self, entry: int, out: NDArray[Any]) -> bool:
        assert self._index is not None  # noqa: S101 - callers return early without an index
        offset, size = (int(n) for n in self._index[entry])
        if offset == MISSING:
            self._add("KP203", self._place(entry), "a chunk", "none in the shard's index")
            return False
        try:
            self._codec.decode(self._pread(offset, size), out, self._place(entry))
        except CorruptionError as error:
            self._add("KP204", self._place(entry), "a chunk that decodes", reason(error))
        except OSError as error:
            self._add("KP117", self._place(entry), "bytes that can be read", error.strerror or error)
        else:
            return True
        return False

    def _pread(self, offset: int, size: int) -> bytes:
        assert self._file is not None  # noqa: S101
        self._file.seek(offset)
        return self._file.read(size)

    def _place(self, entry: int) -> str:
        row, chunk = divmod(entry, self._spec.chunks_per_patch)
        of_several = f", chunk {chunk}" if self._spec.chunks_per_patch > 1 else ""
        return f"{self._file_name}: patch {self.patches[0] + row}{of_several}"

    def _add(self, code: str, where: str, expected: object, found: object) -> None:
        self._findings.add(code, where, expected=expected, found=found, within=self._spec.name)


def check_hash(target: Target, name: str, unit: int, findings: Findings) -> int:
    """Hold the sha256 of a shard against the one in ``integrity/``.

    Returns:
        Bytes that were hashed.
    """
    file = target.shard_name(name, unit)
    hashes = target.tables.get(f"integrity/{name}_sha256")
    if file not in target.tree.files or hashes is None or unit >= len(hashes):
        return 0
    try:
        digest = file_sha256(target.folder / file)
    except OSError as error:
        findings.add("KP117", file, expected="a readable file", found=error.strerror or error, within=name)
        return 0
    if digest != hashes[unit].tobytes():
        same = np.flatnonzero((hashes == np.frombuffer(digest, np.uint8)).all(axis=1))
        found = f"the shard of unit {same[0]}" if len(same) else f"sha256 {digest.hex()}"
        findings.add("KP201", file, expected=f"sha256 {hashes[unit].tobytes().hex()}", found=found, within=name)
    return target.tree.files[file]
