"""NIfTI, NRRD and MetaImage: real files, pairs and detached headers, scaling, and headers that lie."""

from __future__ import annotations

import bz2
import gzip
import math
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK
from tests.volume_cases import write_metaimage, write_nifti, write_nrrd

from keypatch.errors import FormatError, KeypatchError, MissingExtraError, ReadError
from keypatch.formats.volumes import detect_format, open_volume, volume_stem

ARRAY = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)


def info_of(path):
    with open_volume(path) as volume:
        return volume.info


def read_all(path):
    with open_volume(path) as volume:
        return volume.read((0, 0, 0), volume.info.shape)


def refused(path, match, error=FormatError):
    with pytest.raises(error, match=match) as raised:
        read_all(path)
    assert "\n" not in str(raised.value)


# ----- real files -----


@pytest.mark.parametrize(
    ("name", "access"),
    [
        ("nifti/anatomical.nii", "mapped"),
        ("nifti/shear.nii.gz", "whole"),
        ("matched/afids_mni/tpl-MNI152NLin2009cAsym_res-02_T1w.nii.gz", "whole"),
    ],
)
def test_real_nifti(real_data, name, access):
    expected = np.asarray(nibabel.load(real_data / name).dataobj).T
    with open_volume(real_data / name) as volume:
        assert (volume.info.format, volume.info.access, volume.info.shape) == ("nifti", access, expected.shape)
        read = volume.read((0, 0, 0), expected.shape)
        assert read.dtype == volume.info.dtype
        np.testing.assert_allclose(read, expected, rtol=1e-6, atol=0)
        np.testing.assert_array_equal(volume.read((5, 6, 7), (9, 20, 30)), read[5:9, 6:20, 7:30])


@pytest.mark.parametrize(
    "name",
    ["metaimage/mha.mha", "metaimage/image10x10x10.mhd", "nrrd/FLAIR.nrrd", "nrrd/image10x11x12_compressed.nhdr"],
)
def test_real_images(real_data, name):
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(real_data / name)))
    read = read_all(real_data / name)
    assert read.dtype == expected.dtype
    np.testing.assert_array_equal(read, expected)
    assert info_of(real_data / name).warnings == ()


def test_the_hostile_metaimage_is_refused(real_data):
    refused(real_data / "metaimage/referring_to_system_file.mhd", "in the header's own folder, found '/trying/to/get")


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("a/s1.nii.gz", "s1"),
        ("s1.nii", "s1"),
        ("s1.hdr", "s1"),
        ("s1.img.gz", "s1"),
        ("s1.mhd", "s1"),
        ("s1.nhdr", "s1"),
    ],
)
def test_stems(path, stem):
    assert volume_stem(path) == stem


# ----- NIfTI -----


@pytest.mark.parametrize("suffixes", [(".hdr", ".img"), (".hdr.gz", ".img.gz"), (".hdr", ".img.gz"), (".HDR", ".IMG")])
@pytest.mark.parametrize("named", [0, 1])
def test_a_pair_by_either_file(tmp_path, suffixes, named):
    write_nifti(tmp_path, ARRAY, "v.img", nibabel.Nifti1Pair)
    for plain, suffix in zip((".hdr", ".img"), suffixes, strict=True):
        raw = (tmp_path / f"v{plain}").read_bytes()
        (tmp_path / f"v{plain}").unlink()
        (tmp_path / f"v{suffix}").write_bytes(gzip.compress(raw) if suffix.endswith(".gz") else raw)
    path = tmp_path / f"v{suffixes[named]}"
    assert detect_format(path).NAME == "nifti"
    np.testing.assert_array_equal(read_all(path), ARRAY)
    (tmp_path / f"v{suffixes[1 - named]}").unlink()
    refused(path, f"expected v{suffixes[1 - named].removesuffix('.gz')} beside it, found no such file", ReadError)


def test_a_link_out_of_the_folder_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in", ARRAY, "v.img", nibabel.Nifti1Pair)
    (tmp_path / "in" / "v.img").rename(tmp_path / "elsewhere")
    (tmp_path / "in" / "v.img").symlink_to(tmp_path / "elsewhere")
    assert info_of(tmp_path / "in" / "v.hdr").warnings == (
        "v.img is a symbolic link out of its folder; it was followed",
    )


