"""Cutting a plan into what workers are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keypatch.converters.units import Group, Source, UnitTask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from keypatch.converters.plan import Plan
    from keypatch.converters.scaling import Scaling


def groups(
    plan: Plan, folder: Path, sources: Sequence[Source], scalings: Sequence[Scaling], skip: set[int]
) -> Iterator[Group]:
    """The missing units: one by one, but together where their volume has to be decoded whole or slice by slice.

    Args:
        plan: Of the store.
        folder: Of the build.
        sources: One a volume.
        scalings: One a volume.
        skip: Units that are not to be written.
    """
    pending: list[UnitTask] = []
    for unit in range(plan.layout.n_units):
        if unit in skip:
            continue
        task = _task(plan, unit)
        if pending and not _belongs(plan, pending[-1], task):
            yield _group(plan, folder, sources, scalings, pending)
            pending = []
        pending.append(task)
    if pending:
        yield _group(plan, folder, sources, scalings, pending)


def _belongs(plan: Plan, before: UnitTask, task: UnitTask) -> bool:
    """Whether a unit goes on in the volume that the one before ended in, and that volume is costly to open again."""
    last, first = int(before.volume_index[-1]), int(task.volume_index[0])
    starts_alone = int(before.volume_index[0]) == last
    return last == first and starts_alone and plan.catalog.volumes[first].info.access in ("slices", "whole")


def _group(
    plan: Plan, folder: Path, sources: Sequence[Source], scalings: Sequence[Scaling], tasks: Sequence[UnitTask]
) -> Group:
    volumes = np.unique(np.concatenate([task.volume_index for task in tasks])).tolist()
    return Group(
        folder=folder,
        layout=plan.layout,
        padding=plan.recipe.padding,
        sources={index: sources[index] for index in volumes},
        scalings={index: scalings[index] for index in volumes},
        tasks=tuple(tasks),
    )


def volume_sources(plan: Plan, fingerprints: Mapping[str, Sequence[int]]) -> list[Source]:
    """How a worker gets at each volume of a plan."""
    paths = [volume.path.resolve() for volume in plan.catalog.volumes]
    return [
        Source(
            id=volume.id,
            path=path,
            options=plan.recipe.volume_options,
            shape=volume.source_shape,
            resampling=volume.resampling,
            fingerprint=tuple(fingerprints[str(path)]),
        )
        for volume, path in zip(plan.catalog.volumes, paths, strict=True)
    ]


def _task(plan: Plan, unit: int) -> UnitTask:
    patches, columns = plan.layout.unit_patches(unit), plan.columns
    rows = slice(patches.start, patches.stop)
    offsets = columns["patches/keypoint_offsets"][patches.start : patches.stop + 1]
    keypoints = slice(int(offsets[0]), int(offsets[-1]))
    return UnitTask(
        unit=unit,
        volume_index=columns["patches/volume_index"][rows],
        origin=columns["patches/origin"][rows],
        ds_sigma=columns["patches/ds_sigma"][rows],
        offsets=offsets - offsets[0],
        local_ds_coords=columns["keypoints/local_ds_coords"][keypoints],
        class_index=columns["keypoints/class_index"][keypoints],
    )
