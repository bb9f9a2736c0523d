"""Zarr arrays and OME-Zarr images, versions 2 and 3 of Zarr, through zarr-python.

An absent chunk is the fill value, as Zarr has it; a chunk that cannot be decoded is an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.volumes.axes import SPATIAL, Axes, checked_axes
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.neighbours import link_out_of
from keypatch.formats.volumes.ome import Axis, Level, Multiscale, is_inside, parse_multiscale
from keypatch.formats.volumes.reader import (
    VolumeReader,
    declared_spacing,
    library_errors,
    volume_dtype,
    volume_shape,
)
from keypatch.formats.volumes.units import angstrom_per_unit
from keypatch.formats.volumes.world import placed

if TYPE_CHECKING:
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import Peek, Volume, VolumeOptions
    from keypatch.geometry import Vector3, World

NAME = "zarr"
SUFFIXES = (".ome.zarr", ".zarr")
DESCRIPTION = "OME-Zarr image or Zarr array"

_METADATA_FILES = ("zarr.json", ".zarray", ".zgroup")

_FURTHEST_PARENT = 3
"""Groups above an array that are searched for the image it is a level of; ngff-zarr nests one (scale0/image)."""

_SAME_SPACING = 0.05
"""Beyond this share of the spacing that was asked for, the nearest level is told: pyramids go by factors of 2."""


@dataclass(frozen=True)
class _Found:
    """The array to read and what is known of it.

    Attributes:
        path: Of the array.
        name: Path of the array inside what the person gave; "." where they gave the array.
        multiscale: The image that it is a level of, if any.
        level: Of that image.
        warnings: One line each.
    """

    path: Path
    name: str
    multiscale: Multiscale | None = None
    level: Level | None = None
    warnings: tuple[str, ...] = ()


def matches(peek: Peek) -> bool:
    """Whether the folder holds the metadata of a Zarr node."""
    return not peek.names.isdisjoint(_METADATA_FILES)


def open_volume(path: Path, options: VolumeOptions) -> Volume:
    """Open an array, or the array of an image that the options choose; without a choice the finest level.

    Raises:
        FormatError: If the metadata is damaged, the choice is not clear, the array has not one z, y and x axis and no
            longer other axis, or its coordinates need a transformation that is no affine map.
        ReadError: If it cannot be read.
    """
    import zarr  # noqa: PLC0415 - 200 ms that the workers of other formats need not wait for

    found = _found(path, options)
    with library_errors(found.path, "a readable Zarr array"):
        array = zarr.open_array(found.path, mode="r")
        array_names = array.metadata.dimension_names if array.metadata.zarr_format == 3 else None
        xarray_names = array.attrs.get("_ARRAY_DIMENSIONS")
    axes = _axes(found, array.shape, array_names or xarray_names)
    spatial_shape = [array.shape[position] for position in axes.order]
    warn = list(found.warnings)
    spacing, world, details = _physical(found.level, axes, warn)
    if axes.source == "assumed":
        warn.append("the array does not name its axes; they were taken for z, y, x")
    link = link_out_of(path, found.path)
    if link is not None:
        warn.append(f"{link} is a symbolic link out of the Zarr; it was followed, and others like it are")
    info = VolumeInfo(
        path,
        NAME,
        volume_shape(found.path, spatial_shape),
        volume_dtype(found.path, np.dtype(array.dtype)),
        voxel_spacing=spacing,
        access="region",
        conventions={
            "axis_order": "zyx",
            "stored_axes": "".join(axes.names),
            "axes_from": axes.source,
            "array": found.name,
            "zarr_format": array.metadata.zarr_format,
            "ome_version": found.multiscale.version if found.multiscale else None,
            **details,
            "inferred": ["axis_order"] * (axes.source == "assumed") + details.get("inferred", []),
        },
        warnings=tuple(warn),
        world=world,
    )
    return _ZarrVolume(info, found.path, array, axes)


class _ZarrVolume(VolumeReader):
    def __init__(self, info: VolumeInfo, path: Path, array: zarr.Array[Any], axes: Axes) -> None:
        super().__init__(info)
        self._path = path
        self._array = array
        self._axes = axes

    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        with library_errors(self._path, "chunks that decode"):
            stored = np.asarray(self._array[self._axes.selection(z, y, x)])
        return self._axes.to_zyx(stored)


def _found(path: Path, options: VolumeOptions) -> _Found:
    """The array that the path and the options name."""
    import zarr  # noqa: PLC0415

    if options.array is not None and not is_inside(options.array):
        raise FormatError.at(path, expected="the path of an array inside the Zarr", found=repr(options.array))
    where = path if options.array is None else path / options.array
    with library_errors(where, "a Zarr array or group"):
        node = zarr.open(where, mode="r")
        attributes = dict(node.attrs)
    name = options.array or "."
    if isinstance(node, zarr.Array):
        return _as_level(where, name)
    multiscale = parse_multiscale(where, attributes)
    if multiscale is None:
        array = _only_array(where)
        return _Found(where / array, array if name == "." else f"{name}/{array}")
    level, warnings = _chosen(where, multiscale, options.level_spacing)
    level_name = level.path if name == "." else f"{name}/{level.path}"
    return _Found(where / level.path, level_name, multiscale, level, multiscale.warnings + warnings)


def _as_level(array: Path, name: str) -> _Found:
    """An array that was named directly: a level of the image above it, where there is one that lists it.

    The image says what the array's axes are, so that "run.zarr/0" is read as level 0 of "run.zarr" is.
    """
    import zarr  # noqa: PLC0415

    for group in list(array.absolute().parents)[:_FURTHEST_PARENT]:
        if not any((group / file).is_file() for file in (*_METADATA_FILES, ".zattrs")):
            break
        with library_errors(group, "readable group metadata"):
            attributes = dict(zarr.open_group(group, mode="r").attrs)
        multiscale = parse_multiscale(group, attributes)
        inside = array.absolute().relative_to(group).as_posix()
        for level in multiscale.levels if multiscale else ():
            if level.path.strip("/") == inside:
                return _Found(array, name, multiscale, level)
    return _Found(array, name)


def _only_array(group: Path) -> str:
    import zarr  # noqa: PLC0415

    with library_errors(group, "readable members of the group"):
        members = list(zarr.open_group(group, mode="r", use_consolidated=False).members())
    arrays = sorted(name for name, node in members if isinstance(node, zarr.Array))
    if len(arrays) == 1:
        return arrays[0]
    groups = sorted(name for name, node in members if not isinstance(node, zarr.Array))
    found = "the arrays " + ", ".join(arrays) if arrays else "no array"
    found += " and the groups " + ", ".join(groups) if groups else ""
    hint = "choose one with --array" if arrays or groups else ""
    raise FormatError.at(group, expected="an OME-Zarr image or a single array", found=found, hint=hint)


def _chosen(group: Path, multiscale: Multiscale, spacing: float | None) -> tuple[Level, tuple[str, ...]]:
    """The finest level, or the one of the spacing that was asked for."""
    first, *others = multiscale.levels
    if spacing is None:
        coarser = next((lv.path for lv in others if _voxel_size(lv) < _voxel_size(first)), None)
        if coarser is not None:
            found = f"{coarser}, finer than {first.path}"
            raise FormatError.at(group, expected="the finest level first", found=found, hint="choose with --array")
        return first, ()
    sizes = [_voxel_size(level) for level in multiscale.levels]
    if not all(map(math.isfinite, sizes)):
        hint = "choose with --array"
        raise FormatError.at(group, expected="levels with a spacing", found="levels without", hint=hint)
    nearest = min(range(len(sizes)), key=lambda number: abs(sizes[number] - spacing))
    far = abs(sizes[nearest] - spacing) > _SAME_SPACING * spacing
    told = f"no level of {spacing:g} Å; the nearest, {multiscale.levels[nearest].path}, has {sizes[nearest]:g} Å"
    return multiscale.levels[nearest], (told,) if far else ()


def _voxel_size(level: Level) -> float:
    """Geometric mean of a level's spacing, Å; not a number where it has none."""
    names = [axis.name for axis in level.axes]
    if level.affine is None or not {*SPATIAL} <= {*names}:
        return math.nan
    affine = _in_angstrom(level, Axes(tuple(names), ""))
    if affine is None:
        return math.nan
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return float(math.prod(sizes) ** (1 / 3)) if (sizes > 0).all() else math.nan


