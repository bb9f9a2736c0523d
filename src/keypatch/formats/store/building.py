"""Where a store lies while it is built; what happens there is `keypatch.converters.journal`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from keypatch.formats.store.disk import resolved

BUILD_FILE: Final = "build.json"
"""Of a build folder: there from the moment when a build has begun."""

_SUFFIX: Final = ".building"


def build_folder(out: Path) -> Path:
    """The hidden folder in which the store ``out`` is built, beside it."""
    place = resolved(out)
    return place.parent / f".{place.name}{_SUFFIX}"


def unfinished(path: Path) -> Path | None:
    """The store whose build has not come to an end, where a path that is no store belongs to one.

    Args:
        path: The name that the store will have, its build folder, or a folder in that.
    """
    try:
        if (build_folder(path) / BUILD_FILE).is_file():
            return path
        for folder in (path.absolute(), *path.absolute().parents):
            name = folder.name
            if name.startswith(".") and name.endswith(_SUFFIX) and (folder / BUILD_FILE).is_file():
                return folder.parent / name[1 : -len(_SUFFIX)]
    except OSError:  # a name too long, no permission
        return None
    return None
