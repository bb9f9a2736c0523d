"""The ``zarr.json`` of every array and group, held against the schema. Nothing in them is trusted before."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch.errors import StoreError
from keypatch.formats.store.arrays import read_array_metadata
from keypatch.formats.store.codecs import ChunkCodec
from keypatch.formats.store.digest import ROOT_METADATA
from keypatch.formats.store.disk import read_metadata
from keypatch.formats.store.schema import GAUSSIAN, GROUPS, IMAGE, TABLE_ROWS_PER_CHUNK, Table, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from keypatch.audit.findings import Findings
    from keypatch.audit.tree import Tree

_INTEGERS: Final = tuple(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64))
IMAGE_DTYPES: Final = (*_INTEGERS, "float16", "float32", "float64")
GAUSSIAN_DTYPES: Final = ("float32", "float16")
CHUNK_LIMIT: Final = 2**31 - 1
"""Bytes of a decoded chunk: the most that blosc and numcodecs' zstd take, so no writer can have made a larger one."""

_COMPRESSIONS: Final[tuple[list[str], ...]] = ([], ["zstd"], ["blosc"], ["gzip"])


@dataclass(frozen=True)
class TableSpec:
    """A table whose metadata is in order.

    Attributes:
        table: Of the schema.
        n_rows: Rows.
        chunk_rows: Rows of a chunk.
        codec: Of its chunks.
    """

    table: Table
    n_rows: int
    chunk_rows: int
    codec: ChunkCodec

    @property
    def n_chunks(self) -> int:
        """Chunk files."""
        return -(-self.n_rows // self.chunk_rows)

    def chunk_name(self, k: int) -> str:
        """Path of a chunk's file below the store."""
        return f"{self.table.path}/c/{k}" + ("/0" if self.table.columns else "")


@dataclass(frozen=True)
class ShardedSpec:
    """`image` or `gaussian`, its metadata in order.

    Attributes:
        name: Of the array.
        n_patches: N.
        item_shape: Of one patch.
        dtype: Native byte order.
        patches_per_shard: P.
        chunk_shape: Of an inner chunk; divides ``item_shape``.
        chain: Of the inner chunks, as declared.
    """

    name: str
    n_patches: int
    item_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    patches_per_shard: int
    chunk_shape: tuple[int, ...]
    chain: tuple[Mapping[str, Any], ...]

    @property
    def n_shards(self) -> int:
        """Shard files, one a unit."""
        return -(-self.n_patches // self.patches_per_shard)

    @property
    def chunks_per_patch(self) -> int:
        """Inner chunks of one patch."""
        return math.prod(n // c for n, c in zip(self.item_shape, self.chunk_shape, strict=True))

    def unit_patches(self, unit: int) -> range:
        """Patches of one unit."""
        first = unit * self.patches_per_shard
        return range(first, min(first + self.patches_per_shard, self.n_patches))

    def codec(self) -> ChunkCodec:
        """A codec of the inner chunks."""
        return ChunkCodec([dict(step) for step in self.chain], self.dtype, self.chunk_shape)


def dig(value: object, *keys: str | int) -> Any:  # noqa: ANN401 - any JSON value
    """The value at a path of keys, None where any of them is not there."""
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int):
            value = value[key] if key < len(value) else None
        else:
            return None
    return value


def integers(value: object) -> tuple[int, ...] | None:
    """A JSON list of integers >= 0 as a tuple; None for anything else."""
    if not isinstance(value, list) or not all(type(n) is int and n >= 0 for n in value):
        return None
    return tuple(value)


def check_groups(folder: Path, tree: Tree, findings: Findings) -> None:
    """Check the ``zarr.json`` of the root and of every group."""
    for group in ("", *GROUPS):
        name = f"{group}/{ROOT_METADATA}".lstrip("/")
        metadata = read_json(folder, tree, name, findings)
        if metadata is None:
            continue
        kind = (dig(metadata, "zarr_format"), dig(metadata, "node_type"))
        if kind != (3, "group"):
            findings.add("KP102", name, expected="a group of Zarr 3", found=f"zarr_format {kind[0]!r}, {kind[1]!r}")
        elif not isinstance(metadata.get("attributes", {}), dict):
            findings.add(
                "KP102", name, expected="attributes that are an object", found=repr(metadata["attributes"])[:80]
            )


def read_json(folder: Path, tree: Tree, name: str, findings: Findings) -> Any | None:  # noqa: ANN401
    """A JSON file of the store; None and a finding where there is none."""
    if name not in tree.files:
        findings.add("KP101", name, expected="a file", found="none")
        return None
    try:
        return json.loads(read_metadata(folder / name).decode())
    except OSError as error:
        findings.add("KP117", name, expected="a readable file", found=error.strerror or error)
    except (ValueError, RecursionError) as error:
        findings.add("KP102", name, expected="JSON", found=f"text that is none ({error})")
    return None


_ARRAY_KEYS: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "zarr_format": ("3", lambda value: value == 3),
    "node_type": ("array", lambda value: value == "array"),
    "fill_value": ("0", lambda value: type(value) in (int, float) and value == 0),
    "attributes": ("an object", lambda value: value is None or isinstance(value, dict)),
    "storage_transformers": ("none", lambda value: value in (None, [])),
    "dimension_names": (
        "names",
        lambda value: value is None or (isinstance(value, list) and all(isinstance(n, str | None) for n in value)),
    ),
}
"""What every Zarr library must find in an array's metadata to open it, beside what the schema settles."""


def array_json(folder: Path, tree: Tree, array: str, findings: Findings) -> dict[str, Any] | None:
    """The metadata of an array; None and a finding where there is none."""
    name = f"{array}/{ROOT_METADATA}"
    if name not in tree.files:
        findings.add("KP101", name, expected="the metadata of an array", found="no such file")
        return None
    try:
        metadata = read_array_metadata(folder / array)
    except (StoreError, RecursionError) as error:
        findings.add("KP102", name, expected="the metadata of a Zarr 3 array", found=error.__cause__ or error)
        return None
    for key, (expected, check) in _ARRAY_KEYS.items():
        if not check(metadata.get(key)):
            findings.add("KP102", name, expected=f"{key} {expected}", found=repr(metadata.get(key))[:80])
            return None
    return metadata


def check_sharded(
    name: str, metadata: Mapping[str, Any], item_shape: tuple[int, ...], findings: Findings
) -> ShardedSpec | None:
    """Hold the metadata of `image` or `gaussian` against the schema; None where its patches cannot be read by it."""
    where = f"{name}/{ROOT_METADATA}"
    sound = True

    def demand(code: str, met: bool, expected: object, found: object) -> None:
        nonlocal sound
        if not met:
            sound = False
            findings.add(code, where, expected=expected, found=found)

    dtypes = IMAGE_DTYPES if name == IMAGE else GAUSSIAN_DTYPES
    demand("KP103", metadata["data_type"] in dtypes, f"one of {', '.join(dtypes)}", repr(metadata["data_type"]))
    shape = integers(metadata["shape"]) or ()
    demand("KP104", shape[1:] == item_shape and shape[0] > 0, f"[N, {_listed(item_shape)}]", metadata["shape"])
    outer = integers(dig(metadata, "chunk_grid", "configuration", "chunk_shape")) or ()
    demand("KP105", outer[1:] == item_shape and outer[0] > 0, f"shards [P, {_listed(item_shape)}]", f"shards {outer}")
    sharding = _sharding(metadata)
    demand("KP105", sharding is not None, "the one codec sharding_indexed, its index at the end, crc32c", "another")
    inner = integers(dig(sharding, "chunk_shape")) or ()
    demand("KP105", _is_inner(inner, item_shape, whole=name == GAUSSIAN), "equal parts of one patch", f"chunks {inner}")
    if not sound:
        return None
    dtype, chain = np.dtype(metadata["data_type"]), dig(sharding, "codecs")
    if not _check_chain(where, chain, dtype, inner[1:], findings):
        return None
    return ShardedSpec(name, shape[0], item_shape, dtype, outer[0], inner[1:], tuple(chain))


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _sharding(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration of the only codec, where shards and their index are as the schema says."""
    codecs = metadata["codecs"]
    configuration = dig(codecs, 0, "configuration")
    index_codecs = dig(configuration, "index_codecs")
    index_names = [dig(codec, "name") for codec in index_codecs] if isinstance(index_codecs, list) else []
    sound = (
        isinstance(codecs, list)
        and len(codecs) == 1
        and dig(codecs, 0, "name") == "sharding_indexed"
        and index_names == ["bytes", "crc32c"]
        and dig(configuration, "index_codecs", 0, "configuration", "endian") == "little"
        and dig(configuration, "index_location") in (None, "end")
        and _has_default_keys(metadata)
    )
    return configuration if sound and isinstance(configuration, dict) else None


def _has_default_keys(metadata: Mapping[str, Any]) -> bool:
    encoding = metadata.get("chunk_key_encoding")
    separated = dig(encoding, "configuration") in (None, {}, {"separator": "/"})
    return dig(encoding, "name") == "default" and separated and dig(metadata.get("chunk_grid"), "name") == "regular"


def _is_inner(inner: tuple[int, ...], item_shape: tuple[int, ...], *, whole: bool) -> bool:
    if len(inner) != len(item_shape) + 1 or inner[0] != 1:
        return False
    if whole:
        return inner[1:] == item_shape
    return all(c and n % c == 0 for n, c in zip(item_shape, inner[1:], strict=True))


def _check_chain(
    where: str, chain: object, dtype: np.dtype[Any], chunk_shape: tuple[int, ...], findings: Findings
) -> bool:
    steps = chain if isinstance(chain, list) else []
    names = [dig(step, "name") for step in steps]
    if names[:1] != ["bytes"] or names[-1:] != ["crc32c"] or names[1:-1] not in _COMPRESSIONS:
        findings.add("KP105", where, expected="bytes, one of zstd, blosc, gzip or none, crc32c", found=names)
        return False
    if dtype.itemsize > 1 and dig(steps, 0, "configuration", "endian") != "little":
        findings.add("KP105", where, expected="little-endian bytes", found=steps[0])
        return False
    if math.prod(chunk_shape) * dtype.itemsize > CHUNK_LIMIT:
        findings.add("KP105", where, expected=f"chunks of at most {CHUNK_LIMIT} bytes", found=f"{chunk_shape} {dtype}")
        return False
    if not all(_is_configured(step, dtype) for step in steps[1:-1]):
        findings.add("KP105", where, expected="a compressor with its settings", found=steps[1:-1])
        return False
    try:
        ChunkCodec(steps, dtype, chunk_shape)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        findings.add("KP105", where, expected="codecs with a valid configuration", found=error)
        return False
    return True


def _is_configured(step: Mapping[str, Any], dtype: np.dtype[Any]) -> bool:
    """Whether a compressor has the settings that every Zarr library asks for."""
    configuration = step.get("configuration")
    if not isinstance(configuration, dict):
        return False
    if step["name"] != "blosc":
        return type(configuration.get("level")) is int and type(configuration.get("checksum", False)) is bool
    return (
        configuration.get("typesize", dtype.itemsize) == dtype.itemsize
        and configuration.get("shuffle") in ("noshuffle", "shuffle", "bitshuffle")
        and type(configuration.get("clevel")) is int
        and type(configuration.get("blocksize")) is int
        and isinstance(configuration.get("cname"), str)
    )


def check_tables(
    folder: Path, tree: Tree, n_patches: int | None, findings: Findings, *, gaussian: bool
) -> dict[str, TableSpec]:
    """Hold the metadata of every table against the schema.

    How many rows a table should have is settled by the majority of those that count the same thing, so that one table
    of a wrong length is named, and not all the others.

    Args:
        folder: Of the store.
        tree: Its files.
        n_patches: N as `image` has it, with two votes; None where that could not be read.
        findings: Added to.
        gaussian: Whether Gaussians are stored.

    Returns:
        The tables that can be read, by path.
    """
    found = {table: array_json(folder, tree, table.path, findings) for table in tables(gaussian=gaussian)}
    shapes = {table: integers(metadata["shape"]) for table, metadata in found.items() if metadata is not None}
    expected = _row_counts(shapes, n_patches)
    specs = {}
    for table, metadata in found.items():
        if metadata is None:
            continue
        spec = _check_table(table, metadata, expected[_counted(table)] + _is_offsets(table), findings)
        if spec is not None:
            specs[table.path] = spec
    return specs


def _counted(table: Table) -> str:
    return table.rows.removesuffix("+1")


def _is_offsets(table: Table) -> int:
    return int(table.rows == "patches+1")


def _row_counts(shapes: Mapping[Table, tuple[int, ...] | None], n_patches: int | None) -> dict[str, int]:
    votes: dict[str, Counter[int]] = {}
    for table, shape in shapes.items():
        if shape:
            votes.setdefault(_counted(table), Counter())[shape[0] - _is_offsets(table)] += 1
    if n_patches is not None:
        votes.setdefault("patches", Counter())[n_patches] += 2
    counted = {name: counter.most_common(1)[0][0] for name, counter in votes.items()}
    return {"patches": 0, "keypoints": 0, "annotations": 0, "units": 0} | counted


def _check_table(table: Table, metadata: Mapping[str, Any], n_rows: int, findings: Findings) -> TableSpec | None:
    where = f"{table.path}/{ROOT_METADATA}"
    if metadata["data_type"] != table.dtype:
        findings.add("KP103", where, expected=table.dtype, found=repr(metadata["data_type"]))
        return None
    if integers(metadata["shape"]) != table.shape(n_rows):
        findings.add("KP104", where, expected=list(table.shape(n_rows)), found=metadata["shape"])
        return None
    chunk = table.shape(min(max(n_rows, 1), TABLE_ROWS_PER_CHUNK))
    if integers(dig(metadata, "chunk_grid", "configuration", "chunk_shape")) != chunk or not _has_default_keys(
        metadata
    ):
        findings.add("KP105", where, expected=f"chunks of {list(chunk)} under c/", found=metadata["chunk_grid"])
        return None
    dtype = np.dtype(table.dtype)
    if not _check_chain(where, metadata["codecs"], dtype, chunk, findings):
        return None
    return TableSpec(table, n_rows, chunk[0], ChunkCodec(metadata["codecs"], dtype, chunk))
