"""What a store says of itself: the attributes of its root and of its volumes, from the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keypatch import gaussian
from keypatch._version import __version__
from keypatch.formats.store.schema import AXES, COMBINE, COORDINATE_RULE, KINDS, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keypatch.converters.plan import Plan
    from keypatch.converters.scaling import Scaling
    from keypatch.formats.volumes import VolumeInfo


def volume_records(plan: Plan, scalings: Sequence[Scaling]) -> list[dict[str, Any]]:
    """What the store says of each volume, in the order of ``volume_index``."""
    options = plan.recipe.volume_options
    asked = {"array": options.array, "level_spacing": options.level_spacing, "unsigned": options.unsigned}
    return [
        {
            "id": volume.id,
            "path": volume.relative_path,
            "format": volume.info.format,
            "options": asked,
            "shape": list(volume.info.shape),
            "dtype": volume.info.dtype.name,
            "voxel_spacing": list(volume.voxel_spacing),
            "voxel_spacing_from": volume.voxel_spacing_from,
            "resampling": None if volume.resampling is None else volume.resampling.to_json(),
            "fold": int(fold),
            "conventions": dict(volume.info.conventions) | _world(volume.info),
            "scaling": scaling.to_json(),
        }
        for volume, fold, scaling in zip(plan.catalog.volumes, plan.folds, scalings, strict=True)
    ]


def _world(info: VolumeInfo) -> dict[str, Any]:
    return {} if info.world is None else {"world": [list(row) for row in info.world]}


def store_attributes(plan: Plan) -> dict[str, Any]:
    """The root's attributes, but the digests."""
    layout, columns = plan.layout, plan.columns
    stored = layout.gaussian_dtype
    return {
        "schema_version": SCHEMA_VERSION,
        "writer": f"keypatch {__version__}",
        "axes": list(AXES),
        "patch_shape": list(layout.patch_shape),
        "ds_factor": list(layout.ds_factor),
        "grid_shape": list(layout.grid),
        "classes": list(plan.catalog.classes),
        "kinds": list(KINDS),
        "folds": plan.recipe.folds,
        "coordinate_rule": dict(COORDINATE_RULE),
        "gaussian": {
            "stored": stored is not None,
            "dtype": None if stored is None else stored.name,
            "combine": COMBINE,
            "reach": gaussian.REACH,
        },
        "counts": {
            "patches": layout.n_patches,
            "keypoints": len(columns["keypoints/class_index"]),
            "annotations": len(columns["annotations/class_index"]),
            "volumes": len(plan.catalog.volumes),
            "units": layout.n_units,
        },
        "sources": list(plan.catalog.sources),
        "recipe": plan.recipe.to_json(),
        "report": {
            "left_out": [omission.to_json() for omission in plan.left_out],
            "warnings": list(plan.warnings),
            "findings": [found.to_json() for found in plan.catalog.findings],
        },
    }
