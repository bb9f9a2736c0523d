"""Ctrl-C and SIGTERM: both end a command the same way, so that what has to be tidied up is, and one line says so."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from typing import TYPE_CHECKING, NoReturn

from keypatch.errors import EXIT_INTERRUPTED, EXIT_TERMINATED

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminated(KeyboardInterrupt):
    """SIGTERM, as batch systems send it before they kill."""


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end the block the way Ctrl-C does; only the main thread can ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code(end: KeyboardInterrupt) -> int:
    """As shells say it. From here on asyncio, by which zarr reads, keeps silent on reads that end with the process."""
    logging.getLogger("asyncio").disabled = True
    return EXIT_TERMINATED if isinstance(end, Terminated) else EXIT_INTERRUPTED
