"""Zarr and OME-Zarr: real images, axes in any order, pyramids, and metadata that is damaged or wants too much."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr

from keypatch.errors import FormatError, ReadError
from keypatch.formats.volumes import VolumeOptions, open_volume

UM = 1e4


def info_of(path, **options):
    with open_volume(path, VolumeOptions(**options)) as volume:
        return volume.info


def read_all(path, **options):
    with open_volume(path, VolumeOptions(**options)) as volume:
        return volume.read((0, 0, 0), volume.info.shape)


def multiscales(axes, *levels, unit="angstrom", **more):
    """Attributes of version 0.4: levels are (path, scale) or (path, scale, translation)."""
    named = [{"name": n, "type": "space", **({"unit": unit} if unit and n in "xyz" else {})} for n in axes]
    datasets = [
        {
            "path": path,
            "coordinateTransformations": [{"type": "scale", "scale": scale}]
            + [{"type": "translation", "translation": offset} for offset in translation],
        }
        for path, scale, *translation in levels
    ]
    return {"multiscales": [{"version": "0.4", "axes": named, "datasets": datasets, **more}]}


def image(path, attributes, zarr_format=2, **arrays):
    if zarr_format == 3:
        attributes = {"ome": {"version": "0.5", **attributes}}
    zarr.create_group(path, attributes=attributes, zarr_format=zarr_format)
    for name, data in arrays.items():
        zarr.create_array(path / name.lstrip("_"), data=data, zarr_format=zarr_format)
    return path


def counted(*shape):
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


REAL_VOLUMES = {
    # path: shape, dtype, Å z y x, translation in the file's unit, words of the warnings
    "portal_input_omezarr.zarr": ((4, 4, 4), "float32", (14.08, 14.08, 14.08), [0, 0, 0], ["no unit"]),
    "portal_input_omezarr.zarr/0": ((4, 4, 4), "float32", (14.08, 14.08, 14.08), [0, 0, 0], ["no unit"]),
    "plantseg_3d.zarr/raw": ((10, 10, 10), "float64", None, None, ["does not name its axes"]),
    "plantseg_3d.zarr/raw_2": ((10, 10, 10), "float64", None, None, ["does not name its axes"]),
    "neuroglancer_all_0.6/basic/identity.zarr": ((27, 226, 186), "uint8", (UM, UM, UM), [0, 0, 0], []),
    "neuroglancer_all_0.6/basic/scale.zarr": ((27, 226, 186), "uint8", (4 * UM, 3 * UM, 2 * UM), [0, 0, 0], []),
    "neuroglancer_all_0.6/basic/translation.zarr": ((27, 226, 186), "uint8", (UM, UM, UM), [30, 20, 10], []),
    "neuroglancer_all_0.6/basic/sequenceScaleTranslation.zarr": (
        (27, 226, 186), "uint8", (4 * UM, 3 * UM, 2 * UM), [32, 21, 10], [],
    ),
    # z of the coordinates is the array's second axis, y its third and x its first.
    "neuroglancer_all_0.6/axis_dependent/mapAxis.zarr": ((226, 186, 27), "uint8", (UM, UM, UM), [0, 0, 0], []),
    "neuroglancer_all_0.6/simple/affine.zarr": (
        (27, 226, 186), "uint8", (4 * UM, 3 * UM, 2 * UM), [32, 21, 10], [],
    ),
    "neuroglancer_all_0.6/simple/rotation.zarr": ((27, 226, 186), "uint8", (UM, UM, UM), [0, 0, 0], []),
    "neuroglancer_all_0.6/simple/anisotropic_rotation.zarr": (
        (27, 226, 186), "uint8", (2 * UM, 0.5 * UM, 0.25 * UM), [0, 0, 0], ["other coordinate systems"],
    ),
}  # fmt: skip

REAL_REFUSALS = {
    "viv_blobs_v05.ome.zarr": "axes c, y, x of shape 3 x 12 x 12",
    "neuroglancer_simple_0.4": "axes y, x of shape 10 x 10",
    "neuroglancer_simple_0.5": "axes y, x of shape 10 x 10",
    "plantseg_3d.zarr": r"the arrays raw, raw_2; choose one with --array",
    "neuroglancer_all_0.6": "one of the formats",
}

ARRAYS = {"portal_input_omezarr.zarr": "0", "neuroglancer_all_0.6": "array"}


def test_no_real_zarr_is_left_out(real_data):
    root = real_data / "ome-zarr"
    stores = {path.relative_to(root).as_posix() for path in [*root.iterdir(), *root.glob("neuro*/*/*.zarr")]}
    assert stores <= {*REAL_VOLUMES, *REAL_REFUSALS}


@pytest.mark.parametrize("name", REAL_VOLUMES)
def test_real_volumes(real_data, name):
    shape, dtype, spacing, translation, warnings = REAL_VOLUMES[name]
    path = real_data / "ome-zarr" / name
    array = path if not ARRAYS.get(name.split("/")[0]) or name.endswith("/0") else path / ARRAYS[name.split("/")[0]]
    driver = "zarr" if (array / ".zarray").is_file() else "zarr3"
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{array}/"}}
    expected = tensorstore.open(spec, read=True).result().read().result()
    expected = expected.T if name.startswith("portal") else expected
    expected = expected.transpose(1, 2, 0) if "mapAxis" in name else expected
    with open_volume(path) as volume:
        info = volume.info
        assert (info.shape, info.dtype, info.voxel_spacing) == (shape, np.dtype(dtype), spacing)
        assert info.conventions.get("translation_zyx") == translation
        assert [word in line for word, line in zip(warnings, info.warnings, strict=True)] == [True] * len(warnings)
        np.testing.assert_array_equal(volume.read((0, 0, 0), shape), expected)
        np.testing.assert_array_equal(volume.read((1, 2, 3), shape), expected[1:, 2:, 3:])


@pytest.mark.parametrize("name", REAL_REFUSALS)
def test_real_refusals(real_data, name):
    with pytest.raises(FormatError, match=REAL_REFUSALS[name]):
        open_volume(real_data / "ome-zarr" / name)


def test_array_by_option(real_data):
    info = info_of(real_data / "ome-zarr" / "plantseg_3d.zarr", array="raw_2")
    assert info.shape == (10, 10, 10)
    assert info.path == real_data / "ome-zarr" / "plantseg_3d.zarr"
    assert info.conventions["array"] == "raw_2"


def test_czii_denoised(tmp_path):
    """What the CZII set's denoised.zarr declares: z, y, x in angstrom, 10.012 at level 0, doubling."""
    attributes = multiscales("zyx", ("0", [10.012] * 3), ("1", [20.024] * 3), ("2", [40.048] * 3))
    path = image(tmp_path / "denoised.zarr", attributes, _0=counted(8, 8, 8), _1=counted(4, 4, 4), _2=counted(2, 2, 2))
    assert info_of(path).voxel_spacing == (10.012, 10.012, 10.012)
    assert info_of(path).shape == (8, 8, 8)
    assert info_of(path).warnings == ()


