"""HDF5: which dataset, what programs say of it, and files that reach for others."""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from keypatch.errors import FormatError, KeypatchError, MissingExtraError, ReadError
from keypatch.formats.volumes import VolumeOptions, open_volume

ARRAY = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)
UM = 1e4


def info_of(path, **options):
    with open_volume(path, VolumeOptions(**options)) as volume:
        return volume.info


def read_all(path, **options):
    with open_volume(path, VolumeOptions(**options)) as volume:
        return volume.read((0, 0, 0), volume.info.shape)


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "v.h5", "w") as opened:
        yield opened


def closed(file):
    path = file.filename
    file.close()
    return path


def refused(file, match, **options):
    with pytest.raises(KeypatchError, match=match) as raised:
        read_all(closed(file), **options)
    assert "\n" not in str(raised.value)


# ----- which dataset -----


def test_the_real_file(real_data):
    path = real_data / "hdf5/sample_ovule.h5"
    with pytest.raises(FormatError, match=r"label \(32 x 128 x 128\), raw \(32 x 128 x 128\); choose one with --array"):
        open_volume(path)
    with h5py.File(path) as file:
        expected = file["raw"][...]
    info = info_of(path, array="raw")
    assert (info.shape, info.dtype, info.access, info.warnings) == ((32, 128, 128), np.uint8, "region", ())
    assert info.voxel_spacing == pytest.approx((0.235 * UM, 0.15 * UM, 0.15 * UM))
    with open_volume(path, VolumeOptions(array="/raw")) as volume:
        np.testing.assert_array_equal(volume.read((0, 0, 0), (32, 128, 128)), expected)
        np.testing.assert_array_equal(volume.read((7, 30, 60), (9, 34, 68)), expected[7:9, 30:34, 60:68])
    assert info_of(path, array="label").dtype == np.uint16


def test_the_only_volume_is_found_among_other_things(file):
    file["deep/inside/volume"] = ARRAY
    file["table"] = np.zeros((5, 5))
    file["names"] = np.array([[[b"a"]]])
    file["records"] = np.zeros((2, 2, 2), [("a", "i4")])
    file["empty"] = h5py.Empty("f4")
    path = closed(file)
    np.testing.assert_array_equal(read_all(path), ARRAY)
    assert info_of(path).conventions["array"] == "deep/inside/volume"
    assert "were taken for z, y, x" in info_of(path).warnings[0]


@pytest.mark.parametrize("array", ["absent", "group/absent", "group", "volume/deeper", "", "../volume"])
def test_an_array_that_is_none(file, array):
    file["volume"] = ARRAY
    file["group/other"] = ARRAY
    refused(file, "expected", array=array)


def test_members_are_listed(file):
    file["group/one"], file["group/two"] = ARRAY, ARRAY
    refused(file, "found a group; choose one of its members with --array: one, two", array="group")


def test_many_candidates_are_counted(file):
    for number in range(200):
        file[f"d{number:03d}"] = ARRAY[:1, :1, :1]
    refused(file, r"d000 \(1 x 1 x 1\), .* and 92 more")


def test_nothing_that_could_be_a_volume(file):
    file["table"] = np.zeros((5, 5))
    refused(file, "expected a dataset of numbers with three axes, found none")


@pytest.mark.parametrize("dtype", ["c8", "S3", [("a", "i4")]])
def test_what_is_no_number(file, dtype):
    file["volume"] = np.zeros((2, 2, 2), dtype)
    refused(file, "integers or floats", array="volume")


def test_a_user_block_before_the_file(tmp_path):
    with h5py.File(tmp_path / "v.h5", "w", userblock_size=512) as file:
        file["volume"] = ARRAY
    np.testing.assert_array_equal(read_all(tmp_path / "v.h5"), ARRAY)


# ----- axes -----


def tags(names):
    return json.dumps({"axes": [{"key": name, "typeFlags": 2, "resolution": 0, "description": ""} for name in names]})


