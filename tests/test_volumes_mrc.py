"""MRC: real files against bytes taken apart by hand, and headers that lie."""

from __future__ import annotations

import bz2
import gzip
import struct

import mrcfile
import numpy as np
import pytest

from keypatch.errors import FormatError, ReadError
from keypatch.formats.volumes import VolumeOptions, open_volume

ORDERED_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}

# Byte offsets of MRC2014 (https://www.ccpem.ac.uk/mrc-format/mrc2014/), little-endian 32-bit words.
OFFSETS = {
    "nx": 0, "ny": 4, "nz": 8, "mode": 12, "mx": 28, "my": 32, "mz": 36, "xlen": 40, "ylen": 44, "zlen": 48,
    "mapc": 64, "mapr": 68, "maps": 72, "dmin": 76, "dmax": 80, "ispg": 88, "nsymbt": 92, "imod_stamp": 152,
    "imod_flags": 156, "xorg": 196,
}  # fmt: skip


def patched(path, **fields):
    """Overwrite words of the header of a little-endian file."""
    raw = bytearray(path.read_bytes())
    for name, value in fields.items():
        struct.pack_into("<f" if isinstance(value, float) else "<i", raw, OFFSETS[name], value)
    path.write_bytes(raw)
    return path


@pytest.fixture
def volume_file(tmp_path):
    """2 x 3 x 4 voxels of int16, 10 Å."""
    path = tmp_path / "tomo.mrc"
    with mrcfile.new(path, data=np.arange(24, dtype=np.int16).reshape(2, 3, 4)) as mrc:
        mrc.set_volume()
        mrc.voxel_size = 10.0
    return path


def info_of(path, **options):
    with open_volume(path, VolumeOptions(**options)) as volume:
        return volume.info


def read_all(path, **options):
    with open_volume(path, VolumeOptions(**options)) as volume:
        return volume.read((0, 0, 0), volume.info.shape)


def by_hand(raw):
    """Shape, spacing and voxels of a little-endian MRC file in z, y, x, from its bytes alone."""
    nx, ny, nz, mode = struct.unpack_from("<4i", raw, 0)
    samples = struct.unpack_from("<3i", raw, 28)
    cell = struct.unpack_from("<3f", raw, 40)
    mapc, mapr, maps = struct.unpack_from("<3i", raw, 64)
    (extended,) = struct.unpack_from("<i", raw, 92)
    stored = np.frombuffer(raw, "<" + ORDERED_MODES[mode], nx * ny * nz, 1024 + extended).reshape(nz, ny, nx)
    voxels = np.einsum("abc->" + "".join({maps: "a", mapr: "b", mapc: "c"}[axis] for axis in (3, 2, 1)), stored)
    spacing = [length / n for length, n in zip(cell, samples, strict=True)][::-1]
    return voxels, spacing


REAL = {
    # file: shape z, y, x; dtype; Å z, y, x (None: not declared); a word of each warning
    "EMD-3001.map": ((73, 25, 43), "float32", (0.45875, 0.3925, 0.44825), ["right angles"]),
    "EMD-3001.map.bz2": ((73, 25, 43), "float32", (0.45875, 0.3925, 0.44825), ["right angles"]),
    "emd_3197.map.gz": ((20, 20, 20), "float32", (11.4, 11.4, 11.4), []),
    "3pqr-mode0.ccp4": ((59, 69, 100), "int8", (0.9155209, 0.9585318, 0.9585318), ["right angles"]),
    "tomo_int16.mrc": ((4, 6, 5), "int16", (2.5, 2.5, 2.5), ["machine stamp", "MAP id"]),
    "tomo22_z50_ves_4_seg.mrc": ((50, 166, 166), "int8", (1, 1, 1), ["machine stamp"]),
    "non_zero_origin_map.ccp4": ((32, 40, 30), "float32", (0.7374375, 0.723075, 0.7470333), []),
    "unsigned_ints.mrc": ((4, 4, 4), "int8", (14.08, 14.08, 14.08), ["DMAX is 255"]),
    "TS_run1.rec": ((10, 8, 6), "int8", (13.48, 13.48, 13.48), []),
    "small_probability_map.mrc": ((2, 2, 2), "float32", None, ["no usable voxel spacing"]),
}


