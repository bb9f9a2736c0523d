"""Tomograms on a disk, in the layouts of public data sets: BYU (Kaggle), copick (CZII), RELION 5, and MRC with a CSV.

Every writer takes (name, tomogram) pairs one at a time, so that one tomogram is in memory, and prints the two
keypatch commands that would follow.
"""

from __future__ import annotations

import csv
import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import click
import mrcfile
import numpy as np
import pandas as pd
import starfile
import zarr
from numpy.typing import NDArray
from PIL import Image as PillowImage

from _tomogram_imaging import to_uint8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

BYU_COLUMNS = (
    "row_id",
    "tomo_id",
    "Motor axis 0",
    "Motor axis 1",
    "Motor axis 2",
    "Array shape (axis 0)",
    "Array shape (axis 1)",
    "Array shape (axis 2)",
    "Voxel spacing",
    "Number of motors",
)
JPEG_QUALITY = 90
"""Keeps the noise: 0.6 bytes a voxel."""

RELION_PARTICLE = (
    "rlnTomoName",
    "rlnCenteredCoordinateXAngst",
    "rlnCenteredCoordinateYAngst",
    "rlnCenteredCoordinateZAngst",
)
RELION_BINNING = 4
"""The tomograms' binning against the tilt series; RELION gives their sizes in pixels of the latter."""


@dataclass(frozen=True)
class Tomogram:
    """A volume and the keypoints in it.

    Attributes:
        image: (D, H, W) float32, mean 0, standard deviation 1, protein dark.
        coords_zyx: (K, 3) float64 voxel index; the centre of voxel i lies at i.
        class_names: (K,) one an entry of ``coords_zyx``.
        classes: Every class that is annotated, also where this tomogram has none of it.
        voxel_spacing: Å a voxel.
    """

    image: NDArray[np.float32]
    coords_zyx: NDArray[np.float64]
    class_names: tuple[str, ...]
    classes: tuple[str, ...]
    voxel_spacing: float

    def of_class(self, class_name: str) -> NDArray[np.float64]:
        """The rows of ``coords_zyx`` of one class."""
        return self.coords_zyx[[name == class_name for name in self.class_names]]


Named: TypeAlias = "Iterable[tuple[str, Tomogram]]"


def write_byu(out_dir: Path, tomograms: Named) -> None:
    """Write the layout of the BYU flagellar motor competition.

    ``train/<name>/slice_0000.jpg`` …, grey, one a z index, and ``train_labels.csv`` with a row a motor in voxel
    indices and one row of -1, -1, -1 for a tomogram without any.

    Raises:
        ValueError: If a tomogram has another class than motors: the CSV has no column for it.
    """
    rows: list[list[Any]] = []
    shapes = []
    for name, tomogram in tomograms:
        if tomogram.classes != ("motor",):
            message = f"the BYU layout holds motors only, not {' and '.join(tomogram.classes)}"
            raise ValueError(message)
        _write_slices(out_dir / "train" / name, to_uint8(tomogram.image))
        count = len(tomogram.coords_zyx)
        for point in tomogram.coords_zyx.tolist() or [[-1.0, -1.0, -1.0]]:
            rows.append([len(rows), name, *point, *tomogram.image.shape, tomogram.voxel_spacing, count])
        shapes.append(tomogram.image.shape)
    _write_csv(out_dir / "train_labels.csv", BYU_COLUMNS, rows)
    _print_next_steps(out_dir, "train/{volume}", "train_labels.csv", shapes)


def write_copick(out_dir: Path, tomograms: Named) -> None:
    """Write the layout of the CZII competition: OME-Zarr 0.4 volumes and copick picks.

    The folder's name rounds the voxel spacing, as there, where 10.012 Å lies under ``VoxelSpacing10.000``; the true
    one is in the Zarr's metadata. Picks are in Å: voxel index times spacing.
    """
    shapes, nominal = [], 0.0
    for name, tomogram in tomograms:
        nominal = float(round(tomogram.voxel_spacing))
        run = f"ExperimentRuns/{name}"
        _write_ome_zarr(out_dir / "static" / run / f"VoxelSpacing{nominal:.3f}" / "denoised.zarr", tomogram)
        picks = out_dir / "overlay" / run / "Picks"
        picks.mkdir(parents=True, exist_ok=True)
        for class_name in tomogram.classes:
            text = json.dumps(_copick_picks(name, class_name, tomogram), indent=2)
            (picks / f"{class_name}.json").write_text(text + "\n", "utf-8")
        shapes.append(tomogram.image.shape)
    _print_next_steps(
        out_dir,
        f"static/ExperimentRuns/{{volume}}/VoxelSpacing{nominal:.3f}/denoised.zarr",
        "overlay/ExperimentRuns/{volume}/Picks/{class}.json",
        shapes,
    )


