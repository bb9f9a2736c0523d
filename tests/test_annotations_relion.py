"""RELION's STAR files of every version, against positions worked out by hand from their text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keypatch.errors import FormatError, ReadError, UsageError
from keypatch.formats.annotations import AnnotationOptions, VolumeHint, read_annotations
from keypatch.formats.annotations.relion_tomograms import file_stem
from keypatch.geometry import voxel_index


def rows_by_hand(path: Path, block: str) -> list[dict[str, str]]:
    """The rows of one loop, read by splitting its lines."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    start = lines.index(f"data_{block}")
    labels, rows = [], []
    for line in lines[start + 1 :]:
        if line.startswith("data_"):
            break
        if line.startswith("_"):
            labels.append(line.split()[0][1:])
        elif line and not line.startswith(("#", "loop_")):
            rows.append(dict(zip(labels, line.split(), strict=True)))
    return rows


def vectors(rows: list[dict[str, str]], pattern: str) -> np.ndarray:
    """(K, 3) in z, y, x."""
    return np.array([[float(row[pattern.replace("?", axis)]) for axis in "ZYX"] for row in rows])


def coords(table) -> np.ndarray:
    return table.points[["z", "y", "x"]].to_numpy()


def write(folder: Path, text: str, name: str = "particles.star") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def loop(block: str, labels: str, *rows: str) -> str:
    head = "\n".join(f"_rln{label} #{i}" for i, label in enumerate(labels.split(), 1))
    return f"\ndata_{block}\n\nloop_\n{head}\n" + "".join(f"{row}\n" for row in rows)


PIXELS = "CoordinateX CoordinateY CoordinateZ"
CENTERED = "CenteredCoordinateXAngst CenteredCoordinateYAngst CenteredCoordinateZAngst"
ORIGINS = "OriginXAngst OriginYAngst OriginZAngst"
SUBTOMOGRAM = "TomoSubtomogramRot TomoSubtomogramTilt TomoSubtomogramPsi"


def test_the_real_relion3_file(real_data):
    path = real_data / "matched/portal_fixture/relion_3_star.star"
    rows = rows_by_hand(path, "")
    table = read_annotations(path)
    np.testing.assert_allclose(coords(table), vectors(rows, "rlnCoordinate?") - vectors(rows, "rlnOrigin?"))
    assert table.points["volume"].tolist() == [row["rlnMicrographName"] for row in rows]
    assert set(table.points["class_name"]) == {None}
    assert (table.convention.unit, table.convention.zero) == ("voxel", "voxel-center")
    # rlnDetectorPixelSize 1.7005 µm at a magnification of 10000 is 1.7005 Å.
    assert table.volumes["tomo_1.tomostar"] == VolumeHint(voxel_spacing=(1.7005,) * 3, file_stem="tomo_1")


def test_the_real_tomoman_file(real_data):
    path = real_data / "matched/portal_fixture/tomoman_relion_star.star"
    table = read_annotations(path)
    np.testing.assert_allclose(coords(table)[0], [12 + 3.2, 8 + 2.4, 4 + 1.2])
    np.testing.assert_allclose(coords(table)[-1], [1 - 2, 2 - 2, 3 - 2])
    assert list(table.volumes) == [f"grid_1_lamella1_pos{i}" for i in (1, 2, 3)]
    assert table.convention.unit == "voxel"
    assert table.volumes["grid_1_lamella1_pos1"].voxel_spacing == (1.96, 1.96, 1.96)


def test_the_real_relion4_file(real_data):
    path = real_data / "matched/portal_fixture/relion_4_star.star"
    rows = rows_by_hand(path, "particles")
    table = read_annotations(path)
    # The optics table states 1 Å for micrographs and images.
    np.testing.assert_allclose(coords(table), vectors(rows, "rlnCoordinate?") * 1.0 - vectors(rows, "rlnOrigin?Angst"))
    assert table.points["volume"].tolist() == [row["rlnTomoName"] for row in rows]
    assert table.convention.unit == "angstrom"
    assert {"unit", "zero"} <= set(table.convention.inferred)


def test_the_real_relion31_file_of_warp(real_data):
    path = real_data / "star/relion3.1_dynamo2m.star"
    rows = rows_by_hand(path, "particles")
    table = read_annotations(path)
    assert len(rows) == len(table.points) == 57
    np.testing.assert_allclose(coords(table), vectors(rows, "rlnCoordinate?") * 5.0 - vectors(rows, "rlnOrigin?Angst"))
    ((name, hint),) = table.volumes.items()
    assert name == rows[0]["rlnMicrographName"]
    assert hint == VolumeHint(file_stem="TS_01")
    assert any("rlnPixelSize" in note for note in table.convention.notes)


