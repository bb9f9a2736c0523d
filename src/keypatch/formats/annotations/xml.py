"""XML of an annotation file, without anything that could grow or reach outside of it.

The standard library's parser expands entities, among them nested ones that make gigabytes of a few lines. No format
that is read here has a document type declaration, which is the only place where XML defines entities: a file with one
is refused, and so none can be expanded or loaded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from keypatch.errors import FormatError, ReadError
from keypatch.formats.annotations.source import read_text

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES: Final = 1 << 28
"""Of a file; the tree of a file takes some twenty times its size. A whole brain's million cells take 1e8."""

_DECLARATION = re.compile(r"<!(DOCTYPE|ENTITY)")


def parse_xml(path: Path) -> ET.Element:
    """Parse a UTF-8 XML file.

    Returns:
        The root. Comments and processing instructions are gone; names of a namespace read ``{namespace}name``.

    Raises:
        ReadError: If there is no file, or it cannot be read.
        FormatError: If it is no UTF-8 text, no well-formed XML, larger than `MOST_BYTES`, or has a document type
            declaration.
    """
    _refuse_large(path)
    text = read_text(path)
    if match := _DECLARATION.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise FormatError.at(
            path,
            expected="XML without a document type or entities of its own",
            found=f"{match.group()} in line {line}",
            hint="take the declaration out",
        )
    try:
        # A text, unlike bytes, is parsed as what was searched above, whatever encoding its first line states.
        return ET.fromstring(text)  # noqa: S314 - nothing can be expanded, see above
    except ET.ParseError as error:
        line, column = error.position
        reason = str(error).partition(":")[0]
        found = f"{reason} in line {line}, column {column + 1}"
    raise FormatError.at(path, expected="XML", found=found, hint="is the file cut short?")


def _refuse_large(path: Path) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise ReadError.at(path, expected="an annotation file", found="nothing there") from None
    except OSError as error:
        raise ReadError.at(path, expected="a readable file", found=error.strerror or str(error)) from None
    if size > MOST_BYTES:
        raise FormatError.at(path, expected=f"XML of at most {MOST_BYTES >> 20} MiB", found=f"{size >> 20} MiB")
