"""OME-TIFF images of several files: all of it is read, whichever is named, and nothing outside the folder."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from keypatch.errors import FormatError, KeypatchError, ReadError
from keypatch.formats.volumes import open_volume, volume_stem

REAL = ["multifile.companion.ome", *(f"multifile-Z{z}.ome.tiff" for z in range(1, 6))]


def read_all(path):
    with open_volume(path) as volume:
        return volume.read((0, 0, 0), volume.info.shape)


@pytest.mark.parametrize("name", REAL)
def test_real_files_whichever_is_named(real_data, name):
    planes = [np.asarray(Image.open(real_data / "tiff" / f"multifile-Z{z}.ome.tiff")) for z in range(1, 6)]
    with open_volume(real_data / "tiff" / name) as volume:
        assert (volume.info.shape, volume.info.dtype, volume.info.access) == ((5, 24, 18), np.uint8, "slices")
        assert volume.info.conventions["files"] == REAL[1:]
        assert [w.split(";")[0] for w in volume.info.warnings] == (
            ["the image is spread over 5 files, of which this is one"] if name != REAL[0] else []
        )
        np.testing.assert_array_equal(volume.read((0, 0, 0), (5, 24, 18)), np.stack(planes))
        np.testing.assert_array_equal(volume.read((2, 3, 4), (4, 9, 9)), np.stack(planes)[2:4, 3:9, 4:9])


@pytest.fixture
def real_copy(real_data, tmp_path):
    for name in REAL:
        shutil.copyfile(real_data / "tiff" / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("named", "missing"), [(name, other) for name in REAL for other in (REAL[0], REAL[4]) if name != other]
)
def test_a_missing_part_is_named(real_copy, named, missing):
    (real_copy / missing).unlink()
    with pytest.raises(ReadError, match=f"expected the file {missing} beside it .*No such file"):
        open_volume(real_copy / named)


def test_a_part_that_is_cut_short(real_copy):
    part = real_copy / "multifile-Z4.ome.tiff"
    whole = part.read_bytes()
    for length in range(0, len(whole), 97):
        part.write_bytes(whole[:length])
        with pytest.raises(KeypatchError, match="multifile-Z4"):
            read_all(real_copy / "multifile.companion.ome")


def test_the_stem_of_a_companion():
    assert volume_stem("a/run.companion.ome") == "run"


# ----- generated -----

ARRAY = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)


def data(file, first, ifd="0", count="1"):
    numbers = "".join(f' {key}="{n}"' for key, n in (("FirstZ", first), ("IFD", ifd), ("PlaneCount", count)) if n != "")
    return f'<TiffData{numbers}><UUID FileName="{file}">urn:uuid:{file}</UUID></TiffData>'


def xml(*planes, attributes="", size_z=4, head="", size_c=1):
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="urn:uuid:0"><Image ID="Image:0"><Pixels DimensionOrder="XYZCT" ID="Pixels:0" SizeC="{size_c}" '
        f'SizeT="1" SizeX="6" SizeY="5" SizeZ="{size_z}" Type="uint16" {attributes}>'
        f"{''.join(planes)}</Pixels></Image></OME>"
    )


@pytest.fixture
def folder(tmp_path):
    """Slices 0 and 1 in a.tif, 3 and 2 in b.tif, compressed and big-endian."""
    tifffile.imwrite(tmp_path / "a.tif", ARRAY[:2], metadata=None, photometric="minisblack", byteorder=">")
    tifffile.imwrite(tmp_path / "b.tif", ARRAY[3:1:-1], metadata=None, photometric="minisblack", compression="zlib")
    return tmp_path


def companion(folder, text):
    (folder / "v.companion.ome").write_text(text)
    return folder / "v.companion.ome"


PLANES = (data("a.tif", "0", "0", "2"), data("b.tif", "2", "1"), data("b.tif", "3"))


def test_several_pages_a_file_in_any_order(folder):
    tifffile.imwrite(folder / "a.tif", ARRAY[:2], metadata=None, photometric="minisblack")
    size = 'PhysicalSizeX="1.5" PhysicalSizeXUnit="nm" PhysicalSizeY="1.5" PhysicalSizeYUnit="nm" PhysicalSizeZ="0.002"'
    path = companion(folder, xml(*PLANES, attributes=size))
    with open_volume(path) as volume:
        assert volume.info.voxel_spacing == (20, 15, 15)
    np.testing.assert_array_equal(read_all(path), ARRAY)


def test_the_metadata_in_one_of_the_files(folder):
    tifffile.imwrite(folder / "a.tif", ARRAY[:2], metadata=None, photometric="minisblack", description=xml(*PLANES))
    np.testing.assert_array_equal(read_all(folder / "a.tif"), ARRAY)


def test_pages_without_a_count_are_all(folder):
    tifffile.imwrite(folder / "all.tif", ARRAY, metadata=None, photometric="minisblack")
    path = companion(folder, xml('<TiffData><UUID FileName="all.tif">urn:uuid:1</UUID></TiffData>'))
    np.testing.assert_array_equal(read_all(path), ARRAY)


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.tif", "sub/a.tif", "..", "", "C:\\\\a.tif", "b\\\\a.tif"])
def test_a_file_outside_the_folder_is_refused(folder, name):
    tifffile.imwrite(folder.parent / "secret.tif", ARRAY[0])
    with pytest.raises(FormatError, match="in the header's own folder"):
        open_volume(companion(folder, xml(*PLANES[:2], data(name, "3"))))


def test_a_companion_outside_the_folder_is_refused(folder):
    text = '<OME xmlns="x"><BinaryOnly MetadataFile="../v.companion.ome" UUID="urn:uuid:1"/></OME>'
    tifffile.imwrite(folder / "a.tif", ARRAY[:2], metadata=None, description=text, photometric="minisblack")
    companion(folder.parent, xml(*PLANES))
    with pytest.raises(FormatError, match="in the header's own folder"):
        open_volume(folder / "a.tif")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (xml(*PLANES[:2]), "none for z = 3"),
        (xml(*PLANES, size_z=5), "none for z = 4"),
        (xml(*PLANES, size_z=2**40), "none for z = 4"),
        (xml(data("a.tif", "0", "0", str(2**40)), size_z=2**40), "room for them"),
        (xml(*PLANES[:2], data("b.tif", "3", "2")), "expected a page 3, found 2 pages"),
        (xml(*PLANES[:2], data("b.tif", "-1")), "planes from 0 to 3"),
        (xml(*PLANES, size_c=2), "SizeC = 2"),
        (xml(*PLANES, size_z=0), "at least one voxel"),
        (xml(*PLANES, size_z="many"), "SizeX, SizeY and SizeZ"),
        (xml(*PLANES[:2], data("b.tif", "first")), "numbers and a file name"),
        (xml(*PLANES).replace('SizeY="5"', 'SizeY="50"'), "expected grey pages of 50 x 6"),
        (xml(*PLANES).replace("</OME>", ""), "expected XML"),
        (xml(*PLANES, head='<!DOCTYPE OME [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'), "without a document type"),
        ('<OME xmlns="x"></OME>', "OME-XML"),
    ],
)
def test_metadata_that_does_not_fit_the_files(folder, text, said):
    tifffile.imwrite(folder / "a.tif", ARRAY[:2], metadata=None, photometric="minisblack")
    with pytest.raises(FormatError, match=said):
        open_volume(companion(folder, text))


def test_files_of_unlike_dtype(folder):
    tifffile.imwrite(folder / "a.tif", ARRAY[:2].astype(np.uint8), metadata=None, photometric="minisblack")
    with pytest.raises(FormatError, match="expected voxels of one dtype in all files, found uint16, uint8"):
        open_volume(companion(folder, xml(*PLANES)))


def test_a_link_out_of_the_folder_is_told(folder, tmp_path_factory):
    tifffile.imwrite(folder / "a.tif", ARRAY[:2], metadata=None, photometric="minisblack")
    moved = tmp_path_factory.mktemp("elsewhere") / "b.tif"
    (folder / "b.tif").rename(moved)
    (folder / "b.tif").symlink_to(moved)
    path = companion(folder, xml(*PLANES))
    with open_volume(path) as volume:
        assert volume.info.warnings == ("b.tif is a symbolic link out of its folder; it was followed",)
    np.testing.assert_array_equal(read_all(path), ARRAY)
