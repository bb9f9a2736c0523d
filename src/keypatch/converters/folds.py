"""Sharing volumes out into folds: by volume, never by patch, so that no fold has seen another's tomogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keypatch.converters.draw import stable_order
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def assign_folds(ids: Sequence[str], class_counts: NDArray[np.int64], n_folds: int, seed: int) -> NDArray[np.int16]:
    """Balance classes and volumes over the folds, greedily, the volumes with most annotations first.

    Each volume goes where it adds least to the sum over classes, and over the volumes themselves, of squared shares.
    The order of ``ids`` does not matter: ties go by a hash of seed and id.

    Args:
        ids: V unique names.
        class_counts: (V, C) annotations of each class in each volume.
        n_folds: K, or 0 for no folds.
        seed: Of the ties.

    Returns:
        (V,) int16 in 0 … K - 1, or all -1 for no folds.

    Raises:
        UsageError: If there are fewer volumes than folds.
    """
    if not n_folds:
        return np.full(len(ids), -1, np.int16)
    if n_folds < 2 or n_folds > len(ids):
        possible = f"2 to {len(ids)}, the number of volumes" if len(ids) > 1 else "0, with a single volume"
        raise UsageError.at("--folds", expected=possible, found=str(n_folds))
    shares = np.column_stack([class_counts, np.ones(len(ids))]).astype(np.float64)
    shares /= np.maximum(shares.sum(axis=0), 1)
    loads = np.zeros((n_folds, shares.shape[1]))
    folds = np.empty(len(ids), np.int16)
    tie_order = stable_order(seed, list(ids))
    for volume in sorted(tie_order, key=lambda v: -int(class_counts[v].sum())):
        cost = (2 * loads * shares[volume]).sum(axis=1)
        fold = int(np.lexsort((np.arange(n_folds), loads[:, -1], cost))[0])
        folds[volume] = fold
        loads[fold] += shares[volume]
    return folds