def scaled(folder, dtype, slope, intercept, name="v.nii"):
    path = write_nifti(folder, ARRAY.astype(dtype))
    raw = bytearray(path.read_bytes())
    raw[112:120] = struct.pack("<2f", slope, intercept)  # scl_slope, scl_inter
    (folder / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return folder / name


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize(
    ("stored", "expected"),
    [("uint8", "float32"), ("int16", "float32"), ("float32", "float32"), ("int32", "float64"), ("float64", "float64")],
)
def test_scaled_voxels_are_read_and_told(tmp_path, stored, expected, name):
    path = scaled(tmp_path, stored, 0.25, -7.5, name)
    read = read_all(path)
    assert (read.dtype, info_of(path).dtype) == (np.dtype(expected), np.dtype(expected))
    np.testing.assert_array_equal(read, np.asarray(nibabel.load(path).dataobj).T)
    np.testing.assert_array_equal(read, ARRAY * 0.25 - 7.5)
    (told,) = info_of(path).warnings
    assert told == f"the header scales its {stored} voxels: 0.25 x stored + -7.5 was read, as {expected}"
    assert info_of(path).conventions["scl_slope"] == 0.25


def test_blocks_of_scaled_voxels_are_scaled(tmp_path):
    whole = np.zeros(ARRAY.shape, np.float32)
    with open_volume(scaled(tmp_path, "int16", 0.25, -7.5)) as volume:
        for part, block in volume.blocks((0, 0, 0), ARRAY.shape):
            whole[part] = block
    np.testing.assert_array_equal(whole, ARRAY * 0.25 - 7.5)


@pytest.mark.parametrize("scaling", [(1, 0), (0, 5), (math.nan, 1)])
def test_scaling_that_is_none(tmp_path, scaling):
    """A slope of 0 means that there is none (nifti1.h)."""
    path = scaled(tmp_path, "int16", *scaling)
    assert info_of(path).dtype == np.int16
    assert info_of(path).warnings == ()


def test_scaling_by_no_number(tmp_path):
    refused(scaled(tmp_path, "int16", 2, math.nan), "scl_slope and scl_inter that are numbers")


def test_one_time_point_is_a_volume_and_several_are_none(tmp_path):
    nibabel.Nifti1Image(ARRAY.T[..., None], np.eye(4)).to_filename(tmp_path / "one.nii")
    np.testing.assert_array_equal(read_all(tmp_path / "one.nii"), ARRAY)
    nibabel.Nifti1Image(np.stack([ARRAY.T] * 2, -1), np.eye(4)).to_filename(tmp_path / "two.nii")
    refused(tmp_path / "two.nii", "4 axes of 5 x 4 x 3 x 2; save one time point or channel as a volume of its own")


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_complex_numbers_and_colours_are_refused(tmp_path, dtype):
    nibabel.Nifti1Image(np.zeros((5, 4, 3), dtype), np.eye(4)).to_filename(tmp_path / "v.nii")
    refused(tmp_path / "v.nii", "integers or floats")


def test_analyze_is_named(tmp_path):
    nibabel.AnalyzeImage(ARRAY.T, np.eye(4)).to_filename(tmp_path / "v.img")
    refused(tmp_path / "v.hdr", r"no magic of NIfTI; an Analyze 7.5 file\?")
    refused(tmp_path / "v.img", r"no magic of NIfTI; an Analyze 7.5 file\?")


def patched_nifti(folder, at, layout, *values, name="v.nii"):
    path = write_nifti(folder, ARRAY)
    raw = bytearray(path.read_bytes())
    struct.pack_into(f"<{layout}", raw, at, *values)
    (folder / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return folder / name


DIM, DATATYPE, VOX_OFFSET, XYZT_UNITS = 40, 70, 108, 123


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ((DIM, "4h", 3, 32767, 32767, 32767), "70362301923678 bytes"),
        ((DIM, "4h", 3, -5, 4, 3), "at least one voxel"),
        ((DIM, "4h", 3, 0, 4, 3), "at least one voxel"),
        ((DIM, "h", 9), "1 to 7 axes"),
        ((DIM, "h", -1), "1 to 7 axes"),
        ((DIM, "h", 2), "a volume of 3 axes"),
        ((DATATYPE, "h", 77), "a known type of voxel"),
        ((VOX_OFFSET, "f", math.nan), "vox_offset"),
        ((VOX_OFFSET, "f", 1e20), "bytes for a header"),
        ((VOX_OFFSET, "f", 100), "vox_offset of at least 352"),
        ((VOX_OFFSET, "f", -400), "vox_offset of at least 352"),
        ((XYZT_UNITS, "B", 7), "a known unit of length"),
    ],
)
def test_nifti_headers_that_lie(tmp_path, patch, said, name):
    refused(patched_nifti(tmp_path, *patch, name=name), said)


