"""The build folder: what a build has finished, so that the same command goes on after any kind of end.

    .out.zarr.building/
      lock, holder.json     who builds here now
      build.json            the recipe, the sources and the plan that the rest belongs to
      scalings/0.json       one volume's scaling
      units/0.json          one finished unit: sizes and hashes of its shards
      active/4711-1         what thread 1 of process 4711 works on
      digest                of the finished store, written just before it gets its name
      store/                the store itself

A record is written beside its place and renamed, after the shards that it speaks of are durable. It never says more
than is on the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from filelock import FileLock, Timeout

from keypatch.converters.scaling import Scaling
from keypatch.errors import UsageError
from keypatch.formats.store import StoreLayout, UnitRecord
from keypatch.formats.store.building import BUILD_FILE
from keypatch.formats.store.disk import sync_file, sync_folder, writing
from keypatch.formats.store.layout import shard_key
from keypatch.formats.store.schema import GAUSSIAN, IMAGE
from keypatch.formats.store.shard import ShardRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT: Final = 1
"""Of this folder; a build that another format began is not resumed."""


@dataclass(frozen=True)
class Work:
    """What a process is at: writing a unit, or measuring a volume.

    Attributes:
        kind: Which of the two.
        index: Of the unit or the volume.
    """

    kind: Literal["unit", "volume"]
    index: int


class Journal:
    """Reads and writes the records of one build folder; cheap to make, safe for several processes at once.

    Args:
        folder: Of the build.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"

    @contextlib.contextmanager
    def held(self, out: Path) -> Iterator[None]:
        """Keep the folder for this process, from now to the end of the block.

        Raises:
            UsageError: If another build, or a repair, holds it.
            WriteError: If the folder cannot be made.
        """
        with writing(out):
            self.folder.mkdir(exist_ok=True)
        lock = FileLock(self.folder / "lock", timeout=0)
        with writing(out):
            try:
                lock.acquire()
            except Timeout as error:  # an OSError too
                raise UsageError.at(
                    out,
                    expected="no other build or repair of it",
                    found=f"one by {self._holder()}",
                    hint="wait for it or stop it",
                ) from error
        try:
            _write_json(self.folder / "holder.json", {"host": socket.gethostname(), "process": os.getpid()})
            yield
        finally:
            lock.release()

    def _holder(self) -> str:
        try:
            holder = json.loads((self.folder / "holder.json").read_text(encoding="utf-8"))
            return f"process {holder['process']} on {holder['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "an unknown process"

    def begin(self, out: Path, identity: Mapping[str, Any], *, restart: bool) -> None:
        """Make the folder ready for the build of ``identity``: go on with what is there, or begin.

        Args:
            out: For messages.
            identity: What the records depend on, as JSON: ``recipe``, ``sources``, ``plan``.
            restart: Drop what is there.

        Raises:
            UsageError: If what is there belongs to another recipe, other sources or another version.
        """
        wanted = {"format": FORMAT, **identity}
        if self.has_results() and not restart:
            differences = _differences(self._begun(), wanted)
            if differences:
                raise UsageError.at(
                    out,
                    expected="to go on with the build that was begun",
                    found=f"other settings or sources now: {'; '.join(differences)}",
                    hint="give --restart to drop what was built, or the old settings to go on",
                )
        else:
            self._clear()
            _write_json(self._build_file, wanted, durable=True)
        with writing(out):
            for name in ("scalings", "units", "active", "store"):
                (self.folder / name).mkdir(exist_ok=True)
            for marker in (self.folder / "active").iterdir():
                marker.unlink()

    def record_scaling(self, index: int, scaling: Scaling) -> None:
        """Note the scaling of a volume."""
        _write_json(self.folder / "scalings" / f"{index}.json", scaling.to_json())

    def scalings(self) -> dict[int, Scaling]:
        """The scalings that are known."""
        return {index: Scaling.from_json(values) for index, values in self._records("scalings")}

    def record_unit(self, record: UnitRecord) -> None:
        """Note a unit whose shards are durable."""
        shards = {IMAGE: record.image, GAUSSIAN: record.gaussian}
        values = {name: [s.sha256.hex(), s.size] for name, s in shards.items() if s is not None}
        _write_json(self.folder / "units" / f"{record.unit}.json", values)

    def units(self, layout: StoreLayout) -> dict[int, UnitRecord]:
        """The units that are finished: recorded, and their shards there in full size."""
        found = {}
        for unit, values in self._records("units"):
            shards = {name: ShardRecord(bytes.fromhex(digest), size) for name, (digest, size) in values.items()}
            record = UnitRecord(unit, shards[IMAGE], shards.get(GAUSSIAN))
            if self._is_there(layout, record):
                found[unit] = record
        return found

    def _is_there(self, layout: StoreLayout, record: UnitRecord) -> bool:
        for name, shard, n_dimensions in ((IMAGE, record.image, 4), (GAUSSIAN, record.gaussian, 5)):
            path = self.store / name / shard_key(record.unit, n_dimensions)
            if shard is not None and (not path.is_file() or path.stat().st_size != shard.size):
                return False
        return (record.gaussian is None) == (layout.gaussian_dtype is None)

    @contextlib.contextmanager
    def working_on(self, work: Work) -> Iterator[None]:
        """Mark that this process (and thread) is at some work; the mark of one that was killed stays."""
        marker = self.folder / "active" / f"{os.getpid()}-{threading.get_ident()}"
        with writing(marker):
            marker.write_text(f"{work.kind} {work.index}", encoding="utf-8")
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)

    def active(self) -> dict[int, Work]:
        """Processes and what they were marked to work on."""
        found = {}
        for path in (self.folder / "active").iterdir():
            with contextlib.suppress(ValueError, OSError):
                kind, index = path.read_text(encoding="utf-8").split()
                found[int(path.name.partition("-")[0])] = Work("unit" if kind == "unit" else "volume", int(index))
        return found

    def record_digest(self, digest: str) -> None:
        """Note that the store is whole and about to get its name."""
        _write_text(self.folder / "digest", digest)

    def gave_its_store_away(self) -> bool:
        """Whether the build ended between giving its store the name and taking this folder away."""
        return (self.folder / "digest").exists() and not self.store.exists()

    def has_results(self) -> bool:
        """Whether there is anything here that the next try would not have to do again.

        Of what another version began it is not known, so that counts as something.
        """
        if not self._build_file.exists():
            return False
        of_another_version = self._begun().get("format", FORMAT) != FORMAT
        return of_another_version or any(True for kind in ("units", "scalings") for _ in self._records(kind))

    @property
    def _build_file(self) -> Path:
        return self.folder / BUILD_FILE

    def _begun(self) -> dict[str, Any]:
        """What the records belong to; nothing where that cannot be read."""
        try:
            return _read_json(self._build_file)
        except (OSError, ValueError):
            return {}

    def count_units(self) -> int:
        """Units that are recorded."""
        return sum(1 for _ in self._records("units"))

    def remove(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _clear(self) -> None:
        with writing(self.folder):
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name not in ("lock", "holder.json"):
                    path.unlink()

    def _records(self, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and content of each whole record; one that a power failure cut counts as not written."""
        for path in (self.folder / kind).glob("[0-9]*.json"):
            with contextlib.suppress(ValueError, OSError):
                yield int(path.stem), _read_json(path)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What a person would have to change back, the most telling first."""
    if not old:
        return ["what it was begun with cannot be read (build.json is damaged)"]
    if old.get("format") != new["format"]:
        return [f"begun by another version of keypatch (build format {old.get('format')}, not {new['format']})"]
    found = []
    for name, value in new["recipe"].items():
        before = old["recipe"].get(name)
        if before != value:
            found.append(f"{name} was {_short(before)}, is {_short(value)}")
    for path, value in new["sources"].items():
        if path not in old["sources"]:
            found.append(f"{path} is new")
        elif old["sources"][path] != value:
            found.append(f"{path} has changed on disk")
    found += [f"{path} is no longer given" for path in old["sources"] if path not in new["sources"]]
    if not found and old["plan"] != new["plan"]:
        found.append(
            "the plan differs (another version of keypatch or of a library, or a file that the annotations refer to)"
        )
    return found


def _short(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:60]


def _read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        message = f"{path} holds no JSON object"
        raise ValueError(message)  # noqa: TRY004 - as for text that is no JSON
    return value


def _write_json(path: Path, value: Mapping[str, Any], *, durable: bool = False) -> None:
    _write_text(path, json.dumps(value, ensure_ascii=False), durable=durable)


def _write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write beside and rename, so that whoever is killed leaves a whole record or none.

    Records are not fsynced: one that a power failure takes costs its unit once more, and no shard depends on it. What
    all records depend on is.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        partial.write_text(text, encoding="utf-8")
        if durable:
            sync_file(partial)
        partial.replace(path)
        if durable:
            sync_folder(path.parent)
