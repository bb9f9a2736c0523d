"""The picture of one patch: three orthogonal slices with keypoints and Gaussian, and a small one for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from keypatch import geometry
from keypatch.audit.lettering import (
    BACKGROUND,
    BAR_ROOM,
    DIM,
    LARGE,
    LINE,
    MARKS,
    MARKS_OF_PROJECTION,
    SMALL,
    TEXT,
    Box,
    Legend,
    draw_bar,
    write,
)
from keypatch.audit.panels import YX, YZ, ZX, At, Color, Plane, Scene, color_of, draw_panel, keypoints_near
from keypatch.audit.view import places, scene_of, shape3
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from keypatch.audit.view import Slicing
    from keypatch.formats.store import Patch
    from keypatch.geometry import Shape3

COMFORTABLE: Final = 900
"""Pixels that the slices of a picture are enlarged to at most."""

LARGEST_SCALE: Final = 16
LARGEST_SIDE: Final = 20_000
"""Pixels of a picture's side; beyond it viewers give up."""

_MARGIN, _GAP, _TITLE, _FOOT = 14, 14, 66, BAR_ROOM + 4
_NARROWEST: Final = 480


def patch_picture(
    patch: Patch,
    gaussian: NDArray[Any] | None,
    *,
    classes: Sequence[str],
    ds_factor: Shape3,
    scale: int | None = None,
    slicing: Slicing = "keypoint",
) -> Image.Image:
    """Draw a patch: its planes yx, yz and zx, placed so that their axes line up.

    Args:
        patch: Of a store.
        gaussian: (C, d, h, w) to lay over it, stored or rendered; None for none.
        classes: Names, in the order of axis C.
        ds_factor: Of the store.
        scale: Pixels a voxel; None enlarges to about `COMFORTABLE` pixels.
        slicing: Where the planes lie.

    Returns:
        An RGB image: title, panels, legend. `panel_boxes` says where the panels lie.

    Raises:
        UsageError: If the scale is below 1, or the picture would be larger than `LARGEST_SIDE`.
        StoreError: If the image cannot be read.
    """
    shape = shape3(patch.image.shape)
    scale = _comfortable_scale(shape) if scale is None else scale
    boxes = panel_boxes(shape, scale)
    _check_scale(scale, boxes)
    where = places(patch, slicing)
    shown = [(plane, where[plane.normal]) for plane in (YX, YZ, ZX)]
    scene = scene_of(patch, gaussian, ds_factor, scale, shown)
    width = max(_NARROWEST, boxes["yz"][2] + _MARGIN)
    note = MARKS if slicing in ("keypoint", "middle") else MARKS_OF_PROJECTION
    legend = Legend(_class_entries(patch, classes), note, width - 2 * _MARGIN)
    top = boxes["zx"][3] + _FOOT
    canvas = Image.new("RGB", (width, top + legend.height + _MARGIN), BACKGROUND)
    for plane, at in shown:
        box = boxes[plane.name]
        canvas.paste(draw_panel(scene, plane, at), box[:2])
        caption = f"{plane.name}   {place_text(plane, at)}"
        write(canvas, (box[0], box[1] - LINE + 1), caption, width=box[2] - box[0] + _GAP, size=SMALL, color=DIM)
        draw_bar(canvas, box, float(patch.voxel_spacing[plane.right]), scale)
    _draw_title(canvas, patch, shape, scale)
    legend.draw(canvas, (_MARGIN, top))
    return canvas


def small_picture(
    patch: Patch,
    gaussian: NDArray[Any] | None,
    *,
    ds_factor: Shape3,
    size: tuple[int, int],
    slicing: Slicing = "keypoint",
) -> Image.Image:
    """Draw the planes yx and yz of a patch side by side into few pixels, without a word.

    Args:
        patch: Of a store.
        gaussian: As in `patch_picture`.
        ds_factor: Of the store.
        size: Pixels, width and height, that it may take at most.
        slicing: Where the planes lie.

    Returns:
        An RGB image. A keypoint near the slice is a cross of five pixels around the one that holds it.
    """
    where = places(patch, slicing)
    shown = [(plane, where[plane.normal]) for plane in (YX, YZ)]
    scene = scene_of(patch, gaussian, ds_factor, 1, shown)
    depth, height, width = scene.image.shape
    ratio = min((size[0] - 1) / (width + depth), size[1] / height)
    panels = [_shrunk(scene, plane, at, ratio) for plane, at in shown]
    canvas = Image.new("RGB", (panels[0].width + 1 + panels[1].width, panels[0].height), BACKGROUND)
    canvas.paste(panels[0], (0, 0))
    canvas.paste(panels[1], (panels[0].width + 1, 0))
    return canvas


