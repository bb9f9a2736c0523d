"""Patches cut again from their sources, and compared bit for bit."""

from __future__ import annotations

import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.audit.attributes import is_below
from keypatch.audit.figures import plural
from keypatch.audit.shardfile import Memory
from keypatch.audit.voxels import known_padding
from keypatch.errors import KeypatchError, ReadError
from keypatch.formats.store.schema import IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from keypatch.audit.attributes import VolumeRecord
    from keypatch.audit.findings import Findings
    from keypatch.audit.layout import Target
    from keypatch.converters.crop import Padding
    from keypatch.converters.resample import Resampling
    from keypatch.converters.scaling import Scaling
    from keypatch.formats.volumes import Volume


@dataclass(frozen=True)
class Recut:
    """How to cut the patches of some units again. It pickles.

    Attributes:
        source: Folder that all volumes share; a volume lies at ``source / path`` of its record.
        padding: Of the recipe.
        records: Of the volumes whose files are those that were read, by ``volume_index``.
        first: Number of the first patch.
        owner: (n,) ``volume_index`` of the patches.
        origin: (n, 3) of the patches.
    """

    source: Path
    padding: Padding
    records: Mapping[int, VolumeRecord]
    first: int
    owner: NDArray[np.int32]
    origin: NDArray[np.int64]

    def of(self, patches: range) -> Recut | None:
        """The part that some patches need; None where none of them can be cut."""
        rows = slice(patches.start - self.first, patches.stop - self.first)
        records = {
            index: self.records[index] for index in np.unique(self.owner[rows]).tolist() if index in self.records
        }
        if not records:
            return None
        return Recut(self.source, self.padding, records, patches.start, self.owner[rows], self.origin[rows])

    def can_cut(self, patch: int) -> bool:
        """Whether the volume of a patch is there."""
        row = patch - self.first
        return 0 <= row < len(self.owner) and int(self.owner[row]) in self.records

    def compare(self, patch: int, stored: NDArray[Any], findings: Findings) -> bool:
        """Cut a patch again and hold it against the stored one.

        Args:
            patch: Its number.
            stored: (D, H, W) voxels.
            findings: Added to.

        Returns:
            Whether it could be cut.
        """
        row = patch - self.first
        record = self.records[int(self.owner[row])]
        scaling = _scaling(record)
        volume = _kept.volume(record, self.source, findings) if scaling is not None else None
        if volume is None or scaling is None:
            return False
        if scaling.dtype != stored.dtype:
            found = f"dtype {stored.dtype}"
            findings.add(
                "KP506", f"image: patch {patch}", expected=f"dtype {scaling.dtype}", found=found, within="image"
            )
            return True
        return self._compare(volume, patch, self.origin[row].tolist(), scaling, stored, findings)

    def _compare(
        self,
        volume: Volume,
        patch: int,
        origin: Sequence[int],
        scaling: Scaling,
        stored: NDArray[Any],
        findings: Findings,
    ) -> bool:
        from keypatch.converters.crop import cut  # noqa: PLC0415

        where, (d, h, w) = f"image: patch {patch}", stored.shape
        out = _kept.memory.take(stored.nbytes).view(stored.dtype).reshape(stored.shape)
        try:
            again = cut(volume, origin, (d, h, w), scaling=scaling, padding=self.padding, out=out)
        except (KeypatchError, OSError, ValueError, TypeError, ArithmeticError) as error:
            findings.add("KP507", where, expected=f"a box of volume at {origin}", found=error, within="image")
            return False
        differ = again.view(f"u{again.itemsize}") != stored.view(f"u{again.itemsize}")
        if differ.any():
            first = tuple(int(n) for n in np.unravel_index(differ.argmax(), differ.shape))
            n = int(np.count_nonzero(differ))
            found = f"{plural(n, 'other voxel')}, the first at {first}: {stored[first]} for {again[first]}"
            findings.add("KP506", where, expected=f"the source's voxels at {origin}", found=found, within="image")
        return True


