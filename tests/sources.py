"""Small source data sets from one known truth, written without keypatch, and the command line that converts them.

`assert_store_is_true` (from `tests.store_truth`) is the one check of a store against its truth.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import mrcfile
import numpy as np
import tifffile
import zarr
from PIL import Image
from tests.store_truth import assert_store_is_true as assert_store_is_true  # noqa: PLC0414 - handed on

from keypatch.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Truth:
    """One volume and its points as they really are.

    Attributes:
        array: (D, H, W), axes z, y, x.
        points: One (z, y, x) voxel index a keypoint, also those outside the volume.
        names: Their classes.
        spacing: Å, z, y, x.
    """

    array: np.ndarray
    points: tuple[tuple[float, float, float], ...] = ()
    names: tuple[str, ...] = ()
    spacing: tuple[float, float, float] = (10.0, 10.0, 10.0)

    def of_class(self, name: str) -> list[tuple[float, float, float]]:
        return [point for point, own in zip(self.points, self.names, strict=True) if own == name]

    def usable(self, classes: Iterable[str]) -> list[tuple[float, float, float, str]]:
        """What a store must hold of it, sorted: inside the volume, of a wanted class, each once."""
        wanted = set(classes)
        kept = {
            (*map(float, point), name)
            for point, name in zip(self.points, self.names, strict=True)
            if name in wanted and all(-0.5 <= c < n - 0.5 for c, n in zip(point, self.array.shape, strict=True))
        }
        return sorted(kept)


def truth(
    seed: int = 0,
    shape: Sequence[int] = (20, 24, 28),
    n_points: int = 3,
    names: Sequence[str] = ("motor",),
    dtype: Any = np.uint8,
    spacing: tuple[float, float, float] = (10.0, 10.0, 10.0),
) -> Truth:
    """A volume of noise in which every voxel is telling, with points at fractions of 1/8 voxel."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        array = rng.normal(0, 100, tuple(shape)).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        array = rng.integers(limits.min, limits.max, tuple(shape), dtype=dtype, endpoint=True)
    points = [tuple(float(rng.integers(0, 8 * (n - 1))) / 8 for n in shape) for _ in range(n_points)]
    return Truth(array, tuple(points), tuple(names[i % len(names)] for i in range(n_points)), spacing)  # type: ignore[arg-type]


# ----- volumes, each written by the format's own library -----


def write_npy(path: Path, known: Truth) -> Path:
    np.save(path.with_suffix(".npy"), known.array)
    return path.with_suffix(".npy")


def write_mrc(path: Path, known: Truth) -> Path:
    with mrcfile.new(path.with_suffix(".mrc"), data=known.array) as mrc:
        mrc.set_volume()
        mrc.voxel_size = tuple(known.spacing[::-1])
    return path.with_suffix(".mrc")


def write_tiff(path: Path, known: Truth) -> Path:
    """ImageJ's form, spacing in nm."""
    z, y, x = known.spacing
    tifffile.imwrite(
        path.with_suffix(".tif"),
        known.array,
        imagej=True,
        resolution=(10 / x, 10 / y),
        metadata={"axes": "ZYX", "spacing": z / 10, "unit": "nm"},
    )
    return path.with_suffix(".tif")


def write_zarr(path: Path, known: Truth) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_array(path.with_suffix(".zarr"), data=known.array, chunks=(7, 8, 9))
    return path.with_suffix(".zarr")


