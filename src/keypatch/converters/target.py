"""The name of the store: what may be replaced, and how the finished store gets it."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from keypatch.converters.journal import Journal
from keypatch.errors import StoreError, UsageError, WriteError
from keypatch.formats.store import Store
from keypatch.formats.store.building import build_folder
from keypatch.formats.store.digest import ROOT_METADATA
from keypatch.formats.store.disk import resolved, sync_folder, writing
from keypatch.formats.store.schema import ATTRIBUTE

if TYPE_CHECKING:
    from pathlib import Path


def check_target(out: Path, *, overwrite: bool) -> None:
    """See that a store may be built at ``out``, before any work is done.

    Raises:
        UsageError: If something is there that must not be replaced.
        WriteError: If its folder does not exist.
    """
    parent = resolved(out).parent
    with writing(out):  # a name that is too long for the disk shows here, and a folder that may not be entered
        if not parent.is_dir():
            raise WriteError.at(out, expected="a folder to write into", found=f"no folder {parent}")
        build_folder(out).exists()
    _recover(resolved(out))
    _check_replaceable(out, overwrite=overwrite)


def _check_replaceable(out: Path, *, overwrite: bool) -> None:
    if resolved(out).is_symlink():
        raise UsageError.at(out, expected="a place for a store", found="a link that leads to itself")
    if not out.exists():
        return
    if not overwrite:
        raise UsageError.at(
            out, expected="nothing there yet", found="a file or folder", hint="give --overwrite or another -o"
        )
    if not _is_store(out):
        raise UsageError.at(
            out,
            expected="a keypatch store to overwrite",
            found="something else",
            hint="remove it yourself if it may go",
        )


def _is_store(out: Path) -> bool:
    """Whether this is a store, also one that is damaged or of a version we do not know: its root names us."""
    try:
        Store(out)
    except StoreError:
        with contextlib.suppress(OSError):
            return f'"{ATTRIBUTE}"'.encode() in (out / ROOT_METADATA).read_bytes()
        return False
    return True


def publish(store: Path, out: Path, *, overwrite: bool) -> None:
    """Give the finished store the target's name; a store that was there stays whole until then.

    Where ``out`` is a symbolic link it stays one, and what it points at is replaced.

    Raises:
        UsageError: If something has come to lie there during the build that must not be replaced.
        WriteError: If the disk does not take it; what was there is there again.
    """
    _check_replaceable(out, overwrite=overwrite)
    place, old = resolved(out), _old_folder(out)
    with writing(out):
        if place.exists():
            place.rename(old)
        try:
            store.rename(place)
        except BaseException:
            if old.exists() and not place.exists():
                old.rename(place)
            raise
        sync_folder(place.parent)
        with contextlib.suppress(OSError):  # the next build into this place tries again
            _remove(old)


def drop_all_but_shards(store: Path) -> None:
    """Take away the metadata that a build killed in its last second had begun, and partial shards."""
    for path in sorted(store.rglob("*"), reverse=True):
        name = path.relative_to(store).as_posix()
        is_shard = name.startswith(("image/c/", "gaussian/c/")) and not path.name.endswith(".partial")
        if path.is_file() and not is_shard:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _old_folder(out: Path) -> Path:
    place = resolved(out)
    return place.parent / f".{place.name}.old"


def _remove(store: Path) -> None:
    """Take away a store, or nothing; one in a zip file is a file."""
    if store.is_dir():
        shutil.rmtree(store)
    else:
        store.unlink(missing_ok=True)


def _recover(out: Path) -> None:
    """Tidy up after a build that was killed in its last moment, with the store whole.

    Between the two renames of a swap the old store is put back; after them what is left of the build is taken away. A
    build that is in its last moment just now holds the folder, and is left alone.
    """
    old, journal = _old_folder(out), Journal(build_folder(out))
    if not (old.exists() or journal.gave_its_store_away()):
        return
    with journal.held(out):
        with writing(out):
            if old.exists() and not out.exists():
                old.rename(out)
            elif old.exists():
                _remove(old)
        if journal.gave_its_store_away() or not journal.has_results():
            journal.remove()
