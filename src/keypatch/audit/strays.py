"""What lies in a store and is no part of it: found, and taken away when asked."""

from __future__ import annotations

import contextlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from keypatch.audit.tree import stray_files, stray_folders
from keypatch.formats.store.disk import writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keypatch.audit.layout import Target
    from keypatch.audit.tree import Names


def find_strays(target: Target) -> tuple[str, ...]:
    """Files, empty folders, links and pipes that are no part of a store, by their paths below it, sorted.

    Of a store of a newer minor version it is not known what is a part of it: nothing is a stray there.
    """
    names, tree = target.names, target.tree
    if names is None:
        return ()
    links = [name for name in tree.links_out if not (names.allows_file(name) or names.allows_folder(name))]
    return tuple(sorted([*stray_files(tree, names), *stray_folders(tree, names), *links, *tree.others]))


def remove_strays(target: Target, strays: Sequence[str]) -> None:
    """Take strays away, and the folders that are no part of the store and empty then; links are not followed.

    Raises:
        WriteError: If the system refuses.
    """
    if target.names is None:
        return
    for name in reversed(strays):  # a folder after what lies in it
        path = target.folder / name
        with writing(path):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        _remove_emptied_parents(target, name, target.names)


def _remove_emptied_parents(target: Target, name: str, names: Names) -> None:
    for parent in PurePosixPath(name).parents:
        if parent == PurePosixPath() or names.allows_folder(parent.as_posix()):
            return
        with contextlib.suppress(OSError):  # not empty: another stray is in it, and takes it along when it goes
            (target.folder / parent).rmdir()
