"""keypatch: tomograms and keypoints in, a training set of patches, float keypoints and coarse Gaussians out.

import keypatch

keypatch.convert("tomograms/*.mrc", "picks.csv", "out.zarr", patch_shape=(128, 128, 128), sigma_angstrom=200)
store = keypatch.open("out.zarr")
patch = store[7]
patch.image, patch.local_ds_coords, patch.gaussian()
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keypatch._version import __version__
from keypatch.errors import (
    BuildIncompleteError,
    CheckError,
    CorruptionError,
    FormatError,
    KeypatchError,
    MissingExtraError,
    ReadError,
    StoreError,
    UsageError,
    WorkerError,
    WriteError,
)
from keypatch.formats.store import Patch, Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Executor
    from os import PathLike

    import pandas as pd

    from keypatch.audit.repair import RepairReport
    from keypatch.audit.stats import StoreStats
    from keypatch.audit.validate import ValidationReport
    from keypatch.augment import Sample
    from keypatch.converters.build import BuildOptions, Progress
    from keypatch.detections import Heatmaps, Search

__all__ = [
    "BuildIncompleteError",
    "CheckError",
    "CorruptionError",
    "FormatError",
    "KeypatchError",
    "MissingExtraError",
    "Patch",
    "ReadError",
    "Store",
    "StoreError",
    "UsageError",
    "WorkerError",
    "WriteError",
    "__version__",
    "convert",
    "detect",
    "open",
    "repair",
    "stats",
    "validate",
]


def open(path: str | PathLike[str]) -> Store:  # noqa: A001 - keypatch.open reads as zarr.open and h5py.File do
    """Open a store for reading; see `Store`.

    Raises:
        StoreError: If there is no keypatch store at ``path``, or one of a newer major version.
    """
    return Store(path)


def convert(
    volumes: str | PathLike[str] | Sequence[str | PathLike[str]],
    annotations: str | PathLike[str] | Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
    **settings: object,
) -> Store:
    """Build a store, as ``keypatch convert`` does.

    Args:
        volumes: Paths, globs or patterns with ``{volume}``.
        annotations: Paths, globs or patterns with ``{volume}`` and ``{class}``.
        out: Where the store shall lie.
        options: Workers or an executor, what to overwrite; `keypatch.converters.build.BuildOptions`.
        progress: Told what is going on.
        settings: The other fields of `keypatch.converters.recipe.Recipe`; an unknown one is an error.

    Returns:
        The finished store, opened.

    Raises:
        UsageError: If the settings do not fit each other or the sources, or ``out`` exists.
        CheckError: If the sources cannot be right as they are read.
        ReadError: If a source cannot be read.
        WriteError: If the disk does not take the store.
        WorkerError: If a worker died.
        BuildIncompleteError: With ``on_error="skip"``, if units are missing.
    """
    # Reading a store needs none of these.
    from keypatch.converters.build import BuildOptions  # noqa: PLC0415
    from keypatch.converters.build import convert as build  # noqa: PLC0415
    from keypatch.converters.plan import build_plan  # noqa: PLC0415
    from keypatch.converters.recipe import Recipe  # noqa: PLC0415
    from keypatch.converters.target import check_target  # noqa: PLC0415
    from keypatch.workers import leave_if_a_worker  # noqa: PLC0415

    leave_if_a_worker()
    given = {"volumes": _listed(volumes), "annotations": _listed(annotations), **settings}
    recipe, options = Recipe.from_mapping(given), options or BuildOptions()
    check_target(Path(out), overwrite=options.overwrite)
    return build(build_plan(recipe, Path(out)), Path(out), options, progress)


def detect(
    store: Store, heatmaps: Heatmaps, search: Search | None = None, *, samples: Iterable[Sample] | None = None
) -> pd.DataFrame:
    """Find the keypoints that predicted heatmaps show, in voxels of their volumes; see `keypatch.detections.detect`."""
    from keypatch.detections import Search  # noqa: PLC0415
    from keypatch.detections import detect as run  # noqa: PLC0415

    return run(store, heatmaps, search or Search(), samples=samples)


def validate(
    path: str | PathLike[str],
    depth: str = "full",
    source: str | PathLike[str] | None = None,
    subset: tuple[int, int] | None = None,
    *,
    workers: int | None = 1,
    max_findings: int | None = None,
    expect_digest: str | None = None,
    executor: Executor | None = None,
) -> ValidationReport:
    """Look for damage in a store; see `keypatch.audit.validate.validate`."""
    from keypatch.audit.validate import validate as run  # noqa: PLC0415

    return run(
        path,
        depth=depth,
        source=source,
        subset=subset,
        workers=workers,
        max_findings=max_findings,
        expect_digest=expect_digest,
        executor=executor,
    )


def repair(
    path: str | PathLike[str],
    source: str | PathLike[str] | None = None,
    *,
    gaussians_only: bool = False,
    remove_stray: bool = False,
    dry_run: bool = False,
) -> RepairReport:
    """Make the damaged shards of a store again; see `keypatch.audit.repair.repair`."""
    from keypatch.audit.repair import repair as run  # noqa: PLC0415

    return run(path, source, gaussians_only=gaussians_only, remove_stray=remove_stray, dry_run=dry_run)


def stats(path: str | PathLike[str], sample: int | None = None, seed: int = 0, *, every: bool = False) -> StoreStats:
    """Count what a store holds and what it saves; see `keypatch.audit.stats.stats`."""
    from keypatch.audit.stats import stats as run  # noqa: PLC0415

    return run(path, sample=sample, seed=seed, every=every)


def _listed(paths: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[str]:
    if isinstance(paths, (list, tuple)):
        return [str(path) for path in paths]
    return [str(paths)]
