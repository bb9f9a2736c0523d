"""World coordinates of volumes, against the library of each format, a header read by hand, or a formula written out."""

from __future__ import annotations

import re
import struct

import mrcfile
import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.trials import trials

from keypatch import geometry
from keypatch.formats.volumes import open_volume

MM = 1e7
"""Å."""


def info_of(path):
    with open_volume(path) as volume:
        return volume.info


def random_indices(shape, n=20, seed=0):
    """(n, 3) indices z, y, x, also between voxels and outside."""
    return np.random.default_rng(seed).uniform(-3, 1.5, (n, 3)) * np.asarray(shape)


def world_zyx(info, indices):
    affine = np.asarray(info.world)
    return indices @ affine[:3, :3].T + affine[:3, 3]


def check(info, lps_mm_of_xyz, rtol=1e-9):
    """Compare with a function of another library: index x, y, z to LPS x, y, z in mm; both ways."""
    indices = random_indices(info.shape)
    expected = np.array([lps_mm_of_xyz(index[::-1]) for index in indices])[:, ::-1] * MM
    scale = np.abs(expected).max() + 1
    np.testing.assert_allclose(world_zyx(info, indices), expected, rtol=0, atol=rtol * scale)
    back = geometry.voxel_index(expected, unit="angstrom", zero="world", world=info.world)
    np.testing.assert_allclose(back, indices, rtol=0, atol=1e-6 + 1000 * rtol)
    lengths = np.linalg.norm(np.asarray(info.world)[:3, :3], axis=0)
    np.testing.assert_allclose(info.voxel_spacing, lengths, rtol=3e-7)  # NIfTI's spacing is that of a float32


def by_nibabel(path):
    affine = nibabel.load(path).affine

    def lps(index):
        return np.array([-1, -1, 1]) * (affine @ [*index, 1.0])[:3]

    return lps


def by_simpleitk(path):
    image = SimpleITK.ReadImage(str(path))
    return lambda index: image.TransformContinuousIndexToPhysicalPoint([float(i) for i in index])


REAL_NIFTI = [
    "nifti/anatomical.nii",
    "nifti/shear.nii.gz",
    "matched/afids_mni/tpl-MNI152NLin2009cAsym_res-02_T1w.nii.gz",
]
REAL_ITK = ["metaimage/mha.mha", "metaimage/image10x10x10.mhd", "nrrd/FLAIR.nrrd", "nrrd/image10x11x12_compressed.nhdr"]


@pytest.mark.parametrize("name", REAL_NIFTI)
def test_real_nifti_as_nibabel(real_data, name):
    check(info_of(real_data / name), by_nibabel(real_data / name))


@pytest.mark.parametrize("name", REAL_ITK)
def test_real_images_as_simpleitk(real_data, name):
    check(info_of(real_data / name), by_simpleitk(real_data / name))


def test_the_sheared_image_has_a_shear(real_data):
    linear = np.asarray(info_of(real_data / "nifti/shear.nii.gz").world)[:3, :3]
    assert abs(linear[:, 0] @ linear[:, 1]) > 0.05 * np.linalg.norm(linear[:, 0]) * np.linalg.norm(linear[:, 1])


def test_a_real_nrrd_by_hand(real_data):
    """Space LPS, so that the header's own numbers are the world's."""
    text = (real_data / "nrrd/FLAIR.nrrd").read_bytes().split(b"\n\n")[0].decode()
    numbers = {key: re.search(rf"^{key}: (.*)$", text, re.MULTILINE)[1] for key in ("space directions", "space origin")}
    directions = np.array(re.findall(r"[-+.\de]+", numbers["space directions"]), float).reshape(3, 3)
    origin = np.array(re.findall(r"[-+.\de]+", numbers["space origin"]), float)
    check(info_of(real_data / "nrrd/FLAIR.nrrd"), lambda index: origin + index @ directions)


# ----- generated -----


