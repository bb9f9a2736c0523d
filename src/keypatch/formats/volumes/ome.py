"""OME-Zarr's multiscales metadata, versions 0.1 to 0.5 and the affine part of 0.6.

Specification: https://ngff.openmicroscopy.org/0.4/, /0.5/ and /0.6.dev3/ (sections "multiscales" and
"coordinateTransformations"). A level's coordinates are what its own transformations make of the array's indices,
and then those that all levels share. From version 0.6 on the shared ones lead out of the image's own coordinate system,
in which its voxels have their size, and are not applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_DEFAULT_AXES = ("t", "c", "z", "y", "x")
"""Of versions 0.1 and 0.2, which name no axes."""


@dataclass(frozen=True)
class Axis:
    """One axis of the array: its name in lower case, and its unit as written."""

    name: str
    unit: str | None = None


@dataclass(frozen=True, eq=False)
class Level:
    """One array of a pyramid.

    Attributes:
        path: Of the array, relative to the group.
        axes: Of the array, in its order.
        system: Axes of the coordinates that the transformations lead to; in another order after a mapAxis.
        affine: (n + 1, n + 1) map of array index to these coordinates; None where the file gives none.
        is_grid: Whether each array axis runs along one axis of the coordinates: no rotation and no general affine map.
    """

    path: str
    axes: tuple[Axis, ...]
    system: tuple[Axis, ...]
    affine: NDArray[np.float64] | None
    is_grid: bool = True


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


@dataclass(frozen=True, eq=False)
class _Transform:
    """A list of transformations as one.

    Attributes:
        affine: (n + 1, n + 1).
        sources: For each axis of the output, the axis of the input that a mapAxis puts there.
        is_grid: As in `Level`.
    """

    affine: NDArray[np.float64]
    sources: tuple[int, ...]
    is_grid: bool


def parse_multiscale(where: Path, attributes: Mapping[str, Any]) -> Multiscale | None:
    """Read the first pyramid of a group's attributes; None where the group has none.

    Args:
        where: The group, for messages.
        attributes: Of the group; version 0.5 keeps its metadata under "ome".

    Raises:
        FormatError: If the metadata is not what the specification demands, or holds a transformation that is no
            affine map.
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
    system = _system(entry, transforms)
    if "coordinateSystems" not in entry:
        transforms = [*transforms, *entry.get("coordinateTransformations", [])]
    if not transforms:
        return Level(path, system, system, None)
    own = _combined(where, transforms, len(system))
    axes = tuple(system[own.sources.index(position)] for position in range(len(system)))
    return Level(path, axes if own.is_grid else system, system, own.affine, own.is_grid)


def is_inside(path: str) -> bool:
    """Whether a path inside a Zarr stays inside it."""
    return bool(path) and not path.startswith("/") and "\\" not in path and ".." not in path.split("/")


def _system(entry: Mapping[str, Any], transforms: list[Any]) -> tuple[Axis, ...]:
    """Axes of the coordinates that a dataset's transformations lead to."""
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
    """A list of transformations, applied in its order, as one."""
    affine = np.eye(n_axes + 1)
    sources = tuple(range(n_axes))
    is_grid = True
    for transform in _flattened(transforms):
        affine = _affine(where, transform, n_axes) @ affine
        if transform["type"] == "mapAxis":
            sources = tuple(sources[position] for position in transform["mapAxis"])
        is_grid &= transform["type"] not in ("affine", "rotation")
    return _Transform(affine, sources, is_grid)


def _affine(where: Path, transform: Mapping[str, Any], n_axes: int) -> NDArray[np.float64]:
    """One transformation as a map of (n + 1) homogeneous coordinates."""
    affine = np.eye(n_axes + 1)
    kind = transform["type"]
    if kind == "scale":
        affine[:-1, :-1] = np.diag(_vector(transform["scale"], n_axes))
    elif kind == "translation":
        affine[:-1, -1] = _vector(transform["translation"], n_axes)
    elif kind == "affine":
        affine[:-1, :] = [_vector(row, n_axes + 1) for row in _listed(transform["affine"], n_axes)]
    elif kind == "rotation":
        affine[:-1, :-1] = [_vector(row, n_axes) for row in _listed(transform["rotation"], n_axes)]
    elif kind == "mapAxis":
        # The value at position i is the input axis that becomes output axis i.
        affine[:-1, :-1] = np.eye(n_axes)[_permutation(transform["mapAxis"], n_axes)]
    elif kind != "identity":
        hint = "resample the image onto a plain grid first"
        raise FormatError.at(where, expected="an affine map", found=f"a transformation {kind!r}", hint=hint)
    return affine


def _permutation(positions: Any, n_axes: int) -> list[int]:  # noqa: ANN401 - from JSON
    if not isinstance(positions, list) or sorted(positions) != list(range(n_axes)):
        message = f"mapAxis {positions!r}, which does not name each of {n_axes} axes once by its number"
        raise ValueError(message)
    return positions


def _flattened(transforms: list[Any]) -> list[Any]:
    flat = []
    for transform in transforms:
        flat += _flattened(transform["transformations"]) if transform["type"] == "sequence" else [transform]
    return flat


def _listed(values: Any, n_rows: int) -> list[Any]:  # noqa: ANN401 - from JSON
    if not isinstance(values, list) or len(values) != n_rows:
        message = f"a matrix that has not {n_rows} rows"
        raise ValueError(message)
    return values


def _vector(values: list[Any], n: int) -> tuple[float, ...]:
    if len(values) != n:
        message = f"{len(values)} numbers where {n} belong"
        raise ValueError(message)
    return tuple(float(value) for value in values)
