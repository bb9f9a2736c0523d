"""Worker processes of a build: spawned, quiet on Ctrl-C, and gone as soon as the build that owns them is."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

T = TypeVar("T")


class SerialExecutor(Executor):
    """Runs each call at once, in this process: an `Executor` for one worker, without the cost of a second process."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:  # noqa: ANN401 - as Executor's
        """Run ``fn`` and give a future that is done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class WorkerPool:
    """A pool of spawned processes and what is known of how they ended.

    A worker waits in a thread for the other end of a pipe to close. That happens when the build stops them and when it
    dies in whatever way, so no worker outlives its build to write into the folder of the next one.
    """

    def __init__(self, n_workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)[::-1]
        self._lifeline: Connection = ours
        self._theirs: Connection = theirs
        self.executor = ProcessPoolExecutor(n_workers, mp_context=context, initializer=_begin, initargs=(theirs,))
        self._processes: dict[int, multiprocessing.process.BaseProcess] = {}

    def remember(self) -> None:
        """Take note of the processes that run now, for `casualties`."""
        for process in multiprocessing.active_children():
            if process.pid is not None:
                self._processes[process.pid] = process

    def casualties(self) -> dict[int, int]:
        """Processes that ended by themselves, and their exit codes; negative ones are signals.

        When one dies, the pool ends the others with SIGTERM; these are not counted.
        """
        return {
            pid: process.exitcode
            for pid, process in self._processes.items()
            if process.exitcode not in (None, 0, -signal.SIGTERM)
        }

    def close(self) -> None:
        """Let the workers end when they have nothing left to do."""
        self.executor.shutdown(wait=True)
        self._cut()

    def kill(self) -> None:
        """Stop all workers now, whatever they are doing."""
        self._cut()
        self.executor.shutdown(wait=True, cancel_futures=True)

    def _cut(self) -> None:
        self._lifeline.close()
        self._theirs.close()


@contextlib.contextmanager
def pool(n_workers: int) -> Iterator[WorkerPool]:
    """A `WorkerPool` for the block; however the block ends, its workers are gone."""
    workers = WorkerPool(n_workers)
    try:
        yield workers
    except BaseException:
        workers.kill()
        raise
    workers.close()


def _begin(lifeline: Connection) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to the whole group; the build alone decides what it means
    threading.Thread(target=_end_with_the_build, args=(lifeline,), daemon=True).start()


def _end_with_the_build(lifeline: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os._exit(1)
