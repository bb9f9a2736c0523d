"""The name of the store: what may be replaced, and how the finished store gets it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from keypatch.converters.journal import Journal, build_folder
from keypatch.errors import CorruptionError, StoreError, UsageError, WriteError
from keypatch.formats.store import Store
from keypatch.formats.store.disk import sync_folder, writing

if TYPE_CHECKING:
    from pathlib import Path


def check_target(out: Path, *, overwrite: bool) -> None:
    """See that a store may be built at ``out``, before any work is done.

    Raises:
        UsageError: If something is there that must not be replaced.
        WriteError: If its folder does not exist.
    """
    parent = out.resolve().parent
    if not parent.is_dir():
        raise WriteError.at(out, expected="a folder to write into", found=f"no folder {parent}")
    _recover(out)
    if not out.exists():
        return
    if not overwrite:
        raise UsageError.at(
            out, expected="nothing there yet", found="a file or folder", hint="give --overwrite or another -o"
        )
    try:
        Store(out)
    except CorruptionError:
        return
    except StoreError as error:
        raise UsageError.at(
            out,
            expected="a keypatch store to overwrite",
            found="something else",
            hint="remove it yourself if it may go",
        ) from error


def publish(store: Path, out: Path) -> None:
    """Give the finished store the target's name; a store that was there stays whole until then."""
    old = _old_folder(out)
    with writing(out):
        if out.exists():
            out.rename(old)
        store.rename(out)
        sync_folder(out.resolve().parent)
        shutil.rmtree(old, ignore_errors=True)


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
    resolved = out.resolve()
    return resolved.parent / f".{resolved.name}.old"


def _recover(out: Path) -> None:
    """Tidy up after a build that was killed in its last moment, with the store whole.

    Between the two renames of a swap the old store is put back; after them what is left of the build is taken away.
    """
    old, journal = _old_folder(out), Journal(build_folder(out))
    with writing(out):
        if old.exists() and not out.exists():
            old.rename(out)
        elif old.exists():
            shutil.rmtree(old)
    if out.exists() and journal.gave_its_store_away():
        journal.remove()
