"""Reading the tables of a store: chunk by chunk, each one checked, and nothing allocated that no file stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch.audit.tree import first_missing, numbered
from keypatch.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.audit.findings import Findings
    from keypatch.audit.metadata import TableSpec
    from keypatch.audit.tree import Tree
    from keypatch.formats.store.codecs import ChunkCodec

_SLACK: Final = 4096
"""Bytes by which a chunk that does not compress may be larger than its values: frame headers and the checksum."""


def largest_encoded(codec: ChunkCodec) -> int:
    """More bytes than any compressor makes of one chunk; a chunk that claims more is not read."""
    return 2 * codec.nbytes + _SLACK


def read_tables(
    folder: Path, tree: Tree, specs: Mapping[str, TableSpec], findings: Findings
) -> dict[str, NDArray[Any]]:
    """Read every table of which all chunks are there and decode.

    Args:
        folder: Of the store.
        tree: Its files.
        specs: Of the tables whose metadata is in order.
        findings: Added to.

    Returns:
        Read-only arrays by path, shape and dtype as the schema has them.
    """
    read = {}
    for path, spec in specs.items():
        values = _read_table(folder, tree, spec, findings)
        if values is not None:
            values.flags.writeable = False
            read[path] = values
    return read


def _read_table(folder: Path, tree: Tree, spec: TableSpec, findings: Findings) -> NDArray[Any] | None:
    n_chunks = spec.n_chunks
    there = numbered(tree, spec.table.path, 1 if spec.table.columns else 0, n_chunks)
    if len(there) < n_chunks:
        _report_missing(there, spec, findings)
        return None
    values = np.empty(spec.table.shape(spec.n_rows), spec.table.dtype)
    chunk = np.empty(spec.codec.chunk_shape, spec.table.dtype)
    sound = True
    for k in range(n_chunks):
        rows = values[k * spec.chunk_rows : (k + 1) * spec.chunk_rows]
        if _read_chunk(folder, tree, spec, k, chunk, findings):
            rows[...] = chunk[: len(rows)]
        else:
            sound = False
    return values if sound else None


def _report_missing(there: Mapping[int, int], spec: TableSpec, findings: Findings) -> None:
    path = spec.table.path
    missing = first_missing(there, spec.n_chunks, findings.cap)
    for k in missing:
        findings.add("KP208", spec.chunk_name(k), expected="a chunk", found="no such file", within=path)
    findings.add_uncounted("KP208", path, spec.n_chunks - len(there) - len(missing))


def _read_chunk(folder: Path, tree: Tree, spec: TableSpec, k: int, out: NDArray[Any], findings: Findings) -> bool:
    name, path = spec.chunk_name(k), spec.table.path
    limit = largest_encoded(spec.codec)
    if tree.files[name] > limit:
        findings.add("KP209", name, expected=f"at most {limit} bytes", found=tree.files[name], within=path)
        return False
    try:
        spec.codec.decode((folder / name).read_bytes(), out, name)
    except CorruptionError as error:
        expected, found = expected_and_found(error, "a chunk that decodes")
        findings.add("KP209", name, expected=expected, found=found, within=path)
    except OSError as error:
        findings.add("KP117", name, expected="a readable file", found=error.strerror or error, within=path)
    else:
        return True
    return False


def expected_and_found(error: Exception, expected: str) -> tuple[str, str]:
    """What an error of ours expected and found, without its place and its hint: a finding has its own.

    Args:
        error: Any; of one that is not ours the whole text is what was found.
        expected: What should have been there, where the error does not say.
    """
    ours, sign, found = str(error).rpartition(": expected ")[2].partition(", found ")
    return (ours, found.split("; ")[0]) if sign else (expected, str(error))
