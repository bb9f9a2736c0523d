"""HDF5 files: the dataset that the person names, or the only one that can be a volume.

What EMAN2, ilastik, plant-seg and BigDataViewer write beside the voxels is read in `hdf5_dialects`. A file is read
alone: links to other files, voxels in other files and virtual datasets are refused, since a file must not name another.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.volumes import hdf5_dialects as dialects
from keypatch.formats.volumes.axes import SPATIAL, Axes, checked_axes
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.reader import (
    VolumeReader,
    library_errors,
    optional_library,
    volume_dtype,
    volume_shape,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import Peek, Volume, VolumeOptions
    from keypatch.formats.volumes.hdf5_dialects import H5

NAME = "hdf5"
SUFFIXES = (".h5", ".hdf5", ".hdf", ".ims")
DESCRIPTION = "dataset of an HDF5 file (EMAN2, ilastik, plant-seg, BigDataViewer and others)"

_MAGIC = b"\x89HDF\r\n\x1a\n"
_MAGIC_AT = (0, 512, 1024)
"""A user block may come first; its length is a power of two from 512 on."""

_CACHE_BYTES = 64 * 2**20
"""Of decoded chunks that stay in memory, for the patches that follow. HDF5's own 1 MiB holds no chunk of 128^3."""
_CACHE_SLOTS = 12_421
"""A prime of about 100 times the chunks that fit, as HDF5 advises (H5Pset_chunk_cache); these are of 512 kB."""

_LARGEST_CHUNK = 2**30
"""Bytes; reading a voxel decodes a whole chunk."""
_MOST_STEPS = 100
_MOST_LISTED = 8
_MOST_CANDIDATES = 100


@dataclass(frozen=True)
class _Dataset:
    """What of a file is read, after links were followed."""

    path: str
    warnings: tuple[str, ...] = ()


def matches(peek: Peek) -> bool:
    """Whether the signature of HDF5 is there."""
    return any(peek.head[at : at + len(_MAGIC)] == _MAGIC for at in _MAGIC_AT)


def open_volume(path: Path, options: VolumeOptions) -> Volume:
    """Open the dataset that ``options.array`` names, or the only one of three axes.

    Raises:
        FormatError: If the choice is not clear, the dataset is no volume, or its voxels lie outside the file.
        MissingExtraError: If h5py is not installed.
        ReadError: If it cannot be read.
    """
    h5py = optional_library("h5py", path, "hdf5")
    file = _open(h5py, path)
    try:
        found = _found(h5py, path, file, options)
        with library_errors(path, f"a readable dataset {found.path}"):
            dataset = file[found.path]
            info, axes = _info(path, dataset, found)
        _refuse_unreadable(h5py, path, dataset)
    finally:
        file.close()
    return _Hdf5Volume(info, h5py, found.path, axes)


