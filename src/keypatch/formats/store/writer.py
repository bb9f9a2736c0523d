"""Writing a store: units in any order, then the metadata, the root's attributes at last."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.formats.store.codecs import ChunkCodec, chain_metadata
from keypatch.formats.store.digest import (
    ROOT_METADATA,
    file_digests,
    json_bytes,
    metadata_digest,
    metadata_files,
    root_text,
    store_digest,
)
from keypatch.formats.store.disk import sync_file, sync_folder, writing
from keypatch.formats.store.layout import StoreLayout, shard_key
from keypatch.formats.store.schema import ATTRIBUTE, GAUSSIAN, GROUPS, IMAGE, TABLE_ROWS_PER_CHUNK, Table, tables
from keypatch.formats.store.shard import ShardRecord, ShardWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class UnitRecord:
    """What is known of a finished unit.

    Attributes:
        unit: Its number.
        image: Of its shard of `image`.
        gaussian: Of its shard of `gaussian`; None where Gaussians are not stored.
    """

    unit: int
    image: ShardRecord
    gaussian: ShardRecord | None


def write_unit(
    folder: Path, layout: StoreLayout, unit: int, patches: Iterable[tuple[NDArray[Any], NDArray[Any] | None]]
) -> UnitRecord:
    """Write the shards of one unit, one patch in memory at a time.

    Args:
        folder: Root of the store.
        layout: Of the store.
        unit: Which unit.
        patches: For each patch of the unit, in order, its (D, H, W) image and its (C, d, h, w) Gaussian, or None
            where the layout stores none. An array may be used again for the next patch.

    Returns:
        The hashes and sizes, for `write_metadata`.

    Raises:
        WriteError: If the disk does not take it; nothing is left under the shards' names then.
        ValueError: If the number of patches, a shape or a dtype is not the layout's.
    """
    image_codec = ChunkCodec(
        chain_metadata(layout.image_codec, layout.image_dtype), layout.image_dtype, layout.chunk_shape
    )
    target_shape = (layout.n_classes, *layout.grid)
    expected = layout.unit_patches(unit)
    with contextlib.ExitStack() as stack:
        n_entries = layout.patches_per_shard
        image_path = folder / IMAGE / shard_key(unit, 4)
        image = stack.enter_context(ShardWriter(image_path, n_entries * layout.chunks_per_patch))
        gaussian, gaussian_codec = None, None
        if layout.gaussian_dtype is not None:
            gaussian = stack.enter_context(ShardWriter(folder / GAUSSIAN / shard_key(unit, 5), n_entries))
            chain = chain_metadata(layout.gaussian_codec, layout.gaussian_dtype)
            gaussian_codec = ChunkCodec(chain, layout.gaussian_dtype, target_shape)
        count = 0
        for count, (patch, target) in enumerate(patches, 1):
            if count > len(expected):
                break
            _check_array(patch, layout.patch_shape, layout.image_dtype)
            for k, box in enumerate(chunk_boxes(layout.patch_shape, layout.chunk_shape)):
                image.add((count - 1) * layout.chunks_per_patch + k, *image_codec.encode_parts(patch[box]))
            if gaussian is not None and gaussian_codec is not None and layout.gaussian_dtype is not None:
                _check_array(target, target_shape, layout.gaussian_dtype)
                gaussian.add(count - 1, *gaussian_codec.encode_parts(np.asarray(target)))
        if count != len(expected):
            message = f"unit {unit}: expected {len(expected)} patches, found {count}"
            raise ValueError(message)
        return UnitRecord(unit, image.close(), None if gaussian is None else gaussian.close())


def chunk_boxes(patch_shape: Sequence[int], chunk_shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """The boxes of a patch's inner chunks, in the C order of the shard's index."""
    steps = [range(0, n, c) for n, c in zip(patch_shape, chunk_shape, strict=True)]
    for corner in itertools.product(*steps):
        yield tuple(slice(at, at + c) for at, c in zip(corner, chunk_shape, strict=True))


def write_metadata(
    folder: Path,
    layout: StoreLayout,
    records: Sequence[UnitRecord],
    columns: Mapping[str, NDArray[Any]],
    volumes: Sequence[Mapping[str, Any]],
    attributes: Mapping[str, Any],
) -> str:
    """Write everything but the shards, make it durable, and make the folder a store by its root's attributes.

    Args:
        folder: Root of the store; its shards are there.
        layout: Of the store.
        records: One a unit, any order.
        columns: Every array of the schema's tables by its path, but those of ``integrity/``.
        volumes: One JSON object a volume.
        attributes: The root's, under `ATTRIBUTE`, without ``digests``.

    Returns:
        The digest of the store.

    Raises:
        WriteError: If the disk does not take it; the folder is no store then.
        ValueError: If a table is missing, or has another shape or dtype than the schema's.
    """
    wanted = tables(gaussian=layout.gaussian_dtype is not None)
    everything = {**columns, **_integrity(layout, records)}
    if missing := [table.path for table in wanted if table.path not in everything]:
        message = f"expected every table of the schema, found no {', '.join(missing)}"
        raise ValueError(message)
    with writing(folder):
        (folder / ROOT_METADATA).unlink(missing_ok=True)
        for name in (IMAGE, GAUSSIAN):
            if name == IMAGE or layout.gaussian_dtype is not None:
                (folder / name).mkdir(exist_ok=True)
                (folder / name / ROOT_METADATA).write_bytes(json_bytes(layout.array_metadata(name)))
        for group in GROUPS:
            own = {ATTRIBUTE: {"volumes": list(volumes)}} if group == "volumes" else {}
            (folder / group).mkdir(exist_ok=True)
            group_metadata = {"zarr_format": 3, "node_type": "group", "attributes": own}
            (folder / group / ROOT_METADATA).write_bytes(json_bytes(group_metadata))
        for table in wanted:
            _write_table(folder, table, everything[table.path], layout, everything)
        for name in metadata_files(folder):
            sync_file(folder / name)
        files = file_digests(folder)
        metadata = metadata_digest(files)
        digest = store_digest(metadata, attributes)
        whole = {**attributes, "digests": {"metadata": metadata, "store": digest, "files": files}}
        (folder / ROOT_METADATA).write_bytes(root_text(whole))
        sync_file(folder / ROOT_METADATA)
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            sync_folder(path)
    return digest


def _integrity(layout: StoreLayout, records: Sequence[UnitRecord]) -> dict[str, NDArray[Any]]:
    ordered = sorted(records, key=lambda record: record.unit)
    if [record.unit for record in ordered] != list(range(layout.n_units)):
        message = f"expected a record of each of {layout.n_units} units, found {len(ordered)}"
        raise ValueError(message)
    shards: dict[str, list[ShardRecord]] = {IMAGE: [record.image for record in ordered]}
    if layout.gaussian_dtype is not None:
        shards[GAUSSIAN] = [record.gaussian for record in ordered if record.gaussian is not None]
    columns: dict[str, NDArray[Any]] = {}
    for name, of_array in shards.items():
        hashes = np.frombuffer(b"".join(shard.sha256 for shard in of_array), np.uint8).reshape(-1, 32)
        columns[f"integrity/{name}_sha256"] = hashes
        columns[f"integrity/{name}_size"] = np.array([shard.size for shard in of_array], np.int64)
    return columns


def _write_table(
    folder: Path, table: Table, values: NDArray[Any], layout: StoreLayout, everything: Mapping[str, NDArray[Any]]
) -> None:
    import zarr  # noqa: PLC0415 - 370 ms that a reader of patches need not wait for
    from zarr.codecs import Crc32cCodec, ZstdCodec  # noqa: PLC0415

    n_rows = {
        "patches": layout.n_patches,
        "patches+1": layout.n_patches + 1,
        "keypoints": len(everything["keypoints/class_index"]),
        "annotations": len(everything["annotations/class_index"]),
        "units": layout.n_units,
    }[table.rows]
    _check_array(values, table.shape(n_rows), np.dtype(table.dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr-python announces what it does not do yet; nothing of it concerns us
        array = zarr.create_array(
            folder,
            name=table.path,
            shape=values.shape,
            chunks=(min(max(n_rows, 1), TABLE_ROWS_PER_CHUNK), *values.shape[1:]),
            dtype=values.dtype,
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            fill_value=0,
            config={"write_empty_chunks": True},
            zarr_format=3,
            overwrite=True,  # of what a build that was cut short here has left
        )
        array[...] = values


def _check_array(values: NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if values is None or values.shape != shape or values.dtype != dtype:
        found = "nothing" if values is None else f"{values.dtype} of shape {values.shape}"
        message = f"expected {dtype} of shape {shape}, found {found}"
        raise ValueError(message)
