"""RELION's tomograms.star, and the optimisation set that joins it with particles."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import VolumeHint
from keypatch.formats.annotations.hints import listed
from keypatch.formats.annotations.star import Block, read_star

if TYPE_CHECKING:
    from collections.abc import Mapping

_TILT_PIXEL = "rlnTomoTiltSeriesPixelSize"
_BINNING = "rlnTomoTomogramBinning"
_SIZE = ("rlnTomoSizeZ", "rlnTomoSizeY", "rlnTomoSizeX")
_RECONSTRUCTED = "rlnTomoReconstructedTomogram"
_SETS = {"particles": "rlnTomoParticlesFile", "tomograms": "rlnTomoTomogramsFile"}
# A job's folder lies two below the project, to which RELION's paths are relative; one more for folders in a job.
_LEVELS_UP = 3
_SUFFIXES = {
    *(".mrc", ".mrcs", ".rec", ".map", ".st", ".ali", ".tomostar", ".star", ".tif", ".tiff"),
    *(".hdf", ".h5", ".em", ".zarr", ".ome", ".gz", ".bz2"),
}


@dataclass(frozen=True)
class Tomograms:
    """What a tomograms.star says.

    Attributes:
        path: The file.
        hints: Tomogram's name to what is said of its reconstruction, in the file's order.
        pixel_size: Tomogram's name to the Å of a pixel of its unbinned tilt series.
        notes: One line each.
    """

    path: Path
    hints: Mapping[str, VolumeHint]
    pixel_size: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def file_stem(name: str) -> str | None:
    """Name of a file without folders and known suffixes: "rec/TS_1.mrc.tomostar" is "TS_1".

    A stack may be marked as in IMOD's "TS_1.st:mrc"; folders may be those of Windows.
    """
    stem = PurePosixPath(name.replace("\\", "/")).name.partition(":")[0]
    while (suffix := PurePosixPath(stem).suffix.lower()) in _SUFFIXES:
        stem = stem[: -len(suffix)]
    return stem or None


def read_tomograms(path: Path) -> Tomograms:
    """Read a tomograms.star of RELION 4 or 5.

    Its ``rlnTomoSize`` counts voxels without binning; shape and spacing of the reconstruction are known only where the
    file says its binning. RELION makes it size / binning + 0.5 voxels, rounded down (reconstruct_tomogram.cpp).

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it is no such file.
    """
    blocks = read_star(path)
    block = next(
        (block for block in (blocks.get("global"), *blocks.values()) if block and block.has("rlnTomoName")), None
    )
    if block is None:
        raise FormatError.at(
            path, expected="a tomograms.star with rlnTomoName", found=f"the blocks {', '.join(blocks)}"
        )
    names = block.texts("rlnTomoName")
    repeated = pd.Series(names, dtype=object).duplicated().to_numpy()
    if repeated.any():
        raise FormatError.at(path, expected="one row a tomogram", found=f"several for {listed(names[repeated])}")
    pixel = _above_zero(block, _TILT_PIXEL)
    binning = _above_zero(block, _BINNING)
    hints = dict(zip(names, _hints(block, pixel, binning), strict=True))
    sizes = dict(zip(names, pixel.tolist(), strict=True)) if block.has(_TILT_PIXEL) else {}
    notes = () if block.has(_BINNING) else (f"{path.name} does not say how its tomograms were binned ({_BINNING})",)
    return Tomograms(path, hints, sizes, notes)


@dataclass(frozen=True)
class OptimisationSet:
    """The files that an optimisation set names.

    Attributes:
        particles: Their file.
        tomograms: Theirs; None where it names none.
        notes: A line for each file that lies where it says, seen from a folder of its project.
        warnings: A line for each file that lies elsewhere.
    """

    particles: Path
    tomograms: Path | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def follow_optimisation_set(path: Path, blocks: Mapping[str, Block]) -> OptimisationSet | None:
    """The particles and tomograms that an optimisation set names; None if this file is none.

    Its paths are relative to the project. Each is tried below the set's own folder and the three folders above it,
    then by its bare name beside the set. An absolute path, or one with "..", is tried by its bare name only: a file
    must not make us read just any other.

    Raises:
        FormatError: If it names no particles, or a file that is at none of these places.
    """
    block = next(
        (block for block in blocks.values() if block.has(_SETS["tomograms"]) or block.has(_SETS["particles"])), None
    )
    if block is None:
        return None
    if not block.has(_SETS["particles"]) or len(block) != 1:
        found = f"{len(block)} rows" if block.has(_SETS["particles"]) else "none"
        raise FormatError.at(path, expected=f"one {_SETS['particles']} in an optimisation set", found=found)
    found_files: dict[str, Path] = {}
    lines: dict[bool, list[str]] = {True: [], False: []}
    for what, column in _SETS.items():
        if block.has(column):
            stated = str(block.texts(column)[0])
            found_files[what], as_stated = _resolved(path, stated)
            shown = os.path.relpath(found_files[what], path.absolute().parent)
            lines[as_stated].append(
                f"{path.name} names {stated} as its {what}; {shown}, seen from its own folder, was read"
            )
    return OptimisationSet(
        found_files["particles"], found_files.get("tomograms"), tuple(lines[True]), tuple(lines[False])
    )


def _resolved(optimisation_set: Path, stated: str) -> tuple[Path, bool]:
    """The file, and whether it lies where the set says."""
    relative = PurePosixPath(stated.replace("\\", "/"))
    folder = optimisation_set.absolute().parent
    places = []
    if not relative.is_absolute() and ".." not in relative.parts and ":" not in stated:
        places = [base / relative for base in (folder, *list(folder.parents)[:_LEVELS_UP])]
    found = next((place for place in (*places, folder / relative.name) if place.is_file()), None)
    if found is None or relative.suffix.lower() != ".star":
        raise FormatError.at(
            optimisation_set,
            expected=f"the STAR file {stated} in its project",
            found=f"none in {folder} and the {_LEVELS_UP} folders above",
            hint="give the particles themselves, and --tomograms",
        )
    return found, found in places


def _above_zero(block: Block, column: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if not block.has(column):
        return np.full(len(block), np.nan)
    values = block.floats(column)
    if (values <= 0).any():
        raise FormatError.at(block.path, expected=f"{column} above 0", found=f"{values.min():g}")
    return values


def _hints(block: Block, pixel: np.ndarray, binning: np.ndarray) -> list[VolumeHint]:
    sizes = block.vectors(_SIZE) if block.has(*_SIZE) else np.full((len(block), 3), np.nan)
    files = block.texts(_RECONSTRUCTED) if block.has(_RECONSTRUCTED) else [""] * len(block)
    spacing = pixel * binning
    shapes = np.floor(sizes / binning[:, None] + 0.5)
    return [
        VolumeHint(
            voxel_spacing=None if np.isnan(spacing[i]) else (float(spacing[i]),) * 3,
            shape=None if np.isnan(shapes[i]).any() else (int(shapes[i, 0]), int(shapes[i, 1]), int(shapes[i, 2])),
            file_stem=file_stem(files[i]),
        )
        for i in range(len(block))
    ]
