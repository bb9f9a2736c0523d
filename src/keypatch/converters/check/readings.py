"""Other readings of the same numbers, each with the flag that would take it: axis orders, units, zeros, factors.

A reading is a suspicion for the person; none changes how points are placed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from keypatch.converters.placing import place
from keypatch.geometry import ANGSTROM_PER, UNITS, Zero

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from keypatch.converters.check.observed import Observed
    from keypatch.formats.annotations import Convention
    from keypatch.geometry import Vector3

Kind: TypeAlias = Literal["axes", "scale", "zero", "base"]

FACTORS: Final = (0.5, 2.0, 0.25, 4.0, 0.125, 8.0, 0.1, 10.0)
"""Binning by 2, 4 and 8, and nm for Å, either way, the nearest to 1 first."""

SAME_SPACING: Final = 0.005
"""Relative difference below which two spacings are one; CZII's folder says 10, its header 10.012."""

_CENTERS: Final = ("volume-center", "volume-center-minus-1")
_CORNERS: Final[dict[Zero, Zero]] = {"voxel-center": "corner", "corner": "voxel-center"}
_ZERO_WORDS: Final[dict[Zero, str]] = {
    "corner": "zero is the corner of the first voxel",
    "voxel-center": "zero is the centre of the first voxel",
    "volume-center": "zero is the centre of the volume",
    "world": "zero is that of the header's world",
}
_OTHER_FRAME: Final = (1.0, -1.0, -1.0)
"""From LPS to RAS or back, z, y, x."""


@dataclass(frozen=True)
class Reading:
    """One other meaning of a family's coordinates.

    Attributes:
        kind: What it changes.
        text: One phrase, to follow "if".
        flag: What settles it, or what else does.
        convention: The other meaning.
        columns: Which of the source's z, y, x columns is z, y, x now.
        sign: (3,) factors of the source, z, y, x.
        times: How much longer the vectors from zero become, in voxels.
        by_hint: Coordinates count voxels of the spacing that the file states.
        gentle: It moves points by a voxel at most or swaps axes: a few points outside may be all that shows of it.
    """

    kind: Kind
    text: str
    flag: str
    convention: Convention
    columns: tuple[int, int, int] = (0, 1, 2)
    sign: tuple[float, float, float] = (1.0, 1.0, 1.0)
    times: float = 1.0
    by_hint: bool = False
    gentle: bool = False

    def place(self, one: Observed) -> NDArray[np.float64]:
        """(K, 3) float64 voxel-index coordinates, z, y, x, as they would be."""
        source = one.source[:, self.columns] * np.array(self.sign)
        picked = one.coordinate_spacing if self.convention.unit == "voxel" else None
        spacing = one.spacing
        if self.by_hint:
            picked = one.hint.voxel_spacing
        elif self.times != 1 and self.convention.unit == "voxel":
            picked = _times(picked or spacing, self.times)
        elif self.times != 1 and self.convention.zero != "world" and self.convention.unit in ANGSTROM_PER:
            spacing = _times(spacing, 1 / self.times)
        elif self.times != 1:
            source = source * self.times
        return place(source, self.convention, spacing, one.info, picked)


def readings(convention: Convention, members: Sequence[Observed]) -> list[Reading]:
    """All that are tried, the likeliest and smallest change first."""
    return [
        *_bases(convention),
        *_zeros(convention, members),
        *axis_orders(convention),
        *_units(convention, members),
        *_other_spacings(convention, members),
        *_factors(convention, members),
        *_units_from_center(convention, members),
    ]


def axis_orders(convention: Convention) -> list[Reading]:
    """The five others."""
    listed = convention.axis_order
    orders = [order for order in map("".join, permutations("xyz")) if order != listed]
    return [
        Reading(
            "axes",
            f"the axes are {order}",
            f"--axis-order {order}",
            replace(convention, axis_order=order),
            columns=tuple("zyx".index(listed[order.index(axis)]) for axis in "zyx"),  # type: ignore[arg-type]
            gentle=True,
        )
        for order in orders
    ]


def enlarging(convention: Convention, members: Sequence[Observed]) -> list[Reading]:
    """Those that may move points away from zero: units, spacings and factors."""
    return [
        *_units(convention, members),
        *_other_spacings(convention, members),
        *(reading for reading in _factors(convention, members) if reading.times > 1),
    ]


def _bases(convention: Convention) -> Iterator[Reading]:
    if convention.unit != "fraction" and convention.zero not in (*_CENTERS, "world"):
        base = 1 - convention.index_base
        change = replace(convention, index_base=base)
        yield Reading("base", f"the first voxel is counted as {base}", f"--index-base {base}", change, gentle=True)


def other_frame(convention: Convention) -> list[Reading]:
    """LPS for RAS or back, for world coordinates."""
    if convention.zero != "world":
        return []
    text = "x and y run the other way (LPS for RAS)"
    return [Reading("zero", text, "correct the file's frame", convention, sign=_OTHER_FRAME)]


def _zeros(convention: Convention, members: Sequence[Observed]) -> Iterator[Reading]:
    if convention.zero == "world":
        yield from other_frame(convention)
        return
    has_world = all(one.info.world is not None for one in members) and convention.unit in ANGSTROM_PER
    opposite = _opposite(convention)
    others: list[Zero] = [opposite, "world"] if has_world else [opposite]
    if convention.zero in _CORNERS:
        others.insert(0, _CORNERS[convention.zero])
    for zero in others:
        gentle = {zero, convention.zero} == _CORNERS.keys()
        yield Reading("zero", _ZERO_WORDS[zero], f"--zero {zero}", replace(convention, zero=zero), gentle=gentle)


