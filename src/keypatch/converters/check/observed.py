"""What the check looks at: the points of a file in a volume as they were read, and families of these.

The flags that settle a reading hold for all annotation files of a conversion, and a wrong reading shows in all files
that a program wrote. So the files of one format and convention are weighed together: 500 tomograms with one point each
say as much as one with 500.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from keypatch import geometry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from keypatch.formats.annotations import Convention, VolumeHint
    from keypatch.formats.volumes import VolumeInfo
    from keypatch.geometry import Vector3


@dataclass(frozen=True)
class Observed:
    """The points of wanted classes of one annotation file in one volume.

    Attributes:
        file: Relative to the folder that all annotation files share.
        format: Of the file.
        convention: As it was read.
        volume: Id.
        info: The volume's header.
        spacing: Å, z, y, x, that counts for the volume.
        coordinate_spacing: Å of the voxels that coordinates count, where not the volume's own.
        hint: What the file says of the volume.
        source: (K, 3) float64 source coordinates, z, y, x by the convention's axis order.
        coords: (K, 3) float64 voxel-index coordinates, z, y, x, inside the volume or not.
        rows: (K,) int64 records of the file.
    """

    file: str
    format: str
    convention: Convention
    volume: str
    info: VolumeInfo
    spacing: Vector3
    coordinate_spacing: Vector3 | None
    hint: VolumeHint
    source: NDArray[np.float64]
    coords: NDArray[np.float64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.coords)

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """(K,) whether a point lies in the volume."""
        return geometry.inside(self.coords, self.info.shape)

    def select(self, chosen: NDArray[np.bool_]) -> Observed:
        """Only the points where ``chosen`` (K,) is true."""
        return replace(self, source=self.source[chosen], coords=self.coords[chosen], rows=self.rows[chosen])


@dataclass(frozen=True)
class Family:
    """Observations that share format and convention; each has points.

    Attributes:
        format: Of the files.
        convention: Of the coordinates, that of the first file.
        members: In the order of volumes and files.
    """

    format: str
    convention: Convention
    members: tuple[Observed, ...]

    def __len__(self) -> int:
        return sum(map(len, self.members))

    @property
    def files(self) -> tuple[str, ...]:
        """Of the members, sorted, each once."""
        return tuple(sorted({member.file for member in self.members}))

    @property
    def volumes(self) -> tuple[str, ...]:
        """Of the members, sorted, each once."""
        return tuple(sorted({member.volume for member in self.members}))

    @cached_property
    def n_inside(self) -> int:
        """Points that lie in their volume."""
        return sum(int(member.inside.sum()) for member in self.members)

    def only_inside(self) -> Family:
        """The same without the points that lie outside their volume."""
        kept = [member.select(member.inside) for member in self.members if member.inside.any()]
        return replace(self, members=tuple(kept))


def families(observed: Iterable[Observed]) -> list[Family]:
    """Share observations that have points out into families, in the order in which they come up."""
    groups: dict[tuple[object, ...], list[Observed]] = {}
    for one in observed:
        if len(one):
            meaning = one.convention
            key = (one.format, meaning.unit, meaning.axis_order, meaning.zero, meaning.index_base, meaning.inferred)
            groups.setdefault(key, []).append(one)
    return [Family(members[0].format, members[0].convention, tuple(members)) for members in groups.values()]