def rotations():
    """Orthonormal (3, 3) matrices, mirrored ones too."""
    numbers = st.lists(st.floats(-1, 1), min_size=9, max_size=9).map(lambda n: np.reshape(n, (3, 3)) + 3 * np.eye(3))
    return numbers.map(lambda m: np.linalg.qr(m)[0])


placements = st.fixed_dictionaries(
    {
        "rotation": rotations(),
        "spacing": st.lists(st.floats(0.1, 9), min_size=3, max_size=3),
        "origin": st.lists(st.floats(-500, 500), min_size=3, max_size=3),
    }
)
hypothesis_in_a_folder = settings(
    max_examples=trials(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ARRAY = np.zeros((4, 5, 6), np.int16)


@hypothesis_in_a_folder
@given(placement=placements)
@pytest.mark.parametrize("name", ["v.mha", "v.nrrd", "v.nii", "v.nhdr", "v.mhd"])
def test_any_rotation_as_simpleitk_writes_it(tmp_path, name, placement):
    """NIfTI's header holds single precision; so does what nibabel then reads."""
    image = SimpleITK.GetImageFromArray(ARRAY)
    image.SetDirection(placement["rotation"].ravel().tolist())
    image.SetSpacing(placement["spacing"])
    image.SetOrigin(placement["origin"])
    SimpleITK.WriteImage(image, str(tmp_path / name))
    read = by_nibabel if name == "v.nii" else by_simpleitk
    check(info_of(tmp_path / name), read(tmp_path / name))


def test_the_matrix_of_metaimage_is_one_of_columns(tmp_path):
    """The axes go to y, z and x: TransformMatrix's first three numbers are where the first axis points."""
    header = (
        "ObjectType = Image\nNDims = 3\nTransformMatrix = 0 1 0 0 0 1 1 0 0\nOffset = 10 20 30\n"
        "ElementSpacing = 2 3 4\nCenterOfRotation = 7 8 9\nDimSize = 2 2 2\n"
        "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "v.mha").write_bytes(header.encode() + bytes(8))
    info = info_of(tmp_path / "v.mha")
    check(info, by_simpleitk(tmp_path / "v.mha"))
    assert world_zyx(info, np.array([[0, 0, 1]])).tolist() == [[30 * MM, 22 * MM, 10 * MM]]  # one along x: 2 mm of y
    assert info.voxel_spacing == (4 * MM, 3 * MM, 2 * MM)


@pytest.mark.parametrize("offset", ["Offset", "Position", "Origin"])
@pytest.mark.parametrize("matrix", ["TransformMatrix", "Rotation", "Orientation"])
def test_metaimage_by_its_other_names(tmp_path, offset, matrix):
    header = (
        f"NDims = 3\n{matrix} = 0 1 0 1 0 0 0 0 1\n{offset} = 1 2 3\nElementSize = 2 3 4\n"
        "DimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "v.mha").write_bytes(header.encode() + bytes(8))
    check(info_of(tmp_path / "v.mha"), by_simpleitk(tmp_path / "v.mha"))


@pytest.mark.parametrize(
    ("space", "to_lps"),
    [
        ("left-posterior-superior", (1, 1, 1)), ("LPS", (1, 1, 1)), ("right-anterior-superior", (-1, -1, 1)),
        ("RAS", (-1, -1, 1)), ("left-anterior-superior", (1, -1, 1)), ("Right-Anterior-Superior", (-1, -1, 1)),
    ],
)  # fmt: skip
def test_spaces_of_nrrd(tmp_path, space, to_lps):
    directions = np.array([[0, 2, 0], [3, 0, 0.5], [0, 0, 4.0]])
    header = {"space": space, "space directions": directions, "space origin": np.array([5.0, 6, 7])}
    nrrd.write(str(tmp_path / "v.nrrd"), ARRAY, {**header, "space units": ["mm"] * 3}, index_order="C")
    info = info_of(tmp_path / "v.nrrd")
    check(info, lambda index: np.array(to_lps) * (directions.T @ index + [5, 6, 7]))
    assert info.warnings == ()
    assert info.conventions["inferred"] == []


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-right-handed", None])
def test_spaces_without_an_anatomy_stay_and_are_told(tmp_path, space):
    header = {"space directions": np.diag([1.0, 2, 3]), "space origin": np.array([5.0, 6, 7])}
    header |= {"space": space} if space else {"space dimension": 3}
    nrrd.write(str(tmp_path / "v.nrrd"), ARRAY, header, index_order="C")
    info = info_of(tmp_path / "v.nrrd")
    check(info, lambda index: np.array([1, 2, 3]) * index + [5, 6, 7])
    assert "were taken as they are, not turned to LPS" in info.warnings[0]


def nifti(path, sform=None, qform=None, codes=(1, 1), unit="mm"):
    image = nibabel.Nifti1Image(ARRAY.T, None)
    image.header.set_xyzt_units(unit)
    if sform is not None:
        image.set_sform(sform, codes[0])
    if qform is not None:
        image.set_qform(qform, codes[1])
    image.to_filename(path)
    return path


SINGLE = 1e-6
"""NIfTI 1 holds its forms in single precision."""

SFORM = np.array([[2, 0.3, 0, -4], [0, 3, 0, 5], [0.1, 0, -4, 6], [0, 0, 0, 1.0]])
QFORM = np.array([[0, -2, 0, 7], [2, 0, 0, 8], [0, 0, 2, 9], [0, 0, 0, 1.0]])


class TestForms:
    def test_the_sform_goes_before_the_qform_and_the_difference_is_told(self, tmp_path):
        path = nifti(tmp_path / "v.nii", SFORM, QFORM)
        info = info_of(path)
        check(info, by_nibabel(path))
        check(info, lambda index: [-1, -1, 1] * (SFORM @ [*index, 1])[:3], SINGLE)
        assert "sform and qform put a corner" in info.warnings[0]

    def test_the_qform_alone(self, tmp_path):
        info = info_of(nifti(tmp_path / "v.nii", None, QFORM))
        check(info, lambda index: [-1, -1, 1] * (QFORM @ [*index, 1])[:3], SINGLE)
        assert info.warnings == ()
        assert info.conventions["affine_from"] == "qform"

    def test_an_sform_without_a_code_does_not_count(self, tmp_path):
        info = info_of(nifti(tmp_path / "v.nii", SFORM, QFORM, codes=(0, 1)))
        check(info, lambda index: [-1, -1, 1] * (QFORM @ [*index, 1])[:3], SINGLE)

    def test_equal_forms_are_not_told(self, tmp_path):
        assert info_of(nifti(tmp_path / "v.nii", QFORM, QFORM)).warnings == ()

    def test_neither(self, tmp_path):
        """The programs disagree about what then holds: nibabel puts zero into the middle, ITK into the first voxel."""
        info = info_of(nifti(tmp_path / "v.nii", SFORM, QFORM, codes=(0, 0)))
        assert info.world is None
        assert info.voxel_spacing == (2 * MM, 2 * MM, 2 * MM)
        assert "no world coordinates" in info.warnings[0]

    @pytest.mark.parametrize(("unit", "angstrom"), [("micron", 1e4), ("mm", MM), ("meter", 1e10), ("unknown", MM)])
    def test_units(self, tmp_path, unit, angstrom):
        info = info_of(nifti(tmp_path / "v.nii", QFORM, unit=unit))
        assert info.voxel_spacing == (2 * angstrom,) * 3
        assert info.conventions["inferred"] == (["unit"] if unit == "unknown" else [])

    @pytest.mark.parametrize("bad", [np.diag([0, 0, 0, 1.0]), np.diag([np.nan, 1, 1, 1.0]), np.ones((4, 4))])
    def test_a_form_that_is_no_map(self, tmp_path, bad):
        path = nifti(tmp_path / "v.nii", SFORM)
        raw = bytearray(path.read_bytes())
        raw[280:328] = struct.pack("<12f", *np.asarray(bad[:3]).ravel())  # srow_x, srow_y, srow_z
        path.write_bytes(raw)
        info = info_of(path)
        assert (info.world, info.voxel_spacing) == (None, None)
        assert "--voxel-spacing" in info.warnings[-1]


# ----- MRC, as ChimeraX places maps -----


def mrc(path, *, origin=(0, 0, 0), start=(0, 0, 0), angles=(90, 90, 90), axes=(1, 2, 3), map_id=b"MAP "):
    """Voxels of 2, 3 and 4 Å along x, y and z; NSTART of columns, rows, sections."""
    with mrcfile.new(path, data=np.zeros((4, 5, 6), np.int16)) as file:
        file.set_volume()
        header = file.header
        header.mx, header.my, header.mz = 10, 10, 10
        header.cella.x, header.cella.y, header.cella.z = 20, 30, 40
        header.cellb.alpha, header.cellb.beta, header.cellb.gamma = angles
        header.origin.x, header.origin.y, header.origin.z = origin
        header.nxstart, header.nystart, header.nzstart = start
        header.mapc, header.mapr, header.maps = axes
    raw = bytearray(path.read_bytes())
    raw[208:212] = map_id
    path.write_bytes(raw)
    return path


class TestMrc:
    def test_the_origin(self, tmp_path):
        info = info_of(mrc(tmp_path / "v.mrc", origin=(7, 8, 9), start=(1, 1, 1)))
        assert np.asarray(info.world).tolist() == [[4, 0, 0, 9], [0, 3, 0, 8], [0, 0, 2, 7], [0, 0, 0, 1]]

    def test_nstart_where_the_origin_is_zero(self, tmp_path):
        info = info_of(mrc(tmp_path / "v.mrc", start=(-10, 20, 30)))
        assert world_zyx(info, np.zeros((1, 3))).tolist() == [[30 * 4, 20 * 3, -10 * 2]]

    def test_neither(self, tmp_path):
        assert world_zyx(info_of(mrc(tmp_path / "v.mrc")), np.zeros((1, 3))).tolist() == [[0, 0, 0]]

    def test_nstart_of_permuted_axes(self, tmp_path):
        """Columns along z, rows along x, sections along y; so the start of columns is one of z."""
        info = info_of(mrc(tmp_path / "v.mrc", start=(10, 20, 30), axes=(3, 1, 2)))
        assert info.shape == (6, 4, 5)
        assert world_zyx(info, np.zeros((1, 3))).tolist() == [[10 * 4, 30 * 3, 20 * 2]]

    def test_an_origin_of_a_header_without_map_id_does_not_count(self, tmp_path):
        path = mrc(tmp_path / "v.mrc", origin=(7, 8, 9), start=(1, 1, 1), map_id=bytes(4))
        assert world_zyx(info_of(path), np.zeros((1, 3))).tolist() == [[4, 3, 2]]

    @pytest.mark.parametrize("origin", [(np.nan, 0, 0), (1e30, 1, 1), (np.inf, 1, 1)])
    def test_an_origin_that_was_never_set(self, tmp_path, origin):
        assert world_zyx(info_of(mrc(tmp_path / "v.mrc", origin=origin)), np.zeros((1, 3))).tolist() == [[0, 0, 0]]

    def test_a_start_that_was_never_set(self, tmp_path):
        path = mrc(tmp_path / "v.mrc", start=(2**30, 1, 1))
        assert world_zyx(info_of(path), np.zeros((1, 3))).tolist() == [[0, 0, 0]]

    def test_a_skewed_cell(self, tmp_path):
        info = info_of(mrc(tmp_path / "v.mrc", angles=(80, 100, 110)))
        z, y, x = np.asarray(info.world)[:3, :3].T[:, ::-1]  # steps as x, y, z
        for one, other, angle in ((y, z, 80), (x, z, 100), (x, y, 110)):
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            assert np.degrees(np.arccos(cosine)) == pytest.approx(angle)
        assert x.tolist() == [2, 0, 0]
        assert y[2] == 0
        assert (np.linalg.norm(y), np.linalg.norm(z)) == (pytest.approx(3), pytest.approx(4))

    @pytest.mark.parametrize("angles", [(0, 0, 0), (90, 90, 200), (10, 10, 120), (np.nan, 90, 90)])
    def test_angles_that_no_cell_has(self, tmp_path, angles):
        assert np.asarray(info_of(mrc(tmp_path / "v.mrc", angles=angles)).world).diagonal().tolist() == [4, 3, 2, 1]

    @pytest.mark.parametrize(
        ("name", "zyx"),
        [
            # NSTART of sections, rows, columns, by MAPS, MAPR, MAPC, and the size of a voxel, as INDEX.md lists them
            ("emd_3197.map.gz", (0, 0, -2 * 11.4)),
            ("non_zero_origin_map.ccp4", (100 * 0.7374375, 100 * 0.723075, 100 * 0.7470333)),
            ("TS_run1.rec", (0, 0, 0)),
        ],
    )
    def test_real_maps(self, real_data, name, zyx):
        found = world_zyx(info_of(real_data / "mrc" / name), np.zeros((1, 3)))[0]
        np.testing.assert_allclose(found, zyx, rtol=1e-6)

    def test_a_voxel_size_of_zero_has_no_world(self, real_data):
        assert info_of(real_data / "mrc/small_probability_map.mrc").world is None


# ----- OME-Zarr -----

UM = 1e4


def ome(path, transformations, axes="zyx", unit="micrometer", version="0.6.dev3", shape=(3, 4, 5)):
    system = {"name": "physical", "axes": [{"name": n, "type": "space", "unit": unit} for n in axes]}
    dataset = {"path": "0", "coordinateTransformations": transformations}
    entry = {"datasets": [dataset]}
    entry |= {"coordinateSystems": [system]} if version.startswith("0.6") else {"axes": system["axes"]}
    zarr.create_group(path, attributes={"ome": {"version": version, "multiscales": [entry]}})
    zarr.create_array(path / "0", data=np.arange(np.prod(shape), dtype=np.uint16).reshape(shape))
    return path


def step(kind, **values):
    return {"type": kind, "input": "0", "output": "physical", **values}


class TestOme:
    def test_scale_and_translation(self, tmp_path):
        steps = [{"type": "scale", "scale": [2, 3, 4]}, {"type": "translation", "translation": [5, 6, 7]}]
        info = info_of(ome(tmp_path / "v.zarr", steps, version="0.5"))
        expected = [[2 * UM, 0, 0, 5 * UM], [0, 3 * UM, 0, 6 * UM], [0, 0, 4 * UM, 7 * UM], [0, 0, 0, 1]]
        assert np.asarray(info.world).tolist() == expected

    def test_axes_in_another_order(self, tmp_path):
        steps = [{"type": "scale", "scale": [2, 3, 4]}, {"type": "translation", "translation": [5, 6, 7]}]
        info = info_of(ome(tmp_path / "v.zarr", steps, axes="xzy", unit="angstrom", version="0.5"))
        assert info.shape == (4, 5, 3)
        assert np.asarray(info.world).tolist() == [[3, 0, 0, 6], [0, 4, 0, 7], [0, 0, 2, 5], [0, 0, 0, 1]]

    def test_an_affine_map(self, tmp_path):
        affine = [[2, 0.5, 0, 1], [0, 3, 0, 2], [1, 0, 4, 3]]
        info = info_of(ome(tmp_path / "v.zarr", [step("affine", affine=affine)], unit="nanometer"))
        np.testing.assert_allclose(np.asarray(info.world)[:3], 10 * np.array(affine))
        np.testing.assert_allclose(info.voxel_spacing, 10 * np.sqrt([5, 9.25, 16]))
        assert info.conventions["affine_zyx"] == affine

    def test_an_affine_map_of_axes_in_another_order(self, tmp_path):
        """Rows are x', y', z' and columns x, y, z."""
        affine = [[2, 0, 0, 1], [0, 3, 0.5, 2], [1, 0, 4, 3]]
        info = info_of(ome(tmp_path / "v.zarr", [step("affine", affine=affine)], axes="xyz", unit="angstrom"))
        assert np.asarray(info.world)[:3].tolist() == [[4, 0, 1, 3], [0.5, 3, 0, 2], [0, 0, 2, 1]]

    def test_a_rotation_after_a_scale(self, tmp_path):
        steps = [
            {"type": "scale", "scale": [2, 3, 4]},
            {"type": "rotation", "rotation": [[0, -1, 0], [1, 0, 0], [0, 0, 1]]},
        ]
        info = info_of(ome(tmp_path / "v.zarr", [step("sequence", transformations=steps)], unit="angstrom"))
        assert info.voxel_spacing == (2, 3, 4)
        assert world_zyx(info, np.array([[1, 1, 1]])).tolist() == [[-3, 2, 4]]

    def test_mapped_axes_are_read_in_the_order_of_the_coordinates(self, tmp_path):
        """z is the array's second axis, y its third, x its first; scaled after that."""
        steps = [{"type": "mapAxis", "mapAxis": [1, 2, 0]}, {"type": "scale", "scale": [2, 3, 4]}]
        path = ome(tmp_path / "v.zarr", [step("sequence", transformations=steps)], unit="angstrom")
        with open_volume(path) as volume:
            assert volume.info.shape == (4, 5, 3)
            assert volume.info.voxel_spacing == (2, 3, 4)
            stored = np.arange(60).reshape(3, 4, 5)
            np.testing.assert_array_equal(volume.read((0, 0, 0), (4, 5, 3)), stored.transpose(1, 2, 0))
        assert np.asarray(volume.info.world).diagonal().tolist() == [2, 3, 4, 1]

    @pytest.mark.parametrize(
        "bad",
        [
            step("affine", affine=[[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
            step("affine", affine=[[1, 0, 0, 0]]),
            step("affine", path="numbers"),
            step("rotation", rotation=[[1, 0], [0, 1]]),
            step("rotation", rotation="left"),
            step("mapAxis", mapAxis=[0, 1, 1]),
            step("mapAxis", mapAxis={"z": "x", "y": "y", "x": "z"}),
            step("mapAxis", mapAxis=["z", "y", "x"]),
            step("displacements", path="field"),
            step("byDimension", transformations=[]),
        ],
    )
    def test_what_is_no_affine_map_is_refused(self, tmp_path, bad):
        from keypatch.errors import FormatError

        with pytest.raises(FormatError):
            info_of(ome(tmp_path / "v.zarr", [bad]))

    @pytest.mark.parametrize("affine", [[[0] * 4] * 3, [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]])
    def test_a_flat_map_is_told(self, tmp_path, affine):
        info = info_of(ome(tmp_path / "v.zarr", [step("affine", affine=affine)]))
        assert (info.voxel_spacing, info.world) == (None, None)
        assert "give --voxel-spacing" in info.warnings[-1]

    @pytest.mark.parametrize(
        ("name", "linear", "offset"),
        [
            ("simple/affine.zarr", np.diag([4, 3, 2]), (32, 21, 10)),
            ("simple/rotation.zarr", [[0, 0, 1], [1, 0, 0], [0, 1, 0]], (0, 0, 0)),
            ("axis_dependent/mapAxis.zarr", np.eye(3), (0, 0, 0)),
            ("basic/sequenceScaleTranslation.zarr", np.diag([4, 3, 2]), (32, 21, 10)),
            ("simple/anisotropic_rotation.zarr", np.diag([2, 0.5, 0.25]), (0, 0, 0)),
        ],
    )
    def test_real_images_of_version_0_6(self, real_data, name, linear, offset):
        world = np.asarray(info_of(real_data / "ome-zarr/neuroglancer_all_0.6" / name).world)
        assert world[:3, :3].tolist() == (np.asarray(linear) * UM).tolist()
        assert world[:3, 3].tolist() == [UM * n for n in offset]
