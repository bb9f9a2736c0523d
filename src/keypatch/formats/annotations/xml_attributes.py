"""Numbers in the attributes of XML elements."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from keypatch.errors import FormatError
from keypatch.formats.annotations.source import shortened

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from keypatch.geometry import Vector3


def coordinates(path: Path, element: Element, what: str) -> Vector3:
    """The attributes x, y and z.

    Args:
        path: The file, for messages.
        element: Has the attributes.
        what: How a message calls the element, such as "object 3".

    Raises:
        FormatError: If one is missing or no finite number.
    """
    return _number(path, element, "x", what), _number(path, element, "y", what), _number(path, element, "z", what)


def whole_number(path: Path, element: Element, name: str, what: str) -> int:
    """An attribute as a whole number.

    Args:
        path: The file, for messages.
        element: Has the attribute.
        name: Of the attribute.
        what: How a message calls the element.

    Raises:
        FormatError: If it is missing, no whole number, or beyond 64 bits.
    """
    stated = element.get(name)
    try:
        value = int(stated or "")
    except ValueError:
        value = None
    if value is None or not -(2**63) <= value < 2**63:
        raise _no_number(path, stated, f"a whole number as {name} of {what}")
    return value


def _number(path: Path, element: Element, name: str, what: str) -> float:
    stated = element.get(name)
    try:
        value = float(stated or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _no_number(path, stated, f"a number as {name} of {what}")
    return value


def _no_number(path: Path, stated: str | None, expected: str) -> FormatError:
    return FormatError.at(path, expected=expected, found="none" if stated is None else shortened(stated))
