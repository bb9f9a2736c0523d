"""Worker processes of a build or an audit: spawned, quiet on Ctrl-C, and gone as soon as whoever owns them is."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

T = TypeVar("T")

_RAN_THE_SCRIPT: Final = 117
"""Exit code of a worker that found itself running its owner's script; of no signal, shell or Python itself."""

_NAME: Final = "keypatch worker"

EXIT_CODE_SECONDS: Final = 1.0
"""How long the exit code of a worker that died is waited for; the system has it within milliseconds."""


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


class _Process(SpawnProcess):
    """A worker, known by its name before it has done anything: the first that it does is to import the script."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as Process has it
        super().__init__(*args, **{**kwargs, "name": _NAME})


class _Spawn(SpawnContext):
    Process = _Process


def leave_if_a_worker() -> None:
    """End this process without a word if it is a worker that is still starting; called by all that may start some.

    A spawned process first imports the script of its owner. Where the script calls us without a guard, each worker
    would check the sources again, start workers itself, and end in Python's long message; its owner says it in a line.
    Nothing of the script is to be tidied up twice, so this does not raise.
    """
    process = multiprocessing.current_process()
    if process.name == _NAME and getattr(process, "_inheriting", False):
        os._exit(_RAN_THE_SCRIPT)


class WorkerPool(Executor):
    """A pool of spawned processes and what is known of how they ended.

    A worker waits in a thread for the other end of a pipe to close. That happens when its owner stops it and when the
    owner dies in whatever way, so no worker outlives its build to write into the folder of the next one.
    """

    def __init__(self, n_workers: int) -> None:
        context = _Spawn()
        ours, theirs = context.Pipe(duplex=False)[::-1]
        self._lifeline: Connection = ours
        self._theirs: Connection = theirs
        self._executor = ProcessPoolExecutor(n_workers, mp_context=context, initializer=_begin, initargs=(theirs,))
        self._processes: dict[int, multiprocessing.process.BaseProcess] = {}

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:  # noqa: ANN401 - as Executor's
        """Have a worker run ``fn``; this starts another worker while there are too few."""
        with _interrupts_held_back():
            future = self._executor.submit(fn, *args, **kwargs)
        for process in multiprocessing.active_children():
            if process.pid is not None:
                self._processes[process.pid] = process
        return future

    def casualties(self) -> dict[int, int]:
        """Processes that ended by themselves, and their exit codes; negative ones are signals.

        When one dies, the pool ends the others with SIGTERM; these are not counted. The pool learns of a death a moment
        before its exit code is there to read, so this waits for one.
        """
        deadline = time.monotonic() + EXIT_CODE_SECONDS
        while not (found := self._exit_codes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    def _exit_codes(self) -> dict[int, int]:
        codes = {pid: process.exitcode for pid, process in self._processes.items()}
        return {pid: code for pid, code in codes.items() if code not in (None, 0, -signal.SIGTERM)}

    def ran_the_script(self) -> bool:
        """Whether a worker ended since it ran its owner's script instead; see `leave_if_a_worker`."""
        return _RAN_THE_SCRIPT in self.casualties().values()

    def close(self) -> None:
        """Let the workers end when they have nothing left to do."""
        self._executor.shutdown(wait=True)
        self._cut()

    def kill(self) -> None:
        """Stop all workers now, whatever they are doing."""
        self._cut()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _cut(self) -> None:
        self._lifeline.close()
        self._theirs.close()


def cause(code: int) -> str:
    """What a process died by, from its exit code."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def cores() -> int:
    """Cores that this process may use, which a scheduler may have made fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def executor_for(n_workers: int) -> Iterator[SerialExecutor | WorkerPool]:
    """What runs calls for the block: this process alone for one worker, a `pool` for more."""
    if n_workers == 1:
        yield SerialExecutor()
        return
    with pool(n_workers) as workers:
        yield workers


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


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let no signal come between the steps of starting a process, and start it deaf to Ctrl-C.

    A process that is started by halves, or interrupted while it imports its modules, ends in a traceback on stderr. It
    inherits the signal mask; `_begin` lifts that when the worker has been told to ignore the signal. Python runs
    handlers in the main thread alone, whichever thread the system gave the signal to, so there they are put off.
    """
    held: list[int] = []
    try:
        with contextlib.ExitStack() as undo:
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    if (before := signal.getsignal(number)) is not None:  # None: not Python's to put back
                        undo.callback(signal.signal, number, before)
                        signal.signal(number, lambda number, _: held.append(number))
            if hasattr(signal, "pthread_sigmask"):
                resource_tracker.ensure_running()  # which would lift the mask when the pool starts it
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                undo.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
            yield
    finally:
        for late in held:
            signal.raise_signal(late)


def _begin(lifeline: Connection) -> None:
    # Ctrl-C goes to the whole group; the owner alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # Libraries make locks, numcodecs when it first encodes. Those of a spawned process have names, which Python reports
    # as leaked on stderr when the process is killed; those of a forked one have none. No process is started here.
    if "fork" in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method("fork", force=True)
    threading.Thread(target=_end_with_the_owner, args=(lifeline,), daemon=True).start()


def _end_with_the_owner(lifeline: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os._exit(1)
