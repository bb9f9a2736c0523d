"""The codec chains of chunks: array → bytes → compressed → crc32c, and back.

A chain is declared as Zarr v3 JSON and run by numcodecs and google-crc32c. Reading understands every chain that is
`bytes`, then at most one of zstd, blosc or gzip, then at most one crc32c: more than we write, so that a store
rewritten by another Zarr library stays on the fast path.
"""

from __future__ import annotations

import sys
import threading
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import google_crc32c
import numpy as np

from keypatch.errors import CorruptionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CHECKSUM_BYTES: Final = 4

_UNDECLARED: Final = -2
"""Decoded size of a zstd frame that does not declare it, as streaming encoders write them."""

CODECS: Final = ("auto", "none", "zstd", "lz4", "blosc")
"""What ``--codec`` takes, each with an optional level behind a colon (``zstd:5``)."""

# Levels measured on noisy tomograms: higher ones gain under 1 % and cost several times the time.
_DEFAULT_LEVEL: Final = {"zstd": 1, "lz4": 7, "blosc": 3}

_MAX_LEVEL: Final = {"zstd": 22, "lz4": 9, "blosc": 9}


@dataclass(frozen=True)
class Codec:
    """A compressor by name and level, as chosen for one dtype.

    Attributes:
        name: "none", "zstd", "lz4" (inside blosc, bits shuffled) or "blosc" (zstd inside blosc, bytes shuffled).
        level: Of zstd; 0 for "none".
    """

    name: str
    level: int = 0

    def __str__(self) -> str:
        return self.name if self.name == "none" else f"{self.name}:{self.level}"


def choose_codec(text: str, dtype: np.dtype[Any]) -> Codec:
    """Resolve ``--codec`` for a dtype.

    "auto" is zstd for 8-bit data, which nothing else makes smaller, and lz4 for wider data. Of noisy float32 and int16
    tomograms lz4 on shuffled bits leaves as much as zstd on shuffled bytes does, within 3 % either way, is written 4 to
    8 times as fast and read 1.3 to 4 times as fast.

    Raises:
        UsageError: If the text names no codec.
    """
    name, _, level = text.partition(":")
    known_level = level.isascii() and level.isdigit() and 1 <= int(level) <= _MAX_LEVEL.get(name, 0)
    if name not in CODECS or (level and not known_level):
        raise UsageError.at(
            "--codec",
            expected="auto, none, zstd[:1-22], lz4[:1-9] or blosc[:1-9]",
            found=repr(text),
            hint="see keypatch convert --help",
        )
    if name == "none":
        return Codec("none")
    if name == "auto":
        name = "zstd" if dtype.itemsize == 1 else "lz4"
    return Codec(name, int(level) if level else _DEFAULT_LEVEL[name])


