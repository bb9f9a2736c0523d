"""What a worker does: measure one volume, or write the units of one group. Everything here pickles."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch import gaussian
from keypatch.converters.crop import Padding, cut
from keypatch.converters.fingerprints import check_unchanged
from keypatch.converters.journal import Journal, Work
from keypatch.converters.opening import open_source
from keypatch.converters.resample import Resampling, original
from keypatch.converters.scaling import DEFAULT_PERCENTILES, Scaling, measure
from keypatch.errors import KeypatchError, ReadError
from keypatch.formats.store import StoreLayout, write_unit
from keypatch.formats.volumes import Volume, VolumeOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from keypatch.geometry import Shape3

SLAB_BYTES: Final = 64 * 2**20
"""Voxels read at once to measure a volume: memory stays small beside the budget of a worker, 250 MB."""


@dataclass(frozen=True)
class Source:
    """How a worker gets at one volume.

    Attributes:
        id: For messages.
        path: Of the volume.
        options: For its reader.
        shape: Of the file as planned; one that has another by now is refused.
        resampling: To the grid that its patches are cut on, if that is another.
        fingerprint: Of the file when the build began, so that what a worker keeps open is never of an older one.
    """

    id: str
    path: Path
    options: VolumeOptions
    shape: Shape3
    resampling: Resampling | None
    fingerprint: tuple[int, ...]

    def open(self) -> Volume:
        """Open it, and see that it is still the planned one.

        Raises:
            ReadError: If it cannot be read, or has another shape by now.
        """
        volume = open_source(self.path, self.options, self.resampling)
        if original(volume).shape != self.shape:
            volume.close()
            raise ReadError.at(
                self.path,
                expected=f"a volume of {self.shape}, as planned",
                found=str(original(volume).shape),
                hint="the file changed during the build: give --restart",
            )
        return volume

    def check_unchanged(self) -> None:
        """See, where that costs a single look, that the file has not changed since the build began.

        Raises:
            ReadError: If it has, or is gone. A memory map of a file that was cut would end the process.
        """
        if not self.path.is_dir():
            check_unchanged({str(self.path): list(self.fingerprint)})


@dataclass(frozen=True)
class UnitTask:
    """All that is needed to write one unit.

    Attributes:
        unit: Which.
        volume_index: (n,) of its patches; a key of the group's sources.
        origin: (n, 3).
        ds_sigma: (n, 3).
        offsets: (n + 1,) rows of the next two.
        local_ds_coords: (k, 3).
        class_index: (k,).
    """

    unit: int
    volume_index: NDArray[np.int32]
    origin: NDArray[np.int64]
    ds_sigma: NDArray[np.float64]
    offsets: NDArray[np.int64]
    local_ds_coords: NDArray[np.float64]
    class_index: NDArray[np.int32]


@dataclass(frozen=True)
class Group:
    """Units that one worker writes one after the other, so that a volume which must be decoded whole is decoded once.

    Attributes:
        folder: Of the build.
        layout: Of the store.
        padding: What fills patches outside their volume.
        sources: Volumes by ``volume_index``.
        scalings: By ``volume_index``.
        tasks: In order.
    """

    folder: Path
    layout: StoreLayout
    padding: Padding
    sources: dict[int, Source]
    scalings: dict[int, Scaling]
    tasks: tuple[UnitTask, ...]


class _Kept(threading.local):
    """What this thread keeps from one unit for the next: the volume that it read last, and the memory of one patch.

    Memory that is used again is already there; a fresh buffer of this size comes page by page and costs more than
    what is done with it.
    """

    def __init__(self) -> None:
        self._source: Source | None = None
        self._volume: Volume | None = None
        self._patch: NDArray[Any] | None = None

    def volume(self, source: Source) -> Volume:
        source.check_unchanged()
        if self._volume is None or source != self._source:
            self.close()
            self._volume, self._source = source.open(), source
        return self._volume

    def patch(self, layout: StoreLayout) -> NDArray[Any]:
        if self._patch is None or (self._patch.shape, self._patch.dtype) != (layout.patch_shape, layout.image_dtype):
            self._patch = np.empty(layout.patch_shape, layout.image_dtype)
        return self._patch

    def close(self) -> None:
        if self._volume is not None:
            self._volume.close()
        self._volume = self._source = self._patch = None


_kept = _Kept()


def close_volume() -> None:
    """Let go of what this thread keeps; a build calls it when it ends."""
    _kept.close()


def measure_volume(
    folder: Path, index: int, source: Source, stored: str, percentiles: tuple[float, float] | None
) -> tuple[int, KeypatchError | None]:
    """Find one volume's scaling and record it.

    Returns:
        The volume's index, and why it could not be measured, if so.
    """
    journal = Journal(folder)
    try:
        with journal.working_on(Work("volume", index)):
            journal.record_scaling(index, _measured(source, np.dtype(stored), percentiles or DEFAULT_PERCENTILES))
    except KeypatchError as error:
        return index, error
    return index, None


def _measured(source: Source, stored: np.dtype[Any], percentiles: tuple[float, float]) -> Scaling:
    with source.open() as volume:

        def slabs() -> Iterator[NDArray[Any]]:
            depth, height, width = volume.info.shape
            thickness = max(1, SLAB_BYTES // (height * width * volume.info.dtype.itemsize))
            for z in range(0, depth, thickness):
                source.check_unchanged()
                yield volume.read((z, 0, 0), (min(z + thickness, depth), height, width))

        return measure(str(source.path), slabs, stored, percentiles)


@dataclass(frozen=True)
class GroupResult:
    """What became of a group.

    Attributes:
        finished: Units that were written and recorded.
        failed: The unit that could not be written; those after it were not tried.
        error: Why.
    """

    finished: tuple[int, ...]
    failed: int | None = None
    error: KeypatchError | None = None


def write_group(group: Group) -> GroupResult:
    """Write the units of one group and record each as it is finished; end at the first that cannot be written."""
    journal = Journal(group.folder)
    finished: list[int] = []
    for task in group.tasks:
        try:
            with journal.working_on(Work("unit", task.unit)):
                journal.record_unit(write_unit(journal.store, group.layout, task.unit, _patches(group, task)))
        except KeypatchError as error:
            return GroupResult(tuple(finished), task.unit, error)
        finished.append(task.unit)
    return GroupResult(tuple(finished))


def _patches(group: Group, task: UnitTask) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None]]:
    for i, index in enumerate(task.volume_index.tolist()):
        volume = _kept.volume(group.sources[index])
        with _named(group.sources[index], task.unit):
            image = cut(
                volume,
                task.origin[i].tolist(),
                group.layout.patch_shape,
                scaling=group.scalings[index],
                padding=group.padding,
                out=_kept.patch(group.layout),
            )
        yield image, _target(group.layout, task, i)


@contextlib.contextmanager
def _named(source: Source, unit: int) -> Iterator[None]:
    """Turn what a memory map or a library says in the middle of a volume into our own error."""
    try:
        yield
    except ReadError:
        raise
    except OSError as error:
        raise ReadError.at(
            source.path, expected=f"voxels for unit {unit}", found=error.strerror or str(error)
        ) from error


def _target(layout: StoreLayout, task: UnitTask, i: int) -> NDArray[Any] | None:
    if layout.gaussian_dtype is None:
        return None
    rows = slice(*task.offsets[i : i + 2].tolist())
    return gaussian.render(
        task.local_ds_coords[rows],
        task.class_index[rows],
        n_classes=layout.n_classes,
        grid=layout.grid,
        sigma=task.ds_sigma[i],
        dtype=layout.gaussian_dtype,
    )
