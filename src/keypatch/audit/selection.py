"""Choosing patches of a store by what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keypatch import geometry
from keypatch.errors import UsageError
from keypatch.formats.store.schema import NO_FOLD
from keypatch.formats.store.tables import OFFSETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from keypatch.formats.store import Store


@dataclass(frozen=True)
class Selection:
    """Which patches; of each attribute any of the values, and all that are given must be met.

    Attributes:
        kinds: How they came to be.
        classes: Of which a keypoint lies inside.
        folds: Of their volumes.
        volumes: Ids.
    """

    kinds: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    folds: tuple[int, ...] = ()
    volumes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.kinds or self.classes or self.folds or self.volumes)

    def __str__(self) -> str:
        """Such as ``centered, fold 1``; nothing where all patches are meant."""
        parts = [*self.kinds, *(f"with {name}" for name in self.classes), *(f"fold {fold}" for fold in self.folds)]
        return ", ".join([*parts, *self.volumes])


def select(store: Store, selection: Selection) -> list[int]:
    """The patches of a selection, in order.

    Raises:
        UsageError: If the store has no such kind, class, fold or volume.
    """
    chosen = np.ones(len(store), bool)
    if selection.kinds:
        wanted = _positions("--kind", selection.kinds, store.kinds)
        chosen &= np.isin(store.table("patches/kind"), wanted)
    if selection.folds:
        folds = store.table("patches/fold")
        known = [str(fold) for fold in np.unique(folds[folds != NO_FOLD]).tolist()]
        if not known:
            raise UsageError.at("--fold", expected="a store with folds", found="none in it", hint="leave it out")
        _positions("--fold", [str(fold) for fold in selection.folds], known)
        chosen &= np.isin(store.table("patches/fold"), selection.folds)
    if selection.volumes:
        wanted = _positions("--volume", selection.volumes, store.volume_ids)
        chosen &= np.isin(store.table("patches/volume_index"), wanted)
    if selection.classes:
        chosen &= _with_keypoint_of(store, _positions("--class", selection.classes, store.classes))
    indices: list[int] = np.flatnonzero(chosen).tolist()
    return indices


def draw(indices: Sequence[int], count: int, seed: int = 0) -> list[int]:
    """So many of the patches, drawn with a seed and in order; all where there are no more."""
    if len(indices) <= count:
        return list(indices)
    drawn: list[int] = np.sort(np.random.default_rng(seed).choice(indices, count, replace=False)).tolist()
    return drawn


def _positions(flag: str, names: Sequence[str], known: Sequence[str]) -> list[int]:
    for name in names:
        if name not in known:
            shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
            raise UsageError.at(flag, expected=f"one of {shown}", found=repr(name))
    return [known.index(name) for name in names]


def _with_keypoint_of(store: Store, classes: Sequence[int]) -> NDArray[np.bool_]:
    """Whether a keypoint of one of the classes lies inside of each patch."""
    inside = geometry.inside(store.table("keypoints/local_rs_coords"), store.patch_shape)
    rows = np.flatnonzero(inside & np.isin(store.table("keypoints/class_index"), classes))
    found = np.zeros(len(store), bool)
    found[np.searchsorted(store.table(OFFSETS), rows, side="right") - 1] = True
    return found
