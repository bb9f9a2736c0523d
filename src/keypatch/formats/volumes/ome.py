"""OME-Zarr's multiscales metadata, versions 0.1 to 0.5 and the part of 0.6 that needs no resampling.

Specification: https://ngff.openmicroscopy.org/0.4/ and /0.5/ (section "multiscales"). A level's physical coordinates
are ``scale * index + translation``, by the level's own transformations and then by those that all levels share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keypatch.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_DEFAULT_AXES = ("t", "c", "z", "y", "x")
"""Of versions 0.1 and 0.2, which name no axes."""


@dataclass(frozen=True)
class Axis:
    """One axis of the array: its name in lower case, and its unit as written."""

    name: str
    unit: str | None = None


@dataclass(frozen=True)
class Level:
    """One array of a pyramid.

    Attributes:
        path: Of the array, relative to the group.
        axes: In the order of the array.
        scale: One factor an axis; None where the file gives none.
        translation: One offset an axis, in the axis' unit.
    """

    path: str
    axes: tuple[Axis, ...]
    scale: tuple[float, ...] | None
    translation: tuple[float, ...]


@dataclass(frozen=True)
class Multiscale:
    """A pyramid of the same image, the finest level first.

    Attributes:
        version: As written; empty where it is not.
        levels: At least one.
        warnings: One line each.
    """

    version: str
    levels: tuple[Level, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Transform:
    scale: tuple[float, ...] | None
    translation: tuple[float, ...]


def parse_multiscale(where: Path, attributes: Mapping[str, Any]) -> Multiscale | None:
    """Read the first pyramid of a group's attributes; None where the group has none.

    Args:
        where: The group, for messages.
        attributes: Of the group; version 0.5 keeps its metadata under "ome".

    Raises:
        FormatError: If the metadata is not what the specification demands, or holds a transformation other than a
            scale and a translation.
    """
    holder = attributes.get("ome", attributes)
    entries = holder.get("multiscales") if isinstance(holder, dict) else None
    if not entries:
        return None
    try:
        return _multiscale(where, holder, entries)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, StopIteration, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        found = f"{type(error).__name__}: {error}"
        raise FormatError.at(where, expected="multiscales metadata of OME-Zarr", found=found) from error


def _multiscale(where: Path, holder: Mapping[str, Any], entries: list[Any]) -> Multiscale:
    entry = entries[0]
    version = str(holder.get("version") or entry.get("version") or "")
    warn = [f"the group holds {len(entries)} images; the first was taken"] if len(entries) > 1 else []
    levels = tuple(_level(where, entry, dataset) for dataset in entry["datasets"])
    if not levels:
        raise FormatError.at(where, expected="at least one dataset in multiscales", found="none")
    if "coordinateSystems" in entry and entry.get("coordinateTransformations"):
        # From version 0.6 on these lead out of the image's own coordinate system, in which its voxels have their size.
        warn.append("transformations to other coordinate systems were not applied")
    return Multiscale(version, levels, tuple(warn))


def _level(where: Path, entry: Mapping[str, Any], dataset: Mapping[str, Any]) -> Level:
    path = dataset["path"]
    if not isinstance(path, str) or not is_inside(path):
        raise FormatError.at(where, expected="a dataset path inside the group", found=repr(path))
    transforms = dataset.get("coordinateTransformations", [])
    axes = _axes(entry, transforms)
    own = _combined(where, transforms, len(axes))
    if "coordinateSystems" in entry:
        return Level(path, axes, own.scale, own.translation)
    shared = _combined(where, entry.get("coordinateTransformations", []), len(axes))
    scales = [transform.scale for transform in (own, shared) if transform.scale is not None]
    factors = shared.scale or (1.0,) * len(axes)
    moved = tuple(f * t + s for f, t, s in zip(factors, own.translation, shared.translation, strict=True))
    return Level(path, axes, tuple(map(math.prod, zip(*scales, strict=True))) if scales else None, moved)


def is_inside(path: str) -> bool:
    """Whether a path inside a Zarr stays inside it."""
    return bool(path) and not path.startswith("/") and "\\" not in path and ".." not in path.split("/")


def _axes(entry: Mapping[str, Any], transforms: list[Any]) -> tuple[Axis, ...]:
    if "coordinateSystems" in entry:
        output = transforms[0]["output"] if transforms else entry["coordinateSystems"][0]["name"]
        if len(transforms) > 1:
            message = f"{len(transforms)} transformations of one dataset, where version 0.6 has one"
            raise ValueError(message)
        system = next(s for s in entry["coordinateSystems"] if s["name"] == _name(output))
        return tuple(_axis(axis) for axis in system["axes"])
    return tuple(_axis(axis) for axis in entry.get("axes", _DEFAULT_AXES))


def _name(system: str | Mapping[str, Any]) -> str:
    return system if isinstance(system, str) else str(system["name"])


def _axis(axis: str | Mapping[str, Any]) -> Axis:
    """An axis of version 0.4 or later, or one of 0.3, which gives the name alone."""
    if isinstance(axis, str):
        return Axis(axis.lower())
    unit = axis.get("unit")
    return Axis(str(axis["name"]).lower(), None if unit is None else str(unit))


def _combined(where: Path, transforms: list[Any], n_axes: int) -> _Transform:
    """One scale and translation from a list, applied in its order."""
    scale: tuple[float, ...] | None = None
    translation = (0.0,) * n_axes
    for transform in _flattened(transforms):
        kind = transform["type"]
        if kind == "identity":
            scale = scale or (1.0,) * n_axes
        elif kind == "scale":
            factors = _vector(transform["scale"], n_axes)
            scale = factors if scale is None else tuple(a * b for a, b in zip(scale, factors, strict=True))
            translation = tuple(f * t for f, t in zip(factors, translation, strict=True))
        elif kind == "translation":
            scale = scale or (1.0,) * n_axes
            translation = tuple(map(sum, zip(translation, _vector(transform["translation"], n_axes), strict=True)))
        else:
            hint = "resample the image onto a plain grid first"
            raise FormatError.at(where, expected="scale and translation", found=f"a transformation {kind!r}", hint=hint)
    return _Transform(scale, translation)


def _flattened(transforms: list[Any]) -> list[Any]:
    flat = []
    for transform in transforms:
        flat += _flattened(transform["transformations"]) if transform["type"] == "sequence" else [transform]
    return flat


def _vector(values: list[Any], n_axes: int) -> tuple[float, ...]:
    if len(values) != n_axes:
        message = f"{len(values)} factors for {n_axes} axes"
        raise ValueError(message)
    return tuple(float(value) for value in values)
