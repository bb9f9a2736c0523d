"""A reading may be wrong though all points lie inside: what gives it away, and what coordinates cannot tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch import geometry
from keypatch.converters.check.finding import finding
from keypatch.converters.check.readings import axis_orders, enlarging, factor_of, other_frame, times_text, told
from keypatch.converters.placing import place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keypatch.converters.check.finding import CatalogFinding
    from keypatch.converters.check.observed import Family, Observed
    from keypatch.converters.check.readings import Reading

RARE: Final = 1e-3
"""Chance, for points that were read right, below which it is a warning that they lie as they do."""

FEWEST: Final = 3
"""Points of a family from which on the part of the volumes that they use says anything."""

SMALLEST_FACTOR: Final = 1.5
"""Of the factors that are looked for; 2 is the smallest that binning gives, spacings may be nearer."""

FACTOR_OF_NOTE: Final = 2.0
"""Smallest factor by which points could be multiplied that is worth a note."""

ALIKE: Final = 0.75
"""Share of the largest factor that fits from which on another one is named beside it."""

_CENTERS: Final = ("volume-center", "volume-center-minus-1")
_HALF: Final = 1e-4


def check_inside(family: Family) -> Iterator[CatalogFinding]:
    """KP607 or KP608 where the points crowd next to zero, and the notes KP611, KP612, KP614 and KP615."""
    fractions = _fractions(family)
    if fractions is not None:
        yield fractions
    else:
        yield from _small_part(family)
    yield from _orders(family)
    yield from _frames(family)
    yield from _halves(family)


def _fractions(family: Family) -> CatalogFinding | None:
    """Coordinates in 0 … 1: fractions of the shape, unless all points lie in the corner next to zero."""
    convention = family.convention
    if convention.unit == "fraction" or convention.zero == "world":
        return None
    source = np.concatenate([one.source for one in family.members])
    if source.min() < 0 or source.max() > 1 or not (source % 1).any():
        return None
    logs = [_log_share(one) for one in family.members]
    chance = float(np.exp(sum(logs)))
    if chance > RARE:
        return None
    low, high = float(source.min()), float(source.max())
    return finding(
        "KP608",
        files=family.files,
        volumes=family.volumes,
        expected=f"coordinates in {convention.unit}, up to the size of the volumes",
        found=f"all of {len(source)} points between {low:.4g} and {high:.4g} on every axis; chance of that, "
        f"if they are read right, {_short(chance):g}",
        settle="--unit fraction",
        evidence={"points": len(source), "low": low, "high": high, "chance": _short(chance)},
    )


def _log_share(one: Observed) -> float:
    """Logarithm of the share of the volume in which coordinates lie between 0 and 1."""
    ends = place(np.array([[0.0] * 3, [1.0] * 3]), one.convention, one.spacing, one.info, one.coordinate_spacing)
    lengths = np.abs(ends[1] - ends[0]) + 0.5
    return float(np.log(np.minimum(lengths / np.asarray(one.info.shape), 1)).sum())


def _small_part(family: Family) -> Iterator[CatalogFinding]:
    """KP607 where sound points would hardly ever lie so near to zero; KP612 where they might.

    Points that were read right may all lie in one place of their volume, as one object does, however many they are.
    That this place is within 1/F of the way from zero on all three axes has the chance F^-3, once for each volume.
    """
    reach = min(map(_reach, family.members))
    if reach < SMALLEST_FACTOR:
        return
    fitting = [reading for reading in enlarging(family.convention, family.members) if _holds_more(reading, family)]
    if not fitting:
        return
    factors = {reading: factor_of(reading, family.members) for reading in fitting}
    largest = max(min(factor) for factor in factors.values())
    best = told([reading for reading in fitting if min(factors[reading]) >= ALIKE * largest])
    # Points around the centre of a volume are no news where zero is that centre, as it is of a brain in the world.
    central = family.convention.zero in (*_CENTERS, "world")
    counted = reach / 2 if central else reach
    chance = max(counted, 1.0) ** (-3 * len(family.volumes))
    rare = chance <= RARE and len(family) >= FEWEST
    if not rare and reach < FACTOR_OF_NOTE:
        return
    where = "of the way from zero to the faces" if central else "of the volume, next to zero"
    otherwise = " or if ".join(reading.text + times_text(reading, family.members) for reading in best)
    yield finding(
        "KP607" if rare else "KP612",
        files=family.files,
        volumes=family.volumes,
        expected="points that reach through their volumes",
        found=f"all of {len(family)} points within 1/{_short(reach):g} {where}; all fit too if {otherwise}; "
        f"chance of that, if they are read right, {_short(chance):g}",
        settle=" or ".join(reading.flag for reading in best),
        evidence={
            "points": len(family),
            "volumes": len(family.volumes),
            "largest_factor": _short(reach),
            "chance": _short(chance),
            "fitting": [{"flag": reading.flag, "factor": list(factors[reading])} for reading in fitting],
        },
    )


def _reach(one: Observed) -> float:
    """The largest factor by which all points can be multiplied and stay inside; 1 where zero is not in the volume.

    Voxels of any length begin at the corner of the volume, so that is what stays in place, unless zero is elsewhere.
    """
    shape = np.asarray(one.info.shape)
    zero = np.full(3, -0.5)
    if one.convention.zero in (*_CENTERS, "world"):
        zero = place(np.zeros(3), one.convention, one.spacing, one.info, one.coordinate_spacing)
    if (zero < -0.5).any() or (zero > shape - 0.5).any():
        return 1.0
    away = one.coords - zero
    room = np.where(away > 0, shape - 0.5 - zero, zero + 0.5)
    return float(np.min(room / np.maximum(np.abs(away), 1e-9)))


def _holds_more(reading: Reading, family: Family) -> bool:
    """Whether a reading moves points away from zero and keeps all of them inside."""
    if min(factor_of(reading, family.members)) < SMALLEST_FACTOR:
        return False
    return _holds(reading, family.members)


def _holds(reading: Reading, members: Sequence[Observed]) -> bool:
    return all(geometry.inside(reading.place(one), one.info.shape).all() for one in members)


def _orders(family: Family) -> Iterator[CatalogFinding]:
    """KP611: the other orders that hold all points."""
    fitting = [reading for reading in axis_orders(family.convention) if _holds(reading, family.members)]
    if not fitting:
        return
    orders = [reading.convention.axis_order for reading in fitting]
    yield finding(
        "KP611",
        files=family.files,
        volumes=family.volumes,
        expected="coordinates that fit in one axis order alone",
        found=f"all of {len(family)} points inside as {family.convention.axis_order}, as they are read, and also as "
        f"{', '.join(orders)}",
        settle="--axis-order, if another is the right one",
        evidence={"points": len(family), "read": family.convention.axis_order, "fitting": orders},
    )


def _frames(family: Family) -> Iterator[CatalogFinding]:
    """KP615: world coordinates that fit in either frame."""
    for reading in other_frame(family.convention):
        if _holds(reading, family.members):
            yield finding(
                "KP615",
                files=family.files,
                volumes=family.volumes,
                expected="world coordinates that fit in one frame alone",
                found=f"all of {len(family)} points inside as they are read, and also if {reading.text}",
                evidence={"points": len(family)},
            )


def _halves(family: Family) -> Iterator[CatalogFinding]:
    """KP614: all coordinates halfway between two voxel centres."""
    zero = family.convention.zero
    coords = np.concatenate([one.coords for one in family.members])
    if zero not in ("voxel-center", "corner") or len(coords) < 2 or (np.abs(coords % 1 - 0.5) > _HALF).any():
        return
    other = "corner" if zero == "voxel-center" else "voxel-center"
    yield finding(
        "KP614",
        files=family.files,
        volumes=family.volumes,
        expected="coordinates at voxel centres or anywhere between",
        found=f"all of {len(coords)} points at .5 on every axis",
        settle=f"--zero {other}, if voxels were meant",
        evidence={"points": len(coords)},
    )


def _short(value: float) -> float:
    return float(f"{value:.3g}")
