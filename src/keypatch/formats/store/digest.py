"""The digests of a store: one for every shard, one for all else, one for the whole.

- ``integrity/*_sha256`` holds the sha256 of every shard file.
- ``digests.files`` holds the sha256 of every other file but the root's ``zarr.json``.
- ``digests.metadata`` is the sha256 of these as a list with one line a file, ``<sha256>  <path>``, sorted by path: what
  ``sha256sum`` prints for them.
- ``digests.store`` is the sha256 of the metadata digest and the canonical JSON of the root's own attributes (without
  ``digests``). Since the list covers ``integrity/``, it stands for every byte of the store.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from keypatch.formats.store.disk import open_file
from keypatch.formats.store.schema import ATTRIBUTE, GAUSSIAN, IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ROOT_METADATA = "zarr.json"
SHARD_PREFIXES = (f"{IMAGE}/c/", f"{GAUSSIAN}/c/")
_BLOCK = 2**20


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: one text for one value.

    Raises:
        ValueError: If the value holds NaN or infinity, which JSON cannot.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def file_sha256(path: Path) -> bytes:
    """sha256 of a file, 32 bytes; memory stays at one block.

    Raises:
        OSError: If it cannot be read, or is no file.
    """
    digest = hashlib.sha256()
    with os.fdopen(open_file(path), "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()


def metadata_files(folder: Path) -> Iterator[str]:
    """Paths below ``folder``, with slashes, of every file that the metadata digest covers, sorted."""
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        if name != ROOT_METADATA and not name.startswith(SHARD_PREFIXES):
            yield name


def file_digests(folder: Path) -> dict[str, str]:
    """``digests.files`` of the store at ``folder``: path to sha256, as hexadecimal, sorted by path."""
    return {name: file_sha256(folder / name).hex() for name in metadata_files(folder)}


def metadata_digest(files: Mapping[str, str]) -> str:
    """``digests.metadata``, from ``digests.files``."""
    return hashlib.sha256("".join(f"{files[name]}  {name}\n" for name in sorted(files)).encode()).hexdigest()


def root_text(attributes: Mapping[str, Any]) -> bytes:
    """The root's ``zarr.json``, byte for byte, for the attribute that it holds."""
    return json_bytes({"zarr_format": 3, "node_type": "group", "attributes": {ATTRIBUTE: attributes}})


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """How JSON is written in a store: one-space indents, letters as they are, a line feed at the end of each line.

    Raises:
        ValueError: If the value holds NaN or infinity, which JSON cannot.
    """
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def store_digest(metadata: str, attributes: Mapping[str, Any]) -> str:
    """``digests.store``, from the metadata digest and the root's own attributes."""
    own = {key: value for key, value in attributes.items() if key != "digests"}
    return hashlib.sha256(f"{metadata}\n{canonical_json(own)}\n".encode()).hexdigest()
