"""Decoded z slices of a volume whose file is read slice by slice."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CACHE_BYTES = 256 * 2**20
"""What one open volume keeps decoded: 301 slices of 960 x 928 voxels of 8 bits, a tomogram of BYU or most of it."""


class SliceCache:
    """Cuts boxes out of slices and keeps decoded slices, up to a number of bytes, for the boxes that follow.

    The slices used longest ago go first, but never those of the box that is being read: a box that needs more slices
    than fit keeps as many as do, and the next box over the same z finds these. (Plain least-recently-used would find
    none.)
    """

    def __init__(self, decode: Callable[[int], NDArray[Any]], max_bytes: int = CACHE_BYTES) -> None:
        self._decode = decode
        self._max_bytes = max_bytes
        self._slices: OrderedDict[int, NDArray[Any]] = OrderedDict()

    def read(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        """The box, axes z, y, x. Only the slices ``z`` are decoded, each at most once."""
        wanted = range(z.start, z.stop)
        first = self._slice(wanted[0], wanted)[y, x]
        box = np.empty((len(wanted), *first.shape), first.dtype)
        box[0] = first
        for row, index in enumerate(wanted[1:], start=1):
            box[row] = self._slice(index, wanted)[y, x]
        return box

    def clear(self) -> None:
        """Let all slices go."""
        self._slices.clear()

    def _slice(self, index: int, wanted: range) -> NDArray[Any]:
        if index in self._slices:
            self._slices.move_to_end(index)
            return self._slices[index]
        decoded = self._decode(index)
        if self._make_room(decoded.nbytes, wanted):
            self._slices[index] = decoded
        return decoded

    def _make_room(self, nbytes: int, wanted: range) -> bool:
        used = sum(kept.nbytes for kept in self._slices.values())
        for index in [kept for kept in self._slices if kept not in wanted]:
            if used + nbytes <= self._max_bytes:
                break
            used -= self._slices.pop(index).nbytes
        return used + nbytes <= self._max_bytes
