"""XML from files that nobody vouches for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from keypatch.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

_DECLARATION = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


def parse_xml(where: Path | str, text: str | bytes) -> ElementTree.Element:
    """Parse XML without document type: no entity is expanded and nothing outside is read.

    Raises:
        FormatError: If it is no XML, or declares a document type.
    """
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise FormatError.at(where, expected="XML in UTF-8", found=str(error)) from error
    if _DECLARATION.search(decoded):
        raise FormatError.at(where, expected="XML without a document type", found="DOCTYPE or ENTITY")
    try:
        # Without its declaration, which may name another encoding than that of a str.
        return ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", decoded))  # noqa: S314 - no entities are left
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise FormatError.at(where, expected="XML", found=str(error)) from error


def local_name(element: ElementTree.Element) -> str:
    """Name of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Children of one name, whatever their namespace."""
    return [child for child in element if local_name(child) == name]
