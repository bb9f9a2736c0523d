"""Random numbers that are the same with every numpy.

numpy promises the stream of raw 64-bit words of a bit generator for ever, but not what `Generator.integers` makes of it
(NEP 19). A store's bytes depend on the draws, so they are made from the words here.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class Draw:
    """A stream of random integers for one purpose: a seed and the names of what it is for.

    Two streams with other names are independent, so a volume's patches do not depend on other volumes, nor its
    negatives on how many centred patches it has.
    """

    def __init__(self, seed: int, *names: str) -> None:
        key = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
        self._words = np.random.PCG64(int.from_bytes(key[:16], "little"))

    def integers(self, low: ArrayLike, high: ArrayLike, shape: tuple[int, ...] = ()) -> NDArray[np.int64]:
        """Integers in [low, high], both inclusive, uniform but for a bias below (high - low) / 2^53.

        Args:
            low: Least; broadcast against ``shape``.
            high: Greatest; not below ``low``.
            shape: Of the result.
        """
        words = np.asarray(self._words.random_raw(shape or None), np.uint64)
        unit = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        first = np.asarray(low, np.int64)
        span = np.asarray(high, np.int64) - first + 1
        return first + np.floor(unit * span).astype(np.int64)

    def choice(self, n: int) -> int:
        """One of 0 … n - 1."""
        return int(self.integers(0, n - 1))


def stable_order(seed: int, names: list[str]) -> list[int]:
    """A random order of things by their names; it does not depend on the order in which they come."""
    keys: list[Any] = [hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)
