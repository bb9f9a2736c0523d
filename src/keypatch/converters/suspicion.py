"""When points lie outside their volume: which other reading of the same numbers would bring them inside.

It is a suspicion for the person, with the flag that settles it; it never changes how points are read.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch import geometry
from keypatch.converters.placing import place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from keypatch.formats.annotations import Convention
    from keypatch.formats.volumes import VolumeInfo
    from keypatch.geometry import Vector3

FACTORS: Final = (0.5, 0.25, 0.125, 0.1, 2.0, 4.0, 8.0, 10.0)
"""Binning by 2, 4 and 8, and nm for Å, either way."""

WIN: Final = 0.5
"""Share of the points outside that another reading has to bring inside to be named."""


def suspect(source: NDArray[np.float64], convention: Convention, spacing: Vector3, info: VolumeInfo) -> str:
    """Find the reading that brings most points inside.

    Args:
        source: (K, 3) source coordinates, z, y, x by the convention's axis order.
        convention: As they were read.
        spacing: Å, z, y, x.
        info: The volume's header.

    Returns:
        One phrase with the flag, or "" where no other reading is clearly better.
    """
    given = _count_inside(source, convention, spacing, info)
    best, text = given, ""
    for label, points in _readings(source, convention):
        count = _count_inside(points, convention, spacing, info)
        if count > best:
            best, text = count, label
    if best - given < WIN * (len(source) - given):
        return ""
    return f"{best} lie inside if {text}"


def _readings(source: NDArray[np.float64], convention: Convention) -> Iterator[tuple[str, NDArray[np.float64]]]:
    listed = convention.axis_order
    for order in map("".join, permutations("xyz")):
        if order != listed:
            columns = ["zyx".index(listed[order.index(axis)]) for axis in "zyx"]
            yield f"the axes are {order} (--axis-order {order})", source[:, columns]
    for factor in FACTORS:
        yield f"they are multiplied by {factor:g} (binning or unit: --unit, --voxel-spacing)", source * factor


def _count_inside(points: NDArray[np.float64], convention: Convention, spacing: Vector3, info: VolumeInfo) -> int:
    coords = place(points, convention, spacing, info)
    return int(np.count_nonzero(geometry.inside(coords, info.shape)))
