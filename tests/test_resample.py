"""Resampling: the kernel against its formula and other libraries, the geometry against blobs, that no box matters."""

from __future__ import annotations

import hashlib
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from tests.trials import trials

import keypatch
from keypatch import geometry
from keypatch.converters.opening import open_source
from keypatch.converters.resample import ResampledVolume, Resampling, has_spacing, lanczos, original
from keypatch.errors import StoreError, UsageError
from keypatch.formats.volumes import VolumeInfo, VolumeOptions
from keypatch.formats.volumes.reader import VolumeReader

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")


class InMemory(VolumeReader):
    def __init__(self, info, array):
        super().__init__(info)
        self._array = array

    def _read_box(self, z, y, x):
        return self._array[z, y, x]


def volume(array, spacing=(10.0, 10.0, 10.0), target=(13.3, 13.3, 13.3), **info):
    """An array as a resampled volume."""
    source = InMemory(VolumeInfo(Path("v"), "npy", array.shape, array.dtype, spacing, "region", **info), array)
    return ResampledVolume(source, Resampling(array.shape, spacing, target))


def resampled(array, spacing=(10.0, 10.0, 10.0), target=(13.3, 13.3, 13.3)):
    result = volume(array, spacing, target)
    return result.read((0, 0, 0), result.info.shape)


# ----- the kernel: the same numbers from the formula written down again, with numpy's sine and a matrix an axis -----


def matrix(n, n_new, spacing, new_spacing):
    """(n_new, n) weights, one voxel at a time; outside lies the mirror image."""
    ratio = new_spacing / spacing
    stretch = max(1.0, ratio)
    weights = np.zeros((n_new, n))
    for j in range(n_new):
        center = (j + 0.5) * ratio - 0.5
        for k in range(-2 * n - 40, 3 * n + 40):
            x = (k - center) / stretch
            if abs(x) < 3:
                inside = k % (2 * n)
                weights[j, min(inside, 2 * n - 1 - inside)] += np.sinc(x) * np.sinc(x / 3)
    return weights / weights.sum(axis=1, keepdims=True)


def by_formula(array, spacing, target):
    new = [round(n * s / t - 1e-9) for n, s, t in zip(array.shape, spacing, target, strict=True)]
    weights = [matrix(*each) for each in zip(array.shape, new, spacing, target, strict=True)]
    return np.einsum("ai,bj,ck,ijk->abc", *weights, array.astype(np.float64), optimize=True)


spacings = st.floats(4, 30).map(lambda value: round(value, 3))


