"""Memory of large arrays, used again when nobody holds them any more."""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LARGE_BYTES: Final = 2**25
"""What glibc's malloc gives back to the system as soon as it is freed, and takes anew page by page: 5 ms for the 53 MB
of a 160 x 288 x 288 float32 patch, a seventh of reading it. Smaller blocks malloc itself uses again (mallopt(3),
M_MMAP_THRESHOLD)."""


class Recycler:
    """Hands out arrays, and the memory of those that nobody holds any more.

    Threads may share one: its only state is a deque, whose ends are taken from and added to in one step.

    Args:
        keep: Blocks of memory that wait to be used again, at most.
    """

    def __init__(self, keep: int = 2) -> None:
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=keep)

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """As ``numpy.empty``: C-contiguous, writable, of any values."""
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if n_bytes < LARGE_BYTES:
            return np.empty(shape, dtype)
        memory = self._taken(n_bytes)
        # Every view of the array holds the lease; when the last one lets go of it, the memory is free.
        lease = (ctypes.c_char * n_bytes).from_address(memory.ctypes.data)
        weakref.finalize(lease, self._free.append, memory).atexit = False
        return np.frombuffer(memoryview(lease), dtype).reshape(tuple(shape))

    def _taken(self, n_bytes: int) -> NDArray[np.uint8]:
        while True:
            try:
                memory = self._free.pop()
            except IndexError:
                return np.empty(n_bytes, np.uint8)
            if memory.nbytes == n_bytes:
                return memory