class TestLevels:
    @pytest.fixture
    def pyramid(self, tmp_path):
        attributes = multiscales(
            "zyx",
            ("0", [1.0, 1.0, 1.0]),
            ("1", [2.0, 2.0, 2.0], [0.5, 0.5, 0.5]),
            ("2", [4.0, 4.0, 4.0], [1.5, 1.5, 1.5]),
            unit="nanometer",
        )
        return image(tmp_path / "p.zarr", attributes, 3, _0=counted(8, 8, 8), _1=counted(4, 4, 4), _2=counted(2, 2, 2))

    def test_the_finest_is_taken(self, pyramid):
        assert info_of(pyramid).voxel_spacing == (10, 10, 10)
        assert info_of(pyramid).conventions["ome_version"] == "0.5"

    @pytest.mark.parametrize(("asked", "shape", "n_warnings"), [(20, 4, 0), (20.4, 4, 0), (13, 8, 1), (1000, 2, 1)])
    def test_the_nearest_spacing(self, pyramid, asked, shape, n_warnings):
        info = info_of(pyramid, level_spacing=asked)
        assert info.shape == (shape,) * 3
        assert len(info.warnings) == n_warnings

    def test_a_level_by_path(self, pyramid):
        info = info_of(pyramid, array="1")
        assert info.voxel_spacing == (20, 20, 20)
        assert info.conventions["translation_zyx"] == [0.5, 0.5, 0.5]
        assert info.conventions["translation_applied"] is False

    def test_a_level_as_a_path_of_its_own(self, pyramid):
        assert info_of(pyramid / "2").voxel_spacing == (40, 40, 40)

    def test_a_level_in_a_nested_group(self, tmp_path):
        path = image(tmp_path / "n.zarr", multiscales("xyz", ("scale0/image", [2.0, 3.0, 4.0])))
        zarr.open_group(path).create_group("scale0")
        zarr.create_array(path / "scale0" / "image", data=counted(2, 3, 4), zarr_format=2)
        for info in (info_of(path), info_of(path / "scale0" / "image"), info_of(path, array="scale0/image")):
            assert info.voxel_spacing == (4, 3, 2)
            assert info.shape == (4, 3, 2)

    def test_a_coarser_level_first_is_refused(self, tmp_path):
        attributes = multiscales("zyx", ("1", [2.0] * 3), ("0", [1.0] * 3))
        path = image(tmp_path / "p.zarr", attributes, _0=counted(4, 4, 4), _1=counted(2, 2, 2))
        with pytest.raises(FormatError, match="expected the finest level first, found 0, finer than 1"):
            open_volume(path)
        assert info_of(path, array="0").voxel_spacing == (1, 1, 1)

    def test_a_scale_that_all_levels_share(self, tmp_path):
        shared = [{"type": "scale", "scale": [10.0, 10.0, 5.0]}, {"type": "translation", "translation": [1, 2, 3]}]
        attributes = multiscales("zyx", ("0", [1.0, 2.0, 3.0], [7.0, 0.0, 1.0]), coordinateTransformations=shared)
        info = info_of(image(tmp_path / "p.zarr", attributes, _0=counted(2, 2, 2)))
        assert info.voxel_spacing == (10, 20, 15)
        assert info.conventions["translation_zyx"] == [71, 2, 8]


