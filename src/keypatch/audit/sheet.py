"""Contact sheets: the yx planes of many patches in one picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

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
from keypatch.audit.panels import YX, color_of, draw_panel
from keypatch.audit.picture import LARGEST_SCALE, LARGEST_SIDE, place_text
from keypatch.audit.view import places, scene_of
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from keypatch.audit.view import Slicing
    from keypatch.formats.store import Patch, Store

CELL: Final = 240
"""Pixels that a slice is enlarged or reduced to at most."""

_MARGIN, _GAP, _CAPTION = 14, 16, 2 * LINE
_WIDTH: Final = 1600
"""Pixels of a sheet beyond which its columns are not added."""

_NARROWEST: Final = 480


class Grid:
    """Where the slices lie on a sheet.

    Args:
        patch_shape: (D, H, W) voxels.
        n: Patches.
        columns: Patches a row; None for about as wide as high, within `_WIDTH`.
    """

    def __init__(self, patch_shape: Sequence[int], n: int, columns: int | None = None) -> None:
        _, height, width = patch_shape
        whole = min(LARGEST_SCALE, CELL // max(height, width))
        self.scale: float = whole if whole >= 1 else CELL / max(height, width)
        self.slice = round(width * self.scale), round(height * self.scale)
        self.cell = self.slice[0] + _GAP, _CAPTION + self.slice[1] + BAR_ROOM + _GAP
        fitting = max(1, _WIDTH // self.cell[0])
        self.columns = min(n, columns or min(fitting, math.ceil(math.sqrt(n * self.cell[1] / self.cell[0]))))
        self.width = max(_NARROWEST, 2 * _MARGIN + self.columns * self.cell[0] - _GAP)
        self.height = -(-n // self.columns) * self.cell[1]

    def box(self, k: int, top: int) -> Box:
        """Of the slice of the k-th patch, where the grid begins at ``top``."""
        row, column = divmod(k, self.columns)
        x, y = _MARGIN + column * self.cell[0], top + row * self.cell[1] + _CAPTION
        return x, y, x + self.slice[0], y + self.slice[1]


HEAD: Final = _MARGIN + LARGE + 8 + LINE + 6
"""Pixels above the grid: two lines."""


def contact_sheet(
    store: Store,
    indices: Iterable[int],
    *,
    title: str = "",
    columns: int | None = None,
    slicing: Slicing = "keypoint",
    gaussian: bool = True,
) -> Image.Image:
    """Draw the yx planes of several patches in a grid, each with its number, kind, fold, volume and a scale bar.

    Args:
        store: Opened.
        indices: Of the patches.
        title: What they have in common.
        columns: Patches a row; None chooses.
        slicing: Where the planes lie.
        gaussian: Whether the Gaussian is laid over them.

    Returns:
        An RGB image; `Grid` with `HEAD` says where the slices lie.

    Raises:
        IndexError: If there is no such patch.
        UsageError: If no patch is asked for, or the sheet would be larger than `LARGEST_SIDE`.
        StoreError: If a patch cannot be read.
    """
    wanted = list(indices)
    if not wanted or (columns is not None and columns < 1):
        raise UsageError.at("contact sheet", expected="at least one patch and one column", found="none")
    grid = Grid(store.patch_shape, len(wanted), columns)
    entries = [(color_of(c), name) for c, name in enumerate(store.classes)]
    note = MARKS if slicing in ("keypoint", "middle") else MARKS_OF_PROJECTION
    legend = Legend(entries, note, grid.width - 2 * _MARGIN)
    size = grid.width, HEAD + grid.height + legend.height + _MARGIN
    if max(size) > LARGEST_SIDE:
        found, hint = f"{size[0]} × {size[1]}", "ask for fewer patches"
        raise UsageError.at("contact sheet", expected=f"at most {LARGEST_SIDE} pixels", found=found, hint=hint)
    sheet = Image.new("RGB", size, BACKGROUND)
    width = grid.width - 2 * _MARGIN
    write(sheet, (_MARGIN, _MARGIN), title or "Patches", width=width, size=LARGE, color=TEXT)
    voxels = " x ".join(map(str, store.patch_shape))
    how = "" if slicing in ("keypoint", "middle") else f", {slicing} along z"
    subtitle = f"{len(wanted)} of {len(store)} patches, each {voxels} voxels (z y x), plane yx{how}"
    write(sheet, (_MARGIN, _MARGIN + LARGE + 8), subtitle, width=width, size=SMALL, color=DIM)
    for k, index in enumerate(wanted):
        patch = store[index]
        target = _target(store, patch) if gaussian else None
        _draw_cell(sheet, grid.box(k, HEAD), patch, target, store, grid.scale, slicing)
    legend.draw(sheet, (_MARGIN, HEAD + grid.height))
    return sheet


def _target(store: Store, patch: Patch) -> NDArray[Any]:
    return store.read_gaussian(patch.index) if store.has_gaussian else patch.gaussian()


def _draw_cell(
    sheet: Image.Image,
    box: Box,
    patch: Patch,
    target: NDArray[Any] | None,
    store: Store,
    scale: float,
    slicing: Slicing,
) -> None:
    at = places(patch, slicing)[YX.normal]
    scene = scene_of(patch, target, store.ds_factor, max(1, int(scale)), [(YX, at)])
    panel = draw_panel(scene, YX, at)
    width, height = box[2] - box[0], box[3] - box[1]
    if panel.size != (width, height):  # of a patch that is larger than a cell
        panel = panel.resize((width, height), Image.Resampling.LANCZOS)
    sheet.paste(panel, box[:2])
    fold = f", fold {patch.fold}" if patch.fold >= 0 else ""
    n = int(geometry.inside(patch.local_rs_coords, store.patch_shape).sum())
    place = f", {place_text(YX, at)}" if isinstance(at, int) else ""
    lines = (
        (f"{patch.index}  {patch.kind}{fold}", TEXT),
        (f"{patch.volume}{place}, {n} keypoint{'' if n == 1 else 's'}", DIM),
    )
    for k, (text, color) in enumerate(lines):
        top = box[1] - _CAPTION + k * LINE
        write(sheet, (box[0], top), text, width=width + _GAP // 2, size=SMALL, color=color)
    draw_bar(sheet, box, float(patch.voxel_spacing[YX.right]), scale)