# ----- NRRD -----


def nrrd_text(folder, *lines, data=b"", name="v.nrrd", base=True):
    fields = {"type": "int16", "dimension": "3", "sizes": "5 4 3", "endian": "little", "encoding": "raw"}
    given = dict(line.split(": ", 1) for line in lines)
    header = [f"{key}: {value}" for key, value in ({**fields, **given} if base else given).items() if value != "-"]
    (folder / name).write_bytes("\n".join(["NRRD0004", "# made by hand", *header]).encode() + b"\n\n" + data)
    return folder / name


def test_spacings_without_directions_are_no_world(tmp_path):
    info = info_of(nrrd_text(tmp_path, "spacings: 1 2 3", 'units: "nm" "nm" "nm"', data=ARRAY.tobytes()))
    assert (info.voxel_spacing, info.world) == ((30, 20, 10), None)
    info = info_of(nrrd_text(tmp_path, data=ARRAY.tobytes()))
    assert (info.voxel_spacing, info.world) == (None, None)
    assert "give --voxel-spacing" in info.warnings[0]


@pytest.mark.parametrize("directions", ["none (1,0,0) (0,2,0) (0,0,3)", "(1,0,0) (0,2,0) (0,0,3) none"])
def test_an_axis_of_one_channel_is_left_out(tmp_path, directions):
    sizes = "1 5 4 3" if directions.startswith("none") else "5 4 3 1"
    lines = (
        "dimension: 4",
        f"sizes: {sizes}",
        "space: LPS",
        f"space directions: {directions}",
        "space origin: (0,0,0)",
    )
    path = nrrd_text(tmp_path, *lines, data=ARRAY.tobytes())
    np.testing.assert_array_equal(read_all(path), ARRAY)
    assert info_of(path).voxel_spacing == (3e7, 2e7, 1e7)
    lines = (lines[0], f"sizes: {sizes.replace('1', '2')}", *lines[2:])
    refused(nrrd_text(tmp_path, *lines, data=ARRAY.tobytes() * 2), "one channel and one time point")


@pytest.mark.parametrize(
    ("lines", "data"),
    [
        (("byte skip: 7",), b"x" * 7 + ARRAY.tobytes()),
        (("byte skip: -1",), b"x" * 7 + ARRAY.tobytes()),
        (("line skip: 2",), b"one\ntwo\n" + ARRAY.tobytes()),
        (("line skip: 1", "byte skip: 3"), b"one\nxyz" + ARRAY.tobytes()),
        (("line skip: 1", "byte skip: 3", "encoding: gz"), b"one\n" + gzip.compress(b"xyz" + ARRAY.tobytes(), mtime=0)),
        (("encoding: bz2",), bz2.compress(ARRAY.tobytes())),
        (("encoding: Raw",), ARRAY.tobytes()),
    ],
)
@pytest.mark.parametrize("detached", [False, True])
def test_where_the_voxels_begin(tmp_path, lines, data, detached):
    if detached:
        (tmp_path / "v.raw").write_bytes(data)
        lines, data = (*lines, "data file: ./v.raw"), b""
    path = nrrd_text(tmp_path, *lines, data=data, name="v.nhdr" if detached else "v.nrrd")
    np.testing.assert_array_equal(read_all(path), ARRAY)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("sizes: 1099511627776 1099511627776 1099511627776",), "bytes"),
        (("sizes: 1099511627776 4 3", "encoding: gzip"), "bytes of gzip, which hold|which can hold"),
        (("sizes: -5 4 3",), "at least one voxel"),
        (("sizes: 0 4 3",), "at least one voxel"),
        (("sizes: 5 4",), "expected 3 sizes"),
        (("sizes: five 4 3",), "a NRRD header"),
        (("sizes: -",), "expected 'sizes'"),
        (("type: block",), "integers or floats"),
        (("type: -",), "expected 'type'"),
        (("endian: -",), "endian little or big"),
        (("endian: middle",), "endian little or big"),
        (("encoding: ascii",), "encoding raw, gzip or bzip2, found ascii; write it anew"),
        (("encoding: hex",), "encoding raw, gzip or bzip2"),
        (("byte skip: -2",), "a byte skip"),
        (("byte skip: -1", "encoding: gzip"), "a byte skip"),
        (("byte skip: 100",), "bytes"),
        (("line skip: 1099511627776",), "a line skip of 0 to"),
        (("line skip: -1",), "a line skip of 0 to"),
        (("data file: /etc/passwd",), "in the header's own folder"),
        (("data file: ../v.raw",), "in the header's own folder"),
        (("data file: missing.raw",), "expected the file missing.raw beside it"),
        (("data file: LIST",), "all voxels in one data file"),
        (("data file: slice%03d.raw 1 3 1",), "all voxels in one data file"),
        (("space directions: (1,0) (0,1) (0,0)",), "3 space directions of 3 numbers"),
        (("space directions: (1,0,0) (0,1,0)",), "3 space directions of 3 numbers"),
        (
            ("space: LPS", "space directions: (1,0,0) (0,1,0) (0,0,1)", "space origin: (0,0)"),
            "3 numbers in space origin",
        ),
    ],
)
def test_nrrd_headers_that_lie(tmp_path, lines, said):
    (tmp_path.parent / "v.raw").write_bytes(ARRAY.tobytes())
    refused(nrrd_text(tmp_path, *lines, data=ARRAY.tobytes()), said, ReadError)