def _axes(found: _Found, shape: tuple[int, ...], dimension_names: Any) -> Axes:  # noqa: ANN401 - from JSON
    """Name the array's axes.

    Raises:
        FormatError: As `checked_axes`.
    """
    if found.level is not None:
        return checked_axes(found.path, shape, [axis.name for axis in found.level.axes], "multiscales")
    if dimension_names and all(isinstance(name, str) for name in dimension_names):
        names = [name.lower() for name in dimension_names]
        if not {*SPATIAL}.isdisjoint(names):
            return checked_axes(found.path, shape, names, "dimension names")
    volume_shape(found.path, shape)
    return Axes(SPATIAL, "assumed")


def _physical(level: Level | None, axes: Axes, warn: list[str]) -> tuple[Vector3 | None, World | None, dict[str, Any]]:
    """Voxel spacing and map to the image's coordinates in Å, and what the metadata says for the conventions."""
    if level is None:
        return None, None, {}
    if level.affine is None:
        warn.append("the image gives no scale; give --voxel-spacing")
        return None, None, {}
    units = [axis.unit for axis in _spatial_system(level)]
    written = _zyx_part(level, axes)
    details: dict[str, Any] = {
        "units_zyx": units,
        "translation_zyx": written[:3, 3].tolist(),
        "translation_applied": False,
        "inferred": ["unit"] if None in units else [],
    }
    details |= {"scale_zyx": np.diag(written)[:3].tolist()} if level.is_grid else {"affine_zyx": written[:3].tolist()}
    if None in units:
        warn.append("the axes have no unit; Å was assumed")
    affine = _in_angstrom(level, axes)
    if affine is None:
        warn.append(f"the unit of the axes ({', '.join(map(str, units))}) is no length; give --voxel-spacing")
        return None, None, details
    source = "coordinateTransformations"
    if level.is_grid and declared_spacing(np.diag(affine)[:3], warn, source) is None:
        return None, None, details
    return *placed(affine, warn, source), details


def _spatial_system(level: Level) -> list[Axis]:
    """z, y and x of the image's coordinates."""
    by_name = {axis.name: axis for axis in level.system}
    return [by_name[name] for name in SPATIAL]


def _zyx_part(level: Level, axes: Axes) -> NDArray[np.float64]:
    """(4, 4) map of index (z, y, x, 1) to coordinates (z, y, x, 1), in the units of the axes."""
    assert level.affine is not None  # noqa: S101 - told apart by the callers
    rows = [level.system.index(axis) for axis in _spatial_system(level)]
    return level.affine[np.ix_([*rows, -1], [*axes.order, -1])]


def _in_angstrom(level: Level, axes: Axes) -> NDArray[np.float64] | None:
    """The same in Å; None where a unit is no length."""
    scales = [1.0 if axis.unit is None else angstrom_per_unit(axis.unit) for axis in _spatial_system(level)]
    if None in scales:
        return None
    return np.diag([*(scale or 1.0 for scale in scales), 1.0]) @ _zyx_part(level, axes)
