"""Annotations to store to target to peaks and back to the annotations, within 0.05 voxel of full resolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from tests.sources import Truth, converted, write_csv, write_npy

import keypatch
from keypatch import geometry
from keypatch.augment import Geometric, Map, read_sample
from keypatch.detections import COLUMNS, Found, Search, detect, merge
from keypatch.errors import UsageError
from keypatch.export import export
from keypatch.peaks import find_peaks

CLASSES = ("motor", "ribosome")
ALLOWED = 0.05
"""Voxels of full resolution."""


def drawn(seed):
    """Volumes whose points keep apart, some of them on the border, and the flags of a store of overlapping patches."""
    rng = np.random.default_rng(seed)
    factor = rng.integers(2, 7, 3)
    grid = rng.integers(5, 8, 3)
    sigma = rng.uniform(0.7, 1.5, 3)
    spacing = np.round(rng.uniform(5, 20, 3), 2)
    apart = np.maximum(4 * sigma, 3) * factor
    known = {}
    for name in "ab":
        shape = factor * grid + rng.integers(0, 16, 3)
        points, names = [], []
        for k in range(40):
            point = rng.uniform(-0.5, shape - 0.5)
            if k % 3 == 0:
                axis = rng.integers(3)
                point[axis] = rng.choice([-0.5, 0.0, shape[axis] - 1, shape[axis] - 0.51])
            if all((np.abs(point - other) / apart).max() > 1 for other in points):
                points.append(point)
                names.append(CLASSES[k % 2])
        array = np.zeros(shape, np.uint8)
        known[name] = Truth(array, tuple(map(tuple, points)), tuple(names))
    patch = factor * grid
    stride = np.maximum(patch // 2, 1)
    flags = {
        "--patch-shape": patch,
        "--ds-factor": factor,
        "--sigma-ds": np.round(sigma, 3),
        "--voxel-spacing": spacing,
        "--grid": stride,
        "--padding": ["edge"],
    }
    return known, [part for flag, value in flags.items() for part in (flag, ",".join(map(str, value)))]


def built(folder, known, flags):
    folder.mkdir(exist_ok=True)
    for name, one in known.items():
        write_npy(folder / name, one)
    table = write_csv(folder, known)
    converted(folder / "*.npy", "-a", table, "-o", folder / "out.zarr", *flags)
    return keypatch.open(folder / "out.zarr")


def assert_back(found, known, allowed=ALLOWED):
    """Every annotation once, and nothing else."""
    for volume, one in known.items():
        for name in set(CLASSES):
            truth = np.array(one.of_class(name)).reshape(-1, 3)
            rows = found[(found["volume"] == volume) & (found["class_name"] == name)]
            coords = rows[["z", "y", "x"]].to_numpy()
            assert len(coords) == len(truth), (volume, name)
            if not len(truth):
                continue
            off = np.abs(coords[:, None] - truth).max(axis=2)
            nearest = off.argmin(axis=1)
            assert sorted(nearest) == list(range(len(truth)))
            assert off.min(axis=1).max() < allowed


@pytest.mark.parametrize("seed", range(12))
def test_there_and_back(tmp_path, seed):
    known, flags = drawn(seed)
    store = built(tmp_path, known, flags)
    assert sum(len(one.points) for one in known.values()) > 5
    heatmaps = np.stack([store.read_gaussian(i) for i in range(len(store))])
    found = detect(store, heatmaps)
    assert_back(found, known)
    assert_allclose(found["score"], 1, atol=0.05)
    pd.testing.assert_frame_equal(keypatch.detect(store, heatmaps), found)
    assert found["n_views"].max() > 1


def inner(one):
    kept = [
        k for k, point in enumerate(one.points) if all(c < n - 1 for c, n in zip(point, one.array.shape, strict=True))
    ]
    return Truth(one.array, tuple(one.points[k] for k in kept), tuple(one.names[k] for k in kept))


def test_a_file_has_the_voxels_of_the_source_where_the_store_was_resampled(tmp_path):
    """Detections are in the store's voxels; files are in those of the tomogram that lies on the disk."""
    drawn_points, flags = drawn(4)
    # A finer grid may end up to half a voxel before the source does.
    known = {name: inner(one) for name, one in drawn_points.items()}
    folder = tmp_path / "in"
    folder.mkdir()
    for name, one in known.items():
        write_npy(folder / name, one)
    spacing = [float(value) for value in flags[flags.index("--voxel-spacing") + 1].split(",")]
    target = ",".join(f"{value * 0.8:.4f}" for value in spacing)
    converted(
        folder / "*.npy", "-a", write_csv(folder, known), "-o", tmp_path / "out.zarr", *flags, "--resample-to", target
    )
    store = keypatch.open(tmp_path / "out.zarr")
    heatmaps = np.stack([patch.gaussian() for patch in store])
    export(detect(store, heatmaps), store, tmp_path / "back.csv", "csv")
    back = pd.read_csv(tmp_path / "back.csv").rename(columns={"class": "class_name"})
    assert len(back) == sum(len(one.points) for one in known.values())
    assert_back(back, known)


