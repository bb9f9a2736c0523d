"""Values of settings, from text as on the command line or typed as in a recipe file.

Each parser takes the flag's name, for its message, and the value; it raises `UsageError` when the value is none of its
kind.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final, cast

from keypatch.errors import UsageError
from keypatch.geometry import Shape3, Vector3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

COLUMN_ROLES: Final = ("volume", "z", "y", "x", "class", "score")

MOST_ON_AN_AXIS: Final = 2**20
"""Voxels; a larger number is a slip."""

MOST: Final = 2**63 - 1

_SIZE_UNITS: Final = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def as_text(values: Iterable[float]) -> str:
    """``(160, 288, 288)`` as a person gives it: ``160,288,288``."""
    return ",".join(f"{value:g}" for value in values)


def shape(flag: str, value: object, least: int = 1) -> Shape3:
    """Three whole numbers, or one for all axes."""
    parsed = _numbers(flag, value, (1, 3), whole=True, least=least, most=MOST_ON_AN_AXIS)
    z, y, x = (int(n) for n in (parsed * 3 if len(parsed) == 1 else parsed))
    return z, y, x


def displacement(flag: str, value: object) -> Shape3:
    """Like `shape`, and 0 is allowed."""
    return shape(flag, value, least=0)


def vector(flag: str, value: object) -> Vector3:
    """Three numbers above 0, or one for all axes."""
    parsed = _numbers(flag, value, (1, 3), whole=False, least=0)
    if not all(n > 0 for n in parsed):
        raise UsageError.at(flag, expected="numbers above 0", found=repr(value))
    z, y, x = parsed * 3 if len(parsed) == 1 else parsed
    return z, y, x


def pair(flag: str, value: object) -> tuple[float, float]:
    """Two numbers, at least 0."""
    low, high = _numbers(flag, value, (2,), whole=False, least=0)
    return low, high


def count(flag: str, value: object) -> int:
    """One whole number, at least 0."""
    return int(_numbers(flag, value, (1,), whole=True, least=0)[0])


def index_base(flag: str, value: object) -> int:
    """0 or 1."""
    return int(_numbers(flag, value, (1,), whole=True, least=0, most=1)[0])


def axis_order(flag: str, value: object) -> str:
    """A permutation of "xyz"."""
    if not isinstance(value, str) or sorted(value) != ["x", "y", "z"]:
        raise UsageError.at(flag, expected="a permutation of xyz, such as zyx", found=repr(value))
    return value


def positive(flag: str, value: object) -> float:
    """One number above 0."""
    return vector(flag, value)[0]


def size(flag: str, value: object) -> int:
    """Bytes, from ``192MiB``, ``1GB`` or a plain number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", str(value).strip())
    unit = _SIZE_UNITS.get(match[2].upper()) if match else None
    n_bytes = int(float(match[1]) * unit) if match and unit else 0
    if n_bytes < 1:
        raise UsageError.at(flag, expected="a size above 0, such as 192MiB or 1GB", found=repr(value))
    return n_bytes


def switch(flag: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise UsageError.at(flag, expected="true or false", found=repr(value))
    return value


def text(flag: str, value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise UsageError.at(flag, expected="a text", found=repr(value))
    return value


def texts(flag: str, value: object) -> tuple[str, ...]:
    """One text, or a list of them."""
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, (list, tuple)):
        raise UsageError.at(flag, expected="a list of texts", found=repr(value))
    return tuple(text(flag, entry) for entry in entries)


def names(flag: str, value: object) -> tuple[str, ...]:
    """Different names, in a list or behind commas."""
    parsed = tuple(name.strip() for entry in texts(flag, value) for name in entry.split(","))
    if len(set(parsed)) != len(parsed) or not all(parsed) or not parsed:
        raise UsageError.at(flag, expected="different names", found=repr(value))
    return parsed


def pairs(flag: str, value: object) -> dict[str, str]:
    """``{"a": "b"}`` or ``["a=b", …]``."""
    if isinstance(value, dict):
        return {text(flag, key): str(entry) for key, entry in value.items()}
    parsed: dict[str, str] = {}
    for entry in texts(flag, value):
        key, _, target = entry.partition("=")
        if not (key and target):
            raise UsageError.at(flag, expected="NAME=VALUE", found=repr(entry))
        parsed[key] = target
    return parsed


def roles(flag: str, value: object) -> dict[str, str]:
    """Pairs of a column's role and its name or number, as `pairs` or several of them behind commas in one text."""
    listed = value if isinstance(value, dict) else [part for entry in texts(flag, value) for part in entry.split(",")]
    parsed = pairs(flag, listed)
    for role in parsed:
        if role not in COLUMN_ROLES:
            raise UsageError.at(flag, expected=f"ROLE=COLUMN, a role of {', '.join(COLUMN_ROLES)}", found=repr(role))
    return parsed


def one_of(choices: tuple[Any, ...]) -> Callable[[str, object], Any]:
    """A parser that takes only these values."""

    def parse(flag: str, value: object) -> object:
        if value not in choices:
            raise UsageError.at(flag, expected=f"one of {', '.join(map(str, choices))}", found=repr(value))
        return value

    return parse


def _numbers(
    flag: str, value: object, counts: tuple[int, ...], *, whole: bool, least: float, most: float = MOST
) -> tuple[float, ...]:
    """Numbers from ``1.5``, ``[1, 2, 3]`` or ``"1,2,3"``, as many as one of ``counts``; whole ones are exact."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    expected = f"{' or '.join(map(str, counts))} {'whole ' if whole else ''}number(s), at least {least:g}"
    parsed = tuple(_number(part) for part in parts)
    if most < MOST or any(n is not None and n > most for n in parsed):
        expected += f" and at most {most}"
    if len(parsed) not in counts or any(n is None or not least <= n <= most or (whole and n != int(n)) for n in parsed):
        raise UsageError.at(flag, expected=expected, found=repr(value))
    return cast("tuple[float, ...]", parsed)


def _number(part: object) -> float | None:
    """A finite number; None for all else. Whole numbers stay exact beyond 2^53."""
    if isinstance(part, bool) or not isinstance(part, (str, int, float)):
        return None
    try:
        return int(part) if isinstance(part, (str, int)) else _finite(part)
    except ValueError:
        return _finite(part)


def _finite(part: str | float) -> float | None:
    try:
        number = float(part)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
