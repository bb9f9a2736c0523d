"""Pixel sizes and origin shifts of RELION's particles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keypatch.errors import FormatError
from keypatch.formats.annotations.hints import listed

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from keypatch.formats.annotations.relion_tomograms import Tomograms
    from keypatch.formats.annotations.star import Block

_TILT_PIXEL = "rlnTomoTiltSeriesPixelSize"
# "Pixel size of micrographs after binning", in which RELION's coordinates count by definition; then Warp's, and the
# particle images', which Warp's exports share with their coordinates.
_OTHER_PIXELS = ("rlnMicrographPixelSize", "rlnPixelSize", "rlnImagePixelSize")
_IMAGE_PIXELS = ("rlnImagePixelSize", "rlnPixelSize")
_DETECTOR = "rlnDetectorPixelSize"
_MAGNIFICATION = "rlnMagnification"
_ANGSTROM_PER_MICROMETRE = 1e4
_ORIGIN_ANGSTROM = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
_ORIGIN_PIXELS = ("rlnOriginX", "rlnOriginY", "rlnOriginZ")
_SUBTOMOGRAM = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")


@dataclass(frozen=True, eq=False)
class PixelSize:
    """Å of a pixel for each particle.

    Attributes:
        angstrom: (K,) float64 above 0.
        source: Column and table it was read from.
        is_of_tilt_series: Whether it is that of the unbinned tilt series, in which RELION 4 counts.
    """

    angstrom: NDArray[np.float64]
    source: str
    is_of_tilt_series: bool = False

    @property
    def shown(self) -> str:
        """The different values, for a note."""
        return listed(f"{value:g}" for value in np.unique(self.angstrom))


def coordinate_pixel_size(
    particles: Block, optics: Block | None, tomograms: Tomograms | None, volumes: NDArray[Any] | None
) -> PixelSize | None:
    """The pixel size that ``rlnCoordinateX/Y/Z`` count in; None where the files state none.

    Raises:
        FormatError: If one is not above 0, or a particle's optics group or tomogram has none.
    """
    found = _first_of((_TILT_PIXEL,), particles, optics)
    if found is not None:
        return PixelSize(found.angstrom, found.source, is_of_tilt_series=True)
    if tomograms is not None and tomograms.pixel_size and volumes is not None:
        values = np.array([tomograms.pixel_size.get(name, np.nan) for name in volumes], np.float64)
        unlisted = pd.unique(volumes[np.isnan(values)])
        if not len(unlisted):
            return PixelSize(values, f"{_TILT_PIXEL} of {tomograms.path.name}", is_of_tilt_series=True)
        if not np.isnan(values).all():
            raise FormatError.at(
                tomograms.path, expected="every tomogram of the particles", found=f"no {listed(unlisted)}"
            )
    return _first_of(_OTHER_PIXELS, particles, optics) or _detector_pixel_size(particles)


def origin_shifts(
    particles: Block, optics: Block | None, *, to_angstrom: bool, pixel: PixelSize | None = None
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """What is to be subtracted from each particle's coordinate: ``A * origin`` (RELION's ``getPosition``).

    Args:
        particles: The particles.
        optics: Their optics table.
        to_angstrom: Give Å, else pixels of the coordinates.
        pixel: Size of the coordinates' pixels.

    Returns:
        (K, 3) float64 x, y, z, and a note where the file has shifts.

    Raises:
        FormatError: If a pixel size is needed and there is none.
    """
    if particles.has(*_ORIGIN_ANGSTROM):
        shifts, name = particles.vectors(_ORIGIN_ANGSTROM), "rlnOriginX/Y/ZAngst"
        if not to_angstrom and shifts.any():
            shifts = shifts / _needed(pixel, particles, name).angstrom[:, None]
    elif particles.has(*_ORIGIN_PIXELS):
        shifts, name = particles.vectors(_ORIGIN_PIXELS), "rlnOriginX/Y/Z"
        if to_angstrom and shifts.any():
            image = _first_of(_IMAGE_PIXELS, particles, optics) or pixel
            shifts = shifts * _needed(image, particles, name).angstrom[:, None]
    else:
        return np.zeros((len(particles), 3)), ()
    rotated, how = _rotated(particles, shifts)
    return rotated, (f"{name} were subtracted{how}",)


def _rotated(particles: Block, shifts: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """Turn shifts by RELION's matrix of the subtomogram, the inverse of the intrinsic Z(rot) Y(tilt) Z(psi)."""
    if not particles.has(_SUBTOMOGRAM[0]):
        return shifts, ""
    if not particles.has(*_SUBTOMOGRAM):
        raise FormatError.at(
            particles.path, expected=", ".join(_SUBTOMOGRAM), found=f"only some, with {_SUBTOMOGRAM[0]}"
        )
    from scipy.spatial.transform import Rotation  # noqa: PLC0415 - 250 ms that other files need not wait for

    matrix = Rotation.from_euler("ZYZ", particles.vectors(_SUBTOMOGRAM), degrees=True).inv()
    return np.asarray(matrix.apply(shifts), np.float64), ", turned by rlnTomoSubtomogramRot/Tilt/Psi"


