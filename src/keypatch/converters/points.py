"""Annotations of one volume, column by column."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Points:
    """Annotations of one volume, column by column.

    Attributes:
        coords: (A, 3) float64 voxel-index coordinates, z, y, x, all inside the volume.
        class_index: (A,) int32.
        source_index: (A,) int32.
        source_row: (A,) int64.
        score: (A,) float64.
    """

    coords: NDArray[np.float64]
    class_index: NDArray[np.int32]
    source_index: NDArray[np.int32]
    source_row: NDArray[np.int64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.coords)

    def select(self, chosen: NDArray[np.bool_]) -> Points:
        """Those where ``chosen`` (A,) is true."""
        return Points(*(getattr(self, f.name)[chosen] for f in fields(self)))

    @staticmethod
    def concatenate(parts: Sequence[Points]) -> Points:
        """All of the parts, in order; none of no parts."""
        everything = [Points(np.empty((0, 3)), *(np.empty(0, dtype) for dtype in ("i4", "i4", "i8", "f8"))), *parts]
        return Points(*(np.concatenate([getattr(part, f.name) for part in everything]) for f in fields(Points)))