def test_units_that_are_no_length_or_not_one(tmp_path):
    for units in ('"s" "s" "s"', '"mm" "mm" "um"'):
        lines = ("space: LPS", "space directions: (1,0,0) (0,1,0) (0,0,1)", f"space units: {units}")
        info = info_of(nrrd_text(tmp_path, *lines, data=ARRAY.tobytes()))
        assert (info.voxel_spacing, info.world) == (None, None)
        assert "not one unit of length" in info.warnings[0]


def test_a_header_without_an_end(tmp_path):
    (tmp_path / "v.nrrd").write_bytes(nrrd_text(tmp_path).read_bytes().rstrip() + b"\n")
    refused(tmp_path / "v.nrrd", "a blank line between header and voxels")


def test_a_binary_file_that_begins_as_nrrd(tmp_path):
    (tmp_path / "v.nrrd").write_bytes(b"NRRD0004\n" + bytes(range(256)) * 5000)
    refused(tmp_path / "v.nrrd", "a NRRD header")


def test_windows_line_ends(tmp_path):
    path = nrrd_text(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + ARRAY.tobytes())
    np.testing.assert_array_equal(read_all(path), ARRAY)


# ----- MetaImage -----


def metaimage(folder, *lines, data=b"", name="v.mha"):
    fields = {"ObjectType": "Image", "NDims": "3", "DimSize": "5 4 3", "ElementType": "MET_SHORT"}
    header = {**fields, **dict(line.split(" = ", 1) for line in lines)}
    file = header.pop("ElementDataFile", "LOCAL")
    text = "".join(f"{key} = {value}\n" for key, value in header.items() if value != "-")
    (folder / name).write_bytes(text.encode() + f"ElementDataFile = {file}\n".encode() + data)
    return folder / name


@pytest.mark.parametrize(
    ("lines", "data"),
    [
        ((), ARRAY.tobytes()),
        (("NDims = 5", "DimSize = 5 4 3 1 1"), ARRAY.tobytes()),
        (("ElementByteOrderMSB = True",), ARRAY.astype(">i2").tobytes()),
        (("BinaryDataByteOrderMSB = True",), ARRAY.astype(">i2").tobytes()),
        (("CompressedData = True",), zlib.compress(ARRAY.tobytes())),
        (("CompressedData = True",), gzip.compress(ARRAY.tobytes(), mtime=0)),
        (("HeaderSize = -1",), b"xyz" + ARRAY.tobytes()),
        (("0008|0060 = MR", "Comment = a = b: c"), ARRAY.tobytes()),
        (("ElementNumberOfChannels = 1",), ARRAY.tobytes()),
    ],
)
@pytest.mark.parametrize("detached", [False, True])
def test_ways_to_write_a_metaimage(tmp_path, lines, data, detached):
    if detached:
        (tmp_path / "v.raw").write_bytes(data)
        lines, data = (*lines, "ElementDataFile = v.raw"), b""
    np.testing.assert_array_equal(read_all(metaimage(tmp_path, *lines, data=data)), ARRAY)