def test_the_real_relion31_file_as_voxels(real_data):
    path = real_data / "star/relion3.1_dynamo2m.star"
    rows = rows_by_hand(path, "particles")
    table = read_annotations(path, AnnotationOptions(unit="voxel"))
    expected = vectors(rows, "rlnCoordinate?") - vectors(rows, "rlnOrigin?Angst") / 5.0
    np.testing.assert_allclose(coords(table), expected)
    assert next(iter(table.volumes.values())).voxel_spacing == (5, 5, 5)


def test_the_real_warp_file(real_data):
    path = real_data / "star/warp_m_dynamo2m.star"
    rows = rows_by_hand(path, "")
    table = read_annotations(path)
    assert len(rows) == len(table.points) == 1399
    np.testing.assert_allclose(coords(table), vectors(rows, "rlnCoordinate?"))
    assert len(table.volumes) == 47
    assert table.volumes["tomo_ts01.mrc_15.00Apx.mrc"] == VolumeHint((5, 5, 5), file_stem="tomo_ts01.mrc_15.00Apx")
    assert table.convention.inferred == ("unit",)
    assert any("--unit angstrom" in note for note in table.convention.notes)
    in_angstrom = read_annotations(path, AnnotationOptions(unit="angstrom"))
    np.testing.assert_allclose(coords(in_angstrom), vectors(rows, "rlnCoordinate?") * 5)
    assert in_angstrom.volumes["tomo_ts01.mrc_15.00Apx.mrc"].voxel_spacing is None


def test_the_real_relion5_picks(real_data):
    path = real_data / "matched/cylindra_mt/particles.star"
    rows = rows_by_hand(path, "particles")
    table = read_annotations(path)
    np.testing.assert_allclose(coords(table), vectors(rows, "rlnCenteredCoordinate?Angst"))
    assert table.points["volume"].tolist() == ["TS_01"] * 3 + ["TS_02"] * 2
    assert (table.convention.unit, table.convention.zero) == ("angstrom", "volume-center")
    assert table.convention.inferred == ("zero",)
    stated = read_annotations(path, AnnotationOptions(zero="volume-center-minus-1")).convention
    assert (stated.zero, stated.inferred) == ("volume-center-minus-1", ())


def test_the_real_relion5_refinement_has_shifts(real_data):
    path = real_data / "matched/cylindra_mt/run_it050_data.star"
    rows = rows_by_hand(path, "particles")
    expected = vectors(rows, "rlnCenteredCoordinate?Angst") - vectors(rows, "rlnOrigin?Angst")
    tomograms = real_data / "matched/cylindra_mt/tomograms.star"
    table = read_annotations(path, AnnotationOptions(tomograms=tomograms))
    np.testing.assert_allclose(coords(table), expected)
    # The optics table says 3.105 Å, tomograms.star 10.52 Å; Å from the centre depend on neither.
    (warning,) = table.warnings
    assert "3.105" in warning
    assert "10.52" in warning
    np.testing.assert_array_equal(coords(read_annotations(path)), coords(table))


def test_the_real_optimisation_set(real_data):
    table = read_annotations(real_data / "matched/cylindra_mt/optimisation_set.star")
    np.testing.assert_array_equal(
        coords(table), coords(read_annotations(real_data / "matched/cylindra_mt/particles.star"))
    )
    assert table.volumes["TS_01"] == VolumeHint((10.52,) * 3, shape=(44, 136, 84), file_stem="13pf_MT")
    assert table.volumes["TS_02"].file_stem == "14pf_MT"
    named = [line for line in (*table.convention.notes, *table.warnings) if "optimisation_set.star" in line]
    assert [("particles.star" in line, "tomograms.star" in line) for line in named] == [(True, False), (False, True)]
    assert not any(str(real_data) in line for line in named)


def test_the_real_relion5_picks_lie_in_their_volume(real_data):
    tifffile = pytest.importorskip("tifffile")
    table = read_annotations(real_data / "matched/cylindra_mt/optimisation_set.star")
    for volume, hint in table.volumes.items():
        shape = tifffile.imread(real_data / f"matched/cylindra_mt/{hint.file_stem}.tif").shape
        points = table.points.loc[table.points["volume"] == volume, ["z", "y", "x"]]
        index = voxel_index(
            points, unit="angstrom", zero=table.convention.zero, voxel_spacing=10.52, volume_shape=shape
        )
        assert ((index >= 0) & (index < shape)).all()


def test_the_real_empty_loop(real_data):
    table = read_annotations(real_data / "star/empty_loop.star")
    assert (len(table.points), len(table.volumes)) == (0, 0)
    assert "no rows" in table.warnings[0]


