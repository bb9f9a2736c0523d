"""Reading a store: its attributes, its tables, its patches."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from keypatch import gaussian
from keypatch.errors import StoreError
from keypatch.formats.store.arrays import PatchArray, ShardedArray, read_json
from keypatch.formats.store.building import unfinished
from keypatch.formats.store.digest import ROOT_METADATA
from keypatch.formats.store.disk import is_device
from keypatch.formats.store.schema import ATTRIBUTE, GAUSSIAN, IMAGE, SCHEMA_VERSION, parse_version
from keypatch.formats.store.tables import OFFSETS, check_claim, read_table
from keypatch.formats.store.zarr_array import ZARR_ERRORS, ZarrArray, is_file, open_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from os import PathLike

    import pandas as pd
    from numpy.typing import DTypeLike, NDArray

    from keypatch.geometry import Shape3

_NEEDED = ("schema_version", "axes", "patch_shape", "ds_factor", "grid_shape", "classes", "kinds", "counts", "gaussian")


@dataclass(frozen=True, eq=False)
class Patch:
    """One patch with its keypoints.

    Attributes:
        index: Its number in the store.
        volume: Id of its volume.
        origin: (3,) int64, volume index of voxel (0, 0, 0).
        valid_start: (3,) first patch index that lies in the volume.
        valid_stop: (3,) first patch index after those.
        kind: How it came to be, one of `keypatch.formats.store.schema.KINDS`.
        fold: Of its volume; -1 where there are no folds.
        ds_sigma: (3,) float64, in coarse voxels.
        angstrom_sigma: (3,) float64, Å.
        voxel_spacing: (3,) float64, Å a voxel.
        global_coords: (K, 3) float64 voxel-index coordinates in the volume. The patch keeps every annotation within
            6 sigma of its box, so some lie outside it.
        local_rs_coords: (K, 3) float64 voxel-index coordinates in the patch.
        local_ds_coords: (K, 3) float64 index coordinates on the coarse grid.
        class_index: (K,) int32, positions in the store's classes.
        annotation_index: (K,) int64, rows of the store's annotations.
    """

    index: int
    volume: str
    origin: NDArray[np.int64]
    valid_start: NDArray[np.int32]
    valid_stop: NDArray[np.int32]
    kind: str
    fold: int
    ds_sigma: NDArray[np.float64]
    angstrom_sigma: NDArray[np.float64]
    voxel_spacing: NDArray[np.float64]
    global_coords: NDArray[np.float64]
    local_rs_coords: NDArray[np.float64]
    local_ds_coords: NDArray[np.float64]
    class_index: NDArray[np.int32]
    annotation_index: NDArray[np.int64]
    _store: Store = field(repr=False)

    @cached_property
    def image(self) -> NDArray[Any]:
        """(D, H, W) voxels, read when first asked for and kept."""
        return self._store.read_image(self.index)

    def gaussian(self, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """(C, d, h, w) target, rendered from the keypoints; `Store.read_gaussian` reads the stored one."""
        return gaussian.render(
            self.local_ds_coords,
            self.class_index,
            n_classes=len(self._store.classes),
            grid=self._store.grid_shape,
            sigma=self.ds_sigma,
            dtype=dtype,
        )


class Store:
    """A keypatch store, opened for reading. Nothing in it can be written through this class.

    Opening reads two small JSON files; tables are read when first used, images patch by patch. A store may be used by
    threads and in forked workers, and pickled into spawned ones.

    Args:
        path: A folder, a zip file of one, or a URL that fsspec knows.

    Raises:
        StoreError: If there is no keypatch store, or one of a newer major version.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._opened: tuple[int, Any] | None = None
        self._folder = None if "://" in self.path or is_file(self.path) else Path(self.path)
        self.attributes = _check_attributes(self.path, self._root_attributes())
        self.schema_version: str = self.attributes["schema_version"]
        self.patch_shape = _shape3(self.attributes["patch_shape"])
        self.ds_factor = _shape3(self.attributes["ds_factor"])
        self.grid_shape = _shape3(self.attributes["grid_shape"])
        self.classes: tuple[str, ...] = tuple(self.attributes["classes"])
        self.kinds: tuple[str, ...] = tuple(self.attributes["kinds"])
        self.has_gaussian = bool(self.attributes["gaussian"]["stored"])
        self._tables: dict[str, NDArray[Any]] = {}
        self.image_array = self._patch_array(IMAGE, self.patch_shape)

    def __len__(self) -> int:
        return self.image_array.shape[0]

    def __getitem__(self, index: int) -> Patch:
        i = self._checked_index(index)
        first, last = (int(n) for n in self.table(OFFSETS)[i : i + 2])
        rows = slice(first, last)
        return Patch(
            index=i,
            volume=self.volume_ids[int(self.table("patches/volume_index")[i])],
            origin=self.table("patches/origin")[i],
            valid_start=self.table("patches/valid_start")[i],
            valid_stop=self.table("patches/valid_stop")[i],
            kind=self.kinds[int(self.table("patches/kind")[i])],
            fold=int(self.table("patches/fold")[i]),
            ds_sigma=self.table("patches/ds_sigma")[i],
            angstrom_sigma=self.table("patches/angstrom_sigma")[i],
            voxel_spacing=self.table("patches/voxel_spacing")[i],
            global_coords=self.table("keypoints/global_coords")[rows],
            local_rs_coords=self.table("keypoints/local_rs_coords")[rows],
            local_ds_coords=self.table("keypoints/local_ds_coords")[rows],
            class_index=self.table("keypoints/class_index")[rows],
            annotation_index=self.table("keypoints/annotation_index")[rows],
            _store=self,
        )

    def __iter__(self) -> Iterator[Patch]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.patch_shape))
        return f"<keypatch.Store {self.path}: {len(self)} patches of {shape}, classes {', '.join(self.classes)}>"

    @cached_property
    def gaussian_array(self) -> PatchArray:
        """The stored (N, C, d, h, w) targets.

        Raises:
            StoreError: If the store was built without them.
        """
        if not self.has_gaussian:
            raise StoreError.at(
                self.path,
                expected="stored Gaussians",
                found="a store built with --no-gaussian",
                hint="use store[i].gaussian()",
            )
        return self._patch_array(GAUSSIAN, (len(self.classes), *self.grid_shape))

    def read_image(
        self,
        index: int,
        start: Sequence[int] | None = None,
        shape: Sequence[int] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Read a patch, or a window of it; only the chunks that the window touches are read.

        Args:
            index: Of the patch; negative counts from the end.
            start: (3,) first voxel of the window, patch indices; the patch's first when left out.
            shape: (3,) voxels of the window; up to the patch's end when left out.
            out: C-contiguous array of that shape and the store's dtype to read into, which spares the cost of fresh
                memory; a new one when left out.

        Returns:
            ``out``, or a new array of ``shape`` in the store's dtype.

        Raises:
            IndexError: If there is no such patch, or the window leaves the patch.
            ValueError: If ``out`` has another shape or dtype.
            CorruptionError: If bytes are missing or fail their checksum.
        """
        first = (0, 0, 0) if start is None else tuple(start)
        size = tuple(n - a for n, a in zip(self.patch_shape, first, strict=True)) if shape is None else tuple(shape)
        stop = tuple(a + n for a, n in zip(first, size, strict=True))
        if any(a < 0 or n < 0 or b > end for a, n, b, end in zip(first, size, stop, self.patch_shape, strict=True)):
            message = f"window {first} + {size} leaves the patch of {self.patch_shape}"
            raise IndexError(message)
        if out is not None and (out.shape != size or out.dtype != self.image_array.dtype):
            message = f"out of shape {size} and dtype {self.image_array.dtype} expected, found {out.shape}, {out.dtype}"
            raise ValueError(message)
        return self.image_array.read(self._checked_index(index), first, stop, out)

    def read_images(self, indices: Iterable[int], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Read several whole patches into one array.

        Args:
            indices: Of the patches, in any order; a run of neighbours such as ``range(8, 16)`` is quickest.
            out: C-contiguous (n, D, H, W) array of the store's dtype to read into; a new one when left out.

        Returns:
            (n, D, H, W) array.

        Raises:
            IndexError: If there is no such patch.
            ValueError: If ``out`` has another shape or dtype.
            CorruptionError: If bytes are missing or fail their checksum.
        """
        wanted = [self._checked_index(index) for index in indices]
        shape = (len(wanted), *self.patch_shape)
        images = np.empty(shape, self.image_array.dtype) if out is None else out
        if images.shape != shape:
            message = f"out of shape {shape} expected, found {images.shape}"
            raise ValueError(message)
        for image, index in zip(images, wanted, strict=True):
            self.read_image(index, out=image)
        return images

    def read_gaussian(self, index: int) -> NDArray[Any]:
        """Read the stored (C, d, h, w) target of a patch.

        Raises:
            IndexError: If there is no such patch.
            StoreError: If the store was built without Gaussians.
            CorruptionError: If bytes are missing or fail their checksum.
        """
        i = self._checked_index(index)
        item_shape = self.gaussian_array.shape[1:]
        return self.gaussian_array.read(i, [0] * len(item_shape), item_shape)

    def table(self, path: str) -> NDArray[Any]:
        """One of the small arrays, whole, read once and read-only: ``store.table("patches/origin")``.

        Raises:
            StoreError: If it is missing, cannot be decoded, or is not what the schema demands.
            CorruptionError: If a chunk is missing, or a value names nothing.
        """
        if path not in self._tables:
            if self._folder is not None:
                check_claim(self._folder / path)
            n_rows, below = self._rows_of(path), self._length_of_list(path)
            self._tables[path] = read_table(self._zarr_group, path, self.path, n_rows=n_rows, below=below)
        return self._tables[path]

    def _rows_of(self, path: str) -> int | None:
        """Rows that a table must have; None where no other table or array says so."""
        if path == OFFSETS:
            return len(self) + 1
        group = path.partition("/")[0]
        if group == "keypoints":
            return int(self.table(OFFSETS)[-1])
        if group == "annotations" and path != "annotations/volume_index":
            return len(self.table("annotations/volume_index"))
        return len(self) if group == "patches" else None

    def _length_of_list(self, path: str) -> int | None:
        """Length of the list that a table's values are positions in; None where they are not."""
        name = path.rpartition("/")[2]
        if name == "volume_index":
            return len(self.volume_ids)
        lists = {"class_index": self.classes, "kind": self.kinds, "source_index": self.source_paths}
        return len(lists[name]) if name in lists else None

    @property
    def digest(self) -> str:
        """The one digest of the whole store, as it was written into it (`keypatch validate` proves it)."""
        digests = self.attributes.get("digests")
        return str(digests.get("store", "")) if isinstance(digests, dict) else ""

    @cached_property
    def volume_records(self) -> list[dict[str, Any]]:
        """What the store says of each volume: id, path, format, shape, dtype, spacing, conventions, scaling."""
        try:
            if self._folder is None:
                attributes = self._zarr_group["volumes"].attrs.asdict()
            else:
                attributes = read_json(self._folder / "volumes" / ROOT_METADATA)["attributes"]
            records = list(attributes[ATTRIBUTE]["volumes"])
        except StoreError:
            raise
        except ZARR_ERRORS as error:
            found = (isinstance(error, OSError) and error.strerror) or repr(error)
            raise StoreError.at(f"{self.path}/volumes", expected="a list of volumes", found=found) from error
        if not all(isinstance(record, dict) and isinstance(record.get("id"), str) for record in records):
            raise StoreError.at(f"{self.path}/volumes", expected="a list of volumes with ids", found="one of others")
        return records

    @cached_property
    def volume_ids(self) -> tuple[str, ...]:
        """Ids of the volumes, in the order of ``volume_index``."""
        return tuple(record["id"] for record in self.volume_records)

    @cached_property
    def source_paths(self) -> tuple[str, ...]:
        """Paths of the annotation files, in the order of ``source_index``."""
        sources = self.attributes.get("sources", [])
        try:
            return tuple(str(source["path"]) for source in sources)
        except (KeyError, TypeError) as error:
            raise StoreError.at(self.path, expected="a list of sources with paths", found=repr(sources)[:80]) from error

    @cached_property
    def patches(self) -> pd.DataFrame:
        """One row a patch: volume, kind, fold, n_keypoints, and z, y, x of origin, valid box, sigmas and spacing."""
        import pandas as pd  # noqa: PLC0415

        kinds = np.array(self.kinds, dtype=object)
        frame = pd.DataFrame(
            {
                "volume": np.array(self.volume_ids, dtype=object)[self.table("patches/volume_index")],
                "kind": kinds[self.table("patches/kind")],
                "fold": self.table("patches/fold"),
                "n_keypoints": np.diff(self.table(OFFSETS)),
            }
        )
        return self._with_axes(
            frame, "patches", "origin", "valid_start", "valid_stop", "ds_sigma", "angstrom_sigma", "voxel_spacing"
        )

    @cached_property
    def keypoints(self) -> pd.DataFrame:
        """One row a keypoint as seen from a patch: patch, class_name, and z, y, x in all three spaces."""
        import pandas as pd  # noqa: PLC0415

        counts = np.diff(self.table(OFFSETS))
        frame = pd.DataFrame(
            {
                "patch": np.repeat(np.arange(len(self)), counts),
                "class_name": np.array(self.classes, dtype=object)[self.table("keypoints/class_index")],
                "annotation_index": self.table("keypoints/annotation_index"),
            }
        )
        return self._with_axes(frame, "keypoints", "global_coords", "local_rs_coords", "local_ds_coords")

    @cached_property
    def annotations(self) -> pd.DataFrame:
        """One row an annotation of the sources, in a patch or not: volume, class_name, z, y, x, source, row, score."""
        import pandas as pd  # noqa: PLC0415

        coords = self.table("annotations/coords")
        return pd.DataFrame(
            {
                "volume": np.array(self.volume_ids, dtype=object)[self.table("annotations/volume_index")],
                "class_name": np.array(self.classes, dtype=object)[self.table("annotations/class_index")],
                "z": coords[:, 0],
                "y": coords[:, 1],
                "x": coords[:, 2],
                "source": np.array(self.source_paths, dtype=object)[self.table("annotations/source_index")],
                "source_row": self.table("annotations/source_row"),
                "score": self.table("annotations/score"),
            }
        )

    @cached_property
    def volumes(self) -> pd.DataFrame:
        """One row a volume, indexed by its id."""
        import pandas as pd  # noqa: PLC0415

        return pd.DataFrame(self.volume_records).set_index("id")

    def _with_axes(self, frame: pd.DataFrame, group: str, *names: str) -> pd.DataFrame:
        for name in names:
            values = self.table(f"{group}/{name}")
            for axis, letter in enumerate("zyx"):
                frame[f"{name.removesuffix('_coords')}_{letter}"] = values[:, axis]
        return frame

    def _checked_index(self, index: int) -> int:
        i = int(index)
        if not -len(self) <= i < len(self):
            message = f"patch {i} of a store with {len(self)} patches"
            raise IndexError(message)
        return i % len(self)

    def _patch_array(self, name: str, item_shape: tuple[int, ...]) -> PatchArray:
        array = self._open_array(name)
        if array.shape[1:] != item_shape:
            raise StoreError.at(
                f"{self.path}/{name}",
                expected=f"items of shape {item_shape}, as the store's attributes say",
                found=f"an array of shape {array.shape}",
                hint="run keypatch validate",
            )
        return array

    def _open_array(self, name: str) -> PatchArray:
        if self._folder is not None:
            try:
                return ShardedArray(self._folder / name)
            except ValueError:
                pass  # sharded or encoded by another library in another way: its own library reads it
        return ZarrArray(self.path, name)

    def _root_attributes(self) -> object:
        if self._folder is None:
            return self._zarr_group.attrs.asdict().get(ATTRIBUTE)
        path = self._folder / ROOT_METADATA
        try:
            root = read_json(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _no_store(self._folder) from error
        except StoreError:
            raise
        except OSError as error:
            raise StoreError.at(path, expected="a keypatch store", found=error.strerror or str(error)) from error
        attributes = root.get("attributes") if isinstance(root, dict) else None
        return attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None

    @property
    def _zarr_group(self) -> Any:  # noqa: ANN401 - zarr.Group, imported late
        """Opened once in each process: forked workers that shared the file of a zip would move each other's place."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_group(self.path)
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for values in self._tables.values():
            values.flags.writeable = False  # which pickle forgets


def _no_store(path: Path) -> StoreError:
    """What to say of a path where no root of a store lies."""
    out = unfinished(path)
    if out is not None:
        return StoreError.at(
            path,
            expected="a keypatch store",
            found=f"a build of {out.name} that has not come to its end",
            hint="wait for it; if it was interrupted, the same keypatch convert command goes on",
        )
    found = "no such file or folder"
    if path.is_dir():
        found = "a folder without zarr.json"
    elif is_device(str(path)):
        found = "a pipe, socket or device"
    return StoreError.at(path, expected="a keypatch store", found=found)


def _check_attributes(path: str, attributes: object) -> dict[str, Any]:
    if not isinstance(attributes, dict):
        raise StoreError.at(
            path,
            expected=f"a store with the attribute {ATTRIBUTE!r}",
            found="a Zarr group of something else",
            hint="build one with keypatch convert",
        )
    version, known = (
        parse_version(attributes.get("schema_version")),
        cast("tuple[int, int]", parse_version(SCHEMA_VERSION)),
    )
    if version is None or version[0] != known[0]:
        raise StoreError.at(
            path,
            expected=f"schema {known[0]}.x",
            found=f"schema {attributes.get('schema_version')!r}",
            hint=f"this keypatch knows {SCHEMA_VERSION}; install the version that wrote it",
        )
    missing = [key for key in _NEEDED if key not in attributes]
    if missing:
        raise StoreError.at(
            path, expected=f"the attributes {', '.join(_NEEDED)}", found=f"none of {', '.join(missing)}"
        )
    for key, check in _CHECKS.items():
        if not check(attributes[key]):
            raise StoreError.at(path, expected=f"a valid attribute {key!r}", found=repr(attributes[key])[:80])
    return attributes


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(n) is int and 0 < n < 2**31 for n in value)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "patch_shape": _is_shape,
    "ds_factor": _is_shape,
    "grid_shape": _is_shape,
    "classes": _is_names,
    "kinds": _is_names,
    "gaussian": lambda value: isinstance(value, dict) and isinstance(value.get("stored"), bool),
    "counts": lambda value: isinstance(value, dict) and all(type(n) is int and n >= 0 for n in value.values()),
}


def _shape3(values: Sequence[int]) -> Shape3:
    z, y, x = values
    return z, y, x