def test_a_header_before_the_voxels_of_another_file(tmp_path):
    (tmp_path / "v.raw").write_bytes(b"x" * 9 + ARRAY.tobytes())
    path = metaimage(tmp_path, "HeaderSize = 9", "ElementDataFile = v.raw", name="v.mhd")
    np.testing.assert_array_equal(read_all(path), ARRAY)


def test_no_spacing_is_told_and_units_are_honoured(tmp_path):
    info = info_of(metaimage(tmp_path, data=ARRAY.tobytes()))
    assert (info.voxel_spacing, info.world) == (None, None)
    assert "no ElementSpacing" in info.warnings[0]
    info = info_of(metaimage(tmp_path, "ElementSpacing = 1 2 3", "DistanceUnits = um", data=ARRAY.tobytes()))
    assert info.voxel_spacing == (3e4, 2e4, 1e4)
    info = info_of(metaimage(tmp_path, "ElementSpacing = 1 2 3", "DistanceUnits = ells", data=ARRAY.tobytes()))
    assert info.voxel_spacing is None
    assert "no unit of length" in info.warnings[0]


def test_more_bytes_than_promised_are_told(tmp_path):
    path = metaimage(tmp_path, "ElementSpacing = 1 1 1", data=ARRAY.tobytes() + b"xyz")
    np.testing.assert_array_equal(read_all(path), ARRAY)
    assert info_of(path).warnings == ("3 bytes follow the voxels that the header promises; they were left out",)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("DimSize = 1099511627776 1099511627776 1099511627776",), "bytes"),
        (("DimSize = 1099511627776 4 3", "CompressedData = True"), "bytes of zlib, which can hold"),
        (("DimSize = -5 4 3",), "at least one voxel"),
        (("DimSize = 0 4 3",), "at least one voxel"),
        (("DimSize = 5 four 3",), "whole numbers in DimSize, found 5 four 3"),
        (("DimSize = 5 4.5 3",), "whole numbers in DimSize"),
        (("DimSize = -",), "DimSize in the MetaImage header"),
        (("NDims = 2", "DimSize = 5 12"), "a volume of 3 axes"),
        (("NDims = 4",), "expected NDims = 4"),
        (("NDims = many",), "whole numbers in NDims"),
        (("NDims = 4", "DimSize = 5 4 3 2"), "a volume of 3 axes"),
        (("ElementType = MET_STRING",), "ElementType of MET_CHAR"),
        (("ElementType = -",), "ElementType in the MetaImage header"),
        (("ElementNumberOfChannels = 3",), "one grey channel"),
        (("ElementNumberOfChannels = few",), "numbers in ElementNumberOfChannels"),
        (("ObjectType = Tube",), "ObjectType = Image"),
        (("BinaryData = False",), "voxels written as text"),
        (("HeaderSize = -2",), "HeaderSize of -1 or more"),
        (("HeaderSize = 100000",), "bytes"),
        (("HeaderSize = -1", "CompressedData = True"), "HeaderSize of 0 or more"),
        (("TransformMatrix = 1 0 0", "ElementSpacing = 1 1 1"), "9 numbers in TransformMatrix"),
        (("TransformMatrix = 1 0 0 0 1 0 0 0 up", "ElementSpacing = 1 1 1"), "numbers in TransformMatrix"),
        (("ElementSpacing = 1 1",), "3 numbers in ElementSpacing"),
        (("ElementDataFile = /etc/passwd",), "in the header's own folder, found '/etc/passwd'"),
        (("ElementDataFile = ../v.raw",), "in the header's own folder"),
        (("ElementDataFile = sub/v.raw",), "in the header's own folder"),
        (("ElementDataFile = ..\\v.raw",), "in the header's own folder"),
        (("ElementDataFile = ..",), "in the header's own folder"),
        (("ElementDataFile = missing.raw",), "expected the file missing.raw beside it"),
        (("ElementDataFile = sub",), "a regular file"),
        (("ElementDataFile = LIST",), "one file a slice"),
        (("ElementDataFile = LIST 2",), "one file a slice"),
        (("ElementDataFile = slice%03d.raw 1 3 1",), "one file a slice"),
    ],
)
def test_metaimage_headers_that_lie(tmp_path, lines, said):
    (tmp_path.parent / "v.raw").write_bytes(ARRAY.tobytes())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "v.raw").write_bytes(ARRAY.tobytes())
    refused(metaimage(tmp_path, *lines, data=ARRAY.tobytes()), said, ReadError)