class TestAxes:
    @pytest.mark.parametrize("axes", ["zyx", "xyz", "yzx", "xzy", "zxy", "yxz"])
    @pytest.mark.parametrize("zarr_format", [2, 3])
    def test_any_order_is_read_as_zyx(self, tmp_path, axes, zarr_format):
        volume = counted(3, 4, 5)
        stored = np.einsum("zyx->" + axes, volume)
        scale = [{"z": 3.0, "y": 2.0, "x": 1.0}[axis] for axis in axes]
        path = image(tmp_path / "v.zarr", multiscales(axes, ("0", scale)), zarr_format, _0=stored)
        with open_volume(path) as opened:
            assert opened.info.voxel_spacing == (3, 2, 1)
            np.testing.assert_array_equal(opened.read((1, 0, 2), (3, 3, 5)), volume[1:3, 0:3, 2:5])

    def test_axes_of_length_1_are_dropped(self, tmp_path):
        path = image(tmp_path / "v.zarr", multiscales("tczyx", ("0", [1.0] * 5)), _0=counted(1, 1, 2, 3, 4))
        np.testing.assert_array_equal(read_all(path), counted(2, 3, 4))

    def test_a_channel_at_the_end(self, tmp_path):
        path = image(tmp_path / "v.zarr", multiscales("xyzc", ("0", [1.0] * 4)), _0=counted(2, 3, 4, 1))
        np.testing.assert_array_equal(read_all(path), counted(2, 3, 4).T)

    def test_more_channels_are_refused(self, tmp_path):
        path = image(tmp_path / "v.zarr", multiscales("tczyx", ("0", [1.0] * 5)), _0=counted(2, 3, 2, 3, 4))
        with pytest.raises(FormatError, match="one index of t and c as a volume of its own"):
            open_volume(path)

    def test_fewer_names_than_axes(self, tmp_path):
        path = image(tmp_path / "v.zarr", multiscales("zyx", ("0", [1.0] * 3)), _0=counted(1, 2, 3, 4))
        with pytest.raises(FormatError, match="names of 4 axes"):
            open_volume(path)

    def test_dimension_names_of_a_plain_array(self, tmp_path):
        zarr.create_array(tmp_path / "v.zarr", data=counted(2, 3, 4), dimension_names=["x", "y", "z"])
        info = info_of(tmp_path / "v.zarr")
        assert info.shape == (4, 3, 2)
        assert info.conventions["axes_from"] == "dimension names"
        assert info.warnings == ()

    def test_dimension_names_that_are_no_volume(self, tmp_path):
        zarr.create_array(tmp_path / "v.zarr", data=counted(2, 3, 4), dimension_names=["t", "y", "x"])
        with pytest.raises(FormatError, match="one axis each of z, y and x, found axes t, y, x"):
            open_volume(tmp_path / "v.zarr")

    def test_xarray_names(self, tmp_path):
        attributes = {"_ARRAY_DIMENSIONS": ["x", "z", "y"]}
        zarr.create_array(tmp_path / "v.zarr", data=counted(2, 3, 4), zarr_format=2, attributes=attributes)
        assert info_of(tmp_path / "v.zarr").shape == (3, 4, 2)

    @pytest.mark.parametrize("shape", [(4,), (3, 4), (1, 2, 3, 4)])
    def test_a_plain_array_of_other_than_three_axes(self, tmp_path, shape):
        zarr.create_array(tmp_path / "v.zarr", data=counted(*shape))
        with pytest.raises(FormatError, match="a volume of 3 axes"):
            open_volume(tmp_path / "v.zarr")


