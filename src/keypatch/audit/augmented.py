"""A sheet of patches before and after augmentation, each with its keypoints and its target.

What a column shows is what that epoch of `keypatch.augment.Patches` with the same seed gives a network, so a sheet is a
look into the training, not a likeness of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from keypatch import geometry
from keypatch.audit.lettering import BACKGROUND, DIM, LARGE, LINE, MARKS, SMALL, TEXT, Box, Legend, draw_bar, write
from keypatch.audit.panels import YX, ZX, Plane, Scene, color_of, draw_panel
from keypatch.audit.picture import LARGEST_SCALE, LARGEST_SIDE, place_text
from keypatch.audit.view import central_voxel, scene_of, shape3, slice_center
from keypatch.augment import Patches
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keypatch.augment import Geometric, Sample
    from keypatch.formats.store import Patch, Store

EPOCHS: Final = 4
"""Draws of each patch that a sheet shows beside the patch itself."""

CELL: Final = 240
"""Pixels that a slice is enlarged or reduced to at most."""

PLANES: Final = (YX, ZX)

_MARGIN, _GAP, _BAR = 14, 16, 24
_HEAD: Final = _MARGIN + LARGE + 8 + LINE + 6
_NARROWEST: Final = 190
"""Pixels that a column's title takes."""

_NOTE: Final = (
    f"each slice goes through the most central keypoint of its box; {MARKS}; "
    "where a map changes sigma, the colour alone shows it"
)


def augmented_sheet(
    store: Store,
    indices: Sequence[int],
    geometric: Geometric,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    gaussian: bool = True,
) -> Image.Image:
    """Draw patches as they lie in the store, and beside them as epochs 0, 1, 2 … of training see them.

    Args:
        store: Opened.
        indices: Of the patches; each takes two rows, of the planes yx and zx.
        geometric: What is drawn.
        seed: Of the draws.
        epochs: How many.
        gaussian: Whether the target is laid over them.

    Returns:
        An RGB image.

    Raises:
        IndexError: If there is no such patch.
        UsageError: If no patch or epoch is asked for, the sheet would be larger than `LARGEST_SIDE`, or a target cannot
            be written, as when the store's factor does not divide the crop.
        CorruptionError: If a patch cannot be read.
    """
    if not indices or epochs < 1:
        raise UsageError.at("sheet", expected="at least one patch and one epoch", found="none")
    patches = Patches(store, geometric=geometric, seed=seed, dtype=None, with_target=False)
    shapes = [shape3(patches.sample(indices[0], epoch=epoch).image.shape) for epoch in range(epochs)]
    rows = ([(f"epoch {epoch}", patches.sample(index, epoch=epoch)) for epoch in range(epochs)] for index in indices)
    title = "Patches before and after augmentation"
    return sheet_of_samples(
        store, indices, rows, shapes=shapes, title=title, subtitle=f"{_said(geometric)}; seed {seed}", gaussian=gaussian
    )


