"""Formats that other installed packages bring, found by their entry points.

A package names a module of its own in the group `keypatch.volumes` or `keypatch.annotations`; the entry point's name is
the format's name. Nothing is looked up before a file needs it: the installed packages are searched when none of our own
formats knows a file, or when a name is asked for that is none of ours, and then once a process.

A plugin that cannot be used takes no other along. Why it cannot is kept in `PluginGroup.problems`, for the message
about the file that nothing else could read.
"""

from __future__ import annotations

import functools
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from keypatch.errors import FormatError, KeypatchError, ReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from os import PathLike

VOLUMES: Final = "keypatch.volumes"
ANNOTATIONS: Final = "keypatch.annotations"

Row = TypeVar("Row")

_ABSOLUTE_PATH: Final = re.compile(r" ?\((?:/|[A-Za-z]:[\\/])[^)]*\)")
"""Python's ImportError ends in the path of the module, which has no place in a store's report."""


@dataclass(frozen=True)
class Plugin:
    """A module that an entry point names, with all that its group demands.

    Attributes:
        name: Of the format and of the entry point.
        distribution: Name and version of the package that brings it, for messages.
        module: The loaded object.
    """

    name: str
    distribution: str
    module: Any

    def __str__(self) -> str:
        return f"the plugin {self.name} of {self.distribution}"

    def broken(self, where: str | PathLike[str], *, expected: str, found: str) -> FormatError:
        """The error for a plugin that does not keep its contract."""
        hint = f"report it to the authors of {self.distribution}"
        return FormatError.at(where, expected=f"{expected} from {self}", found=found, hint=hint)

    @contextmanager
    def at_work(self, where: str | PathLike[str], expected: str) -> Iterator[None]:
        """Turn whatever a plugin raises into one line of ours that names it, and keep its warnings to ourselves.

        Raises:
            KeypatchError: As the plugin raised it.
            ReadError: If the system could not read.
            FormatError: For every other exception.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except KeypatchError:
            raise
        except OSError as error:
            raise ReadError.at(where, expected=f"{expected} by {self}", found=_said(error)) from error
        except Exception as error:
            raise FormatError.at(where, expected=f"{expected} by {self}", found=_said(error)) from error


class PluginGroup(Generic[Row]):
    """The plugins of one entry point group, as rows of a registry.

    Args:
        group: Name of the group.
        demanded: Attributes that a module must have, each with its check and what that expects, for messages.
        row: Makes of a plugin what the registry holds.
        taken: Names of our own formats, which no plugin may have.
    """

    def __init__(
        self,
        group: str,
        demanded: Mapping[str, tuple[Callable[[Any], bool], str]],
        row: Callable[[Plugin], Row],
        taken: frozenset[str],
    ) -> None:
        self._group = group
        self._demanded = demanded
        self._row = row
        self._taken = taken
        self._loaded: dict[str, Row | None] = {}
        self._problems: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of all plugins, sorted, whether they can be used or not."""
        return tuple(self._entries)

    @property
    def problems(self) -> tuple[str, ...]:
        """One line each: a plugin that cannot be used, and why, as far as is known by now."""
        return tuple(self._problems.values())

    def rows(self) -> tuple[Row, ...]:
        """All plugins that can be used, sorted by name."""
        loaded = [self._load(name) for name in self._entries]
        return tuple(row for row in loaded if row is not None)

    def named(self, flag: str, name: str) -> Row | None:
        """The plugin of a name, None where there is none; no other is imported.

        Raises:
            UsageError: If it cannot be used.
        """
        if name not in self._entries:
            return None
        row = self._load(name)
        if row is None:
            raise UsageError.at(flag, expected="a format that can be used", found=self._problems[name])
        return row

    def report(self, plugin: Plugin, problem: str) -> None:
        """Remember what one did wrong that another may have done right."""
        self._problems.setdefault(plugin.name, f"{plugin} cannot be used: {problem}")

    @functools.cached_property
    def _entries(self) -> dict[str, metadata.EntryPoint]:
        """By name. Of two plugins of one name neither is taken: which one came first would be chance."""
        try:
            found = sorted(metadata.entry_points(group=self._group), key=lambda entry: entry.name)
        except Exception as error:
            self._problems[""] = f"the entry points of the installed packages cannot be read: {_said(error)}"
            return {}
        entries = {entry.name: entry for entry in found}
        for name in entries:
            owners = [_distribution(entry) for entry in found if entry.name == name]
            if name in self._taken:
                problem = "the name is that of a format of keypatch itself"
            elif len(owners) > 1:
                problem = "two packages bring a format of this name"
            else:
                continue
            self._loaded[name] = None
            self._problems[name] = f"the plugin {name} of {' and '.join(owners)} cannot be used: {problem}"
        return entries

    def _load(self, name: str) -> Row | None:
        if name not in self._loaded:
            self._loaded[name] = self._imported(self._entries[name])
        return self._loaded[name]

    def _imported(self, entry: metadata.EntryPoint) -> Row | None:
        plugin = Plugin(entry.name, _distribution(entry), None)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                plugin = Plugin(plugin.name, plugin.distribution, entry.load())
        except (Exception, SystemExit) as error:
            self.report(plugin, _said(error))
            return None
        problem = self._lacks(plugin)
        if problem:
            self.report(plugin, problem)
            return None
        return self._row(plugin)

    def _lacks(self, plugin: Plugin) -> str:
        for name, (check, expected) in self._demanded.items():
            if not hasattr(plugin.module, name):
                return f"it has no {name}, {expected}"
            if not check(value := getattr(plugin.module, name)):
                return f"its {name} is {value!r:.60}, not {expected}"
        if plugin.name != plugin.module.NAME:
            return f"its NAME is {plugin.module.NAME!r}, not that of its entry point"
        return ""


def is_text(value: object) -> bool:
    """Whether it is a text that is not empty."""
    return isinstance(value, str) and bool(value)


def are_suffixes(value: object) -> bool:
    """Whether it is a tuple of suffixes in lower case, each with its dot."""
    return isinstance(value, tuple) and all(is_text(s) and s[0] == "." and s == s.lower() for s in value)


COMMON: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "NAME": (is_text, "the format's name"),
    "SUFFIXES": (are_suffixes, "a tuple of suffixes in lower case, each with its dot"),
    "DESCRIPTION": (is_text, "a phrase for a person"),
    "matches": (callable, "a function that tells whether a content is of this format"),
}
"""What both groups demand."""


def _distribution(entry: metadata.EntryPoint) -> str:
    return "a package without a name" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _said(error: BaseException) -> str:
    text = _ABSOLUTE_PATH.sub("", str(error))
    return " ".join(f"{type(error).__name__}: {text}".split()) if text else type(error).__name__
