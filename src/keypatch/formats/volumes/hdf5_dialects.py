"""What programs that write HDF5 say of a volume beside its voxels: axes, voxel size, pyramids."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.safe_xml import children, parse_xml
from keypatch.formats.volumes.reader import declared_spacing, library_errors
from keypatch.formats.volumes.units import angstrom_per_unit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree import ElementTree

    from keypatch.formats.volumes.axes import Axes
    from keypatch.geometry import Vector3

H5: TypeAlias = Any
"""The module h5py, or an object of it: they have no types."""

_EMAN2 = re.compile(r"/?MDF/images/\d+/image")
_BDV = re.compile(r"/?(t\d{5,})/(s\d{2,})/(\d+)/cells")
"""Time point, setup (channel, angle, tile) and level of BigDataViewer (https://imagej.net/plugins/bdv/)."""

_XML_BYTES = 64 * 2**20
_UM = angstrom_per_unit("um") or math.nan

_SAME_SPACING = 0.05
"""As for the levels of OME-Zarr."""


@dataclass(frozen=True)
class Facts:
    """What a file says of one dataset.

    Attributes:
        dtype: That the voxels mean; of the size that is stored.
        voxel_spacing: Å, z, y, x.
        conventions: For `VolumeInfo.conventions`.
        inferred: Likewise.
    """

    dtype: np.dtype[Any]
    voxel_spacing: Vector3 | None = None
    conventions: dict[str, Any] = field(default_factory=dict)
    inferred: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Level:
    """One level of BigDataViewer's pyramid: path of the dataset, and its spacing in Å if that is known."""

    path: str
    spacing: Vector3 | None


def axis_names(path: Path, dataset: H5) -> tuple[tuple[str, ...], str] | None:
    """Names of the axes and who gives them: ilastik's axistags, or the labels of HDF5's dimension scales.

    Raises:
        FormatError: If the axistags are no JSON of VIGRA's.
    """
    tags = dataset.attrs.get("axistags")
    if isinstance(tags, bytes | str):
        text = tags.decode("utf-8", "replace") if isinstance(tags, bytes) else tags
        try:
            names = tuple(str(axis["key"]).lower() for axis in json.loads(text)["axes"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError.at(path, expected="axistags as VIGRA writes them", found=repr(text[:60])) from error
        return names, "axistags"
    labels = tuple(str(dimension.label).lower() for dimension in dataset.dims)
    return (labels, "dimension labels") if {"z", "y", "x"} <= set(labels) else None


def has_fixed_axes(dataset: H5) -> bool:
    """Whether the program that wrote the dataset always writes z, y, x: EMAN2, BigDataViewer, plant-seg."""
    told = _EMAN2.fullmatch(dataset.name) or _BDV.fullmatch(dataset.name) or "element_size_um" in dataset.attrs
    return bool(told)


def facts(path: Path, dataset: H5, axes: Axes, warn: list[str]) -> Facts:
    """Voxel size and kind of a dataset.

    Args:
        path: Of the file.
        dataset: Open.
        axes: Of the dataset.
        warn: Warnings of the volume; added to.
    """
    if _EMAN2.fullmatch(dataset.name):
        return _eman2(dataset, warn)
    if level := _BDV.fullmatch(dataset.name):
        return _bdv(path, dataset, level, warn)
    sizes = dataset.attrs.get("element_size_um")
    if sizes is not None:
        spacing = _um_spacing(np.ravel(sizes), axes, warn)
        return Facts(dataset.dtype, spacing, {"voxel_spacing_from": "element_size_um", "unit": "um"})
    warn.append("the dataset gives no voxel spacing; give --voxel-spacing")
    return Facts(dataset.dtype, None, {"voxel_spacing_from": None})


def levels(path: Path, file: H5, candidates: Sequence[str]) -> list[Level]:
    """The levels of the only image in a file of BigDataViewer's, the finest first; empty for any other file."""
    found = [(match, name) for name in candidates if (match := _BDV.fullmatch(name))]
    if len(found) != len(candidates) or len({(match[1], match[2]) for match, _ in found}) != 1:
        return []
    ordered = sorted(found, key=lambda pair: int(pair[0][3]))
    return [Level(name, _level_spacing(path, file, match)) for match, name in ordered]


def choose(path: Path, pyramid: Sequence[Level], spacing: float | None) -> tuple[str, tuple[str, ...]]:
    """The finest level, or the one whose spacing is nearest to what was asked for.

    Raises:
        FormatError: If a spacing was asked for and the file does not say which level has which.
    """
    if spacing is None:
        return pyramid[0].path, ()
    sizes = [math.nan if level.spacing is None else math.prod(level.spacing) ** (1 / 3) for level in pyramid]
    if not all(map(math.isfinite, sizes)):
        hint = "put BigDataViewer's .xml beside the file, or choose with --array"
        raise FormatError.at(path, expected="levels with a spacing", found="levels without", hint=hint)
    nearest = min(range(len(sizes)), key=lambda number: abs(sizes[number] - spacing))
    far = abs(sizes[nearest] - spacing) > _SAME_SPACING * spacing
    told = f"no level of {spacing:g} Å; the nearest, {pyramid[nearest].path}, has {sizes[nearest]:g} Å"
    return pyramid[nearest].path, (told,) if far else ()


def _um_spacing(sizes: np.ndarray[Any, Any], axes: Axes, warn: list[str]) -> Vector3 | None:
    """Of z, y, x in µm: as many numbers as the dataset has axes, or three."""
    if len(sizes) not in (3, len(axes.names)) or sizes.dtype.kind not in "iuf":
        warn.append(f"element_size_um holds {sizes.tolist()[:6]}, not three numbers; give --voxel-spacing")
        return None
    positions = axes.order if len(sizes) == len(axes.names) else (0, 1, 2)
    return declared_spacing([float(sizes[p]) * _UM for p in positions], warn, "element_size_um")


def _eman2(dataset: H5, warn: list[str]) -> Facts:
    attributes = dataset.parent.attrs
    sizes = [_number(attributes.get(f"EMAN.apix_{axis}")) for axis in "zyx"]
    spacing = declared_spacing([float(f"{size:.7g}") for size in sizes], warn, "EMAN.apix_x, _y, _z")
    details: dict[str, Any] = {"voxel_spacing_from": "EMAN.apix", "unit": "angstrom"}
    low, high, bits = (
        _number(attributes.get(f"EMAN.stored_{name}")) for name in ("rendermin", "rendermax", "renderbits")
    )
    if dataset.dtype.kind in "iu" and bits > 0 and math.isfinite(low) and math.isfinite(high):
        details |= {"stored_rendermin": low, "stored_rendermax": high, "stored_renderbits": int(bits)}
        warn.append(f"EMAN2 stored densities of {low:g} to {high:g} as integers of {bits:g} bits; these were read")
    return Facts(dataset.dtype, spacing, details)


def _bdv(path: Path, dataset: H5, level: re.Match[str], warn: list[str]) -> Facts:
    spacing = _level_spacing(path, dataset.file, level)
    if spacing is None:
        warn.append(f"no {path.with_suffix('.xml').name} beside the file gives a voxel size; give --voxel-spacing")
    details = {"voxel_spacing_from": None if spacing is None else "BigDataViewer's .xml", "level": int(level[3])}
    dtype = dataset.dtype
    setup = dataset.file.get(level[2])
    if dtype == np.int16 and (setup is None or "dataType" not in setup.attrs):
        # Hdf5ImageLoader takes every file without "dataType" for uint16 stored as int16 (bigdataviewer-core, pull 157).
        dtype = dtype.str.replace("i", "u")
        details["stored_dtype"] = "int16, which stands for uint16"
    return Facts(np.dtype(dtype), spacing, details)


def _level_spacing(path: Path, file: H5, level: re.Match[str]) -> Vector3 | None:
    """Å, z, y, x: the size in the .xml times the level's factors, which the file gives in the order x, y, z."""
    finest = _finest_spacing(path, int(level[2][1:]))
    with library_errors(path, f"readable {level[2]}/resolutions"):
        factors = np.asarray(file[f"{level[2]}/resolutions"], np.float64) if level[2] in file else np.ones((1, 3))
    number = int(level[3])
    if finest is None or factors.ndim != 2 or factors.shape[1] != 3 or number >= len(factors):
        return None
    z, y, x = (size * float(factor) for size, factor in zip(finest, factors[number][::-1], strict=True))
    return z, y, x


def _finest_spacing(path: Path, setup: int) -> Vector3 | None:
    """Of a setup in BigDataViewer's .xml beside the file; None where there is none, or no length in it."""
    xml = path.with_suffix(".xml")
    if not xml.is_file() or xml.stat().st_size > _XML_BYTES:
        return None
    with library_errors(xml, "a readable .xml of BigDataViewer"):
        root = parse_xml(xml, xml.read_bytes())
    for element in root.iter("ViewSetup"):
        if _text(element, "id") != str(setup):
            continue
        for size in children(element, "voxelSize"):
            scale = angstrom_per_unit(_text(size, "unit"))
            numbers = [_number(part) for part in _text(size, "size").split()]
            if scale is not None and len(numbers) == 3:
                x, y, z = (number * scale for number in numbers)
                return declared_spacing((z, y, x), [], xml.name)
    return None


def _text(element: ElementTree.Element, name: str) -> str:
    return next((child.text or "" for child in children(element, name)), "").strip()


def _number(value: Any) -> float:  # noqa: ANN401 - of a file
    """A number of a file; not a number where it has none, or something else."""
    try:
        return float(np.ravel(value)[0]) if value is not None else math.nan
    except (TypeError, ValueError, IndexError):
        return math.nan
