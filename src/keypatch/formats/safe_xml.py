"""XML from files that nobody vouches for, without anything that could grow or reach outside of it.

The standard library's parser expands entities, among them nested ones that make gigabytes of a few lines. No format
that is read here has a document type declaration, which is the only place where XML defines entities: a text with one
is refused, and so none can be expanded or loaded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from keypatch.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

_DECLARATION = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


def parse_xml(where: Path | str, text: str | bytes) -> ElementTree.Element:
    """Parse XML in UTF-8.

    Args:
        where: Named by errors.
        text: The whole of it.

    Returns:
        The root. Comments and processing instructions are gone; names of a namespace read ``{namespace}name``.

    Raises:
        FormatError: If it is no UTF-8 text, no well-formed XML, or has a document type declaration.
    """
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise FormatError.at(where, expected="XML in UTF-8", found=str(error)) from error
    if match := _DECLARATION.search(decoded):
        line = decoded.count("\n", 0, match.start()) + 1
        raise FormatError.at(
            where,
            expected="XML without a document type or entities of its own",
            found=f"{match.group()} in line {line}",
            hint="take the declaration out",
        )
    try:
        # A str, unlike bytes, is parsed as what was searched above, whatever encoding its first line states.
        return ElementTree.fromstring(decoded)  # noqa: S314 - nothing can be expanded, see above
    except ElementTree.ParseError as error:
        line, column = error.position
        found = f"{str(error).partition(':')[0]} in line {line}, column {column + 1}"
    except (ValueError, RecursionError) as error:
        found = str(error)
    raise FormatError.at(where, expected="XML", found=found, hint="is the file cut short?")


def local_name(element: ElementTree.Element) -> str:
    """Name of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Children of one name, whatever their namespace."""
    return [child for child in element if local_name(child) == name]