class TestSpacing:
    def info(self, tmp_path, unit, scale=(1.0, 1.0, 1.0)):
        attributes = multiscales("zyx", ("0", list(scale)), unit=unit)
        return info_of(image(tmp_path / "v.zarr", attributes, _0=counted(2, 2, 2)))

    @pytest.mark.parametrize(
        ("unit", "angstrom"), [("angstrom", 1), ("nanometer", 10), ("micrometer", 1e4), ("meter", 1e10)]
    )
    def test_units(self, tmp_path, unit, angstrom):
        info = self.info(tmp_path, unit)
        assert info.voxel_spacing == (angstrom,) * 3
        assert info.conventions["inferred"] == []

    def test_no_unit_is_angstrom_and_told(self, tmp_path):
        info = self.info(tmp_path, None, (13.48, 13.48, 13.48))
        assert info.voxel_spacing == (13.48, 13.48, 13.48)
        assert info.conventions["inferred"] == ["unit"]
        assert info.warnings == ("the axes have no unit; Å was assumed",)

    def test_a_unit_that_is_no_length(self, tmp_path):
        info = self.info(tmp_path, "pixel")
        assert info.voxel_spacing is None
        assert "no length" in info.warnings[0]

    @pytest.mark.parametrize("scale", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0)])
    def test_a_scale_that_is_none(self, tmp_path, scale):
        info = self.info(tmp_path, "angstrom", scale)
        assert info.voxel_spacing is None
        assert "no usable voxel spacing" in info.warnings[0]

    @pytest.mark.parametrize(("axes", "shape"), [(["z", "y", "x"], (2, 3, 4)), (None, (1, 1, 2, 3, 4))])
    def test_older_versions_without_a_scale(self, tmp_path, axes, shape):
        entry = {"version": "0.3", "datasets": [{"path": "0"}], **({"axes": axes} if axes else {})}
        path = image(tmp_path / "v.zarr", {"multiscales": [entry]}, _0=counted(*shape))
        assert info_of(path).shape == (2, 3, 4)
        assert info_of(path).voxel_spacing is None
        assert "gives no scale" in info_of(path).warnings[0]
        with pytest.raises(FormatError, match="levels with a spacing"):
            info_of(path, level_spacing=10)


