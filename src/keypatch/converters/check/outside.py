"""Points outside their volumes, and which other reading would bring them inside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch.converters.check.finding import finding
from keypatch.converters.check.readings import factor_of, readings, times_text, told
from keypatch.converters.notes import point, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from keypatch.converters.check.finding import CatalogFinding
    from keypatch.converters.check.observed import Family, Observed
    from keypatch.converters.check.readings import Kind, Reading

WIN: Final = 0.5
"""Share of the points outside that another reading has to bring inside to be named."""

MOST_INSIDE: Final = 0.5
"""Largest share of the points inside at which a factor, a unit or the volume's centre is suspected.

Points that are twice too far from zero fill a box of eight times the volume: few of them are inside. Where nearly all
are, the rest are strays, though a small enough factor brings any stray inside.
"""

FEW: Final = 3
"""Points outside from which on they are no slips: a volume is looked at by itself, and none inside is an error."""

_CODES: Final[dict[Kind, str]] = {"axes": "KP603", "scale": "KP604", "zero": "KP605", "base": "KP606"}
_SMALL_SPAN: Final = 1e-3
_SPAN_STEP: Final = float(np.log(1.25))
"""Spans that differ by less are alike: the smaller change of reading counts then."""


def check_outside(family: Family) -> Iterator[CatalogFinding]:
    """KP601 or KP602, and the reading that fits better: for all volumes, else for those where one fits."""
    if family.n_inside == len(family):
        return
    yield _outside(family)
    best = _best(family.members)
    if best:
        yield _suspicion(best, family.members)
    elif len(family.volumes) > 1:
        yield from _of_single_volumes(family)


def _outside(family: Family) -> CatalogFinding:
    outside = [one for one in family.members if not one.inside.all()]
    n_out, n = len(family) - family.n_inside, len(family)
    one, k = _farthest(outside)
    worst = {
        "file": one.file,
        "row": int(one.rows[k]),
        "volume": one.volume,
        "coords": [float(value) for value in one.coords[k]],
        "shape": list(one.info.shape),
    }
    code = "KP601" if not family.n_inside and n >= FEW else "KP602"
    return finding(
        code,
        files=sorted({one.file for one in outside}),
        volumes=sorted({one.volume for one in outside}),
        expected="points inside their volumes",
        found=f"{n_out} of {n} outside, the farthest {one.file} row {one.rows[k]} at {point(one.coords[k])} "
        f"in {one.volume} of {'×'.join(map(str, one.info.shape))} voxels",
        evidence={"outside": n_out, "points": n, "worst": worst},
    )


def _farthest(members: Sequence[Observed]) -> tuple[Observed, int]:
    """The point that is farthest out, counted in the lengths of its volume's axes."""

    def excess(one: Observed) -> NDArray[np.float64]:
        size = np.asarray(one.info.shape, np.float64)
        beyond = np.maximum(-0.5 - one.coords, one.coords - (size - 0.5)) / size
        return np.asarray(np.where(one.inside, -np.inf, beyond.max(axis=1)), np.float64)

    farthest = [(float(values.max()), -i, int(values.argmax())) for i, values in enumerate(map(excess, members))]
    _, i, k = max(farthest)
    return members[-i], k


@dataclass(frozen=True)
class _Score:
    reading: Reading
    inside: int
    span: int


def _best(members: Sequence[Observed]) -> list[_Score]:
    """The readings that bring most points inside, and of these the ones whose points fill the volumes best."""
    n = sum(map(len, members))
    given = sum(int(one.inside.sum()) for one in members)
    scores = [_score(reading, members) for reading in readings(members[0].convention, members)]
    fitting = [score for score in scores if _explains(score, given, n)]
    most = max(((score.inside, score.span) for score in fitting), default=None)
    best = {score.reading: score for score in fitting if (score.inside, score.span) == most}
    return [best[reading] for reading in told(list(best))]


def _score(reading: Reading, members: Sequence[Observed]) -> _Score:
    places = [(reading.place(one) + 0.5) / np.asarray(one.info.shape) for one in members]
    within = np.concatenate([place[((place >= 0) & (place < 1)).all(axis=1)] for place in places])
    if not len(within):
        return _Score(reading, 0, 0)
    spans = np.maximum(np.ptp(within, axis=0), _SMALL_SPAN)
    return _Score(reading, len(within), round(float(np.log(spans).sum()) / _SPAN_STEP))


def _explains(score: _Score, given: int, n: int) -> bool:
    gain = score.inside - given
    if gain <= 0 or gain < WIN * (n - given):
        return False
    return score.reading.gentle or given <= MOST_INSIDE * n


def _suspicion(best: Sequence[_Score], members: Sequence[Observed]) -> CatalogFinding:
    """A finding by the likeliest of the readings that fit alike; the others are named with it."""
    first, n = best[0], sum(map(len, members))
    given = sum(int(one.inside.sum()) for one in members)
    texts = [f"{score.reading.text}{times_text(score.reading, members)}" for score in best]
    evidence: dict[str, Any] = {"inside": given, "inside_if": first.inside, "points": n}
    evidence["fitting"] = [
        {"flag": score.reading.flag, "factor": list(factor_of(score.reading, members))} for score in best
    ]
    return finding(
        _CODES[first.reading.kind],
        files=sorted({one.file for one in members}),
        volumes=sorted({one.volume for one in members}),
        expected="a reading that puts the points inside",
        found=f"{given} of {n} inside as they are read, {first.inside} if {' or if '.join(texts)}",
        settle=" or ".join(dict.fromkeys(score.reading.flag for score in best)),
        evidence=evidence,
    )


def _of_single_volumes(family: Family) -> Iterator[CatalogFinding]:
    """Volumes that a reading of their own explains, such as a single binned one; the flag would hold for all."""
    groups: dict[str, list[tuple[_Score, Observed]]] = {}
    for one in family.members:
        if np.count_nonzero(~one.inside) >= FEW and one.inside.sum() <= MOST_INSIDE * len(one):
            best = _best([one])
            if best and best[0].inside == len(one):
                groups.setdefault(best[0].reading.text, []).append((best[0], one))
    for scored in groups.values():
        members = [one for _, one in scored]
        total = _Score(scored[0][0].reading, sum(score.inside for score, _ in scored), 0)
        apart = f"convert {some(sorted({one.volume for one in members}))} apart, with {total.reading.flag}"
        yield replace(_suspicion([total], members), settle=apart)