def test_a_data_file_that_is_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "v.raw")
    refused(metaimage(tmp_path, "ElementDataFile = v.raw"), "a regular file", ReadError)


@pytest.mark.parametrize("text", ["NDims = 3\nDimSize = 2 2 2\n", "NDims = 3\nhello world\nElementDataFile = LOCAL\n"])
def test_a_header_that_is_none(tmp_path, text):
    (tmp_path / "v.mha").write_text(text)
    refused(tmp_path / "v.mha", "a MetaImage header")


# ----- memory and extras -----


def bomb(folder, kind):
    """80 MiB of zeros in a file of 80 kB, before which a header promises a volume of 120 bytes."""
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(2**20)
    packed = b"".join(pack.compress(zeros) for _ in range(80)) + pack.flush()
    if kind == "nrrd":
        return nrrd_text(folder, "encoding: gzip", data=packed)
    if kind == "metaimage":
        return metaimage(folder, "CompressedData = True", data=packed)
    header = write_nifti(folder, ARRAY).read_bytes()[:352]
    head = zlib.compressobj(9, zlib.DEFLATED, 31)
    (folder / "v.nii.gz").write_bytes(head.compress(header) + head.flush() + packed)
    return folder / "v.nii.gz"


@pytest.mark.parametrize("kind", ["nrrd", "metaimage", "nifti"])
def test_no_more_is_decompressed_than_the_header_promises(tmp_path, kind):
    import tracemalloc

    path = bomb(tmp_path, kind)
    tracemalloc.start()
    try:
        assert not read_all(path).any()
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["v.nii.gz", "v.nrrd", "v.mha"])
def test_a_compressed_stream_that_ends_early(tmp_path, kind):
    array = np.random.default_rng(0).integers(0, 99, (20, 30, 40), np.int16)
    write = {
        "v.nii.gz": lambda: write_nifti(tmp_path, array, "v.nii.gz"),
        "v.nrrd": lambda: write_nrrd(tmp_path, array, encoding="gzip"),
        "v.mha": lambda: write_metaimage(tmp_path, array, compress=True),
    }
    path = write[kind]()
    np.testing.assert_array_equal(read_all(path), array)
    whole = path.read_bytes()
    for length in range(600, len(whole), 2000):
        path.write_bytes(whole[:length])
        with pytest.raises(KeypatchError):
            read_all(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    path.write_bytes(flipped)
    with pytest.raises(KeypatchError, match=r"undamaged|once decompressed"):
        read_all(path)


@pytest.mark.parametrize(
    ("write", "library", "extra"),
    [(write_nifti, "nibabel", "medical"), (write_nrrd, "nrrd", "medical"), (write_metaimage, None, None)],
)
def test_a_missing_library_names_its_extra(tmp_path, monkeypatch, write, library, extra):
    path = write(tmp_path, ARRAY)
    for name in ("nibabel", "nrrd", "SimpleITK"):
        monkeypatch.setitem(sys.modules, name, None)
    if library is None:
        np.testing.assert_array_equal(read_all(path), ARRAY)
        return
    with pytest.raises(MissingExtraError, match=rf"pip install 'keypatch\[{extra}\]'"):
        open_volume(path)


def test_starting_keypatch_loads_no_library_of_an_extra():
    code = (
        "import sys, keypatch.formats.volumes\n"
        "print(sorted({'h5py', 'nibabel', 'nrrd', 'SimpleITK', 'emfile'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_nothing_is_printed(tmp_path, capfd):
    """nibabel prints what it mends in a header."""
    path = write_nifti(tmp_path, ARRAY)
    raw = bytearray(path.read_bytes())
    raw[76:80] = struct.pack("<f", 5.0)  # pixdim[0], which has to be 1 or -1
    path.write_bytes(raw)
    read_all(path)
    assert capfd.readouterr() == ("", "")


def test_a_nrrd_of_pynrrd_in_fortran_order_reads_alike(tmp_path):
    nrrd.write(str(tmp_path / "v.nrrd"), ARRAY.T, index_order="F")
    np.testing.assert_array_equal(read_all(Path(tmp_path / "v.nrrd")), ARRAY)