def check_source(source: Path) -> None:
    """See that there is a folder to read volumes from.

    Raises:
        ReadError: If there is none, or none that may be looked into.
    """
    try:
        found = "" if stat.S_ISDIR(source.stat().st_mode) else "no folder"
    except FileNotFoundError:
        found = "no such folder"
    except OSError as error:
        found = error.strerror or str(error)
    if found:
        raise ReadError.at(source, expected="the folder of the volumes", found=found, hint="check --source")


def find_sources(target: Target, source: Path, units: Sequence[int], findings: Findings) -> Recut | None:
    """Open each volume of some units once and see that it is the one that was read.

    Args:
        target: The store.
        source: Folder that all volumes share.
        units: Whose patches are to be cut again.
        findings: Added to.

    Returns:
        How to cut the patches of the whole store whose volume is there; None where nothing can be cut.

    Raises:
        ReadError: If there is no such folder.
    """
    check_source(source)
    padding = known_padding(target)
    if padding is None:
        recipe = target.attributes.get("recipe")
        found = recipe.get("padding") if isinstance(recipe, dict) else recipe
        findings.add("KP106", "zarr.json: recipe.padding", expected="the name of a padding", found=repr(found))
        return None
    if IMAGE not in target.arrays or target.volumes is None or not target.has("patches/volume_index", "patches/origin"):
        return None
    owner = target.tables["patches/volume_index"]
    records = {}
    for index in _volumes_of(target, units):
        record = target.volumes[index]
        volume = None if record is None else open_recorded(record, source, findings)
        if record is not None and volume is not None:
            volume.close()
            records[index] = record
    return Recut(source, padding, records, 0, owner, target.tables["patches/origin"])


def _volumes_of(target: Target, units: Sequence[int]) -> list[int]:
    """The volumes that the patches of some units lie in, in the order of the patches."""
    owner = target.tables["patches/volume_index"]
    found: dict[int, None] = {}
    for unit in units:
        patches = target.arrays[IMAGE].unit_patches(unit)
        found |= dict.fromkeys(owner[patches.start : patches.stop].tolist())
    return [index for index in found if 0 <= index < len(target.volumes or ())]


def _scaling(record: VolumeRecord) -> Scaling | None:
    from keypatch.converters.scaling import Scaling  # noqa: PLC0415

    try:
        return Scaling.from_json(record.json["scaling"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None  # reported with the record


class _Kept(threading.local):
    """What a thread keeps from one patch for the next: the volume that it cut last, and memory."""

    def __init__(self) -> None:
        self.memory = Memory()
        self._key: tuple[VolumeRecord, Path] | None = None
        self._volume: Volume | None = None

    def volume(self, record: VolumeRecord, source: Path, findings: Findings) -> Volume | None:
        """Open, or None where it cannot be opened any more, which is a finding."""
        if self._volume is None or self._key != (record, source):
            self.close()
            self._volume, self._key = open_recorded(record, source, findings), (record, source)
        return self._volume

    def close(self) -> None:
        if self._volume is not None:
            self._volume.close()
        self._volume = self._key = None


_kept = _Kept()


def close_volume() -> None:
    """Let go of what this thread keeps; an audit calls it when it ends."""
    _kept.close()


def open_recorded(record: VolumeRecord, source: Path, findings: Findings) -> Volume | None:
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
        return None
    if not os.path.lexists(path):
        findings.add("KP501", where, expected=path, found="no such file", within="source")
        return None
    asked = record.json.get("options")
    options = asked if isinstance(asked, dict) else {}
    try:
        resampling = Resampling.from_json(record.json.get("resampling"))
        if resampling is not None and resampling.shape != record.shape:
            return None  # reported with the record
    except KeypatchError as error:
        findings.add("KP502", where, expected="a resampling that can be done again", found=error, within="source")
        return None
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None  # reported with the record
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
        return None
    if _is_recorded(volume, resampling, record, where, findings):
        return volume
    volume.close()
    return None


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
