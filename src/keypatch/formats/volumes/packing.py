"""Files that lie inside gzip or bzip2."""

from __future__ import annotations

import bz2
import gzip
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

_MAGIC: dict[bytes, Literal["gzip", "bzip2"]] = {b"\x1f\x8b": "gzip", b"BZh": "bzip2"}


def packing(head: bytes) -> Literal["gzip", "bzip2"] | None:
    """What a file that begins with ``head`` is compressed with."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed where it is compressed, from its content and not from its name.

    Raises:
        OSError: If it cannot be read. Reading damaged data raises EOFError, OSError or zlib.error.
    """
    with path.open("rb") as file:
        found = packing(file.read(3))
    if found == "gzip":
        return cast("BinaryIO", gzip.open(path, "rb"))
    return cast("BinaryIO", bz2.open(path, "rb")) if found == "bzip2" else path.open("rb")
