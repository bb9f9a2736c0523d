"""`inspect`: what a store, a patch, a volume or an annotation file is, as it was read and what was assumed."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch import geometry
from keypatch.audit.jsonable import jsonable
from keypatch.audit.metadata import dig
from keypatch.audit.savings import describe_chain
from keypatch.formats.store import Store
from keypatch.formats.store.arrays import read_array_metadata
from keypatch.formats.store.schema import GAUSSIAN, IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray

    from keypatch.formats.annotations import AnnotationOptions, AnnotationTable
    from keypatch.formats.volumes import VolumeOptions
    from keypatch.geometry import Shape3, Vector3

FIRST_ROWS: Final = 10
"""Rows of an annotation file that its description shows."""

_EXTREMES_BELOW: Final = 2**26
"""Bytes of a volume up to which its least and greatest values are read; beyond, of its middle slice only."""


@dataclass(frozen=True)
class ArrayDescription:
    """`image` or `gaussian`.

    Attributes:
        name: Of the array.
        shape: (N, …).
        dtype: Stored.
        chunk_shape: Of an inner chunk, without the axis of patches; None where it is not sharded as the schema says.
        patches_per_shard: P; None as above.
        shards: Files; None as above.
        codec: Of the chunks, as text.
        raw: Bytes, decoded.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    chunk_shape: tuple[int, ...] | None
    patches_per_shard: int | None
    shards: int | None
    codec: str
    raw: int


@dataclass(frozen=True)
class StoreDescription:
    """A store at a glance.

    Attributes:
        path: Of the store.
        schema_version: As written.
        writer: Name and version of the program that wrote it.
        digest: As written; `validate` proves it.
        patch_shape: Voxels.
        ds_factor: Voxels a coarse voxel.
        grid_shape: Coarse voxels.
        classes: Names.
        folds: 0 where there are none.
        counts: Of patches, keypoints, annotations, volumes and units.
        arrays: `image` and, where stored, `gaussian`.
        volumes: The records of the volumes, each with its number of ``patches`` and ``annotations``.
        sources: The records of the annotation files.
        recipe: Every setting that shaped the store.
        left_out: What was given and is not in the store: what, reason, count, items.
        warnings: Of the build.
        findings: Of the check of the sources.
    """

    path: str
    schema_version: str
    writer: str
    digest: str
    patch_shape: Shape3
    ds_factor: Shape3
    grid_shape: Shape3
    classes: tuple[str, ...]
    folds: int
    counts: Mapping[str, int]
    arrays: tuple[ArrayDescription, ...]
    volumes: tuple[Mapping[str, Any], ...]
    sources: tuple[Mapping[str, Any], ...]
    recipe: Mapping[str, Any]
    left_out: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]
    findings: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result


@dataclass(frozen=True)
class KeypointDescription:
    """A keypoint of a patch; coordinates are z, y, x.

    Attributes:
        class_name: Of the keypoint.
        global_coords: Voxel indices in the volume.
        local_rs: Voxel indices in the patch.
        local_ds: Indices on the coarse grid.
        inside: Whether it lies in the patch's box; if not, only its Gaussian reaches in.
        annotation: Row of annotations/.
        source: Path of the annotation file it comes from.
        source_row: Number of the record there.
        score: None where the source gives none.
    """

    class_name: str
    global_coords: Vector3
    local_rs: Vector3
    local_ds: Vector3
    inside: bool
    annotation: int
    source: str
    source_row: int
    score: float | None


