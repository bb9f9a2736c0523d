"""One slice of a patch as pixels: voxels, padding, the Gaussian over them, keypoints.

Voxel i is drawn at the pixels [i * s, (i + 1) * s), so a point at coordinate c lies at the pixel (c + 0.5) * s. Coarse
voxel j covers the fine voxels j * f … j * f + f - 1; between coarse centres the Gaussian is interpolated linearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from keypatch import geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keypatch.geometry import Shape3

Color: TypeAlias = tuple[int, int, int]

Projection: TypeAlias = Literal["max", "min"]
"""All slices along an axis in one: the greatest or the least of the voxels that lie in the volume. (In a tomogram of
ice, what is dense is dark.)"""

At: TypeAlias = int | Projection
"""Which slice along the axis that a plane is normal to: a voxel index, or all of them."""

PALETTE: Final[tuple[Color, ...]] = (
    (255, 82, 82),
    (64, 196, 255),
    (255, 213, 79),
    (105, 240, 174),
    (224, 64, 251),
    (255, 152, 0),
    (178, 255, 89),
    (140, 110, 255),
)
"""Colours of the classes, told apart on grey by most eyes; they begin again after eight."""

PADDING_COLORS: Final[tuple[Color, Color]] = ((38, 50, 86), (58, 76, 128))
"""Two stripes of the hatching over voxels that lie outside the volume."""

OVERLAY: Final = 0.6
"""Opacity of the Gaussian where it is 1."""

DOT: Final = 3.0
"""Radius of a keypoint's dot in pixels."""

_HATCH: Final = 6
_PADDING_OPACITY: Final = 0.7
_FAINT: Final = 120
_SMOOTH: Final = 4
"""Marks are drawn this much larger and averaged down, since Pillow draws without smoothing."""


@dataclass(frozen=True)
class Plane:
    """A slice plane: the axis it is normal to, and the axes along its rows' numbers (down) and its columns' (right)."""

    normal: int
    down: int
    right: int

    @property
    def name(self) -> str:
        """Such as "yx": down, then right."""
        return "zyx"[self.down] + "zyx"[self.right]


YX: Final = Plane(0, 1, 2)
ZX: Final = Plane(1, 0, 2)
YZ: Final = Plane(2, 1, 0)


@dataclass(frozen=True)
class Scene:
    """What there is to be drawn of one patch.

    Attributes:
        image: (D, H, W) voxels.
        valid_start: First patch index that lies in the volume.
        valid_stop: First patch index behind those.
        gaussian: (C, d, h, w) with values in 0 … 1, or None.
        ds_factor: Voxels a coarse voxel.
        points: (K, 3) local_rs coordinates.
        class_index: (K,) of the points.
        sigma: (3,) of the Gaussian in voxels.
        window: Values drawn black and white.
        scale: Pixels a voxel.
    """

    image: NDArray[Any]
    valid_start: Shape3
    valid_stop: Shape3
    gaussian: NDArray[Any] | None
    ds_factor: Shape3
    points: NDArray[np.float64]
    class_index: NDArray[Any]
    sigma: NDArray[np.float64]
    window: tuple[float, float]
    scale: int

    def shape(self, plane: Plane) -> tuple[int, int]:
        """Pixels of a panel, down and right."""
        return self.image.shape[plane.down] * self.scale, self.image.shape[plane.right] * self.scale


def color_of(class_index: int) -> Color:
    """Colour of a class."""
    return PALETTE[class_index % len(PALETTE)]


def draw_panel(scene: Scene, plane: Plane, at: At, *, marks: bool = True) -> Image.Image:
    """Draw the slice of one plane.

    Args:
        scene: The patch.
        plane: Which plane.
        at: Where along its normal. Keypoints and the Gaussian of a projection are those of all slices.
        marks: Whether keypoints are drawn.

    Returns:
        An RGB image of `Scene.shape` pixels.
    """
    pixels = _voxels(scene, plane, at)
    pixels = _hatched(scene, plane, at, pixels)
    if scene.gaussian is not None:
        pixels = _overlaid(scene, plane, at, pixels)
    picture = Image.fromarray(np.rint(pixels).astype(np.uint8))
    return _marked(scene, plane, at, picture) if marks else picture


def flattened(image: NDArray[Any], plane: Plane, at: At, valid: tuple[int, int]) -> NDArray[Any]:
    """What a plane shows of the voxels, with the two other axes in the order of the volume.

    Args:
        image: (D, H, W).
        plane: Which plane.
        at: Where along its normal.
        valid: First index that lies in the volume along the normal, and first behind those; a projection takes these.
    """
    if isinstance(at, int):
        one: NDArray[Any] = image.take(at, axis=plane.normal)
        return one
    inside = image.take(range(*valid), axis=plane.normal) if valid[0] < valid[1] else image
    reduced: NDArray[Any] = (np.fmax if at == "max" else np.fmin).reduce(inside, axis=plane.normal)  # NaN loses
    return reduced


def contrast_window(slices: list[NDArray[Any]]) -> tuple[float, float]:
    """Values at the percentiles 0.5 and 99.5 of finite voxels, the extremes where these are equal; else 0 and 1."""
    values = np.concatenate([part.reshape(-1) for part in slices]).astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5))
    if low == high:
        low, high = values.min(), values.max()
    return float(low), float(high)


def _enlarged(values: NDArray[Any], scale: int) -> NDArray[Any]:
    return values.repeat(scale, axis=0).repeat(scale, axis=1)


def _oriented(values: NDArray[Any], plane: Plane) -> NDArray[Any]:
    """A slice with its axes in the order of the volume, put down and right as the plane has them."""
    return values if plane.down < plane.right else values.T


