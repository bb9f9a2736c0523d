"""`repair`: makes the damaged shards of a store again, and nothing else; the one audit that writes into a store.

Which shards are damaged is told by the sizes and hashes that were recorded when the store was built; the same hashes
tell whether a shard that was made again is the one that was lost. What is not proved is not put in place.

A shard is finished in the store's build folder (`keypatch.converters.journal`), beside the store and so on its disk,
and moves in by one rename. Killed at any moment, the store has fewer damaged shards than before, or as many. The lock
of that folder keeps two repairs, and a repair and a build, apart.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch.audit.digests import check_digests
from keypatch.audit.findings import Findings
from keypatch.audit.jsonable import jsonable
from keypatch.audit.layout import open_target
from keypatch.audit.recut import check_source
from keypatch.audit.strays import find_strays, remove_strays
from keypatch.errors import UsageError, WriteError
from keypatch.formats.store.digest import ROOT_METADATA, file_digests, file_sha256, metadata_digest, store_digest
from keypatch.formats.store.disk import read_metadata, writing
from keypatch.formats.store.schema import GAUSSIAN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    from keypatch.audit.layout import Target
    from keypatch.converters.build import Progress
    from keypatch.findings import Finding

_WORK: Final = "repair"
"""In the build folder: shards that are not finished yet."""

_NO_DAMAGE_OF_METADATA: Final = frozenset({"KP111", "KP112", "KP118"})
"""Strays and links, which are listed as such; and that the store is newer."""


@dataclass(frozen=True)
class ShardRepair:
    """A shard that was not the one that was written.

    Attributes:
        file: Below the store.
        array: `image` or `gaussian`.
        unit: Its number.
        first_patch: Of the unit.
        last_patch: Of the unit.
        fault: What was wrong with it.
        repaired: Whether it is now the one that was written, to the bit.
        reason: Why not; empty where it is, or was not tried.
    """

    file: str
    array: str
    unit: int
    first_patch: int
    last_patch: int
    fault: str
    repaired: bool = False
    reason: str = ""


@dataclass(frozen=True)
class RepairReport:
    """What `repair` found and did.

    Attributes:
        path: The store.
        dry_run: Whether nothing was to be changed.
        arrays: Whose shards were looked at.
        shards_checked: How many of them.
        bytes_hashed: Of these.
        shards: Those that were damaged.
        strays: Files, folders and links that are no part of the store and are still there.
        removed: Such that were taken away.
        metadata: What is wrong with the metadata and tables, which cannot be repaired; empty where they are those that
            were written.
        rebuild: A command that builds such a store again, as far as it is recorded; empty where nothing calls for it.
        original_digest: Of the store, as recorded when it was built.
        digest: Of the store, computed from the files that are there now; None where they cannot all be read.
    """

    path: Path
    dry_run: bool
    arrays: tuple[str, ...]
    shards_checked: int
    bytes_hashed: int
    shards: tuple[ShardRepair, ...]
    strays: tuple[str, ...]
    removed: tuple[str, ...]
    metadata: tuple[Finding, ...]
    rebuild: str
    original_digest: str
    digest: str | None

    @property
    def repaired(self) -> tuple[ShardRepair, ...]:
        """Shards that are whole again."""
        return tuple(shard for shard in self.shards if shard.repaired)

    @property
    def remaining(self) -> tuple[ShardRepair, ...]:
        """Shards that are still damaged."""
        return tuple(shard for shard in self.shards if not shard.repaired)

    @property
    def passed(self) -> bool:
        """Whether nothing remains to be done about what was looked at."""
        return not (self.remaining or self.strays or self.metadata)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result | {"passed": self.passed}


def repair(
    path: str | PathLike[str],
    source: str | PathLike[str] | None = None,
    *,
    gaussians_only: bool = False,
    remove_stray: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairReport:
    """Make the damaged and missing shards of a store again, each proved by the sha256 recorded for it.

    Images are cut again from the volumes, Gaussians rendered again from the store's own keypoints. Metadata and tables
    are only looked at.

    Args:
        path: A store in a local folder.
        source: Folder that all volumes share; images cannot be repaired without.
        gaussians_only: Look at the Gaussians alone.
        remove_stray: Take away what is no part of the store; only where its metadata are sound, since they say what
            that is.
        dry_run: Find out what is damaged and change nothing.
        progress: Told what is going on.

    Returns:
        The report; what cannot be repaired does not raise.

    Raises:
        StoreError: If there is no keypatch store, or one of another major version.
        ReadError: If ``source`` is no folder.
        UsageError: If another repair or a build holds the store.
        WriteError: If the store cannot be written. What was repaired until then stays so.
    """
    from keypatch.converters.build import Silent  # noqa: PLC0415 - keypatch.audit is lighter without

    volumes = None if source is None else Path(source)
    if volumes is not None:
        check_source(volumes)
    with np.errstate(all="ignore"):  # damaged tables may hold any number
        found = _examine(Path(path), progress or Silent(), gaussians_only=gaussians_only)
        removed: tuple[str, ...] = ()
        shards = found.shards
        remove_stray = remove_stray and not found.metadata and bool(found.strays)
        if not dry_run and (shards or remove_stray):
            with _held(found) as work:
                if remove_stray:
                    remove_strays(found.target, found.strays)
                    removed = found.strays
                shards = tuple(_repaired(found, volumes, work, progress or Silent()))
        elif not dry_run:
            _tidy_up(found)
    remaining = tuple(name for name in found.strays if name not in removed)
    tried = volumes is not None and not dry_run
    hopeless = bool(found.metadata) or (tried and not all(shard.repaired for shard in shards))
    return RepairReport(
        path=Path(path),
        dry_run=dry_run,
        arrays=found.arrays,
        shards_checked=found.shards_checked,
        bytes_hashed=found.bytes_hashed,
        shards=shards,
        strays=remaining,
        removed=removed,
        metadata=found.metadata,
        rebuild=_command(found.target, volumes) if hopeless else "",
        original_digest=_recorded_digests(found.target)[1],
        digest=_digest(found.target.folder, found.target.attributes),
    )


@dataclass(frozen=True)
class _Examination:
    """What is wrong with a store."""

    target: Target
    root: bytes
    arrays: tuple[str, ...]
    shards_checked: int
    bytes_hashed: int
    shards: tuple[ShardRepair, ...]
    sound: dict[str, frozenset[int]]
    strays: tuple[str, ...]
    metadata: tuple[Finding, ...]


def _examine(path: Path, progress: Progress, *, gaussians_only: bool) -> _Examination:
    findings = Findings()
    root = _root(path)
    target = open_target(path, findings)
    strays = find_strays(target)
    arrays = tuple(name for name in target.arrays if name == GAUSSIAN or not gaussians_only)
    units = [(name, unit) for name in arrays for unit in range(_n_recorded(target, name))]
    progress.start("check", len(units))
    faults: dict[tuple[str, int], str] = {}
    # Threads: hashing and reading let the interpreter go.
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for key, fault in zip(units, threads.map(lambda key: _fault(target, *key), units), strict=True):
            progress.step()
            if fault:
                faults[key] = fault
    sizes = (target.tree.files.get(target.shard_name(*key), 0) for key in units)
    return _Examination(
        target=target,
        root=root,
        arrays=arrays,
        shards_checked=len(units),
        bytes_hashed=sum(sizes),
        shards=tuple(_described(target, *key, fault) for key, fault in faults.items()),
        sound={name: frozenset(u for n, u in units if n == name and (n, u) not in faults) for name in arrays},
        strays=strays,
        metadata=_metadata_damage(target, strays, findings),
    )


def _root(path: Path) -> bytes:
    """The file that holds the digest of all else; nothing where `open_target` will say what is wrong."""
    try:
        return read_metadata(path / ROOT_METADATA)
    except OSError:
        return b""


def _n_recorded(target: Target, name: str) -> int:
    """Shards of which it is known what they were; a number in the metadata alone could be any."""
    recorded = (target.tables.get(f"integrity/{name}_{column}", ()) for column in ("sha256", "size"))
    return min(target.arrays[name].n_shards, *map(len, recorded))


def _fault(target: Target, name: str, unit: int) -> str:
    """What is wrong with a shard; empty where it is the one that was written."""
    file = target.shard_name(name, unit)
    size, recorded = target.tree.files.get(file), int(target.tables[f"integrity/{name}_size"][unit])
    if file in target.tree.links_out:
        return "a link that leaves the store"
    if size is None:
        return "missing"
    if size != recorded:
        return f"{size} bytes, and {recorded} were written"
    hashes = target.tables[f"integrity/{name}_sha256"]
    try:
        digest = file_sha256(target.folder / file)
    except OSError as error:
        return f"unreadable: {error.strerror or error}"
    if digest == hashes[unit].tobytes():
        return ""
    same = np.flatnonzero((hashes == np.frombuffer(digest, np.uint8)).all(axis=1))
    return f"it is the shard of unit {same[0]}" if len(same) else "other bytes than were written"


def _described(target: Target, name: str, unit: int, fault: str) -> ShardRepair:
    patches = target.arrays[name].unit_patches(unit)
    return ShardRepair(target.shard_name(name, unit), name, unit, patches[0], patches[-1], fault)


def _metadata_damage(target: Target, strays: Sequence[str], findings: Findings) -> tuple[Finding, ...]:
    """What is wrong with everything but the shards; nothing where its digests are those that were recorded."""
    recorded, _ = _recorded_digests(target)
    covered = {name: digest for name, digest in (target.digests.files or {}).items() if name not in strays}
    before = sum(findings.counts().values())
    check_digests(target, findings)
    root_is_sound = sum(findings.counts().values()) == before
    if root_is_sound and target.digests.files is not None and metadata_digest(covered) == recorded:
        return ()
    return tuple(f for f in findings.listed() if f.code not in _NO_DAMAGE_OF_METADATA)


def _recorded_digests(target: Target) -> tuple[str, str]:
    """Of the metadata and of the store; empty where there is none."""
    digests = target.attributes.get("digests")
    known = digests if isinstance(digests, dict) else {}
    return str(known.get("metadata", "")), str(known.get("store", ""))


def _digest(folder: Path, attributes: Any) -> str | None:  # noqa: ANN401 - JSON
    """Of the store as it is now, strays and all."""
    try:
        return store_digest(metadata_digest(file_digests(folder)), attributes)
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _held(found: _Examination) -> Iterator[Path]:
    """Keep the store for this process; gives the folder to work in, which is gone afterwards.

    Raises:
        UsageError: If another repair or a build holds the store, or it is another by now.
        WriteError: If it cannot be written.
    """
    from keypatch.converters.journal import Journal  # noqa: PLC0415
    from keypatch.formats.store.building import build_folder  # noqa: PLC0415

    store = found.target.folder
    for place in (store.resolve().parent, store, *(store / name for name in found.arrays)):
        if place.is_dir() and not _may_write(place):
            raise WriteError.at(
                place,
                expected="permission to write, to repair a store",
                found="none",
                hint="repair a copy, or let its owner do it",
            )
    journal = Journal(build_folder(store))
    work = journal.folder / _WORK
    with journal.held(store):
        try:
            if _root(store) != found.root:
                raise UsageError.at(store, expected="the same store", found="another by now", hint="run it again")
            with writing(store):
                shutil.rmtree(work, ignore_errors=True)  # what a repair that was killed has left
                work.mkdir()
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if not journal.has_results():
                journal.remove()


def _tidy_up(found: _Examination) -> None:
    """Take away what a repair that was killed after its last shard has left, unless somebody is at work there."""
    from keypatch.formats.store.building import build_folder  # noqa: PLC0415

    if (build_folder(found.target.folder) / _WORK).is_dir():
        with contextlib.suppress(UsageError, WriteError), _held(found):
            pass


def _may_write(folder: Path) -> bool:
    """Asked before any work is done; also of a disk that is mounted read-only."""
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def _repaired(found: _Examination, source: Path | None, work: Path, progress: Progress) -> Iterator[ShardRepair]:
    """Make the shards again, in the order of the patches, so that each volume is opened once."""
    from keypatch.audit.rebuild import Rebuilder, UnrepairableError  # noqa: PLC0415

    progress.start("repair", len(found.shards))
    with Rebuilder(found.target, source, work, found.sound) as rebuilder:
        for shard in found.shards:
            try:
                rebuilder.rebuild(shard.array, shard.unit)
            except UnrepairableError as error:
                yield replace(shard, reason=str(error))
            else:
                yield replace(shard, repaired=True)
            progress.step()


def _command(target: Target, source: Path | None) -> str:
    from keypatch.converters.again import convert_command  # noqa: PLC0415

    records = [{} if record is None else record.json for record in target.volumes or ()]
    return convert_command(target.attributes, records, str(target.folder), None if source is None else str(source))
