"""Particles of RELION 3.0 to 5, Warp, M and TOMOMAN (STAR).

Read from RELION's ``particle_set.cpp`` (``getPosition``), ``tomogram_set.cpp``, ``Euler_angles_relion.h`` and
``metadata_label.h``, and from Warp's documentation and ``ExportParticlesTiltseries.cs``:

- position = coordinate - A * origin, with A the matrix of ``rlnTomoSubtomogramRot/Tilt/Psi`` where these are there;
- RELION 5: ``rlnCenteredCoordinate?Angst``, Å from size / 2 of the tomogram without binning;
- RELION 3.1 and 4: ``rlnCoordinate?`` in pixels of the tilt series, ``rlnTomoTiltSeriesPixelSize`` Å each;
- RELION 3.0 and Warp: pixels of the tomogram, 0 at the centre of the first voxel. Warp's exports count pixels of the
  size that they state in ``rlnPixelSize``, or ``rlnDetectorPixelSize`` at the magnification 10000.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keypatch.errors import FormatError, UsageError
from keypatch.formats.annotations.base import AnnotationTable, Convention, VolumeHint, point_frame, zyx
from keypatch.formats.annotations.hints import listed
from keypatch.formats.annotations.relion_pixels import PixelSize, coordinate_pixel_size, origin_shifts
from keypatch.formats.annotations.relion_tomograms import Tomograms, file_stem, follow_optimisation_set, read_tomograms
from keypatch.formats.annotations.source import head_text
from keypatch.formats.annotations.star import Block, read_star

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from keypatch.formats.annotations.base import AnnotationOptions
    from keypatch.geometry import Unit

NAME = "relion"
SUFFIXES: tuple[str, ...] = (".star",)
DESCRIPTION = "RELION 3.0 to 5, Warp, M, TOMOMAN (STAR): rlnCoordinateX/Y/Z or rlnCenteredCoordinateX/Y/ZAngst"
USES: frozenset[str] = frozenset({"columns", "tomograms"})

_PIXELS = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
_CENTERED = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")
_SCORES = ("rlnAutopickFigureOfMerit", "rlnLCCmax", "ptmLCCmax")
_ROLES = ("volume", "class", "score")

_CENTER_NOTE = (
    "zero is size / 2 of the tomogram, as where RELION extracts; "
    "its picker takes size / 2 - 1 (--zero volume-center-minus-1)"
)
_VOXEL_NOTE = (
    "rlnCoordinateX/Y/Z were taken as voxels of the volume, 0 at the centre of the first one, as Warp documents"
)
_RELION4_NOTE = "RELION 4.0 adds 1 pixel to each coordinate when it extracts, RELION 5 does not; none was added"


@dataclass(frozen=True, eq=False)
class _Source:
    """The blocks that say where particles are."""

    particles: Block
    optics: Block | None
    tomograms: Tomograms | None
    volumes: NDArray[Any] | None

    @property
    def is_centered(self) -> bool:
        return self.particles.has(*_CENTERED)


@dataclass(frozen=True, eq=False)
class _Positions:
    """Positions x, y, z with shifts applied, and what they mean."""

    coords: NDArray[np.float64]
    convention: Convention
    pixel_size: PixelSize | None = None


def matches(_path: Path, head: bytes) -> bool:
    """Whether it is a STAR file with labels of RELION."""
    text = head_text(head)
    return text is not None and re.search(r"^\s*data_", text, re.MULTILINE) is not None and "_rln" in text


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read the particles, of a particle file or of the optimisation set that names it.

    ``source_row`` counts the rows of the particles' block. ``rlnClassNumber`` is a class of a refinement, not of an
    object: it is read where ``options.columns["class"]`` says so.

    Raises:
        ReadError: If a file is missing or unreadable.
        FormatError: If it is no STAR file of particles, a value is no number, or a pixel size is needed and missing.
        UsageError: If an option names a column that is not there.
    """
    columns = _stated_columns(options)
    blocks = read_star(path, list(columns.values()))
    particles_path, listed_tomograms = path, None
    notes: tuple[str, ...] = ()
    warnings: list[str] = []
    followed = follow_optimisation_set(path, blocks)
    if followed is not None:
        particles_path, listed_tomograms, notes = followed.particles, followed.tomograms, followed.notes
        blocks = read_star(particles_path, list(columns.values()))
        warnings += followed.warnings
    particles = _particles(particles_path, blocks)
    tomograms_path = options.tomograms or listed_tomograms
    tomograms = None if tomograms_path is None else read_tomograms(tomograms_path)
    if not len(particles):
        empty = Convention("voxel", "xyz", inferred=("unit", "zero"), notes=notes).overridden(options)
        points = point_frame(zyx([], empty.axis_order), volume=[], source_row=[])
        return AnnotationTable(path, NAME, empty, points, warnings=(*warnings, f"data_{particles.name} has no rows"))
    source = _Source(particles, blocks.get("optics"), tomograms, _volumes(particles, columns))
    table = _table(path, source, columns, options, warnings)
    return replace(table, convention=replace(table.convention, notes=(*notes, *table.convention.notes)))