def test_no_real_file_is_left_out(real_data):
    assert {path.name for path in (real_data / "mrc").iterdir()} == set(REAL)


@pytest.mark.parametrize("name", REAL)
def test_real_files(real_data, name):
    shape, dtype, spacing, warnings = REAL[name]
    path = real_data / "mrc" / name
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if name.endswith(".gz") else bz2.decompress(raw) if name.endswith(".bz2") else raw
    voxels, computed = by_hand(raw)
    with open_volume(path) as volume:
        info = volume.info
        assert (info.shape, info.dtype, info.voxel_spacing) == (shape, np.dtype(dtype), spacing)
        assert info.access == ("whole" if name.endswith(("gz", "bz2")) else "mapped")
        assert len(info.warnings) == len(warnings)
        assert all(word in line for word, line in zip(warnings, info.warnings, strict=True))
        np.testing.assert_array_equal(volume.read((0, 0, 0), shape), voxels)
        middle = tuple(n // 2 for n in shape)
        np.testing.assert_array_equal(volume.read(middle, shape), voxels[tuple(slice(m, None) for m in middle)])
    if spacing is not None:
        assert spacing == pytest.approx(computed, rel=2e-7)


def test_nstart_of_permuted_axes_is_recorded_as_zyx(real_data):
    """NSTART counts along columns, rows, sections: 0, -21, -12 along z, x, y of this map."""
    conventions = info_of(real_data / "mrc" / "EMD-3001.map").conventions
    assert conventions["mapc_mapr_maps"] == [3, 1, 2]
    assert conventions["nstart_zyx"] == [0, -12, -21]
    assert conventions["sampling_zyx"] == [72, 12, 40]
    assert conventions["origin_applied"] is False


def test_portal_volume(real_data):
    voxels = read_all(real_data / "matched" / "portal_fixture" / "run1.rec")
    np.testing.assert_array_equal(voxels, np.arange(64, dtype=np.float32).reshape(4, 4, 4))


class TestSignOfMode0:
    def file(self, tmp_path, **fields):
        path = tmp_path / "bytes.mrc"
        with mrcfile.new(path, data=np.array([[[-1, 1]], [[-128, 127]]], np.int8)) as mrc:
            mrc.set_volume()
            mrc.voxel_size = 1.0
        return patched(path, **fields)

    def test_signed_by_default(self, tmp_path):
        path = self.file(tmp_path)
        assert read_all(path).ravel().tolist() == [-1, 1, -128, 127]
        assert info_of(path).conventions["mode_0"] == "signed, the rule of MRC2014"

    def test_unsigned_when_asked(self, tmp_path):
        path = self.file(tmp_path, dmin=0.0)
        assert read_all(path, unsigned=True).ravel().tolist() == [255, 1, 128, 127]
        assert info_of(path, unsigned=True).dtype == np.uint8
        assert info_of(path, unsigned=True).warnings == ()

    def test_imod_says_signed(self, tmp_path):
        path = self.file(tmp_path, imod_stamp=1146047817, imod_flags=1)
        assert info_of(path).dtype == np.int8
        assert info_of(path).conventions["mode_0"] == "signed, by IMOD's flag"

    def test_imod_says_unsigned(self, tmp_path):
        path = self.file(tmp_path, imod_stamp=1146047817, imod_flags=2)
        assert read_all(path).ravel().tolist() == [255, 1, 128, 127]
        assert info_of(path).conventions["mode_0"] == "unsigned, by IMOD's flag"
        assert "DMIN is -128" in info_of(path).warnings[0]

    def test_other_modes_are_not_touched(self, volume_file):
        info = info_of(volume_file, unsigned=True)
        assert info.dtype == np.int16
        assert "mode_0" not in info.conventions


class TestVoxelSpacing:
    @pytest.mark.parametrize("cell", [0.0, -40.0, float("nan"), float("inf")])
    def test_what_cannot_be_a_size_is_none(self, volume_file, cell):
        info = info_of(patched(volume_file, xlen=cell))
        assert info.voxel_spacing is None
        assert "no usable voxel spacing" in info.warnings[0]

    @pytest.mark.parametrize("samples", [0, -4])
    def test_without_samples_it_is_none(self, volume_file, samples):
        assert info_of(patched(volume_file, mx=samples)).voxel_spacing is None

    def test_a_cell_larger_than_the_volume(self, volume_file):
        info = info_of(patched(volume_file, mx=8, my=6, mz=4, xlen=80.0, ylen=60.0, zlen=40.0))
        assert info.voxel_spacing == (10, 10, 10)
        assert info.conventions["sampling_zyx"] == [4, 6, 8]

    def test_z_of_1_beside_10_is_told_and_kept(self, volume_file):
        info = info_of(patched(volume_file, zlen=2.0))
        assert info.voxel_spacing == (1, 10, 10)
        assert "differs much between the axes" in info.warnings[0]

    def test_an_odd_number_keeps_its_digits(self, volume_file):
        assert info_of(patched(volume_file, mx=630, xlen=6307.56)).voxel_spacing[2] == 10.012


class TestHeader:
    @pytest.mark.parametrize(
        ("mode", "name"), [(3, "complex 16-bit"), (4, "complex 32-bit"), (101, "4-bit"), (16, "RGB"), (7, "unknown")]
    )
    def test_modes_that_are_no_numbers(self, volume_file, mode, name):
        with pytest.raises(FormatError, match=f"mode {mode} .*{name}"):
            open_volume(patched(volume_file, mode=mode))

    @pytest.mark.parametrize(
        "fields", [{"nz": 3}, {"nz": 2**31 - 1}, {"nx": 2**31 - 1, "ny": 2**31 - 1}, {"nsymbt": 5000}]
    )
    def test_more_promised_than_there_is(self, volume_file, fields):
        with pytest.raises(FormatError, match=rf"expected \d+ bytes .*found {volume_file.stat().st_size} bytes"):
            open_volume(patched(volume_file, **fields))

    @pytest.mark.parametrize("n", [0, -1, -(2**31)])
    def test_no_voxels(self, volume_file, n):
        with pytest.raises(FormatError, match="at least one voxel"):
            open_volume(patched(volume_file, ny=n))

    def test_negative_extended_header(self, volume_file):
        with pytest.raises(FormatError, match="-5 bytes"):
            open_volume(patched(volume_file, nsymbt=-5))

    def test_more_there_than_promised(self, volume_file):
        volume_file.write_bytes(volume_file.read_bytes() + b"tail!")
        assert "5 bytes follow the 1072" in info_of(volume_file).warnings[0]
        assert read_all(volume_file).ravel().tolist() == list(range(24))

    def test_extended_header_is_skipped(self, volume_file):
        raw = volume_file.read_bytes()
        volume_file.write_bytes(raw[:1024] + b"\xff" * 700 + raw[1024:])
        assert read_all(patched(volume_file, nsymbt=700)).ravel().tolist() == list(range(24))
        assert info_of(volume_file).conventions["extended_header_bytes"] == 700

    def test_axes_of_0_are_xyz(self, volume_file):
        info = info_of(patched(volume_file, mapc=0, mapr=0, maps=0))
        assert info.shape == (2, 3, 4)
        assert "MAPC, MAPR and MAPS are 0" in info.warnings[0]

    def test_axes_that_are_no_permutation(self, volume_file):
        with pytest.raises(FormatError, match="found 1, 1, 3"):
            open_volume(patched(volume_file, mapr=1))

    def test_image_stack_is_a_volume(self, volume_file):
        assert info_of(patched(volume_file, ispg=0)).shape == (2, 3, 4)

    def test_volume_stack_is_refused(self, volume_file):
        with pytest.raises(FormatError, match=r"a stack of volumes .*401"):
            open_volume(patched(volume_file, ispg=401))

    def test_single_section_is_told(self, volume_file):
        volume_file.write_bytes(volume_file.read_bytes()[: 1024 + 24])
        info = info_of(patched(volume_file, nz=1, mz=1, zlen=10.0))
        assert info.shape == (1, 3, 4)
        assert "one section only" in info.warnings[0]

    def test_wrong_machine_stamp(self, volume_file):
        raw = bytearray(volume_file.read_bytes())
        raw[212:214] = b"\x11\x11"
        volume_file.write_bytes(raw)
        info = info_of(volume_file)
        assert info.shape == (2, 3, 4)
        assert "contradicts the byte order" in info.warnings[0]
        assert info.conventions["byte_order"] == "little"

    def test_old_style_big_endian_without_stamp_and_id(self, volume_file):
        with mrcfile.open(volume_file) as mrc:
            header, data = mrc.header.copy(), mrc.data.copy()
        swapped = header.astype(header.dtype.newbyteorder(">"))
        swapped["machst"], swapped["map"] = 0, b""
        volume_file.write_bytes(swapped.tobytes() + data.astype(">i2").tobytes())
        info = info_of(volume_file)
        assert info.conventions["byte_order"] == "big"
        assert len(info.warnings) == 2
        assert read_all(volume_file).ravel().tolist() == list(range(24))

    def test_origin_that_is_not_a_number_stays_out_of_json(self, volume_file):
        info = info_of(patched(volume_file, xorg=float("nan")))
        assert info.conventions["origin_zyx"] == [0.0, 0.0, None]

    @pytest.mark.parametrize("length", [1, 200, 1023])
    def test_less_than_a_header(self, volume_file, length):
        volume_file.write_bytes(volume_file.read_bytes()[:length])
        with pytest.raises(FormatError, match=f"1024 bytes of MRC header, found {length} bytes"):
            open_volume(volume_file)

    def test_text_with_the_right_suffix(self, tmp_path):
        path = tmp_path / "notes.mrc"
        path.write_text("these are my notes on the tomogram\n" * 100)
        with pytest.raises(FormatError, match="an MRC header"):
            open_volume(path)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
class TestCompressed:
    def pack(self, path, compress, cut=None):
        packed = path.with_suffix(".mrc.gz")
        packed.write_bytes(compress(path.read_bytes())[:cut])
        return packed

    def test_the_header_alone_is_read_at_open(self, volume_file, compress):
        volume = open_volume(self.pack(volume_file, compress))
        assert volume._array is None
        volume.read((0, 0, 0), (1, 1, 1))
        assert volume._array is not None
        volume.close()
        assert volume._array is None

    def test_a_promise_that_the_data_break(self, volume_file, compress):
        packed = self.pack(patched(volume_file, nz=9), compress)
        with (
            open_volume(packed) as volume,
            pytest.raises(FormatError, match="1240 bytes once decompressed, found 1072"),
        ):
            volume.read((0, 0, 0), (1, 1, 1))

    def test_a_promise_that_no_memory_holds(self, volume_file, compress):
        packed = self.pack(patched(volume_file, nx=2**31 - 1, ny=2**31 - 1), compress)
        with pytest.raises(FormatError, match=r"which can hold \d+ times that at most"):
            open_volume(packed)

    def test_a_wrong_checksum(self, tmp_path, compress):
        """The volume is longer than the first look at the file, which must not be what finds the damage."""
        with mrcfile.new(tmp_path / "tomo.mrc", data=np.zeros((9, 20, 30), np.int16)) as mrc:
            mrc.set_volume()
        packed = self.pack(tmp_path / "tomo.mrc", compress)
        raw = bytearray(packed.read_bytes())
        raw[-6] ^= 1  # in the checksum of either format's end
        packed.write_bytes(raw)
        with open_volume(packed) as volume, pytest.raises(ReadError):
            volume.read((0, 0, 0), (1, 1, 1))
