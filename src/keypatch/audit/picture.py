"""Pictures of patches: three orthogonal slices with keypoints and Gaussian, and sheets of many patches."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keypatch import geometry
from keypatch.audit.panels import YX, YZ, ZX, Color, Plane, Scene, color_of, contrast_window, draw_panel
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from keypatch.formats.store import Patch, Store
    from keypatch.geometry import Shape3

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, the last two exclusive."""

COMFORTABLE: Final = 900
"""Pixels that the slices of a picture are enlarged to at most."""

CELL: Final = 200
"""Pixels that a slice on a sheet is enlarged or thinned out to at most."""

LARGEST_SCALE: Final = 16
LARGEST_SIDE: Final = 20_000
"""Pixels of a picture's side; beyond it viewers give up."""

_MARGIN, _GAP, _TITLE, _CAPTION, _FOOT = 14, 14, 66, 20, 26
_LARGE, _SMALL = 17, 13
_NARROWEST: Final = 480

_BACKGROUND: Final[Color] = (18, 20, 24)
_TEXT: Final[Color] = (236, 239, 244)
_DIM: Final[Color] = (160, 168, 180)

_BAR_LENGTHS: Final = tuple(digit * 10.0**exponent for exponent in range(-1, 8) for digit in (1, 2, 5))
"""Å that a scale bar may stand for."""


def patch_picture(
    patch: Patch,
    gaussian: NDArray[Any] | None,
    *,
    classes: Sequence[str],
    ds_factor: Shape3,
    scale: int | None = None,
) -> Image.Image:
    """Draw a patch: its planes yx, yz and zx through the most central keypoint, placed so that their axes line up.

    Args:
        patch: Of a store.
        gaussian: (C, d, h, w) to lay over it, stored or rendered; None for none.
        classes: Names, in the order of axis C.
        ds_factor: Of the store.
        scale: Pixels a voxel; None enlarges to about `COMFORTABLE` pixels.

    Returns:
        An RGB image: title, panels, legend. `panel_boxes` says where the panels lie.

    Raises:
        UsageError: If the scale is below 1, or the picture would be larger than `LARGEST_SIDE`.
        StoreError: If the image cannot be read.
    """
    shape = _shape3(patch.image.shape)
    scale = _comfortable_scale(shape) if scale is None else scale
    boxes = panel_boxes(shape, scale)
    _check_scale(scale, boxes)
    center = slice_center(patch)
    scene = _scene(patch, gaussian, ds_factor, scale, (YX, YZ, ZX))
    width = max(_NARROWEST, boxes["yz"][2] + _MARGIN)
    legend = _Legend(_class_entries(patch, classes), width - 2 * _MARGIN)
    top = boxes["zx"][3] + _FOOT
    canvas = Image.new("RGB", (width, top + legend.height + _MARGIN), _BACKGROUND)
    for plane in (YX, YZ, ZX):
        box = boxes[plane.name]
        canvas.paste(draw_panel(scene, plane, center[plane.normal]), box[:2])
        _draw_caption(canvas, box, f"{plane.name}   {'zyx'[plane.normal]} = {center[plane.normal]}")
        _draw_bar(canvas, box, float(patch.voxel_spacing[plane.right]), scale)
    _draw_title(canvas, patch, shape, scale)
    legend.draw(canvas, (_MARGIN, top))
    return canvas


