"""EM: headers of every machine and type, motive lists, and headers that lie."""

from __future__ import annotations

import struct

import emfile
import numpy as np
import pytest
from tests.volume_cases import write_big_endian_em, write_em

from keypatch.errors import FormatError
from keypatch.formats.volumes import VolumeOptions, detect_format, open_volume

ARRAY = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)


def info_of(path, **options):
    with open_volume(path, VolumeOptions(**options)) as volume:
        return volume.info


def em(folder, *, machine=6, kind=5, lengths=(5, 4, 3), pixel=13480, data=None, order="<"):
    """Written by hand after IOfun/tom_emread.m: OBJ, the seventh parameter, has the pixel size times 1000."""
    parameters = [0] * 40
    parameters[6] = pixel
    header = bytes([machine, 0, 0, kind]) + struct.pack(f"{order}3i", *lengths) + b"comment".ljust(80)
    header += struct.pack(f"{order}40i", *parameters) + bytes(256)
    assert len(header) == 512
    (folder / "v.em").write_bytes(header + (ARRAY.astype(f"{order}f4").tobytes() if data is None else data))
    return folder / "v.em"


@pytest.mark.parametrize(("machine", "order"), [(6, "<"), (0, ">"), (3, ">"), (5, ">")])
def test_machines(tmp_path, machine, order):
    path = em(tmp_path, machine=machine, order=order)
    info = info_of(path)
    assert (info.shape, info.dtype, info.voxel_spacing, info.access) == ((3, 4, 5), np.float32, (13.48,) * 3, "mapped")
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read((0, 0, 0), (3, 4, 5)), ARRAY)
    assert info.warnings == ()
    assert info.conventions["byte_order"] == ("little" if order == "<" else "big")


def test_what_emfile_reads_is_what_we_read(tmp_path):
    path = write_em(tmp_path, ARRAY)
    header, data = emfile.read(path)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read((0, 0, 0), (3, 4, 5)), data)
        assert volume.info.voxel_spacing == (header["OBJ"] / 1000,) * 3 == (10, 10, 10)
    np.testing.assert_array_equal(ARRAY, data)
    path.unlink()
    with open_volume(write_big_endian_em(tmp_path, ARRAY)) as volume:
        assert volume.info.voxel_spacing == (10, 10, 10)


def test_bytes_have_a_sign_unless_told_otherwise(tmp_path):
    path = em(tmp_path, kind=1, data=bytes(range(200, 255)) + bytes(5))
    assert info_of(path).dtype == np.int8
    assert "does not say whether bytes have a sign" in info_of(path).warnings[0]
    with open_volume(path, VolumeOptions(unsigned=True)) as volume:
        assert volume.info.warnings == ()
        assert volume.read((0, 0, 0), (1, 1, 3)).tolist() == [[[200, 201, 202]]]


def test_a_motive_list_is_no_volume(tmp_path):
    path = em(tmp_path, lengths=(20, 7, 1), data=bytes(20 * 7 * 4))
    assert detect_format(path).NAME == "em"
    with pytest.raises(FormatError, match=r"found a motive list of 7 particles; .* give it with -a"):
        open_volume(path)


def test_no_pixel_size_is_told(tmp_path):
    for pixel in (0, -5):
        info = info_of(em(tmp_path, pixel=pixel))
        assert info.voxel_spacing is None
        assert "give --voxel-spacing" in info.warnings[0]


def test_one_section_is_told(tmp_path):
    path = em(tmp_path, lengths=(5, 12, 1))
    assert "one section only" in info_of(path).warnings[0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"machine": 1}, r"machine 1 \(VAX\)"),
        ({"machine": 2}, r"machine 2 \(Convex\)"),
        ({"machine": 99}, r"machine 99 \(unknown\)"),
        ({"kind": 3}, "found type 3"),
        ({"kind": 8, "lengths": (5, 2, 3)}, "integers or floats, found dtype complex64"),
        ({"lengths": (5, 4, 4)}, "expected 832 bytes"),
        ({"lengths": (2**31 - 1, 2**31 - 1, 2**31 - 1)}, "expected 39614081"),
        ({"lengths": (-5, 4, -3)}, "at least one voxel"),
        ({"lengths": (0, 4, 3)}, "at least one voxel"),
        ({"data": b""}, "expected 752 bytes"),
    ],
)
def test_headers_that_lie(tmp_path, values, said):
    with pytest.raises(FormatError, match=said):
        open_volume(em(tmp_path, **values))


def test_a_header_that_is_cut(tmp_path):
    path = em(tmp_path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(FormatError, match="expected 512 bytes of EM header, found 300 bytes"):
        open_volume(path)


def test_content_tells_em_under_any_name_and_nothing_else_for_it(tmp_path):
    path = em(tmp_path).rename(tmp_path / "v.dat")
    assert detect_format(path).NAME == "em"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(FormatError, match="a volume of one of the formats"):
        detect_format(path)


def test_more_bytes_than_promised_are_told(tmp_path):
    path = em(tmp_path)
    path.write_bytes(path.read_bytes() + b"xyz")
    assert "3 bytes follow" in info_of(path).warnings[0]
