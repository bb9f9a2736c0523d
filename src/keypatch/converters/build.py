"""Building a store: plan → scalings → units → metadata → its name.

All is written in a hidden folder beside the target, which gets the target's name by one rename when it is whole.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from keypatch import __version__, gaussian
from keypatch.converters.crop import cut
from keypatch.converters.plan import Plan
from keypatch.converters.scaling import DEFAULT_PERCENTILES, Scaling, measure, needs_range
from keypatch.errors import ReadError, StoreError, UsageError, WriteError
from keypatch.formats.store import Store, StoreLayout, UnitRecord, write_metadata, write_unit
from keypatch.formats.store.disk import sync_folder, writing
from keypatch.formats.store.schema import AXES, COMBINE, COORDINATE_RULE, KINDS, SCHEMA_VERSION
from keypatch.formats.volumes import Volume, VolumeOptions, open_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from keypatch.converters.catalog import CatalogVolume
    from keypatch.converters.crop import Padding

_SLAB_BYTES = 64 * 2**20


class Progress(Protocol):
    """Told what is going on; the command line draws a bar from it."""

    def start(self, what: str, total: int) -> None:
        """A stage begins that has ``total`` steps."""
        ...

    def step(self, n: int = 1) -> None:
        """So many steps are done."""
        ...


class Silent:
    """A `Progress` that says nothing."""

    def start(self, what: str, total: int) -> None:
        """See `Progress`."""

    def step(self, n: int = 1) -> None:
        """See `Progress`."""


@dataclass(frozen=True)
class Source:
    """How a worker gets at one volume.

    Attributes:
        path: Of the volume.
        options: For its reader.
        shape: As planned; a volume that has another by now is refused.
        scaling: From its voxels to stored ones.
    """

    path: Path
    options: VolumeOptions
    shape: tuple[int, int, int]
    scaling: Scaling


@dataclass(frozen=True)
class UnitTask:
    """All that a worker needs to write one unit; it pickles.

    Attributes:
        folder: Root of the store.
        layout: Of the store.
        unit: Which.
        padding: What fills patches outside their volume.
        sources: The volumes of its patches, by ``volume_index``.
        volume_index: (n,) of its patches.
        origin: (n, 3).
        ds_sigma: (n, 3).
        offsets: (n + 1,) rows of the next two.
        local_ds_coords: (k, 3).
        class_index: (k,).
    """

    folder: Path
    layout: StoreLayout
    unit: int
    padding: Padding
    sources: dict[int, Source]
    volume_index: NDArray[np.int32]
    origin: NDArray[np.int64]
    ds_sigma: NDArray[np.float64]
    offsets: NDArray[np.int64]
    local_ds_coords: NDArray[np.float64]
    class_index: NDArray[np.int32]


def check_target(out: Path, *, overwrite: bool) -> None:
    """See that a store may be built at ``out``, before any work is done.

    Raises:
        UsageError: If something is there that must not be replaced.
        WriteError: If its folder does not exist.
    """
    if not out.resolve().parent.is_dir():
        raise WriteError.at(out, expected="a folder to write into", found=f"no folder {out.resolve().parent}")
    if not out.exists():
        return
    if not overwrite:
        raise UsageError.at(
            out, expected="nothing there yet", found="a file or folder", hint="give --overwrite or another -o"
        )
    try:
        Store(out)
    except StoreError as error:
        raise UsageError.at(
            out,
            expected="a keypatch store to overwrite",
            found="something else",
            hint="remove it yourself if it may go",
        ) from error


def convert(plan: Plan, out: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Store:
    """Build the store of a plan.

    Args:
        plan: See `keypatch.converters.plan.build_plan`.
        out: Where the store shall lie.
        overwrite: Whether a store that is there is replaced, at the very end.
        progress: Told what is going on.

    Returns:
        The finished store, opened.

    Raises:
        UsageError: If ``out`` exists and may not be replaced.
        ReadError: If a volume cannot be read. Nothing lies at ``out`` then.
        WriteError: If the disk does not take it. Nothing lies at ``out`` then.
    """
    check_target(out, overwrite=overwrite)
    progress = progress or Silent()
    folder = out.resolve().parent / f".{out.name}.building"
    with _build_folder(folder):
        scalings = _measure_all(plan, progress)
        records = _write_units(plan, folder, scalings, progress)
        write_metadata(folder, plan.layout, records, plan.columns, _volume_records(plan, scalings), _attributes(plan))
        _swap(folder, out)
    return Store(out)


def run_unit(task: UnitTask) -> UnitRecord:
    """Write one unit: read boxes, cast, compress, hash, fsync, rename. The function that workers run."""
    return write_unit(task.folder, task.layout, task.unit, _unit_patches(task))


def _unit_patches(task: UnitTask) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None]]:
    volume, opened = None, -1
    with contextlib.ExitStack() as stack:
        for i, index in enumerate(task.volume_index.tolist()):
            source = task.sources[index]
            if volume is None or index != opened:
                stack.close()
                volume, opened = stack.enter_context(_open(source)), index
            image = cut(
                volume, task.origin[i].tolist(), task.layout.patch_shape, scaling=source.scaling, padding=task.padding
            )
            yield image, _target(task, i)


def _target(task: UnitTask, i: int) -> NDArray[Any] | None:
    if task.layout.gaussian_dtype is None:
        return None
    rows = slice(*task.offsets[i : i + 2].tolist())
    return gaussian.render(
        task.local_ds_coords[rows],
        task.class_index[rows],
        n_classes=task.layout.n_classes,
        grid=task.layout.grid,
        sigma=task.ds_sigma[i],
        dtype=task.layout.gaussian_dtype,
    )


def _open(source: Source) -> Volume:
    volume = open_volume(source.path, source.options)
    if volume.info.shape != source.shape:
        volume.close()
        raise ReadError.at(
            source.path,
            expected=f"a volume of {source.shape}, as planned",
            found=str(volume.info.shape),
            hint="the file changed during the build: start again",
        )
    return volume


@contextlib.contextmanager
def _build_folder(folder: Path) -> Iterator[None]:
    """A fresh folder to build in; whatever ends the build early takes it away again."""
    with writing(folder):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, out: Path) -> None:
    """Give the finished folder the target's name; a store that was there stays whole until then."""
    old = folder.with_name(folder.name.replace(".building", ".old"))
    with writing(out):
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        folder.rename(out)
        sync_folder(out.resolve().parent)
        shutil.rmtree(old, ignore_errors=True)


