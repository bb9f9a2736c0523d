"""Annotation formats that are known by sight and not read, so that none is taken for another."""

from __future__ import annotations

import re

from keypatch.formats.annotations.source import head_text

# IMOD's "ASCII File Format": comments, then "imod" and the number of objects.
_IMOD_AS_TEXT = re.compile(r"(?:#.*\n\s*)*imod \d+\s")


def unread_format(head: bytes) -> str | None:
    """Name the format of a file that this program knows and does not read; None for any other."""
    text = head_text(head)
    if text is not None and _IMOD_AS_TEXT.match(text.lstrip()):
        return "an IMOD model as text (3dmod saves it as binary)"
    return None
