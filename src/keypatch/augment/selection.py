"""Which patches of which stores a data set has, and what their classes are called in it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from keypatch import geometry
from keypatch.errors import UsageError
from keypatch.formats.store import Store
from keypatch.formats.store.schema import KINDS
from keypatch.formats.store.tables import OFFSETS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

StoreLike: TypeAlias = "str | os.PathLike[str] | Store"
Classes: TypeAlias = Sequence[str] | Mapping[str, str | None]

LEFT_OUT = -1
"""Channel of a class that the data set leaves out."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The patches of a data set, in the order of their stores.

    Attributes:
        stores: Opened.
        classes: Names of the target's channels.
        kinds: Names of the kinds there may be.
        channels: For each store, (its classes,) int64 channel of each of its classes; `LEFT_OUT` for none.
        store: (N,) int64 number of the store of each patch.
        patch: (N,) int64 number of the patch in its store.
        kind: (N,) int64 position in ``kinds``.
        holds: (N, C) bool, whether a keypoint of the channel lies in the patch's box.
    """

    stores: tuple[Store, ...]
    classes: tuple[str, ...]
    kinds: tuple[str, ...]
    channels: tuple[NDArray[np.int64], ...]
    store: NDArray[np.int64]
    patch: NDArray[np.int64]
    kind: NDArray[np.int64]
    holds: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.patch)


def select(
    stores: StoreLike | Iterable[StoreLike],
    *,
    kinds: str | Iterable[str] | None = None,
    folds: int | Iterable[int] | None = None,
    holding: str | Iterable[str] | None = None,
    classes: Classes | None = None,
) -> Selection:
    """Choose patches.

    Args:
        stores: One store or several, opened or as paths.
        kinds: Of the patches; all when left out.
        folds: Of the patches' volumes; all when left out.
        holding: Names of channels; only patches with a keypoint of one of them in their box are taken.
        classes: The channels by name. A sequence names the classes that are taken, in its order, and leaves out the
            others. A mapping says for each class of the stores what it is called here, None for left out; two may
            become one. When left out, all stores must have the same classes.

    Raises:
        UsageError: If there is no store, a name is unknown, stores differ in their classes and nobody said what to
            do, or no patch is left.
        StoreError: If a store cannot be read.
    """
    opened = _opened(stores)
    names, channels = _channels(opened, classes)
    # A store of a later minor version may know more kinds.
    kind_names = tuple(dict.fromkeys([*KINDS, *(kind for store in opened for kind in store.kinds)]))
    tables = [
        _patches_of(number, store, kind_names, mapped, len(names))
        for number, (store, mapped) in enumerate(zip(opened, channels, strict=True))
    ]
    whole = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
    wanted = np.ones(len(whole["patch"]), bool)
    if kinds is not None:
        wanted &= np.isin(whole["kind"], _numbers("kinds", _listed(kinds), kind_names))
    if folds is not None:
        asked = [folds] if isinstance(folds, (int, np.integer)) else list(folds)
        if unknown := sorted(set(asked) - set(whole["fold"].tolist())):
            there = ", ".join(map(str, np.unique(whole["fold"]).tolist()))
            raise UsageError.at("folds", expected=f"some of {there}", found=", ".join(map(str, unknown)))
        wanted &= np.isin(whole["fold"], asked)
    if holding is not None:
        wanted &= whole["holds"][:, _numbers("holding", _listed(holding), names)].any(axis=1)
    if not wanted.any():
        raise UsageError.at(
            "selection", expected="at least one patch", found=_why_empty(whole, kind_names, kinds, folds, holding)
        )
    rest = {key: values[wanted] for key, values in whole.items() if key != "fold"}
    return Selection(opened, names, kind_names, channels, **rest)


def _opened(stores: StoreLike | Iterable[StoreLike]) -> tuple[Store, ...]:
    given = [stores] if isinstance(stores, (str, os.PathLike, Store)) else list(stores)
    if not given:
        raise UsageError.at("stores", expected="at least one store", found="none")
    return tuple(one if isinstance(one, Store) else Store(one) for one in given)


def _channels(
    stores: Sequence[Store], classes: Classes | None
) -> tuple[tuple[str, ...], tuple[NDArray[np.int64], ...]]:
    known = list(dict.fromkeys(name for store in stores for name in store.classes))
    if classes is None:
        if any(store.classes != stores[0].classes for store in stores):
            raise UsageError.at(
                "classes",
                expected="stores with the same classes in the same order",
                found="; ".join(f"{store.path}: {', '.join(store.classes)}" for store in stores),
                hint="name the channels: classes=[…], or what each class is called: classes={…}",
            )
        classes = stores[0].classes
    if isinstance(classes, str):
        raise UsageError.at("classes", expected="a list or a mapping of names", found=repr(classes))
    names: dict[str, str | None] = dict(classes) if isinstance(classes, Mapping) else {name: name for name in classes}
    if unknown := [name for name in names if name not in known]:
        raise UsageError.at("classes", expected=f"some of {', '.join(known)}", found=", ".join(unknown))
    if isinstance(classes, Mapping) and (unnamed := [name for name in known if name not in names]):
        hint = "map what is to be left out to None"
        raise UsageError.at(
            "classes", expected="a name for every class", found=f"none for {', '.join(unnamed)}", hint=hint
        )
    targets = tuple(dict.fromkeys(name for name in names.values() if name is not None))
    if not targets:
        raise UsageError.at("classes", expected="at least one channel", found="none")
    number: dict[str | None, int] = {name: i for i, name in enumerate(targets)}
    number[None] = LEFT_OUT
    return targets, tuple(np.array([number[names.get(name)] for name in store.classes], np.int64) for store in stores)


def _patches_of(
    number: int, store: Store, kinds: tuple[str, ...], channels: NDArray[np.int64], n_channels: int
) -> dict[str, NDArray[Any]]:
    """Columns of one store's patches."""
    n = len(store)
    return {
        "store": np.full(n, number, np.int64),
        "patch": np.arange(n),
        "kind": np.array([kinds.index(name) for name in store.kinds])[store.table("patches/kind")],
        "fold": store.table("patches/fold").astype(np.int64),
        "holds": _holds(store, channels, n_channels),
    }