def test_tomograms_are_no_particles(real_data):
    with pytest.raises(FormatError, match="--tomograms"):
        read_annotations(real_data / "matched/cylindra_mt/tomograms.star")


def test_relion4_counts_pixels_of_the_tilt_series(tmp_path):
    optics = loop("optics", "OpticsGroup TomoTiltSeriesPixelSize ImagePixelSize", "1 1.5 6", "2 2 8")
    rows = ("007 10 20 30 2 1 2 3", "008 10 20 30 1 0 0 0")
    path = write(tmp_path, optics + loop("particles", f"TomoName {PIXELS} OpticsGroup {ORIGINS}", *rows))
    table = read_annotations(path)
    np.testing.assert_allclose(coords(table), [[60 - 3, 40 - 2, 20 - 1], [45, 30, 15]])
    assert list(table.volumes) == ["007", "008"]
    assert (table.convention.unit, table.convention.inferred) == ("angstrom", ("zero",))


def test_relion4_takes_the_pixel_size_of_the_tomograms(tmp_path):
    tomograms = write(tmp_path, loop("global", "TomoName TomoTiltSeriesPixelSize", "a 1.5", "b 2"), "tomograms.star")
    path = write(tmp_path, loop("particles", f"TomoName {PIXELS}", "b 10 20 30", "a 10 20 30"))
    table = read_annotations(path, AnnotationOptions(tomograms=tomograms))
    np.testing.assert_allclose(coords(table), [[60, 40, 20], [45, 30, 15]])
    assert table.convention.unit == "angstrom"
    # Without the binning of its tomograms, nothing is known of their voxels.
    assert table.volumes["a"] == VolumeHint()


def test_tomograms_with_binning_give_spacing_and_shape(tmp_path):
    labels = (
        "TomoName TomoTiltSeriesPixelSize TomoTomogramBinning TomoSizeX TomoSizeY TomoSizeZ TomoReconstructedTomogram"
    )
    tomograms = write(tmp_path, loop("global", labels, "a 1.5 4 401 402 403 rec/tomo_1.mrc"), "tomograms.star")
    path = write(tmp_path, loop("particles", f"TomoName {CENTERED}", "a 1 2 3", "z 1 2 3"))
    table = read_annotations(path, AnnotationOptions(tomograms=tomograms))
    assert table.volumes["a"] == VolumeHint((6, 6, 6), shape=(101, 101, 100), file_stem="tomo_1")
    assert table.warnings == ("tomograms.star does not list z",)


def relion_matrix(rot: float, tilt: float, psi: float) -> np.ndarray:
    """Written out as in RELION's Euler_angles_relion.h, anglesToMatrix3(phi, theta, chi)."""
    sp, cp = np.sin(rot), np.cos(rot)
    st_, ct = np.sin(tilt), np.cos(tilt)
    sc, cc = np.sin(psi), np.cos(psi)
    return np.array(
        [
            [cc * ct * cp - sc * sp, cc * ct * sp + sc * cp, -cc * st_],
            [-sc * ct * cp - cc * sp, -sc * ct * sp + cc * cp, sc * st_],
            [st_ * cp, st_ * sp, ct],
        ]
    )


angles = st.floats(-360, 360, allow_nan=False)
lengths = st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 6))


@given(st.tuples(angles, angles, angles), st.tuples(lengths, lengths, lengths), st.sampled_from([CENTERED, PIXELS]))
def test_shifts_are_turned_by_relions_matrix(tmp_path_factory, euler, origin, labels):
    row = " ".join(["a", "100", "200", "300", *map(str, origin), *(f"{angle!r}" for angle in euler), "2.5"])
    text = loop("particles", f"TomoName {labels} {ORIGINS} {SUBTOMOGRAM} TomoTiltSeriesPixelSize", row)
    table = read_annotations(write(tmp_path_factory.mktemp("star"), text))
    scale = 2.5 if labels == PIXELS else 1.0
    expected = np.array([100, 200, 300]) * scale - relion_matrix(*np.deg2rad(euler)) @ np.array(origin)
    np.testing.assert_allclose(coords(table)[0], expected[::-1], atol=1e-9)


def test_pixel_origins_are_pixels_of_the_images(tmp_path):
    optics = loop("optics", "OpticsGroup TomoTiltSeriesPixelSize ImagePixelSize", "1 1.5 6")
    text = optics + loop("particles", f"TomoName {PIXELS} OriginX OriginY OriginZ", "a 10 20 30 1 2 3")
    np.testing.assert_allclose(coords(read_annotations(write(tmp_path, text))), [[45 - 18, 30 - 12, 15 - 6]])


