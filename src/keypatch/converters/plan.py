"""The plan: which patches a store will have, from annotations and headers alone. No voxel is read.

The plan decides everything but the bytes of the images: order, boxes, keypoints, folds, shards. It is a pure function
of the recipe and the sources' headers, so that any number of workers builds the same store from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch import geometry
from keypatch.converters.catalog import Catalog, build_catalog
from keypatch.converters.catalog_volume import CatalogVolume
from keypatch.converters.folds import assign_folds
from keypatch.converters.notes import Notes, Omission
from keypatch.converters.sampling import sample_volume
from keypatch.converters.scaling import check_range, resolve_dtype
from keypatch.errors import CheckError, UsageError
from keypatch.formats.store.codecs import choose_codec
from keypatch.formats.store.layout import (
    StoreLayout,
    check_chunk_shape,
    choose_chunk_shape,
    choose_patches_per_shard,
)
from keypatch.formats.store.schema import KINDS
from keypatch.gaussian import REACH

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.converters.recipe import Recipe

_PATCHES_AT_ONCE = 100_000


@dataclass(frozen=True)
class Plan:
    """Everything that is known of a store before its first voxel is read.

    Attributes:
        recipe: Resolved.
        catalog: The volumes that have a place in the store, and their annotations.
        folds: (V,) int16.
        layout: Shapes, dtypes, codecs, shards.
        columns: Every array of the schema's tables by its path, but those of ``integrity/``.
        left_out: What was given and is not used.
        warnings: One line each.
    """

    recipe: Recipe
    catalog: Catalog
    folds: NDArray[np.int16]
    layout: StoreLayout
    columns: dict[str, NDArray[Any]]
    left_out: tuple[Omission, ...]
    warnings: tuple[str, ...]


def build_plan(recipe: Recipe, target: Path | None = None) -> Plan:
    """Read headers and annotations and place all patches.

    Args:
        recipe: Checked.
        target: Where the store will lie; one that lies there already is no source, though a pattern may match it.

    Raises:
        ReadError: If a source cannot be read.
        UsageError: If the recipe does not fit the sources, or leaves no patch.
        CheckError: If the sources cannot be right as they are read.
    """
    plan = plan_catalog(recipe, build_catalog(recipe, target))
    if plan.catalog.has_errors:
        raise CheckError.of(plan.catalog.findings)
    return plan


def plan_catalog(recipe: Recipe, catalog: Catalog) -> Plan:
    """Place all patches of a catalog that was read already; raises as `build_plan`, but for what its check found."""
    notes = Notes(catalog.left_out, catalog.warnings)
    catalog = replace(catalog, volumes=_large_enough(recipe, catalog.volumes, notes))
    parts, kinds = [], []
    for volume in catalog.volumes:
        sampled = sample_volume(volume.id, volume.info.shape, volume.points.coords, recipe)
        for one in sampled:
            if one.missing:
                reason = f"of kind {one.kind}: their volume {one.why}"
                notes.omit("patches", reason, [f"{one.missing} in {volume.id}"], one.missing)
        parts.append(np.concatenate([one.origins for one in sampled]))
        kinds.append([KINDS.index(one.kind) for one in sampled for _ in one.origins])
    if not sum(map(len, parts)):
        raise UsageError.at(
            ", ".join(recipe.volumes),
            expected="at least one patch",
            found="; ".join(omission.reason for omission in notes.left_out) or "volumes without annotations",
            hint="ask for --negatives or --grid where there are no annotations",
        )
    counts = np.array([np.bincount(v.points.class_index, minlength=len(catalog.classes)) for v in catalog.volumes])
    folds = assign_folds([volume.id for volume in catalog.volumes], counts, recipe.folds, recipe.seed)
    columns = _patch_columns(recipe, catalog, parts, kinds, folds)
    columns |= _annotation_columns(catalog)
    columns |= _keypoint_columns(recipe, catalog, columns)
    layout = _layout(recipe, catalog, sum(map(len, parts)))
    return Plan(recipe, catalog, folds, layout, columns, notes.left_out, notes.warnings)


def _large_enough(recipe: Recipe, volumes: Sequence[CatalogVolume], notes: Notes) -> tuple[CatalogVolume, ...]:
    def fits(volume: CatalogVolume) -> bool:
        return all(n >= p for n, p in zip(volume.info.shape, recipe.patch_shape, strict=True))

    small = [volume for volume in volumes if not fits(volume)]
    names = [f"{volume.relative_path} ({'×'.join(map(str, volume.info.shape))})" for volume in small]
    if recipe.padding == "inside":
        notes.omit("volumes", "smaller than the patch, and --padding inside fills nothing", names)
        return tuple(volume for volume in volumes if fits(volume))
    for name in names:
        notes.warn(name, "smaller than the patch on some axis; the rest of each patch is padding")
    return tuple(volumes)


def _layout(recipe: Recipe, catalog: Catalog, n_patches: int) -> StoreLayout:
    dtypes = {volume.id: resolve_dtype(recipe.dtype, volume.info.dtype) for volume in catalog.volumes}
    different = sorted({dtype.name for dtype in dtypes.values()})
    if len(different) > 1:
        raise UsageError.at(
            ", ".join(recipe.volumes),
            expected="volumes of one dtype",
            found=", ".join(different),
            hint="choose the stored one with --dtype",
        )
    dtype = next(iter(dtypes.values()))
    for volume in catalog.volumes:
        check_range(volume.info.dtype, dtype, recipe.clip_percentiles)
    chunk_shape = (
        choose_chunk_shape(recipe.patch_shape, dtype.itemsize)
        if recipe.chunk_shape is None
        else check_chunk_shape(recipe.chunk_shape, recipe.patch_shape)
    )
    patch_bytes = int(np.prod(recipe.patch_shape)) * dtype.itemsize
    target = np.dtype(recipe.gaussian_dtype)
    return StoreLayout(
        n_patches=n_patches,
        patch_shape=recipe.patch_shape,
        ds_factor=recipe.ds_factor,
        n_classes=len(catalog.classes),
        image_dtype=dtype,
        image_codec=choose_codec(recipe.codec, dtype),
        chunk_shape=chunk_shape,
        patches_per_shard=choose_patches_per_shard(n_patches, patch_bytes, recipe.shard_size),
        gaussian_dtype=target if recipe.gaussian else None,
        gaussian_codec=choose_codec(recipe.codec, target),
    )


def _sigmas(recipe: Recipe, volume: CatalogVolume) -> NDArray[np.float64]:
    if recipe.sigma_angstrom is not None:
        return geometry.ds_sigma(recipe.sigma_angstrom, recipe.ds_factor, volume.voxel_spacing)
    return np.asarray(recipe.sigma_ds, np.float64)


def _patch_columns(
    recipe: Recipe,
    catalog: Catalog,
    parts: Sequence[NDArray[np.int64]],
    kinds: Sequence[Sequence[int]],
    folds: NDArray[np.int16],
) -> dict[str, NDArray[Any]]:
    owner = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    origin = np.concatenate(parts).astype(np.int64)
    shapes = np.array([volume.info.shape for volume in catalog.volumes], np.int64)
    sigma = np.array([_sigmas(recipe, volume) for volume in catalog.volumes])[owner]
    spacing = np.array([volume.voxel_spacing for volume in catalog.volumes], np.float64)[owner]
    start, stop = geometry.valid_box(origin, recipe.patch_shape, shapes[owner])
    return {
        "patches/volume_index": owner,
        "patches/origin": origin,
        "patches/valid_start": start.astype(np.int32),
        "patches/valid_stop": stop.astype(np.int32),
        "patches/kind": np.array([kind for part in kinds for kind in part], np.int8),
        "patches/fold": folds[owner],
        "patches/ds_sigma": sigma,
        "patches/angstrom_sigma": geometry.angstrom_sigma(sigma, recipe.ds_factor, spacing),
        "patches/voxel_spacing": spacing,
    }


def _annotation_columns(catalog: Catalog) -> dict[str, NDArray[Any]]:
    points = [volume.points for volume in catalog.volumes]
    return {
        "annotations/volume_index": np.repeat(np.arange(len(points), dtype=np.int32), [len(p) for p in points]),
        "annotations/coords": np.concatenate([p.coords for p in points]),
        "annotations/class_index": np.concatenate([p.class_index for p in points]),
        "annotations/source_index": np.concatenate([p.source_index for p in points]),
        "annotations/source_row": np.concatenate([p.source_row for p in points]),
        "annotations/score": np.concatenate([p.score for p in points]),
    }


def _keypoint_columns(recipe: Recipe, catalog: Catalog, columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    owner, origins = columns["patches/volume_index"], columns["patches/origin"]
    patch_ids, annotation_ids = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    first_annotation = 0
    bounds = np.searchsorted(owner, np.arange(len(catalog.volumes) + 1))
    for volume, first, last in zip(catalog.volumes, bounds[:-1], bounds[1:], strict=True):
        patches, rows = _in_reach(volume.points.coords, origins[first:last], recipe, _sigmas(recipe, volume))
        patch_ids.append(patches + first)
        annotation_ids.append(rows + first_annotation)
        first_annotation += len(volume.points)
    patch, annotation = np.concatenate(patch_ids), np.concatenate(annotation_ids)
    coords = columns["annotations/coords"][annotation]
    rs = geometry.local_rs(coords, origins[patch])
    offsets = np.zeros(len(owner) + 1, np.int64)
    np.cumsum(np.bincount(patch, minlength=len(owner)), out=offsets[1:])
    return {
        "patches/keypoint_offsets": offsets,
        "keypoints/global_coords": coords,
        "keypoints/local_rs_coords": rs,
        "keypoints/local_ds_coords": geometry.local_ds(rs, recipe.ds_factor),
        "keypoints/class_index": columns["annotations/class_index"][annotation],
        "keypoints/annotation_index": annotation,
    }


def _in_reach(
    coords: NDArray[np.float64], origins: NDArray[np.int64], recipe: Recipe, sigma: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of patch and annotation within reach of it, sorted by both.

    A tree finds candidates, in units of the widened box, and the rule itself decides.
    """
    if not len(coords) or not len(origins):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    from scipy.spatial import cKDTree  # noqa: PLC0415 - as in sampling

    size, factor = np.asarray(recipe.patch_shape), np.asarray(recipe.ds_factor)
    half = size / 2 + REACH * sigma * factor
    tree = cKDTree(coords / half)
    patches, rows = [], []
    for first in range(0, len(origins), _PATCHES_AT_ONCE):
        centers = (origins[first : first + _PATCHES_AT_ONCE] + (size - 1) / 2) / half
        found = tree.query_ball_point(centers, 1 + 1e-9, p=np.inf, return_sorted=True)
        patches.append(first + np.repeat(np.arange(len(centers)), [len(f) for f in found]))
        rows.append(np.fromiter((row for f in found for row in f), np.int64))
    patch, row = np.concatenate(patches).astype(np.int64), np.concatenate(rows)
    ds = geometry.local_ds(geometry.local_rs(coords[row], origins[patch]), factor)
    keep = geometry.within_reach(ds, geometry.grid_shape(recipe.patch_shape, recipe.ds_factor), sigma, REACH)
    return patch[keep], row[keep]


def count_by_kind(plan: Plan) -> dict[str, int]:
    """Patches of each kind that has any."""
    counts = np.bincount(plan.columns["patches/kind"], minlength=len(KINDS))
    return {kind: int(n) for kind, n in zip(KINDS, counts, strict=True) if n}
