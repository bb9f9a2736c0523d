"""How long a training target takes: read from the store against written anew from its formula."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from keypatch.formats.store import Store

PATCHES: Final = 32
"""Patches that are timed at most."""

ROUNDS: Final = 3


@dataclass(frozen=True)
class TargetTiming:
    """Medians over patches, measured on the machine that ran `stats`, on one thread.

    Everything was read once before, so that the system has it in memory: a cold disk only adds to the reads.

    Attributes:
        patches: That were timed.
        rounds: How often each.
        read_gaussian: Seconds to read and decode the stored target of a patch; None where none is stored.
        render_gaussian: Seconds to render it from the keypoints.
        read_image: Seconds to read and decode the patch itself, for scale.
    """

    patches: int
    rounds: int
    read_gaussian: float | None
    render_gaussian: float
    read_image: float


def time_targets(store: Store, seed: int = 0) -> TargetTiming:
    """Time a seeded draw of patches.

    Raises:
        StoreError: If a patch cannot be read.
    """
    n = min(PATCHES, len(store))
    drawn = np.random.default_rng(seed).choice(len(store), n, replace=False).tolist()
    patches = [store[i] for i in drawn]
    read = _median([partial(store.read_gaussian, i) for i in drawn]) if store.has_gaussian else None
    return TargetTiming(
        patches=n,
        rounds=ROUNDS,
        read_gaussian=read,
        render_gaussian=_median([patch.gaussian for patch in patches]),
        read_image=_median([partial(store.read_image, i) for i in drawn]),
    )


def _median(calls: list[Callable[[], object]]) -> float:
    """Seconds a call; each call is made once before it is timed."""
    for call in calls:
        call()
    return float(np.median([_seconds(call) for _ in range(ROUNDS) for call in calls]))


def _seconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start