def chain_metadata(codec: Codec, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    """The chain that we write, as Zarr v3 JSON: bytes, compressor, crc32c."""
    serializer: dict[str, Any] = {"name": "bytes"}
    if dtype.itemsize > 1:
        serializer["configuration"] = {"endian": "little"}
    chain = [serializer]
    if codec.name == "zstd":
        chain.append({"name": "zstd", "configuration": {"level": codec.level, "checksum": False}})
    elif codec.name != "none":
        cname = "lz4" if codec.name == "lz4" else "zstd"
        configuration = {
            "typesize": dtype.itemsize,
            "cname": cname,
            "clevel": codec.level,
            "shuffle": blosc_shuffle(cname, dtype.itemsize),
            "blocksize": 0,
        }
        chain.append({"name": "blosc", "configuration": configuration})
    chain.append({"name": "crc32c"})
    return chain


def blosc_shuffle(cname: str, itemsize: int) -> str:
    """What makes noisy voxels smallest: lz4 finds nothing but in shuffled bits, which cost zstd all of its gain."""
    if cname == "lz4":
        return "bitshuffle"
    return "shuffle" if itemsize > 1 else "noshuffle"


class ChunkCodec:
    """Encodes and decodes the chunks of one array by its declared chain.

    Args:
        chain: Zarr v3 ``codecs`` of the inner chunks.
        dtype: Of the decoded array, native byte order.
        chunk_shape: Of the decoded array.

    Raises:
        ValueError: If the chain is one that this reader does not run; the caller falls back to zarr-python.
    """

    def __init__(self, chain: Sequence[dict[str, Any]], dtype: np.dtype[Any], chunk_shape: Sequence[int]) -> None:
        rest = list(chain)
        self.chunk_shape = tuple(chunk_shape)
        self.dtype = dtype
        self.nbytes = int(np.prod(self.chunk_shape, dtype=np.int64)) * dtype.itemsize
        self._wire_dtype = dtype.newbyteorder(_byte_order(rest.pop(0) if rest else {}, dtype))
        self._checked = bool(rest) and rest[-1].get("name") == "crc32c"
        if self._checked:
            rest.pop()
        if len(rest) > 1:
            message = f"unknown codec chain {[codec.get('name') for codec in chain]}"
            raise ValueError(message)
        self._compressor: Any = _compressor(rest[0], dtype) if rest else None

    def encode(self, chunk: NDArray[Any]) -> bytes:
        """Encode one chunk of ``chunk_shape`` and ``dtype``, checksum included."""
        return b"".join(self.encode_parts(chunk))

    def encode_parts(self, chunk: NDArray[Any]) -> tuple[bytes | memoryview, ...]:
        """The same in parts to be written one after the other.

        Without a compressor the first part is the chunk's own memory: a copy of it would cost as much as writing it
        does, since a system hands out large fresh buffers page by page.
        """
        array = np.ascontiguousarray(chunk, self._wire_dtype).reshape(-1)
        if self._compressor is None:
            body = array.view(np.uint8)
            body.flags.writeable = False  # what google-crc32c asks of a buffer
        else:
            with one_blosc_thread:
                body = np.frombuffer(self._compressor.encode(array), np.uint8)
        if not self._checked:
            return (body.data,)
        return body.data, int(google_crc32c.value(body)).to_bytes(CHECKSUM_BYTES, "little")

    def decode(self, encoded: bytes | NDArray[np.uint8], out: NDArray[Any], where: str) -> None:
        """Decode one chunk into ``out``.

        Args:
            encoded: As it lies in the shard; an array must be read-only.
            out: Array of ``chunk_shape`` and ``dtype``; decoded in place where it is contiguous.
            where: The chunk's place, for the message.

        Raises:
            CorruptionError: If the checksum does not match or the bytes do not decode to one chunk.
        """
        body = self._checked_body(encoded, where) if self._checked else np.frombuffer(encoded, np.uint8)
        compressed = self._compressor is not None
        size = _DECODED_SIZE[self._compressor.codec_id](body) if compressed else body.nbytes
        if size == _UNDECLARED:
            body, compressed = np.frombuffer(self._decompress(body, None, where), np.uint8), False
            size = body.nbytes
        if size != self.nbytes:  # checked here, since numcodecs leaves the rest of a larger target as it was
            raise CorruptionError.at(where, expected=f"a chunk of {self.nbytes} bytes", found=f"{size}")
        if not compressed:
            out[...] = body.view(self._wire_dtype).reshape(self.chunk_shape)
            return
        in_place = out.flags.c_contiguous and self._wire_dtype == out.dtype
        target = out.reshape(-1).view(np.uint8) if in_place else np.empty(self.nbytes, np.uint8)
        self._decompress(body, target, where)
        if not in_place:
            out[...] = target.view(self._wire_dtype).reshape(self.chunk_shape)

    def _decompress(self, body: NDArray[np.uint8], target: NDArray[np.uint8] | None, where: str) -> Any:  # noqa: ANN401
        try:
            return self._compressor.decode(body, target)
        except (RuntimeError, ValueError, OSError, EOFError, zlib.error) as error:  # the last three are gzip's
            raise CorruptionError.at(
                where, expected="a compressed chunk", found=f"bytes that do not decode ({error})"
            ) from error

    def _checked_body(self, encoded: bytes | NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
        if len(encoded) < CHECKSUM_BYTES:
            raise CorruptionError.at(where, expected="a chunk with its crc32c", found=f"{len(encoded)} bytes")
        body = np.frombuffer(encoded, np.uint8, len(encoded) - CHECKSUM_BYTES)
        stored, found = int.from_bytes(bytes(encoded[-CHECKSUM_BYTES:]), "little"), int(google_crc32c.value(body))
        if found != stored:
            raise CorruptionError.at(
                where,
                expected=f"crc32c {stored:08x}",
                found=f"{found:08x}",
                hint="the chunk is damaged: run keypatch validate",
            )
        return body


def _blosc_size(body: NDArray[np.uint8]) -> int:
    """The header's nbytes; -1 where its cbytes is not what is there, since blosc would read past the end."""
    if len(body) < 16 or int.from_bytes(body[12:16].tobytes(), "little") != len(body):
        return -1
    return int.from_bytes(body[4:8].tobytes(), "little")


def _gzip_size(body: NDArray[np.uint8]) -> int:
    return int.from_bytes(body[-4:].tobytes(), "little") if len(body) >= 18 else -1


def _zstd_size(body: NDArray[np.uint8]) -> int:
    """Frame_Content_Size of a zstd frame (RFC 8878, 3.1.1.1); -1 where the bytes are no frame."""
    head = body[:18].tobytes()
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return -1
    descriptor = head[4]
    single_segment, size_flag = descriptor >> 5 & 1, descriptor >> 6
    width = (single_segment, 2, 4, 8)[size_flag]
    at = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    if not width:
        return _UNDECLARED
    return int.from_bytes(head[at : at + width], "little") + (256 if width == 2 else 0)


_DECODED_SIZE: Final = {"blosc": _blosc_size, "gzip": _gzip_size, "zstd": _zstd_size}


def _byte_order(serializer: dict[str, Any], dtype: np.dtype[Any]) -> Literal["<", ">"]:
    if serializer.get("name") != "bytes":
        message = f"unknown serializer {serializer.get('name')!r}"
        raise ValueError(message)
    endian = serializer.get("configuration", {}).get("endian", sys.byteorder if dtype.itemsize == 1 else "")
    if endian not in ("little", "big"):
        message = f"no byte order in {serializer!r}"
        raise ValueError(message)
    return "<" if endian == "little" else ">"


def _compressor(declared: dict[str, Any], dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - numcodecs is untyped
    from numcodecs import Blosc, GZip, Zstd  # noqa: PLC0415 - 120 ms that the command line's help need not wait for

    name, configuration = declared.get("name"), declared.get("configuration", {})
    if name == "zstd":
        return Zstd(level=configuration.get("level", 0), checksum=configuration.get("checksum", False))
    if name == "gzip":
        return GZip(level=configuration.get("level", 5))
    if name == "blosc" and configuration.get("typesize", dtype.itemsize) == dtype.itemsize:
        shuffle = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}[configuration.get("shuffle", "noshuffle")]
        return Blosc(configuration["cname"], configuration["clevel"], shuffle, configuration.get("blocksize", 0))
    message = f"unknown compressor {name!r}"
    raise ValueError(message)


class _OneBloscThread:
    """Keeps blosc on one thread while any chunk is encoded, or where processes share out the cores.

    blosc's own threads, which numcodecs turns on in the main thread of a program, lay a chunk's blocks down in the
    order in which they finish: other bytes every time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: bool | None = None

    def __enter__(self) -> None:
        from numcodecs import blosc  # noqa: PLC0415

        with self._lock:
            if self._users == 0:
                self._before, blosc.use_threads = blosc.use_threads, False
            self._users += 1

    def __exit__(self, *exc: object) -> None:
        from numcodecs import blosc  # noqa: PLC0415

        with self._lock:
            self._users -= 1
            if self._users == 0:
                blosc.use_threads = self._before


one_blosc_thread = _OneBloscThread()