def sheet_of_samples(
    store: Store,
    indices: Sequence[int],
    rows: Iterable[Sequence[tuple[str, Sample]]],
    *,
    shapes: Sequence[geometry.Shape3],
    title: str,
    subtitle: str,
    gaussian: bool = True,
) -> Image.Image:
    """Draw patches as they lie in the store, and beside each some samples of it.

    Args:
        store: Opened.
        indices: Of the patches.
        rows: For each patch, names and samples; read one row at a time.
        shapes: Largest voxels of each column of samples.
        title: Above all.
        subtitle: Below it.
        gaussian: Whether the target is laid over them.

    Returns:
        An RGB image.

    Raises:
        IndexError: If there is no such patch.
        UsageError: If the sheet would be larger than `LARGEST_SIDE`, or a target cannot be written.
        CorruptionError: If a patch cannot be read.
    """
    layout = _Layout([store.patch_shape, *shapes], len(indices))
    entries = [(color_of(c), name) for c, name in enumerate(store.classes)]
    width = layout.width - 2 * _MARGIN
    legend = Legend(entries, _NOTE, width)
    size = layout.width, _HEAD + layout.height + legend.height + _MARGIN
    if max(size) > LARGEST_SIDE:
        found, hint = f"{size[0]} × {size[1]}", "ask for fewer patches"
        raise UsageError.at("sheet", expected=f"at most {LARGEST_SIDE} pixels", found=found, hint=hint)
    sheet = Image.new("RGB", size, BACKGROUND)
    write(sheet, (_MARGIN, _MARGIN), title, width=width, size=LARGE, color=TEXT)
    write(sheet, (_MARGIN, _MARGIN + LARGE + 8), subtitle, width=width, size=SMALL, color=DIM)
    for row, (index, samples) in enumerate(zip(indices, rows, strict=True)):
        patch = store[index]
        before = _scene_of_patch(store, patch, gaussian=gaussian)
        layout.draw(sheet, (row, 0), before, slice_center(patch), f"patch {patch.index}, {patch.kind}", patch)
        for column, (name, sample) in enumerate(samples, 1):
            scene = _scene_of_sample(store, patch, sample, before.window, gaussian=gaussian)
            d, h, w = sample.image.shape
            at = central_voxel(sample.keypoints.local_rs, sample.image.shape, (d // 2, h // 2, w // 2))
            layout.draw(sheet, (row, column), scene, at, name, patch)
    legend.draw(sheet, (_MARGIN, _HEAD + layout.height))
    return sheet


class _Layout:
    """Where the slices lie: a column for the patch and each epoch, and two slices a patch.

    Args:
        shapes: Voxels of what the columns show.
        n: Patches.
    """

    def __init__(self, shapes: Sequence[geometry.Shape3], n: int) -> None:
        largest = max(max(shape) for shape in shapes)
        self.whole = max(1, min(LARGEST_SCALE, CELL // largest))
        self.ratio = min(1.0, CELL / (largest * self.whole))
        self._slices = [max(self._pixels(shape[plane.down]) for shape in shapes) for plane in PLANES]
        self._columns = [max(self._pixels(shape[2]), _NARROWEST) for shape in shapes]
        self._row = sum(height + LINE for height in self._slices) + LINE + _BAR + _GAP
        self.width = 2 * _MARGIN + sum(self._columns) + _GAP * (len(shapes) - 1)
        self.height = n * self._row

    def _pixels(self, voxels: int) -> int:
        return max(1, round(voxels * self.whole * self.ratio))

    def draw(
        self, sheet: Image.Image, cell: tuple[int, int], scene: Scene, at: geometry.Shape3, title: str, patch: Patch
    ) -> None:
        """One column of one patch."""
        row, column = cell
        left = _MARGIN + sum(self._columns[:column]) + _GAP * column
        top = _HEAD + row * self._row
        n = int(geometry.inside(scene.points, scene.image.shape).sum())
        text = f"{title}, {n} keypoint{'' if n == 1 else 's'}"
        write(sheet, (left, top), text, width=self._columns[column], size=SMALL, color=TEXT)
        top += LINE
        for plane, room in zip(PLANES, self._slices, strict=True):
            where = f"{plane.name}   {place_text(plane, at[plane.normal])}"
            write(sheet, (left, top), where, width=self._columns[column], size=SMALL, color=DIM)
            box = self._paste(sheet, (left, top + LINE), scene, plane, at[plane.normal])
            top += LINE + room
        draw_bar(sheet, box, float(patch.voxel_spacing[2]), self.whole * self.ratio)

    def _paste(self, sheet: Image.Image, corner: tuple[int, int], scene: Scene, plane: Plane, at: int) -> Box:
        panel = draw_panel(scene, plane, at)
        shape = scene.image.shape
        size = self._pixels(shape[plane.right]), self._pixels(shape[plane.down])
        if panel.size != size:  # of a patch that is larger than a cell
            panel = panel.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(panel, corner)
        return corner[0], corner[1], corner[0] + size[0], corner[1] + size[1]


def _scene_of_patch(store: Store, patch: Patch, *, gaussian: bool) -> Scene:
    scale = max(1, min(LARGEST_SCALE, CELL // max(store.patch_shape)))
    at = slice_center(patch)
    shown = [(plane, at[plane.normal]) for plane in PLANES]
    return scene_of(patch, patch.gaussian() if gaussian else None, store.ds_factor, scale, shown)


def _scene_of_sample(
    store: Store, patch: Patch, sample: Sample, window: tuple[float, float], *, gaussian: bool
) -> Scene:
    scale = max(1, min(LARGEST_SCALE, CELL // max(*store.patch_shape, *sample.image.shape)))
    factor = np.array(store.ds_factor)
    target = None
    if gaussian:
        target = sample.target(len(store.classes), ds_factor=factor, sigma_ds=patch.ds_sigma)
    # A ring is one sigma of all keypoints; where the map changes it, the target alone shows it.
    ring = patch.ds_sigma * factor if sample.map.sigma == "fixed" else np.zeros(3)
    return Scene(
        image=sample.image,
        valid_start=(0, 0, 0),
        valid_stop=shape3(sample.image.shape),
        gaussian=target,
        ds_factor=store.ds_factor,
        points=sample.keypoints.local_rs,
        class_index=sample.keypoints.class_index,
        sigma=ring,
        window=window,
        scale=scale,
    )


def _said(geometric: Geometric) -> str:
    """The settings that are not as they are when nothing is said."""
    usual = type(geometric)().to_json()
    said = {key: value for key, value in geometric.to_json().items() if value != usual[key]}
    return ", ".join(f"{key} {value}" for key, value in said.items()) or "nothing is drawn"