def contact_sheet(store: Store, indices: Iterable[int], *, columns: int = 5) -> Image.Image:
    """Draw the yx planes of several patches through their most central keypoints, in a grid.

    Args:
        store: Opened.
        indices: Of the patches.
        columns: Patches a row.

    Returns:
        An RGB image.

    Raises:
        IndexError: If there is no such patch.
        UsageError: If no patch is asked for, or the sheet would be larger than `LARGEST_SIDE`.
        StoreError: If a patch cannot be read.
    """
    wanted = list(indices)
    if not wanted or columns < 1:
        raise UsageError.at("contact sheet", expected="at least one patch and one column", found="none")
    height, width = store.patch_shape[1], store.patch_shape[2]
    scale = max(1, min(LARGEST_SCALE, CELL // max(height, width)))
    cell = (width * scale + _GAP, height * scale + _CAPTION + _GAP)
    columns = min(columns, len(wanted))
    size = (columns * cell[0] + _GAP, -(-len(wanted) // columns) * cell[1] + _GAP)
    if max(size) > LARGEST_SIDE:
        found = f"{size[0]} × {size[1]}"
        hint = "ask for fewer patches"
        raise UsageError.at("contact sheet", expected=f"at most {LARGEST_SIDE} pixels", found=found, hint=hint)
    sheet = Image.new("RGB", size, _BACKGROUND)
    for k, index in enumerate(wanted):
        row, column = divmod(k, columns)
        left, top = _GAP + column * cell[0], _GAP + _CAPTION + row * cell[1]
        _draw_cell(sheet, store, index, (left, top, left + width * scale, top + height * scale), scale)
    return sheet


def panel_boxes(shape: Shape3, scale: int) -> dict[str, Box]:
    """Where the three panels lie in `patch_picture`, by the plane's name.

    Args:
        shape: (D, H, W) of the patch.
        scale: Pixels a voxel.
    """
    depth, height, width = (n * scale for n in shape)
    left, top = _MARGIN, _TITLE + _CAPTION
    right, below = left + width + _GAP, top + height + _FOOT + _CAPTION
    return {
        "yx": (left, top, left + width, top + height),
        "yz": (right, top, right + depth, top + height),
        "zx": (left, below, left + width, below + depth),
    }


def slice_center(patch: Patch) -> tuple[int, int, int]:
    """The voxel that holds the keypoint nearest to the patch's centre, measured in the patch's sides.

    Without a keypoint inside, it is the middle of what lies in the volume.
    """
    shape = np.array(patch.image.shape)
    inside = patch.local_rs_coords[geometry.inside(patch.local_rs_coords, shape)]
    if not len(inside):
        z, y, x = np.minimum((patch.valid_start + patch.valid_stop) // 2, shape - 1).tolist()
        return z, y, x
    distance = np.linalg.norm((inside - (shape - 1) / 2) / shape, axis=1)
    z, y, x = np.floor(inside[distance.argmin()] + 0.5).astype(int).tolist()
    return z, y, x


def _scene(
    patch: Patch, gaussian: NDArray[Any] | None, ds_factor: Shape3, scale: int, planes: Sequence[Plane]
) -> Scene:
    return Scene(
        image=patch.image,
        valid_start=_shape3(patch.valid_start.tolist()),
        valid_stop=_shape3(patch.valid_stop.tolist()),
        gaussian=gaussian,
        ds_factor=ds_factor,
        points=patch.local_rs_coords,
        class_index=patch.class_index,
        sigma=patch.ds_sigma * np.array(ds_factor),
        window=contrast_window([_valid_slice(patch, plane) for plane in planes]),
        scale=scale,
    )


def _valid_slice(patch: Patch, plane: Plane) -> NDArray[Any]:
    """What a plane through the patch's `slice_center` shows of the volume; padding must not set the contrast."""
    box = [slice(int(a), int(b)) for a, b in zip(patch.valid_start, patch.valid_stop, strict=True)]
    at = slice_center(patch)[plane.normal]
    if not box[plane.normal].start <= at < box[plane.normal].stop:
        at = box[plane.normal].start
    box[plane.normal] = slice(at, at + 1)
    return patch.image[tuple(box)]


def _comfortable_scale(shape: Shape3) -> int:
    depth, height, width = shape
    return max(1, min(LARGEST_SCALE, COMFORTABLE // (max(width, height) + depth)))


def _check_scale(scale: int, boxes: dict[str, Box]) -> None:
    side = max(boxes["yz"][2], boxes["zx"][3])
    if scale < 1 or side > LARGEST_SIDE:
        raise UsageError.at(
            "scale", expected=f"from 1, and at most {LARGEST_SIDE} pixels", found=f"{scale}, {side} pixels"
        )


def _draw_title(canvas: Image.Image, patch: Patch, shape: Shape3, scale: int) -> None:
    fold = f", fold {patch.fold}" if patch.fold >= 0 else ""
    spacing = list(dict.fromkeys(f"{value:g}" for value in patch.voxel_spacing.tolist()))
    angstrom = spacing[0] if len(spacing) == 1 else " x ".join(f"{value:g}" for value in patch.voxel_spacing.tolist())
    place = f"z y x: origin {_listed(patch.origin.tolist())}, {' x '.join(map(str, shape))} voxels"
    # Pillow's own font has neither the sign for Å nor that for times.
    size = f"{angstrom} Angstrom and {scale} pixel{'s' if scale > 1 else ''} a voxel"
    lines = (
        (f"Patch {patch.index}: {patch.kind}{fold}, {patch.volume}", _LARGE, _TEXT),
        (f"{place}, {size}", _SMALL, _DIM),
    )
    draw, top = ImageDraw.Draw(canvas), _MARGIN
    for text, height, color in lines:
        draw.text((_MARGIN, top), _shortened(text, height, canvas.width - 2 * _MARGIN), color, _font(height))
        top += height + 8


def _draw_caption(canvas: Image.Image, box: Box, text: str) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.text((box[0], box[1] - _CAPTION + 1), _shortened(text, _SMALL, box[2] - box[0] + _GAP), _DIM, _font(_SMALL))


def _draw_bar(canvas: Image.Image, box: Box, spacing: float, scale: int) -> None:
    """A scale bar under a panel: the longest round length that takes at most half of the panel's width."""
    per_angstrom = scale / spacing
    fitting = [length for length in _BAR_LENGTHS if length * per_angstrom <= (box[2] - box[0]) / 2]
    if not fitting or not math.isfinite(per_angstrom):
        return
    length = fitting[-1]
    pixels = round(length * per_angstrom)
    top = box[3] + 9
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((box[0], top, box[0] + max(pixels, 1) - 1, top + 2), fill=_TEXT)
    label = f"{length / geometry.ANGSTROM_PER['nm']:g} nm"
    if pixels + 6 + _font(_SMALL).getlength(label) <= box[2] - box[0] + _GAP:
        draw.text((box[0] + pixels + 6, top - 7), label, _DIM, _font(_SMALL))


def _draw_cell(sheet: Image.Image, store: Store, index: int, box: Box, scale: int) -> None:
    patch = store[index]
    gaussian = store.read_gaussian(index) if store.has_gaussian else patch.gaussian()
    scene = _scene(patch, gaussian, store.ds_factor, scale, (YX,))
    sheet.paste(draw_panel(scene, YX, slice_center(patch)[YX.normal]), box[:2])
    _draw_caption(sheet, box, f"{patch.index}  {patch.kind}  {patch.volume}")


class _Legend:
    """Coloured names and a line on what the marks mean, wrapped to a width."""

    _NOTE: Final = (
        "dot: within half a coarse voxel of the slice, ring: one sigma, faint circle: farther, "
        "colour: Gaussian, hatched: outside the volume"
    )
    _SWATCH: Final = 12
    _LINE: Final = _SMALL + 8

    def __init__(self, entries: Sequence[tuple[Color, str]], width: int) -> None:
        self._places: list[tuple[int, int, Color, str]] = []
        left = top = 0
        for color, text in entries:
            shown = _shortened(text, _SMALL, width - self._SWATCH - 6)
            needed = self._SWATCH + 6 + math.ceil(_font(_SMALL).getlength(shown))
            if left and left + needed > width:
                left, top = 0, top + self._LINE
            self._places.append((left, top, color, shown))
            left += needed + 20
        self._note_top = top + self._LINE
        self._note = _wrapped(self._NOTE, width)
        self.height = self._note_top + len(self._note) * self._LINE

    def draw(self, canvas: Image.Image, at: tuple[int, int]) -> None:
        """Draw it with its upper left corner there."""
        draw, font = ImageDraw.Draw(canvas), _font(_SMALL)
        for left, top, color, text in self._places:
            x, y = at[0] + left, at[1] + top
            draw.ellipse((x, y + 2, x + self._SWATCH - 1, y + 1 + self._SWATCH), fill=color)
            draw.text((x + self._SWATCH + 6, y), text, _TEXT, font)
        for k, line in enumerate(self._note):
            draw.text((at[0], at[1] + self._note_top + k * self._LINE), line, _DIM, font)


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
    return entries or [(_DIM, "no keypoint within reach")]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shortened(text: str, size: int, width: float) -> str:
    """The text, cut with dots where it is wider than so many pixels."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(_SMALL).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _shape3(values: Sequence[int]) -> Shape3:
    z, y, x = (int(n) for n in values)
    return z, y, x