def _table(
    path: Path, source: _Source, columns: Mapping[str, str], options: AnnotationOptions, warnings: list[str]
) -> AnnotationTable:
    positions = _centered(source, options) if source.is_centered else _from_pixels(source, options)
    particles, volumes = source.particles, source.volumes
    score, score_notes = _scores(particles, columns)
    tomogram_notes = () if source.tomograms is None else source.tomograms.notes
    convention = positions.convention
    convention = replace(convention, notes=(*convention.notes, *score_notes, *tomogram_notes))
    points = point_frame(
        zyx(positions.coords, convention.axis_order),
        volume=[None] * len(particles) if volumes is None else volumes.tolist(),
        source_row=np.arange(len(particles)),
        class_name=particles.texts(columns["class"]).tolist() if "class" in columns else None,
        score=score,
    )
    hints = {} if volumes is None else _hints(source, volumes, positions.pixel_size)
    unlisted = [name for name in hints if source.tomograms is not None and name not in source.tomograms.hints]
    if source.tomograms is not None and unlisted:
        warnings.append(f"{source.tomograms.path.name} does not list {listed(unlisted)}")
    warnings += _pixel_warnings(source)
    return AnnotationTable(path, NAME, convention, points, hints, warnings=tuple(warnings))


def _stated_columns(options: AnnotationOptions) -> dict[str, str]:
    unknown = [role for role in options.columns if role not in _ROLES]
    if unknown:
        raise UsageError.at(
            "--columns",
            expected=f"{', '.join(_ROLES)} for a STAR file, whose coordinates go by RELION's names",
            found=", ".join(unknown),
        )
    return {role: name.removeprefix("_") for role, name in options.columns.items()}


def _particles(path: Path, blocks: Mapping[str, Block]) -> Block:
    candidates = [block for block in blocks.values() if block.has(*_CENTERED) or block.has(*_PIXELS)]
    # A loop without rows may lack a column, as where a picker found nothing.
    candidates = candidates or [b for b in blocks.values() if not len(b) and (b.has(_PIXELS[0]) or b.has(_CENTERED[0]))]
    if "particles" in blocks and blocks["particles"] in candidates:
        return blocks["particles"]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        found = f"several blocks with coordinates: {', '.join(block.name for block in candidates)}"
        raise FormatError.at(path, expected="one block of particles", found=found)
    if any(block.has("rlnTomoName", "rlnTomoTiltSeriesPixelSize") for block in blocks.values()):
        raise FormatError.at(
            path,
            expected="particles",
            found="a tomograms.star",
            hint="give the particles, and this file with --tomograms",
        )
    found = "; ".join(f"data_{b.name} with {listed(map(str, b.frame.columns))}" for b in blocks.values())
    raise FormatError.at(path, expected="rlnCoordinateX/Y/Z or rlnCenteredCoordinateX/Y/ZAngst", found=found)


def _volumes(particles: Block, columns: Mapping[str, str]) -> NDArray[Any] | None:
    for role, name in columns.items():
        if not particles.has(name):
            found = f"only {', '.join(map(str, particles.frame.columns))}"
            raise UsageError.at(f"--columns {role}", expected=f"the column {name} in {particles.path}", found=found)
    for column in (columns.get("volume"), "rlnTomoName", "rlnMicrographName"):
        if column is not None and particles.has(column):
            return particles.texts(column)
    return None


def _centered(source: _Source, options: AnnotationOptions) -> _Positions:
    shifts, notes = origin_shifts(source.particles, source.optics, to_angstrom=True)
    notes = (*notes, _CENTER_NOTE)
    if source.particles.has(*_PIXELS):
        notes = (*notes, "rlnCoordinateX/Y/Z are there too and not used, as in RELION")
    convention = Convention("angstrom", "xyz", zero="volume-center", inferred=("zero",), notes=notes).overridden(
        options
    )
    return _Positions(source.particles.vectors(_CENTERED) - shifts, convention)