@pytest.mark.parametrize(("names", "shape", "order"), [
    ("zyx", (3, 4, 5), (0, 1, 2)), ("xyz", (5, 4, 3), (2, 1, 0)), ("tzyxc", (1, 3, 4, 5, 1), (1, 2, 3)),
    ("czyx", (1, 3, 4, 5), (1, 2, 3)), ("yxz", (4, 5, 3), (2, 0, 1)),
])  # fmt: skip
@pytest.mark.parametrize("by", ["axistags", "labels"])
def test_named_axes(file, names, shape, order, by):
    stored = np.arange(60, dtype=np.uint16).reshape(shape)
    dataset = file.create_dataset("exported_data", data=stored, chunks=True)
    if by == "axistags":
        dataset.attrs["axistags"] = tags(names)
    else:
        for dimension, name in zip(dataset.dims, names, strict=True):
            dimension.label = name
    path = closed(file)
    others = tuple(axis for axis in range(len(shape)) if axis not in order)
    expected = stored.transpose(*order, *others).reshape([shape[axis] for axis in order])
    np.testing.assert_array_equal(read_all(path), expected)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read((1, 2, 3), (3, 4, 5)), expected[1:3, 2:4, 3:5])
    assert info_of(path).conventions["inferred"] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (tags("czyx"), "names of 3 axes"),
        (tags("cyx"), "one axis each of z, y and x"),
        (tags("zyy"), "one axis each of z, y and x"),
        ("{", "axistags as VIGRA writes them"),
        ("[]", "axistags as VIGRA writes them"),
        ('{"axes": [1, 2, 3]}', "axistags as VIGRA writes them"),
    ],
)
def test_axistags_that_do_not_fit(file, text, said):
    file["exported_data"] = ARRAY
    file["exported_data"].attrs["axistags"] = text
    refused(file, said)


def test_several_channels_are_refused(file):
    file["exported_data"] = np.zeros((3, 4, 5, 2))
    file["exported_data"].attrs["axistags"] = tags("zyxc")
    refused(file, "write one index of c as a volume of its own", array="exported_data")


def test_axes_of_one_without_names_are_left_out_and_told(file):
    file["volume"] = ARRAY.reshape(1, 3, 1, 4, 5)
    path = closed(file)
    np.testing.assert_array_equal(read_all(path), ARRAY)
    assert "(1 x 3 x 1 x 4 x 5); those longer than 1 were taken for z, y, x" in info_of(path).warnings[0]


# ----- what programs write -----


class TestElementSize:
    @pytest.mark.parametrize("sizes", [[0.3, 0.2, 0.1], np.float32([0.3, 0.2, 0.1]), [0.3, 1, 0.2, 0.1]])
    def test_of_z_y_x(self, file, sizes):
        shape = (3, 1, 4, 5) if len(sizes) == 4 else (3, 4, 5)
        file["raw"] = ARRAY.reshape(shape)
        file["raw"].attrs["element_size_um"] = sizes
        assert info_of(closed(file)).voxel_spacing == pytest.approx((3000, 2000, 1000))

    @pytest.mark.parametrize("sizes", [[1.0, 2.0], "small", [0.0, 1, 1], [1, np.nan, 1], [-1, 1, 1]])
    def test_that_is_none(self, file, sizes):
        file["raw"] = ARRAY
        file["raw"].attrs["element_size_um"] = sizes
        info = info_of(closed(file))
        assert info.voxel_spacing is None
        assert "give --voxel-spacing" in info.warnings[0]


def eman2(file, array=ARRAY, number=0, **attributes):
    group = file.create_group(f"MDF/images/{number}")
    group["image"] = array
    for axis, size in zip("xyz", (1.5, 2.5, 13.48), strict=True):
        group.attrs[f"EMAN.apix_{axis}"] = np.float32(size)
    for key, value in attributes.items():
        group.attrs[f"EMAN.{key}"] = value


class TestEman2:
    def test_the_only_image(self, file):
        eman2(file)
        info = info_of(path := closed(file))
        assert info.voxel_spacing == (13.48, 2.5, 1.5)
        assert info.warnings == ()
        np.testing.assert_array_equal(read_all(path), ARRAY)

    def test_a_stack_is_listed(self, file):
        eman2(file)
        eman2(file, number=1)
        refused(file, "MDF/images/0/image .* MDF/images/1/image .* choose one with --array")

    def test_no_voxel_size(self, file):
        eman2(file)
        del file["MDF/images/0"].attrs["EMAN.apix_z"]
        assert info_of(closed(file)).voxel_spacing is None

    def test_rounded_densities_are_told(self, file):
        eman2(file, stored_renderbits=12, stored_rendermin=-3.5, stored_rendermax=4.5)
        info = info_of(closed(file))
        assert "stored densities of -3.5 to 4.5 as integers of 12 bits" in info.warnings[0]
        assert info.conventions["stored_renderbits"] == 12


def bdv(file, *, levels=3, setups=1, dtype=np.int16, data_type=None):
    for setup in range(setups):
        name = f"s{setup:02d}"
        # The file counts x, y, z: the second level halves x and y alone.
        file[f"{name}/resolutions"] = np.array([[1, 1, 1], [2, 2, 1], [4, 4, 2]][:levels], float)
        file[f"{name}/subdivisions"] = np.full((levels, 3), 16)
        if data_type:
            file[name].attrs["dataType"] = data_type
        for level in range(levels):
            shape = [(8, 16, 16), (8, 8, 8), (4, 4, 4)][level]
            data = np.arange(np.prod(shape)).reshape(shape) * 40 - (0 if np.dtype(dtype).kind == "u" else 1000)
            file[f"t00000/{name}/{level}/cells"] = data.astype(dtype)


