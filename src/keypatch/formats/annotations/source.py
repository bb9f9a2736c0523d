"""The bytes of an annotation file: its head, its text, its JSON, each with an error of one line."""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from keypatch.errors import FormatError, ReadError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

HEAD_SIZE = 1 << 16
"""Bytes of a file that the formats see when they tell whether it is theirs."""

_FORMS_OF_BINARY = (
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"BZh", "a bzip2 archive", "unpack it first"),
    (b"PK\x03\x04", "a zip archive or an Excel sheet", "unpack it, or save it as CSV"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
)


def read_head(path: Path) -> bytes:
    """Read the first `HEAD_SIZE` bytes.

    Raises:
        ReadError: If there is no file, or it cannot be read.
        FormatError: If it is empty, or holds blanks only.
    """
    head = _read(path, HEAD_SIZE)
    if not head.removeprefix(codecs.BOM_UTF8).strip():
        raise FormatError.at(path, expected="annotations", found="an empty file")
    return head


def read_bytes(path: Path) -> bytes:
    """Read a whole file.

    Raises:
        ReadError: If there is no file, or it cannot be read.
    """
    return _read(path, -1)


def head_text(head: bytes) -> str | None:
    """Decode the head of a UTF-8 file without its byte order mark; None if it is not UTF-8 text."""
    if b"\0" in head:
        return None
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None


def read_text(path: Path) -> str:
    """Read a whole UTF-8 file, without its byte order mark, every line ended by a line feed.

    Raises:
        ReadError: If there is no file, or it cannot be read.
        FormatError: If it is not UTF-8 text.
    """
    content = _read(path, -1)
    for start, form, hint in _FORMS_OF_BINARY:
        if content.startswith(start):
            raise FormatError.at(path, expected="UTF-8 text", found=form, hint=hint)
    if b"\0" in content:
        raise FormatError.at(path, expected="UTF-8 text", found="binary data")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{content[error.start]:02x} in line {line}"
        raise FormatError.at(path, expected="UTF-8 text", found=found, hint="save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is whatever it is; each reader checks it
    """Read a JSON file; a key that an object holds twice is an error, since the first would vanish.

    Raises:
        ReadError: If there is no file, or it cannot be read.
        FormatError: If it is not JSON.
    """
    try:
        text = read_text(path)
        value = json.loads(text, object_pairs_hook=_unique)
        if _SURROGATE.search(text):  # half a character, which only JSON's escapes can write and no store can hold
            json.dumps(value, ensure_ascii=False).encode()
        return value  # noqa: TRY300 - the handlers below end in the one error
    except UnicodeEncodeError as error:
        found = f"half a character, {error.object[error.start]!a}"
    except json.JSONDecodeError as error:
        found = f"{error.msg} in line {error.lineno}, column {error.colno}"
    except _RepeatedKeyError as error:
        found = f"the key {error} twice"
    except RecursionError:
        found = "lists nested too deep"
    except ValueError as error:  # an integer of more digits than Python converts
        found = str(error)
    raise FormatError.at(path, expected="JSON", found=found)


def finite_numbers(values: Sequence[object]) -> TypeGuard[Sequence[float]]:
    """Whether all are JSON numbers (no booleans) that a float64 can hold."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        try:
            finite = math.isfinite(value)
        except OverflowError:
            return False
        if not finite:
            return False
    return True


def finite_float(text: str) -> float | None:
    """The number that a text names, as Python writes it but for "1_000"; None where it names none, or no finite one."""
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def shortened(value: object, length: int = 60) -> str:
    """A value as an error message shows it: its repr, cut to one short line."""
    shown = repr(value.item() if isinstance(value, np.generic) else value)
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"


class _RepeatedKeyError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKeyError(shortened(key))
            seen.add(key)
    return result


def _read(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError:
        raise ReadError.at(path, expected="an annotation file", found="nothing there") from None
    except IsADirectoryError:
        raise ReadError.at(
            path, expected="an annotation file", found="a folder", hint="give a file in it, or a pattern"
        ) from None
    except OSError as error:
        raise ReadError.at(path, expected="a readable file", found=error.strerror or str(error)) from None