def _voxels(scene: Scene, plane: Plane, at: At) -> NDArray[np.float64]:
    low, high = scene.window
    valid = scene.valid_start[plane.normal], scene.valid_stop[plane.normal]
    values = _oriented(flattened(scene.image, plane, at, valid), plane).astype(np.float64)
    with np.errstate(invalid="ignore"):
        grey = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    grey = np.nan_to_num(np.clip(grey, 0, 1)) * 255
    return np.repeat(_enlarged(grey, scene.scale)[:, :, None], 3, axis=2)


def _hatched(scene: Scene, plane: Plane, at: At, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stripes over what lies outside the volume; the stored voxels shimmer through."""
    inside = [
        (np.arange(n) >= a) & (np.arange(n) < b)
        for n, a, b in zip(scene.image.shape, scene.valid_start, scene.valid_stop, strict=True)
    ]
    along = inside[plane.normal]
    valid = inside[plane.down][:, None] & inside[plane.right][None, :]
    valid &= bool(along[at] if isinstance(at, int) else along.any())
    padded = _enlarged(~valid, scene.scale)
    diagonal = np.add.outer(np.arange(padded.shape[0]), np.arange(padded.shape[1]))
    color = np.array(PADDING_COLORS, np.float64)[diagonal // _HATCH % 2]
    return np.where(padded[:, :, None], pixels * (1 - _PADDING_OPACITY) + color * _PADDING_OPACITY, pixels)


def _overlaid(scene: Scene, plane: Plane, at: At, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    assert scene.gaussian is not None  # noqa: S101 - asked before
    for c, channel in enumerate(scene.gaussian):
        if isinstance(at, int):
            flat = _interpolated(channel, plane.normal, np.array([float(at)]), scene.ds_factor)
        else:  # linear in between, so the greatest value lies on a coarse centre
            flat = channel.max(axis=plane.normal, keepdims=True)
        for axis in (plane.down, plane.right):
            n = scene.image.shape[axis]
            centers = (np.arange(n * scene.scale) + 0.5) / scene.scale - 0.5
            flat = _interpolated(flat, axis, centers, scene.ds_factor)
        opacity = OVERLAY * _oriented(flat.squeeze(plane.normal), plane)[:, :, None]
        pixels = pixels * (1 - opacity) + np.array(color_of(c)) * opacity
    return pixels


def _interpolated(
    values: NDArray[Any], axis: int, coords: NDArray[np.float64], ds_factor: Shape3
) -> NDArray[np.float64]:
    """Values of a coarse grid at fine coordinates along one axis, linear, constant beyond the outermost centres."""
    n = values.shape[axis]
    ds = np.clip((coords + 0.5) / ds_factor[axis] - 0.5, 0, n - 1)
    before = np.minimum(ds.astype(np.int64), max(n - 2, 0))
    after = np.minimum(before + 1, n - 1)
    weight = (ds - before).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    low, high = values.take(before, axis).astype(np.float64), values.take(after, axis).astype(np.float64)
    result: NDArray[np.float64] = low * (1 - weight) + high * weight
    return result


def keypoints_near(scene: Scene, plane: Plane, at: At) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The keypoints inside the box, by their rows: those within half a coarse voxel of the slice, and the others.

    Of each, the nearest to the slice comes last, to be drawn over the others.
    """
    inside = np.flatnonzero(geometry.inside(scene.points, scene.image.shape))
    if not isinstance(at, int):
        return inside, np.empty(0, np.int64)
    distance = np.abs(scene.points[inside, plane.normal] - at)
    order = np.argsort(-distance, kind="stable")
    near = distance[order] <= scene.ds_factor[plane.normal] / 2
    return inside[order[near]], inside[order[~near]]


def _marked(scene: Scene, plane: Plane, at: At, picture: Image.Image) -> Image.Image:
    """Draw the keypoints inside the box: near the plane a dot and a ring of one sigma, else a faint small circle."""
    layer = Image.new("RGBA", (picture.width * _SMOOTH, picture.height * _SMOOTH))
    draw = ImageDraw.Draw(layer)
    near, far = keypoints_near(scene, plane, at)
    for k in (*far, *near):
        x, y = (float((scene.points[k, axis] + 0.5) * scene.scale) for axis in (plane.right, plane.down))
        color = color_of(int(scene.class_index[k]))
        if k in far:
            _ellipse(draw, x, y, DOT + 1, DOT + 1, outline=(*color, _FAINT), width=1.5)
            continue
        radii = [float(scene.sigma[axis]) * scene.scale for axis in (plane.right, plane.down)]
        _ellipse(draw, x, y, radii[0], radii[1], outline=(*color, 255), width=1.5)
        _ellipse(draw, x, y, DOT + 1, DOT + 1, fill=(0, 0, 0, 255))
        _ellipse(draw, x, y, DOT, DOT, fill=(*color, 255))
    # Averaged with the opacity multiplied in, so that no black creeps in from the empty pixels around a mark.
    small = layer.convert("RGBa").reduce(_SMOOTH).convert("RGBA")
    return Image.alpha_composite(picture.convert("RGBA"), small).convert("RGB")


def _ellipse(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    radius_x: float,
    radius_y: float,
    *,
    fill: tuple[int, int, int, int] | None = None,
    outline: tuple[int, int, int, int] | None = None,
    width: float = 1,
) -> None:
    """In pixels of the panel; Pillow's box names the first and the last pixel, so a pixel is taken off."""
    box = [
        (x - radius_x) * _SMOOTH,
        (y - radius_y) * _SMOOTH,
        (x + radius_x) * _SMOOTH - 1,
        (y + radius_y) * _SMOOTH - 1,
    ]
    if box[2] >= box[0] and box[3] >= box[1]:
        draw.ellipse(box, fill=fill, outline=outline, width=round(width * _SMOOTH))