def _needed(pixel: PixelSize | None, particles: Block, name: str) -> PixelSize:
    if pixel is None:
        raise FormatError.at(
            particles.path,
            expected=f"a pixel size for the shifts {name}",
            found="none",
            hint="add rlnImagePixelSize, or apply the shifts",
        )
    return pixel


def _first_of(columns: tuple[str, ...], particles: Block, optics: Block | None) -> PixelSize | None:
    for column in columns:
        if particles.has(column):
            return PixelSize(_above_zero(particles, column, particles.floats(column)), column)
        if optics is not None and optics.has(column):
            values = _above_zero(optics, column, optics.floats(column))
            return PixelSize(_of_each_particle(particles, optics, values), f"{column} of the optics table")
    return None


def _of_each_particle(particles: Block, optics: Block, values: NDArray[np.float64]) -> NDArray[np.float64]:
    group = "rlnOpticsGroup"
    if len(optics) == 1 and not (particles.has(group) and optics.has(group)):
        return np.full(len(particles), values[0])
    if not (particles.has(group) and optics.has(group)):
        raise FormatError.at(
            particles.path, expected=f"{group} in the optics and the particles", found="none in one of them"
        )
    by_group = pd.Series(values, index=optics.floats(group))
    if by_group.index.has_duplicates:
        raise FormatError.at(particles.path, expected=f"one row an {group} in the optics table", found="several")
    wanted = particles.floats(group)
    found = np.array(by_group.reindex(wanted), np.float64)
    if np.isnan(found).any():
        missing = wanted[np.isnan(found)][0]
        raise FormatError.at(particles.path, expected=f"every {group} in the optics table", found=f"no {missing:g}")
    return found


def _detector_pixel_size(particles: Block) -> PixelSize | None:
    """RELION 3.0: µm of the detector over the magnification; pytom-match-pick writes Å and no magnification."""
    if not particles.has(_DETECTOR):
        return None
    detector = _above_zero(particles, _DETECTOR, particles.floats(_DETECTOR))
    if not particles.has(_MAGNIFICATION):
        return PixelSize(detector, _DETECTOR)
    magnification = _above_zero(particles, _MAGNIFICATION, particles.floats(_MAGNIFICATION))
    return PixelSize(detector * _ANGSTROM_PER_MICROMETRE / magnification, f"{_DETECTOR} / {_MAGNIFICATION}")


def _above_zero(block: Block, column: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if (values <= 0).any():
        row = int(np.argmax(values <= 0))
        raise FormatError.at(block.path, expected=f"{column} above 0", found=f"{values[row]:g} in {block.where(row)}")
    return values
