"""Small source data sets from one known truth, and the one check of a store against it.

Nothing here calls the converters, the readers or the geometry of keypatch: a store is read with zarr-python, and what
must be in it is worked out again in plain numpy from the truth and the recipe that the store itself records.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import mrcfile
import numpy as np
import tifffile
import zarr
from PIL import Image

from keypatch.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

KINDS = ("centered", "multi", "hard_negative", "negative", "grid")
REACH = 6.0


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


def _star(path: Path, block: str, columns: Sequence[str], rows: Iterable[Sequence[object]], before: str = "") -> str:
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
    _star(folder / "Picks" / "job004" / "particles.star", "particles", _CENTERED, rows)
    tomograms = [
        [name, known.spacing[0] / 4, 4.0, *(4 * n for n in known.array.shape[::-1])] for name, known in volumes.items()
    ]
    columns = (
        "rlnTomoName",
        "rlnTomoTiltSeriesPixelSize",
        "rlnTomoTomogramBinning",
        *(f"rlnTomoSize{a}" for a in "XYZ"),
    )
    _star(folder / "Tomograms" / "job003" / "tomograms.star", "global", columns, tomograms)
    files = [["Picks/job004/particles.star", "Tomograms/job003/tomograms.star"]]
    columns = ("rlnTomoParticlesFile", "rlnTomoTomogramsFile")
    return _star(folder / "Picks" / "job004" / "optimisation_set.star", "optimisation_set", columns, files)


def write_relion4(folder: Path, volumes: Mapping[str, Truth]) -> str:
    """Pixels of the unbinned tilt series, whose size the optics table has."""
    pixel = next(iter(volumes.values())).spacing[0] / 4
    rows = [
        [name, *(point[k] * known.spacing[k] / pixel for k in (2, 1, 0)), 1] for name, known, point, _ in _rows(volumes)
    ]
    optics = f"data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnTomoTiltSeriesPixelSize #2\n1 {pixel!r}\n\n"
    columns = ("rlnTomoName", *(f"rlnCoordinate{axis}" for axis in "XYZ"), "rlnOpticsGroup")
    return _star(folder / "particles.star", "particles", columns, rows, optics)


def write_relion3(folder: Path, volumes: Mapping[str, Truth]) -> str:
    """Voxels of the tomogram, named by its file, as Warp does."""
    rows = [[*(point[k] for k in (2, 1, 0)), f"{name}.mrc.tomostar"] for name, _, point, _ in _rows(volumes)]
    return _star(folder / "warp.star", "", (*(f"rlnCoordinate{axis}" for axis in "XYZ"), "rlnMicrographName"), rows)


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


# ----- the check -----


@dataclass(frozen=True)
class Tables:
    """The tables of a store and its attributes, however they were come by.

    Attributes:
        arrays: By path: "patches/origin", …
        recipe: As recorded.
        classes: Names.
        volumes: The records of ``volumes/``.
        missing: Patches asked for that have no place, by kind.
        atol: Voxels by which annotations may differ from the truth (a source in Å divides and multiplies).
    """

    arrays: Mapping[str, np.ndarray]
    recipe: Mapping[str, Any]
    classes: Sequence[str]
    volumes: Sequence[Mapping[str, Any]]
    missing: Mapping[str, int] = field(default_factory=dict)
    atol: float = 0.0

    def __getitem__(self, path: str) -> np.ndarray:
        return self.arrays[path]

    @property
    def patch(self) -> np.ndarray:
        return np.array(self.recipe["patch_shape"])

    @property
    def factor(self) -> np.ndarray:
        return np.array(self.recipe["ds_factor"], float)

    def annotations_of(self, volume: int) -> np.ndarray:
        return np.flatnonzero(self["annotations/volume_index"] == volume)


def read_tables(path: Path, atol: float = 0.0) -> Tables:
    group = zarr.open_group(path, mode="r")
    own = group.attrs["keypatch"]
    arrays = {
        f"{name}/{key}": array[...]
        for name in ("patches", "keypoints", "annotations")
        for key, array in group[name].arrays()
    }
    missing = dict.fromkeys(KINDS, 0)
    for entry in own["report"]["left_out"]:
        if entry["what"] == "patches":
            missing[next(kind for kind in KINDS if entry["reason"].startswith(f"of kind {kind}:"))] += entry["count"]
    return Tables(arrays, own["recipe"], own["classes"], group["volumes"].attrs["keypatch"]["volumes"], missing, atol)


def assert_store_is_true(path: Path | str, volumes: Mapping[str, Truth], *, atol: float = 0.0) -> Tables:
    """Everything in the store at ``path`` follows from the truth and the recipe it records, and nothing is missing.

    Args:
        path: Of the store.
        volumes: The truth of every volume given, by id; those the store leaves out count for nothing.
        atol: Voxels by which a source's unit may move its points.
    """
    tables = read_tables(Path(path), atol)
    group = zarr.open_group(path, mode="r")
    own = group.attrs["keypatch"]
    assert_tables_are_true(tables, volumes)
    assert own["counts"]["patches"] == len(tables["patches/origin"]) == group["image"].shape[0]
    assert own["counts"]["keypoints"] == len(tables["keypoints/class_index"])
    assert own["counts"]["annotations"] == len(tables["annotations/class_index"])
    assert own["counts"]["volumes"] == len(tables.volumes)
    _check_images(group["image"][...], tables, volumes)
    assert own["gaussian"]["stored"] == ("gaussian" in group) == tables.recipe["gaussian"]
    if "gaussian" in group:
        _check_gaussians(group["gaussian"][...], tables)
    return tables


def assert_tables_are_true(tables: Tables, volumes: Mapping[str, Truth]) -> None:
    """The part of `assert_store_is_true` that needs no voxel."""
    _check_annotations(tables, volumes)
    _check_geometry(tables, volumes)
    _check_keypoints(tables)
    _check_folds(tables)
    _check_kinds(tables, volumes)


def _check_annotations(tables: Tables, volumes: Mapping[str, Truth]) -> None:
    coords, names = tables["annotations/coords"], np.array(tables.classes)[tables["annotations/class_index"]]
    for v, record in enumerate(tables.volumes):
        rows = tables.annotations_of(v)
        found = sorted((*coords[row].tolist(), str(names[row])) for row in rows)
        wanted = volumes[record["id"]].usable(tables.classes)
        assert len(found) == len(wanted)
        if tables.atol:
            np.testing.assert_allclose([f[:3] for f in found], [w[:3] for w in wanted], atol=tables.atol, rtol=0)
            assert [f[3] for f in found] == [w[3] for w in wanted]
        else:
            assert found == wanted
    assert (np.diff(tables["annotations/volume_index"]) >= 0).all()


def _check_geometry(tables: Tables, volumes: Mapping[str, Truth]) -> None:
    recipe = tables.recipe
    for i, origin in enumerate(tables["patches/origin"].tolist()):
        known = volumes[tables.volumes[tables["patches/volume_index"][i]]["id"]]
        for axis in range(3):
            valid = [k for k in range(tables.patch[axis]) if 0 <= origin[axis] + k < known.array.shape[axis]]
            assert tables["patches/valid_start"][i][axis] == valid[0]
            assert tables["patches/valid_stop"][i][axis] == valid[-1] + 1
            assert recipe["padding"] != "inside" or len(valid) == tables.patch[axis]
        spacing = np.array(known.spacing)
        np.testing.assert_allclose(tables["patches/voxel_spacing"][i], spacing, rtol=1e-6)
        if recipe["sigma_angstrom"] is None:
            assert tables["patches/ds_sigma"][i].tolist() == recipe["sigma_ds"]
            expected = np.array(recipe["sigma_ds"]) * tables.factor * spacing
        else:
            np.testing.assert_allclose(
                tables["patches/ds_sigma"][i], recipe["sigma_angstrom"] / (tables.factor * spacing), rtol=1e-6
            )
            expected = np.array(recipe["sigma_angstrom"])
        np.testing.assert_allclose(tables["patches/angstrom_sigma"][i], expected, rtol=1e-6)


def _check_keypoints(tables: Tables) -> None:
    """Each patch has exactly the annotations of its volume that lie within 6 sigma of its box, tried one by one."""
    offsets = tables["patches/keypoint_offsets"]
    grid = tables.patch / tables.factor
    assert offsets[0] == 0
    assert offsets[-1] == len(tables["keypoints/class_index"])
    for i, origin in enumerate(tables["patches/origin"]):
        margin = REACH * tables["patches/ds_sigma"][i]
        expected = []
        for row in tables.annotations_of(tables["patches/volume_index"][i]):
            ds = (tables["annotations/coords"][row] - origin + 0.5) / tables.factor - 0.5
            if all(-0.5 - margin[k] <= ds[k] < grid[k] - 0.5 + margin[k] for k in range(3)):
                expected.append(int(row))
        here = slice(offsets[i], offsets[i + 1])
        assert tables["keypoints/annotation_index"][here].tolist() == expected
        of = tables["annotations/coords"][expected]
        np.testing.assert_array_equal(tables["keypoints/global_coords"][here], of)
        np.testing.assert_array_equal(tables["keypoints/local_rs_coords"][here], of - origin)
        np.testing.assert_array_equal(
            tables["keypoints/local_ds_coords"][here], (of - origin + 0.5) / tables.factor - 0.5
        )
        np.testing.assert_array_equal(
            tables["keypoints/class_index"][here], tables["annotations/class_index"][expected]
        )


def _check_folds(tables: Tables) -> None:
    n_folds = tables.recipe["folds"]
    folds = [record["fold"] for record in tables.volumes]
    assert sorted(set(folds)) == (list(range(n_folds)) if n_folds else [-1])
    assert tables["patches/fold"].tolist() == [folds[v] for v in tables["patches/volume_index"]]


def _inside(points: np.ndarray, origin: np.ndarray, patch: np.ndarray) -> np.ndarray:
    local = points.reshape(-1, 3) - origin
    return ((local >= -0.5) & (local < patch - 0.5)).all(axis=1)


def _check_kinds(tables: Tables, volumes: Mapping[str, Truth]) -> None:
    recipe, patch = tables.recipe, tables.patch
    asked = dict(zip(KINDS, [0, *(recipe[key] for key in ("multi", "hard_negatives", "negatives")), 0], strict=True))
    found = dict.fromkeys(KINDS, 0)
    for v, record in enumerate(tables.volumes):
        mine = tables["patches/volume_index"] == v
        points = tables["annotations/coords"][tables.annotations_of(v)]
        origins = {kind: tables["patches/origin"][mine & (tables["patches/kind"] == k)] for k, kind in enumerate(KINDS)}
        for kind in KINDS:
            found[kind] += len(origins[kind])
        _check_centered(tables, points, origins["centered"])
        assert all(_inside(points, origin, patch).sum() >= 2 for origin in origins["multi"])
        for origin in [*origins["hard_negative"], *origins["negative"]]:
            assert not _inside(points, origin, patch).any()
        for origin in origins["hard_negative"]:
            beyond = np.maximum(np.maximum(origin - 0.5 - points, points - (origin + patch - 0.5)), 0)
            assert (beyond <= patch / 2).all(axis=1).any()
        _check_grid(recipe["grid"], origins["grid"], patch, volumes[record["id"]].array.shape)
    for kind in ("multi", "hard_negative", "negative"):
        assert found[kind] + tables.missing.get(kind, 0) == asked[kind] * len(tables.volumes)
    assert (np.diff(tables["patches/volume_index"]) >= 0).all()


def _check_centered(tables: Tables, points: np.ndarray, origins: np.ndarray) -> None:
    n = tables.recipe["centered"]
    assert len(origins) == n * len(points)
    for i, origin in enumerate(origins):
        local = points[i // n] - origin
        assert _inside(points[i // n], origin, tables.patch).all()
        if tables.recipe["padding"] != "inside":
            voxel = np.floor(local + 0.5)
            assert (np.abs(voxel - tables.patch // 2) <= tables.recipe["jitter"]).all()


def _check_grid(stride: Sequence[int] | None, origins: np.ndarray, patch: np.ndarray, shape: Sequence[int]) -> None:
    if stride is None:
        assert not len(origins)
        return
    covered = np.zeros(shape, bool)
    for origin in origins:
        covered[tuple(slice(max(a, 0), max(a + n, 0)) for a, n in zip(origin, patch, strict=True))] = True
    assert covered.all()
    assert len({tuple(origin) for origin in origins.tolist()}) == len(origins)


def _check_images(images: np.ndarray, tables: Tables, volumes: Mapping[str, Truth]) -> None:
    for v, record in enumerate(tables.volumes):
        known = volumes[record["id"]]
        mine = np.flatnonzero(tables["patches/volume_index"] == v)
        assert record["shape"] == list(known.array.shape)
        assert record["dtype"] == known.array.dtype.name
        stored = _stored(record["scaling"], tables.recipe, known.array)
        assert images.dtype == stored.dtype
        for i in mine:
            expected = crop(stored, tables["patches/origin"][i], tables.patch, tables.recipe["padding"])
            if tables.recipe["padding"] == "mean" and stored.dtype.kind == "f":
                np.testing.assert_allclose(images[i], expected, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(images[i], expected)


def _stored(scaling: Mapping[str, Any], recipe: Mapping[str, Any], array: np.ndarray) -> np.ndarray:
    """The whole volume as the store must hold it."""
    dtype = array.dtype if recipe["dtype"] == "source" else np.dtype(recipe["dtype"])
    assert scaling["dtype"] == dtype.name
    asked = recipe["clip_percentiles"]
    if asked is None and (dtype.kind == "f" or np.can_cast(array.dtype, dtype, "safe")):
        assert (scaling["scale"], scaling["offset"], scaling["low"], scaling["high"]) == (1, 0, None, None)
        return array.astype(dtype)
    percentiles = asked or [0.1, 99.9]
    low, high = (float(v) for v in np.percentile(array, percentiles, method="inverted_cdf"))
    least, most = (0, 1) if dtype.kind == "f" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    assert scaling["percentiles"] == list(percentiles)
    assert (scaling["low"], scaling["high"]) == (low, high)
    assert math.isclose(scaling["scale"], (high - low) / (most - least), rel_tol=1e-12)
    assert math.isclose(scaling["offset"], low - scaling["scale"] * least, rel_tol=1e-12, abs_tol=1e-12)
    outside = np.count_nonzero((array < low) | (array > high)) / array.size
    assert math.isclose(scaling["clipped_share"], outside, abs_tol=1e-15)
    mapped = (np.clip(array.astype(np.float64), low, high) - scaling["offset"]) / scaling["scale"]
    return (np.round(mapped) if dtype.kind != "f" else mapped).astype(dtype)


def crop(array: np.ndarray, origin: np.ndarray, patch: np.ndarray, padding: str) -> np.ndarray:
    """A patch voxel by voxel: where each of its indices lies in the volume, or what stands in for it."""
    places, valid = [], []
    for a, n, size in zip(origin.tolist(), patch.tolist(), array.shape, strict=True):
        first, last = max(a, 0), min(a + n, size) - 1
        index = a + np.arange(n)
        valid.append((index >= first) & (index <= last))
        if padding == "reflect" and last > first:
            period = 2 * (last - first)
            back = (index - first) % period
            index = first + np.minimum(back, period - back)
        places.append(np.clip(index, first, last))
    taken = array[np.ix_(*places)]
    here = np.ix_(*valid)
    if padding in ("zero", "mean"):
        fill = _mean(taken[here]) if padding == "mean" else 0
        blank = np.full_like(taken, fill)
        blank[here] = taken[here]
        return blank
    return taken


def _mean(values: np.ndarray) -> Any:
    if values.dtype.kind == "f":
        return values.astype(np.float64).mean()
    return (2 * sum(values.ravel().tolist()) + values.size) // (2 * values.size)  # Python's integers are exact


def _check_gaussians(gaussian: np.ndarray, tables: Tables) -> None:
    """Against the formula over every annotation of the volume: those the patch left out are below 1.6e-8."""
    grid = (tables.patch / tables.factor).astype(int)
    axes = np.meshgrid(*(np.arange(n) for n in grid), indexing="ij")
    assert gaussian.shape[1:] == (len(tables.classes), *grid)
    assert gaussian.dtype == tables.recipe["gaussian_dtype"]
    tolerance = 1e-6 if gaussian.dtype == np.float32 else 5e-4
    for i, origin in enumerate(tables["patches/origin"]):
        expected = np.zeros(gaussian.shape[1:])
        for row in tables.annotations_of(tables["patches/volume_index"][i]):
            center = (tables["annotations/coords"][row] - origin + 0.5) / tables.factor - 0.5
            sigma = tables["patches/ds_sigma"][i]
            exponent = sum(((j - c) / s) ** 2 for j, c, s in zip(axes, center, sigma, strict=True))
            of_class = tables["annotations/class_index"][row]
            expected[of_class] = np.maximum(expected[of_class], np.exp(-0.5 * exponent))
        np.testing.assert_allclose(gaussian[i], expected, rtol=0, atol=tolerance)


def every_file(folder: Path) -> dict[str, bytes]:
    """All bytes below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def names_in(folder: Path) -> set[str]:
    """Everything in a folder, hidden names too."""
    return {entry.name for entry in folder.iterdir()}
