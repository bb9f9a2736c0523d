"""Reading `image` and `gaussian` by position, straight from their shard files."""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from keypatch.errors import CorruptionError, StoreError
from keypatch.formats.store.codecs import ChunkCodec
from keypatch.formats.store.digest import ROOT_METADATA
from keypatch.formats.store.disk import open_file, read_metadata
from keypatch.formats.store.layout import shard_key
from keypatch.formats.store.recycled import Recycler
from keypatch.formats.store.shard import MISSING, index_size, parse_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

OPEN_SHARDS: Final = 64
"""Shards kept open at once by one reader, far below the usual limit of 1024 open files."""


RUN_BYTES: Final = 2**24
"""Encoded chunks that are read in one go: two of the largest, so that a thread's scratch memory stays small."""


class PatchArray(Protocol):
    """An (N, …) array of which one item at a time is read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, …)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native byte order."""
        ...

    def read(
        self, item: int, start: Sequence[int], stop: Sequence[int], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read the box ``start`` to ``stop`` of one item; the caller has checked that it lies inside.

        Args:
            item: Of the first axis.
            start: First index on each other axis.
            stop: Index behind the last.
            out: Array of that shape and the array's dtype to read into; a new one when left out.

        Raises:
            CorruptionError: If bytes are missing or fail their checksum.
        """
        ...


class _Scratch(threading.local):
    """What a thread reads chunks into, kept from one read to the next.

    Fresh memory of this size is handed out page by page, which costs as much as reading a chunk from the page cache.
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def take(self, n_bytes: int) -> NDArray[np.uint8]:
        if self._memory.nbytes < n_bytes:
            self._memory = np.empty(n_bytes, np.uint8)
        return self._memory[:n_bytes]


_encoded_memory = _Scratch()
_decoded_memory = _Scratch()


class _Shard:
    """One open shard file and its index; closes itself when the last reader lets go of it."""

    def __init__(self, path: Path, n_chunks: int, *, at_end: bool, checked: bool) -> None:
        try:
            self._descriptor = open_file(path)
        except FileNotFoundError as error:
            raise CorruptionError.at(
                path, expected="a shard", found="no such file", hint="run keypatch validate"
            ) from error
        except OSError as error:
            raise StoreError.at(path, expected="a readable shard", found=error.strerror or str(error)) from error
        self._lock = threading.Lock()
        self.path = path
        size = os.fstat(self._descriptor).st_size
        length = index_size(n_chunks, checked=checked)
        # No more than the file has, whatever metadata claim; what is too short is said to be.
        raw = self.pread(min(length, size), max(size - length, 0) if at_end else 0)
        self.index = parse_index(raw, n_chunks, size, str(path), checked=checked)

    def pread(self, length: int, offset: int) -> bytes:
        """Read without moving a shared position, so that threads and forked processes may share the file."""
        try:
            if hasattr(os, "pread"):
                return os.pread(self._descriptor, length, offset)
            with self._lock:
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                return os.read(self._descriptor, length)
        except OSError as error:
            raise StoreError.at(self.path, expected="a readable shard", found=error.strerror or str(error)) from error

    def read(self, length: int, offset: int) -> NDArray[np.uint8]:
        """The same into this thread's scratch memory: read-only, valid until the next read of the thread."""
        if not hasattr(os, "preadv"):
            return np.frombuffer(self.pread(length, offset), np.uint8)
        memory = _encoded_memory.take(length)
        try:
            n_read = os.preadv(self._descriptor, [memory.data], offset)
        except OSError as error:
            raise StoreError.at(self.path, expected="a readable shard", found=error.strerror or str(error)) from error
        found = memory[:n_read]
        found.flags.writeable = False
        return found

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class ShardedArray:
    """An array of one shard a unit, read straight from its files.

    Files are opened when first read and at most `OPEN_SHARDS` stay open. They are read by position only, so one
    instance serves threads and forked workers; pickled into a spawned worker it opens its own.

    Args:
        folder: Of the array, with its ``zarr.json``.

    Raises:
        StoreError: If the metadata is missing or is no Zarr v3 array.
        ValueError: If the array is sharded or encoded in a way that this reader does not know; use `ZarrArray` then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = str(folder / "c")
        metadata = read_array_metadata(folder)
        try:
            self._take(metadata)
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError.at(folder, expected="a Zarr v3 array", found=f"{error!r} in zarr.json") from error
        self._shards: OrderedDict[int, _Shard] = OrderedDict()
        self._memory = Recycler()

    def _take(self, metadata: dict[str, Any]) -> None:
        self._shape = _sizes(metadata["shape"])
        self._dtype: np.dtype[Any] = np.dtype(metadata["data_type"])
        sharding = _only_sharding(metadata)
        outer = _sizes(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        inner = _sizes(sharding["chunk_shape"])
        if outer[1:] != self._shape[1:] or inner[0] != 1 or len(inner) != len(self._shape):
            message = f"chunks of shape {outer} and {inner}"
            raise ValueError(message)
        if self._dtype.kind not in "iuf":
            message = f"dtype {self._dtype}"
            raise ValueError(message)
        self.patches_per_shard = outer[0]
        self.chunk_shape = inner[1:]
        self._cuts = tuple(-(-n // c) for n, c in zip(self._shape[1:], self.chunk_shape, strict=True))
        self._chunks_per_item = math.prod(self._cuts)
        self._codec = ChunkCodec(sharding["codecs"], self._dtype, self.chunk_shape)
        self._index_at_end = {"end": True, "start": False}[sharding.get("index_location", "end")]
        self._index_checked = _index_checked(sharding["index_codecs"])

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, …)."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native byte order."""
        return self._dtype

    @property
    def n_shards(self) -> int:
        """Shard files that a whole array has."""
        return -(-self._shape[0] // self.patches_per_shard)

    def shard_path(self, unit: int) -> Path:
        """File of one unit."""
        return self._folder / shard_key(unit, len(self._shape))

    def read(
        self, item: int, start: Sequence[int], stop: Sequence[int], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """See `PatchArray`. Only the chunks that the box touches are read and decoded."""
        shape = [b - a for a, b in zip(start, stop, strict=True)]
        box = self._memory.empty(shape, self._dtype) if out is None else out
        for chunk, encoded in self._encoded(item, start, stop):
            where = f"{self._place}: item {item}, chunk {chunk}"
            if box.shape == self.chunk_shape and self._chunks_per_item == 1:
                self._codec.decode(encoded, box, where)
                continue
            corner = [k * c for k, c in zip(chunk, self.chunk_shape, strict=True)]
            inside = tuple(
                slice(max(a - at, 0), min(b - at, c))
                for a, b, at, c in zip(start, stop, corner, self.chunk_shape, strict=True)
            )
            target = box[
                tuple(slice(at + s.start - a, at + s.stop - a) for s, at, a in zip(inside, corner, start, strict=True))
            ]
            if target.shape == self.chunk_shape and target.flags.c_contiguous:
                self._codec.decode(encoded, target, where)
            else:
                whole = _decoded_memory.take(self._codec.nbytes).view(self._dtype).reshape(self.chunk_shape)
                self._codec.decode(encoded, whole, where)
                target[...] = whole[inside]
        return box

    def encoded_sizes(self, unit: int) -> NDArray[np.uint64]:
        """Bytes of each present chunk of one unit, as it lies on disk, in the order of the index."""
        index = self._shard(unit).index
        sizes: NDArray[np.uint64] = index[index[:, 0] != MISSING, 1]
        return sizes

    def _encoded(
        self, item: int, start: Sequence[int], stop: Sequence[int]
    ) -> Iterator[tuple[tuple[int, ...], NDArray[np.uint8]]]:
        """The encoded chunks that a box touches; neighbours in the file are read together."""
        unit, row = divmod(item, self.patches_per_shard)
        shard = self._shard(unit)
        touched = [range(a // c, -(-b // c)) for a, b, c in zip(start, stop, self.chunk_shape, strict=True)]
        entries = []
        for chunk in itertools.product(*touched):
            entry = row * self._chunks_per_item + int(np.ravel_multi_index(chunk, self._cuts))
            offset, size = shard.index[entry].tolist()
            if offset == MISSING:
                raise CorruptionError.at(
                    shard.path,
                    expected=f"chunk {chunk} of item {item}",
                    found="none in the shard's index",
                    hint="keypatch writes every chunk: restore the file from a copy",
                )
            entries.append((offset, size, chunk))
        for run in _runs(sorted(entries)):
            first = run[0][0]
            together = shard.read(run[-1][0] + run[-1][1] - first, first)
            for offset, size, chunk in run:
                yield chunk, together[offset - first : offset - first + size]

    def _shard(self, unit: int) -> _Shard:
        shard = self._shards.get(unit)
        if shard is None:
            n_chunks = self.patches_per_shard * self._chunks_per_item
            shard = _Shard(self.shard_path(unit), n_chunks, at_end=self._index_at_end, checked=self._index_checked)
            self._shards[unit] = shard
            while len(self._shards) > OPEN_SHARDS:
                self._shards.popitem(last=False)
        return shard

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": OrderedDict(), "_memory": Recycler()}


def _runs(entries: list[tuple[int, int, tuple[int, ...]]]) -> Iterator[list[tuple[int, int, tuple[int, ...]]]]:
    """Cut (offset, size, chunk), sorted, into runs without gaps of at most `RUN_BYTES`, or of one chunk."""
    run = entries[:1]
    for entry in entries[1:]:
        last = run[-1]
        if entry[0] == last[0] + last[1] and entry[0] + entry[1] - run[0][0] <= RUN_BYTES:
            run.append(entry)
        else:
            yield run
            run = [entry]
    if run:
        yield run


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON file.

    Raises:
        OSError: If it cannot be read.
        StoreError: If it is no JSON.
    """
    try:
        return json.loads(read_metadata(path).decode())
    except RecursionError as error:
        raise StoreError.at(path, expected="JSON", found="lists or objects nested too deeply") from error
    except ValueError as error:
        raise StoreError.at(path, expected="JSON", found=f"text that is none ({error})") from error


def read_array_metadata(folder: Path) -> dict[str, Any]:
    """``zarr.json`` of an array.

    Raises:
        StoreError: If it is missing, is no JSON, or lacks what a Zarr v3 array has.
    """
    path = folder / ROOT_METADATA
    try:
        metadata = read_json(path)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError.at(path, expected="the metadata of an array", found=error.strerror or str(error)) from error
    needed = ("shape", "data_type", "chunk_grid", "codecs")
    if not isinstance(metadata, dict) or any(key not in metadata for key in needed):
        raise StoreError.at(path, expected=f"a Zarr v3 array with {', '.join(needed)}", found="JSON without them")
    return metadata


def _sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(n) is int and 0 < n < 2**63 for n in value):
        message = f"{value!r} in place of sizes from 1 to 2^63"
        raise TypeError(message)
    return tuple(value)


def _only_sharding(metadata: dict[str, Any]) -> dict[str, Any]:
    codecs = metadata["codecs"]
    encoding = metadata.get("chunk_key_encoding", {})
    separator = encoding.get("configuration", {}).get("separator", "/")
    if (
        len(codecs) != 1
        or codecs[0].get("name") != "sharding_indexed"
        or encoding.get("name") != "default"
        or separator != "/"
    ):
        message = "not an array of shards in c/…/ files"
        raise ValueError(message)
    configuration: dict[str, Any] = codecs[0]["configuration"]
    return configuration


def _index_checked(codecs: list[dict[str, Any]]) -> bool:
    names = [codec.get("name") for codec in codecs]
    known = names in (["bytes"], ["bytes", "crc32c"])
    if not known or codecs[0].get("configuration", {}).get("endian", "little") != "little":
        message = f"index codecs {names}"
        raise ValueError(message)
    return len(names) == 2
