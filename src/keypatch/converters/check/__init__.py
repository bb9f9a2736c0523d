"""The check of the sources, before anything is built: each doubt is a finding with its numbers and the flag for it.

It never changes how points are read. An error is what cannot be right, a warning what is probably not, a note what
coordinates alone cannot tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keypatch.converters.check.codes import CODES
from keypatch.converters.check.finding import CatalogFinding
from keypatch.converters.check.inside import check_inside
from keypatch.converters.check.observed import Observed, families
from keypatch.converters.check.outside import MOST_INSIDE, check_outside
from keypatch.converters.check.stated import check_conventions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["CODES", "CatalogFinding", "Observed", "check_points"]


def check_points(observed: Iterable[Observed]) -> Iterator[CatalogFinding]:
    """How the points of all files lie in their volumes; see `Observed`.

    Files of one format and convention are weighed together. What points inside say is asked of those that are inside,
    where most of them are.
    """
    groups = families(observed)
    for family in groups:
        outside = list(check_outside(family))
        yield from outside
        other_reading = any(found.code not in ("KP601", "KP602") for found in outside)
        if family.n_inside > MOST_INSIDE * len(family) and not other_reading:
            yield from check_inside(family.only_inside())
    yield from check_conventions(groups)