def _measure_all(plan: Plan, progress: Progress) -> list[Scaling]:
    stored, percentiles = plan.layout.image_dtype, plan.recipe.clip_percentiles
    progress.start("measure", len(plan.catalog.volumes))
    scalings = []
    for volume in plan.catalog.volumes:
        scalings.append(_measure(volume, plan.recipe.volume_options, stored, percentiles))
        progress.step()
    return scalings


def _measure(
    volume: CatalogVolume, options: VolumeOptions, stored: np.dtype[Any], percentiles: tuple[float, float] | None
) -> Scaling:
    if not needs_range(volume.info.dtype, stored, percentiles):
        return Scaling(stored.name)
    with open_volume(volume.path, options) as opened:

        def slabs() -> Iterator[NDArray[Any]]:
            depth, height, width = opened.info.shape
            thickness = max(1, _SLAB_BYTES // (height * width * opened.info.dtype.itemsize))
            for z in range(0, depth, thickness):
                yield opened.read((z, 0, 0), (min(z + thickness, depth), height, width))

        return measure(str(volume.path), slabs, stored, percentiles or DEFAULT_PERCENTILES)


def _write_units(plan: Plan, folder: Path, scalings: list[Scaling], progress: Progress) -> list[UnitRecord]:
    progress.start("write", plan.layout.n_patches)
    records = []
    for task in unit_tasks(plan, folder, scalings):
        records.append(run_unit(task))
        progress.step(len(task.origin))
    return records


def unit_tasks(plan: Plan, folder: Path, scalings: list[Scaling]) -> Iterator[UnitTask]:
    """Cut a plan into the tasks of its units, in order."""
    columns, volumes = plan.columns, plan.catalog.volumes
    for unit in range(plan.layout.n_units):
        patches = plan.layout.unit_patches(unit)
        rows = slice(patches.start, patches.stop)
        offsets = columns["patches/keypoint_offsets"][patches.start : patches.stop + 1]
        keypoints = slice(int(offsets[0]), int(offsets[-1]))
        owner = columns["patches/volume_index"][rows]
        sources = {
            index: Source(volumes[index].path, plan.recipe.volume_options, volumes[index].info.shape, scalings[index])
            for index in np.unique(owner).tolist()
        }
        yield UnitTask(
            folder=folder,
            layout=plan.layout,
            unit=unit,
            padding=plan.recipe.padding,
            sources=sources,
            volume_index=owner,
            origin=columns["patches/origin"][rows],
            ds_sigma=columns["patches/ds_sigma"][rows],
            offsets=offsets - offsets[0],
            local_ds_coords=columns["keypoints/local_ds_coords"][keypoints],
            class_index=columns["keypoints/class_index"][keypoints],
        )


def _volume_records(plan: Plan, scalings: list[Scaling]) -> list[dict[str, Any]]:
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
            "fold": int(fold),
            "conventions": dict(volume.info.conventions),
            "scaling": scaling.to_json(),
        }
        for volume, fold, scaling in zip(plan.catalog.volumes, plan.folds, scalings, strict=True)
    ]


def _attributes(plan: Plan) -> dict[str, Any]:
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
        "report": {"left_out": [omission.to_json() for omission in plan.left_out], "warnings": list(plan.warnings)},
    }
