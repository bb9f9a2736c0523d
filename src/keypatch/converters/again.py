"""The command that builds a store again, as far as the store itself records it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from keypatch.converters.recipe import Recipe
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SWITCHES: Final = {
    "gaussian": ("--gaussian", "--no-gaussian"),
    "unsigned": ("--unsigned", ""),
    "header": ("--header", "--no-header"),
}


def convert_command(
    attributes: Mapping[str, Any],
    volumes: Sequence[Mapping[str, Any]],
    out: str,
    source: str | None = None,
) -> str:
    """A ``keypatch convert`` command with the recipe of a store and its sources.

    Where one pattern names all volumes, or all annotation files, it stands for them. Folders are not recorded, so a
    capital word stands for those that are not known.

    Args:
        attributes: Of the root.
        volumes: Their records.
        out: Where the new store shall lie.
        source: Folder that all volumes share; None where it is not known.

    Returns:
        One line for a POSIX shell; empty where too little is recorded for any.
    """
    paths, ids, files = _texts(volumes, "path"), _texts(volumes, "id"), _texts(attributes.get("sources"), "path")
    settings = _settings(attributes.get("recipe"))
    if settings is None or not paths or not files or len(paths) != len(ids):
        return ""
    classes = [str(name) for name in attributes["classes"]]
    words = [
        f"{source or 'VOLUMES'}/{path}"
        for path in _as_pattern(paths, [_marked(*pair) for pair in zip(paths, ids, strict=True)])
    ]
    words += ["--overwrite", "-o", out]
    patterns = [_marked_by_any(_marked_by_any(path, ids, "{volume}"), classes, "{class}") for path in files]
    for path in _as_pattern(files, patterns):
        words += ["-a", f"ANNOTATIONS/{path}"]
    return shlex.join(["keypatch", "convert", *words, *settings])


def _marked(path: str, name: str) -> str:
    return path.replace(name, "{volume}") if name else path


def _marked_by_any(path: str, names: Sequence[str], mark: str) -> str:
    """A path with the longest of some names that is in it replaced."""
    for name in sorted(filter(None, names), key=len, reverse=True):
        if name in path:
            return path.replace(name, mark)
    return path


def _as_pattern(paths: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The pattern, where it is one for several paths; else the paths, each once."""
    several = len(set(paths)) > 1 and len(set(patterns)) == 1
    return [patterns[0]] if several else list(dict.fromkeys(paths))


def _settings(recipe: object) -> list[str] | None:
    """Flags of what a recipe sets otherwise than by default; None where it is none that this version knows."""
    if not isinstance(recipe, dict):
        return None
    given = {"volumes": "-", "annotations": "-"}
    shapes = {name: recipe[name] for name in ("patch_shape", "ds_factor") if name in recipe}
    try:
        # What is usual depends on the shapes, and these themselves on nothing.
        usual = Recipe.from_mapping({**given, **shapes}).to_json()
        usual |= {name: value for name, value in Recipe.from_mapping(given).to_json().items() if name in shapes}
        Recipe.from_mapping({**given, **recipe})
    except (UsageError, TypeError, ValueError, AttributeError):
        return None
    flags: list[str] = []
    for name, value in recipe.items():
        if value is not None and value != usual.get(name):
            flags += _flag(name, value)
    return flags


def _flag(name: str, value: object) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if name in _SWITCHES:
        switch = _SWITCHES[name][0 if value else 1]
        return [switch] if switch else []
    if isinstance(value, dict):
        return [word for key, entry in value.items() for word in (flag, f"{key}={entry}")]
    if isinstance(value, list):
        return [flag, ",".join(map(str, value))]
    return [flag, str(value)]


def _texts(records: object, key: str) -> list[str]:
    """One text of each record; none at all where one lacks it."""
    listed = records if isinstance(records, (list, tuple)) else []
    found = [record.get(key) if isinstance(record, dict) else None for record in listed]
    texts = [value for value in found if isinstance(value, str)]
    return texts if len(texts) == len(found) else []
