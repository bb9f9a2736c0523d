"""All volume readers at once: what every format must do, and how formats are told apart."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.trials import trials
from tests.volume_cases import CASES, files_of, sample, write_em, write_mrc, write_nifti, write_npy

from keypatch.errors import FormatError, KeypatchError, ReadError, UsageError
from keypatch.formats.volumes import FORMATS, VolumeOptions, detect_format, open_volume, reader, volume_stem
from keypatch.formats.volumes.base import VolumeInfo
from keypatch.formats.volumes.registry import peek
from keypatch.formats.volumes.slice_cache import SliceCache
from keypatch.formats.volumes.units import angstrom_per_unit


@st.composite
def volumes_and_boxes(draw, name):
    dtype = draw(st.sampled_from(CASES[name][1]))
    # tifffile drops axes of length 1 from what it writes; these are tested below, for the formats that have them.
    shape = draw(st.tuples(st.integers(2, 12), st.integers(2, 9), st.integers(2, 9)))
    array = sample(name, dtype, shape, seed=draw(st.integers(0, 2**32)))
    boxes = []
    for _ in range(3):
        start = tuple(draw(st.integers(0, n - 1)) for n in shape)
        boxes.append((start, tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))))
    return array, boxes


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=trials(8), deadline=None)
@given(data=st.data())
def test_any_box_equals_slicing_the_array_that_was_written(name, data):
    array, boxes = data.draw(volumes_and_boxes(name))
    expected_dtype = np.dtype(np.uint8) if array.dtype == bool else array.dtype
    with tempfile.TemporaryDirectory() as folder:
        path = CASES[name][0](Path(folder), array)
        with open_volume(path) as volume:
            assert volume.info.shape == array.shape
            assert volume.info.dtype == expected_dtype
            assert volume.info.dtype.isnative
            for (z0, y0, x0), (z1, y1, x1) in boxes:
                box = volume.read((z0, y0, x0), (z1, y1, x1))
                assert box.dtype == expected_dtype
                assert box.dtype.isnative
                np.testing.assert_array_equal(box, array[z0:z1, y0:y1, x0:x1])


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 1), (3, 1, 1), (1, 1, 5)])
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("tiff")])
def test_axes_of_length_1_stay(tmp_path, name, shape):
    array = sample(name, shape=shape)
    with open_volume(CASES[name][0](tmp_path, array)) as volume:
        np.testing.assert_array_equal(volume.read((0, 0, 0), shape), array)


@pytest.mark.parametrize("name", CASES)
class TestEveryFormat:
    def test_info_is_plain_and_complete(self, tmp_path, name):
        import json

        path = CASES[name][0](tmp_path, sample(name))
        with open_volume(path) as volume:
            info = volume.info
        assert info.path == path
        assert info.format == name.split("-")[0]
        assert info.access in ("mapped", "region", "slices", "whole")
        assert json.loads(json.dumps(info.conventions, allow_nan=False)) == info.conventions
        assert info.conventions["axis_order"] == "zyx"
        assert all("\n" not in warning for warning in info.warnings)

    @pytest.mark.parametrize(
        ("start", "stop"),
        [((-1, 0, 0), (1, 1, 1)), ((0, 0, 0), (6, 1, 1)), ((0, 2, 0), (1, 2, 1)), ((0, 0, 3), (1, 1, 2))],
    )
    def test_a_box_outside_is_a_programming_error(self, tmp_path, name, start, stop):
        with open_volume(CASES[name][0](tmp_path, sample(name))) as volume, pytest.raises(ValueError, match="outside"):
            volume.read(start, stop)

    def test_what_was_read_outlives_the_file(self, tmp_path, name):
        array = sample(name)
        volume = open_volume(CASES[name][0](tmp_path, array))
        box = volume.read((0, 0, 0), (2, 2, 2))
        volume.close()
        volume.close()
        np.testing.assert_array_equal(box, array[:2, :2, :2])

    def test_the_format_is_found_under_any_name(self, tmp_path, name):
        path = CASES[name][0](tmp_path, sample(name))
        renamed = path.rename(tmp_path / "volume.xyz")
        expected = name.split("-")[0]
        assert expected == detect_format(renamed).NAME
        with open_volume(renamed) as volume:
            assert volume.info.shape == (5, 7, 6)

    def test_a_cut_file_is_an_error_or_still_whole(self, tmp_path, name):
        """Whatever is cut off, the answer is one line of error or the right voxels; never others, never a traceback."""
        array = sample(name)
        path = CASES[name][0](tmp_path, array)
        # An absent chunk is the fill value by Zarr's rule, and zarr-python takes an empty one for absent.
        files = files_of(path)
        failed = 0
        for file in files:
            whole = file.read_bytes()
            lengths = sorted({1, 2, *range(5, len(whole), max(1, len(whole) // 25)), len(whole) - 1})
            for length in lengths:
                file.write_bytes(whole[:length])
                failed += not same_or_error(path, array)
            file.write_bytes(whole)
        assert failed > 5

    def test_damaged_bytes_never_end_in_a_traceback(self, tmp_path, name):
        path = CASES[name][0](tmp_path, sample(name))
        files = files_of(path)
        rng = np.random.default_rng(11)
        for file in files:
            whole = np.frombuffer(file.read_bytes(), np.uint8)
            for _ in range(25):
                damaged = whole.copy()
                damaged[rng.integers(0, min(len(whole), 400), 3)] = rng.integers(0, 256, 3)
                file.write_bytes(damaged.tobytes())
                with contextlib.suppress(KeypatchError), open_volume(path) as volume:
                    if np.prod(volume.info.shape) < 10**6:
                        volume.read((0, 0, 0), volume.info.shape)
            file.write_bytes(whole.tobytes())


def same_or_error(path, array):
    """True when the volume reads as it was; False when it is refused; anything else fails the test."""
    try:
        with open_volume(path) as volume:
            np.testing.assert_array_equal(volume.read((0, 0, 0), volume.info.shape), array)
    except KeypatchError as error:
        message = str(error)
    else:
        return True
    assert "\n" not in message
    assert str(path.with_suffix("")) in message  # a data file beside the header has another suffix
    return False


# ----- telling formats apart -----


def test_every_format_has_what_the_registry_promises():
    names = [volume_format.NAME for volume_format in FORMATS]
    assert names == ["mrc", "zarr", "tiff", "npy", "hdf5", "nifti", "nrrd", "metaimage", "em", "slices"]
    for volume_format in FORMATS:
        assert volume_format.DESCRIPTION
        assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in volume_format.SUFFIXES)


def test_content_wins_over_the_suffix(tmp_path):
    path = write_npy(tmp_path, np.zeros((2, 3, 4), np.uint8)).rename(tmp_path / "volume.mrc")
    assert detect_format(path).NAME == "npy"


def test_a_suffix_decides_only_for_a_format_without_magic(tmp_path):
    for suffix in (".npy", ".tif", ".zarr", ".dat"):
        path = tmp_path / f"noise{suffix}"
        path.write_bytes(b"\x07" * 5000)
        with pytest.raises(FormatError, match="one of the formats mrc, zarr, tiff, npy, hdf5, nifti, nrrd"):
            open_volume(path)
    path = tmp_path / "noise.mrc"
    path.write_bytes(b"\x07" * 5000)
    assert detect_format(path).NAME == "mrc"
    with pytest.raises(FormatError, match="expected an MRC header"):
        open_volume(path)


def test_a_format_can_be_forced(tmp_path):
    path = write_npy(tmp_path, np.zeros((2, 3, 4), np.uint8))
    with open_volume(path, VolumeOptions(format="npy")) as volume:
        assert volume.info.format == "npy"
    with pytest.raises(ReadError):
        open_volume(path, VolumeOptions(format="tiff"))
    with pytest.raises(UsageError, match=r"mrc, zarr, tiff, npy, hdf5, .*'dicom'"):
        open_volume(path, VolumeOptions(format="dicom"))


@pytest.mark.parametrize("forced", [None, *(volume_format.NAME for volume_format in FORMATS)])
class TestWhatIsNoVolume:
    def test_missing(self, tmp_path, forced):
        with pytest.raises(ReadError, match="nothing at this path"):
            open_volume(tmp_path / "absent.mrc", VolumeOptions(format=forced))

    def test_empty_file(self, tmp_path, forced):
        (tmp_path / "v.mrc").touch()
        with pytest.raises(FormatError, match="an empty file"):
            open_volume(tmp_path / "v.mrc", VolumeOptions(format=forced))

    def test_empty_folder(self, tmp_path, forced):
        with pytest.raises(ReadError):
            open_volume(tmp_path, VolumeOptions(format=forced))

    def test_text(self, tmp_path, forced):
        (tmp_path / "v.csv").write_text("z,y,x\n1,2,3\n")
        with pytest.raises(ReadError):
            open_volume(tmp_path / "v.csv", VolumeOptions(format=forced))

    def test_a_pipe_does_not_block(self, tmp_path, forced):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ReadError, match="socket or pipe"):
            open_volume(tmp_path / "pipe", VolumeOptions(format=forced))


def test_no_permission(tmp_path, monkeypatch):
    path = write_npy(tmp_path, np.zeros((2, 2, 2), np.uint8))

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # chmod does not stop root
    with pytest.raises(ReadError, match="no permission"):
        open_volume(path)


def test_a_path_with_a_nul_byte_is_an_error_of_ours():
    with pytest.raises(ReadError):
        open_volume("a\0b.mrc")


def test_compressed_file_of_something_else(tmp_path):
    import gzip

    path = tmp_path / "v.npy.gz"
    path.write_bytes(gzip.compress(write_npy(tmp_path, np.zeros((2, 2, 2), np.uint8)).read_bytes()))
    with pytest.raises(FormatError, match="gzip file of something else; decompress it first"):
        open_volume(path)


def test_peek_shows_the_inside_of_a_compressed_file(tmp_path):
    array = sample("mrc")
    packed, plain = write_mrc(tmp_path, array, "v.mrc.gz", "gzip"), write_mrc(tmp_path, array)
    assert peek(packed).inner == plain.read_bytes()[:2048]
    assert peek(plain).inner == peek(plain).head
    assert peek(tmp_path).names == {"v.mrc.gz", "v.mrc"}


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("a/tomo.mrc", "tomo"),
        ("tomo.mrc.gz", "tomo"),
        ("tomo.MRC", "tomo"),
        ("TS_01.rec.bz2", "TS_01"),
        ("run1.ome.zarr", "run1"),
        ("run1.ome.zarr/", "run1"),
        ("run1.zarr/0", "run1"),
        ("run1.ome.zarr/scale0/image", "run1"),
        ("x.ome.tif", "x"),
        ("x.tiff", "x"),
        ("v.npy", "v"),
        ("folder/tomo_00e047", "tomo_00e047"),
        ("tomo.v2", "tomo.v2"),
        ("tomo_ts01.mrc_15.00Apx.mrc", "tomo_ts01.mrc_15.00Apx"),
        (".mrc", ".mrc"),
        ("/data/TS_1/../TS_2", "TS_2"),
    ],
)
def test_volume_stem(path, stem):
    assert volume_stem(path) == stem
    assert volume_stem(Path(path)) == stem


# ----- memory -----


def sparse_npy(folder):
    path = folder / "big.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<u2", "fortran_order": False, "shape": (2048, 1024, 1024)}
        )
        file.truncate(file.tell() + 4 * 2**30)
    return path


def sparse_mrc(folder):
    path = write_mrc(folder, np.zeros((1, 1, 1), np.int16), "big.mrc")
    with mrcfile.open(path, "r+") as mrc:
        mrc.header.nx, mrc.header.ny, mrc.header.nz = 1024, 1024, 2048
    with path.open("r+b") as file:
        file.truncate(1024 + 4 * 2**30)
    return path


def sparse_tiff(folder):
    path = folder / "big.tif"
    tifffile.imwrite(path, shape=(2048, 1024, 1024), dtype=np.uint16, bigtiff=True, photometric="minisblack")
    return path


def sparse_zarr(folder):
    zarr.create_array(folder / "big.zarr", shape=(2048, 1024, 1024), dtype="uint16", chunks=(64, 64, 64))
    return folder / "big.zarr"


def stretched(path, header_bytes, edits):
    """A file of one small volume, whose header then promises 4 GiB of holes."""
    with path.open("r+b") as file:
        for at, layout, *values in edits:
            file.seek(at)
            file.write(struct.pack(layout, *values))
        file.truncate(header_bytes + 4 * 2**30)
    return path


def sparse_nifti(folder):
    return stretched(write_nifti(folder, np.zeros((2, 2, 2), np.int16)), 352, [(42, "<3h", 1024, 1024, 2048)])


def sparse_em(folder):
    return stretched(write_em(folder, np.zeros((2, 2, 2), np.int16)), 512, [(4, "<3i", 1024, 1024, 2048)])


def sparse_metaimage(folder):
    header = b"NDims = 3\nDimSize = 1024 1024 2048\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (folder / "big.mha").write_bytes(header)
    return stretched(folder / "big.mha", len(header), [])


def sparse_nrrd(folder):
    header = b"NRRD0004\ntype: int16\ndimension: 3\nsizes: 1024 1024 2048\nendian: little\nencoding: raw\n\n"
    (folder / "big.nrrd").write_bytes(header)
    return stretched(folder / "big.nrrd", len(header), [])


def sparse_hdf5(folder):
    with h5py.File(folder / "big.h5", "w") as file:
        file.create_dataset("v", (2048, 1024, 1024), "i2", chunks=(64, 64, 64), compression="gzip")[0, 0, 0] = 1
    return folder / "big.h5"


SPARSE = [
    sparse_npy, sparse_mrc, sparse_tiff, sparse_zarr, sparse_nifti, sparse_em, sparse_metaimage, sparse_nrrd,
    sparse_hdf5,
]  # fmt: skip


@pytest.mark.parametrize("make", SPARSE)
def test_a_region_of_4_gib_costs_a_region(tmp_path, make):
    path = make(tmp_path)
    tracemalloc.start()
    try:
        with open_volume(path) as volume:
            assert volume.info.shape == (2048, 1024, 1024)
            assert volume.info.access in ("mapped", "region")
            assert not volume.read((1900, 900, 900), (1964, 964, 964)).any()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20


class TestSliceCache:
    def make(self, max_slices):
        decoded = []

        def decode(z):
            decoded.append(z)
            return np.full((4, 4), z, np.uint8)

        return SliceCache(decode, max_bytes=16 * max_slices), decoded

    def test_overlapping_boxes_decode_a_slice_once(self):
        cache, decoded = self.make(max_slices=10)
        cache.read(slice(0, 6), slice(0, 2), slice(0, 2))
        box = cache.read(slice(3, 9), slice(1, 3), slice(2, 4))
        assert decoded == list(range(9))
        np.testing.assert_array_equal(box[:, 0, 0], range(3, 9))
        assert box.shape == (6, 2, 2)

    def test_a_box_larger_than_the_cache_keeps_what_fits(self):
        cache, decoded = self.make(max_slices=4)
        cache.read(slice(0, 6), slice(0, 4), slice(0, 4))
        cache.read(slice(0, 6), slice(0, 4), slice(0, 4))
        assert decoded == [0, 1, 2, 3, 4, 5, 4, 5]

    def test_the_slices_used_longest_ago_go_first(self):
        cache, decoded = self.make(max_slices=3)
        for z in (0, 1, 2, 0, 3, 0, 1):
            cache.read(slice(z, z + 1), slice(0, 1), slice(0, 1))
        assert decoded == [0, 1, 2, 3, 1]

    def test_clear_lets_all_go(self):
        cache, decoded = self.make(max_slices=3)
        for _ in range(2):
            cache.read(slice(0, 1), slice(0, 1), slice(0, 1))
            cache.clear()
        assert decoded == [0, 0]


@pytest.mark.parametrize(
    ("unit", "angstrom"),
    [
        ("angstrom", 1), ("Å", 1), ("\u212b", 1), ("nm", 10), ("nanometer", 10), ("nanometre", 10), ("micrometer", 1e4),
        ("µm", 1e4), ("\u03bcm", 1e4), ("\\u00B5m", 1e4), ("um", 1e4), ("micron", 1e4), ("microns", 1e4), ("mm", 1e7),
        ("millimeters", 1e7), ("cm", 1e8), ("m", 1e10), ("inch", 2.54e8), ("pixel", None), ("", None), ("s", None),
    ],
)  # fmt: skip
def test_units(unit, angstrom):
    assert angstrom_per_unit(unit) == angstrom


# ----- arrays that lie in their file as in memory: read by position -----

ORDERS = st.permutations((0, 1, 2))
SIGNS = st.tuples(*[st.sampled_from((1, -1))] * 3)


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    order=ORDERS,
    signs=SIGNS,
    dtype=st.sampled_from(("u1", "<i2", ">f4", "<f8", "?")),
    data=st.data(),
)
@settings(max_examples=trials(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize(("gap", "block"), [(0, 1), (40, 64), (2**30, 2**30), (reader.GAP_BYTES, reader.BLOCK_BYTES)])
def test_boxes_and_blocks_of_any_view_of_a_file(tmp_path, monkeypatch, gap, block, shape, order, signs, dtype, data):
    """Whatever the order of the axes in the file, their direction, the byte order and the sizes of the spans."""
    monkeypatch.setattr(reader, "GAP_BYTES", gap)
    monkeypatch.setattr(reader, "BLOCK_BYTES", block)
    stored = np.random.default_rng(3).integers(0, 2 if dtype == "?" else 200, np.array(shape)[list(order)])
    path = tmp_path / "voxels"
    path.write_bytes(b"head!" + stored.astype(dtype).tobytes())
    flips = tuple(slice(None, None, sign) for sign in signs)
    to_zyx = np.argsort(order)
    view = np.memmap(path, dtype, "r", 5, stored.shape).transpose(to_zyx)[flips]
    expected = np.ascontiguousarray(stored.transpose(to_zyx)[flips])
    native = reader.volume_dtype(path, np.dtype(dtype))
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    box = expected[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    info = VolumeInfo(path, "made", shape, native, None, "mapped")
    with reader.ArrayVolume(info, view) as volume:
        whole = volume.read(start, stop)
        pieces, times = np.zeros_like(whole), np.zeros(whole.shape, int)
        for where, piece in volume.blocks(start, stop):
            pieces[where], times[where] = piece, times[where] + 1
            assert piece.dtype == native
    assert whole.dtype == native
    np.testing.assert_array_equal(whole, box)
    np.testing.assert_array_equal(pieces, box)
    assert (times == 1).all()


def test_blocks_are_small_whatever_the_volume(tmp_path):
    volume = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.float32, shape=(64, 512, 512))
    del volume
    with open_volume(tmp_path / "a.npy") as volume:
        for _, block in volume.blocks((0, 0, 0), (64, 300, 300)):
            assert block.base is not None
            assert block.nbytes <= 2**20


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_is_cut_after_it_was_opened(tmp_path, order):
    """An error, where a memory map would end the process by a signal."""
    path = tmp_path / "a.npy"
    np.save(path, np.asarray(np.ones((8, 64, 64), np.float32), order=order))
    with open_volume(path) as volume:
        os.truncate(path, 8192)
        for read in (lambda: volume.read((0, 0, 0), (8, 64, 64)), lambda: list(volume.blocks((0, 0, 0), (8, 64, 64)))):
            with pytest.raises(
                ReadError, match=r"a\.npy: expected \d+ more bytes from byte \d+ on, found the end of the file"
            ):
                read()


def test_a_volume_shared_with_a_forked_process(tmp_path):
    """Reading by position: neither moves the place where the other reads."""
    array = sample("npy", shape=(40, 50, 60))
    np.save(tmp_path / "a.npy", array)
    with open_volume(tmp_path / "a.npy") as volume, warnings.catch_warnings():
        # From Python 3.12 a fork beside any thread warns; the fork is the point here.
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(2, _adopt, (volume,)) as pool:
            planes = pool.map(_plane_of_adopted, range(40))
            own = [volume.read((z, 0, 0), (z + 1, 50, 60)) for z in range(40)]
    np.testing.assert_array_equal(np.concatenate(planes), array)
    np.testing.assert_array_equal(np.concatenate(own), array)


_adopted = []


def _adopt(volume):
    _adopted.append(volume)


def _plane_of_adopted(z):
    return np.array(_adopted[0].read((z, 0, 0), (z + 1, 50, 60)))


def test_a_mapped_volume_does_not_pile_up_in_memory(tmp_path):
    path = tmp_path / "wide.npy"
    volume = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(128, 1024, 1024))
    volume[:] = 1  # pages of a hole would all be the one page of zeros
    del volume
    code = (
        "import sys; from pathlib import Path; from keypatch.formats.volumes import open_volume\n"
        "from keypatch.converters.crop import cut; from keypatch.converters.scaling import Scaling\n"
        "peak = lambda: int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])\n"
        "volume = open_volume(Path(sys.argv[1])); before = peak()\n"
        "for k in range(8): cut(volume, (0, 128 * k, 0), (128, 64, 64), scaling=Scaling('float32'), padding='zero')\n"
        "print(peak() - before)"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is read from /proc")
    ran = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 20_000  # kB; the whole file has 524 000, a patch 2 100
