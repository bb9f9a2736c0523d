"""Mass density of a made-up cell, written down as formulas: membranes, motors, particles.

Every molecule is a sum of isotropic Gaussian blobs, so it is rendered exactly at any float position: nothing is
drawn on a grid and shifted afterwards. Lengths are in Å, vectors in z, y, x order. A structure's own frame has its
axis along its first component; for a motor that is the outward normal of the membrane, with 0 on the inner membrane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Floats: TypeAlias = NDArray[np.float64]
Image: TypeAlias = NDArray[np.float32]
Shape3: TypeAlias = tuple[int, int, int]

BLOB_REACH = 4.5
"""Sigmas up to which a blob is drawn; exp(-4.5²/2) = 4e-5 of its peak is left out there."""


@dataclass(frozen=True)
class Structure:
    """A molecule as Gaussian blobs.

    Attributes:
        offsets: (M, 3) Å from the structure's reference point, in its own frame.
        sigma: (M,) Å.
        peak: (M,) density in a blob's centre; 1 is that of protein.
    """

    offsets: Floats
    sigma: Floats
    peak: Floats

    def centroid(self) -> Floats:
        """(3,) Å: the centre of mass in the structure's own frame; a blob's mass is peak * sigma³."""
        mass = self.peak * self.sigma**3
        center: Floats = (mass[:, None] * self.offsets).sum(axis=0) / mass.sum()
        return center


@dataclass(frozen=True)
class Placement:
    """A structure in a tomogram.

    Attributes:
        structure: What.
        position: (3,) voxel index of its reference point, float.
        rotation: (3, 3), from the structure's frame to the volume's.
        class_name: Its class, or None for what is not annotated.
    """

    structure: Structure
    position: Floats
    rotation: Floats
    class_name: str | None = None


@dataclass(frozen=True)
class Cell:
    """A rod-shaped bacterium: a capsule whose one pole is in view, with an inner and an outer membrane.

    Attributes:
        pole: (3,) Å, centre of the half sphere that ends the rod.
        axis: (3,) unit vector from the body to the pole.
        length: Å from that centre back to the centre of the other half sphere.
        radius: Å, of the middle of the inner membrane.
        gap: Å from the inner membrane to the outer.
    """

    pole: Floats
    axis: Floats
    length: float
    radius: float
    gap: float

    def height(self, points: Sequence[Floats | Image]) -> Image:
        """Signed distance to the inner membrane in Å, positive outside.

        Args:
            points: The z, y and x coordinates in Å, three arrays that broadcast.
        """
        offset = [np.asarray(p - c, np.float32) for p, c in zip(points, self.pole, strict=True)]
        back = -sum(o * np.float32(a) for o, a in zip(offset, self.axis, strict=True))
        along = np.clip(back, 0, np.float32(self.length))
        squared = sum((o + np.float32(a) * along) ** 2 for o, a in zip(offset, self.axis, strict=True))
        distance: Image = np.sqrt(squared) - np.float32(self.radius)
        return distance


def ring(height: float, radius: float, copies: int, sigma: float, density: float = 1.0) -> Structure:
    """Equal blobs on a circle about the axis; ``density`` is the mean along the circle's line."""
    angle = 2 * np.pi * np.arange(copies) / copies
    offsets = np.stack([np.full(copies, height), radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return _row(offsets, step=2 * np.pi * radius / copies, sigma=sigma, density=density)


def tube(path: Floats, sigma: float, density: float = 1.0) -> Structure:
    """Blobs along a line of (M, 3) evenly spaced points; ``density`` is the mean along it."""
    return _row(path, step=float(np.linalg.norm(path[1] - path[0])), sigma=sigma, density=density)


def _row(offsets: Floats, *, step: float, sigma: float, density: float) -> Structure:
    # The sum of Gaussians of peak 1 a step apart is sigma * sqrt(2 pi) / step along their line.
    peak = min(1.0, step / (sigma * np.sqrt(2 * np.pi))) * density
    return Structure(offsets, np.full(len(offsets), sigma), np.full(len(offsets), peak))


def joined(parts: Iterable[Structure]) -> Structure:
    """One structure of several that share their frame."""
    listed = list(parts)
    return Structure(
        np.concatenate([part.offsets for part in listed]),
        np.concatenate([part.sigma for part in listed]),
        np.concatenate([part.peak for part in listed]),
    )


def centered(structure: Structure) -> Structure:
    """The same structure with its centre of mass at its reference point."""
    return Structure(structure.offsets - structure.centroid(), structure.sigma, structure.peak)


def motor(gap: float) -> Structure:
    """A flagellar motor without its filament; the reference point is the middle of the MS ring.

    Sizes and copy numbers are those of Salmonella's motor, rounded: C ring 34 copies and 45 nm wide, MS ring 34
    copies and 24 nm, P and L rings 26 copies and 26 nm; the rod spans the periplasm.

    Args:
        gap: Å between the membranes.
    """
    c_ring = [ring(height, radius, 34, 20) for height, radius in ((-75, 175), (-110, 195), (-145, 200), (-175, 200))]
    ms_ring = [ring(0, 50, 17, 20), ring(0, 100, 34, 20)]
    export_apparatus = [ring(-120, 30, 9, 25, 0.7), ring(-200, 30, 9, 28, 0.9)]
    stators = [ring(50, 190, 11, 20, 0.7)]
    p_ring = [ring(gap - 95, 95, 26, 22)]
    l_ring = [ring(gap - 15, 95, 26, 22), ring(gap + 15, 95, 26, 22)]
    rod = tube(np.arange(20.0, gap + 20, 20)[:, None] * np.array([1.0, 0.0, 0.0]), 30, 1.5)
    return joined([*c_ring, *ms_ring, *export_apparatus, *stators, *p_ring, *l_ring, rod])


def filament(gap: float, length: float, bend: float) -> Structure:
    """Hook and stub of a filament, from the outer membrane outwards, in the frame of `motor`.

    Args:
        gap: Å between the membranes.
        length: Å along the line.
        bend: Radians by which its direction turns over the whole length, in the plane of the first two axes.
    """
    step = 35.0
    travelled = np.arange(0.0, length, step)
    turn = bend * travelled / length
    path = np.stack([np.cumsum(np.cos(turn)), np.cumsum(np.sin(turn)), np.zeros(len(turn))], axis=1) * step
    return tube(path + np.array([gap, 0.0, 0.0]), 45, 1.4)


def ribosome() -> Structure:
    """A lopsided pair of subunits, about 250 Å across, centred on its mass."""
    large = [[0, 0, 0], [60, 30, 0], [-50, 45, 15], [0, -55, 40], [15, 30, -60], [-35, -35, -40]]
    small = [[105, -70, 15], [125, -20, 30], [85, -100, -30]]
    offsets = np.array(large + small, np.float64)
    sigma = np.array([50.0] + [34.0] * 5 + [30.0] * 3)
    return centered(Structure(offsets, sigma, np.array([0.9] + [0.7] * 5 + [0.8] * 3)))


def proteasome() -> Structure:
    """A hollow barrel of four rings with a cap at both ends, about 110 Å by 420 Å, centred on its mass."""
    barrel = [ring(height, 45, 7, 16, 1.3) for height in (-66.0, -22.0, 22.0, 66.0)]
    offsets = np.array([[side * 130.0, 25.0 * side, 0.0] for side in (-1, 1)])
    caps = Structure(offsets, np.full(2, 36.0), np.full(2, 1.0))
    tips = Structure(offsets * [1.4, 2.0, 1.0], np.full(2, 26.0), np.full(2, 0.9))
    return centered(joined([*barrel, caps, tips]))


def sphere(sigma: float, peak: float) -> Structure:
    """One blob: a gold bead, a storage granule."""
    return Structure(np.zeros((1, 3)), np.array([sigma]), np.array([peak]))


def add_structures(density: Image, placements: Iterable[Placement], voxel_spacing: float, shift: float = 0.0) -> None:
    """Add placed structures to a volume, in place.

    A blob is widened by half a voxel's sigma, its mass kept, as by a detector's pixel: without that the narrow blobs
    would alias and their sampled centre would depend on where between two voxels they lie.

    Args:
        density: (D, H, W) float32.
        placements: What to add; parts outside the volume are left out.
        voxel_spacing: Å a voxel.
        shift: Voxels added to every position on every axis (the width of a padding).
    """
    for placed in placements:
        centers = placed.position + shift + placed.structure.offsets @ placed.rotation.T / voxel_spacing
        bare = placed.structure.sigma / voxel_spacing
        sigma = np.hypot(bare, 0.5)
        for center, width, peak in zip(centers, sigma, placed.structure.peak * (bare / sigma) ** 3, strict=True):
            _add_blob(density, center, width, peak)


def _add_blob(density: Image, center: Floats, sigma: float, peak: float) -> None:
    low = np.maximum(np.ceil(center - BLOB_REACH * sigma).astype(int), 0)
    high = np.minimum(np.floor(center + BLOB_REACH * sigma).astype(int) + 1, density.shape)
    if np.any(low >= high):
        return
    z, y, x = (np.exp(-0.5 * ((np.arange(a, b) - c) / sigma) ** 2) for a, b, c in zip(low, high, center, strict=True))
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    density[box] += (peak * z[:, None, None] * (y[:, None] * x)).astype(np.float32)


def cell_density(cell: Cell, shape: Shape3, voxel_spacing: float, shift: float, rng: np.random.Generator) -> Image:
    """Membranes, cell wall, periplasm and crowded cytoplasm.

    Args:
        cell: The bacterium.
        shape: Voxels of the result.
        voxel_spacing: Å a voxel.
        shift: Voxels between the result's index and the cell's (the width of a padding).
        rng: Draws the texture of the cytoplasm.

    Returns:
        (D, H, W) float32, ice 0 and protein 1.
    """
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    height = cell.height([(axis.astype(np.float32) - np.float32(shift)) * np.float32(voxel_spacing) for axis in grid])
    crowding = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), 30 / voxel_spacing, truncate=3)
    inside = 1 / (1 + np.exp(np.clip(height / np.float32(voxel_spacing), -30, 30)))
    density: Image = inside * (np.float32(0.22) + np.float32(0.10) / crowding.std() * crowding)
    for membrane in (0.0, cell.gap):
        for leaflet in (-19, 19):
            density += _sheet(height, membrane + leaflet, 10, 0.8, voxel_spacing)
    density += _sheet(height, cell.gap - 90, 18, 0.3, voxel_spacing)  # the peptidoglycan
    return density


def _sheet(height: Image, middle: float, sigma: float, peak: float, voxel_spacing: float) -> Image:
    wide = np.hypot(sigma, 0.5 * voxel_spacing)
    sheet: Image = np.exp(np.float32(-0.5) * ((height - np.float32(middle)) / np.float32(wide)) ** 2)
    sheet *= np.float32(peak * sigma / wide)
    return sheet
