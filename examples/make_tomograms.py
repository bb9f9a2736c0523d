"""Make small tomograms with keypoints whose true positions are known, in the layouts that real data come in.

    python examples/make_tomograms.py OUT_DIR --n 4 --kind motors --layout byu

A tomogram shows one pole of a bacterium in ice: two membranes, a crowded cytoplasm, and flagellar motors on the inner
membrane, or ribosomes and proteasomes in the cytoplasm. It has contrast transfer, a missing wedge along z and noise, as
a real one has. The keypoints are float positions in voxel index space (the centre of voxel i lies at i), z, y, x, and
the molecules are rendered from formulas at exactly these positions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from _tomogram_imaging import coloured_noise, imaged
from _tomogram_layouts import WRITERS, Tomogram, write_byu, write_copick, write_mrc_csv, write_relion5
from _tomogram_scene import CLASSES, SCENARIOS, SceneError, cropped, draw_scene, render_density

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _tomogram_density import Shape3
    from _tomogram_scene import Kind, Scenario

__all__ = [
    "Tomogram",
    "make_tomogram",
    "make_tomograms",
    "write_byu",
    "write_copick",
    "write_mrc_csv",
    "write_relion5",
]

NOISE: dict[Kind, float] = {"motors": 0.22, "particles": 0.15}
"""Standard deviation of the noise where protein has density 1. A person who looks for a motor then finds it in a single
slice, but not all of its rings; particles are small and get the noise of a denoised tomogram."""

CZII_SPACING = 10.012
DEFAULT_SPACING = 13.3


def make_tomogram(shape: Shape3, voxel_spacing: float, seed: int, kind: Kind, scenario: Scenario = "few") -> Tomogram:
    """Make one tomogram; the same arguments give the same bytes.

    Args:
        shape: Voxels, z, y, x.
        voxel_spacing: Å a voxel.
        seed: Of all random numbers.
        kind: "motors" on the inner membrane, or "particles" of two classes in the cytoplasm.
        scenario: "few" keypoints, "many", "none", or one near the "border".

    Raises:
        SceneError: If the volume is too small for what the scenario asks for.
    """
    rng = np.random.default_rng(seed)
    scene = draw_scene(shape, voxel_spacing, kind, scenario, rng)
    image = cropped(imaged(render_density(scene, rng), voxel_spacing), shape)
    image = image + np.float32(NOISE[kind]) * coloured_noise(shape, rng)
    image = (image - image.mean()) / image.std()
    keypoints = scene.keypoints()
    return Tomogram(
        image=image,
        coords_zyx=np.array([placed.position for placed in keypoints], np.float64).reshape(-1, 3),
        class_names=tuple(placed.class_name for placed in keypoints if placed.class_name is not None),
        classes=CLASSES[kind],
        voxel_spacing=voxel_spacing,
    )


def make_tomograms(
    n: int, shape: Shape3, voxel_spacing: float, seed: int, kind: Kind, prefix: str = "tomo_"
) -> Iterator[tuple[str, Tomogram]]:
    """Make ``n`` named tomograms, one at a time; the scenarios take turns, so four of them hold all that there are."""
    for i in range(n):
        scenario = SCENARIOS[i % len(SCENARIOS)]
        own_seed = int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
        yield f"{prefix}{i:03d}", make_tomogram(shape, voxel_spacing, own_seed, kind, scenario)


def _shape(_context: click.Context, _parameter: click.Parameter, text: str) -> Shape3:
    try:
        d, h, w = (int(part) for part in text.split(","))
    except ValueError:
        message = f"expected three whole numbers such as 96,192,192, found {text!r}"
        raise click.BadParameter(message) from None
    if min(d, h, w) < 16:
        message = f"expected at least 16 voxels an axis, found {text!r}"
        raise click.BadParameter(message)
    return d, h, w


@click.command()
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option("--n", type=click.IntRange(min=1), default=4, show_default=True, help="How many tomograms.")
@click.option("--shape", callback=_shape, default="96,192,192", show_default=True, help="Voxels: z,y,x.")
@click.option(
    "--voxel-spacing",
    type=click.FloatRange(min=0, min_open=True),
    help=f"Å a voxel.  [default: {DEFAULT_SPACING}, with copick {CZII_SPACING}]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same files.")
@click.option(
    "--kind", type=click.Choice(list(CLASSES)), default="motors", show_default=True, help="What is annotated."
)
@click.option("--layout", type=click.Choice(list(WRITERS)), default="byu", show_default=True, help="Whose files.")
def main(out_dir: Path, n: int, shape: Shape3, voxel_spacing: float | None, seed: int, kind: Kind, layout: str) -> None:
    """Write tomograms with known keypoints to OUT_DIR, and print the keypatch commands that read them."""
    if layout == "byu" and kind != "motors":
        message = f"--layout byu has no column for a class: it holds motors only, not {kind}"
        raise click.UsageError(message)
    if out_dir.is_dir() and any(out_dir.iterdir()):
        message = f"{out_dir}: expected a new or empty folder, found files in it"
        raise click.UsageError(message)
    spacing = voxel_spacing or (CZII_SPACING if layout == "copick" else DEFAULT_SPACING)
    prefix = "tomo_" if layout == "byu" else "TS_"
    try:
        WRITERS[layout](out_dir, make_tomograms(n, shape, spacing, seed, kind, prefix))
    except SceneError as error:
        message = f"{error}; give a larger --shape or --voxel-spacing"
        raise click.UsageError(message) from error


if __name__ == "__main__":
    main()
