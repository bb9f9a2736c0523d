"""Where things of a store come from and where they ended up: its arrays, its volumes, its annotations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch import geometry
from keypatch.audit.jsonable import jsonable
from keypatch.audit.tree import walk
from keypatch.errors import UsageError
from keypatch.formats.store.schema import GAUSSIAN, GROUPS, IMAGE, tables
from keypatch.formats.store.tables import OFFSETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from keypatch.formats.store import Store
    from keypatch.geometry import Vector3

_MEANINGS: Final = {
    IMAGE: "patches, sharded along the first axis",
    GAUSSIAN: "targets, sharded as the image",
    "patches": "one row a patch",
    "keypoints": "one row a keypoint as seen from a patch, in the order of the patches",
    "annotations": "every annotation of the sources, in a patch or not",
    "volumes": "attributes alone: what each volume is",
    "integrity": "what each shard is, to the byte",
}


@dataclass(frozen=True)
class Node:
    """A group or an array of a store.

    Attributes:
        path: Below the store.
        shape: Of an array; None for a group.
        dtype: Of an array; None for a group.
        meaning: One line.
        files: Below it; None where the store is no local folder.
        size: Bytes of these; None as above.
    """

    path: str
    shape: tuple[int, ...] | None
    dtype: str | None
    meaning: str
    files: int | None
    size: int | None


@dataclass(frozen=True)
class PatchRow:
    """A patch in few words.

    Attributes:
        index: Of the patch.
        kind: How it came to be.
        fold: -1 where there are none.
        volume: Id.
        origin: Volume index of its voxel (0, 0, 0).
        inside: Keypoints that lie in its box, by class.
        beyond: Keypoints that only reach into it.
    """

    index: int
    kind: str
    fold: int
    volume: str
    origin: tuple[int, int, int]
    inside: Mapping[str, int]
    beyond: int


@dataclass(frozen=True)
class AnnotationRow:
    """An annotation in few words.

    Attributes:
        row: Of annotations/.
        class_name: Of the annotation.
        coords: Voxel indices in the volume.
        source: Path of the annotation file.
        source_row: Number of the record there.
        patches: That hold it in their box.
    """

    row: int
    class_name: str
    coords: Vector3
    source: str
    source_row: int
    patches: tuple[int, ...]


@dataclass(frozen=True)
class Sighting:
    """An annotation as one patch has it.

    Attributes:
        patch: Index.
        kind: Of the patch.
        origin: Of the patch.
        local_rs: Voxel indices in the patch.
        local_ds: Indices on its coarse grid.
        inside: Whether it lies in the patch's box; if not, only its Gaussian reaches in.
    """

    patch: int
    kind: str
    origin: tuple[int, int, int]
    local_rs: Vector3
    local_ds: Vector3
    inside: bool


@dataclass(frozen=True)
class AnnotationDescription:
    """Where an annotation came from, and where it ended up.

    Attributes:
        row: Of annotations/.
        class_name: Of the annotation.
        volume: Id.
        fold: Of the volume; -1 where there are none.
        coords: Voxel indices in the volume.
        score: None where the source gives none.
        source: Path of the annotation file.
        source_row: Number of the record there.
        sightings: In the patches that have it, those that hold it in their box first.
    """

    row: int
    class_name: str
    volume: str
    fold: int
    coords: Vector3
    score: float | None
    source: str
    source_row: int
    sightings: tuple[Sighting, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result


@dataclass(frozen=True)
class StoredVolumeDescription:
    """A volume of a store and what came of it.

    Attributes:
        record: What the store says of it.
        patches: That were cut from it.
        annotations: That it has.
    """

    record: Mapping[str, Any]
    patches: tuple[PatchRow, ...]
    annotations: tuple[AnnotationRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result


def describe_tree(store: Store) -> tuple[Node, ...]:
    """Every group and array of a store, groups before what is in them.

    Raises:
        StoreError: If a table cannot be read.
    """
    files = walk(Path(store.path)).files if Path(store.path).is_dir() else None
    nodes = [_array_node(IMAGE, store.image_array.shape, store.image_array.dtype.name, files)]
    if store.has_gaussian:
        nodes.append(_array_node(GAUSSIAN, store.gaussian_array.shape, store.gaussian_array.dtype.name, files))
    listed = tables(gaussian=store.has_gaussian)
    for group in GROUPS:
        nodes.append(Node(group, None, None, _MEANINGS[group], *_on_disk(group, files)))
        for table in (table for table in listed if table.path.startswith(f"{group}/")):
            shape = store.table(table.path).shape
            nodes.append(Node(table.path, shape, table.dtype, table.meaning, *_on_disk(table.path, files)))
    return tuple(nodes)


def _array_node(name: str, shape: tuple[int, ...], dtype: str, files: Mapping[str, int] | None) -> Node:
    return Node(name, shape, dtype, _MEANINGS[name], *_on_disk(name, files))


def _on_disk(path: str, files: Mapping[str, int] | None) -> tuple[int, int] | tuple[None, None]:
    if files is None:
        return None, None
    sizes = [size for name, size in files.items() if name.startswith(f"{path}/")]
    return len(sizes), sum(sizes)


def describe_patches(store: Store, indices: list[int]) -> tuple[PatchRow, ...]:
    """Patches in few words; no image is read.

    Raises:
        StoreError: If a table cannot be read.
    """
    return tuple(_patch_row(store, index) for index in indices)


def _patch_row(store: Store, index: int) -> PatchRow:
    patch = store[index]
    inside = geometry.inside(patch.local_rs_coords, store.patch_shape)
    counts = np.bincount(patch.class_index[inside], minlength=len(store.classes))
    return PatchRow(
        index=patch.index,
        kind=patch.kind,
        fold=patch.fold,
        volume=patch.volume,
        origin=_indices(patch.origin),
        inside={name: int(n) for name, n in zip(store.classes, counts, strict=True) if n},
        beyond=int(np.count_nonzero(~inside)),
    )


def describe_stored_volume(store: Store, volume: str) -> StoredVolumeDescription:
    """Describe a volume of a store.

    Raises:
        UsageError: If the store has none of that id.
        StoreError: If a table cannot be read.
    """
    if volume not in store.volume_ids:
        known = ", ".join(store.volume_ids[:20])
        raise UsageError.at("--volume", expected=f"one of {known}", found=repr(volume))
    index = store.volume_ids.index(volume)
    patches = np.flatnonzero(store.table("patches/volume_index") == index).tolist()
    rows = np.flatnonzero(store.table("annotations/volume_index") == index).tolist()
    holders = _holders(store)
    return StoredVolumeDescription(
        record=store.volume_records[index],
        patches=describe_patches(store, patches),
        annotations=tuple(_annotation_row(store, row, holders) for row in rows),
    )


def _holders(store: Store) -> Mapping[int, list[int]]:
    """Annotations to the patches that hold them in their box."""
    inside = geometry.inside(store.table("keypoints/local_rs_coords"), store.patch_shape)
    rows = np.flatnonzero(inside)
    patches = _patches_of(store, rows)
    holders: dict[int, list[int]] = {}
    for annotation, patch in zip(store.table("keypoints/annotation_index")[rows].tolist(), patches, strict=True):
        holders.setdefault(annotation, []).append(patch)
    return holders


def _patches_of(store: Store, rows: NDArray[np.int64]) -> list[int]:
    """The patches that rows of keypoints/ belong to."""
    found: list[int] = (np.searchsorted(store.table(OFFSETS), rows, side="right") - 1).tolist()
    return found


def _annotation_row(store: Store, row: int, holders: Mapping[int, list[int]]) -> AnnotationRow:
    return AnnotationRow(
        row=row,
        class_name=store.classes[int(store.table("annotations/class_index")[row])],
        coords=_vector(store.table("annotations/coords")[row]),
        source=store.source_paths[int(store.table("annotations/source_index")[row])],
        source_row=int(store.table("annotations/source_row")[row]),
        patches=tuple(holders.get(row, ())),
    )


def find_annotations(store: Store, name: str) -> list[int]:
    """Rows of annotations/ of what a person names.

    Args:
        store: Opened.
        name: A row of annotations/, or ``FILE:ROW`` with the path or name of a source and the number of the record
            in it, from 0.

    Returns:
        One row, or several where a record became several annotations.

    Raises:
        UsageError: If there is none; it says where the record was left out, if the store's report does.
    """
    file, _, row = name.rpartition(":")
    if not (row.isascii() and row.isdigit()):
        raise UsageError.at("--annotation", expected="ROW or FILE:ROW, such as 7 or picks.csv:7", found=repr(name))
    number, n_rows = int(row), len(store.table("annotations/source_row"))
    if not file:
        if number >= n_rows:
            raise UsageError.at("--annotation", expected=f"a row from 0 to {n_rows - 1}", found=row)
        return [number]
    source = _source_index(store, file)
    mine = store.table("annotations/source_index") == source
    rows: list[int] = np.flatnonzero(mine & (store.table("annotations/source_row") == number)).tolist()
    if not rows:
        raise UsageError.at(
            "--annotation",
            expected=f"a record of {store.source_paths[source]} that is in the store",
            found=f"{number}, {_why_not(store, store.source_paths[source], number)}",
        )
    return rows


def _source_index(store: Store, file: str) -> int:
    paths = store.source_paths
    found = [k for k, path in enumerate(paths) if file in (path, Path(path).name)]
    if len(found) != 1:
        some = ", ".join(paths[:20])
        what = "none of that name" if not found else "several of that name: give the whole path"
        raise UsageError.at("--annotation", expected=f"one of the sources {some}", found=f"{file!r}, {what}")
    return found[0]


def _why_not(store: Store, source: str, number: int) -> str:
    """What the report of the store says of a record that is not in it."""
    report = store.attributes.get("report", {})
    for entry in report.get("left_out", []) if isinstance(report, dict) else []:
        if entry.get("what") == "annotations" and f"{source} row {number}" in entry.get("items", []):
            return f"which was left out: {entry.get('reason')}"
    return "which is no annotation there"


def describe_annotation(store: Store, row: int) -> AnnotationDescription:
    """Say where an annotation came from, and which patches have it.

    Args:
        store: Opened.
        row: Of annotations/.

    Raises:
        StoreError: If a table cannot be read.
    """
    keypoints = np.flatnonzero(store.table("keypoints/annotation_index") == row)
    inside = geometry.inside(store.table("keypoints/local_rs_coords")[keypoints], store.patch_shape)
    order = np.argsort(~inside, kind="stable")
    patches = _patches_of(store, keypoints)
    sightings = [
        Sighting(
            patch=patches[k],
            kind=store.kinds[int(store.table("patches/kind")[patches[k]])],
            origin=_indices(store.table("patches/origin")[patches[k]]),
            local_rs=_vector(store.table("keypoints/local_rs_coords")[keypoints[k]]),
            local_ds=_vector(store.table("keypoints/local_ds_coords")[keypoints[k]]),
            inside=bool(inside[k]),
        )
        for k in order.tolist()
    ]
    short = _annotation_row(store, row, {})
    record = store.volume_records[int(store.table("annotations/volume_index")[row])]
    score = float(store.table("annotations/score")[row])
    return AnnotationDescription(
        row=row,
        class_name=short.class_name,
        volume=record["id"],
        fold=int(record.get("fold", -1)),
        coords=short.coords,
        score=score if math.isfinite(score) else None,
        source=short.source,
        source_row=short.source_row,
        sightings=tuple(sightings),
    )


def _vector(values: NDArray[Any]) -> Vector3:
    z, y, x = (float(value) for value in values)
    return z, y, x


def _indices(values: NDArray[Any]) -> tuple[int, int, int]:
    z, y, x = (int(value) for value in values)
    return z, y, x
