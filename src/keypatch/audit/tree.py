"""The files of a store: one walk that follows no link, and the names that may be there."""

from __future__ import annotations

import itertools
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keypatch.formats.store.digest import ROOT_METADATA
from keypatch.formats.store.schema import GAUSSIAN, GROUPS, IMAGE, tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keypatch.audit.findings import Findings

_SHARD_AXES: Final = {IMAGE: 4, GAUSSIAN: 5}


@dataclass
class Tree:
    """What lies in a store.

    Attributes:
        files: Path below the root, with slashes, to bytes. A link to a file of the same store counts as a file.
        folders: The same of folders.
        links_out: Links that leave the store, lead nowhere, or are links to folders; nothing behind them is read.
        others: What is neither file, folder nor link (a pipe, a device).
        unreadable: Folders that cannot be listed, and why.
    """

    files: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    links_out: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


def walk(root: Path) -> Tree:
    """List a folder and all below it without following links to folders."""
    tree, pending = Tree(), [""]
    home = root.resolve()
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            tree.unreadable[folder or "."] = error.strerror or str(error)
            continue
        for entry in found:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if _sort_in(tree, name, entry, home):
                pending.append(name)
    return tree


def _sort_in(tree: Tree, name: str, entry: os.DirEntry[str], home: Path) -> bool:
    """Note one entry; True where it is a folder to go into."""
    if entry.is_symlink():
        link = Path(entry.path)
        if _is_own_file(link, home):
            tree.files[name] = link.stat().st_size
        else:
            tree.links_out[name] = str(link.readlink())
        return False
    if entry.is_dir(follow_symlinks=False):
        tree.folders.add(name)
        return True
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        tree.files[name] = status.st_size
    else:
        tree.others.append(name)
    return False


def _is_own_file(link: Path, home: Path) -> bool:
    try:
        target = link.resolve()
    except (OSError, RuntimeError):  # a loop of links; RuntimeError up to Python 3.12
        return False
    return target.is_relative_to(home) and target.is_file()


def numbered(tree: Tree, array: str, n_zeros: int, limit: int) -> dict[int, int]:
    """The chunk files ``array/c/<k>/0/…`` of which k is below ``limit``: k to bytes."""
    prefix, found = f"{array}/", {}
    for name, size in tree.files.items():
        if name.startswith(prefix):
            parts = name[len(prefix) :].split("/")
            if _is_key(parts, limit, n_zeros, whole=True):
                found[int(parts[1])] = size
    return found


def first_missing(there: Mapping[int, int], limit: int, n: int) -> list[int]:
    """The first n of the numbers below ``limit`` that are not there; costs no more than what is there, plus n."""
    return list(itertools.islice((k for k in range(min(limit, len(there) + n)) if k not in there), n))


class Names:
    """The names that a store may have. Asked name by name, so that a count of 10^18 in an attribute costs nothing.

    Args:
        gaussian: Whether Gaussians are stored.
        n_shards: Shards of `image` and `gaussian`; an array that is not in it has metadata that could not be read,
            and nothing below it is judged.
        n_chunks: The same of the tables: chunks by the table's path.
    """

    def __init__(self, *, gaussian: bool, n_shards: Mapping[str, int], n_chunks: Mapping[str, int]) -> None:
        self._n_shards, self._n_chunks = n_shards, n_chunks
        self._columns = {table.path: table.columns for table in tables(gaussian=gaussian)}
        self._arrays = (IMAGE, GAUSSIAN) if gaussian else (IMAGE,)

    def allows_file(self, name: str) -> bool:
        """Whether a store may have this file."""
        if name == ROOT_METADATA:
            return True
        folder, _, last = name.rpartition("/")
        if last == ROOT_METADATA and (folder in GROUPS or folder in self._arrays or folder in self._columns):
            return True
        array, key = self._split(name)
        if array is None:
            return False
        limit, tail = self._grid(array)
        return limit is None or _is_key(key, limit, tail, whole=True)

    def allows_folder(self, name: str) -> bool:
        """Whether a store may have this folder."""
        if name in GROUPS or name in self._arrays or name in self._columns:
            return True
        array, key = self._split(name)
        if array is None:
            return False
        limit, tail = self._grid(array)
        return limit is None or _is_key(key, limit, tail, whole=False)

    def _split(self, name: str) -> tuple[str | None, list[str]]:
        """An array's path and the parts of the key below it."""
        parts = name.split("/")
        for depth in (1, 2):
            array = "/".join(parts[:depth])
            if array in self._arrays or array in self._columns:
                return array, parts[depth:]
        return None, []

    def _grid(self, array: str) -> tuple[int | None, int]:
        """Keys along the first axis, None where that is unknown; and how many zeros follow."""
        if array in _SHARD_AXES:
            return self._n_shards.get(array), _SHARD_AXES[array] - 1
        return self._n_chunks.get(array), 1 if self._columns[array] else 0


def _is_key(parts: list[str], limit: int, n_zeros: int, *, whole: bool) -> bool:
    """Whether ``parts`` are ``c/<k>/0/…`` with k below ``limit``; a folder has only the beginning of that."""
    if not parts or parts[0] != "c" or len(parts) > n_zeros + 2 or (whole and len(parts) < n_zeros + 2):
        return False
    if len(parts) == 1:
        return True
    number = parts[1]
    canonical = number.isascii() and number.isdigit() and str(int(number[:20])) == number
    return canonical and int(number) < limit and all(part == "0" for part in parts[2:])


def check_tree(tree: Tree, names: Names, findings: Findings, *, judge_strays: bool) -> None:
    """Report what cannot be listed, what leaves the store, and what is no part of it."""
    for name, why in tree.unreadable.items():
        findings.add("KP117", name, expected="a folder that can be listed", found=why)
    for name, target in tree.links_out.items():
        findings.add("KP112", name, expected="a file", found=f"a link to {target}", within="links")
    for name in tree.others:
        findings.add(
            "KP111", name, expected="only files and folders", found="a pipe, socket or device", within="strays"
        )
    if not judge_strays:
        return
    for name in stray_files(tree, names):
        findings.add("KP111", name, expected="no such file", found=f"{tree.files[name]} bytes", within="strays")
    for name in stray_folders(tree, names):
        findings.add("KP111", name, expected="no such folder", found="an empty folder", within="strays")


def stray_files(tree: Tree, names: Names) -> list[str]:
    """Files that are no part of the store, sorted."""
    return sorted(name for name in tree.files if not names.allows_file(name))


def stray_folders(tree: Tree, names: Names) -> list[str]:
    """Folders without a file that are no part of the store, sorted; one with files goes with the last of these."""
    parents = {parent for name in tree.files for parent in _parents(name)}
    return sorted(name for name in tree.folders if name not in parents and not names.allows_folder(name))


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: k + 1]) for k in range(len(parts))]
