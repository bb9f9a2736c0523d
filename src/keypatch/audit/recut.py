"""Patches cut again from their sources, and compared bit for bit."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.audit.attributes import is_below
from keypatch.audit.shards import UnitArray
from keypatch.audit.voxels import known_padding
from keypatch.errors import KeypatchError, ReadError
from keypatch.formats.store.schema import IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from keypatch.audit.attributes import VolumeRecord
    from keypatch.audit.findings import Findings
    from keypatch.audit.layout import Target
    from keypatch.converters.crop import Padding
    from keypatch.converters.resample import Resampling
    from keypatch.converters.scaling import Scaling
    from keypatch.formats.volumes import Volume


def check_sources(target: Target, source: Path, units: Sequence[int], findings: Findings) -> int:
    """Cut the patches of some units again and compare them.

    Args:
        target: The store.
        source: Folder that all volumes share; a volume lies at ``source / path`` of its record.
        units: Whose patches.
        findings: Added to.

    Returns:
        Patches that were cut and compared.

    Raises:
        ReadError: If there is no such folder.
    """
    if not source.is_dir():
        raise ReadError.at(source, expected="the folder of the volumes", found="no such folder", hint="check --source")
    padding = known_padding(target)
    if padding is None:
        recipe = target.attributes.get("recipe")
        found = recipe.get("padding") if isinstance(recipe, dict) else recipe
        findings.add("KP106", "zarr.json: recipe.padding", expected="the name of a padding", found=repr(found))
        return 0
    if IMAGE not in target.arrays or target.volumes is None or not target.has("patches/volume_index", "patches/origin"):
        return 0
    patches_of = _patches_by_volume(target, units)
    n_compared = 0
    for volume_index, patches in patches_of.items():
        record = target.volumes[volume_index]
        if record is not None:
            with opened_volume(record, source, findings) as volume:
                if volume is not None:
                    n_compared += _compare_volume(target, volume, record, patches, padding, findings)
    return n_compared


def _patches_by_volume(target: Target, units: Sequence[int]) -> Mapping[int, list[int]]:
    """Patches of the units, grouped so that each volume is opened once."""
    owner = target.tables["patches/volume_index"]
    patches_of: dict[int, list[int]] = {}
    for unit in units:
        for patch in target.arrays[IMAGE].unit_patches(unit):
            if patch < len(owner) and 0 <= owner[patch] < len(target.volumes or ()):
                patches_of.setdefault(int(owner[patch]), []).append(patch)
    return patches_of


@contextlib.contextmanager
def opened_volume(record: VolumeRecord, source: Path, findings: Findings) -> Iterator[Volume | None]:
    """The volume of a record, resampled as it was, below the folder that all volumes share.

    Gives None where it is not the one that was read, with findings unless it is the record that is damaged.
    """
    from keypatch.converters.opening import open_source  # noqa: PLC0415 - only this check needs readers
    from keypatch.converters.resample import Resampling  # noqa: PLC0415
    from keypatch.formats.volumes import VolumeOptions  # noqa: PLC0415

    recorded, where = str(record.json.get("path")), f"volume {record.id}"
    path = source / recorded
    if not is_below(recorded) or not _is_within(path, source):
        findings.add("KP501", where, expected=f"a file below {source}", found=recorded[:120], within="source")
        yield None
        return
    if not os.path.lexists(path):
        findings.add("KP501", where, expected=path, found="no such file", within="source")
        yield None
        return
    asked = record.json.get("options")
    options = asked if isinstance(asked, dict) else {}
    try:
        resampling = Resampling.from_json(record.json.get("resampling"))
        unsound = resampling is not None and resampling.shape != record.shape
    except KeypatchError as error:
        findings.add("KP502", where, expected="a resampling that can be done again", found=error, within="source")
        yield None
        return
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        unsound = True
    if unsound:  # reported with the record
        yield None
        return
    try:
        volume = open_source(
            path,
            VolumeOptions(
                format=record.json.get("format"),
                array=options.get("array"),
                level_spacing=options.get("level_spacing"),
                unsigned=bool(options.get("unsigned")),
            ),
            resampling,
        )
    except (KeypatchError, TypeError) as error:
        findings.add("KP502", where, expected=f"a readable volume at {path}", found=error, within="source")
        yield None
        return
    with volume:
        yield volume if _is_recorded(volume, resampling, record, where, findings) else None


def _is_within(path: Path, source: Path) -> bool:
    """Whether a recorded path stays below the source folder, after links; a store must not make us read elsewhere."""
    try:
        return path.resolve().is_relative_to(source.resolve()) or _is_link_of_source(path, source)
    except (OSError, RuntimeError, ValueError):
        return False


def _is_link_of_source(path: Path, source: Path) -> bool:
    """Data folders are often made of links; one that lies in the folder itself was put there by its owner."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(source.resolve())