def bdv_xml(path, unit="um", size="0.5 0.5 2", setup=0, head=""):
    path.with_suffix(".xml").write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>{head}<SpimData version="0.2"><SequenceDescription><ViewSetups>'
        f"<ViewSetup><id>7</id><voxelSize><unit>um</unit><size>9 9 9</size></voxelSize></ViewSetup><ViewSetup>"
        f"<id>{setup}</id><size>16 16 8</size><voxelSize><unit>{unit}</unit><size>{size}</size></voxelSize></ViewSetup>"
        "</ViewSetups></SequenceDescription></SpimData>"
    )


class TestBigDataViewer:
    @pytest.fixture
    def path(self, tmp_path, file):
        bdv(file)
        closed(file)
        return tmp_path / "v.h5"

    def test_the_finest_level_is_taken(self, path):
        bdv_xml(path)
        info = info_of(path)
        assert (info.shape, info.voxel_spacing) == ((8, 16, 16), (2 * UM, 0.5 * UM, 0.5 * UM))
        assert info.conventions["level"] == 0
        assert info.warnings == ()

    @pytest.mark.parametrize(
        ("spacing", "shape", "sizes"),
        [(0.8e4, (8, 16, 16), (2, 0.5, 0.5)), (1.3e4, (8, 8, 8), (2, 1, 1)), (2.5e4, (4, 4, 4), (4, 2, 2))],
    )
    def test_a_level_by_its_spacing(self, path, spacing, shape, sizes):
        bdv_xml(path)
        info = info_of(path, level_spacing=spacing)
        assert (info.shape, info.voxel_spacing) == (shape, tuple(size * UM for size in sizes))

    def test_a_spacing_that_no_level_has_is_told(self, path):
        bdv_xml(path)
        told = info_of(path, level_spacing=5e4).warnings[0]
        assert told.startswith("no level of 50000 Å; the nearest, t00000/s00/2/cells, has")

    def test_a_level_by_its_path(self, path):
        bdv_xml(path)
        assert info_of(path, array="t00000/s00/1/cells").voxel_spacing == (2 * UM, UM, UM)

    def test_without_the_xml(self, path):
        info = info_of(path)
        assert info.voxel_spacing is None
        assert "no v.xml beside the file gives a voxel size" in info.warnings[0]
        with pytest.raises(FormatError, match="levels with a spacing"):
            open_volume(path, VolumeOptions(level_spacing=1e4))

    @pytest.mark.parametrize("values", [{"unit": "pixel"}, {"size": "1 2"}, {"size": "a b c"}, {"setup": 3}])
    def test_an_xml_without_a_size(self, path, values):
        bdv_xml(path, **values)
        assert info_of(path).voxel_spacing is None

    def test_entities_are_refused(self, path):
        bdv_xml(path, head='<!DOCTYPE x [<!ENTITY a "b">]>')
        with pytest.raises(FormatError, match="without a document type"):
            open_volume(path)

    def test_int16_without_a_type_stands_for_uint16(self, path):
        with h5py.File(path) as opened:
            expected = opened["t00000/s00/0/cells"][...].view(np.uint16)
        assert expected.max() > 2**15
        np.testing.assert_array_equal(read_all(path), expected)
        assert info_of(path).conventions["stored_dtype"] == "int16, which stands for uint16"

    @pytest.mark.parametrize(("dtype", "data_type"), [("int16", "int16"), ("uint8", None), ("float32", "float32")])
    def test_other_types_are_what_they_are(self, file, dtype, data_type):
        bdv(file, dtype=dtype, data_type=data_type)
        assert info_of(closed(file)).dtype == np.dtype(dtype)

    def test_several_setups_are_listed(self, file):
        bdv(file, levels=1, setups=2)
        refused(file, "t00000/s00/0/cells .*, t00000/s01/0/cells .*; choose one with --array")


# ----- what reaches out of the file -----


