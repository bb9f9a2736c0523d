"""BYU labels, their relabelling and the JSON map, against values worked out without the readers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keypatch.errors import FormatError
from keypatch.formats.annotations import AnnotationOptions, read_annotations
from keypatch.formats.annotations.byu_relabelled import read as read_relabelled
from keypatch.geometry import voxel_index

HEADER = (
    "row_id,tomo_id,Motor axis 0,Motor axis 1,Motor axis 2,"
    "Array shape (axis 0),Array shape (axis 1),Array shape (axis 2),Voxel spacing,Number of motors"
)
RELABELLED = "tomo_id,z,y,x,z_shape,y_shape,x_shape,voxel_spacing,coordinates,fold"


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_real_labels_hold_451_motors_in_648_tomograms(real_data):
    path = real_data / "csv/byu_train_labels.csv"
    rows = rows_of(path)
    table = read_annotations(path)
    assert (len(rows), len(table.volumes), len(table.points)) == (737, 648, 451)
    assert table.format == "byu"
    assert not table.left_out
    assert table.convention.unit == "voxel"
    expected = [
        (row["tomo_id"], *(float(row[f"Motor axis {axis}"]) for axis in range(3)), number)
        for number, row in enumerate(rows)
        if float(row["Motor axis 0"]) != -1
    ]
    found = table.points[["volume", "z", "y", "x", "source_row"]].itertuples(index=False, name=None)
    assert list(found) == expected
    assert set(table.points["class_name"]) == {"motor"}
    assert list(table.volumes) == list(dict.fromkeys(row["tomo_id"] for row in rows))


def test_the_real_labels_give_shape_and_spacing(real_data):
    path = real_data / "csv/byu_train_labels.csv"
    table = read_annotations(path)
    for row in rows_of(path):
        hint = table.volumes[row["tomo_id"]]
        assert hint.shape == tuple(int(row[f"Array shape (axis {axis})"]) for axis in range(3))
        assert hint.voxel_spacing == (float(row["Voxel spacing"]),) * 3


def test_the_real_labels_disagree_with_their_own_count_four_times(real_data):
    (warning,) = read_annotations(real_data / "csv/byu_train_labels.csv").warnings
    for name in ("tomo_2b3cdf", "tomo_62eea8", "tomo_c84b8e", "tomo_e6f7f7"):
        assert f"{name} (2 stated, 1 found)" in warning


@pytest.mark.parametrize("header", [HEADER, HEADER.replace("(", "").replace(")", "")])
def test_both_spellings_read_alike(tmp_path, header):
    path = write(tmp_path, f"{header}\n0,a,1,2,3,10,20,30,6.5,1\n1,b,-1.0,-1.0,-1.0,10,20,30,7.5,0\n")
    table = read_annotations(path)
    assert table.format == "byu"
    assert table.points[["z", "y", "x"]].to_numpy().tolist() == [[1, 2, 3]]
    assert table.volumes["a"].shape == (10, 20, 30)
    assert table.volumes["b"].voxel_spacing == (7.5, 7.5, 7.5)
    assert not table.warnings


def test_a_column_given_twice_is_refused(tmp_path):
    header = "tomo_id,Motor axis 0,Motor axis 1,Motor axis 2,motor axis (0)"
    with pytest.raises(FormatError, match="motor axis 0 several times"):
        read_annotations(write(tmp_path, f"{header}\na,1,2,3,4\n"))


def test_columns_beyond_the_motor_may_be_missing(tmp_path):
    table = read_annotations(write(tmp_path, "tomo_id,Motor axis 0,Motor axis 1,Motor axis 2\n007,1,2,3\n"))
    assert table.format == "byu"
    assert list(table.volumes) == ["007"]
    assert table.volumes["007"].shape is None


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("0,a,1,2,3,10,20,30,6.5,2\n1,a,4,5,6,10,20,31,6.5,2", "contradict each other about the shape of a"),
        ("0,a,1,2,3,10,20,30,6.5,2\n1,a,4,5,6,10,20,30,6.6,2", "contradict each other about the voxel spacing of a"),
        ("0,a,1,2,3,10,20,30,6.5,3\n1,a,4,5,6,10,20,30,6.5,3", "a (3 stated, 2 found)"),
        ("0,a,1,2,3,10,20,30,6.5,0", "a (0 stated, 1 found)"),
        ("0,a,1,2,3,10,20,30,0,1", "no voxel spacing above 0 for a"),
        ("0,a,1,2,3,10,20,0,6.5,1", "no whole numbers above 0 as the shape of a"),
        ("0,a,-1,-1,-1,10,20,30,6.5,1\n1,a,4,5,6,10,20,30,6.5,1", "a row with a motor and a row without any for a"),
    ],
)
def test_contradictions_are_named(tmp_path, rows, said):
    table = read_annotations(write(tmp_path, f"{HEADER}\n{rows}\n"))
    assert [said in warning for warning in table.warnings] == [True]


def test_what_contradicts_itself_is_no_hint(tmp_path):
    rows = "0,a,1,2,3,10,20,30,6.5,2\n1,a,4,5,6,10,20,31,6.6,2"
    hint = read_annotations(write(tmp_path, f"{HEADER}\n{rows}\n")).volumes["a"]
    assert (hint.shape, hint.voxel_spacing) == (None, None)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("0,a,1,two,3,10,20,30,6.5,1", "'two' in line 3"),
        ("0,a,1,,3,10,20,30,6.5,1", "an empty cell in line 3"),
        ("0,a,1,nan,3,10,20,30,6.5,1", "'nan' in line 3"),
        ("0,a,-1,2,3,10,20,30,6.5,1", "-1, 2, 3 in line 3"),
        ("0,,1,2,3,10,20,30,6.5,1", "an empty cell in line 3"),
        ("0,a,1,2,3,10,20,30,six,1", "'six' in line 3"),
        ("0,a,1,2,3,10,20,30,6.5,1,9", "line 3"),
        ("0,a,1,2", "4 in line 3"),
    ],
)
def test_a_broken_row_is_an_error_with_its_line(tmp_path, row, said):
    path = write(tmp_path, f"{HEADER}\n9,z,1,2,3,10,20,30,6.5,1\n{row}\n")
    with pytest.raises(FormatError) as caught:
        read_annotations(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_axis_order_and_unit_can_be_overridden(tmp_path):
    path = write(tmp_path, f"{HEADER}\n0,a,1,2,3,10,20,30,6.5,1\n")
    table = read_annotations(path, AnnotationOptions(axis_order="xyz", unit="angstrom", zero="corner", index_base=1))
    assert table.points[["z", "y", "x"]].to_numpy().tolist() == [[3, 2, 1]]
    assert (table.convention.unit, table.convention.zero, table.convention.index_base) == ("angstrom", "corner", 1)
    assert table.convention.inferred == ()


def test_relabelled_fractions_times_the_shape_are_voxels(tmp_path):
    rows = 'a,25,50,120,100,200,400,15.6,"[(0.25, 0.25, 0.3), (0.5, 0.125, 1e-1)]",0\nb,-1,-1,-1,50,60,70,10,[],-1'
    table = read_annotations(write(tmp_path, f"{RELABELLED}\n{rows}\n"))
    assert table.format == "byu-relabelled"
    assert table.convention.unit == "fraction"
    assert not table.warnings
    assert not table.left_out
    assert list(table.points["source_row"]) == [0, 0]
    index = voxel_index(table.points[["z", "y", "x"]], unit="fraction", volume_shape=table.volumes["a"].shape)
    np.testing.assert_allclose(index, [[25, 50, 120], [50, 25, 40]])
    assert list(table.volumes) == ["a", "b"]
    assert table.volumes["b"].voxel_spacing == (10, 10, 10)
    assert "-1 (1), 0 (1)" in table.convention.notes[1]


def test_relabelled_with_a_row_a_motor_is_not_counted_twice(tmp_path):
    points = '"[(0.25, 0.25, 0.3), (0.5, 0.125, 0.1)]"'
    rows = f"a,25,50,120,100,200,400,15.6,{points},0\na,50,25,40,100,200,400,15.6,{points},0"
    table = read_annotations(write(tmp_path, f"{RELABELLED}\n{rows}\n"))
    assert len(table.points) == 2
    (left_out,) = table.left_out
    assert left_out.rows == (1,)
    assert not table.warnings


def test_relabelled_columns_that_disagree_are_named(tmp_path):
    row = 'a,99,50,120,100,200,400,15.6,"[(0.25, 0.25, 0.3)]",0'
    (warning,) = read_annotations(write(tmp_path, f"{RELABELLED}\n{row}\n")).warnings
    assert "no entry of coordinates, which are used, for a" in warning


def test_relabelled_voxels_in_place_of_fractions_are_named(tmp_path):
    row = 'a,25,50,120,100,200,400,15.6,"[(25, 50, 120)]",0'
    warnings = read_annotations(write(tmp_path, f"{RELABELLED}\n{row}\n")).warnings
    assert any("1 of 1 points are no fractions" in warning for warning in warnings)


@pytest.mark.parametrize(
    "text",
    [
        "(0.1,0.2,0.3)",
        '"[(0.1,0.2)]"',
        '"[(0.1,0.2,0.3)"',
        "[0.1]",
        '"[(1e999,0,0)]"',
        '"[(True,0,0)]"',
        "__import__('os').getcwd()",
        "[" * 500 + "]" * 500,
        '"[(0.1,0.2,0.3)]*9"',
        "",
    ],
)
def test_relabelled_coordinates_that_are_no_list_of_points(tmp_path, text):
    quoted = text if text.startswith('"') or "," not in text else f'"{text}"'
    path = write(tmp_path, f"{RELABELLED}\na,1,2,3,10,20,30,6.5,{quoted},0\n")
    with pytest.raises(FormatError, match="a list of \\(z, y, x\\)") as caught:
        read_annotations(path)
    assert "in line 2" in str(caught.value)


fractions = st.floats(0, 1, allow_nan=False)


@given(st.lists(st.lists(st.tuples(fractions, fractions, fractions), max_size=4), min_size=1, max_size=5))
def test_relabelled_gives_back_every_list(tmp_path_factory, lists):
    lines = [f'v{i},,,,10,20,30,6.5,"{points}",0' for i, points in enumerate(lists)]
    path = write(tmp_path_factory.mktemp("lists"), "\n".join([RELABELLED, *lines]))
    table = read_relabelled(path, AnnotationOptions())
    assert list(table.volumes) == [f"v{i}" for i in range(len(lists))]
    expected = [(f"v{i}", *point) for i, points in enumerate(lists) for point in points]
    assert list(table.points[["volume", "z", "y", "x"]].itertuples(index=False, name=None)) == expected


def test_the_real_json_map(real_data):
    path = real_data / "csv/byu_train_coordinates_forOrigShapes.json"
    content = json.loads(path.read_text())
    table = read_annotations(path)
    assert table.format == "points-json"
    assert (len(table.volumes), len(table.points)) == (2490, 2598)
    assert len(set(table.volumes) - set(table.points["volume"])) == 618
    expected = [(run, *point) for run, points in content.items() for point in points]
    assert list(table.points[["volume", "z", "y", "x"]].itertuples(index=False, name=None)) == expected
    assert set(table.points["class_name"]) == {None}
    assert table.convention.axis_order == "zyx"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": [[1, 2]]}', "three numbers a point"),
        ('{"a": [[1, 2, "3"]]}', "three numbers a point"),
        ('{"a": [[1, 2, NaN]]}', "three numbers a point"),
        ('{"a": [[1, 2, true]]}', "three numbers a point"),
        ('{"a": [[1, 2, 3]], "b": 4}', "a list of points for 'b'"),
        ('{"a": [[1, 2, 3]], "a": []}', "the key 'a' twice"),
        ('{"a": [[1, 2, 3]', "line 1"),
        ('{"a": [' + "[" * 100000, "nested too deep"),
        ('{"a": [[1, 2, ' + "9" * 400 + "]]}", "three numbers a point"),
    ],
)
def test_a_broken_json_map(tmp_path, text, said):
    path = write(tmp_path, text, "points.json")
    with pytest.raises(FormatError) as caught:
        read_annotations(path)
    assert said in str(caught.value)