def test_pytoms_detector_pixel_size_is_in_angstrom(tmp_path):
    path = write(tmp_path, loop("", f"{PIXELS} LCCmax DetectorPixelSize MicrographName", "1 2 3 0.5 13.7 tomo_7.mrc"))
    table = read_annotations(path)
    assert table.volumes["tomo_7.mrc"] == VolumeHint((13.7,) * 3, file_stem="tomo_7")
    assert list(table.points["score"]) == [0.5]
    assert "score is rlnLCCmax" in table.convention.notes


def test_options_name_class_volume_and_score(tmp_path):
    path = write(
        tmp_path, loop("", f"{PIXELS} ClassNumber GroupName MaxValueProbDistribution TomoName", "1 2 3 04 g 0.5 t")
    )
    assert read_annotations(path).points["class_name"].tolist() == [None]
    columns = {"class": "rlnClassNumber", "volume": "_rlnGroupName", "score": "rlnMaxValueProbDistribution"}
    table = read_annotations(path, AnnotationOptions(columns=columns))
    assert table.points[["volume", "class_name", "score"]].iloc[0].tolist() == ["g", "04", 0.5]
    with pytest.raises(UsageError, match="rlnNope"):
        read_annotations(path, AnnotationOptions(columns={"class": "rlnNope"}))
    with pytest.raises(UsageError, match="RELION's names"):
        read_annotations(path, AnnotationOptions(columns={"x": "rlnCoordinateX"}))


def test_a_block_that_is_no_loop_is_one_particle(tmp_path):
    path = write(
        tmp_path,
        "data_particles\n\n_rlnTomoName 007\n_rlnCenteredCoordinateXAngst 1\n"
        "_rlnCenteredCoordinateYAngst 2\n_rlnCenteredCoordinateZAngst 3\n",
    )
    table = read_annotations(path)
    assert coords(table).tolist() == [[3, 2, 1]]
    assert list(table.volumes) == ["007"]


def test_warps_normalised_coordinates(tmp_path):
    path = write(tmp_path, loop("", f"{PIXELS} MicrographName", "0.1 0.2 0.3 a.tomostar"))
    table = read_annotations(path, AnnotationOptions(unit="fraction"))
    assert coords(table).tolist() == [[0.3, 0.2, 0.1]]
    assert table.convention.unit == "fraction"
    path = write(tmp_path, loop("", f"{PIXELS} OriginX OriginY OriginZ", "0.1 0.2 0.3 1 0 0"))
    with pytest.raises(UsageError, match="with shifts"):
        read_annotations(path, AnnotationOptions(unit="fraction"))


def test_nan_in_a_column_that_is_not_used_is_no_short_row(tmp_path):
    path = write(tmp_path, loop("", f"{PIXELS} CtfFigureOfMerit", "1 2 3 nan", "4 5 6 nan"))
    assert len(read_annotations(path).points) == 2