def write_relion5(out_dir: Path, tomograms: Named) -> None:
    """Write a RELION 5 project: MRC volumes, ``particles.star``, ``tomograms.star`` and ``optimisation_set.star``.

    Coordinates are in Å from the tomogram's centre, which lies at index size / 2: (index - size / 2) * spacing. RELION
    has no names for classes; where there are several, each has its own ``particles_<class>.star`` and
    ``optimisation_set_<class>.star``.
    """
    particles: dict[str, list[list[Any]]] = {}
    table: list[dict[str, Any]] = []
    shapes = []
    (out_dir / "tomograms").mkdir(parents=True, exist_ok=True)
    for name, tomogram in tomograms:
        volume = f"tomograms/rec_{name}.mrc"
        _write_mrc(out_dir / volume, tomogram)
        for class_name in tomogram.classes:
            centered = (tomogram.of_class(class_name) - np.array(tomogram.image.shape) / 2) * tomogram.voxel_spacing
            particles.setdefault(class_name, []).extend([name, x, y, z] for z, y, x in centered.tolist())
        table.append(_relion_tomogram(name, volume, tomogram))
        shapes.append(tomogram.image.shape)
    _write_star(out_dir / "tomograms.star", "global", pd.DataFrame(table))
    for class_name, rows in particles.items():
        suffix = f"_{class_name}" if len(particles) > 1 else ""
        _write_star(out_dir / f"particles{suffix}.star", "particles", pd.DataFrame(rows, columns=list(RELION_PARTICLE)))
        chain = {"rlnTomoParticlesFile": [f"particles{suffix}.star"], "rlnTomoTomogramsFile": ["tomograms.star"]}
        _write_star(out_dir / f"optimisation_set{suffix}.star", "optimisation_set", pd.DataFrame(chain))
    annotations = "optimisation_set_{class}.star" if len(particles) > 1 else "optimisation_set.star"
    _print_next_steps(out_dir, "tomograms/rec_{volume}.mrc", annotations, shapes)


def write_mrc_csv(out_dir: Path, tomograms: Named) -> None:
    """Write ``<name>.mrc`` (float32) and ``picks.csv`` with ``volume,z,y,x,class`` in voxel indices."""
    rows: list[list[Any]] = []
    shapes = []
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, tomogram in tomograms:
        _write_mrc(out_dir / f"{name}.mrc", tomogram)
        points = tomogram.coords_zyx.tolist()
        rows += [[name, *point, label] for point, label in zip(points, tomogram.class_names, strict=True)]
        shapes.append(tomogram.image.shape)
    _write_csv(out_dir / "picks.csv", ("volume", "z", "y", "x", "class"), rows)
    _print_next_steps(out_dir, "{volume}.mrc", "picks.csv", shapes)


WRITERS: dict[str, Callable[[Path, Named], None]] = {
    "byu": write_byu,
    "copick": write_copick,
    "relion5": write_relion5,
    "mrc-csv": write_mrc_csv,
}


def _print_next_steps(out_dir: Path, volumes: str, annotations: str, shapes: Sequence[Sequence[int]]) -> None:
    # Half the smallest volume on every axis, in multiples of the default factor 16.
    patch = ",".join(str(max(16, min(sizes) // 32 * 16)) for sizes in zip(*shapes, strict=True))
    store = shlex.quote(str(out_dir.parent / f"{out_dir.resolve().name}.zarr"))
    sources = f"{shlex.quote(str(out_dir / volumes))} -a {shlex.quote(str(out_dir / annotations))}"
    click.echo(f"keypatch convert {sources} -o {store} --patch-shape {patch}")
    click.echo(f"keypatch validate {store} --depth full")


def _write_slices(folder: Path, volume: NDArray[np.uint8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for z, section in enumerate(volume):
        PillowImage.fromarray(section).save(folder / f"slice_{z:04d}.jpg", quality=JPEG_QUALITY)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_ome_zarr(path: Path, tomogram: Tomogram) -> None:
    group = zarr.create_group(path, zarr_format=2, overwrite=True)
    group.create_array(
        "0",
        data=tomogram.image,
        chunks=tuple(min(64, n) for n in tomogram.image.shape),
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    scale = {"type": "scale", "scale": [tomogram.voxel_spacing] * 3}
    multiscales: list[Any] = [
        {
            "version": "0.4",
            "name": "denoised",
            "axes": [{"name": name, "type": "space", "unit": "angstrom"} for name in "zyx"],
            "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
        }
    ]
    group.attrs["multiscales"] = multiscales


def _copick_picks(run: str, class_name: str, tomogram: Tomogram) -> dict[str, Any]:
    # As in the CZII files: the orientation is the identity, and voxel_spacing stays empty.
    points = [
        {
            "location": {"x": x, "y": y, "z": z},
            "transformation_": np.eye(4).tolist(),
            "instance_id": 0,
            "score": 1.0,
        }
        for z, y, x in (tomogram.of_class(class_name) * tomogram.voxel_spacing).tolist()
    ]
    return {
        "pickable_object_name": class_name,
        "user_id": "curation",
        "session_id": "0",
        "run_name": run,
        "voxel_spacing": None,
        "unit": "angstrom",
        "points": points,
    }


def _write_mrc(path: Path, tomogram: Tomogram) -> None:
    with mrcfile.new(path, tomogram.image, overwrite=True) as mrc:
        mrc.voxel_size = tomogram.voxel_spacing
        mrc.set_volume()
        # mrcfile writes the time of day here; the same seed shall give the same file.
        mrc.header.label[0] = b"Made by examples/make_tomograms.py"


def _relion_tomogram(name: str, volume: str, tomogram: Tomogram) -> dict[str, Any]:
    d, h, w = tomogram.image.shape
    pixel = tomogram.voxel_spacing / RELION_BINNING
    return {
        "rlnTomoName": name,
        "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
        "rlnMicrographOriginalPixelSize": pixel,
        "rlnTomoTiltSeriesPixelSize": pixel,
        "rlnTomoHand": -1.0,
        "rlnTomoTomogramBinning": float(RELION_BINNING),
        "rlnTomoSizeX": w * RELION_BINNING,
        "rlnTomoSizeY": h * RELION_BINNING,
        "rlnTomoSizeZ": d * RELION_BINNING,
        "rlnTomoReconstructedTomogram": volume,
    }


def _write_star(path: Path, block: str, table: pd.DataFrame) -> None:
    text = starfile.to_string({block: table}, float_format="%.9g")
    # starfile's first line holds the time of day; RELION's own names its version.
    path.write_text("# version 50001" + text[text.index("\n") :], "utf-8")
