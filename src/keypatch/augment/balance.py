"""Drawing patches so that kinds and classes come up as often as wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from keypatch.augment.selection import Selection

Shares: TypeAlias = Mapping[str, float] | Literal["equal"] | None
"""How often each comes up: numbers by name, all that there are alike, or as they are."""

NOTHING: Final = "nothing"
"""Name of the class of patches without a keypoint in their box."""

_ORDER: Final = 1
"""Keeps the random numbers of an epoch's order apart from those of its samples."""


def patch_weights(selection: Selection, *, kinds: Shares = "equal", classes: Shares = "equal") -> NDArray[np.float64]:
    """The probability of each patch.

    A kind is drawn by ``kinds``. Of its patches a class is drawn by ``classes``, among those that they hold; patches
    without a keypoint in their box are of the class `NOTHING`. Then one of the patches that hold it is drawn, all
    alike. None draws as if there were one kind, or one class.

    Args:
        selection: The patches.
        kinds: Names of kinds to numbers from 0; what is left out counts 0.
        classes: Names of channels, and `NOTHING`, to numbers from 0; what is left out counts 0.

    Returns:
        (N,) float64 with the sum 1.

    Raises:
        UsageError: If a name is unknown, a number is not one from 0, or nothing is left to draw.
    """
    of_kind = np.stack([selection.kind == k for k in range(len(selection.kinds))], axis=1)
    empty = ~selection.holds.any(axis=1, keepdims=True)
    of_class = np.concatenate([selection.holds, empty], axis=1)
    by_kind = _shares("kinds", kinds, selection.kinds, of_kind)
    by_class = _shares("classes", classes, (*selection.classes, NOTHING), of_class)
    weights = np.zeros(len(selection))
    for members, share in by_kind:
        weights += share * _within(members, by_class)
    if not weights.sum() > 0:
        raise UsageError.at("balance", expected="a patch that can be drawn", found="none with a share above 0")
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def epoch_order(
    weights: NDArray[np.float64], n_draws: int, *, seed: int, epoch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The patches of one epoch, drawn with replacement.

    Args:
        weights: (N,) with the sum 1.
        n_draws: How many.
        seed: Of the data set.
        epoch: Its number.

    Returns:
        (n_draws,) int64 indices, and how often each of them has come up before in the epoch.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=(_ORDER,)))
    order = rng.choice(len(weights), n_draws, p=weights)
    return order, _occurrence(order)


def _occurrence(order: NDArray[np.int64]) -> NDArray[np.int64]:
    by_value = np.argsort(order, kind="stable")
    ordered = order[by_value]
    first = np.searchsorted(ordered, ordered)
    turns = np.empty_like(order)
    turns[by_value] = np.arange(len(order)) - first
    return turns


def _shares(
    what: str, asked: Shares, names: Sequence[str], members: NDArray[np.bool_]
) -> list[tuple[NDArray[np.bool_], float]]:
    """Members of each group, and the group's share."""
    if asked is None:
        return [(np.ones(len(members), bool), 1.0)]
    if asked == "equal":
        return [(column, 1.0) for column in members.T if column.any()]
    if not isinstance(asked, Mapping) or not set(asked) <= set(names):
        raise UsageError.at(what, expected=f'"equal", or numbers for some of {", ".join(names)}', found=repr(asked))
    if not all(np.isfinite(share) and share >= 0 for share in asked.values()):
        raise UsageError.at(what, expected="finite numbers from 0", found=repr(asked))
    shared = [(name, members[:, names.index(name)], float(share)) for name, share in asked.items() if share > 0]
    if missing := [name for name, column, _ in shared if not column.any()]:
        raise UsageError.at(what, expected="a share only of what there is", found=f"no patch of {', '.join(missing)}")
    return [(column, share) for _, column, share in shared]


def _within(members: NDArray[np.bool_], by_class: Sequence[tuple[NDArray[np.bool_], float]]) -> NDArray[np.float64]:
    """Probabilities within one kind, with the sum 1, or 0 everywhere where no class of it may be drawn."""
    weights = np.zeros(len(members))
    for column, share in by_class:
        both = members & column
        if both.any():
            weights += share * both / np.count_nonzero(both)
    total = weights.sum()
    return weights / total if total > 0 else weights
