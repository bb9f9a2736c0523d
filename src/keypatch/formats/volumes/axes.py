"""Arrays whose axes have names, in any order, with axes of length 1 besides z, y and x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keypatch.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SPATIAL = ("z", "y", "x")


@dataclass(frozen=True)
class Axes:
    """How an array's axes become z, y, x.

    Attributes:
        names: Of the array's axes, in its order; one each of z, y and x, and all others of length 1.
        source: Which metadata names them, or "assumed".
    """

    names: tuple[str, ...]
    source: str

    @property
    def order(self) -> tuple[int, ...]:
        """Positions of z, y and x in the array."""
        return tuple(self.names.index(name) for name in SPATIAL)

    def selection(self, z: slice, y: slice, x: slice) -> tuple[slice | int, ...]:
        """What of the array a box is."""
        wanted = dict(zip(SPATIAL, (z, y, x), strict=True))
        return tuple(wanted.get(name, 0) for name in self.names)

    def to_zyx(self, selected: NDArray[Any]) -> NDArray[Any]:
        """What `selection` took, with its three axes in the order z, y, x."""
        kept = [name for name in self.names if name in SPATIAL]
        return selected.transpose([kept.index(name) for name in SPATIAL])


def checked_axes(where: Path | str, shape: Sequence[int], names: Sequence[str], source: str) -> Axes:
    """The axes of an array, when they are a volume's.

    Raises:
        FormatError: If there is not one z, y and x axis, or another axis is longer than 1.
    """
    described = f"axes {', '.join(names)} of shape {' x '.join(map(str, shape))}"
    if len(names) != len(shape):
        raise FormatError.at(where, expected=f"names of {len(shape)} axes", found=described)
    if sorted(name for name in names if name in SPATIAL) != sorted(SPATIAL):
        raise FormatError.at(where, expected="one axis each of z, y and x", found=described)
    longer = [name for name, n in zip(names, shape, strict=True) if name not in SPATIAL and n != 1]
    if longer:
        hint = f"write one index of {' and '.join(longer)} as a volume of its own"
        raise FormatError.at(where, expected="one channel and one time point", found=described, hint=hint)
    return Axes(tuple(names), source)
