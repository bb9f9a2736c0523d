"""Making one shard of a store again: from the volumes, or from the tables of keypoints.

A shard is put in place only when it came out with the very sha256 that was recorded when the store was built. So
nothing here has to trust the sources, the tables or the libraries.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from keypatch import gaussian
from keypatch.audit.findings import Findings
from keypatch.audit.gaussians import has_usable_offsets, keypoints_of
from keypatch.audit.recut import open_recorded
from keypatch.audit.voxels import known_padding
from keypatch.converters.crop import cut
from keypatch.converters.scaling import Scaling
from keypatch.errors import KeypatchError
from keypatch.formats.store.arrays import ShardedArray
from keypatch.formats.store.digest import file_sha256
from keypatch.formats.store.disk import sync_folder
from keypatch.formats.store.schema import IMAGE
from keypatch.formats.store.shard import ShardWriter
from keypatch.formats.store.writer import chunk_boxes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from keypatch.audit.attributes import VolumeRecord
    from keypatch.audit.layout import Target
    from keypatch.formats.volumes import Volume

_OTHER_LIBRARY: Final = (
    "what it is made of is right, but compresses to other bytes here: install the libraries, numcodecs above all, "
    "that the store was built with"
)


class UnrepairableError(Exception):
    """Why a shard cannot be made again, as one line; for who calls `Rebuilder.rebuild`."""


class Rebuilder:
    """Makes shards of one store again.

    Args:
        target: The store.
        source: Folder that all volumes share; None where no volumes are at hand.
        work: Folder on the store's disk for what is not finished yet.
        sound: Units of each array whose shard is the one that was written; they tell why another cannot be.
    """

    def __init__(self, target: Target, source: Path | None, work: Path, sound: Mapping[str, frozenset[int]]) -> None:
        self._target = target
        self._source = source
        self._work = work
        self._sound = sound
        self._opened = contextlib.ExitStack()
        self._volume: tuple[int, Volume] | None = None
        self._compresses_otherwise: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def rebuild(self, name: str, unit: int) -> None:
        """Make a shard again and put it in place by one rename, durably.

        Args:
            name: `image` or `gaussian`.
            unit: Which shard.

        Raises:
            UnrepairableError: If it cannot be made, or comes out otherwise; what was there is untouched then.
            WriteError: If the disk does not take it.
        """
        if name in self._compresses_otherwise:
            raise UnrepairableError(_OTHER_LIBRARY)
        path = self._work / f"{name}-{unit}"
        try:
            if not self._comes_out_as_written(name, unit, path):
                raise UnrepairableError(self._why_otherwise(name, unit))
            self._put_in_place(path, name, unit)
        finally:
            path.unlink(missing_ok=True)

    def _comes_out_as_written(self, name: str, unit: int, path: Path) -> bool:
        """Write a shard at ``path``, and read back whether it is the recorded one."""
        spec = self._target.arrays[name]
        codec = spec.codec()
        boxes = list(chunk_boxes(spec.item_shape, spec.chunk_shape))
        with ShardWriter(path, spec.patches_per_shard * spec.chunks_per_patch) as shard:
            for i, values in enumerate(self._patches(name, unit)):
                for k, box in enumerate(boxes):
                    shard.add(i * spec.chunks_per_patch + k, *codec.encode_parts(values[box]))
            shard.close()
        recorded: bytes = self._target.tables[f"integrity/{name}_sha256"][unit].tobytes()
        return file_sha256(path) == recorded

    def _patches(self, name: str, unit: int) -> Iterator[NDArray[Any]]:
        """What the patches of a unit are, one at a time."""
        make = self._image if name == IMAGE else self._gaussian
        dtype = self._target.arrays[name].dtype
        for patch in self._target.arrays[name].unit_patches(unit):
            values = make(patch)
            if values.dtype != dtype:
                raise UnrepairableError(f"patch {patch} comes out as {values.dtype}, and the store holds {dtype}")
            yield values

    def _image(self, patch: int) -> NDArray[Any]:
        index, record = self._record(patch)
        padding = known_padding(self._target)
        if padding is None:
            raise UnrepairableError("the store's recipe names no padding that is known")
        d, h, w = self._target.arrays[IMAGE].item_shape
        origin = self._target.tables["patches/origin"][patch].tolist()
        try:
            scaling = Scaling.from_json(record.json["scaling"])
            return cut(self._open(index, record), origin, (d, h, w), scaling=scaling, padding=padding)
        except (KeypatchError, OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise UnrepairableError(f"patch {patch} cannot be cut from its volume: {error}") from error

    def _record(self, patch: int) -> tuple[int, VolumeRecord]:
        """The volume of a patch, and its record."""
        if not self._target.has("patches/volume_index", "patches/origin") or self._target.volumes is None:
            raise UnrepairableError("the tables that say where its patches lie are damaged")
        owner = self._target.tables["patches/volume_index"]
        index = int(owner[patch]) if patch < len(owner) else -1
        record = self._target.volumes[index] if 0 <= index < len(self._target.volumes) else None
        if record is None:
            raise UnrepairableError(f"the record of the volume of patch {patch} is damaged")
        return index, record

    def _open(self, index: int, record: VolumeRecord) -> Volume:
        """The volume, kept open for the patches that follow."""
        if self._source is None:
            raise UnrepairableError(
                f"needs the volume {record.json.get('path')}: give --source, the folder that all volumes share"
            )
        if self._volume is not None and self._volume[0] == index:
            return self._volume[1]
        self._opened.close()
        self._volume = None
        findings = Findings()
        volume = open_recorded(record, self._source, findings)
        if volume is None:
            said = "; ".join(f"{f.where}: expected {f.expected}, found {f.found}" for f in findings.listed())
            raise UnrepairableError(said or f"the record of volume {record.id} is damaged")
        self._volume = index, self._opened.enter_context(volume)
        return volume

    def _gaussian(self, patch: int) -> NDArray[Any]:
        keypoints = keypoints_of(self._target, patch) if has_usable_offsets(self._target) else None
        if keypoints is None:
            raise UnrepairableError("the tables of keypoints are damaged")
        spec = self._target.arrays["gaussian"]
        return gaussian.render(
            keypoints.local_ds,
            keypoints.class_index,
            n_classes=spec.item_shape[0],
            grid=spec.item_shape[1:],
            sigma=keypoints.sigma,
            dtype=spec.dtype,
        )

    def _put_in_place(self, path: Path, name: str, unit: int) -> None:
        folder = self._target.folder
        place = folder / self._target.shard_name(name, unit)
        folders = [parent for parent in place.parents if parent.is_relative_to(folder)]
        links = [parent for parent in folders[:-1] if parent.is_symlink()]
        if links:
            raise UnrepairableError(f"{links[-1].relative_to(folder).as_posix()} is a link: remove it first")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
            for parent in folders:
                sync_folder(parent)
        except OSError as error:
            raise UnrepairableError(f"cannot be put in place: {error.strerror or error}") from error

    def _why_otherwise(self, name: str, unit: int) -> str:
        """What a sound shard, made again in the same way, tells of one that came out with other bytes."""
        witness = self._witness(name, unit)
        if witness is None:
            return (
                "comes out with other bytes: its source changed, or the libraries here compress otherwise than those "
                "that wrote it (there is no sound shard of the same volumes to tell)"
            )
        path = self._work / "witness"
        try:
            if self._comes_out_as_written(name, witness, path):
                of = "its source" if name == IMAGE else "the tables of keypoints"
                return f"comes out with other bytes: {of} changed where its patches lie, or the store's tables did"
        finally:
            path.unlink(missing_ok=True)
        other = self._first_other(name, witness)
        if other is None:
            self._compresses_otherwise.add(name)
            return _OTHER_LIBRARY
        if name == IMAGE:
            _, record = self._record(other)
            return (
                f"the volume {record.json.get('path')} is not the one that was read: patch {other}, which is sound "
                "in the store, has other voxels there"
            )
        return f"Gaussians are rendered otherwise here: patch {other}, which is sound in the store, has other values"

    def _witness(self, name: str, unit: int) -> int | None:
        """A sound unit that shares a volume with another one; for Gaussians any."""
        sound = self._sound.get(name, frozenset())
        if name != IMAGE:
            return min(sound, default=None)
        mine = self._owners(unit)
        return next((k for k in sorted(sound) if mine & self._owners(k)), None)

    def _owners(self, unit: int) -> set[int]:
        owner = self._target.tables["patches/volume_index"]
        return {int(owner[patch]) for patch in self._target.arrays[IMAGE].unit_patches(unit) if patch < len(owner)}

    def _first_other(self, name: str, unit: int) -> int | None:
        """The first patch of a sound shard that comes out with other values; None where only the bytes differ."""
        array, spec = ShardedArray(self._target.folder / name), self._target.arrays[name]
        for patch, values in zip(spec.unit_patches(unit), self._patches(name, unit), strict=True):
            stored = array.read(patch, [0] * len(spec.item_shape), spec.item_shape)
            if stored.tobytes() != values.tobytes():
                return patch
        return None