def _holds(store: Store, channels: NDArray[np.int64], n_channels: int) -> NDArray[np.bool_]:
    owner = np.repeat(np.arange(len(store)), np.diff(store.table(OFFSETS)))
    channel = channels[store.table("keypoints/class_index")]
    inside = geometry.inside(store.table("keypoints/local_rs_coords"), store.patch_shape) & (channel != LEFT_OUT)
    holds = np.zeros((len(store), n_channels), bool)
    holds[owner[inside], channel[inside]] = True
    return holds


def _numbers(what: str, asked: Sequence[str], known: Sequence[str]) -> list[int]:
    if unknown := [name for name in asked if name not in known]:
        raise UsageError.at(what, expected=f"some of {', '.join(known)}", found=", ".join(map(str, unknown)) or "none")
    return [known.index(name) for name in asked]


def _listed(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _why_empty(whole: Mapping[str, NDArray[Any]], kind_names: tuple[str, ...], *asked: object) -> str:
    kinds, counts = np.unique(whole["kind"], return_counts=True)
    there = ", ".join(f"{n} {kind_names[kind]}" for kind, n in zip(kinds, counts, strict=True)) or "0 patches"
    filters = [
        f"{name} {value!r}"
        for name, value in zip(("kinds", "folds", "holding"), asked, strict=True)
        if value is not None
    ]
    folds = ", ".join(map(str, np.unique(whole["fold"]).tolist()))
    return f"none with {' and '.join(filters) or 'no filter'} among {there} in folds {folds or 'none'}"
