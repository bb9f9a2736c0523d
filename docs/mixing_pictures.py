"""Draw the pictures of mixing.md.

python docs/mixing_pictures.py           write docs/pictures/mixing*.png
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from keypatch.audit.lettering import BACKGROUND, LINE, SMALL, TEXT, write
from keypatch.audit.panels import YX, Scene, draw_panel
from keypatch.augment.batch import render_targets
from keypatch.augment.mixing import Blend, Holes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from keypatch.augment import Batch

FOLDER: Final = Path(__file__).with_name("pictures")
SHAPE: Final = (16, 96, 96)
FACTOR: Final = 8
SIGMA: Final = 0.75
PLANE: Final = 8

# y and x of the keypoints; all lie in the middle plane. Some are near the box's edge or the image's.
BASE: Final = ((22, 20), (46, 30), (70, 76), (18, 72), (60, -2))
PARTNER: Final = ((40, 62), (66, 40), (84, 14), (30, 88))
BOX: Final = ((0, 28, 34), (16, 76, 82))
HOLES: Final = (((0, 10, 8), (16, 34, 34)), ((0, 58, 60), (16, 70, 96)), ((0, 80, 10), (16, 92, 50)))

GAP: Final = 12


def main() -> None:
    """Write both pictures."""
    FOLDER.mkdir(exist_ok=True)
    for name, picture in (("mixing.png", mixing()), ("mixing-tails.png", tails())):
        # 64 colours show the same at a third of the bytes.
        picture.quantize(64).save(FOLDER / name, optimize=True)


def mixing() -> Image.Image:
    """Two samples, and what each way to mix makes of the first."""
    batch = two_samples()
    holes = (HOLES, ())
    panels = {
        "sample": batch,
        "its partner": Blend(1, ((0, 0, 0), SHAPE), 0.0).apply(batch),
        "mixup, share 0.6": Blend(1, ((0, 0, 0), SHAPE), 0.6).apply(batch),
        "cutmix": Blend(1, BOX, 0.0).apply(batch),
        "cutmixup, share 0.4 in the box": Blend(1, BOX, 0.4).apply(batch),
        "coarse dropout, drop": Holes(holes, "mean", drop=True).apply(batch),
        "coarse dropout, keep": Holes(holes, "mean", drop=False).apply(batch),
    }
    return sheet([(text, panel(one, scale=2)) for text, one in panels.items()], columns=4)


def tails() -> Image.Image:
    """The rule for Gaussians that cross an edge, and what it is not."""
    batch = two_samples()
    mixed = Blend(1, BOX, 0.0).apply(batch)
    # What keypatch does not do: the target cut like the image, voxel by voxel.
    fine = render_targets(batch | {"sigma": batch["sigma"] * FACTOR}, n_classes=1, grid=SHAPE)
    box = tuple(slice(a, b) for a, b in zip(*BOX, strict=True))
    cut = fine[0].copy()
    cut[(0, *box)] = fine[1][(0, *box)]
    return sheet(
        [
            ("keypatch: a Gaussian belongs to its keypoint", panel(mixed, scale=3)),
            ("not so: a target cut like the image", panel(mixed, scale=3, gaussian=cut, factor=1)),
        ],
        columns=2,
    )


def two_samples() -> Batch:
    """A batch of two that can be told apart: blobs in even noise, and in stripes."""
    rng = np.random.default_rng(0)
    points = np.array([(PLANE, *yx) for yx in (*BASE, *PARTNER)], np.float64)
    owner = np.repeat([0, 1], [len(BASE), len(PARTNER)])
    images = gaussian_filter(rng.normal(size=(2, *SHAPE)), (0, 2, 1.5, 1.5)) * 3
    images[1] += 0.8 * np.sin(np.add.outer(np.arange(SHAPE[1]), np.arange(SHAPE[2])) / 3)
    z, y, x = np.indices(SHAPE)
    for i, point in zip(owner, points, strict=True):
        images[i] -= 3 * np.exp(-(((z - point[0]) ** 2 + (y - point[1]) ** 2 + (x - point[2]) ** 2) / 18))
    batch: dict[str, Any] = {
        "image": images[:, None].astype(np.float32),
        "keypoints": points,
        "class_index": np.zeros(len(points), np.int64),
        "weight": np.ones(len(points), np.float32),
        "annotation_index": np.arange(len(points)),
        "sigma": np.full((len(points), 3), SIGMA),
        "batch_index": owner,
    }
    batch["target"] = render_targets(batch, n_classes=1, grid=tuple(n // FACTOR for n in SHAPE))
    return batch


def panel(batch: Batch, *, scale: int, gaussian: NDArray[Any] | None = None, factor: int = FACTOR) -> Image.Image:
    """The middle slice of the first sample, target and keypoints over it."""
    mine = batch["batch_index"] == 0
    scene = Scene(
        image=batch["image"][0, 0],
        valid_start=(0, 0, 0),
        valid_stop=SHAPE,
        gaussian=batch["target"][0] if gaussian is None else gaussian,
        ds_factor=(factor, factor, factor),
        points=batch["keypoints"][mine],
        class_index=batch["class_index"][mine],
        sigma=np.full(3, SIGMA * FACTOR),
        window=(-3.0, 3.0),
        scale=scale,
    )
    return draw_panel(scene, YX, PLANE)


def sheet(panels: Iterable[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Panels in rows, each with a line of text above."""
    listed = list(panels)
    width, height = listed[0][1].size
    cell = (width + GAP, height + LINE + GAP)
    rows = -(-len(listed) // columns)
    canvas = Image.new("RGB", (cell[0] * columns + GAP, cell[1] * rows + GAP), BACKGROUND)
    for k, (text, picture) in enumerate(listed):
        left, top = GAP + k % columns * cell[0], GAP + k // columns * cell[1]
        write(canvas, (left, top), text, width=width, size=SMALL, color=TEXT)
        canvas.paste(picture, (left, top + LINE))
    return canvas


if __name__ == "__main__":
    main()