OPTICS = loop("optics", "OpticsGroup Voltage", "1 300")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OPTICS + loop("particles", f"TomoName {PIXELS}", "a 1 2 3"), "--unit voxel"),
        (loop("", f"{PIXELS} {ORIGINS}", "1 2 3 4 5 6"), "a pixel size for the shifts"),
        (loop("", f"TomoName {PIXELS}", "a 1 2 3", "a 1 two 3"), "'two' in line 10"),
        (loop("", f"TomoName {PIXELS}", "a 1 2 3", "a 1 nan 3"), "nan in line 10"),
        (loop("", f"TomoName {PIXELS}", "a 1 2 3", "a 1 inf 3"), "inf in line 10"),
        (loop("", f"TomoName {PIXELS}", "a 1 2 3", "a 1 2"), "3 in line 10"),
        (loop("", f"{PIXELS} TomoName Voltage", "1 2 3 a 300", "1 2 a 300", "1 2 3 a 300"), "4 in line 11"),
        (loop("", f"TomoName {PIXELS}", "a 1 2", "b 1 2"), "another number of values"),
        (loop("", f"TomoName {PIXELS}", "a 1 2 3", "a 1 2 3 4"), "5 values in line 2 of a loop"),
        (loop("", f"TomoName {PIXELS}", "a 1 2 3", "data_a 1 2 3"), "'data_a 1 2 3' in line 10"),
        (loop("", f"TomoName {PIXELS}", "a 1 2 3", "TS_1#2 1 2 3"), "'#'"),
        (loop("", "TomoName CoordinateX CoordinateY", "a 1 2"), "rlnCoordinateX/Y/Z"),
        (loop("", f"{CENTERED} {ORIGINS} TomoSubtomogramRot", "1 2 3 4 5 6 7"), "rlnTomoSubtomogramTilt"),
        (loop("a", PIXELS, "1 2 3") + loop("b", PIXELS, "1 2 3"), "several blocks"),
        (loop("", f"{PIXELS} PixelSize", "1 2 3 0"), "rlnPixelSize above 0"),
        (
            loop("optics", "OpticsGroup TomoTiltSeriesPixelSize", "1 1.5")
            + loop("particles", f"{PIXELS} OpticsGroup", "1 2 3 2"),
            "no 2",
        ),
        (loop("a", PIXELS, "1 2 3") + loop("a", PIXELS, "4 5 6"), "data_a several times"),
        (loop("", f"{PIXELS} CoordinateX", "1 2 3 4"), "rlnCoordinateX several times"),
        ("data_\n_rlnCoordinateX\n", "a STAR file"),
        ("# _rlnCoordinateX\ndata_\nloop_\n", "rlnCoordinateX/Y/Z"),
        ("data_rln\n", "a STAR file"),
        ("_rlnCoordinateX data\n", "no data_ block"),
    ],
)
def test_broken_files(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(FormatError) as caught:
        read_annotations(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_tomograms_file(tmp_path):
    path = write(tmp_path, loop("particles", f"TomoName {CENTERED}", "a 1 2 3"))
    with pytest.raises(ReadError, match="nothing there"):
        read_annotations(path, AnnotationOptions(tomograms=tmp_path / "nope.star"))


def optimisation_set(particles: str, tomograms: str = "") -> str:
    labels, row = "TomoParticlesFile", particles
    if tomograms:
        labels, row = f"{labels} TomoTomogramsFile", f"{particles} {tomograms}"
    return loop("optimisation_set", labels, row)


def test_an_optimisation_set_of_a_project(tmp_path):
    write(tmp_path, loop("particles", f"TomoName {CENTERED}", "a 1 2 3"), "Extract/job1/particles.star")
    path = write(tmp_path, optimisation_set("Extract/job1/particles.star"), "Refine3D/job2/optimisation_set.star")
    table = read_annotations(path)
    assert coords(table).tolist() == [[3, 2, 1]]
    assert table.path == path
    assert any("../../Extract/job1/particles.star" in note.replace("\\", "/") for note in table.convention.notes)
    assert not table.warnings


@pytest.mark.parametrize(
    "stated", ["/{}/particles.star", "../outside/particles.star", "missing.star", "inside/particles.txt"]
)
def test_an_optimisation_set_leads_to_no_other_place(tmp_path, stated):
    outside = tmp_path / "outside"
    for name in ("outside/particles.star", "project/inside/particles.txt"):
        write(tmp_path, loop("particles", f"TomoName {CENTERED}", "a 1 2 3"), name)
    path = write(tmp_path, optimisation_set(stated.format(outside)), "project/optimisation_set.star")
    with pytest.raises(FormatError, match="give the particles themselves"):
        read_annotations(path)


def test_an_optimisation_set_is_found_beside_itself(tmp_path):
    write(tmp_path, loop("particles", f"TomoName {CENTERED}", "a 1 2 3"))
    path = write(tmp_path, optimisation_set("/elsewhere/job1/particles.star"), "optimisation_set.star")
    table = read_annotations(path)
    assert len(table.points) == 1
    assert "names /elsewhere/job1/particles.star" in table.warnings[0]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("/a/b/TS_01.mrc.tomostar", "TS_01"),
        ("tomo_ts01.mrc_15.00Apx.mrc", "tomo_ts01.mrc_15.00Apx"),
        ("tomograms/TS_001/TS_001_aligned.st:mrc", "TS_001_aligned"),
        (r"F:\frames\TS_1.tomostar", "TS_1"),
        ("TS_1.5", "TS_1.5"),
        ("", None),
    ],
)
def test_file_stems(name, stem):
    assert file_stem(name) == stem


def test_shifts_out_of_all_bounds(tmp_path):
    """What overflows is refused, not passed on as infinite."""
    path = tmp_path / "particles.star"
    path.write_text(
        "data_particles\n\nloop_\n_rlnTomoName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n_rlnCoordinateZ #4\n"
        "_rlnOriginXAngst #5\n_rlnOriginYAngst #6\n_rlnOriginZAngst #7\n_rlnTomoTiltSeriesPixelSize #8\n"
        "t1 1 2 3 0 0 0 100\nt1 1e308 2 3 0 0 0 100\n"
    )
    with pytest.raises(FormatError, match=r"particles\.star: expected .*finite"):
        read_annotations(path)
