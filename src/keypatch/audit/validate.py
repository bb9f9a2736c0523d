"""`validate`: finds what is wrong with a store, at three depths and against its sources."""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from keypatch.audit.digests import check_digests, check_expected, checked_digest
from keypatch.audit.findings import CAP, CODES, Findings
from keypatch.audit.identities import check_identities
from keypatch.audit.jsonable import jsonable
from keypatch.audit.layout import Target, check_shard_files, open_target
from keypatch.audit.ranges import check_ranges
from keypatch.audit.reach import check_reach
from keypatch.audit.recut import close_volume, find_sources
from keypatch.audit.units import Checked, UnitResult, UnitTask, check_unit, unit_tasks
from keypatch.errors import GUARD_HINT, UsageError, WorkerError
from keypatch.findings import Finding
from keypatch.workers import SerialExecutor, WorkerPool, cause, cores, leave_if_a_worker, pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from os import PathLike

    from keypatch.converters.build import Progress

Depth: TypeAlias = Literal["quick", "full", "deep"]
DEPTHS: Final[tuple[Depth, ...]] = get_args(Depth)

SERIAL_BYTES: Final = 256 * 2**20
"""Bytes of shards up to which one process is quicker than two, whose start takes longer than the work."""

_AHEAD: Final = 16
"""Units in flight a worker: enough that they have work while this process looks at the tables."""

_AHEAD_OF_THIS: Final = 2
"""The same once this process looks at units too: few, as at the end it waits for them and has none itself."""


@dataclass(frozen=True)
class ValidationReport:
    """What `validate` found.

    Attributes:
        path: The store.
        depth: "quick", "full" or "deep".
        findings: Those that are listed, in an order that depends on the store alone.
        checked: How much was looked at.
        digest: Of the store, computed from its present files; None where the subset leaves it out, or a file could not
            be read. At depth "full" without findings, every byte of the store is the one that it stands for.
        counts: How many findings there are of each code, listed or not.
        subset: (K, N) of the units that were looked at; (1, 1) is all of them.
    """

    path: Path
    depth: Depth
    findings: tuple[Finding, ...]
    checked: Checked = field(default_factory=Checked)
    digest: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    subset: tuple[int, int] = (1, 1)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Listed findings that make the store unfit."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Listed findings that a person should know."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def n_errors(self) -> int:
        """Findings that make the store unfit, listed or not."""
        return sum(count for code, count in self.counts.items() if CODES[code].severity == "error")

    @property
    def n_warnings(self) -> int:
        """Findings that a person should know, listed or not."""
        return sum(self.counts.values()) - self.n_errors

    @property
    def unlisted(self) -> dict[str, int]:
        """How many findings of each code there are beyond those that are listed."""
        more = dict(self.counts)
        for finding in self.findings:
            more[finding.code] -= 1
        return {code: count for code, count in more.items() if count}

    def passed(self, *, strict: bool = False) -> bool:
        """Whether the store is sound; ``strict`` takes warnings for errors."""
        return not (self.n_errors + self.n_warnings if strict else self.n_errors)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result | {"errors": self.n_errors, "warnings": self.n_warnings, "unlisted": self.unlisted}