DRAWN = {
    "flips and turns": Geometric(flip="zyx", rot90=True, half_turn=True),
    "rotation": Geometric(rotate=25),
    "scale": Geometric(scale=(0.9, 1.15)),
    "stretch, sigma scaled": Geometric(stretch=(0.9, 1.15), sigma="scaled"),
    "shear and shift": Geometric(shear=0.1, shift=5.3, padding="edge"),
    "deformation": Geometric(elastic=1.0, elastic_spacing=24),
    "all at once": Geometric(flip="zyx", rotate=15, scale=(0.95, 1.1), shear=0.05, shift=3.3, elastic=0.5),
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("seed", [4, 7])
def test_predictions_of_augmented_samples_find_their_way_back(tmp_path, seed, name):
    """Each patch as it is, and twice through a map, as for a prediction that is averaged over them."""
    known, flags = drawn(seed)
    store = built(tmp_path, known, flags)
    rng, samples = np.random.default_rng(seed), []
    for patch in store:
        samples.append(read_sample(store, patch.index))
        for _ in range(2):
            chosen = DRAWN[name].draw(rng, store.patch_shape, patch.voxel_spacing)
            samples.append(read_sample(store, patch.index, chosen))
    sigma = store.table("patches/ds_sigma")[0]
    heatmaps = np.stack([s.target(len(CLASSES), ds_factor=store.ds_factor, sigma_ds=sigma) for s in samples])
    assert not all(s.map.is_identity for s in samples)
    found = detect(store, heatmaps, samples=iter(samples))
    assert_back(found, known)
    assert found["n_views"].min() >= 3


def test_a_peak_in_mirrored_padding_is_nobodys(tmp_path):
    """The mirror image is found in the heatmap, and is no detection."""
    known = {"v": Truth(np.zeros((16, 32, 32), np.uint8), ((8.0, 16.0, 6.0),), ("motor",))}
    flags = ["--patch-shape", "16,32,32", "--ds-factor", "4", "--sigma-ds", "0.8", "--voxel-spacing", "10"]
    store = built(tmp_path, known, [*flags, "--grid", "16,32,32", "--centered", "0"])
    shifted = np.eye(4)
    shifted[2, 3] = -16.0
    sample = read_sample(store, 0, Map(shifted, store.patch_shape, store.patch_shape, padding="reflect"))
    inside = sample.keypoints.local_rs[geometry.inside(sample.keypoints.local_rs, store.patch_shape)]
    assert sorted(inside[:, 2].tolist()) == [10.0, 22.0]
    heatmaps = sample.target(1, ds_factor=4, sigma_ds=0.8)[None]
    assert len(find_peaks(heatmaps[0], sigma=0.8)) == 2
    found = detect(store, heatmaps, samples=[sample])
    assert_allclose(found[["z", "y", "x"]].to_numpy(), [(8.0, 16.0, 6.0)], atol=1e-3)


def test_a_point_on_the_border_of_a_samples_patch_is_found_though_noise_moves_it(tmp_path):
    """Half a sigma beyond the border lies padding; a peak that lies nearer is one on the border."""
    known = {"v": Truth(np.zeros((16, 32, 32), np.uint8), ((8.0, 16.0, -0.5),), ("motor",))}
    flags = ["--patch-shape", "16,32,32", "--ds-factor", "4", "--sigma-ds", "0.8", "--voxel-spacing", "10"]
    store = built(tmp_path, known, [*flags, "--grid", "16,32,32", "--centered", "0"])
    for beyond, wanted in ((0.0, 1), (1e-6, 1), (0.45, 1), (0.55, 0)):
        moved = np.eye(4)
        moved[2, 3] = -12.0
        sample = read_sample(store, 0, Map(moved, store.patch_shape, store.patch_shape, keep_unseen=True))
        shifted = replace(sample.keypoints, local_rs=sample.keypoints.local_rs - [0, 0, beyond * 0.8 * 4])
        heatmaps = replace(sample, keypoints=shifted).target(1, ds_factor=4, sigma_ds=0.8)[None]
        assert len(detect(store, heatmaps, samples=[sample])) == wanted


def test_another_grid_than_the_stores(tmp_path):
    known, flags = drawn(3)
    store = built(tmp_path, known, flags)
    fine = [f // 2 if f % 2 == 0 else f for f in store.ds_factor]
    sigma = store.table("patches/ds_sigma")[0] * store.ds_factor / fine
    samples = [read_sample(store, patch) for patch in range(len(store))]
    heatmaps = np.stack([s.target(2, ds_factor=fine, sigma_ds=sigma) for s in samples])
    assert_back(detect(store, heatmaps), known)
    assert_back(detect(store, heatmaps, Search(sigma_ds=tuple(sigma))), known)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    known = {"v": Truth(np.zeros((32, 32, 32), np.uint8), ((16.25, 15.5, 14.0), (2.0, 28.0, 20.0)), ("motor",) * 2)}
    flags = ["--patch-shape", "16", "--ds-factor", "4", "--sigma-ds", "1", "--voxel-spacing", "10", "--grid", "8"]
    return built(tmp_path_factory.mktemp("small"), known, flags)


@pytest.fixture(scope="module")
def heatmaps(store):
    return np.stack([patch.gaussian() for patch in store])


def test_the_table_is_typed_and_ordered_also_where_nothing_is_found(store, heatmaps):
    kinds = {"volume": "O", "class_name": "O", **dict.fromkeys(("z", "y", "x", "score", "agreement"), "f")}
    kinds |= {"n_views": "i", "patch": "i"}
    for values, n in ((heatmaps, 2), (np.zeros_like(heatmaps), 0)):
        found = detect(store, values)
        assert tuple(found.columns) == COLUMNS
        assert {name: found[name].dtype.kind for name in COLUMNS} == kinds
        assert len(found) == n
        assert (np.diff(found["score"]) <= 0).all()


def test_noise_in_one_patch_is_outvoted_and_a_repeated_run_is_the_same(store, heatmaps):
    """A spike in the corner of one patch, where others hold the place whole and show nothing."""
    noisy = heatmaps.copy()
    origins = store.table("patches/origin")
    (middle,) = np.flatnonzero((origins == 8).all(axis=1) & (store.patches["kind"] == "grid").to_numpy())[:1]
    noisy[middle, 0, 0, 0, 0] = 0.9
    pd.testing.assert_frame_equal(detect(store, noisy)[["z", "y", "x"]], detect(store, heatmaps)[["z", "y", "x"]])
    pd.testing.assert_frame_equal(detect(store, noisy), detect(store, noisy))


def test_what_only_one_of_many_patches_shows_is_a_matter_of_agreement(store, heatmaps):
    alone = np.zeros_like(heatmaps)
    centered = int(np.flatnonzero(store.patches["kind"] == "centered")[0])
    alone[centered] = heatmaps[centered]
    found = detect(store, alone, Search(agreement=0))
    assert found["n_views"].tolist() == [1] * len(found)
    assert len(found) >= 1
    assert (found["agreement"] < 0.3).all()
    assert len(detect(store, alone)) == 0
    assert (detect(store, heatmaps)["agreement"] > 0.9).all()


def test_distances_make_two_peaks_one(store):
    values = np.zeros((len(store), 1, 4, 4, 4))
    values[:, 0, 1, 1, 1] = 0.9
    apart = len(detect(store, values, Search(distance_voxels=0.01, agreement=0)))
    assert apart > len(detect(store, values, Search(distance_angstrom=90, agreement=0)))
    assert len(detect(store, values, Search(distance_angstrom=90, agreement=0))) == len(
        detect(store, values, Search(distance_voxels=9, agreement=0))
    )
    assert len(detect(store, values, Search(distance_voxels=1000, agreement=0))) == 1


def peaks_of(coords, *, score=1.0, weight=1.0, view=None, reach=1.0):
    n = len(coords)
    views = np.arange(n) if view is None else np.array(view)
    return Found(
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.array(coords, np.float64),
        np.broadcast_to(np.array(score, np.float64), n).copy(),
        np.broadcast_to(np.array(weight, np.float64), n).copy(),
        np.full((n, 3), reach),
        views,
        np.ones(n, np.int64),
        np.ones(n),
    )


def test_the_mean_is_weighted_by_score_and_by_what_the_patch_holds():
    merged = merge(peaks_of([(0, 0, 0), (0, 0, 0.9)], score=(1.0, 0.5), weight=(1.0, 0.6)))
    assert_allclose(merged.coords, [(0, 0, 0.9 * 0.3 / 1.3)])
    assert_allclose(merged.score, (1.0 + 0.5 * 0.6) / 1.6)
    assert merged.n_views.tolist() == [2]


def test_who_holds_little_confirms_and_does_not_move():
    merged = merge(peaks_of([(0, 0, 0), (0, 0, 0.9)], weight=(1.0, 0.4)))
    assert merged.coords.tolist() == [[0, 0, 0]]
    assert merged.n_views.tolist() == [2]


def test_one_view_shows_a_point_once():
    merged = merge(peaks_of([(0, 0, 0), (0, 0, 0.5)], score=(1.0, 0.9), view=(0, 0)))
    assert merged.coords.tolist() == [[0, 0, 0]]
    assert merged.n_views.tolist() == [1]


def test_a_chain_of_peaks_does_not_become_one():
    merged = merge(peaks_of([(0, 0, k * 0.8) for k in range(6)], score=np.linspace(1, 0.9, 6)))
    assert len(merged) == 3


def test_no_peak_gives_no_detection():
    assert len(merge(Found.nothing())) == 0


def test_what_is_refused(store, heatmaps):
    sample = read_sample(store, 0)
    other = replace(sample, volume="w")
    cases = [
        (heatmaps[:-1], {}, f"each of the {len(store)} patches"),
        (heatmaps[0], {}, "a channel for each"),
        (np.concatenate([heatmaps, heatmaps], axis=1), {}, "a channel for each"),
        (heatmaps[:, :, :3], {}, "divides the 16 × 16 × 16 voxels"),
        (heatmaps[:, :, :0], {}, "divides"),
        (np.full_like(heatmaps, np.inf), {}, "heatmap 0: heatmap: expected finite numbers"),
        (heatmaps, {"samples": [sample]}, "1 samples"),
        (heatmaps[:1], {"samples": [sample, sample, sample]}, "more samples"),
        (heatmaps[:1], {"samples": [other]}, "samples of"),
        (heatmaps[:1], {"samples": [replace(sample, patch=10**6)]}, "samples of"),
    ]
    for values, options, words in cases:
        with pytest.raises(UsageError) as raised:
            detect(store, values, **options)
        assert words in str(raised.value)
    for wrong in (
        {"threshold": 0},
        {"agreement": 1.1},
        {"distance_voxels": -1},
        {"distance_voxels": 1, "distance_angstrom": 1},
    ):
        with pytest.raises(UsageError):
            Search(**wrong)
    with pytest.raises(UsageError, match="both"):
        Search(sigma_ds=(1, 1, 1), fit_sigma=True)