def test_two_images_in_a_group_are_told(tmp_path):
    attributes = multiscales("zyx", ("0", [1.0] * 3))
    attributes["multiscales"] *= 2
    path = image(tmp_path / "v.zarr", attributes, _0=counted(2, 2, 2))
    assert "2 images; the first was taken" in info_of(path).warnings[0]


def test_a_group_with_a_single_array(tmp_path):
    path = image(tmp_path / "v.zarr", {}, 2, volume=counted(2, 3, 4))
    assert info_of(path).conventions["array"] == "volume"


def test_a_group_of_groups_is_listed(tmp_path):
    zarr.open_group(tmp_path / "v.zarr", mode="w").create_group("labels")
    with pytest.raises(FormatError, match="found no array and the groups labels; choose one with --array"):
        open_volume(tmp_path / "v.zarr")


def test_an_array_in_a_group_in_a_group(tmp_path):
    zarr.create_group(tmp_path / "v.zarr").create_group("images")
    image(tmp_path / "v.zarr" / "images" / "a", multiscales("xyz", ("0", [1.0, 2.0, 3.0])), _0=counted(2, 3, 4))
    info = info_of(tmp_path / "v.zarr", array="images/a")
    assert info.voxel_spacing == (3, 2, 1)
    assert info.conventions["array"] == "images/a/0"


@pytest.mark.parametrize("path", ["../other", "/etc", "a/../../b", ""])
def test_an_array_outside_is_refused(tmp_path, path):
    zarr.create_array(tmp_path / "other", data=counted(2, 2, 2))
    image(tmp_path / "v.zarr", {}, 2)
    with pytest.raises(FormatError, match="inside"):
        open_volume(tmp_path / "v.zarr", VolumeOptions(array=path))
    image(tmp_path / "w.zarr", multiscales("zyx", (path, [1.0] * 3)))
    with pytest.raises(FormatError, match="a dataset path inside the group"):
        open_volume(tmp_path / "w.zarr")


def test_an_array_that_is_not_there(tmp_path):
    image(tmp_path / "v.zarr", multiscales("zyx", ("0", [1.0] * 3)))
    with pytest.raises(ReadError):
        open_volume(tmp_path / "v.zarr")
    with pytest.raises(ReadError):
        open_volume(tmp_path / "v.zarr", VolumeOptions(array="1"))


@pytest.mark.parametrize("dtype", ["complex64", "S3", "M8[s]"])
@pytest.mark.parametrize("zarr_format", [2])
def test_what_is_no_number(tmp_path, dtype, zarr_format):
    zarr.create_array(tmp_path / "v.zarr", shape=(2, 2, 2), chunks=(2, 2, 2), dtype=dtype, zarr_format=zarr_format)
    with pytest.raises(FormatError, match="integers or floats"):
        open_volume(tmp_path / "v.zarr")


def test_an_absent_chunk_is_the_fill_value(tmp_path):
    array = zarr.create_array(tmp_path / "v.zarr", shape=(4, 4, 4), chunks=(2, 4, 4), dtype="i2", fill_value=7)
    array[:2] = 1
    assert read_all(tmp_path / "v.zarr")[:, 0, 0].tolist() == [1, 1, 7, 7]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_damaged_chunk_is_an_error_where_it_is_read(tmp_path, zarr_format):
    zarr.create_array(tmp_path / "v.zarr", data=counted(4, 4, 4), chunks=(2, 4, 4), zarr_format=zarr_format)
    chunk = tmp_path / "v.zarr" / ("1.0.0" if zarr_format == 2 else "c/1/0/0")
    chunk.write_bytes(chunk.read_bytes()[:-4])
    with open_volume(tmp_path / "v.zarr") as volume:
        np.testing.assert_array_equal(volume.read((0, 0, 0), (2, 4, 4)), counted(4, 4, 4)[:2])
        with pytest.raises(ReadError, match="chunks that decode"):
            volume.read((1, 0, 0), (3, 4, 4))