def validate(
    path: str | PathLike[str],
    depth: str = "quick",
    source: str | PathLike[str] | None = None,
    subset: tuple[int, int] | None = None,
    *,
    workers: int | None = 1,
    max_findings: int | None = None,
    expect_digest: str | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> ValidationReport:
    """Look for damage in a store; nothing in it is written.

    Args:
        path: A store in a local folder.
        depth: "quick" reads metadata and tables and holds file sizes, offsets, index ranges and digests against each
            other. "full" also reads every byte: hashes, checksums, NaN, padding, and every identity between tables.
            "deep" also renders every stored Gaussian again.
        source: Folder that all volumes share: patches are cut again from it and compared, at any depth.
        subset: (K, N), K from 1: of the units, every N-th, beginning with the K-th. What is no unit's (metadata,
            tables) is checked by K = 1 alone, so that the N subsets together check everything once.
        workers: Processes that read shards, this one among them. None takes all cores, but one process for a small
            store. A script that asks for more than one has to call this below ``if __name__ == "__main__":``.
        max_findings: Findings that are listed; all are counted. None lists the first 10 of a code within an array.
        expect_digest: The digest that the store must have, or its first 8 digits or more.
        executor: Reads the shards instead of our own processes: any `concurrent.futures.Executor` whose workers see
            the store by the same path. ``workers`` says how many it has.
        progress: Told how many units have been looked at.

    Returns:
        The report; findings do not raise.

    Raises:
        StoreError: If there is no keypatch store, or one of another major version.
        ReadError: If ``source`` is no folder.
        UsageError: If ``depth``, ``subset``, ``workers``, ``max_findings`` or ``expect_digest`` is none.
        WorkerError: If a worker process died.
    """
    leave_if_a_worker()
    known_depth = next((known for known in DEPTHS if known == depth), None)
    if known_depth is None:
        raise UsageError.at("--depth", expected=", ".join(DEPTHS), found=repr(depth))
    k, n = subset or (1, 1)
    if not 1 <= k <= n:
        raise UsageError.at("--subset", expected="K/N with 1 <= K <= N", found=f"{k}/{n}")
    for flag, number, least in (("--workers", workers, 1), ("--max-findings", max_findings, 0)):
        if number is not None and number < least:
            raise UsageError.at(flag, expected=f"a number from {least}", found=str(number))
    expected = None if expect_digest is None else checked_digest(expect_digest)
    audit = _Audit(known_depth, CAP if max_findings is None else max_findings, progress)
    # Damaged tables may hold any number: what they overflow to is reported, not warned about.
    with np.errstate(all="ignore"):
        audit.open(path, counted=k == 1)
        units = range(k - 1, audit.target.n_units, n)
        audit.run(
            units,
            None if source is None else Path(source),
            workers,
            executor,
            whole=k == 1,
            expect_digest=expected,
        )
    listed = audit.findings.listed()
    return ValidationReport(
        Path(path),
        known_depth,
        listed if max_findings is None else listed[:max_findings],
        audit.checked,
        audit.digest,
        audit.findings.counts(),
        (k, n),
    )


class _Audit:
    """One store being looked at."""

    target: Target

    def __init__(self, depth: Depth, cap: int, progress: Progress | None) -> None:
        self.depth, self.progress = depth, progress
        self.findings = Findings(cap)
        self.checked = Checked()
        self.digest: str | None = None

    def open(self, path: str | PathLike[str], *, counted: bool) -> None:
        """Read metadata and tables; what is wrong with them is counted by one of several subsets only."""
        self.target = open_target(path, self.findings if counted else Findings(self.findings.cap))

    def run(
        self,
        units: Sequence[int],
        source: Path | None,
        workers: int | None,
        executor: Executor | None,
        *,
        whole: bool,
        expect_digest: str | None,
    ) -> None:
        """Look at what is no unit's, if asked to, and at some units; the order of findings depends on neither."""
        # Found first, listed behind what is no unit's.
        of_sources = Findings(self.findings.cap)
        recut = None if source is None else find_sources(self.target, source, units, of_sources)
        full, deep = self.depth != "quick", self.depth == "deep"
        chosen = units if full or recut is not None else ()
        if self.progress is not None:
            self.progress.start("check", len(chosen))
        tasks = unit_tasks(self.target, chosen, self.findings.cap, recut, full=full, deep=deep)
        n_workers = max(1, min(workers or self._enough_workers(chosen), len(chosen)))
        # This process is one of those asked for, and begins while the others start; a given executor does all the work.
        takes_part = executor is None
        n_helpers = n_workers - takes_part
        with _helpers(executor, n_helpers) as helpers, _naming_the_dead(self.target.folder, helpers):
            given = _Given(tasks, helpers)
            # While this process looks at the tables; of its own share of a small store it must leave something.
            share = len(chosen) // (2 * n_workers) if takes_part else _AHEAD
            given.fill(n_helpers * max(1, min(_AHEAD, share)))
            if whole:
                self._check_whole(expect_digest)
            self.findings.merge(of_sources)
            ahead = n_helpers * (_AHEAD_OF_THIS if takes_part else _AHEAD)
            for result in given.results(ahead, takes_part=takes_part):
                result.merge_into(self.target, self.findings, self.checked)
                if self.progress is not None:
                    self.progress.step()

    def _check_whole(self, expect_digest: str | None) -> None:
        """What is no unit's."""
        target, findings = self.target, self.findings
        self.checked.files = len(target.tree.files)
        self.checked.tables = len(target.tables)
        self.checked.rows = sum(len(values) for values in target.tables.values())
        check_shard_files(target, findings)
        check_ranges(target, findings)
        if self.depth != "quick":
            check_identities(target, findings)
            check_reach(target, findings)
            self.checked.identities = True
        self.digest = check_digests(target, findings)
        if expect_digest is not None:
            check_expected(expect_digest, self.digest, findings)

    def _enough_workers(self, units: Sequence[int]) -> int:
        sizes = [self.target.shard_sizes(name) for name in self.target.sharded]
        n_bytes = sum(size.get(unit, 0) for size in sizes for unit in units)
        return 1 if n_bytes <= SERIAL_BYTES else cores()


class _Given:
    """Units that were given to helpers, in their order.

    None is taken back at the end, when helpers have some left and this process none: a pool that breaks (a worker that
    dies) cannot bear a cancelled future in Python 3.11.

    Args:
        tasks: Of all units.
        helpers: They look at them.
    """

    def __init__(self, tasks: Iterator[UnitTask], helpers: Executor) -> None:
        self._tasks, self._helpers = tasks, helpers
        self._given: deque[Future[UnitResult]] = deque()

    def fill(self, most: int) -> None:
        """Give units until so many are in flight."""
        n_waiting = sum(not future.done() for future in self._given)
        for task in islice(self._tasks, max(0, most - n_waiting)):
            self._given.append(self._helpers.submit(check_unit, task))

    def results(self, most: int, *, takes_part: bool) -> Iterator[UnitResult]:
        """All results, in the order of the units; who asks for them may look at units meanwhile."""
        while True:
            while self._given and self._given[0].done():
                yield self._given.popleft().result()
            self.fill(most)
            if takes_part and (task := next(self._tasks, None)) is not None:
                self._given.append(_done(check_unit(task)))
            elif self._given:
                yield self._given.popleft().result()
            else:
                return


def _helpers(given: Executor | None, n_processes: int) -> AbstractContextManager[Executor]:
    if given is not None:
        return contextlib.nullcontext(given)
    return pool(n_processes) if n_processes else contextlib.nullcontext(SerialExecutor())


def _done(result: UnitResult) -> Future[UnitResult]:
    future: Future[UnitResult] = Future()
    future.set_result(result)
    return future


@contextlib.contextmanager
def _naming_the_dead(folder: Path, executor: Executor) -> Iterator[None]:
    """Turn the end of a worker process into our own error; let go of the sources of this process in any case."""
    try:
        yield
    except BrokenExecutor as error:
        if isinstance(executor, WorkerPool) and executor.ran_the_script():
            raise WorkerError.not_guarded("keypatch.validate") from None
        codes = sorted(executor.casualties().values()) if isinstance(executor, WorkerPool) else []
        found = f"that one died by {cause(codes[0])}" if codes else str(error)
        hint = "nothing is said of the store; give fewer --workers if memory is short"
        if 1 in codes:
            hint = f"nothing is said of the store; {GUARD_HINT}"
        raise WorkerError.at(folder, expected="worker processes that finish", found=found, hint=hint) from error
    finally:
        close_volume()