@settings(max_examples=trials(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(*[st.integers(2, 14)] * 3),
    spacing=st.tuples(*[spacings] * 3),
    target=st.tuples(*[spacings] * 3),
    seed=st.integers(0, 99),
)
def test_every_voxel_is_the_formula(shape, spacing, target, seed):
    if min(geometry.resampled_shape(shape, spacing, target)) < 1:
        return
    array = np.random.default_rng(seed).normal(size=shape)
    np.testing.assert_allclose(resampled(array, spacing, target), by_formula(array, spacing, target), atol=1e-12)


def test_the_kernel_is_lanczos_to_the_last_bits():
    x = np.concatenate([np.linspace(-3.5, 3.5, 70_001), np.arange(-4.0, 5), [1e-300, -1e-9, 1e-8, 2e-8]])
    expected = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    np.testing.assert_allclose(lanczos(x), expected, atol=1e-15)
    assert (lanczos(np.arange(-3.0, 4)) == [0, 0, 0, 1, 0, 0, 0]).all()


@pytest.mark.parametrize("ratio", [1.25, 1.5, 2.0, 3.0, 0.5, 0.75])
def test_pillow_gives_the_same_image(ratio):
    """Pillow's LANCZOS has three lobes and the half-voxel rule too; it cuts the kernel at the edge, so that is left."""
    plane = np.random.default_rng(1).normal(size=(48, 60)).astype(np.float32)
    array = np.repeat(plane[None], 2, axis=0)
    ours = resampled(array, target=(10.0, 10 * ratio, 10 * ratio))[0]
    sides = [n * ratio for n in ours.shape[::-1]]
    theirs = Image.fromarray(plane).resize(ours.shape[::-1], Image.Resampling.LANCZOS, box=(0, 0, *sides))
    edge = int(np.ceil(3 * max(ratio, 1) / ratio)) + 1
    inner = (slice(edge, -edge), slice(edge, -edge))
    assert min(ours[inner].shape) > 3
    np.testing.assert_allclose(ours[inner], np.asarray(theirs)[inner], atol=2e-6)


def smooth(shape, period, seed=0):
    """Noise without anything finer than a period in voxels, as a formula of the place: exact on every grid."""
    rng = np.random.default_rng(seed)
    waves = [(rng.normal(size=3) * 2 * np.pi / period / 3, rng.uniform(0, 2 * np.pi)) for _ in range(12)]

    def at(*zyx):
        return sum(np.cos(sum(k * c for k, c in zip(wave, zyx, strict=True)) + phase) for wave, phase in waves)

    return at(*np.meshgrid(*map(np.arange, shape), indexing="ij")), at


@pytest.mark.parametrize("target", [(5.0, 5.0, 5.0), (7.3, 10.0, 13.3), (20.0, 20.0, 20.0)])
def test_a_smooth_volume_is_itself_at_the_new_places(target):
    array, at = smooth((40, 44, 48), period=10)
    ours = resampled(array, target=target)
    ratio = np.array(target) / 10
    places = [(np.arange(n) + 0.5) * r - 0.5 for n, r in zip(ours.shape, ratio, strict=True)]
    expected = at(*np.meshgrid(*places, indexing="ij"))
    inner = tuple(slice(int(7 / r), -int(7 / r)) for r in ratio)  # where the mirror image does not reach
    assert np.abs(ours - expected)[inner].max() < 0.01 * np.abs(expected).max()


def test_scipy_puts_voxels_at_the_same_places():
    """zoom(grid_mode=True) counts from the corner, as we do; without grid_mode it counts from the first centre."""
    array, _ = smooth((24, 26, 28), period=12)
    ours = resampled(array, target=(5.0, 5.0, 5.0))
    inner = (slice(6, -6),) * 3

    def off(grid_mode):
        theirs = ndimage.zoom(array, 2, order=5, grid_mode=grid_mode, mode="reflect" if grid_mode else "nearest")
        return np.abs(ours - theirs)[inner].max() / np.abs(theirs).max()

    assert off(grid_mode=True) < 0.01
    assert off(grid_mode=False) > 0.03


# ----- what may pass and what may not -----


def passed(frequency, ratio):
    """Amplitude of a wave along x after resampling, for a frequency in units of the new Nyquist frequency."""
    n = 600
    wave = np.cos(np.pi * frequency / ratio * np.arange(n) + 0.3)
    ours = resampled(np.broadcast_to(wave, (1, 1, n)).copy(), target=(10.0, 10.0, 10.0 * ratio))[0, 0]
    return np.sqrt(2) * ours[20:-20].std() if frequency < 1 else np.abs(ours[20:-20]).max()


@pytest.mark.parametrize("ratio", [1.4, 2.0, 3.7])
def test_what_the_new_grid_cannot_hold_is_damped(ratio):
    assert passed(1.35, ratio) < 0.1  # 20 dB
    if ratio > 1.45:
        assert passed(1.45, ratio) < 10 ** (-35 / 20)
    if ratio > 1.8:
        assert passed(1.8, ratio) < 0.01  # 40 dB


@pytest.mark.parametrize("ratio", [1.33, 2.0, 3.7])
@pytest.mark.parametrize("frequency", [0.1, 0.25, 0.4, 0.5])
def test_what_it_can_hold_passes(frequency, ratio):
    assert passed(frequency, ratio) == pytest.approx(1, abs=0.016)


def test_without_the_stretched_kernel_the_wave_would_come_through():
    """The damping is the filter's: plain interpolation folds the same wave to another of nearly its height."""
    wave = np.cos(np.pi * 1.5 / 3 * np.arange(600))
    folded = ndimage.map_coordinates(wave, [(np.arange(198) + 0.5) * 3 - 0.5], order=5)
    assert np.abs(folded[20:-20]).max() > 0.5
    assert passed(1.5, 3.0) < 0.02


def test_the_mean_stays_and_a_constant_is_exact():
    array = np.random.default_rng(0).normal(5, 2, (20, 22, 24))
    assert resampled(array, target=(20.0, 20.0, 20.0)).mean() == pytest.approx(array.mean(), abs=0.01)
    for target in ((13.3,) * 3, (4.1, 10.0, 77.7)):
        np.testing.assert_allclose(resampled(np.full((16, 16, 16), 7.0), target=target), 7.0, rtol=1e-14)
        assert (resampled(np.full((16, 16, 16), 255, np.uint8), target=target) == 255).all()


# ----- where things are -----

BLOBS = {
    "coarser": ((10.0, 10.0, 10.0), (13.3, 13.3, 13.3)),
    "finer": ((10.0, 10.0, 10.0), (7.9, 7.9, 7.9)),
    "twice as coarse": ((8.0, 8.0, 8.0), (16.0, 16.0, 16.0)),
    "anisotropic source": ((20.0, 8.0, 9.0), (10.0, 10.0, 10.0)),
    "anisotropic target": ((10.0, 10.0, 10.0), (20.0, 12.5, 6.0)),
}


def blob(center, shape, sigma, dtype):
    """A Gaussian that is higher than its dtype is coarse, on a low background."""
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    exponent = sum(((a - c) / s) ** 2 for a, c, s in zip(axes, center, sigma, strict=True))
    values = 100 * np.exp(-0.5 * exponent) + 8
    return np.rint(values).astype(dtype) if np.dtype(dtype).kind in "iu" else values.astype(dtype)


def centroid(array):
    weights = array.astype(np.float64) - 8
    axes = np.ogrid[tuple(slice(n) for n in array.shape)]
    return np.array([(weights * axis).sum() for axis in axes]) / weights.sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", BLOBS)
def test_a_blob_lies_where_the_formula_says(case, dtype):
    spacing, target = BLOBS[case]
    shape = tuple(int(560 / s) for s in spacing)
    for place in ((270.0, 285.0, 300.0), (261.3, 303.7, 277.7)):  # Å from the corner
        center = [p / s - 0.5 for p, s in zip(place, spacing, strict=True)]
        array = blob(center, shape, [45 / s for s in spacing], dtype)
        assert np.abs(centroid(array) - center).max() < 0.01, "the blob itself"
        ours = resampled(array, spacing, target)
        expected = [p / t - 0.5 for p, t in zip(place, target, strict=True)]
        assert ours.dtype == array.dtype
        assert np.abs(centroid(ours) - expected).max() < 0.02
        np.testing.assert_allclose(geometry.resampled([center], spacing, target)[0], expected, atol=1e-12)


@given(st.floats(-1e4, 1e4), spacings, spacings)
def test_coordinates_go_back_to_where_they_came_from(index, spacing, target):
    there = geometry.resampled(index, spacing, target)
    assert geometry.resampled(there, target, spacing) == pytest.approx(index, abs=1e-8)
    # Both are the same distance from the corner.
    assert (there + 0.5) * target == pytest.approx((index + 0.5) * spacing, abs=1e-6)


@given(st.integers(1, 5000), spacings, spacings)
def test_the_new_shape_is_the_nearest_and_no_voxel_is_centered_outside(n, spacing, target):
    (new, _, _) = geometry.resampled_shape((n, 1, 1), (spacing, 1, 1), (target, 1, 1))
    assert abs(new * target - n * spacing) <= target / 2 * (1 + 1e-9)
    if new:
        assert geometry.resampled(new - 1, target, spacing) < n - 0.5 + 1e-9


def test_of_two_shapes_as_near_the_smaller_one():
    assert geometry.resampled_shape((5, 6, 7), (10, 10, 10), (20, 20, 20)) == (2, 3, 3)


def test_the_header_of_a_resampled_volume():
    world = ((0.0, 0.0, 8.0, 100.0), (0.0, 20.0, 0.0, -50.0), (9.0, 1.0, 0.0, 7.0), (0.0, 0.0, 0.0, 1.0))
    array = np.zeros((10, 12, 14), np.int16)
    ours = volume(array, (9.0, 20.0, 8.0), (18.0, 10.0, 8.0), world=world, conventions={"a": 1}, warnings=("w",))
    info = ours.info
    assert (info.shape, info.voxel_spacing, info.dtype) == ((5, 24, 14), (18.0, 10.0, 8.0), np.int16)
    assert (info.conventions, info.warnings, original(ours).shape) == ({"a": 1}, ("w",), (10, 12, 14))
    for point in ((0.0, 0.0, 0.0), (3.5, 7.0, 11.25)):
        there = geometry.resampled(point, (9.0, 20.0, 8.0), (18.0, 10.0, 8.0))
        np.testing.assert_allclose(np.array(info.world) @ [*there, 1], np.array(world) @ [*point, 1], atol=1e-9)


# ----- the same bytes -----


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One array in formats whose readers cost a region differently."""
    folder = tmp_path_factory.mktemp("files")
    array = np.random.default_rng(7).integers(0, 4000, (23, 26, 29)).astype(np.float32)
    np.save(folder / "mapped.npy", array)
    zarr.create_array(folder / "region.zarr", data=array, chunks=(7, 8, 9))
    (folder / "slices").mkdir()
    for z, plane in enumerate(array.astype(np.uint16)):
        Image.fromarray(plane).save(folder / "slices" / f"{z}.png")
    return folder


@settings(max_examples=trials(60), deadline=None)
@given(st.data())
def test_a_voxel_does_not_depend_on_its_box(files, data):
    name = data.draw(st.sampled_from(["mapped.npy", "region.zarr", "slices"]))
    target = data.draw(st.sampled_from([(13.3, 13.3, 13.3), (4.0, 10.0, 25.0), (100.0, 9.0, 10.012)]))
    resampling = Resampling((23, 26, 29), (10.0, 10.0, 10.0), target)
    with open_source(files / name, VolumeOptions(), resampling) as ours:
        whole = ours.read((0, 0, 0), ours.info.shape)
        start = [data.draw(st.integers(0, n - 1)) for n in whole.shape]
        stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, whole.shape, strict=True)]
        box = ours.read(tuple(start), tuple(stop))
    assert box.tobytes() == whole[tuple(map(slice, start, stop))].tobytes()


def test_slabs_of_the_source_do_not_matter(files, monkeypatch):
    resampling = Resampling((23, 26, 29), (10.0, 10.0, 10.0), (13.3, 6.0, 13.3))
    with open_source(files / "mapped.npy", VolumeOptions(), resampling) as ours:
        whole = ours.read((0, 0, 0), ours.info.shape)
        monkeypatch.setattr("keypatch.converters.resample.SLAB_BYTES", 1)
        np.testing.assert_array_equal(ours.read((0, 0, 0), ours.info.shape), whole)


def test_the_bytes_are_those_of_every_machine():
    """Written down once; a change here changes every store that was resampled."""
    values = (np.arange(9 * 10 * 11, dtype=np.uint64) * 2654435761 % 65521).reshape(9, 10, 11)
    for dtype, expected in (
        ("float64", "2427c812e49bf06c"),
        ("uint16", "daeb8db2aedcb097"),
    ):
        ours = resampled(values.astype(dtype), (10.0, 8.0, 12.5), (13.3, 13.3, 7.1))
        assert hashlib.sha256(ours.astype(ours.dtype.newbyteorder("<")).tobytes()).hexdigest()[:16] == expected


# ----- values -----


@pytest.mark.parametrize("dtype", [name for name in DTYPES if "int" in name])
def test_integers_are_rounded_and_clipped(dtype):
    limits = np.iinfo(dtype)
    array = np.full((4, 4, 32), limits.min, dtype)
    array[:, :, 16:] = limits.max  # the kernel overshoots on both sides of the step
    ours = resampled(array, target=(10.0, 10.0, 7.0))[0, 0]
    top = limits.max if limits.bits < 64 else int(float(limits.max)) - (1024 if limits.min else 2048)
    if limits.bits == 64:
        top = int(np.nextafter(float(limits.max), 0))
    assert (ours.min(), ours.max()) == (limits.min, top)
    exact = by_formula(array[:1, :1].astype(np.float64), (10.0, 10.0, 10.0), (10.0, 10.0, 7.0))[0, 0]
    assert exact.max() > float(limits.max)
    if limits.bits <= 32:
        np.testing.assert_array_equal(ours, np.clip(np.rint(exact), limits.min, limits.max).astype(dtype))


def test_floats_end_at_their_last_value_and_what_is_not_finite_stays_so():
    array = np.zeros((4, 4, 32), np.float16)
    array[:, :, 16:] = 65504
    ours = resampled(array, target=(10.0, 10.0, 7.0))
    assert ours.max() == 65504
    assert np.isfinite(ours).all()
    array = array.astype(np.float32)
    array[2, 2, 5] = np.nan
    array[1, 1, 28] = np.inf
    ours = resampled(array, target=(10.0, 10.0, 7.0))
    assert np.isnan(ours[2, 2, int(5.5 / 0.7)])
    assert not np.isfinite(ours[1, 1, int(28.5 / 0.7)])
    assert np.isfinite(ours[0, 0]).all() == np.isfinite(ours[0, 0, 14:30]).all()
    assert np.isfinite(ours[:, :, 14:30]).all(), "no further than the kernel reaches"


# ----- which volumes -----


@pytest.mark.parametrize(
    ("spacing", "target", "same"),
    [
        ((13.33, 13.33, 13.33), (40 / 3,) * 3, True),
        ((13.4799995, 13.48, 13.48), (13.48,) * 3, True),
        ((10.012, 10.012, 10.012), (10.0,) * 3, False),  # CZII's
        ((10.0, 10.0, 10.02), (10.0,) * 3, False),
        ((20.0, 10.0, 10.0), (20.0, 10.0, 10.0), True),
    ],
)
def test_a_volume_that_has_the_spacing_stays_as_it_is(spacing, target, same):
    assert has_spacing(spacing, target) == same
    assert (Resampling.towards(target, Path("v"), (9, 9, 9), spacing) is None) == same
    assert Resampling.towards(None, Path("v"), (9, 9, 9), spacing) is None


@pytest.mark.parametrize(("target", "shown"), [(200.0, "(0, 2, 2)"), (1e-4, "(400000, 4000000, 4000000)")])
def test_spacings_that_leave_nothing_or_too_much_are_refused(target, shown):
    with pytest.raises(UsageError, match=r"--resample-to: expected a spacing at which every axis has") as caught:
        Resampling.towards((target,) * 3, Path("v.mrc"), (4, 40, 40), (10.0, 10.0, 10.0))
    assert shown in str(caught.value)
    assert "v.mrc" in str(caught.value)


def test_the_record_of_a_resampling_is_read_again():
    one = Resampling((10, 20, 30), (10.0, 10.012, 8.0), (13.3, 13.3, 13.3))
    assert Resampling.from_json({**one.to_json(), "of a newer version": 1}) == one
    assert Resampling.from_json(None) is None
    with pytest.raises(StoreError, match="expected the kernel lanczos3, found 'bicubic'; a newer keypatch may know it"):
        Resampling.from_json({**one.to_json(), "kernel": "bicubic"})


# ----- cost, and that it cannot be forgotten -----


def test_a_coarse_patch_of_a_fine_volume_costs_a_patch(tmp_path):
    path = tmp_path / "big.npy"
    with path.open("wb") as file:
        header = {"descr": "<u2", "fortran_order": False, "shape": (2048, 1024, 1024)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * 2**30)
    resampling = Resampling((2048, 1024, 1024), (10.0,) * 3, (40.0,) * 3)
    tracemalloc.start()
    try:
        with open_source(path, VolumeOptions(), resampling) as ours:
            assert not ours.read((200, 100, 100), (232, 132, 132)).any()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_voxels_for_a_store_are_read_through_one_door():
    """Whoever opens volumes by themselves would cut patches of the wrong grid."""
    package = Path(keypatch.__file__).parent
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"import[^\n]*\bopen_volume\b", path.read_text(encoding="utf-8"))
    }
    assert {name for name in users if not name.startswith("formats/")} == {
        "converters/opening.py",
        "converters/catalog.py",  # reads headers, before it is known which spacing counts
        "audit/inspect.py",  # shows a file as it is
    }