def write_ome(path: Path, known: Truth, *, version: str = "0.5") -> Path:
    """OME-Zarr 0.4 in Zarr 2, or 0.5 in Zarr 3; the truth is level "0"."""
    path = path.with_suffix(".zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
        group.create_array("0", data=known.array, chunks=(8, 8, 8))
    multiscale = {
        "axes": [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"],
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(known.spacing)}]},
        ],
    }
    if version == "0.4":
        group.attrs["multiscales"] = [{**multiscale, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return path


def write_ome_04(path: Path, known: Truth) -> Path:
    return write_ome(path, known, version="0.4")


def write_slices(path: Path, known: Truth) -> Path:
    path.mkdir(parents=True)
    for z, plane in enumerate(known.array):
        Image.fromarray(plane).save(path / f"slice_{z}.png")
    return path


VOLUME_WRITERS = {
    "npy": write_npy,
    "mrc": write_mrc,
    "tiff": write_tiff,
    "zarr": write_zarr,
    "ome-zarr-0.4": write_ome_04,
    "ome-zarr-0.5": write_ome,
    "slices": write_slices,
}
WITHOUT_SPACING = ("npy", "zarr", "slices")


# ----- annotations; each returns the pattern to give with -a -----


def _table(path: Path, header: str, rows: Iterable[Sequence[object]], separator: str = ",") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *(separator.join(map(_cell, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def _cell(value: object) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)


def _rows(volumes: Mapping[str, Truth]) -> Iterable[tuple[str, Truth, tuple[float, float, float], str]]:
    for name, known in volumes.items():
        for point, of_class in zip(known.points, known.names, strict=True):
            yield name, known, point, of_class


def write_csv(folder: Path, volumes: Mapping[str, Truth]) -> str:
    """Voxels, z y x, with classes; a volume without points has a row without coordinates."""
    rows = [[name, *point, own] for name, _, point, own in _rows(volumes)]
    empty = [[name, "", "", "", ""] for name, known in volumes.items() if not known.points]
    return _table(folder / "picks.csv", "volume,z,y,x,class", [*rows, *empty])


def write_tsv(folder: Path, volumes: Mapping[str, Truth]) -> str:
    """Å, x y z, tabs, other names."""
    rows = [
        [own, *(float(c * s) for c, s in zip(point[::-1], known.spacing[::-1], strict=True)), name]
        for name, known, point, own in _rows(volumes)
    ]
    return _table(folder / "picks.tsv", "label\tX [A]\tY [A]\tZ [A]\ttomo_id", rows, "\t")


def write_byu(folder: Path, volumes: Mapping[str, Truth]) -> str:
    head = "row_id,tomo_id,Motor axis 0,Motor axis 1,Motor axis 2,Array shape (axis 0),Array shape (axis 1),"
    head += "Array shape (axis 2),Voxel spacing,Number of motors"
    rows = []
    for name, known in volumes.items():
        for point in known.points or [(-1.0, -1.0, -1.0)]:
            rows.append([len(rows), name, *point, *known.array.shape, known.spacing[0], len(known.points)])
    return _table(folder / "train_labels.csv", head, rows)


def write_byu_relabelled(folder: Path, volumes: Mapping[str, Truth]) -> str:
    rows = []
    for name, known in volumes.items():
        shape = known.array.shape
        fractions = [tuple(c / n for c, n in zip(point, shape, strict=True)) for point in known.points]
        first = known.points[0] if known.points else ("", "", "")
        rows.append([name, *first, *shape, known.spacing[0], f'"{fractions!r}"', 0])
    return _table(
        folder / "relabelled.csv", "tomo_id,z,y,x,z_shape,y_shape,x_shape,voxel_spacing,coordinates,fold", rows
    )


def write_copick(folder: Path, volumes: Mapping[str, Truth], path: str = "{volume}/Picks/{class}.json") -> str:
    """CZII's layout: one file a volume and class, Å, x y z, with the identity as every point's matrix."""
    identity = [[float(i == j) for j in range(4)] for i in range(4)]
    for name, known in volumes.items():
        for own in sorted({own for each in volumes.values() for own in each.names}):
            points = [
                {
                    "location": {axis: c * s for axis, c, s in zip("zyx", point, known.spacing, strict=True)},
                    "transformation_": identity,
                    "instance_id": 0,
                    "score": 1.0,
                }
                for point in known.of_class(own)
            ]
            picks = {
                "pickable_object_name": own,
                "user_id": "curation",
                "session_id": "0",
                "run_name": name,
                "voxel_spacing": None,
                "unit": "angstrom",
                "points": points,
            }
            file = folder / path.format(volume=name, **{"class": own})
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(picks), encoding="utf-8")
    return str(folder / path)


def write_portal(folder: Path, volumes: Mapping[str, Truth]) -> str:
    """ndjson, voxels, x y z; neither volume nor class inside, so both are in the path."""
    for name, known in volumes.items():
        for own in sorted(set(known.names)):
            lines = [
                json.dumps({"type": "point", "location": dict(zip("zyx", point, strict=True))})
                for point in known.of_class(own)
            ]
            file = folder / name / f"{own}-1.0_point.ndjson"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / "{volume}" / "{class}-1.0_point.ndjson")


def write_star(
    path: Path, block: str, columns: Sequence[str], rows: Iterable[Sequence[object]], before: str = ""
) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "\n".join(f"_{column} #{i}" for i, column in enumerate(columns, 1))
    body = "\n".join(" ".join(map(_cell, row)) for row in rows)
    path.write_text(f"{before}\ndata_{block}\n\nloop_\n{head}\n{body}\n\n", encoding="utf-8")
    return str(path)


_CENTERED = ("rlnTomoName", *(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"))


def write_relion5(folder: Path, volumes: Mapping[str, Truth]) -> str:
    """An optimisation set, particles in Å from the centre, tomograms with sizes of the unbinned series."""
    rows = [
        [name, *((point[k] - known.array.shape[k] / 2) * known.spacing[k] for k in (2, 1, 0))]
        for name, known, point, _ in _rows(volumes)
    ]
    write_star(folder / "Picks" / "job004" / "particles.star", "particles", _CENTERED, rows)
    tomograms = [
        [name, known.spacing[0] / 4, 4.0, *(4 * n for n in known.array.shape[::-1])] for name, known in volumes.items()
    ]
    columns = (
        "rlnTomoName",
        "rlnTomoTiltSeriesPixelSize",
        "rlnTomoTomogramBinning",
        *(f"rlnTomoSize{a}" for a in "XYZ"),
    )
    write_star(folder / "Tomograms" / "job003" / "tomograms.star", "global", columns, tomograms)
    files = [["Picks/job004/particles.star", "Tomograms/job003/tomograms.star"]]
    columns = ("rlnTomoParticlesFile", "rlnTomoTomogramsFile")
    return write_star(folder / "Picks" / "job004" / "optimisation_set.star", "optimisation_set", columns, files)


def write_relion4(folder: Path, volumes: Mapping[str, Truth]) -> str:
    """Pixels of the unbinned tilt series, whose size the optics table has."""
    pixel = next(iter(volumes.values())).spacing[0] / 4
    rows = [
        [name, *(point[k] * known.spacing[k] / pixel for k in (2, 1, 0)), 1] for name, known, point, _ in _rows(volumes)
    ]
    optics = f"data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnTomoTiltSeriesPixelSize #2\n1 {pixel!r}\n\n"
    columns = ("rlnTomoName", *(f"rlnCoordinate{axis}" for axis in "XYZ"), "rlnOpticsGroup")
    return write_star(folder / "particles.star", "particles", columns, rows, optics)


def write_relion3(folder: Path, volumes: Mapping[str, Truth]) -> str:
    """Voxels of the tomogram, named by its file, as Warp does."""
    rows = [[*(point[k] for k in (2, 1, 0)), f"{name}.mrc.tomostar"] for name, _, point, _ in _rows(volumes)]
    return write_star(
        folder / "warp.star", "", (*(f"rlnCoordinate{axis}" for axis in "XYZ"), "rlnMicrographName"), rows
    )


ANNOTATION_WRITERS = {
    "csv": write_csv,
    "tsv": write_tsv,
    "byu": write_byu,
    "byu-relabelled": write_byu_relabelled,
    "copick": write_copick,
    "portal": write_portal,
    "relion-5": write_relion5,
    "relion-4": write_relion4,
    "relion-3": write_relion3,
}
ONE_CLASS = {
    **dict.fromkeys(("byu", "byu-relabelled"), "motor"),
    **dict.fromkeys(("relion-5", "relion-4", "relion-3"), "keypoint"),
}
"""The class that a format without classes gives its points."""


# ----- the command line -----


@dataclass(frozen=True)
class Ran:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """Of ``--json``."""
        value: dict[str, Any] = json.loads(self.out)
        return value


def keypatch(*arguments: object) -> Ran:
    """Run the program in this process, through the same ``main`` as on the command line."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    argv = ["keypatch", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code
    assert isinstance(code, int)
    return Ran(code, out.getvalue(), err.getvalue())


def convert(*arguments: object) -> Ran:
    return keypatch("convert", *arguments)


def converted(*arguments: object) -> dict[str, Any]:
    """``keypatch convert … --json`` that must succeed; its result."""
    ran = convert(*arguments, "--json")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    return ran.report


def every_file(folder: Path) -> dict[str, bytes]:
    """All bytes below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def names_in(folder: Path) -> set[str]:
    """Everything in a folder, hidden names too."""
    return {entry.name for entry in folder.iterdir()}
