"""Paths as a person gives them: plain, with globs, or with ``{volume}`` and ``{class}`` that pair files."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keypatch.errors import ReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIELDS: Final = ("volume", "class")

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|\{[^{}]*\}|[^*?\[{]+|.", re.DOTALL)


@dataclass(frozen=True)
class Match:
    """One path that a pattern stands for.

    Attributes:
        path: As found, relative if the pattern was.
        named: Whether the person named this very path, and did not only match it by a glob.
        fields: What ``{volume}`` and ``{class}`` are in it.
    """

    path: Path
    named: bool
    fields: Mapping[str, str] = field(default_factory=dict)


def expand(patterns: Sequence[str]) -> list[Match]:
    """All paths that the patterns stand for, each once, in the patterns' order and sorted within one.

    ``{volume}`` and ``{class}`` stand for part of one path component; a field that comes twice has to be the same. A
    path that exists is taken as it is, whatever signs its name holds.

    Raises:
        ReadError: If a pattern matches nothing.
        UsageError: If it holds another field than the two.
    """
    matches: dict[Path, Match] = {}
    for pattern in patterns:
        for match in _expand_one(pattern):
            _check_name(match.path)
            matches.setdefault(match.path, match)
    return list(matches.values())


def _check_name(path: Path) -> None:
    """A store holds the names of its sources as JSON, which has no place for bytes that are no text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise ReadError.at(shown, expected="a name in UTF-8", found="other bytes", hint="rename it") from None


def below(folder: Path, pattern: str) -> str:
    """A pattern seen from a folder; signs in the folder's own name are no part of it."""
    home = os.path.expanduser(pattern)  # noqa: PTH111 - a pattern is no path
    if Path(home).is_absolute() or _exists(folder / home):
        return str(folder / home)
    return str(Path(re.sub(r"[*?\[{]", r"[\g<0>]", str(folder))) / home)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, for one
        return False


def _expand_one(given: str) -> list[Match]:
    pattern = os.path.expanduser(given)  # noqa: PTH111 - a pattern is no path
    if _exists(Path(pattern)):
        return [Match(Path(pattern), named=True)]
    tokens = _TOKEN.findall(pattern)
    if not any(token[0] in "*?[{" for token in tokens):
        raise ReadError.at(pattern, expected="a file or folder", found="nothing of that name")
    try:
        expression = re.compile(_expression(pattern, tokens))
    except re.error as error:
        raise UsageError.at(pattern, expected="a pattern", found=f"one with {error.msg}") from error
    wildcard = "".join("*" if _field(token) else token for token in tokens)
    found = []
    for path in sorted(glob.glob(wildcard, recursive=True)):  # noqa: PTH207 - a pattern may be absolute
        match = expression.fullmatch(path.replace(os.sep, "/").rstrip("/"))
        if match:
            found.append(Match(Path(path), named=False, fields=match.groupdict()))
    if not found:
        raise ReadError.at(pattern, expected="at least one file or folder", found="none that matches")
    return found


def _expression(pattern: str, tokens: list[str]) -> str:
    seen: set[str] = set()
    parts = []
    for token in tokens:
        name = _field(token)
        if name is not None:
            if name not in FIELDS:
                raise UsageError.at(pattern, expected="the fields {volume} and {class}", found=token)
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)")
            seen.add(name)
        elif token[0] == "[" and token[-1] == "]" and len(token) > 2:
            negated = token[1] == "!"
            parts.append("[" + "^" * negated + re.sub(r"([\\\[^&|~])", r"\\\1", token[1 + negated : -1]) + "]")
        else:
            parts.append({"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token) or re.escape(token))
    return "".join(parts).rstrip("/")


def _field(token: str) -> str | None:
    return token[1:-1] if token[0] == "{" and token[-1] == "}" and len(token) > 2 else None
