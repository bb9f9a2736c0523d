"""Pictures: what is drawn lies at the pixels that the geometry says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keypatch import gaussian, geometry
from keypatch.audit.lettering import LINE, TEXT
from keypatch.audit.panels import OVERLAY, PALETTE, YX, YZ, ZX, Plane
from keypatch.audit.picture import panel_boxes, patch_picture, small_picture
from keypatch.audit.sheet import HEAD, Grid, contact_sheet
from keypatch.audit.view import slice_center
from keypatch.errors import UsageError
from keypatch.formats.store import Patch, Store

from .stores import Design, copy_of, make_store, rewrite_shards

SHAPE = (16, 32, 24)
FACTOR = (4, 8, 4)
PLANES = (YX, YZ, ZX)


def _patch(points: list[tuple[float, float, float]], *, image: np.ndarray | None = None, **given: object) -> Patch:
    """A patch of nothing but voxels and keypoints, all of class 0 unless said otherwise."""
    rs = np.array(points, np.float64).reshape(-1, 3)
    values: dict[str, object] = {
        "index": 3,
        "volume": "tomo",
        "origin": np.array([5, -2, 7]),
        "valid_start": np.zeros(3, np.int32),
        "valid_stop": np.array(SHAPE, np.int32),
        "kind": "centered",
        "fold": -1,
        "ds_sigma": np.array([1.0, 0.5, 1.0]),
        "angstrom_sigma": np.full(3, 40.0),
        "voxel_spacing": np.full(3, 10.0),
        "global_coords": rs + np.array([5, -2, 7]),
        "local_rs_coords": rs,
        "local_ds_coords": (rs + 0.5) / FACTOR - 0.5,
        "class_index": np.zeros(len(rs), np.int32),
        "annotation_index": np.arange(len(rs)),
        "_store": None,
    }
    patch = Patch(**{**values, **given})  # type: ignore[arg-type]
    vars(patch)["image"] = np.full(SHAPE, 100, np.uint8) if image is None else image
    return patch


def _panels(picture: Image.Image, scale: int) -> dict[str, np.ndarray]:
    pixels = np.asarray(picture).astype(int)
    return {
        name: pixels[top:bottom, left:right] for name, (left, top, right, bottom) in panel_boxes(SHAPE, scale).items()
    }


def _draw(patch: Patch, target: np.ndarray | None = None, scale: int = 10) -> dict[str, np.ndarray]:
    picture = patch_picture(patch, target, classes=("motor", "ribosome"), ds_factor=FACTOR, scale=scale)
    assert picture.mode == "RGB"
    return _panels(picture, scale)


def _voxel(panel: np.ndarray, plane: Plane, voxel: tuple[int, int, int], scale: int = 10) -> np.ndarray:
    """Pixels of one voxel in a panel."""
    down, right = voxel[plane.down] * scale, voxel[plane.right] * scale
    return panel[down : down + scale, right : right + scale]


def test_a_bright_block_and_its_keypoint_are_at_the_same_pixels() -> None:
    image = np.zeros(SHAPE, np.uint8)
    image[8, 20, 5] = 255
    panels = _draw(_patch([(8.0, 20.0, 5.0)], image=image))
    for plane in PLANES:
        panel = panels[plane.name]
        block = _voxel(panel, plane, (8, 20, 5))
        middle = block[4:6, 4:6].reshape(-1, 3)
        assert (middle == PALETTE[0]).all(), plane.name  # the dot
        assert (block[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all(), plane.name  # white corners of the voxel
        rows, columns = np.nonzero((panel == 255).all(axis=2))
        first_row, first_column = (8, 20, 5)[plane.down] * 10, (8, 20, 5)[plane.right] * 10
        assert (rows.min(), rows.max()) == (first_row, first_row + 9)
        assert (columns.min(), columns.max()) == (first_column, first_column + 9)


@pytest.mark.parametrize("point", [(8.0, 20.5, 5.25), (8.2, 3.75, 20.1), (3.4, 12.0, 11.9)])
def test_a_dot_is_centred_on_its_keypoint(point: tuple[float, float, float]) -> None:
    panels = _draw(_patch([point], ds_sigma=np.full(3, 1e-3)))
    for plane in PLANES:
        red = panels[plane.name][:, :, 0] - panels[plane.name][:, :, 1]
        rows, columns = np.nonzero(red > 100)
        # A pixel's own centre is half a pixel from its number.
        assert rows.mean() + 0.5 == pytest.approx((point[plane.down] + 0.5) * 10, abs=0.3)
        assert columns.mean() + 0.5 == pytest.approx((point[plane.right] + 0.5) * 10, abs=0.3)


def test_the_ring_has_the_radius_of_one_sigma() -> None:
    panel = _draw(_patch([(8.0, 16.0, 12.0)], ds_sigma=np.array([1.0, 0.5, 1.5])))["yx"]
    red = panel[:, :, 0] - panel[:, :, 1] > 60
    rows, columns = np.nonzero(red)
    assert (columns.max() + 1 - columns.min()) / 2 == pytest.approx(1.5 * FACTOR[2] * 10, abs=1)
    assert (rows.max() + 1 - rows.min()) / 2 == pytest.approx(0.5 * FACTOR[1] * 10, abs=1)


def test_slices_go_through_the_most_central_keypoint() -> None:
    points = [(1.0, 2.0, 3.0), (9.4, 14.6, 10.0), (8.0, 16.0, 500.0)]
    assert slice_center(_patch(points)) == (9, 15, 10)
    assert slice_center(_patch([])) == (8, 16, 12)
    padded = _patch([], valid_start=np.array([12, 0, 0]), valid_stop=np.array([16, 32, 10]))
    assert slice_center(padded) == (14, 16, 5)


@pytest.mark.parametrize(("z", "filled"), [(8.0, True), (9.9, True), (10.1, False), (6.1, True), (5.9, False)])
def test_only_keypoints_within_half_a_coarse_voxel_of_the_slice_are_filled(z: float, filled: bool) -> None:
    """The slice lies at z = 8 by the central keypoint; a coarse voxel has 4 voxels along z."""
    patch = _patch([(8.0, 16.0, 12.0), (z, 4.0, 4.0)], ds_sigma=np.full(3, 1e-3))
    middle = _voxel(_draw(patch)["yx"], YX, (8, 4, 4))[4:6, 4:6].reshape(-1, 3)
    assert (middle == PALETTE[0]).all() == filled
    around = _voxel(_draw(patch)["yx"], YX, (8, 4, 4))
    assert (around[:, :, 0] - around[:, :, 1]).max() > 40  # a faint circle at least


def test_a_keypoint_outside_the_box_is_not_drawn() -> None:
    patch = _patch([(8.0, 16.0, 12.0), (20.0, 4.0, 4.0), (8.0, 4.0, -3.0)], ds_sigma=np.full(3, 1e-3))
    panel = _draw(patch)["yx"]
    assert (panel[:60, :60, 0] == panel[:60, :60, 1]).all()


def test_classes_have_their_colours() -> None:
    patch = _patch([(8.0, 16.0, 12.0), (8.0, 4.0, 4.0)], class_index=np.array([0, 1]), ds_sigma=np.full(3, 1e-3))
    panel = _draw(patch)["yx"]
    assert (_voxel(panel, YX, (8, 16, 12))[4:6, 4:6] == PALETTE[0]).all()
    assert (_voxel(panel, YX, (8, 4, 4))[4:6, 4:6] == PALETTE[1]).all()


def _opacity(panel: np.ndarray, grey: int, color: tuple[int, int, int]) -> np.ndarray:
    """Of the Gaussian over an even grey, from the channel in which the colour is farthest from the grey."""
    channel = int(np.abs(np.array(color) - grey).argmax())
    return (panel[:, :, channel] - grey) / (color[channel] - grey) / OVERLAY


def test_the_overlay_of_one_coarse_voxel_is_over_its_fine_voxels() -> None:
    """Coarse voxel j covers the fine voxels j f … j f + f - 1, and is 1 at their common centre only."""
    target = np.zeros((2, 4, 4, 6), np.float32)
    target[0, 2, 1, 3] = 1
    panel = _draw(_patch([], valid_start=np.zeros(3, np.int32)), target, scale=4)["yx"]
    assert panel.shape == (32 * 4, 24 * 4, 3)
    grey = panel[0, 0, 0]
    strength = _opacity(panel, grey, PALETTE[0])
    # z = 8 of the slice is 1.625 on the coarse grid: linear interpolation gives 1 - 0.375 of coarse voxel 2.
    rows, columns = np.nonzero(strength > strength.max() - 0.02)
    # Coarse (y, x) = (1, 3) covers the voxels y 8 … 15, x 12 … 15, whose centres are 11.5 and 13.5.
    assert rows.mean() + 0.5 == pytest.approx((11.5 + 0.5) * 4, abs=0.1)
    assert columns.mean() + 0.5 == pytest.approx((13.5 + 0.5) * 4, abs=0.1)
    assert strength.max() == pytest.approx((1 - 0.375) * (1 - 1 / 64) * (1 - 1 / 32), abs=0.02)
    # Linear: half of it at the border of the coarse voxel, nothing from the neighbours' centres on.
    profile = strength.max(axis=0)
    assert profile[12 * 4 - 1 : 12 * 4 + 1].mean() == pytest.approx(strength.max() / 2, abs=0.03)
    assert (strength.max(axis=0)[: 9 * 4] < 0.01).all()
    assert (strength.max(axis=1)[: 3 * 4] < 0.01).all()


def test_the_overlay_peaks_on_the_keypoint() -> None:
    """The keypoint lies on a coarse centre, so all three panels are brightest there."""
    ds = np.array([2.0, 1.0, 3.0])
    rs = (ds + 0.5) * FACTOR - 0.5
    sigma = np.array([1.0, 0.5, 1.0])
    target = gaussian.render([ds], [1], n_classes=2, grid=(4, 4, 6), sigma=sigma)
    patch = _patch([tuple(rs)], class_index=np.array([1]))
    vars(patch)["local_rs_coords"] = rs[None] + 100  # out of the box: no marks in the way
    vars(patch)["valid_stop"] = np.array(SHAPE)
    for plane in PLANES:
        panel = _draw(patch, target, scale=4)[plane.name]
        strength = panel[:, :, 2] - panel[:, :, 0]
        rows, columns = np.nonzero(strength >= strength.max() - 1)
        assert rows.mean() + 0.5 == pytest.approx((rs[plane.down] + 0.5) * 4, abs=1.1)
        assert columns.mean() + 0.5 == pytest.approx((rs[plane.right] + 0.5) * 4, abs=1.1)


def test_padding_is_hatched_and_does_not_set_the_contrast() -> None:
    image = np.zeros(SHAPE, np.uint8)
    image[:, 10:, :] = np.random.default_rng(0).integers(200, 220, (16, 22, 24))
    panel = _draw(_patch([], image=image, valid_start=np.array([0, 10, 0])))["yx"]
    blue = panel[:, :, 2] - panel[:, :, 0]
    assert (blue[:100] > 20).all()
    assert (blue[100:] == 0).all()
    assert panel[100:, :, 0].min() == 0
    assert panel[100:, :, 0].max() == 255


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float16", "uint64"])
def test_every_dtype_is_drawn(dtype: str) -> None:
    image = np.random.default_rng(1).integers(0, 100, SHAPE).astype(dtype)
    panel = _draw(_patch([], image=image))["yx"]
    assert np.ptp(panel[:, :, 0]) == 255


def test_nan_and_an_even_image_are_drawn() -> None:
    assert (_draw(_patch([], image=np.full(SHAPE, np.nan, np.float32)))["yx"] == 0).all()
    even = _draw(_patch([]))["yx"]
    assert (even == even[0, 0]).all()


@pytest.mark.parametrize("shape", [(160, 288, 288), (16, 32, 24), (2, 2, 2), (64, 64, 64)])
def test_pictures_have_a_comfortable_size(shape: tuple[int, int, int]) -> None:
    image = np.zeros(shape, np.uint8)
    patch = _patch([], image=image, valid_stop=np.array(shape))
    picture = patch_picture(patch, None, classes=(), ds_factor=(1, 1, 1))
    assert 480 <= picture.width <= 1000
    assert picture.height <= 1150


@pytest.mark.parametrize("scale", [0, -3, 10_000])
def test_a_scale_that_cannot_be_is_refused(scale: int) -> None:
    with pytest.raises(UsageError, match="scale: expected from 1"):
        patch_picture(_patch([]), None, classes=(), ds_factor=FACTOR, scale=scale)


def test_a_long_name_is_cut_to_the_picture() -> None:
    """Nothing is drawn beyond the margin, whatever a volume is called."""
    picture = patch_picture(_patch([], volume="tomogram_" * 50), None, classes=("a" * 500,), ds_factor=FACTOR, scale=4)
    assert len(np.unique(np.asarray(picture)[:, -10:].reshape(-1, 3), axis=0)) == 1


def _cell(sheet: np.ndarray, grid: Grid, k: int) -> np.ndarray:
    left, top, right, bottom = grid.box(k, HEAD)
    return sheet[top:bottom, left:right]


def test_a_sheet_shows_the_asked_patches(tmp_path: Path) -> None:
    made = make_store(tmp_path, Design())
    store = Store(made.path)
    whole, one = contact_sheet(store, range(len(store)), columns=4), contact_sheet(store, [4])
    assert whole.width > 3 * one.width / 2
    assert whole.height > 2 * one.height
    twice = np.asarray(contact_sheet(store, [2, 2], columns=2))
    grid = Grid(store.patch_shape, 2, 2)
    first, second = (_cell(twice, grid, k) for k in (0, 1))
    assert (first == second).all()
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 50
    with pytest.raises(UsageError, match="at least one patch"):
        contact_sheet(store, [])
    with pytest.raises(IndexError):
        contact_sheet(store, [10])
    with pytest.raises(UsageError, match="fewer patches"):
        contact_sheet(store, [0] * 2000, columns=2000)


def test_a_store_without_gaussians_has_pictures(tmp_path: Path) -> None:
    store = Store(make_store(tmp_path, Design(gaussian_dtype=None)).path)
    assert contact_sheet(store, [0]).mode == "RGB"
    assert patch_picture(store[0], store[0].gaussian(), classes=store.classes, ds_factor=store.ds_factor).mode == "RGB"


def _planted_store(folder: Path) -> tuple[Store, list[tuple[int, int, int]]]:
    """A store of black patches, each with one white voxel, which is the one that holds its first keypoint inside."""
    made = make_store(folder, Design(dtype="uint8", source_dtype="uint8", padding="zero"))
    voxels = []
    images = [np.zeros_like(image) for image in made.images]
    for i, image in enumerate(images):
        voxel = slice_center(Store(made.path)[i])
        image[voxel] = 255
        voxels.append(voxel)
    rewrite_shards(copy := copy_of(made, folder), images, made.gaussians)
    return Store(copy.path), voxels


@pytest.mark.parametrize("slicing", ["keypoint", "max"])
def test_on_a_sheet_a_bright_voxel_and_its_keypoint_are_at_the_same_pixels(tmp_path: Path, slicing: str) -> None:
    store, voxels = _planted_store(tmp_path)
    sheet = np.asarray(contact_sheet(store, range(len(store)), slicing=slicing, gaussian=False)).astype(int)
    grid = Grid(store.patch_shape, len(store))
    scale, n_seen = int(grid.scale), 0
    for k, (_, y, x) in enumerate(voxels):
        cell = _cell(sheet, grid, k)
        white = (cell == 255).all(axis=2)
        rows, columns = np.nonzero(white)
        assert (rows.min() // scale, rows.max() // scale) == (y, y)
        assert (columns.min() // scale, columns.max() // scale) == (x, x)
        patch = store[k]
        inside = geometry.inside(patch.local_rs_coords, store.patch_shape)
        if inside.sum() != 1:
            continue
        n_seen += 1
        point, color = patch.local_rs_coords[inside][0], PALETTE[int(patch.class_index[inside][0])]
        row, column = (int((point[axis] + 0.5) * scale) for axis in (1, 2))
        assert tuple(cell[row, column]) == color
    assert n_seen >= 3


def test_a_sheet_has_scale_bars_and_readable_captions(tmp_path: Path) -> None:
    store = Store(make_store(tmp_path, Design()).path)
    sheet = np.asarray(contact_sheet(store, [0, 1])).astype(int)
    grid = Grid(store.patch_shape, 2)
    for k in (0, 1):
        left, top, right, bottom = grid.box(k, HEAD)
        bar = (sheet[bottom + 9, left:right] == TEXT).all(axis=1)
        length = int(bar.sum())
        assert bar[:length].all()
        # 24 voxels of 10.012 Å: the longest round length within half of them is 100 Å.
        assert length == pytest.approx(100 / 10.012 * grid.scale, abs=1)
        caption = sheet[top - 2 * LINE : top, left:right]
        assert (caption == TEXT).all(axis=2).any(), "the number and kind, in full contrast"


def test_a_large_patch_is_shrunk_into_its_cell() -> None:
    grid = Grid((64, 512, 300), 30)
    assert grid.slice == (141, 240)
    assert grid.width <= 1700
    assert Grid((16, 32, 24), 1).scale == 7


@pytest.mark.parametrize(("slicing", "value"), [("max", 200), ("min", 20)])
def test_projections_show_the_extremes_of_what_lies_in_the_volume(slicing: str, value: int) -> None:
    image = np.full(SHAPE, 100, np.uint8)
    image[12, 20, 5], image[3, 4, 6] = 200, 20
    image[:2] = 0 if slicing == "min" else 255  # padding, which must not be seen
    patch = _patch([(3.0, 4.0, 6.0), (12.0, 20.0, 5.0)], image=image, valid_start=np.array([2, 0, 0]))
    picture = patch_picture(patch, None, classes=("motor",), ds_factor=FACTOR, scale=10, slicing=slicing)
    panel = _panels(picture, 10)["yx"]
    extreme = (12, 20, 5) if value == 200 else (3, 4, 6)
    other = (3, 4, 6) if value == 200 else (12, 20, 5)
    corner = _voxel(panel, YX, extreme)[0, 0]
    assert (corner == (255 if value == 200 else 0)).all()
    assert (_voxel(panel, YX, other)[0, 0] == panel[5, 200]).all()  # as all around it
    for voxel in (extreme, other):  # keypoints of every depth are drawn
        assert (_voxel(panel, YX, voxel)[4:6, 4:6] == PALETTE[0]).all()


def test_the_gaussian_of_a_projection_is_the_greatest_along_the_axis() -> None:
    target = np.zeros((1, 4, 4, 6), np.float32)
    target[0, 3, 1, 3] = 1
    picture = patch_picture(_patch([]), target, classes=("motor",), ds_factor=FACTOR, scale=4, slicing="max")
    panel = _panels(picture, 4)["yx"]
    assert _opacity(panel, panel[0, 0, 0], PALETTE[0]).max() == pytest.approx((1 - 1 / 64) * (1 - 1 / 32), abs=0.02)


def test_the_middle_is_the_middle_whatever_the_keypoints() -> None:
    image = np.zeros(SHAPE, np.uint8)
    image[8, 3, 3] = 255
    patch = _patch([(2.0, 20.0, 20.0)], image=image)
    picture = patch_picture(patch, None, classes=("motor",), ds_factor=FACTOR, scale=10, slicing="middle")
    assert (_voxel(_panels(picture, 10)["yx"], YX, (8, 3, 3)) == 255).all()


@pytest.mark.parametrize("size", [(79, 46), (30, 20), (200, 100)])
def test_the_small_picture_has_the_keypoint_on_its_voxel(size: tuple[int, int]) -> None:
    image = np.zeros(SHAPE, np.uint8)
    image[8, 20, 5] = 255
    small = np.asarray(small_picture(_patch([(8.2, 20.3, 4.8)], image=image), None, ds_factor=FACTOR, size=size))
    assert small.shape[0] <= size[1]
    assert small.shape[1] <= size[0]
    ratio = min((size[0] - 1) / (24 + 16), size[1] / 32)
    width, height = round(24 * ratio), round(32 * ratio)
    row, column = int((20.3 + 0.5) * height / 32), int((4.8 + 0.5) * width / 24)
    assert tuple(small[row, column]) == PALETTE[0]
    crosses = np.argwhere((small[:, :width] == PALETTE[0]).all(axis=2))
    assert crosses.mean(axis=0) == pytest.approx((row, column))
    assert len(crosses) == 5
    depth = round(16 * ratio)
    column = width + 1 + int((8.2 + 0.5) * depth / 16)
    assert tuple(small[row, column]) == PALETTE[0]