def broken(**change):
    entry = multiscales("zyx", ("0", [1.0] * 3))["multiscales"][0]
    return {"multiscales": [{**entry, **change}]}


@pytest.mark.parametrize(
    "attributes",
    [
        {"multiscales": "yes"},
        {"multiscales": [3]},
        {"multiscales": {"axes": []}},
        broken(datasets=[]),
        broken(datasets=None),
        broken(datasets=[{"path": 0}]),
        broken(datasets=[{}]),
        broken(datasets=[{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": ["big", 1, 1]}]}]),
        broken(datasets=[{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]}]),
        broken(datasets=[{"path": "0", "coordinateTransformations": [{"scale": [1, 1, 1]}]}]),
        broken(datasets=[{"path": "0", "coordinateTransformations": [{"type": "scale", "path": "numbers"}]}]),
        broken(axes=[{"type": "space"}] * 3),
        broken(axes=[1, 2, 3]),
        broken(axes="zyxzyx"),
        broken(coordinateSystems=[{"name": "other"}]),
    ],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_metadata_that_is_not_to_the_specification(tmp_path, attributes, zarr_format):
    path = image(tmp_path / "v.zarr", attributes, zarr_format, _0=counted(2, 2, 2))
    with pytest.raises(FormatError):
        open_volume(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"zarr_format": 3}', '{"zarr_format": 9, "node_type": "array"}']
)
def test_metadata_that_is_not_json_of_zarr(tmp_path, text):
    zarr.create_array(tmp_path / "v.zarr", data=counted(2, 2, 2))
    (tmp_path / "v.zarr" / "zarr.json").write_text(text)
    with pytest.raises(ReadError):
        open_volume(tmp_path / "v.zarr")


def test_stray_files_and_stale_consolidation_do_no_harm(tmp_path):
    path = image(tmp_path / "v.zarr", {}, 2, one=counted(2, 3, 4))
    zarr.consolidate_metadata(path)
    shutil.copytree(path / "one", path / "two")
    (path / "README.txt").write_text("hello")
    with pytest.raises(FormatError, match="the arrays one, two"):
        open_volume(path)


@pytest.mark.parametrize("place", ["chunk", "a.zarr/chunk"])
def test_symbolic_links_to_chunks_are_followed_and_told_if_they_lead_out(tmp_path, place):
    zarr.create_array(tmp_path / "a.zarr", data=counted(2, 2, 2), chunks=(2, 2, 2), compressors=None)
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0" / "0"
    moved = chunk.rename(tmp_path / place)
    chunk.symlink_to(moved)
    np.testing.assert_array_equal(read_all(tmp_path / "a.zarr"), counted(2, 2, 2))
    told = [line for line in info_of(tmp_path / "a.zarr").warnings if "link" in line]
    out = ["c/0/0/0 is a symbolic link out of the Zarr; it was followed, and others like it are"]
    assert told == (out if place == "chunk" else [])


def test_a_link_to_the_whole_zarr_is_no_link_out_of_it(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=counted(2, 2, 2))
    (tmp_path / "b.zarr").symlink_to(tmp_path / "a.zarr")
    assert not [line for line in info_of(tmp_path / "b.zarr").warnings if "link" in line]


def test_a_relative_path(tmp_path, monkeypatch):
    path = image(tmp_path / "v.zarr", multiscales("xyz", ("0", [1.0, 2.0, 3.0])), _0=counted(2, 3, 4))
    monkeypatch.chdir(path)
    assert info_of(Path("0")).voxel_spacing == (3, 2, 1)
    assert json.loads(json.dumps(dict(info_of(Path()).conventions)))["array"] == "0"
