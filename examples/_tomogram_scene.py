"""What stands where in a made-up tomogram: one pole of a bacterium, and the molecules in and on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
from scipy import fft

from _tomogram_density import (
    Cell,
    Floats,
    Image,
    Placement,
    Shape3,
    add_structures,
    cell_density,
    filament,
    motor,
    proteasome,
    ribosome,
    sphere,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind: TypeAlias = Literal["motors", "particles"]
Scenario: TypeAlias = Literal["few", "many", "none", "border"]

CLASSES: dict[Kind, tuple[str, ...]] = {"motors": ("motor",), "particles": ("ribosome", "proteasome")}

SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
"""Of every four tomograms one has few keypoints, one many, one none, and one a keypoint within 6 voxels of a face."""

PADDING = 12
"""Voxels rendered beyond every face, so that neither the cell nor the transform's wrap-around ends at a face."""

MOTOR_SEPARATION = 620.0
"""Å; a C ring is 450 Å wide."""

PARTICLE_SEPARATION = 340.0
ATTEMPTS = 1500


class SceneError(ValueError):
    """A volume too small for what shall be in it."""


@dataclass(frozen=True)
class Scene:
    """What is in a tomogram, before anything is rendered.

    Attributes:
        shape: Voxels, z, y, x.
        voxel_spacing: Å a voxel.
        cell: The bacterium.
        placements: Every molecule; the annotated ones have a class name.
    """

    shape: Shape3
    voxel_spacing: float
    cell: Cell
    placements: tuple[Placement, ...]

    def keypoints(self) -> tuple[Placement, ...]:
        """The annotated molecules."""
        return tuple(placed for placed in self.placements if placed.class_name is not None)


def draw_scene(shape: Shape3, voxel_spacing: float, kind: Kind, scenario: Scenario, rng: np.random.Generator) -> Scene:
    """Draw a cell and what is in it.

    Args:
        shape: Voxels, z, y, x.
        voxel_spacing: Å a voxel.
        kind: What is annotated.
        scenario: How many of it, see `SCENARIOS`.
        rng: Where every random number comes from.

    Raises:
        SceneError: If the volume is too small for what the scenario asks for.
    """
    draw = _Draw(shape, voxel_spacing, rng)
    return draw.motors(scenario) if kind == "motors" else draw.particles(scenario)


def render_density(scene: Scene, rng: np.random.Generator) -> Image:
    """The scene's mass density: ice 0, protein 1.

    Args:
        scene: What to render.
        rng: Draws the texture of the cytoplasm.

    Returns:
        (D, H, W) float32, larger than ``scene.shape``: `cropped` takes the padding off.
    """
    shape = padded_shape(scene.shape)
    density = cell_density(scene.cell, shape, scene.voxel_spacing, PADDING, rng)
    add_structures(density, scene.placements, scene.voxel_spacing, PADDING)
    return density


def padded_shape(shape: Shape3) -> Shape3:
    """``shape`` with at least `PADDING` voxels on both sides, of sizes that transform fast."""
    d, h, w = (int(fft.next_fast_len(n + 2 * PADDING, real=True)) for n in shape)
    return d, h, w


def cropped(padded: Image, shape: Shape3) -> Image:
    """The ``shape`` voxels that begin `PADDING` voxels into a padded volume."""
    return padded[tuple(slice(PADDING, PADDING + n) for n in shape)]


