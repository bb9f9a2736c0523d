"""XML of an annotation file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keypatch.errors import FormatError, ReadError
from keypatch.formats import safe_xml
from keypatch.formats.annotations.source import read_text

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree import ElementTree

MOST_BYTES: Final = 1 << 28
"""Of a file; the tree of a file takes some twenty times its size. A whole brain's million cells take 1e8."""


def parse_xml(path: Path) -> ElementTree.Element:
    """Parse a UTF-8 XML file; see `keypatch.formats.safe_xml.parse_xml`.

    Raises:
        ReadError: If there is no file, or it cannot be read.
        FormatError: If it is no UTF-8 text, no well-formed XML, larger than `MOST_BYTES`, or has a document type
            declaration.
    """
    _refuse_large(path)
    return safe_xml.parse_xml(path, read_text(path))


def _refuse_large(path: Path) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise ReadError.at(path, expected="an annotation file", found="nothing there") from None
    except OSError as error:
        raise ReadError.at(path, expected="a readable file", found=error.strerror or str(error)) from None
    if size > MOST_BYTES:
        raise FormatError.at(path, expected=f"XML of at most {MOST_BYTES >> 20} MiB", found=f"{size >> 20} MiB")
