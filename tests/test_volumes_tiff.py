"""TIFF stacks: real files, calibration of ImageJ and OME, and what tifffile would read in silence."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageSequence

from keypatch.errors import FormatError, KeypatchError, MissingExtraError
from keypatch.formats.volumes import open_volume

NM, MM = 10.0, 1e7


def counted(*shape, dtype=np.uint16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def info_of(path):
    with open_volume(path) as volume:
        return volume.info


def read_all(path):
    with open_volume(path) as volume:
        return volume.read((0, 0, 0), volume.info.shape)


def written(tmp_path, array, name="v.tif", **options):
    tifffile.imwrite(tmp_path / name, array, **{"photometric": "minisblack", **options})
    return tmp_path / name


REAL_VOLUMES = {
    # file: shape, dtype, Å z y x, access, words of the warnings
    "matched/cylindra_mt/13pf_MT.tif": ((36, 206, 94), "uint8", (1.052 * NM,) * 3, "mapped", []),
    "matched/cylindra_mt/14pf_MT.tif": ((44, 136, 84), "uint8", (1.052 * NM,) * 3, "mapped", []),
    "tiff/mini-t1-head.tif": ((32, 32, 32), "uint16", (1.5 * MM, MM / 0.666666, MM / 0.666666), "mapped", []),
    "tiff/stardist_img3d.tif": ((31, 61, 57), "uint16", None, "slices", ["does not name its page axis"]),
}

REAL_REFUSALS = {
    "BigTIFFMotorola.tif": "expected grey voxels, found axes YXS of shape .*RGB",
}

PARTS = ["multifile.companion.ome", *(f"multifile-Z{z}.ome.tiff" for z in range(1, 6))]


def test_no_real_file_is_left_out(real_data):
    assert {f"tiff/{path.name}" for path in (real_data / "tiff").iterdir()} <= {
        *REAL_VOLUMES,
        *(f"tiff/{name}" for name in [*REAL_REFUSALS, *PARTS]),
    }


@pytest.mark.parametrize("name", REAL_VOLUMES)
def test_real_volumes(real_data, name):
    shape, dtype, spacing, access, warnings = REAL_VOLUMES[name]
    with Image.open(real_data / name) as image:
        expected = np.stack([np.asarray(page) for page in ImageSequence.Iterator(image)])
    with open_volume(real_data / name) as volume:
        info = volume.info
        assert (info.shape, info.dtype, info.access) == (shape, np.dtype(dtype), access)
        assert info.voxel_spacing == (None if spacing is None else pytest.approx(spacing, rel=1e-8))
        assert [word in line for word, line in zip(warnings, info.warnings, strict=True)] == [True] * len(warnings)
        np.testing.assert_array_equal(volume.read((0, 0, 0), shape), expected)
        np.testing.assert_array_equal(volume.read((9, 8, 7), (20, 30, 31)), expected[9:20, 8:30, 7:31])


@pytest.mark.parametrize("name", REAL_REFUSALS)
def test_real_refusals(real_data, name):
    with pytest.raises(FormatError, match=REAL_REFUSALS[name]):
        open_volume(real_data / "tiff" / name)


class TestImageJ:
    def info(self, tmp_path, resolution=(0.5, 0.25), **metadata):
        options = {"imagej": True, "metadata": {"axes": "ZYX", **metadata}}
        return info_of(written(tmp_path, counted(3, 4, 5), resolution=resolution, **options))

    @pytest.mark.parametrize(
        ("unit", "angstrom"),
        [("nm", 10), ("micron", 1e4), ("um", 1e4), ("\\u00B5m", 1e4), ("mm", 1e7), ("cm", 1e8), ("inch", 2.54e8)],
    )
    def test_units(self, tmp_path, unit, angstrom):
        info = self.info(tmp_path, spacing=3.0, unit=unit)
        assert info.voxel_spacing == (3 * angstrom, 4 * angstrom, 2 * angstrom)
        assert info.conventions["unit"] == unit
        assert info.warnings == ()

    @pytest.mark.parametrize("metadata", [{}, {"unit": "pixel"}, {"unit": "pixels", "spacing": 2.0}])
    def test_pixels_are_no_size(self, tmp_path, metadata):
        info = self.info(tmp_path, **metadata)
        assert info.voxel_spacing is None
        assert info.warnings == ()

    def test_an_unknown_unit_is_told(self, tmp_path):
        info = self.info(tmp_path, unit="furlong", spacing=1.0)
        assert info.voxel_spacing is None
        assert "furlong, no unit of length" in info.warnings[0]

    def test_no_spacing_means_1(self, tmp_path):
        info = self.info(tmp_path, unit="nm")
        assert info.voxel_spacing == (10, 40, 20)
        assert "means 1 nm" in info.warnings[0]

    def test_another_unit_in_z(self, tmp_path):
        assert self.info(tmp_path, unit="nm", zunit="micron", spacing=0.03).voxel_spacing == pytest.approx(
            (300, 40, 20)
        )

    @pytest.mark.parametrize("spacing", [0.0, -2.0, "wide"])
    def test_a_spacing_that_is_none(self, tmp_path, spacing):
        info = self.info(tmp_path, unit="nm", spacing=spacing)
        assert info.voxel_spacing is None
        assert "no usable voxel spacing" in info.warnings[0]

    def test_no_resolution(self, tmp_path):
        path = written(tmp_path, counted(3, 4, 5), imagej=True, metadata={"axes": "ZYX", "unit": "nm", "spacing": 1.0})
        with tifffile.TiffFile(path, mode="r+") as tif:
            tif.pages.first.tags["XResolution"].overwrite((0, 1))
        assert info_of(path).voxel_spacing is None

    @pytest.mark.parametrize("axes", ["TYX", "CYX", "TZYX", "ZCYX"])
    def test_time_and_channels_are_refused(self, tmp_path, axes):
        shape = (3, 4, 5) if len(axes) == 3 else (2, 3, 4, 5)
        path = written(tmp_path, counted(*shape), imagej=True, metadata={"axes": axes})
        with pytest.raises(FormatError, match=f"expected axes ZYX, found axes {axes}"):
            open_volume(path)

    def test_one_channel_and_one_time_point(self, tmp_path):
        path = written(tmp_path, counted(1, 3, 1, 4, 5), imagej=True, metadata={"axes": "TZCYX"})
        np.testing.assert_array_equal(read_all(path), counted(3, 4, 5))


class TestOme:
    def info(self, tmp_path, **metadata):
        path = written(tmp_path, counted(3, 4, 5), "v.ome.tif", metadata={"axes": "ZYX", **metadata})
        return info_of(path)

    def test_sizes_with_units(self, tmp_path):
        sizes = {"PhysicalSizeX": 1.0, "PhysicalSizeY": 2.0, "PhysicalSizeZ": 30.0}
        units = {"PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "nm", "PhysicalSizeZUnit": "Å"}
        assert self.info(tmp_path, **sizes, **units).voxel_spacing == (30, 20, 10)

    def test_the_default_unit_is_micrometer(self, tmp_path):
        info = self.info(tmp_path, PhysicalSizeX=0.5, PhysicalSizeY=0.5, PhysicalSizeZ=2)
        assert info.voxel_spacing == (2e4, 5e3, 5e3)
        assert info.conventions["voxel_spacing_from"] == "OME-XML"

    def test_no_sizes(self, tmp_path):
        assert self.info(tmp_path).voxel_spacing is None
        assert self.info(tmp_path).warnings == ()

    def test_no_size_in_z_is_told(self, tmp_path):
        info = self.info(tmp_path, PhysicalSizeX=0.5, PhysicalSizeY=0.5)
        assert info.voxel_spacing is None
        assert "no usable voxel spacing" in info.warnings[0]

    def test_pixels(self, tmp_path):
        units = {f"PhysicalSize{axis}Unit": "pixel" for axis in "XYZ"}
        sizes = {f"PhysicalSize{axis}": 1.0 for axis in "XYZ"}
        assert "no unit of length" in self.info(tmp_path, **units, **sizes).warnings[0]

    def test_one_channel_and_one_time_point(self, tmp_path):
        path = written(tmp_path, counted(1, 1, 3, 4, 5), "v.ome.tif", metadata={"axes": "TCZYX"})
        np.testing.assert_array_equal(read_all(path), counted(3, 4, 5))

    def test_a_file_that_was_renamed_is_still_one_file(self, tmp_path):
        path = written(tmp_path, counted(3, 4, 5), "v.ome.tif", metadata={"axes": "ZYX"})
        assert info_of(path.rename(tmp_path / "renamed.tif")).shape == (3, 4, 5)

    @pytest.mark.parametrize("xml", ["<OME><Image></OME>", '<?xml version="1.0"?><NOTE></NOTE><OME></OME>', "<a/>OME>"])
    def test_xml_that_is_none(self, tmp_path, xml):
        path = written(tmp_path, counted(2, 4, 5), description=xml, metadata=None)
        with pytest.raises(FormatError, match=r"expected .*XML"):
            open_volume(path)

    def test_planes_that_are_missing(self, tmp_path):
        """tifffile fills them with zeros and says so in its log alone."""
        path = written(tmp_path, counted(3, 4, 5), "v.ome.tif", metadata={"axes": "ZYX"})
        path.write_bytes(path.read_bytes().replace(b'SizeZ="3"', b'SizeZ="4"'))
        with pytest.raises(FormatError, match="expected 4 pages, as its metadata says, found 3 pages"):
            open_volume(path)


class TestPages:
    def test_pages_without_a_name_are_z_and_told(self, tmp_path):
        info = info_of(written(tmp_path, counted(3, 4, 5), metadata=None))
        assert info.conventions["inferred"] == ["axis_order"]
        assert "was taken for z" in info.warnings[0]

    def test_resolution_of_plain_tiff_says_nothing_of_z(self, tmp_path):
        info = info_of(written(tmp_path, counted(3, 4, 5), metadata=None, resolution=(300, 300), resolutionunit=2))
        assert info.voxel_spacing is None

    def test_only_the_pages_touched_are_decoded(self, tmp_path, monkeypatch):
        path = written(tmp_path, counted(6, 40, 50), compression="zlib", metadata=None)
        decoded = []
        original = tifffile.TiffPage.asarray
        for page_class in (tifffile.TiffPage, tifffile.TiffFrame):
            monkeypatch.setattr(
                page_class,
                "asarray",
                lambda page, **options: (decoded.append(page.index), original(page, **options))[1],
            )
        with open_volume(path) as volume:
            assert volume.info.access == "slices"
            volume.read((2, 0, 0), (4, 3, 3))
            volume.read((3, 0, 0), (5, 3, 3))
        assert decoded == [0, 2, 3, 4]

    @pytest.mark.parametrize("compression", ["lzw", "zstd", "zlib", "packbits", "lzma"])
    def test_codecs(self, tmp_path, compression):
        path = written(tmp_path, counted(3, 20, 30), compression=compression, predictor=compression in ("lzw", "zlib"))
        np.testing.assert_array_equal(read_all(path), counted(3, 20, 30))
        assert info_of(path).conventions["compression"] != "none"

    def test_bilevel_is_uint8(self, tmp_path):
        array = counted(3, 8, 16) % 3 == 0
        assert read_all(written(tmp_path, array)).dtype == np.uint8
        np.testing.assert_array_equal(read_all(tmp_path / "v.tif"), array)

    def test_min_is_white_is_told(self, tmp_path):
        info = info_of(written(tmp_path, counted(3, 4, 5), photometric="miniswhite", metadata={"axes": "ZYX"}))
        assert "MinIsWhite" in info.warnings[0]

    @pytest.mark.parametrize("planar", ["contig", "separate"])
    def test_colours_are_refused(self, tmp_path, planar):
        shape = (4, 8, 9, 3) if planar == "contig" else (4, 3, 8, 9)
        path = written(tmp_path, counted(*shape, dtype=np.uint8), photometric="rgb", planarconfig=planar)
        with pytest.raises(FormatError, match="expected grey voxels"):
            open_volume(path)

    def test_a_palette_is_refused(self, tmp_path):
        colours = np.zeros((3, 256), np.uint16)
        path = written(tmp_path, counted(4, 5, dtype=np.uint8), photometric="palette", colormap=colours)
        with pytest.raises(FormatError, match="PALETTE"):
            open_volume(path)

    def test_a_single_page_is_refused_with_a_hint(self, tmp_path):
        with pytest.raises(FormatError, match="a single plane; where each slice is a file of its own, give the folder"):
            open_volume(written(tmp_path, counted(4, 5)))

    @pytest.mark.parametrize("axes", ["XYZ", "ZXY", "RYX"])
    def test_other_axes_are_refused(self, tmp_path, axes):
        with pytest.raises(FormatError, match="expected axes ZYX"):
            open_volume(written(tmp_path, counted(3, 4, 5), metadata={"axes": axes}))

    def test_complex_is_refused(self, tmp_path):
        with pytest.raises(FormatError, match="complex64"):
            open_volume(written(tmp_path, np.zeros((3, 4, 5), np.complex64)))

    @pytest.mark.parametrize("other", [counted(6, 5), counted(4, 5, dtype=np.uint8)])
    def test_a_page_that_differs_is_not_left_out(self, tmp_path, other):
        with tifffile.TiffWriter(tmp_path / "v.tif") as tif:
            for page in (*counted(3, 4, 5), other):
                tif.write(page, contiguous=False, photometric="minisblack", metadata=None)
        with pytest.raises(FormatError, match="expected one stack of equal pages, found 2 images"):
            open_volume(tmp_path / "v.tif")

    def test_volumetric_pages_that_are_compressed(self, tmp_path):
        path = written(tmp_path, counted(6, 40, 50), volumetric=True, tile=(4, 16, 16), compression="zlib")
        with pytest.raises(FormatError, match="compressed pages of shape"):
            open_volume(path)

    @pytest.mark.parametrize("metadata", [{"MajorVersion": 3}, {"MajorVersion": 0, "Summary": {}, "IndexMap": None}])
    def test_micro_manager_files_do_not_open_others(self, tmp_path, monkeypatch, metadata):
        """tifffile would follow the index of an NDTiff, or look for the other files of a stack."""
        (tmp_path / "NDTiff.index").write_bytes(b"\xff" * 64)
        path = written(tmp_path, counted(3, 4, 5), metadata=None)
        monkeypatch.setattr(tifffile.TiffFile, "micromanager_metadata", metadata)
        np.testing.assert_array_equal(read_all(path), counted(3, 4, 5))


class TestDamage:
    def test_a_page_cut_off_is_no_smaller_volume(self, tmp_path):
        path = written(tmp_path, counted(6, 40, 50, dtype=np.uint8), imagej=True)
        path.write_bytes(path.read_bytes()[:6600])
        with pytest.raises(FormatError, match="the file is cut short or damaged"):
            open_volume(path)

    def test_a_strip_without_bytes_is_no_zeros(self, tmp_path):
        path = written(tmp_path, counted(3, 40, 50), compression="zlib", metadata=None)
        with tifffile.TiffFile(path, mode="r+") as tif:
            tif.pages[1].tags["StripByteCounts"].overwrite(0)
        with pytest.raises(FormatError, match="expected voxels in page 2, found a strip or tile without bytes"):
            open_volume(path)

    def test_a_strip_beyond_the_end(self, tmp_path):
        path = written(tmp_path, counted(3, 40, 50), compression="zlib", metadata=None)
        size = path.stat().st_size
        with tifffile.TiffFile(path, mode="r+") as tif:
            tif.pages[2].tags["StripOffsets"].overwrite(size - 10)
        with pytest.raises(FormatError, match=f"up to the end of page 3, found {size} bytes"):
            open_volume(path)

    def test_a_damaged_strip_is_an_error_where_it_is_read(self, tmp_path):
        path = written(tmp_path, counted(3, 40, 50), compression="zlib", metadata=None)
        with tifffile.TiffFile(path) as tif:
            offset = tif.pages[2].dataoffsets[0]
        raw = bytearray(path.read_bytes())
        raw[offset : offset + 20] = b"\xff" * 20
        path.write_bytes(raw)
        with open_volume(path) as volume:
            np.testing.assert_array_equal(volume.read((0, 0, 0), (2, 40, 50)), counted(3, 40, 50)[:2])
            with pytest.raises(FormatError, match="page 3 whole"):
                volume.read((2, 0, 0), (3, 1, 1))

    def test_the_log_of_tifffile_is_left_as_it_was(self, tmp_path):
        before = list(logging.getLogger("tifffile").handlers)
        path = written(tmp_path, counted(3, 4, 5))
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(KeypatchError):
            open_volume(path)
        assert logging.getLogger("tifffile").handlers == before


WITHOUT_IMAGECODECS = """
import sys
sys.modules["imagecodecs"] = None
from keypatch.errors import MissingExtraError
from keypatch.formats.volumes import open_volume
try:
    open_volume(sys.argv[1])
except MissingExtraError as error:
    print(error)
"""


def test_a_missing_codec_names_the_extra(tmp_path):
    assert issubclass(MissingExtraError, KeypatchError)
    path = written(tmp_path, counted(3, 20, 30), compression="lzw", metadata=None)
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_IMAGECODECS, str(path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith(f"{path} (LZW): needs a library")
    assert "keypatch[tiff]" in run.stdout
    assert run.stderr == ""
