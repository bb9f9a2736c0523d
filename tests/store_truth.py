"""The one check of a store against the truth that its sources were written from.

Nothing here calls keypatch: a store is read with zarr-python, and what must be in it is worked out again in plain numpy
from the truth and the recipe that the store itself records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.sources import Truth

KINDS = ("centered", "multi", "hard_negative", "negative", "grid")
REACH = 6.0


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