@pytest.fixture
def secret(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["volume"] = ARRAY
    return "secret.h5"


def test_soft_links_inside_the_file_are_followed(file):
    file["real/volume"] = ARRAY
    file["link"] = h5py.SoftLink("/real")
    file["real/again"] = h5py.SoftLink("volume")
    path = closed(file)
    np.testing.assert_array_equal(read_all(path), ARRAY)
    np.testing.assert_array_equal(read_all(path, array="link/again"), ARRAY)
    assert info_of(path, array="link/again").conventions["array"] == "real/volume"


@pytest.mark.parametrize("target", ["/link", "/link/link", "/nowhere"])
def test_soft_links_that_lead_nowhere(file, target):
    file["volume"] = ARRAY
    file["link"] = h5py.SoftLink(target)
    refused(file, "expected", array="link")


def test_a_link_to_another_file_is_refused(file, secret):
    file["table"] = np.zeros((2, 2))
    file["out"] = h5py.ExternalLink(secret, "/volume")
    file["group"] = h5py.ExternalLink(secret, "/")
    file["soft"] = h5py.SoftLink("/group/volume")
    path = closed(file)
    with pytest.raises(FormatError, match="links to other files are not followed"):
        open_volume(path)
    for array in ("out", "group/volume", "soft"):
        with pytest.raises(FormatError, match=r"found a link to secret.h5; give the file"):
            open_volume(path, VolumeOptions(array=array))


def test_voxels_in_another_file_are_refused(file, tmp_path):
    (tmp_path / "raw").write_bytes(ARRAY.tobytes())
    file.create_dataset("volume", (3, 4, 5), "u2", external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)])
    refused(file, "found external or virtual storage")


def test_a_virtual_dataset_is_refused(file, secret):
    layout = h5py.VirtualLayout((3, 4, 5), "u2")
    layout[...] = h5py.VirtualSource(secret, "volume", (3, 4, 5))
    file.create_virtual_dataset("volume", layout)
    refused(file, "found external or virtual storage")


# ----- damage and lies -----


@pytest.mark.parametrize("options", [{}, {"chunks": (64, 64, 64)}])
def test_a_shape_that_no_file_holds(file, options):
    file.create_dataset("volume", (2**40, 2**40, 2**10) if options else (2**20, 2**20, 2**10), "u1", **options)
    refused(file, "to which none were ever written")


def test_chunks_that_were_never_written_are_told(file):
    dataset = file.create_dataset("volume", (4, 4, 4), "i2", chunks=(2, 4, 4), fillvalue=7)
    dataset[:2] = 1
    path = closed(file)
    assert "1 of 2 chunks were never written; they read as 7" in info_of(path).warnings[-1]
    assert read_all(path)[:, 0, 0].tolist() == [1, 1, 7, 7]


def test_a_chunk_too_large_to_decode(file):
    dataset = file.create_dataset("volume", (2**10, 2**10, 2**11), "u1", chunks=(2**10, 2**10, 2**11), compression=9)
    dataset.id.write_direct_chunk((0, 0, 0), b"\x78\x9c")
    refused(file, "chunks of at most 1073741824 bytes, found chunks of 2147483648 bytes; write it anew")


def test_a_compression_that_is_not_there(file):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((3, 4, 5))
    properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((3, 4, 5))
    made = h5py.h5d.create(file.id, b"volume", h5py.h5t.NATIVE_UINT16, space, properties)
    h5py.Dataset(made).id.write_direct_chunk((0, 0, 0), ARRAY.tobytes())
    refused(file, r"a compression that h5py decodes, found .*filter 32001.*h5repack")


def test_a_damaged_chunk_is_an_error_where_it_is_read(file, tmp_path):
    data = np.random.default_rng(0).integers(0, 9, (4, 30, 30), np.uint8)
    dataset = file.create_dataset("volume", data=data, chunks=(2, 30, 30), compression="gzip")
    place = dataset.id.get_chunk_info(1)
    path = closed(file)
    with Path(path).open("r+b") as raw:
        raw.seek(place.byte_offset + place.size // 2)
        raw.write(b"\xff" * 9)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read((0, 0, 0), (2, 30, 30)), data[:2])
        with pytest.raises(ReadError, match="chunks that decode"):
            volume.read((0, 0, 0), (4, 30, 30))


def test_a_missing_library_names_its_extra(file, monkeypatch):
    file["volume"] = ARRAY
    path = closed(file)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'keypatch\[hdf5\]'"):
        open_volume(path)


def _sum(volume, queue):
    queue.put(int(volume.read((0, 0, 0), volume.info.shape).sum()))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_opens_the_file_anew(file):
    file.create_dataset("volume", data=ARRAY, chunks=(1, 4, 5), compression="gzip")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with open_volume(closed(file)) as volume:
        volume.read((0, 0, 0), (1, 1, 1))
        children = [context.Process(target=_sum, args=(volume, queue)) for _ in range(4)]
        for child in children:
            child.start()
        sums = [queue.get(timeout=30) for _ in children]
        for child in children:
            child.join(30)
        np.testing.assert_array_equal(volume.read((0, 0, 0), (3, 4, 5)), ARRAY)
    assert sums == [int(ARRAY.sum())] * 4
