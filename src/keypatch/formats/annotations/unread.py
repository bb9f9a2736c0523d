"""Annotation formats that are known by sight and not read yet, so that none is taken for another."""

from __future__ import annotations

import re

from keypatch.formats.annotations.source import head_text

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?([+-][\d.eE+-]+i)?|nan", re.IGNORECASE)
# Columns of a Dynamo table: 26 up to the coordinates, up to 42 with the latest fields (Dynamo's table convention).
_DYNAMO_COLUMNS = range(26, 43)


def unread_format(head: bytes) -> str | None:
    """Name the format of a file that this program knows and does not read yet; None for any other."""
    if head.startswith(b"IMODV1"):
        return "an IMOD model"
    text = head_text(head)
    if text is None:
        return None
    start = text.lstrip()
    if "data_stopgap_motivelist" in text:
        return "a STOPGAP motive list (stopgap_motivelist)"
    if start.startswith("<"):
        return _xml_format(text)
    first = start.partition("\n")[0]
    return "a Dynamo table" if _is_dynamo_row(first) else None


def _xml_format(text: str) -> str | None:
    if "<CellCounter_Marker_File" in text:
        return None
    if "<marker_set" in text:
        return "markers of ChimeraX (cmm)"
    if "<object " in text:
        return "objects of DeepFinder (XML)"
    return "XML"


def _is_dynamo_row(line: str) -> bool:
    cells = line.split()
    return len(cells) in _DYNAMO_COLUMNS and all(_NUMBER.fullmatch(cell) for cell in cells)
