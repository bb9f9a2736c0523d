"""What one unit is looked at for, apart from all others: its task pickles, and so does what was found."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.audit import gaussians
from keypatch.audit.findings import Findings
from keypatch.audit.shards import Shard, UnitArray, UnitMemory, check_hash, hash_shard
from keypatch.audit.voxels import check_padding, check_target, known_padding, report_not_finite
from keypatch.formats.store.codecs import one_blosc_thread
from keypatch.formats.store.schema import GAUSSIAN, IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.audit.gaussians import KeypointRows
    from keypatch.audit.layout import Target
    from keypatch.audit.recut import Recut
    from keypatch.converters.crop import Padding


@dataclass
class Checked:
    """How much was looked at, so that "no findings" cannot mean "nothing checked".

    Attributes:
        files: In the store.
        tables: Small arrays read whole.
        rows: Of these.
        units: Whose shards were read.
        bytes_hashed: Of shards held against their sha256.
        chunks: Of shards decoded.
        patches: Images decoded.
        padded_patches: Of these, with padding held against the recipe.
        identities: Whether the tables were held against each other.
        gaussians: Stored Gaussians rendered again.
        gaussians_equal: Of these, with the same bytes.
        gaussian_difference: Largest absolute difference of a value.
        peaks: Peaks whose place was measured.
        peak_offset: Largest distance of a peak from its keypoint, coarse voxels, along one axis.
        recut: Patches cut again from their source.
    """

    files: int = 0
    tables: int = 0
    rows: int = 0
    units: int = 0
    bytes_hashed: int = 0
    chunks: int = 0
    patches: int = 0
    padded_patches: int = 0
    identities: bool = False
    gaussians: int = 0
    gaussians_equal: int = 0
    gaussian_difference: float = 0.0
    peaks: int = 0
    peak_offset: float = 0.0
    recut: int = 0

    def add(self, other: Checked) -> None:
        """Take over what was looked at elsewhere: numbers are summed, of the largest values the larger counts."""
        for name in (f.name for f in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, max(mine, theirs) if isinstance(mine, float | bool) else mine + theirs)


@dataclass(frozen=True)
class UnitTask:
    """All that is needed to check one unit.

    Attributes:
        folder: Of the store.
        unit: Its number.
        patches: Of the unit; empty where no metadata that is in order tells.
        shards: Of it, those that are there.
        full: Whether every byte is hashed and every value looked at, or patches are only held against their sources.
        padding: Of the recipe; None where it is unknown.
        valid_start: (n, 3) of the unit's patches; n is 0 where the tables cannot be read.
        valid_stop: The same.
        keypoints: To render Gaussians again; None where that is not asked for.
        recut: To cut patches again; None where that is not asked for.
        cap: Findings listed one by one of each code within each array.
    """

    folder: Path
    unit: int
    patches: range
    shards: tuple[Shard, ...]
    full: bool
    padding: Padding | None
    valid_start: NDArray[np.int32]
    valid_stop: NDArray[np.int32]
    keypoints: KeypointRows | None
    recut: Recut | None
    cap: int


@dataclass(frozen=True)
class UnitResult:
    """What was found.

    Attributes:
        findings: Of this unit.
        checked: How much was looked at.
        hashes: sha256 and bytes of each shard that was read whole.
    """

    findings: Findings
    checked: Checked
    hashes: tuple[tuple[Shard, bytes, int], ...] = ()

    def merge_into(self, target: Target, findings: Findings, checked: Checked) -> None:
        """Hold the hashes against those recorded, for which all of these are needed, and take over the rest."""
        for shard, digest, size in self.hashes:
            checked.bytes_hashed += size if check_hash(target, shard, digest, findings) else 0
        findings.merge(self.findings)
        checked.add(self.checked)


def unit_tasks(
    target: Target, units: Sequence[int], cap: int, recut: Recut | None, *, full: bool, deep: bool
) -> Iterator[UnitTask]:
    """The tasks of some units, each made when it is asked for.

    Args:
        target: The store.
        units: Which.
        cap: See `UnitTask`.
        recut: Of all patches.
        full: Whether all is read, or only what ``recut`` needs.
        deep: Whether Gaussians are rendered again.
    """
    padding = known_padding(target)
    boxes = [
        target.tables.get(path, np.zeros((0, 3), np.int32)) for path in ("patches/valid_start", "patches/valid_stop")
    ]
    deep = deep and GAUSSIAN in target.arrays and gaussians.has_usable_offsets(target)
    for unit in units:
        shards = _shards(target, unit, target.sharded if full else (IMAGE,))
        if not shards:
            continue
        patches = next((shard.spec.unit_patches(unit) for shard in shards if shard.spec is not None), range(0))
        rows = slice(patches.start, patches.stop)
        start, stop = (box[rows] for box in boxes)
        yield UnitTask(
            folder=target.folder,
            unit=unit,
            patches=patches,
            shards=shards,
            full=full,
            padding=padding,
            valid_start=start,
            valid_stop=stop,
            keypoints=gaussians.keypoint_rows(target, patches) if deep else None,
            recut=None if recut is None else recut.of(patches),
            cap=cap,
        )


def _shards(target: Target, unit: int, names: Sequence[str]) -> tuple[Shard, ...]:
    """The shards of a unit that are there; the others were said to be missing."""
    shards = [
        Shard(name, unit, target.shard_name(name, unit), target.arrays.get(name))
        for name in names
        if unit < target.n_shards(name)
    ]
    return tuple(shard for shard in shards if shard.name in target.tree.files)


class _Kept(threading.local):
    """The memory of this thread, from one unit to the next."""

    def __init__(self) -> None:
        self.memory = UnitMemory()


_kept = _Kept()


def check_unit(task: UnitTask) -> UnitResult:
    """Read the shards of one unit: hashes, indices, chunks and values. Needs nothing of other units."""
    findings, checked, hashes = Findings(task.cap), Checked(), []
    # Damaged tables may hold any number: what they overflow to is reported, not warned about.
    with np.errstate(all="ignore"), one_blosc_thread:
        if not task.full:
            _compare_images(task, findings, checked)
            return UnitResult(findings, checked)
        checked.units = 1
        for shard in task.shards:
            hashed = _check_shard(task, shard, findings, checked)
            if hashed is not None:
                hashes.append((shard, *hashed))
    return UnitResult(findings, checked, tuple(hashes))


def _check_shard(task: UnitTask, shard: Shard, findings: Findings, checked: Checked) -> tuple[bytes, int] | None:
    """Everything that is to be seen in one shard; gives its sha256 and its size."""
    if shard.spec is None:
        return hash_shard(task.folder, shard, findings, _kept.memory)
    with UnitArray(task.folder, shard, shard.spec, findings, _kept.memory, hashed=True) as array:
        checked.chunks += array.check_index()
        check = _check_images if shard.array == IMAGE else _check_gaussians
        check(task, array, findings, checked)
        digest = array.sha256()
        return None if digest is None else (digest, array.size)


def _compare_images(task: UnitTask, findings: Findings, checked: Checked) -> None:
    """Only hold patches against their sources."""
    (shard,) = task.shards
    if task.recut is None or shard.spec is None:
        return
    with UnitArray(task.folder, shard, shard.spec, findings, _kept.memory, hashed=False) as array:
        for number in filter(task.recut.can_cut, array.patches):
            patch = array.read(number)
            if patch is not None:
                checked.recut += task.recut.compare(number, patch.values, findings)


def _check_images(task: UnitTask, array: UnitArray, findings: Findings, checked: Checked) -> None:
    for patch in array.items():
        checked.patches += 1
        where = f"image: patch {patch.number}"
        if patch.finite:
            checked.padded_patches += _check_padding(task, where, patch.number, patch.values, findings)
        else:
            report_not_finite(where, patch.values, findings)
        if task.recut is not None and task.recut.can_cut(patch.number):
            checked.recut += task.recut.compare(patch.number, patch.values, findings)


def _check_padding(task: UnitTask, where: str, number: int, values: NDArray[Any], findings: Findings) -> bool:
    row = number - task.patches.start
    if task.padding is None or not row < min(len(task.valid_start), len(task.valid_stop)):
        return False
    start, stop = task.valid_start[row].tolist(), task.valid_stop[row].tolist()
    return check_padding(where, values, start, stop, task.padding, findings)


def _check_gaussians(task: UnitTask, array: UnitArray, findings: Findings, checked: Checked) -> None:
    for patch in array.items():
        sound = check_target(f"gaussian: patch {patch.number}", patch.values, findings)
        keypoints = task.keypoints.of(patch.number) if task.keypoints is not None and sound else None
        if keypoints is None:
            continue
        comparison = gaussians.check_gaussian(patch.number, patch.values, keypoints, findings)
        checked.gaussians += 1
        checked.gaussians_equal += comparison.equal
        checked.gaussian_difference = max(checked.gaussian_difference, comparison.difference)
        checked.peaks += len(comparison.peak_offsets)
        checked.peak_offset = max(checked.peak_offset, float(comparison.peak_offsets.max(initial=0)))
