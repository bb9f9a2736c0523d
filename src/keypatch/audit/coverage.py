"""What the patches of a store cover: which annotations lie in none, and how far patches overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keypatch.audit.counts import KeypointRows
    from keypatch.formats.store import Store


@dataclass(frozen=True)
class Uncovered:
    """An annotation that lies in no patch's box.

    Attributes:
        row: Of annotations/.
        volume: Id of its volume.
        class_name: Of its class.
        coords: z, y, x, voxel index in the volume.
        source: Path of the annotation file.
        source_row: Number of the record in it, from 0.
        in_reach: Whether some patch has it as a keypoint beyond its box.
    """

    row: int
    volume: str
    class_name: str
    coords: tuple[float, float, float]
    source: str
    source_row: int
    in_reach: bool


@dataclass(frozen=True)
class VolumeOverlap:
    """How the patches of one volume lie over each other; what they have of padding does not count.

    Attributes:
        volume: Its id.
        patches: Of it.
        pairs: Pairs of patches that share a voxel of the volume, or more.
        covered: Voxels of the volume in one patch or more.
        shared: Voxels in two patches or more.
        volume_voxels: Of the volume.
    """

    volume: str
    patches: int
    pairs: int
    covered: int
    shared: int
    volume_voxels: int

    @property
    def shared_share(self) -> float:
        """Of the covered voxels, those in more than one patch."""
        return self.shared / self.covered if self.covered else 0.0

    @property
    def covered_share(self) -> float:
        """Of the volume's voxels, those in a patch."""
        return self.covered / self.volume_voxels if self.volume_voxels else 0.0


def find_uncovered(store: Store, rows: KeypointRows) -> tuple[Uncovered, ...]:
    """Every annotation that lies in no patch, in the order of annotations/.

    Raises:
        StoreError: If a table cannot be read.
    """
    coords = store.table("annotations/coords")
    reached = np.zeros(len(coords), bool)
    covered = np.zeros(len(coords), bool)
    reached[rows.annotation] = True
    covered[rows.annotation[rows.inside]] = True
    volume, class_index = store.table("annotations/volume_index"), store.table("annotations/class_index")
    source, source_row = store.table("annotations/source_index"), store.table("annotations/source_row")
    return tuple(
        Uncovered(
            row=row,
            volume=store.volume_ids[int(volume[row])],
            class_name=store.classes[int(class_index[row])],
            coords=tuple(coords[row].tolist()),
            source=store.source_paths[int(source[row])],
            source_row=int(source_row[row]),
            in_reach=bool(reached[row]),
        )
        for row in np.flatnonzero(~covered).tolist()
    )


def find_overlap(store: Store) -> tuple[VolumeOverlap, ...]:
    """Every volume, in the store's order. Exact: every voxel and every pair is counted.

    Raises:
        StoreError: If a table cannot be read.
    """
    origin, owner = store.table("patches/origin"), store.table("patches/volume_index")
    start, stop = origin + store.table("patches/valid_start"), origin + store.table("patches/valid_stop")
    found = []
    for v, record in enumerate(store.volume_records):
        mine = owner == v
        boxes = np.stack([start[mine], stop[mine]], axis=1)
        covered, shared = count_voxels(boxes)
        found.append(
            VolumeOverlap(
                volume=record["id"],
                patches=len(boxes),
                pairs=count_pairs(boxes),
                covered=covered,
                shared=shared,
                volume_voxels=_volume_voxels(record.get("shape")),
            )
        )
    return tuple(found)


def count_pairs(boxes: NDArray[np.int64]) -> int:
    """Pairs of boxes that have a voxel in common.

    Args:
        boxes: (n, 2, 3) start and stop (exclusive), z, y, x.
    """
    boxes = boxes[(boxes[:, 0] < boxes[:, 1]).all(axis=1)]
    ordered = boxes[np.argsort(boxes[:, 0, 0], kind="stable")]
    start, stop = ordered[:, 0], ordered[:, 1]
    # Of those that begin no earlier along z, only the ones that begin before this one ends can meet it.
    ends = np.searchsorted(start[:, 0], stop[:, 0])
    pairs = 0
    for i, end in enumerate(ends.tolist()):
        later = slice(i + 1, end)
        meets = (start[later] < stop[i]) & (stop[later] > start[i])
        pairs += int(np.count_nonzero(meets.all(axis=1)))
    return pairs


def count_voxels(boxes: NDArray[np.int64]) -> tuple[int, int]:
    """Voxels in at least one box, and in at least two.

    Between two neighbouring edges along z the boxes there are always the same, so a slab is one plane times its
    thickness; within the plane only the edges of these boxes are looked at.

    Args:
        boxes: (n, 2, 3) start and stop (exclusive), z, y, x.
    """
    covered = shared = 0
    edges = np.unique(boxes[:, :, 0])
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        there = boxes[(boxes[:, 0, 0] <= low) & (boxes[:, 1, 0] >= high)][:, :, 1:]
        if not len(there):
            continue
        once, twice = _plane_area(there)
        covered += once * (high - low)
        shared += twice * (high - low)
    return covered, shared


def _plane_area(boxes: NDArray[np.int64]) -> tuple[int, int]:
    """Area in at least one rectangle, and in at least two: (n, 2, 2) start and stop, y, x."""
    ys, xs = np.unique(boxes[:, :, 0]), np.unique(boxes[:, :, 1])
    rows, columns = np.searchsorted(ys, boxes[:, :, 0]), np.searchsorted(xs, boxes[:, :, 1])
    depth = np.zeros((len(ys), len(xs)), np.int32)
    # The corners of each rectangle with their signs; summed up along both axes they count the rectangles over a cell.
    for y in (0, 1):
        for x in (0, 1):
            np.add.at(depth, (rows[:, y], columns[:, x]), 1 if x == y else -1)
    depth = depth.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)[:-1, :-1]
    area = np.diff(ys)[:, None] * np.diff(xs)[None, :]
    return int(area[depth >= 1].sum()), int(area[depth >= 2].sum())


def _volume_voxels(shape: object) -> int:
    sizes = shape if isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape) else [0]
    total = 1
    for n in sizes:
        total *= n
    return total
