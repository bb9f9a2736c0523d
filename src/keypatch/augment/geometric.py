"""Drawing geometric augmentations: all that a sample draws becomes one map.

A tomogram lacks the views of high tilts: a wedge about the z axis (the beam's) is missing in its Fourier space, the
same for all that is in it, and smears it along z. By default a draw leaves z the axis of the wedge: turns are about z,
by any angle, as if the tilt axis lay elsewhere in the plane (another microscope's does), and by 180° about y and x,
which take the wedge onto itself where the tilt axis is one of the two; shears are in the plane. ``free_rotation`` lifts
these limits, for volumes of X-rays or MRI. A flip is a mirror image: it changes the hand of what is seen.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from keypatch.augment.elastic import LARGEST_SHARE, Elastic
from keypatch.augment.maps import PADDINGS, SIGMAS, Map, Padding, Sigma
from keypatch.augment.reading import read_sample
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from keypatch.geometry import Shape3, Vector3

__all__ = ["Geometric", "read_sample"]

SMALLEST_SCALE: Final = 0.05
LARGEST_SCALE: Final = 20.0
"""Beyond these a patch shows nothing, and mirrored keypoints come by the million."""


@dataclass(frozen=True)
class Geometric:
    """What may be drawn. With every setting left out, nothing is.

    The object is flipped or turned, then cropped, then scaled, sheared, rotated and shifted about the crop's centre,
    then displaced. All of it is one map, and a crop that is rotated shows what lies around it in the patch.

    Attributes:
        flip: Axes of "zyx" that are mirrored, each in half of the samples.
        half_turn: Whether it is turned by 180° about y, and about x, each in half of the samples.
        rot90: Whether it is turned by 0, 90, 180 or 270° about z, among the turns that keep the sample's shape; with
            ``free_rotation``, in any of the 24 ways that a cube is turned.
        rotate: Largest angle in degrees, about z; with ``free_rotation``, about a random axis, and 180 draws all
            orientations alike.
        scale: Smallest and largest factor of all axes together; above 1, things get larger.
        stretch: Smallest and largest factor of each axis for itself, on top.
        shear: Largest shear, voxels a voxel, of y along x and x along y; with ``free_rotation``, of every pair.
        shift: Largest shift in voxels, of all axes or of each.
        crop: Voxels of the sample, at a random place in the patch; all of the patch when left out.
        elastic: Largest displacement in voxels, on each axis, of a smooth deformation.
        elastic_spacing: Voxels between its control points; at least 8 times ``elastic``, so that nothing folds.
        probability: Of drawing anything at all that needs interpolation: rotate, scale, stretch, shear, shift, elastic.
        free_rotation: Whether the missing wedge may be turned.
        padding: What lies outside of the patch, see `keypatch.augment.maps.PADDINGS`.
        fill: The value for padding "constant".
        order: 1 interpolates linearly, 0 takes the nearest voxel.
        sigma: What becomes of the keypoints' sigma, see `keypatch.augment.maps.SIGMAS`.
        keep_unseen: Whether keypoints stay that lie in the sample, but outside of the patch.

    Raises:
        UsageError: If a value is not what it must be, a scale of 0 or NaN say.
    """

    flip: str = ""
    half_turn: bool = False
    rot90: bool = False
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    stretch: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    shift: float | Vector3 = 0.0
    crop: Shape3 | None = None
    elastic: float = 0.0
    elastic_spacing: float = 48.0
    probability: float = 1.0
    free_rotation: bool = False
    padding: Padding = "zero"
    fill: float = 0.0
    order: int = 1
    sigma: Sigma = "fixed"
    keep_unseen: bool = False

    def __post_init__(self) -> None:
        for name in ("scale", "stretch", "shift", "crop"):
            value = getattr(self, name)
            if isinstance(value, (list, tuple, np.ndarray)):
                object.__setattr__(self, name, tuple(v.item() if isinstance(v, np.generic) else v for v in value))
        _check(self)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """From a table of a recipe, TOML or JSON; lists stand for tuples.

        Raises:
            UsageError: If a key is unknown or a value is not what it must be.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(settings) - set(known)):
            raise UsageError.at("augmentation", expected=f"the keys {', '.join(known)}", found=", ".join(unknown))
        return cls(**settings)

    def to_json(self) -> dict[str, Any]:
        """What `from_mapping` takes."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def draw(
        self, rng: np.random.Generator, shape: Sequence[int], voxel_spacing: Sequence[float] = (1.0, 1.0, 1.0)
    ) -> Map:
        """Draw the map of one sample. The same numbers are drawn whatever the settings, less the elastic ones.

        Args:
            rng: Of this sample alone.
            shape: (3,) voxels of the patch.
            voxel_spacing: (3,) Å a voxel, so that a rotation is one where the voxels are no cubes.

        Returns:
            The map, with the settings that reading the sample needs.
        """
        z, y, x = (int(n) for n in shape)
        patch_shape = (z, y, x)
        turned, turned_shape = self._turned(rng, patch_shape)
        sample_shape = turned_shape if self.crop is None else self.crop
        room = np.array(turned_shape) - sample_shape
        place = np.floor(rng.random(3) * (np.abs(room) + 1)) * np.sign(room)
        is_drawn = rng.random() < self.probability
        forward = self._forward(rng, np.array(voxel_spacing, np.float64))
        matrix = turned @ _shifted(np.where(room < 0, -((-room) // 2), place))
        elastic = None
        if is_drawn:
            center = (np.array(sample_shape) - 1) / 2
            if not np.array_equal(forward, np.eye(4)):
                matrix = matrix @ _shifted(center) @ np.linalg.inv(forward) @ _shifted(-center)
                matrix[3] = 0, 0, 0, 1
            if self.elastic > 0:
                elastic = Elastic.draw(rng, sample_shape, self.elastic, self.elastic_spacing)
        return Map(
            matrix,
            sample_shape,
            patch_shape,
            elastic,
            self.padding,
            self.fill,
            self.order,
            self.sigma,
            self.keep_unseen,
        )

    def _turned(self, rng: np.random.Generator, shape: Shape3) -> tuple[NDArray[np.float64], Shape3]:
        """Flips and turns: from the turned patch's index to the patch's, and the turned patch's shape."""
        flips = rng.random(3) < 0.5
        halves = rng.random(2) < 0.5
        chosen = rng.random()
        mirrored = np.array([name in self.flip for name in "zyx"]) & flips
        sign = np.where(mirrored, -1.0, 1.0)
        if self.half_turn:
            sign *= np.where(halves[0], (-1, 1, -1), (1, 1, 1)) * np.where(halves[1], (-1, -1, 1), (1, 1, 1))
        linear = np.diag(sign)
        if self.rot90:
            turns = [turn for turn in (_CUBE if self.free_rotation else _ABOUT_Z) if self._keeps(turn, shape)]
            linear = linear @ turns[int(chosen * len(turns))]
        turned = _shape_of(linear, shape)
        matrix = np.eye(4)
        matrix[:3, :3] = linear
        # Where an axis of the patch is walked backwards, it begins at its end.
        matrix[:3, 3] = np.where(linear.sum(axis=1) < 0, np.array(shape) - 1.0, 0.0)
        return matrix, turned

    def _keeps(self, turn: NDArray[np.float64], shape: Shape3) -> bool:
        """Whether a turned patch holds as much of the sample as the patch does."""
        turned, wanted = _shape_of(turn, shape), shape if self.crop is None else self.crop
        if self.crop is None:
            return turned == shape
        return all(min(a, c) == min(b, c) for a, b, c in zip(turned, shape, wanted, strict=True))

    def _forward(self, rng: np.random.Generator, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
        """What happens to a point around the sample's centre, (4, 4)."""
        numbers = rng.random(17)
        between = 2 * numbers - 1
        scale = self.scale[0] * (self.scale[1] / self.scale[0]) ** numbers[0]
        stretch = self.stretch[0] * (self.stretch[1] / self.stretch[0]) ** numbers[1:4]
        shear = np.eye(3)
        pairs = list(itertools.permutations(range(3), 2)) if self.free_rotation else [(1, 2), (2, 1)]
        for (a, b), share in zip(pairs, between[4:10], strict=False):
            shear[a, b] = share * self.shear
        rotation = self._rotation(between[10:14])
        forward = np.eye(4)
        # Rotations and shears are those of space, where a voxel may be no cube.
        physical = rotation @ shear
        forward[:3, :3] = physical * (spacing / spacing[:, None]) @ np.diag(scale * stretch)
        forward[:3, 3] = between[14:17] * np.asarray(self.shift)
        return forward

    def _rotation(self, between: NDArray[np.float64]) -> NDArray[np.float64]:
        angle = math.radians(self.rotate) * between[0]
        if not self.free_rotation:
            return _about((1.0, 0.0, 0.0), angle)
        height, turn = between[1], math.pi * between[2]
        axis = (height, math.sqrt(1 - height**2) * math.sin(turn), math.sqrt(1 - height**2) * math.cos(turn))
        if self.rotate == 180:
            angle = _angle_of_even_rotations(abs(between[0]))
        return _about(axis, angle)


def _angle_of_even_rotations(share: float) -> float:
    """The angle below which this share of all orientations lies: (angle - sin angle) / π is their distribution."""
    low, high = 0.0, math.pi
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (middle - math.sin(middle)) / math.pi < share else (low, middle)
    return (low + high) / 2


def _about(axis: Vector3, angle: float) -> NDArray[np.float64]:
    """Rotation about a unit vector (z, y, x): Rodrigues' formula, exactly the identity for an angle of 0."""
    z, y, x = axis
    # The cross product with the axis, for coordinates in the order z, y, x.
    cross = np.array([[0.0, -x, y], [x, 0.0, -z], [-y, z, 0.0]])
    rotation: NDArray[np.float64] = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
    return rotation


def _shifted(by: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, 3] = by
    return matrix


def _shape_of(linear: NDArray[np.float64], shape: Shape3) -> Shape3:
    """Shape of the patch that `linear` maps to this one."""
    z, y, x = (np.abs(linear).T @ np.array(shape)).astype(int).tolist()
    return z, y, x


def _turns() -> list[NDArray[np.float64]]:
    """The 24 rotations that take a cube to itself, those about z first."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = np.zeros((3, 3))
            turn[range(3), order] = signs
            if np.linalg.det(turn) > 0:
                found.append(turn)
    return sorted(found, key=lambda turn: turn[0, 0] != 1)


_CUBE: Final = _turns()
_ABOUT_Z: Final = _CUBE[:4]


def _check(settings: Geometric) -> None:
    for name in ("half_turn", "rot90", "free_rotation", "keep_unseen"):
        _demand(name, settings, "true or false", isinstance(getattr(settings, name), bool))
    is_axes = isinstance(settings.flip, str) and set(settings.flip) <= set("zyx")
    _demand("flip", settings, 'axes, as in "zyx"', is_axes)
    _demand("padding", settings, f"one of {', '.join(PADDINGS)}", settings.padding in PADDINGS)
    _demand("sigma", settings, f"one of {', '.join(SIGMAS)}", settings.sigma in SIGMAS)
    _demand("order", settings, "0 or 1", type(settings.order) is int and settings.order in {0, 1})
    _demand("fill", settings, "a number", _is_number(settings.fill, -math.inf, math.inf))
    for name, highest in (("rotate", 180.0), ("shear", 1.0), ("elastic", 1e6), ("probability", 1.0)):
        _demand(name, settings, f"a number from 0 to {highest:g}", _is_number(getattr(settings, name), 0, highest))
    for name in ("scale", "stretch"):
        pair = getattr(settings, name)
        good = isinstance(pair, tuple) and len(pair) == 2
        good = good and all(_is_number(v, SMALLEST_SCALE, LARGEST_SCALE) for v in pair) and pair[0] <= pair[1]
        _demand(name, settings, f"the smallest and largest factor, {SMALLEST_SCALE} to {LARGEST_SCALE}", good)
    shifts = settings.shift if isinstance(settings.shift, tuple) else (settings.shift,) * 3
    good = len(shifts) == 3 and all(_is_number(v, 0, 1e6) for v in shifts)
    _demand("shift", settings, "one number or three, not below 0", good)
    if settings.crop is not None:
        crop = settings.crop
        good = isinstance(crop, tuple) and len(crop) == 3 and all(type(n) is int and n > 0 for n in crop)
        _demand("crop", settings, "three numbers of voxels above 0", good)
    _demand("elastic_spacing", settings, "a number above 0", _is_number(settings.elastic_spacing, 1e-3, 1e6))
    wanted = f"at least {settings.elastic / LARGEST_SHARE:g}, 8 times elastic, so that nothing folds"
    _demand("elastic_spacing", settings, wanted, settings.elastic <= LARGEST_SHARE * settings.elastic_spacing)


def _is_number(value: object, lowest: float, highest: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and lowest <= value <= highest


def _demand(name: str, settings: Geometric, expected: str, good: bool) -> None:
    if not good:
        raise UsageError.at(f"augmentation.{name}", expected=expected, found=repr(getattr(settings, name)))