def _opposite(convention: Convention) -> Literal["volume-center", "voxel-center"]:
    return "voxel-center" if convention.zero in _CENTERS else "volume-center"


def _units(convention: Convention, members: Sequence[Observed]) -> Iterator[Reading]:
    if any(one.coordinate_spacing is not None for one in members):
        return
    for unit in UNITS:
        if unit != convention.unit and (convention.zero != "world" or unit in ANGSTROM_PER):
            change = replace(convention, unit=unit)
            yield Reading("scale", f"they are in {_words(unit)}", f"--unit {unit}", change)


def _units_from_center(convention: Convention, members: Sequence[Observed]) -> Iterator[Reading]:
    if convention.zero == "world":
        return
    zero = _opposite(convention)
    for reading in _units(convention, members):
        change = replace(reading.convention, zero=zero)
        where = "centre of the volume" if zero == "volume-center" else "first voxel"
        yield replace(
            reading,
            text=f"{reading.text} from the {where}",
            flag=f"{reading.flag} --zero {zero}",
            convention=change,
        )


def _other_spacings(convention: Convention, members: Sequence[Observed]) -> Iterator[Reading]:
    """Coordinates in voxels of the spacing that the files state, where the headers have another."""
    stated = {one.hint.voxel_spacing for one in members} - {None}
    known = all(one.hint.voxel_spacing is not None and one.coordinate_spacing is None for one in members)
    if convention.unit != "voxel" or not known:
        return
    if all(same_spacing(one.spacing, one.hint.voxel_spacing) for one in members):
        return
    spacing = shared(stated)
    flag = f"--coordinate-spacing {spacing}" if spacing else "convert volumes of one spacing at a time"
    told = f"of {spacing} Å" if spacing else "of the spacing that the files state"
    yield Reading("scale", f"they count voxels {told}", flag, convention, by_hint=True)


def _factors(convention: Convention, members: Sequence[Observed]) -> Iterator[Reading]:
    for times in FACTORS:
        yield Reading(
            "scale",
            f"they are multiplied by {times:g}",
            _factor_flag(convention, members, times),
            convention,
            times=times,
        )


def _factor_flag(convention: Convention, members: Sequence[Observed], times: float) -> str:
    if convention.zero == "world" or convention.unit == "fraction":
        return "correct the file"
    if convention.unit == "voxel":
        flag, factor = "--coordinate-spacing", times
        spacings = {one.coordinate_spacing or one.spacing for one in members}
    else:
        flag, factor = "--voxel-spacing", 1 / times
        spacings = {one.spacing for one in members}
    value = shared({_times(spacing, factor) for spacing in spacings})
    return f"{flag} {value}" if value else f"{flag} {factor:g} times each volume's own, one spacing at a time"


def told(fitting: Sequence[Reading]) -> list[Reading]:
    """Those that a person is told of: a bare factor is no news beside a unit or a spacing that fits as well."""
    return [reading for reading in fitting if reading.times == 1] or list(fitting)


def factor_of(reading: Reading, members: Sequence[Observed]) -> tuple[float, ...]:
    """How much longer a reading makes steps of the source in z, y and x, in voxels; the least of all volumes."""
    ratios = [_steps(one, reading) / _steps(one, None) for one in members]
    return tuple(float(f"{value:.4g}") for value in np.min(ratios, axis=0))


def times_text(reading: Reading, members: Sequence[Observed]) -> str:
    """`` (times 13.48)`` where a reading changes lengths and does not say so itself; else nothing."""
    if reading.kind != "scale" or reading.times != 1:
        return ""
    return f" (times {', '.join(dict.fromkeys(f'{factor:g}' for factor in factor_of(reading, members)))})"


def _steps(one: Observed, reading: Reading | None) -> NDArray[np.float64]:
    """(3,) voxels that a step of 1 in the source's z, y and x is long."""
    ends = np.vstack([np.zeros((1, 3)), np.eye(3)])
    if reading is None:
        placed = place(ends, one.convention, one.spacing, one.info, one.coordinate_spacing)
    else:
        placed = reading.place(replace(one, source=ends))
    return np.asarray(np.linalg.norm(placed[1:] - placed[0], axis=1), np.float64)


def same_spacing(one: Vector3 | None, other: Vector3 | None) -> bool:
    """Whether two spacings are one but for rounding; one that is not known differs from none."""
    return one is None or other is None or bool(np.allclose(one, other, rtol=SAME_SPACING, atol=0))


def shared(spacings: set[Vector3 | None] | set[Vector3]) -> str:
    """The one spacing as the text of a flag; "" where there are several."""
    distinct = {tuple(f"{value:g}" for value in spacing) for spacing in spacings if spacing is not None}
    if len(distinct) != 1:
        return ""
    (values,) = distinct
    return values[0] if len(set(values)) == 1 else ",".join(values)


def _times(spacing: Vector3, factor: float) -> Vector3:
    z, y, x = spacing
    return z * factor, y * factor, x * factor


def _words(unit: str) -> str:
    return {"voxel": "voxels", "angstrom": "Å", "fraction": "fractions of the shape"}.get(unit, unit)
