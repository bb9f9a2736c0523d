"""How formats are told apart, and what no format takes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keypatch.errors import FormatError, KeypatchError, ReadError, UsageError
from keypatch.formats.annotations import FORMATS, POINT_COLUMNS, AnnotationOptions, detect_format, read_annotations

REAL = {
    "csv/byu_train_labels.csv": "byu",
    "csv/byu_extra_labels.csv": "table",
    "csv/byu_train_coordinates_forOrigShapes.json": "points-json",
    "star/relion3.1_dynamo2m.star": "relion",
    "star/warp_m_dynamo2m.star": "relion",
    "star/empty_loop.star": "relion",
    "matched/cylindra_mt/particles.star": "relion",
    "matched/cylindra_mt/optimisation_set.star": "relion",
    "matched/cylindra_mt/run_it050_data.star": "relion",
    "matched/portal_fixture/copick.json": "copick",
    "matched/portal_fixture/points_with_header_pipe_delim.csv": "table",
    "matched/portal_fixture/tardis.csv": "table",
    "matched/portal_fixture/relion_3_star.star": "relion",
    "matched/portal_fixture/relion_4_star.star": "relion",
    "matched/portal_fixture/tomoman_relion_star.star": "relion",
    "matched/afids_mni/tpl-MNI152NLin2009cAsym_afids.fcsv": "slicer-fcsv",
    "matched/afids_mni/tpl-MNI152NLin2009cAsym_afids.json": "slicer-markups",
    "cellxml/cellfinder_cells.xml": "cell-counter",
    "matched/portal_fixture/stopgap_star.star": "stopgap",
    "matched/portal_fixture/points.mod": "imod",
    "matched/portal_fixture/oriented_points.mod": "imod",
    "imod/multiple_objects_example.mod": "imod",
    "imod/slicer_angle_example.mod": "imod",
    "dynamo/t_double.tbl": "dynamo",
    "dynamo/dynamo2m_example.tbl": "dynamo",
}
NO_ANNOTATIONS = (
    "matched/portal_fixture/run1.rec",
    "matched/cylindra_mt/13pf_MT.tif",
    "hdf5/sample_ovule.h5",
    "matched/afids_mni/tpl-MNI152NLin2009cAsym_res-02_T1w.nii.gz",
)


def write(folder: Path, content: bytes, name: str) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_every_format_is_described_once():
    names = [candidate.NAME for candidate in FORMATS]
    assert len(set(names)) == len(names)
    assert all(candidate.DESCRIPTION for candidate in FORMATS)
    assert names[-1] == "table"


@pytest.mark.parametrize(("name", "expected"), REAL.items())
def test_real_files_by_content_alone(real_data, tmp_path, name, expected):
    path = real_data / name
    assert expected == detect_format(path).NAME
    bare = write(tmp_path, path.read_bytes(), "annotations")
    assert expected == detect_format(bare).NAME


@pytest.mark.parametrize("name", REAL)
def test_every_table_keeps_the_contract(real_data, name):
    table = read_annotations(real_data / name)
    points = table.points
    assert tuple(points.columns) == POINT_COLUMNS
    assert {axis: str(points[axis].dtype) for axis in "zyx"} == dict.fromkeys("zyx", "float64")
    assert (str(points["score"].dtype), str(points["source_row"].dtype)) == ("float64", "int64")
    assert points[["z", "y", "x"]].notna().all(axis=None)
    named = {volume for volume in points["volume"] if volume is not None}
    assert named <= set(table.volumes)
    assert all(isinstance(volume, str) for volume in [*named, *table.volumes])
    assert points["source_row"].is_monotonic_increasing
    assert all("\n" not in line for line in (*table.warnings, *table.convention.notes))


@pytest.mark.parametrize("text", ["imod 1\nobject 0 1 0\n", "# imod ascii file version 2.0\n\nimod 12\nmax 1 2 3\n"])
def test_an_imod_model_as_text_is_known_by_sight(tmp_path, text):
    with pytest.raises(FormatError, match="an IMOD model as text") as caught:
        read_annotations(write(tmp_path, text.encode(), "points.mod"))
    assert "not read yet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_looks_like_another_is_read_where_its_columns_are_named(real_data):
    options = AnnotationOptions(columns={"x": "23", "y": "24", "z": "25", "volume": "19"})
    path = real_data / "dynamo/t_double.tbl"
    table = read_annotations(path, options)
    first = path.read_text().split("\n")[0].split()
    assert table.points[["z", "y", "x"]].iloc[0].tolist() == [float(first[i]) for i in (25, 24, 23)]
    assert table.points["volume"].iloc[0] == first[19]


@pytest.mark.parametrize("name", NO_ANNOTATIONS)
def test_volumes_are_no_annotations(real_data, name):
    with pytest.raises(FormatError) as caught:
        read_annotations(real_data / name)
    for candidate in FORMATS:
        assert candidate.NAME in str(caught.value)
    assert "--format" in str(caught.value)
    assert "--columns" in str(caught.value)


@pytest.mark.parametrize("name", [candidate.NAME for candidate in FORMATS])
@pytest.mark.parametrize(
    "content",
    [
        b"\x89\x00\x01garbage",
        b"\xff\xfex\x00,\x00",
        b"\x1f\x8b\x08gz",
        b"\xe9\xe8\xe0,1,2\n",
        b"{",
        b"data_",
        b"word",
        b"1",
        b"[]",
        b"PAR1",
    ],
)
def test_a_forced_format_refuses_what_it_is_not(tmp_path, name, content):
    with pytest.raises(FormatError) as caught:
        read_annotations(write(tmp_path, content, "file"), AnnotationOptions(format=name))
    assert "\n" not in str(caught.value)


def test_an_empty_map_warns(tmp_path):
    table = read_annotations(write(tmp_path, b"{}", "a.json"), AnnotationOptions(format="points-json"))
    assert (len(table.points), table.warnings) == (0, ("the map names no volume",))


def test_a_forced_format_comes_before_the_content(tmp_path):
    path = write(tmp_path, b"tomo_id,Motor axis 0,Motor axis 1,Motor axis 2,z,y,x\na,1,2,3,4,5,6\n", "labels.csv")
    assert read_annotations(path).points["z"].tolist() == [1]
    assert read_annotations(path, AnnotationOptions(format="table")).points["z"].tolist() == [4]
    columns = {"z": "x", "y": "y", "x": "z"}
    assert read_annotations(path, AnnotationOptions(columns=columns)).points["z"].tolist() == [6]


STARTS = {
    "slicer-fcsv": "# Markups fiducial file version = 4.13\n# CoordinateSystem = LPS\n1,2,3,4\n",
    "slicer-markups": '{"markups": [{"type": "Fiducial", "controlPoints": [{"position": [1, 2, 3]}]}]}',
    "cell-counter": "<CellCounter_Marker_File><Marker_Data><Marker_Type><Type>1</Type></Marker_Type></Marker_Data>",
    "elastix": "point\n1\n1 2 3\n",
    "luna16": "seriesuid,coordX,coordY,coordZ,class\n1.2,1,2,3,1\n",
    "napari": "index,axis-0,axis-1,axis-2\n0,1,2,3\n",
}


@settings(deadline=None)
@given(st.sampled_from(sorted(STARTS)), st.integers(0, 80), st.text(max_size=20))
def test_a_file_gone_wrong_anywhere_is_read_or_refused_in_one_line(tmp_path_factory, name, place, added):
    text = STARTS[name]
    wrong = text[:place] + added + text[place + len(added) // 2 :]
    path = write(tmp_path_factory.mktemp("wrong"), wrong.encode("utf-8", "replace"), "a")
    try:
        table = read_annotations(path, AnnotationOptions(format=name))
    except FormatError as error:
        assert "\n" not in str(error)  # noqa: PT017 - whether it is read is not known
        return
    assert table.points[["z", "y", "x"]].notna().all(axis=None)


def test_an_unknown_format_lists_those_known(tmp_path):
    with pytest.raises(UsageError) as caught:
        read_annotations(tmp_path / "nope", AnnotationOptions(format="excel"))
    assert all(candidate.NAME in str(caught.value) for candidate in FORMATS)


def test_missing_and_empty_files_and_folders(tmp_path):
    with pytest.raises(ReadError, match="nothing there") as caught:
        read_annotations(tmp_path / "nope.csv")
    assert not isinstance(caught.value, FormatError)
    with pytest.raises(ReadError, match="a folder"):
        read_annotations(tmp_path)
    for content in (b"", b" \n\n", b"\xef\xbb\xbf"):
        for name in ("a.csv", "a.star", "a.json"):
            with pytest.raises(FormatError, match="an empty file"):
                read_annotations(write(tmp_path, content, name))


def test_text_that_is_not_utf8_is_named_by_line(tmp_path):
    long = b"volume,z,y,x\n" + b"a,1,2,3\n" * 20000 + "é,1,2,3\n".encode("latin-1")
    with pytest.raises(FormatError, match="0xe9 in line 20002"):
        read_annotations(write(tmp_path, long, "points.csv"))
    with pytest.raises(FormatError, match="UTF-8"):
        read_annotations(write(tmp_path, "é,y,x\n".encode("latin-1"), "points.csv"))


def test_a_character_at_the_end_of_the_head_is_no_garbage(tmp_path):
    line = "é,1,2,3\n".encode()
    text = b"volume,z,y,x\n" + line * 20000
    for pad in range(3):
        path = write(tmp_path, b" " * pad + text, "points.csv")
        assert len(read_annotations(path).points) == 20000


def test_suffix_decides_where_the_content_does_not(tmp_path):
    content = b"1,2,3\n"
    assert detect_format(write(tmp_path, content, "a.csv")).NAME == "table"
    assert detect_format(write(tmp_path, content, "a.CSV")).NAME == "table"
    assert detect_format(write(tmp_path, b"{]", "a.ndjson")).NAME == "portal"
    with pytest.raises(FormatError, match="'1,2,3'"):
        detect_format(write(tmp_path, content, "a.what"))


def test_options_that_a_format_does_not_heed_are_named(tmp_path):
    path = write(tmp_path, b'{"a": [[1, 2, 3]]}', "a.json")
    table = read_annotations(path, AnnotationOptions(columns={"class": "label"}, tomograms=tmp_path / "t.star"))
    assert table.warnings == ("not used for the format points-json: columns, tomograms",)


@given(
    st.binary(min_size=1, max_size=300),
    st.sampled_from(["a.csv", "a.star", "a.json", "a.ndjson", "a.parquet", "a.fcsv", "a"]),
)
def test_garbage_is_an_error_of_ours(tmp_path_factory, content, name):
    path = write(tmp_path_factory.mktemp("garbage"), content, name)
    with contextlib.suppress(KeypatchError):
        assert read_annotations(path).path == path


@given(st.integers(1, 5), st.integers(0, 60))
def test_a_table_cut_anywhere_is_read_right_or_refused(tmp_path_factory, n_rows, cut):
    rows = [f"t{i},{i}.25,{i}.5,{i}.75,m" for i in range(n_rows)]
    text = "\n".join(["volume,z,y,x,class", *rows])
    path = write(tmp_path_factory.mktemp("cut"), text[: max(1, len(text) - cut)].encode(), "a.csv")
    try:
        points = read_annotations(path).points
    except FormatError:
        return
    found = points[["z", "y", "x"]].to_numpy()
    assert len(found) <= n_rows
    assert found.tolist() == [[i + 0.25, i + 0.5, i + 0.75] for i in range(len(found))]


def test_half_a_character_in_json_is_refused(tmp_path):
    path = tmp_path / "points.json"
    path.write_text('{"a\\ud800": [[1, 2, 3]]}')
    with pytest.raises(FormatError, match=r"points\.json: expected JSON, found half a character, '\\ud800'"):
        read_annotations(path)
    path.write_text('{"a\\ud83d\\ude00": [[1, 2, 3]]}')
    assert list(read_annotations(path).volumes) == ["a\N{GRINNING FACE}"]
