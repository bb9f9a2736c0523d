"""Which patches a page shows: as different from each other as the store's are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keypatch.audit.counts import KeypointRows
    from keypatch.formats.store import Store


def choose_patches(store: Store, rows: KeypointRows, n: int, seed: int = 0) -> list[int]:
    """Pick patches one by one, each time one whose kind, fold, volume and classes have been picked least.

    Args:
        store: Opened.
        rows: Its keypoints.
        n: Patches wanted; all where there are no more.
        seed: Decides between equals.

    Returns:
        Their indices, ascending.
    """
    if n >= len(store):
        return list(range(len(store)))
    features = [store.table(f"patches/{name}") for name in ("kind", "fold", "volume_index")]
    codes = [np.unique(values, return_inverse=True)[1] for values in features]
    classes = _classes_inside(store, rows)
    chance = np.random.default_rng(seed).random(len(store)) * 1e-3
    taken = np.zeros(len(store), bool)
    for _ in range(n):
        value = chance + sum(_rarity(code, taken) for code in codes) + _class_rarity(classes, taken)
        taken[np.argmax(np.where(taken, -np.inf, value))] = True
    return [int(i) for i in np.flatnonzero(taken)]


def _classes_inside(store: Store, rows: KeypointRows) -> NDArray[np.bool_]:
    """(N, C + 1): whether a patch has a keypoint of the class inside, and in the last column whether it has none."""
    there = np.zeros((len(store), len(store.classes) + 1), bool)
    there[rows.owner[rows.inside], rows.class_index[rows.inside]] = True
    there[:, -1] = ~there.any(axis=1)
    return there


def _rarity(code: NDArray[Any], taken: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 where no patch of this code is taken yet, 1/2 where one is, and so on."""
    counts = np.bincount(code[taken], minlength=int(code.max()) + 1)
    rarity: NDArray[np.float64] = 1 / (1 + counts[code])
    return rarity


def _class_rarity(classes: NDArray[np.bool_], taken: NDArray[np.bool_]) -> NDArray[np.float64]:
    rarity: NDArray[np.float64] = (classes / (1 + classes[taken].sum(axis=0))).sum(axis=1)
    return rarity
