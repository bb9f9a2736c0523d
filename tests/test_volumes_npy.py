"""NPY: its orders and dtypes, and files that want to be unpickled."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from keypatch.errors import FormatError
from keypatch.formats.volumes import open_volume


class Trap:
    """Unpickling it would fail the test."""

    def __reduce__(self):
        return pytest.fail, ("a file was unpickled",)


def saved(tmp_path, array, **options):
    np.save(tmp_path / "v.npy", array, **options)
    return tmp_path / "v.npy"


def test_spacing_is_not_declared_and_axes_are_inferred(tmp_path):
    with open_volume(saved(tmp_path, np.zeros((2, 3, 4), ">f8"))) as volume:
        info = volume.info
    assert info.voxel_spacing is None
    assert info.dtype == np.float64
    assert info.conventions == {"axis_order": "zyx", "inferred": ["axis_order"], "stored_dtype": ">f8", "order": "C"}


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_versions(tmp_path, version):
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    with (tmp_path / "v.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version=version)
    with open_volume(tmp_path / "v.npy") as volume:
        np.testing.assert_array_equal(volume.read((0, 1, 0), (2, 3, 4)), array[:, 1:])


def test_version_3_is_refused(tmp_path):
    with (tmp_path / "v.npy").open("wb") as file:
        np.lib.format.write_array(file, np.zeros((2, 2, 2)), version=(3, 0))
    with pytest.raises(FormatError, match=r"version 3\.0"):
        open_volume(tmp_path / "v.npy")


@pytest.mark.parametrize("shape", [(), (5,), (4, 5), (1, 2, 3, 4)])
def test_other_than_three_axes(tmp_path, shape):
    with pytest.raises(FormatError, match=f"a volume of 3 axes, found {len(shape)} axes"):
        open_volume(saved(tmp_path, np.zeros(shape)))


def test_no_voxels(tmp_path):
    with pytest.raises(FormatError, match="at least one voxel"):
        open_volume(saved(tmp_path, np.zeros((3, 0, 2))))


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "U3", "S4", "M8[s]", "longdouble", "V5", "i4,f4"])
def test_what_is_no_number(tmp_path, dtype):
    with pytest.raises(FormatError, match="integers or floats"):
        open_volume(saved(tmp_path, np.zeros((2, 2, 2), dtype)))


def test_objects_are_refused_and_not_unpickled(tmp_path):
    array = np.empty((2, 2, 2), object)
    array[:] = Trap()
    with pytest.raises(FormatError, match="dtype object"):
        open_volume(saved(tmp_path, array, allow_pickle=True))


def test_a_bare_pickle_is_refused_and_not_unpickled(tmp_path):
    (tmp_path / "v.npy").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(FormatError, match="one of the formats"):
        open_volume(tmp_path / "v.npy")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_refused_with_a_hint(tmp_path, save):
    save(tmp_path / "v.npz", volume=np.zeros((2, 2, 2)))
    with pytest.raises(FormatError, match=r"an archive of arrays .*; save the one array"):
        open_volume(tmp_path / "v.npz")


def test_cut_short(tmp_path):
    path = saved(tmp_path, np.zeros((2, 3, 4), np.uint8))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"expected 152 bytes .*found 151 bytes"):
        open_volume(path)


@pytest.mark.parametrize("shape", ["(2, 3, -4)", "(2, 3, 10**9)", "(2, 3, 99999999999999999999)", "(2, 3", "'abc'"])
def test_headers_that_lie(tmp_path, shape):
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    header = text.ljust(117).encode() + b"\n"
    (tmp_path / "v.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 24)
    with pytest.raises(FormatError):
        open_volume(tmp_path / "v.npy")
