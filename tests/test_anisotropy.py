"""Spacing, factor and sigma that differ from axis to axis, from the command line to the stored target.

Each expected number is worked out here, in Å from the corner of the volume, without a function of keypatch.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from tests.sources import Truth, assert_store_is_true, converted, keypatch, write_csv, write_mrc

import keypatch as package
from keypatch.audit.validate import validate

FACTOR = (8, 16, 16)
PATCH = (32, 48, 64)
VOLUMES = {
    "flat": Truth(
        np.random.default_rng(0).integers(0, 255, (40, 70, 90), dtype=np.int16),
        ((17.3, 33.8, 41.2), (20.9, 40.1, 60.6), (2.2, 60.4, 5.7)),
        ("motor", "ribosome", "motor"),
        (18.0, 10.0, 9.5),
    ),
    "tall": Truth(
        np.random.default_rng(1).integers(0, 255, (64, 52, 66), dtype=np.int16),
        ((33.1, 20.7, 30.3), (50.5, 49.9, 12.4)),
        ("ribosome", "motor"),
        (7.5, 13.0, 14.5),
    ),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return folder, [write_mrc(folder / name, known) for name, known in VOLUMES.items()], write_csv(folder, VOLUMES)


def built(sources, out, *flags):
    _, paths, picks = sources
    shape, factor = ",".join(map(str, PATCH)), ",".join(map(str, FACTOR))
    report = converted(*paths, "-a", picks, "-o", out, "--patch-shape", shape, "--ds-factor", factor, *flags)
    assert (report["left_out"], report["warnings"]) == ([], [])
    return zarr.open_group(out, mode="r")


def formula(known, origin, name, sigma_angstrom, spacing=None):
    """exp(-d²/2) of one class on the patch's coarse grid, d in sigmas, all lengths in Å from the volume's corner."""
    spacing = np.array(spacing or known.spacing)
    grid = [p // f for p, f in zip(PATCH, FACTOR, strict=True)]
    # Coarse voxel j covers f fine ones; its middle lies (j + 1/2) f of them behind the patch's first face.
    axes = zip(origin, grid, FACTOR, spacing, strict=True)
    middles = [(first + (np.arange(n) + 0.5) * f) * s for first, n, f, s in axes]
    target = np.zeros(grid)
    for point, own in zip(known.points, known.names, strict=True):
        if own == name:
            place = (np.array(point) + 0.5) * known.spacing
            distance = [((m - p) / s) ** 2 for m, p, s in zip(middles, place, sigma_angstrom, strict=True)]
            exponent = distance[0][:, None, None] + distance[1][None, :, None] + distance[2][None, None, :]
            # A keypoint beyond 6 sigmas of the box on any axis is not the patch's.
            low = [o * s for o, s in zip(origin, spacing, strict=True)]
            high = [(o + p) * s for o, p, s in zip(origin, PATCH, spacing, strict=True)]
            near = all(a - 6 * g <= p < b + 6 * g for a, b, p, g in zip(low, high, place, sigma_angstrom, strict=True))
            target = np.maximum(target, np.exp(-0.5 * exponent) * near)
    return target


def check_targets(store, sigma_of, spacing=None):
    names = list(VOLUMES)
    classes = store.attrs["keypatch"]["classes"]
    assert classes == ["motor", "ribosome"]
    targets, owners, origins = store["gaussian"][...], store["patches/volume_index"][:], store["patches/origin"][:]
    assert len(targets) > 8
    for target, owner, origin in zip(targets, owners, origins, strict=True):
        known = VOLUMES[names[owner]]
        for channel, name in zip(target, classes, strict=True):
            expected = formula(known, origin, name, sigma_of(known), spacing)
            np.testing.assert_allclose(channel, expected, atol=2e-5, rtol=0)  # an MRC header has float32 spacings
    assert targets.max() > 0.9


def test_sigma_in_angstrom_is_one_length_in_every_volume(sources, tmp_path):
    sigma = (90.0, 130.0, 110.0)
    store = built(sources, tmp_path / "out.zarr", "--sigma-angstrom", "90,130,110", "--centered", 2, "--grid", 32)
    check_targets(store, lambda _: sigma)
    assert_store_is_true(tmp_path / "out.zarr", VOLUMES)
    for i, owner in enumerate(store["patches/volume_index"][:]):
        spacing = np.array(list(VOLUMES.values())[owner].spacing)
        np.testing.assert_allclose(store["patches/ds_sigma"][i], sigma / (spacing * FACTOR), rtol=1e-6)
        np.testing.assert_allclose(store["patches/angstrom_sigma"][i], sigma, rtol=1e-6)
        np.testing.assert_allclose(store["patches/voxel_spacing"][i], spacing, rtol=1e-6)
    different = {tuple(row) for row in np.round(store["patches/ds_sigma"][:], 6)}
    assert len(different) == 2


def test_one_number_of_sigma_is_a_ball_in_space_and_none_in_voxels(sources, tmp_path):
    store = built(sources, tmp_path / "out.zarr", "--sigma-angstrom", 100, "--centered", 3)
    check_targets(store, lambda _: (100.0, 100.0, 100.0))
    # 100 Å in coarse voxels of 8·18, 16·10 and 16·9.5 Å.
    np.testing.assert_allclose(store["patches/ds_sigma"][0], [100 / 144, 100 / 160, 100 / 152], rtol=1e-6)


def test_sigma_in_coarse_voxels_is_another_length_in_every_volume(sources, tmp_path):
    ds = (1.5, 0.75, 1.0)
    store = built(sources, tmp_path / "out.zarr", "--sigma-ds", "1.5,0.75,1", "--centered", 3)
    check_targets(store, lambda known: [d * f * s for d, f, s in zip(ds, FACTOR, known.spacing, strict=True)])
    assert (store["patches/ds_sigma"][:] == ds).all()
    np.testing.assert_allclose(store["patches/angstrom_sigma"][0], [216, 120, 152], rtol=1e-6)


def test_after_resampling_sigma_follows_the_new_spacing(sources, tmp_path):
    target = (10.0, 12.0, 9.0)
    flags = ("--sigma-angstrom", "90,130,110", "--resample-to", "10,12,9", "--centered", 3)
    store = built(sources, tmp_path / "out.zarr", *flags)
    check_targets(store, lambda _: (90.0, 130.0, 110.0), target)
    expected = np.divide((90, 130, 110), np.multiply(target, FACTOR))
    np.testing.assert_allclose(store["patches/ds_sigma"][:], [expected] * 15)


def test_a_spacing_that_is_declared_counts_axis_by_axis(sources, tmp_path):
    flags = ("--sigma-angstrom", 100, "--voxel-spacing", "5,10,20", "--no-gaussian")
    store = built(sources, tmp_path / "out.zarr", *flags)
    np.testing.assert_allclose(store["patches/ds_sigma"][:], [[100 / 40, 100 / 160, 100 / 320]] * 5)


def test_coordinates_of_both_spaces(sources, tmp_path):
    store = built(sources, tmp_path / "out.zarr", "--sigma-ds", 1)
    rs, ds = store["keypoints/local_rs_coords"][:], store["keypoints/local_ds_coords"][:]
    np.testing.assert_allclose(ds, (rs + 0.5) / FACTOR - 0.5, atol=1e-12)
    assert store["gaussian"].shape[1:] == (2, 4, 3, 4)
    assert store.attrs["keypatch"]["grid_shape"] == [4, 3, 4]


def test_python_validate_and_inspect_agree(sources, tmp_path):
    out = tmp_path / "out.zarr"
    store = built(sources, out, "--sigma-angstrom", "90,130,110", "--gaussian-dtype", "float16", "--centered", 2)
    opened = package.open(out)
    assert (opened.ds_factor, opened.grid_shape) == (FACTOR, (4, 3, 4))
    for i in range(len(opened)):
        rendered, stored = opened[i].gaussian(), opened.read_gaussian(i)
        np.testing.assert_array_equal(rendered.astype(np.float16), stored)
        np.testing.assert_array_equal(stored, store["gaussian"][i])
    assert not validate(out, "deep", sources[0]).findings
    shown = json.loads(keypatch("inspect", out, "--patch", 0, "--json").out)
    np.testing.assert_allclose(shown["angstrom_sigma"], [90, 130, 110], rtol=1e-6)
    assert keypatch("inspect", out, "--patch", 0, "--png", tmp_path / "patch.png").code == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--ds-factor", "8,16"), "1 or 3 whole number(s)"),
        (("--ds-factor", "8,15,16"), "use 32,45,64"),
        (("--sigma-angstrom", "90,130"), "1 or 3 number(s)"),
        (("--sigma-ds", "1,0,1"), "numbers above 0"),
    ],
)
def test_what_is_no_triple_is_refused(sources, tmp_path, flags, says):
    _, paths, picks = sources
    ran = keypatch("convert", *paths, "-a", picks, "-o", tmp_path / "o.zarr", "--patch-shape", "32,48,64", *flags)
    assert ran.code == 2
    assert says in ran.err