@dataclass(frozen=True)
class PatchDescription:
    """One patch.

    Attributes:
        index: Of the patch.
        volume: Id.
        file: Of the volume, below the folder that all volumes share.
        kind: How it came to be.
        fold: -1 where there are none.
        origin: Volume index of its voxel (0, 0, 0).
        stop: Volume index behind its last voxel.
        valid_start: First patch index that lies in the volume.
        valid_stop: First patch index behind those.
        padded_share: Of its voxels, those outside the volume.
        voxel_spacing: Å.
        ds_sigma: Coarse voxels.
        angstrom_sigma: Å.
        minimum: Least stored value.
        maximum: Greatest stored value.
        mean: Of the stored values.
        gaussian_maximum: Greatest value of the stored Gaussian by class; None where none is stored.
        keypoints: In the store's order.
    """

    index: int
    volume: str
    file: str
    kind: str
    fold: int
    origin: tuple[int, int, int]
    stop: tuple[int, int, int]
    valid_start: tuple[int, int, int]
    valid_stop: tuple[int, int, int]
    padded_share: float
    voxel_spacing: Vector3
    ds_sigma: Vector3
    angstrom_sigma: Vector3
    minimum: float
    maximum: float
    mean: float
    gaussian_maximum: Mapping[str, float] | None
    keypoints: tuple[KeypointDescription, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result


@dataclass(frozen=True)
class VolumeDescription:
    """A source volume: what its header says, and what was assumed where it says nothing.

    Attributes:
        path: The file or folder.
        format: Name of the reader.
        shape: Voxels, z, y, x.
        dtype: That reading gives.
        voxel_spacing: Å; None where the file does not declare it.
        extent: Å; None as above.
        raw: Bytes of all voxels.
        access: What reading a region costs.
        conventions: What was read and what was assumed.
        warnings: What contradicts itself or had to be guessed.
        minimum: Least value of what was looked at.
        maximum: Greatest.
        mean: Of the same.
        not_finite: NaN and infinite voxels of the same.
        looked_at: "all voxels" or "the middle slice".
    """

    path: str
    format: str
    shape: Shape3
    dtype: str
    voxel_spacing: Vector3 | None
    extent: Vector3 | None
    raw: int
    access: str
    conventions: Mapping[str, Any]
    warnings: tuple[str, ...]
    minimum: float
    maximum: float
    mean: float
    not_finite: int
    looked_at: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result


@dataclass(frozen=True)
class AnnotationsDescription:
    """An annotation file: what was read, and what the numbers were taken to mean.

    Attributes:
        path: The file.
        format: Name of the reader.
        convention: unit, axis_order, zero, index_base, inferred and notes.
        points: Rows that are a keypoint.
        by_volume: Points of each volume that the file names, also those with none; "" for rows without a volume.
        by_class: Points of each class; "" for rows without one.
        volume_hints: What the file says of a volume's spacing, shape or file.
        low: (3,) least coordinates z, y, x, in the convention's unit; None without points.
        high: (3,) greatest.
        first_rows: The first points, one object each.
        left_out: Reason, detail, and the rows that were not used.
        warnings: One line each.
    """

    path: str
    format: str
    convention: Mapping[str, Any]
    points: int
    by_volume: Mapping[str, int]
    by_class: Mapping[str, int]
    volume_hints: Mapping[str, Mapping[str, Any]]
    low: Vector3 | None
    high: Vector3 | None
    first_rows: tuple[Mapping[str, Any], ...]
    left_out: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result


def describe_store(path: str | PathLike[str]) -> StoreDescription:
    """Describe a store.

    Raises:
        StoreError: If there is no keypatch store, or a part of it cannot be read.
    """
    store = Store(os.fspath(path))
    attributes = store.attributes
    report = attributes.get("report", {})
    return StoreDescription(
        path=store.path,
        schema_version=store.schema_version,
        writer=str(attributes.get("writer", "")),
        digest=store.digest,
        patch_shape=store.patch_shape,
        ds_factor=store.ds_factor,
        grid_shape=store.grid_shape,
        classes=store.classes,
        folds=int(attributes.get("folds", 0)),
        counts=attributes["counts"],
        arrays=tuple(_describe_array(store, name) for name in (IMAGE, GAUSSIAN) if name == IMAGE or store.has_gaussian),
        volumes=tuple(_with_counts(store)),
        sources=tuple(attributes.get("sources", ())),
        recipe=attributes.get("recipe", {}),
        left_out=tuple(report.get("left_out", ())),
        warnings=tuple(report.get("warnings", ())),
        findings=tuple(report.get("findings", ())),
    )


def describe_patch(store: Store, index: int) -> PatchDescription:
    """Describe one patch; its image is read for the extremes.

    Args:
        store: Opened.
        index: Of the patch; negative counts from the end.

    Raises:
        IndexError: If there is no such patch.
        StoreError: If a part of the store cannot be read.
    """
    patch = store[index]
    inside = geometry.inside(patch.local_rs_coords, store.patch_shape)
    valid = math.prod(int(b) - int(a) for a, b in zip(patch.valid_start, patch.valid_stop, strict=True))
    target = store.read_gaussian(index) if store.has_gaussian else None
    sources = [str(source["path"]) for source in store.attributes.get("sources", [])]
    keypoints = []
    for k, row in enumerate(patch.annotation_index.tolist()):
        score = float(store.table("annotations/score")[row])
        keypoints.append(
            KeypointDescription(
                class_name=store.classes[int(patch.class_index[k])],
                global_coords=_vector(patch.global_coords[k]),
                local_rs=_vector(patch.local_rs_coords[k]),
                local_ds=_vector(patch.local_ds_coords[k]),
                inside=bool(inside[k]),
                annotation=row,
                source=sources[int(store.table("annotations/source_index")[row])],
                source_row=int(store.table("annotations/source_row")[row]),
                score=score if math.isfinite(score) else None,
            )
        )
    image = patch.image
    return PatchDescription(
        index=patch.index,
        volume=patch.volume,
        file=str(store.volume_records[store.volume_ids.index(patch.volume)].get("path", "")),
        kind=patch.kind,
        fold=patch.fold,
        origin=_indices(patch.origin),
        stop=_indices(patch.origin + np.array(store.patch_shape)),
        valid_start=_indices(patch.valid_start),
        valid_stop=_indices(patch.valid_stop),
        padded_share=1 - valid / math.prod(store.patch_shape),
        voxel_spacing=_vector(patch.voxel_spacing),
        ds_sigma=_vector(patch.ds_sigma),
        angstrom_sigma=_vector(patch.angstrom_sigma),
        minimum=float(image.min()),
        maximum=float(image.max()),
        mean=float(image.mean(dtype=np.float64)),
        gaussian_maximum=None
        if target is None
        else {name: float(channel.max()) for name, channel in zip(store.classes, target, strict=True)},
        keypoints=tuple(keypoints),
    )


def describe_volume(path: str | PathLike[str], options: VolumeOptions | None = None) -> VolumeDescription:
    """Describe a volume file or folder. Of a large one only the middle slice is read.

    Raises:
        ReadError: If it cannot be read.
        UsageError: If the options name no format.
    """
    from keypatch.formats.volumes import VolumeOptions, open_volume  # noqa: PLC0415 - the readers import libraries

    with open_volume(Path(path), options or VolumeOptions()) as volume:
        info = volume.info
        d, h, w = info.shape
        raw = d * h * w * info.dtype.itemsize
        if raw <= _EXTREMES_BELOW:
            looked_at, values = "all voxels", volume.read((0, 0, 0), (d, h, w))
        else:
            looked_at, values = "the middle slice", volume.read((d // 2, 0, 0), (d // 2 + 1, h, w))
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    known = finite if finite.size else np.full(1, np.nan)
    return VolumeDescription(
        path=str(info.path),
        format=info.format,
        shape=info.shape,
        dtype=info.dtype.name,
        voxel_spacing=info.voxel_spacing,
        extent=None if info.voxel_spacing is None else _vector(np.multiply(info.shape, info.voxel_spacing)),
        raw=raw,
        access=info.access,
        conventions=info.conventions,
        warnings=info.warnings,
        minimum=float(known.min()),
        maximum=float(known.max()),
        mean=float(known.mean(dtype=np.float64)),
        not_finite=int(values.size - finite.size),
        looked_at=looked_at,
    )


def describe_annotations(path: str | PathLike[str], options: AnnotationOptions | None = None) -> AnnotationsDescription:
    """Describe an annotation file.

    Raises:
        ReadError: If it cannot be read.
        UsageError: If the options do not fit it.
    """
    from keypatch.formats.annotations import AnnotationOptions, read_annotations  # noqa: PLC0415

    table = read_annotations(Path(path), options or AnnotationOptions())
    coords = table.points[["z", "y", "x"]].to_numpy(np.float64)
    return AnnotationsDescription(
        path=str(table.path),
        format=table.format,
        convention=asdict(table.convention),
        points=len(table.points),
        by_volume=dict.fromkeys(table.volumes, 0) | _counted(table, "volume"),
        by_class=_counted(table, "class_name"),
        volume_hints={name: _said(asdict(hint)) for name, hint in table.volumes.items() if _said(asdict(hint))},
        low=_vector(coords.min(axis=0)) if len(coords) else None,
        high=_vector(coords.max(axis=0)) if len(coords) else None,
        first_rows=tuple(jsonable(row) for row in table.points.head(FIRST_ROWS).to_dict("records")),
        left_out=tuple(asdict(left_out) for left_out in table.left_out),
        warnings=table.warnings,
    )


def _counted(table: AnnotationTable, column: str) -> dict[str, int]:
    """Points of each name in the order of appearance; rows without one under the empty name."""
    counts: dict[str, int] = {}
    for name in table.points[column]:
        key = name if isinstance(name, str) else ""
        counts[key] = counts.get(key, 0) + 1
    return counts


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _describe_array(store: Store, name: str) -> ArrayDescription:
    array = store.image_array if name == IMAGE else store.gaussian_array
    chunk_shape = patches_per_shard = shards = None
    codec = "another than the schema's"
    folder = Path(store.path)
    if folder.is_dir():
        metadata = read_array_metadata(folder / name)
        inner = dig(metadata, "codecs", 0, "configuration")
        outer = dig(metadata, "chunk_grid", "configuration", "chunk_shape", 0)
        chain = dig(inner, "codecs")
        if isinstance(chain, list) and isinstance(outer, int) and outer > 0:
            chunk_shape, patches_per_shard = tuple(dig(inner, "chunk_shape")[1:]), outer
            shards, codec = -(-array.shape[0] // outer), describe_chain(chain)
    raw = math.prod(array.shape) * array.dtype.itemsize
    return ArrayDescription(name, array.shape, array.dtype.name, chunk_shape, patches_per_shard, shards, codec, raw)


def _with_counts(store: Store) -> list[Mapping[str, Any]]:
    n = len(store.volume_records)
    patches = np.bincount(store.table("patches/volume_index"), minlength=n)
    annotations = np.bincount(store.table("annotations/volume_index"), minlength=n)
    return [
        {**record, "patches": int(patches[k]), "annotations": int(annotations[k])}
        for k, record in enumerate(store.volume_records)
    ]


def _vector(values: NDArray[Any]) -> Vector3:
    z, y, x = (float(value) for value in values)
    return z, y, x


def _indices(values: NDArray[Any]) -> tuple[int, int, int]:
    z, y, x = (int(value) for value in values)
    return z, y, x