def panel_boxes(shape: Shape3, scale: int) -> dict[str, Box]:
    """Where the three panels lie in `patch_picture`, by the plane's name.

    Args:
        shape: (D, H, W) of the patch.
        scale: Pixels a voxel.
    """
    depth, height, width = (n * scale for n in shape)
    left, top = _MARGIN, _TITLE + LINE
    right, below = left + width + _GAP, top + height + _FOOT + LINE
    return {
        "yx": (left, top, left + width, top + height),
        "yz": (right, top, right + depth, top + height),
        "zx": (left, below, left + width, below + depth),
    }


def place_text(plane: Plane, at: At) -> str:
    """``z = 43``, or which projection along z."""
    axis = "zyx"[plane.normal]
    return f"{axis} = {at}" if isinstance(at, int) else f"{at} along {axis}"


def _comfortable_scale(shape: Shape3) -> int:
    depth, height, width = shape
    return max(1, min(LARGEST_SCALE, COMFORTABLE // (max(width, height) + depth)))


def _check_scale(scale: int, boxes: dict[str, Box]) -> None:
    side = max(boxes["yz"][2], boxes["zx"][3])
    if scale < 1 or side > LARGEST_SIDE:
        raise UsageError.at(
            "scale", expected=f"from 1, and at most {LARGEST_SIDE} pixels", found=f"{scale}, {side} pixels"
        )


def _shrunk(scene: Scene, plane: Plane, at: At, ratio: float) -> Image.Image:
    """A panel at so many pixels a voxel, fewer than one as a rule, with a cross on each keypoint near it."""
    panel = draw_panel(scene, plane, at, marks=False)
    width, height = (max(1, round(n * ratio)) for n in panel.size)
    small = panel.resize((width, height), Image.Resampling.BOX)
    near, _ = keypoints_near(scene, plane, at)
    for k in near:
        x, y = (
            int((scene.points[k, axis] + 0.5) * n / scene.image.shape[axis])
            for axis, n in ((plane.right, width), (plane.down, height))
        )
        for dx, dy in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
            if 0 <= x + dx < width and 0 <= y + dy < height:
                small.putpixel((x + dx, y + dy), color_of(int(scene.class_index[k])))
    return small


def _draw_title(canvas: Image.Image, patch: Patch, shape: Shape3, scale: int) -> None:
    fold = f", fold {patch.fold}" if patch.fold >= 0 else ""
    spacing = list(dict.fromkeys(f"{value:g}" for value in patch.voxel_spacing.tolist()))
    angstrom = spacing[0] if len(spacing) == 1 else " x ".join(f"{value:g}" for value in patch.voxel_spacing.tolist())
    origin = ", ".join(map(str, patch.origin.tolist()))
    place = f"z y x: origin {origin}, {' x '.join(map(str, shape))} voxels"
    size = f"{angstrom} Angstrom and {scale} pixel{'s' if scale > 1 else ''} a voxel"
    width = canvas.width - 2 * _MARGIN
    head = f"Patch {patch.index}: {patch.kind}{fold}, {patch.volume}"
    write(canvas, (_MARGIN, _MARGIN), head, width=width, size=LARGE, color=TEXT)
    write(canvas, (_MARGIN, _MARGIN + LARGE + 8), f"{place}, {size}", width=width, size=SMALL, color=DIM)


def _class_entries(patch: Patch, classes: Sequence[str]) -> list[tuple[Color, str]]:
    """Every class that the patch has a keypoint of, with how many lie inside and outside."""
    inside = geometry.inside(patch.local_rs_coords, patch.image.shape)
    entries = []
    for c, name in enumerate(classes):
        mine = patch.class_index == c
        n_inside, n_all = int(np.count_nonzero(mine & inside)), int(np.count_nonzero(mine))
        if n_all:
            outside = f", {n_all - n_inside} outside" if n_all > n_inside else ""
            entries.append((color_of(c), f"{name}: {n_inside} inside{outside}"))
    return entries or [(DIM, "no keypoint within reach")]