class _Draw:
    """Draws the parts of one scene, all in one volume and from one generator."""

    def __init__(self, shape: Shape3, voxel_spacing: float, rng: np.random.Generator) -> None:
        self.size = np.array(shape, np.float64)
        self.shape = shape
        self.spacing = voxel_spacing
        self.rng = rng
        in_plane = rng.uniform(0, 2 * np.pi)
        self.axis = _unit(np.array([rng.uniform(-0.15, 0.15), np.sin(in_plane), np.cos(in_plane)]))
        self.side = _unit(np.cross(self.axis, [1.0, 0.0, 0.0]))
        self.radius = rng.uniform(0.36, 0.44) * min(shape[1:]) * voxel_spacing
        self.gap = rng.uniform(270, 320)

    def motors(self, scenario: Scenario) -> Scene:
        """A cell that is placed so that its first motor lands on a drawn position."""
        normal = self.polar_normal()
        first = self.border_position() if scenario == "border" else self.central_position(0.36, 0.64)
        cell = self.cell(first * self.spacing - self.radius * normal)
        motors = {"none": [], "few": [(first, normal)], "border": [(first, normal)]}.get(scenario)
        if motors is None:
            motors = self.several_motors(cell, [(first, normal)], int(self.rng.integers(2, 5)))
        placements = [placed for position, normal in motors for placed in self.motor(position, normal)]
        occupied = [position for position, _ in motors]
        return self.scene(cell, [*placements, *self.bystanders(cell, occupied), *self.gold(cell)])

    def particles(self, scenario: Scenario) -> Scene:
        """A cell with ribosomes and proteasomes in its cytoplasm."""
        cell = self.cell(self.central_position(0.4, 0.6) * self.spacing + 0.2 * self.radius * self.axis)
        positions = [] if scenario != "border" else self.scatter(cell, 1, -150, 0, [], border=True)
        if scenario == "border" and not positions:
            message = f"a volume of {self.shape} voxels of {self.spacing} Å has no room for a particle near a face"
            raise SceneError(message)
        count = {"few": 8, "many": 40, "none": 0, "border": 12}[scenario]
        positions = self.scatter(cell, count, -150, PARTICLE_SEPARATION, positions)
        if not positions and scenario != "none":
            message = f"a volume of {self.shape} voxels of {self.spacing} Å has no room for a particle"
            raise SceneError(message)
        models = {"ribosome": ribosome(), "proteasome": proteasome()}
        names = [CLASSES["particles"][i % 2] for i in range(len(positions))]
        placements = [
            Placement(models[name], position, self.rotation(_unit(self.rng.standard_normal(3))), name)
            for name, position in zip(names, positions, strict=True)
        ]
        return self.scene(cell, [*placements, *self.gold(cell)])

    def cell(self, pole: Floats) -> Cell:
        return Cell(pole, self.axis, 3 * float(self.size.max()) * self.spacing, self.radius, self.gap)

    def scene(self, cell: Cell, placements: Sequence[Placement]) -> Scene:
        return Scene(self.shape, self.spacing, cell, tuple(placements))

    def motor(self, position: Floats, normal: Floats) -> list[Placement]:
        rotation = self.rotation(normal)
        tail = filament(self.gap, self.rng.uniform(500, 900), self.rng.uniform(0.2, 0.9))
        return [Placement(motor(self.gap), position, rotation, "motor"), Placement(tail, position, rotation)]

    def several_motors(
        self, cell: Cell, motors: list[tuple[Floats, Floats]], count: int
    ) -> list[tuple[Floats, Floats]]:
        for _ in range(ATTEMPTS):
            if len(motors) == count:
                break
            position, normal = self.surface_point(cell)
            if self.fits(position, 8) and self.is_free(position, [taken for taken, _ in motors], MOTOR_SEPARATION):
                motors = [*motors, (position, normal)]
        if len(motors) < 2:
            message = f"a volume of {self.shape} voxels of {self.spacing} Å has no room for two motors"
            raise SceneError(message)
        return motors

    def surface_point(self, cell: Cell) -> tuple[Floats, Floats]:
        """A point of the inner membrane (voxel index), on the pole or on the rod behind it, and the normal there."""
        if self.rng.random() < 0.5:
            normal, back = self.polar_normal(), 0.0
        else:
            normal = self.rng.choice([-1.0, 1.0]) * self.side + self.rng.uniform(-0.35, 0.35) * np.array([1.0, 0, 0])
            normal = _unit(normal - (normal @ self.axis) * self.axis)
            back = self.rng.uniform(0, float(self.size.max()) * self.spacing)
        return (cell.pole - back * self.axis + cell.radius * normal) / self.spacing, normal

    def polar_normal(self) -> Floats:
        """A direction near the cell's axis and near the plane of the slices, where a motor is seen from the side."""
        angle = self.rng.uniform(-1.1, 1.1)
        flat = np.cos(angle) * self.axis + np.sin(angle) * self.side
        return _unit(flat + np.array([self.rng.uniform(-0.3, 0.3), 0.0, 0.0]))

    def bystanders(self, cell: Cell, occupied: list[Floats]) -> list[Placement]:
        """Unannotated ribosomes, and storage granules: round and dark as a motor is, and none."""
        volume = float(np.prod(self.size * self.spacing))
        granule, particle = sphere(75, 1.1), ribosome()
        clear = self.scatter(cell, int(self.rng.integers(0, 3)), -320, 500, occupied)[len(occupied) :]
        taken = [*occupied, *clear]
        crowd = self.scatter(cell, int(volume / 1.5e8), -140, 300, taken)[len(taken) :]
        return [
            *(Placement(granule, position, np.eye(3)) for position in clear),
            *(Placement(particle, position, self.rotation(_unit(self.rng.standard_normal(3)))) for position in crowd),
        ]

    def gold(self, cell: Cell) -> list[Placement]:
        """Up to three fiducial beads in the ice outside the cell."""
        bead = sphere(28, 5.0)
        points = [self.central_position(0.03, 0.97) for _ in range(int(self.rng.integers(1, 4)))]
        return [Placement(bead, point, np.eye(3)) for point in points if self.height(cell, point) > self.gap + 150]

    def scatter(
        self, cell: Cell, count: int, below: float, separation: float, taken: list[Floats], *, border: bool = False
    ) -> list[Floats]:
        """``taken`` and up to ``count`` more positions in the cell, at least ``separation`` Å apart."""
        positions = list(taken)
        for _ in range(ATTEMPTS):
            if len(positions) == len(taken) + count:
                break
            position = self.border_position() if border else self.central_position(0.02, 0.98)
            if self.height(cell, position) < below and self.is_free(position, positions, separation):
                positions.append(position)
        return positions

    def central_position(self, low: float, high: float) -> Floats:
        position: Floats = self.rng.uniform(low, high, 3) * self.size
        return position

    def border_position(self) -> Floats:
        """A position between 1 and 6 voxels from one face."""
        position = self.central_position(0.35, 0.65)
        axis, distance = int(self.rng.integers(3)), self.rng.uniform(1, 6)
        position[axis] = distance if self.rng.random() < 0.5 else self.size[axis] - 1 - distance
        return position

    def fits(self, position: Floats, margin: float) -> bool:
        return bool(np.all((position >= margin) & (position <= self.size - 1 - margin)))

    def is_free(self, position: Floats, taken: Sequence[Floats], separation: float) -> bool:
        return all(np.linalg.norm(position - other) * self.spacing >= separation for other in taken)

    def height(self, cell: Cell, position: Floats) -> float:
        return float(cell.height(list(position * self.spacing)))

    def rotation(self, axis: Floats) -> Floats:
        """A rotation that takes (1, 0, 0) to ``axis``, its turn about that axis drawn."""
        first = _unit(np.cross(axis, _unit(self.rng.standard_normal(3))))
        return np.stack([axis, first, np.cross(axis, first)], axis=1)


def _unit(vector: Floats) -> Floats:
    normed: Floats = vector / np.linalg.norm(vector)
    return normed