def _from_pixels(source: _Source, options: AnnotationOptions) -> _Positions:
    """Positions of ``rlnCoordinateX/Y/Z``: multiplied to Å, or left as voxels of the volume.

    A tilt series' pixel size makes them Å (RELION 4), so does another one beside an optics table (3.1); one block alone
    (3.0) gives voxels. ``options.unit`` chooses for the file: "angstrom" takes the pixel size that there is, any other
    leaves the numbers as they are.
    """
    pixel = coordinate_pixel_size(source.particles, source.optics, source.tomograms, source.volumes)
    is_relion4 = pixel is not None and pixel.is_of_tilt_series
    native: Unit = "angstrom" if is_relion4 or source.optics is not None else "voxel"
    unit = options.unit or native
    if unit == "angstrom" and pixel is None:
        raise FormatError.at(
            source.particles.path,
            expected="the pixel size of rlnCoordinateX/Y/Z (rlnTomoTiltSeriesPixelSize)",
            found="none",
            hint="give --tomograms tomograms.star, or --unit voxel if these are voxels of the volume",
        )
    numbers = source.particles.vectors(_PIXELS)
    if unit == "angstrom" and pixel is not None:
        shifts, notes = origin_shifts(source.particles, source.optics, to_angstrom=True, pixel=pixel)
        coords = numbers * pixel.angstrom[:, None] - shifts
        notes = (f"rlnCoordinateX/Y/Z were multiplied by {pixel.source}", *notes)
    else:
        shifts, notes = origin_shifts(source.particles, source.optics, to_angstrom=False, pixel=pixel)
        if unit not in ("voxel", "angstrom") and shifts.any():
            raise UsageError.at("--unit", expected="voxel or angstrom for particles with shifts", found=unit)
        coords = numbers - shifts
        notes = (*(_voxel_notes(pixel) if unit == "voxel" else ()), *notes)
    inferred = ("zero",) if is_relion4 else ("unit",) if source.optics is None else ("unit", "zero")
    if is_relion4:
        notes = (*notes, _RELION4_NOTE)
    convention = Convention(unit, "xyz", inferred=inferred, notes=notes).overridden(options)
    return _Positions(coords, convention, pixel if unit == "voxel" else None)


def _voxel_notes(pixel: PixelSize | None) -> tuple[str, ...]:
    if pixel is None:
        return (_VOXEL_NOTE,)
    stated = f"the file states pixels of {pixel.shown} Å ({pixel.source}); where the volume has others, --unit angstrom"
    return (_VOXEL_NOTE, f"{stated} multiplies by these")


def _hints(source: _Source, volumes: NDArray[Any], voxel: PixelSize | None) -> dict[str, VolumeHint]:
    """What is known of each volume that has particles, in order of appearance."""
    first = pd.Series(np.arange(len(volumes)), index=volumes).groupby(level=0, sort=False).first()
    names_files = not source.particles.has("rlnTomoName")
    hints = {}
    for name, row in first.items():
        hint = VolumeHint(file_stem=file_stem(str(name)) if names_files else None)
        if source.tomograms is not None:
            hint = source.tomograms.hints.get(str(name), hint)
        if voxel is not None:
            spacing = float(voxel.angstrom[row])
            hint = replace(hint, voxel_spacing=(spacing, spacing, spacing))
        hints[str(name)] = hint
    return hints


def _scores(particles: Block, columns: Mapping[str, str]) -> tuple[NDArray[np.float64] | None, tuple[str, ...]]:
    column = columns.get("score") or next((name for name in _SCORES if particles.has(name)), None)
    if column is None:
        return None, ()
    return particles.floats(column, may_be_nan=True), (f"score is {column}",)


def _pixel_warnings(source: _Source) -> list[str]:
    """The tilt series' pixel size of the optics table against that of tomograms.star."""
    column = "rlnTomoTiltSeriesPixelSize"
    if source.optics is None or source.tomograms is None or not source.optics.has(column):
        return []
    here = sorted(set(source.optics.floats(column)))
    there = sorted(set(source.tomograms.pixel_size.values()))
    if not there or all(np.isclose(size, there, rtol=1e-3).any() for size in here):
        return []
    shown = [listed(f"{size:g}" for size in sizes) for sizes in (here, there)]
    effect = "Å from the centre need neither" if source.is_centered else "the optics table's was used"
    return [f"{column} is {shown[0]} in the optics table and {shown[1]} in {source.tomograms.path.name}; {effect}"]
