"""Building a store: plan → scalings → units → metadata → its name.

All is written in a hidden folder beside the target (`keypatch.converters.journal`), which a build that ends early
leaves behind for the same command to go on with. The target gets its name by one rename when the store is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, TypeVar

import numpy as np

from keypatch.converters.describe import store_attributes, volume_records
from keypatch.converters.fingerprints import check_unchanged, fingerprints
from keypatch.converters.journal import Journal, Work
from keypatch.converters.scaling import Scaling, needs_range
from keypatch.converters.target import check_target, drop_all_but_shards, publish
from keypatch.converters.tasks import groups, volume_sources
from keypatch.converters.units import close_volume, measure_volume, write_group
from keypatch.errors import GUARD_HINT, BuildIncompleteError, KeypatchError, WorkerError, WriteError
from keypatch.formats.store import Store, write_metadata
from keypatch.formats.store.building import build_folder
from keypatch.formats.store.digest import canonical_json
from keypatch.formats.store.disk import writing
from keypatch.workers import SerialExecutor, WorkerPool, cause, cores, executor_for, leave_if_a_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from pathlib import Path

    from keypatch.converters.plan import Plan
    from keypatch.converters.units import Source

T = TypeVar("T")

OnError: TypeAlias = Literal["stop", "skip"]

SERIAL_BYTES: Final = 64 * 2**20
"""Raw bytes up to which one process is quicker than two, whose start takes longer than the work."""


class Progress(Protocol):
    """Told what is going on; the command line draws a bar from it."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """A stage begins that has ``total`` steps, of which an earlier build did ``done``."""
        ...

    def step(self, n: int = 1) -> None:
        """So many steps are done."""
        ...


class Silent:
    """A `Progress` that says nothing."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """See `Progress`."""

    def step(self, n: int = 1) -> None:
        """See `Progress`."""


@dataclass(frozen=True)
class BuildOptions:
    """How a store is built; nothing here changes one byte of it.

    Attributes:
        overwrite: Replace a store that is there, at the very end.
        restart: Drop what an earlier build finished.
        workers: Processes; None for the cores, or one where the store is small.
        executor: Runs the units instead of our own processes: any `concurrent.futures.Executor` whose workers see
            the same files. It gets two calls for each of ``workers`` at a time. It stays the caller's, so a build that
            ends early first waits for the calls that run.
        on_error: After a unit that cannot be built: stop, or finish the others first.
    """

    overwrite: bool = False
    restart: bool = False
    workers: int | None = None
    executor: Executor | None = None
    on_error: OnError = "stop"


def convert(plan: Plan, out: Path, options: BuildOptions | None = None, progress: Progress | None = None) -> Store:
    """Build the store of a plan, or go on with a build of it that ended early.

    Args:
        plan: See `keypatch.converters.plan.build_plan`.
        out: Where the store shall lie.
        options: How.
        progress: Told what is going on.

    Returns:
        The finished store, opened.

    Raises:
        UsageError: If ``out`` exists and may not be replaced, another build holds it, or what an earlier build left
            belongs to another plan.
        ReadError: If a volume cannot be read, or changed during the build.
        WriteError: If the disk does not take it.
        WorkerError: If a worker died.
        BuildIncompleteError: With ``on_error="skip"``, if units are missing. After each of these errors nothing lies
            at ``out`` that was not there before, and what was finished is kept for the same call.
    """
    leave_if_a_worker()
    options = options or BuildOptions()
    check_target(out, overwrite=options.overwrite)
    journal = Journal(build_folder(out))
    sources = fingerprints(plan)
    with journal.held(out):
        try:
            journal.begin(out, _identity(plan, sources), restart=options.restart)
            _check_space(plan, journal, out)
            _Build(plan, journal, volume_sources(plan, sources), options, progress or Silent()).run()
            check_unchanged(sources)
            _finish(plan, journal, out, overwrite=options.overwrite)
        except BaseException:
            if not journal.has_results():
                journal.remove()
            raise
        finally:
            close_volume()
        journal.remove()
    return Store(out)


def kept_units(out: Path) -> int:
    """Units that an unfinished build of ``out`` has kept."""
    return Journal(build_folder(out)).count_units()


class _Build:
    """Measures and writes all that the journal does not have yet."""

    def __init__(
        self, plan: Plan, journal: Journal, sources: list[Source], options: BuildOptions, progress: Progress
    ) -> None:
        self.plan = plan
        self.journal = journal
        self.sources = sources
        self.options = options
        self.progress = progress
        self.failures: dict[int, KeypatchError] = {}

    def run(self) -> None:
        """Work until each unit is written or has failed.

        A unit that ends its worker, or its group, is set aside; what was to come after it is tried in the next round.
        """
        n_units = self.plan.layout.n_units
        while len(self.journal.units(self.plan.layout).keys() | self.failures.keys()) < n_units:
            with _executor(self.plan, self.options) as executor:
                try:
                    self._write(executor, self._measure(executor))
                except BrokenExecutor as error:
                    if isinstance(executor, WorkerPool) and executor.ran_the_script():
                        raise WorkerError.not_guarded("keypatch.convert") from None
                    units, death = self._who_died(executor, error)
                    if self.options.on_error == "stop" or not units:
                        raise death from error
                    self.failures |= dict.fromkeys(units, death)
        if self.failures:
            raise BuildIncompleteError.of(n_units, self.failures)

    def _measure(self, executor: Executor) -> list[Scaling]:
        """The scaling of every volume; one that cannot be measured fails the units of its patches."""
        stored, percentiles = self.plan.layout.image_dtype, self.plan.recipe.clip_percentiles
        volumes, known = self.plan.catalog.volumes, self.journal.scalings()
        needed = [i for i, volume in enumerate(volumes) if needs_range(volume.info.dtype, stored, percentiles)]
        if needed:
            self.progress.start("measure", len(needed), len([i for i in needed if i in known]))
        calls = (
            (measure_volume, (self.journal.folder, i, self.sources[i], stored.name, percentiles))
            for i in needed
            if i not in known
        )
        with contextlib.closing(_results(executor, calls, self._ahead(executor))) as results:
            for index, error in results:
                self.progress.step()
                if error is not None:
                    self._fail(self._units_of(index), error)
        known = self.journal.scalings()
        return [known.get(i, Scaling(stored.name)) for i in range(len(volumes))]

    def _write(self, executor: Executor, scalings: list[Scaling]) -> None:
        layout = self.plan.layout
        done = self.journal.units(layout)
        self.progress.start("write", layout.n_patches, sum(len(layout.unit_patches(unit)) for unit in done))
        missing = groups(self.plan, self.journal.folder, self.sources, scalings, skip={*done, *self.failures})
        calls = ((write_group, (group,)) for group in missing)
        with contextlib.closing(_results(executor, calls, self._ahead(executor))) as results:
            for result in results:
                self.progress.step(sum(len(layout.unit_patches(unit)) for unit in result.finished))
                if result.failed is not None and result.error is not None:
                    self._fail([result.failed], result.error)

    def _fail(self, units: Iterable[int], error: KeypatchError) -> None:
        if self.options.on_error == "stop" or isinstance(error, WriteError):  # a full disk refuses the others too
            raise error
        self.failures |= dict.fromkeys(units, error)

    def _units_of(self, volume: int) -> list[int]:
        rows = np.flatnonzero(self.plan.columns["patches/volume_index"] == volume)
        return sorted(set((rows // self.plan.layout.patches_per_shard).tolist()))

    def _who_died(self, executor: Executor, error: BrokenExecutor) -> tuple[list[int], WorkerError]:
        """The units that a dead worker was at, or whose volume it was measuring, and what to say of it."""
        casualties = executor.casualties() if isinstance(executor, WorkerPool) else {}
        active = self.journal.active()
        for process in casualties.keys() & active.keys():
            work = active[process]
            units = [work.index] if work.kind == "unit" else self._units_of(work.index)
            return units, self._death(work, casualties[process])
        hint = "the same command goes on"
        if 1 in casualties.values():
            hint += f"; {GUARD_HINT}"
        found = str(error).rstrip(".") or "that they ended"
        if casualties:
            found = f"that one died by {cause(min(casualties.values()))}"
        return [], WorkerError.at("worker", expected="processes that finish their units", found=found, hint=hint)

    def _death(self, work: Work, code: int) -> WorkerError:
        index, task = work.index, "measure"
        if work.kind == "unit":
            index = int(self.plan.columns["patches/volume_index"][self.plan.layout.unit_patches(work.index).start])
            task = f"finish unit {work.index} of"
        volume = self.plan.catalog.volumes[index]
        memory = " (the system may have killed it for its memory)" if code == -9 else ""
        return WorkerError.at(
            volume.path,
            expected=f"a worker to {task} volume {volume.id}",
            found=f"that it died by {cause(code)}{memory}",
            hint="what was finished is kept: the same command goes on, with fewer --workers if memory is short",
        )

    def _ahead(self, executor: Executor) -> int:
        """Calls in flight: enough that no worker waits, few enough that an error ends the build soon."""
        return 1 if isinstance(executor, SerialExecutor) else 2 * (self.options.workers or cores())


def _results(
    executor: Executor, calls: Iterator[tuple[Callable[..., T], tuple[Any, ...]]], ahead: int
) -> Generator[T, None, None]:
    """Results of calls in the order in which they end, with at most ``ahead`` of them in flight.

    When it is closed early none of them runs any more, or writes behind the back of the next build; our own workers
    are stopped by who owns them.
    """
    in_flight: set[Future[T]] = set()
    try:
        while True:
            while len(in_flight) < ahead and (call := next(calls, None)) is not None:
                in_flight.add(executor.submit(call[0], *call[1]))
            if not in_flight:
                return
            ready, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
            for future in ready:
                yield future.result()
    finally:
        for future in in_flight:
            future.cancel()
        if not isinstance(executor, WorkerPool):
            wait(in_flight)


@contextlib.contextmanager
def _executor(plan: Plan, options: BuildOptions) -> Iterator[Executor]:
    if options.executor is not None:
        yield options.executor
        return
    n_bytes = plan.layout.n_patches * plan.layout.image_bytes
    with executor_for(options.workers or (1 if n_bytes <= SERIAL_BYTES else cores())) as own:
        yield own


def _identity(plan: Plan, sources: dict[str, list[int]]) -> dict[str, Any]:
    """What the records of a build depend on."""
    digest = hashlib.sha256(canonical_json(store_attributes(plan)).encode())
    for name, values in sorted(plan.columns.items()):
        digest.update(f"\n{name} {values.dtype} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).data)
    return {"recipe": plan.recipe.to_json(), "sources": sources, "plan": digest.hexdigest()}


def _check_space(plan: Plan, journal: Journal, out: Path) -> None:
    """See that the units still to be written fit, though it is not known how well they compress.

    Without a codec the need is exact. With one, half of it has to be free: noise compresses by a tenth, padding and
    8-bit data by more, and a disk that fills up all the same ends in an error that loses nothing.
    """
    layout, done = plan.layout, journal.units(plan.layout)
    n_patches = layout.n_patches - sum(len(layout.unit_patches(unit)) for unit in done)
    raw = n_patches * (layout.image_bytes + layout.gaussian_bytes)
    need = raw if layout.image_codec.name == "none" else raw // 2
    free = shutil.disk_usage(journal.folder).free
    if free < need:
        raise WriteError.at(
            out,
            expected=f"{need / 1e6:,.1f} MB of free space",
            found=f"{free / 1e6:,.1f} MB",
            hint="free some, or choose another place, a narrower --dtype or fewer patches",
        )


def _finish(plan: Plan, journal: Journal, out: Path, *, overwrite: bool) -> None:
    """Write the metadata of the complete units and give the store its name."""
    with writing(out):
        drop_all_but_shards(journal.store)
    units, scalings = journal.units(plan.layout), journal.scalings()
    known = [scalings.get(i, Scaling(plan.layout.image_dtype.name)) for i in range(len(plan.catalog.volumes))]
    records = [units[unit] for unit in range(plan.layout.n_units)]
    volumes, attributes = volume_records(plan, known), store_attributes(plan)
    journal.record_digest(write_metadata(journal.store, plan.layout, records, plan.columns, volumes, attributes))
    publish(journal.store, out, overwrite=overwrite)