class _Hdf5Volume(VolumeReader):
    """Opens the file at the first ``read`` of each process: an open HDF5 file does not survive a fork."""

    def __init__(self, info: VolumeInfo, h5py: H5, dataset: str, axes: Axes) -> None:
        super().__init__(info)
        self._h5py = h5py
        self._name = dataset
        self._axes = axes
        self._file: H5 = None
        self._process = 0

    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        if self._file is None or self._process != os.getpid():
            self._file, self._process = _open(self._h5py, self.info.path), os.getpid()
        with library_errors(self.info.path, "chunks that decode"):
            stored = np.asarray(self._file[self._name][self._axes.selection(z, y, x)])
        if (
            stored.dtype.itemsize == self.info.dtype.itemsize
            and stored.dtype.kind == "i"
            and self.info.dtype.kind == "u"
        ):
            stored = stored.view(stored.dtype.str.replace("i", "u"))
        return self._axes.to_zyx(stored)

    def close(self) -> None:
        """Close the file and let its chunks go."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None


def _open(h5py: H5, path: Path) -> H5:
    with library_errors(path, "an undamaged HDF5 file"):
        return h5py.File(
            path, "r", locking="best-effort", rdcc_nbytes=_CACHE_BYTES, rdcc_nslots=_CACHE_SLOTS, rdcc_w0=1.0
        )


def _found(h5py: H5, path: Path, file: H5, options: VolumeOptions) -> _Dataset:
    if options.array is not None:
        return _Dataset(_resolved(h5py, path, file, options.array))
    with library_errors(path, "readable groups"):
        candidates = _candidates(h5py, file)
    pyramid = dialects.levels(path, file, list(candidates))
    if pyramid:
        level, warnings = dialects.choose(path, pyramid, options.level_spacing)
        return _Dataset(_resolved(h5py, path, file, level), warnings)
    if len(candidates) == 1:
        return _Dataset(_resolved(h5py, path, file, next(iter(candidates))))
    if candidates:
        some = list(candidates.items())[:_MOST_LISTED]
        listed = ", ".join(f"{name} ({' x '.join(map(str, shape))})" for name, shape in some)
        listed += f" and {len(candidates) - len(some)} more" if len(candidates) > len(some) else ""
        hint = "choose one with --array"
        raise FormatError.at(path, expected="one dataset of three axes", found=listed, hint=hint)
    found = "none (links to other files are not followed)"
    raise FormatError.at(path, expected="a dataset of numbers with three axes", found=found)


def _candidates(h5py: H5, file: H5) -> dict[str, tuple[int, ...]]:
    """Shapes of the datasets that can be volumes, by name; links are not followed."""
    found: dict[str, tuple[int, ...]] = {}

    def look(name: str | bytes, node: H5) -> bool | None:
        if isinstance(name, bytes):
            return None  # no UTF-8: a name that nobody can give
        shape = tuple(getattr(node, "shape", None) or ())
        longer = sum(n != 1 for n in shape)
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "iufb" and len(shape) >= 3 >= longer:
            found[name] = shape
        return True if len(found) >= _MOST_CANDIDATES else None

    file.visititems(look)
    return found


def _resolved(h5py: H5, path: Path, file: H5, name: str) -> str:
    """Path of a dataset, each step of which lies in this file; links inside it are followed.

    Raises:
        FormatError: If a step is missing or leads to another file, or there is no dataset at the end.
    """
    done: list[str] = []
    waiting = _steps(name)
    for _ in range(_MOST_STEPS):
        if not waiting:
            return _dataset_at(h5py, path, file, "/" + "/".join(done))
        step = waiting.pop(0)
        target = _soft_target(h5py, path, file, "/" + "/".join(done), step)
        if target is None:
            done.append(step)
            continue
        waiting = _steps(target) + waiting
        done = [] if target.startswith("/") else done
    raise FormatError.at(path, expected=f"a dataset {name!r}", found="links that lead in a circle")


def _steps(name: str) -> list[str]:
    return [step for step in name.split("/") if step not in ("", ".")]


def _soft_target(h5py: H5, path: Path, file: H5, group_name: str, step: str) -> str | None:
    """Where a member of a group leads inside the file, if it is a link; None if it is the thing itself."""
    with library_errors(path, f"a readable group {group_name}"):
        group = file[group_name]
        members = [str(member) for member in group] if isinstance(group, h5py.Group) else []
    if step not in members:
        some = ", ".join(members[:_MOST_LISTED]) or "nothing"
        raise FormatError.at(path, expected=f"{step!r} in {group_name}", found=some, hint="choose with --array")
    with library_errors(path, f"a readable link {step}"):
        kind = group.id.links.get_info(step.encode()).type
        value = None if kind == h5py.h5l.TYPE_HARD else group.id.links.get_val(step.encode())
    if value is None:
        return None
    if kind == h5py.h5l.TYPE_SOFT:
        return str(value.decode("utf-8", "replace"))
    other = value[0].decode("utf-8", "replace") if isinstance(value, tuple) else "elsewhere"
    hint = "give the file that holds the voxels"
    raise FormatError.at(path, expected=f"{step!r} in the file itself", found=f"a link to {other}", hint=hint)


def _dataset_at(h5py: H5, path: Path, file: H5, name: str) -> str:
    with library_errors(path, f"a dataset {name!r}"):
        node = file[name]
        members = [str(member) for member in node] if isinstance(node, h5py.Group) else []
    if not isinstance(node, h5py.Dataset):
        hint = f"choose one of its members with --array: {', '.join(members[:_MOST_LISTED])}" if members else ""
        raise FormatError.at(path, expected=f"a dataset {name!r}", found="a group", hint=hint)
    return name


def _refuse_unreadable(h5py: H5, path: Path, dataset: H5) -> None:
    """Refuse voxels in other files, codecs that are not there, and chunks too large to decode."""
    with library_errors(path, "a readable dataset"):
        outside = bool(dataset.external) or dataset.is_virtual
        plist = dataset.id.get_create_plist()
        filters = [plist.get_filter(number) for number in range(plist.get_nfilters())]
        missing = [f for f in filters if not h5py.h5z.filter_avail(f[0])]
        chunk_bytes = int(np.prod(dataset.chunks or (1,), dtype=object)) * dataset.dtype.itemsize
        stored_bytes = dataset.id.get_storage_size()
    if outside:
        hint = "copy the dataset into one file (h5py: target.create_dataset(name, data=source[name][...]))"
        raise FormatError.at(path, expected="voxels in the file itself", found="external or virtual storage", hint=hint)
    if missing:
        names = ", ".join(f"{f[3].decode('utf-8', 'replace')} (filter {f[0]})" for f in missing)
        hint = "write it anew with gzip: h5repack -f GZIP=4"
        raise FormatError.at(path, expected="a compression that h5py decodes", found=names, hint=hint)
    if chunk_bytes > _LARGEST_CHUNK:
        hint = "write it anew in smaller chunks: h5repack -l CHUNK=64x64x64"
        found = f"chunks of {chunk_bytes} bytes"
        raise FormatError.at(path, expected=f"chunks of at most {_LARGEST_CHUNK} bytes", found=found, hint=hint)
    if stored_bytes == 0:
        raise FormatError.at(path, expected="voxels in the dataset", found="a dataset to which none were ever written")


def _info(path: Path, dataset: H5, found: _Dataset) -> tuple[VolumeInfo, Axes]:
    warn = list(found.warnings)
    axes = _axes(path, dataset, warn)
    facts = dialects.facts(path, dataset, axes, warn)
    shape = volume_shape(path, [dataset.shape[position] for position in axes.order])
    info = VolumeInfo(
        path,
        NAME,
        shape,
        volume_dtype(path, facts.dtype),
        voxel_spacing=facts.voxel_spacing,
        access="region",
        conventions={
            "axis_order": "zyx",
            "stored_axes": "".join(axes.names),
            "axes_from": axes.source,
            "array": found.path.strip("/"),
            "chunks": list(dataset.chunks) if dataset.chunks else None,
            "compression": dataset.compression,
            **facts.conventions,
            "inferred": ["axis_order"] * (axes.source == "assumed") + facts.inferred,
        },
        warnings=(*warn, *_unwritten(dataset)),
    )
    return info, axes


def _unwritten(dataset: H5) -> list[str]:
    """A line if chunks were never written, which HDF5 reads as the fill value."""
    if not dataset.chunks:
        return []
    expected = int(np.prod([-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)], dtype=object))
    there = dataset.id.get_num_chunks()
    told = f"{expected - there} of {expected} chunks were never written; they read as {dataset.fillvalue}"
    return [told] if there < expected else []


def _axes(path: Path, dataset: H5, warn: list[str]) -> Axes:
    shape = dataset.shape
    named = dialects.axis_names(path, dataset)
    if named is not None:
        return checked_axes(path, shape, *named)
    longer = [position for position, n in enumerate(shape) if n != 1]
    if len(shape) > 3 and len(longer) == 3:
        names = ["-"] * len(shape)
        for position, name in zip(longer, SPATIAL, strict=True):
            names[position] = name
        described = " x ".join(map(str, shape))
        warn.append(f"the dataset does not name its axes ({described}); those longer than 1 were taken for z, y, x")
        return Axes(tuple(names), "assumed")
    volume_shape(path, shape)
    if not dialects.has_fixed_axes(dataset):
        warn.append("the dataset does not name its axes; they were taken for z, y, x")
        return Axes(SPATIAL, "assumed")
    return Axes(SPATIAL, "the program that wrote it")
