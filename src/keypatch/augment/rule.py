"""The rule by which an image goes through a map, in plain numpy: the definition, and the slow way of following it.

`keypatch.augment.compiled` gives the same bits about twenty times as quickly, and `keypatch.torch.resample` nearly the
same values on a device. A sample's voxel q comes from the place c in the patch,

    c = matrix (q + u(q))            with u the elastic displacement, 0 without

and has the value of the patch there, interpolated linearly between the 8 voxels around it, along z first, then y, then
x, or taken from the nearest. A place outside of the patch, whose voxels' centres reach from 0 to n - 1, is brought
back:

- "edge" to the nearest place inside,
- "reflect" to its image in mirrors that stand at 0 and n - 1, as often as needed,
- "zero" and "constant" to the nearest place inside as well, but the value fades to the fill value over the one voxel
  beyond: it is as if voxels of that value lay there (scipy's "grid-constant").

Places are float64. Between voxels the arithmetic is float32 where that holds the dtype's values exactly (8 and 16 bits)
or is the dtype itself, else float64. Integers are rounded to the nearest, half to even.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from keypatch.geometry import Shape3

REAL_OF: Final = {
    "uint8": "float32",
    "int8": "float32",
    "uint16": "float32",
    "int16": "float32",
    "float16": "float32",
    "float32": "float32",
    "int32": "float64",
    "uint32": "float64",
    "float64": "float64",
}
"""The dtypes that can be interpolated, and what is calculated in. 64-bit integers have more digits than a float64."""


@dataclass(frozen=True)
class Rule:
    """How to read a window of a patch through a map.

    Attributes:
        start: Patch index of the window's first voxel.
        full: Voxels of the patch.
        matrix: Rows of the map, each of z, y, x and 1.
        padding: "zero", "constant", "edge" or "reflect".
        fill: The value beyond, for "zero" and "constant".
        order: 0 or 1.
    """

    start: Shape3
    full: Shape3
    matrix: Sequence[Sequence[float]]
    padding: str
    fill: float
    order: int

    def places(
        self, z: int, shape: Sequence[int], displacement: Sequence[NDArray[np.float64]] | None
    ) -> list[NDArray[np.float64]]:
        """Where the voxels of the plane z come from: for each axis of the patch (h, w), before they are brought back.

        Args:
            z: Of the plane.
            shape: (h, w) of the plane.
            displacement: For each axis of the patch (h, w), what is added; None without.
        """
        y, x = np.ogrid[: float(shape[0]), : float(shape[1])]
        found = [((a * z + b * y) + t) + c * x for a, b, c, t in self.matrix]
        return found if displacement is None else [c + d for c, d in zip(found, displacement, strict=True)]

    def plane(self, window: NDArray[Any], places: Sequence[NDArray[np.float64]]) -> NDArray[Any]:
        """The values at the places of a plane, in the dtype that is calculated in, not yet rounded.

        Args:
            window: (D, H, W) of any dtype of `REAL_OF`.
            places: As `places` gives them.
        """
        inside = [self._brought_back(place, axis) for axis, place in enumerate(places)]
        value = self._linear(window, inside) if self.order else self._nearest(window, inside)
        if self.padding not in {"zero", "constant"}:
            return value
        cover, fill = self._cover(places).astype(value.dtype), value.dtype.type(self.fill)
        return np.where(cover > 0, np.where(cover < 1, (value - fill) * cover + fill, value), fill)

    def _brought_back(self, place: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        """Places on one axis, all inside."""
        last = self.full[axis] - 1.0
        if self.padding == "reflect" and last > 0:
            place = np.abs(place - 2 * last * np.rint(place / (2 * last)))
        return np.clip(place, 0.0, last)

    def _cover(self, places: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """How much of the patch a place sees: 1 inside, falling to 0 over the voxel beyond, or at once (order 0)."""
        share = np.ones(places[0].shape)
        for place, n in zip(places, self.full, strict=True):
            if self.order:
                beyond = np.abs(place - np.clip(place, 0.0, n - 1.0))
                share *= np.clip(1.0 - beyond, 0.0, 1.0)
            else:
                share *= (place >= -0.5) & (place < n - 0.5)
        return share

    def _nearest(self, window: NDArray[Any], inside: Sequence[NDArray[np.float64]]) -> NDArray[Any]:
        z, y, x = (np.floor(c + 0.5).astype(np.intp) - a for c, a in zip(inside, self.start, strict=True))
        return window[z, y, x].astype(REAL_OF[window.dtype.name])

    def _linear(self, window: NDArray[Any], inside: Sequence[NDArray[np.float64]]) -> NDArray[Any]:
        real = np.dtype(REAL_OF[window.dtype.name])
        index, share, step = [], [], []
        for c, a, n in zip(inside, self.start, self.full, strict=True):
            whole = np.clip(np.floor(c), 0.0, max(n - 2, 0))
            index.append(whole.astype(np.intp) - a)
            share.append((c - whole).astype(real))
            step.append(min(n - 1, 1))  # where the patch is one voxel thick, the voxel is its own neighbour
        z, y, x = index

        def along_z(dy: int, dx: int) -> NDArray[Any]:
            low, high = (window[z + dz, y + dy, x + dx].astype(real) for dz in (0, step[0]))
            return _between(low, high, share[0])

        def along_y(dx: int) -> NDArray[Any]:
            return _between(along_z(0, dx), along_z(step[1], dx), share[1])

        return _between(along_y(0), along_y(step[2]), share[2])


def _between(low: NDArray[Any], high: NDArray[Any], share: NDArray[Any]) -> NDArray[Any]:
    value: NDArray[Any] = low + share * (high - low)
    return value