def _is_recorded(
    volume: Volume, resampling: Resampling | None, record: VolumeRecord, where: str, findings: Findings
) -> bool:
    """Whether the file's header is the one that was read; a resampled volume's record says what that was."""
    from keypatch.converters.resample import original  # noqa: PLC0415

    info = original(volume)
    shape = record.shape if resampling is None else resampling.source_shape
    spacing = record.voxel_spacing if resampling is None else resampling.source_spacing
    if tuple(info.shape) != shape:
        findings.add("KP503", where, expected=shape, found=tuple(info.shape), within="source")
    if info.dtype.name != record.json.get("dtype"):
        findings.add("KP504", where, expected=record.json.get("dtype"), found=info.dtype.name, within="source")
    if record.json.get("voxel_spacing_from") == "header" and info.voxel_spacing != spacing:
        findings.add("KP505", where, expected=spacing, found=info.voxel_spacing, within="source")
    return tuple(info.shape) == shape and info.dtype.name == record.json.get("dtype")


def _compare_volume(
    target: Target,
    volume: Volume,
    record: VolumeRecord,
    patches: Sequence[int],
    padding: Padding,
    findings: Findings,
) -> int:
    from keypatch.converters.scaling import Scaling  # noqa: PLC0415

    try:
        scaling = Scaling.from_json(record.json["scaling"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return 0  # reported with the record
    n_compared = 0
    per_shard = target.arrays[IMAGE].patches_per_shard
    for unit in dict.fromkeys(patch // per_shard for patch in patches):
        with UnitArray(target, IMAGE, unit, findings) as shard:
            for patch in (p for p in patches if p // per_shard == unit):
                stored = shard.read(patch)
                if stored is not None:
                    n_compared += _compare_patch(target, volume, stored, patch, scaling, padding, findings)
    return n_compared


def _compare_patch(
    target: Target,
    volume: Volume,
    stored: NDArray[Any],
    patch: int,
    scaling: Scaling,
    padding: Padding,
    findings: Findings,
) -> bool:
    """Compare one patch; False where it could not be cut."""
    from keypatch.converters.crop import cut  # noqa: PLC0415

    origin = target.tables["patches/origin"][patch].tolist()
    where = f"image: patch {patch}"
    d, h, w = stored.shape
    try:
        again = cut(volume, origin, (d, h, w), scaling=scaling, padding=padding)
    except (KeypatchError, ValueError, TypeError, ArithmeticError) as error:
        findings.add("KP507", where, expected=f"a box of volume at {origin}", found=error, within="image")
        return False
    if again.dtype != stored.dtype:
        findings.add("KP506", where, expected=f"dtype {again.dtype}", found=f"dtype {stored.dtype}", within="image")
    elif again.tobytes() != stored.tobytes():
        differ = again.view(f"u{again.itemsize}") != stored.view(f"u{again.itemsize}")
        first = tuple(int(n) for n in np.unravel_index(differ.argmax(), differ.shape))
        n = int(np.count_nonzero(differ))
        found = f"{n} other voxels, the first at {first}: {stored[first]} for {again[first]}"
        findings.add("KP506", where, expected=f"the source's voxels at {origin}", found=found, within="image")
    return True
