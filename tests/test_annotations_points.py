"""Points of napari, LUNA16, elastix and transformix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keypatch.errors import FormatError
from keypatch.formats.annotations import AnnotationOptions, VolumeHint, read_annotations


def write(folder: Path, text: str, name: str = "points.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def coords(table):
    return table.points[["z", "y", "x"]].to_numpy().tolist()


def refused(path: Path, said: str, options: AnnotationOptions | None = None) -> None:
    with pytest.raises(FormatError) as caught:
        read_annotations(path, options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# ----- napari -----


def test_napari_points_are_voxels_in_the_order_of_the_array(tmp_path):
    text = "index,axis-0,axis-1,axis-2,label,confidence,size\n0.0,1.5,2,3,motor,0.5,10\n1.0,4,5,6,,,10\n"
    table = read_annotations(write(tmp_path, text))
    assert (table.format, coords(table)) == ("napari", [[1.5, 2, 3], [4, 5, 6]])
    assert table.points["class_name"].tolist() == ["motor", None]
    assert table.points["score"].tolist()[0] == 0.5
    assert table.points["volume"].tolist() == [None, None]
    assert (table.convention.unit, table.convention.axis_order) == ("voxel", "zyx")
    assert table.convention.inferred == ("unit", "zero")
    assert any("--unit" in note for note in table.convention.notes)


def test_napari_points_in_a_unit_that_is_said(tmp_path):
    path = write(tmp_path, "index,axis-0,axis-1,axis-2\n0,1,2,3\n")
    assert read_annotations(path, AnnotationOptions(unit="nm")).convention.unit == "nm"


def test_napari_points_that_are_not_3d(tmp_path):
    refused(write(tmp_path, "index,axis-0,axis-1\n0,1,2\n"), "found 2-D points: axis-0, axis-1")
    path = write(tmp_path, "index,axis-0,axis-1,axis-2,axis-3\n0,9,1,2,3\n")
    refused(path, "4-D points: axis-0, axis-1, axis-2, axis-3; where these are of one time or channel")
    columns = {"z": "axis-1", "y": "axis-2", "x": "axis-3"}
    assert coords(read_annotations(path, AnnotationOptions(columns=columns))) == [[1, 2, 3]]
    refused(write(tmp_path, "index,shape-type,vertex-index,axis-0,axis-1,axis-2\n0,path,0,1,2,3\n"), "napari shapes")
    refused(write(tmp_path, "z,y,x\n1,2,3\n"), "no such columns", AnnotationOptions(format="napari"))
    refused(write(tmp_path, "index,axis-0,axis-1,axis-2\n0,1,2,three\n"), "'three' in line 2")


# ----- LUNA16 -----

UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.100225287222365663678666836860"


def test_luna16_annotations(tmp_path):
    text = f"seriesuid,coordX,coordY,coordZ,diameter_mm\n{UID},-128.6994211,-175.3192718,-298.3875064,5.651470635\n"
    table = read_annotations(write(tmp_path, text))
    assert (table.format, coords(table)) == ("luna16", [[-298.3875064, -175.3192718, -128.6994211]])
    assert table.points["class_name"].tolist() == ["nodule"]
    assert table.points["volume"].tolist() == [UID]
    assert dict(table.volumes) == {UID: VolumeHint()}
    assert (table.convention.unit, table.convention.zero, table.convention.axis_order) == ("mm", "world", "xyz")
    assert "diameter_mm is not kept" in table.convention.notes


def test_luna16_candidates_and_submissions(tmp_path):
    rows = f"{UID},1,2,3,0\n{UID},4,5,6,1\n"
    table = read_annotations(write(tmp_path, f"seriesuid,coordX,coordY,coordZ,class\n{rows}"))
    assert table.points["class_name"].tolist() == ["no-nodule", "nodule"]
    table = read_annotations(write(tmp_path, f"seriesuid,coordX,coordY,coordZ,probability\n{rows}"))
    assert table.points["class_name"].tolist() == ["nodule", "nodule"]
    assert table.points["score"].tolist() == [0, 1]


def test_luna16_that_is_refused_or_empty(tmp_path):
    header = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    refused(write(tmp_path, f"{header}a,1,2,x,5\n"), "column 'coordZ', found 'x' in line 2")
    refused(write(tmp_path, f"{header},1,2,3,5\n"), "an empty cell in line 2")
    refused(write(tmp_path, f"{header}a,1,2,3\n"), "is the file cut short?")
    refused(write(tmp_path, "a,b\n1,2\n"), "seriesuid", AnnotationOptions(format="luna16"))
    assert read_annotations(write(tmp_path, header)).warnings == ("the table has no rows",)


# ----- elastix -----


def test_elastix_points_are_world_and_indices_are_voxels(tmp_path):
    table = read_annotations(write(tmp_path, "point\n2\n1.5 -2 3\n4 5 6e1\n", "points.txt"))
    assert (table.format, coords(table)) == ("elastix", [[3, -2, 1.5], [60, 5, 4]])
    assert (table.convention.unit, table.convention.zero) == ("mm", "world")
    assert table.convention.inferred == ("unit",)
    table = read_annotations(write(tmp_path, "index\r\n1\r\n1 2 3\r\n", "points.txt"))
    assert coords(table) == [[3, 2, 1]]
    assert (table.convention.unit, table.convention.zero, table.convention.notes) == ("voxel", "voxel-center", ())


def test_elastix_points_however_they_are_broken_into_lines(tmp_path):
    assert coords(read_annotations(write(tmp_path, "point 2 1 2\n3 4 5 6", "a.pts"))) == [[3, 2, 1], [6, 5, 4]]


def test_elastix_without_a_word_counts_indices(tmp_path):
    table = read_annotations(write(tmp_path, "1\n1.25 2 3\n"), AnnotationOptions(format="elastix"))
    assert (coords(table), table.convention.unit) == ([[3, 2, 1.25]], "voxel")
    assert "neither point nor index" in table.convention.notes[0]
    assert "rounds" in table.convention.notes[1]


def test_elastix_without_points_warns(tmp_path):
    assert read_annotations(write(tmp_path, "point\n0\n")).warnings == ("the list has no points",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("point\n3\n1 2 3\n4 5 6\n", "3 points of 3 numbers, as line 2 says, found 6 numbers; is the file cut short?"),
        ("point\n1\n1 2 3\n4 5 6\n", "1 points of 3 numbers, as line 2 says, found 6 numbers"),
        ("point\n2\n1 2\n4 5\n", "2-D points"),
        ("index\n1\n1 2 three\n", "a number, found 'three' in line 3"),
        ("index\n1\n1 2 inf\n", "'inf' in line 3"),
        ("index\n999999999999\n1 2 3\n", "found 3 numbers"),
        ("point", "the number of points"),
        ("point\nx\n", "found 'x' in line 2"),
        ("-1\n1 2 3\n", "'point' or 'index'"),
    ],
)
def test_elastix_points_that_are_refused(tmp_path, text, said):
    refused(write(tmp_path, text, "points.txt"), said, AnnotationOptions(format="elastix"))


LINE = (
    "Point\t{n}\t; InputIndex = [ 1 2 3 ]\t; InputPoint = [ 1.0 2.0 3.0 ]\t; OutputIndexFixed = [ 4 5 6 ]\t"
    "; OutputPoint = [ {x} {y} {z} ]\t; Deformation = [ 0.1 0.2 0.3 ]\t; OutputIndexMoving = [ 7 8 9 ]\n"
)


def test_transformix_output_points(tmp_path):
    text = LINE.format(n=0, x=1.5, y=-2.25, z=3) + LINE.format(n=1, x=4, y=5, z=6)
    table = read_annotations(write(tmp_path, text, "outputpoints.txt"))
    assert (table.format, coords(table)) == ("elastix", [[3, -2.25, 1.5], [6, 5, 4]])
    assert (table.convention.unit, table.convention.zero) == ("mm", "world")
    assert "moving image" in table.convention.notes[1]


def test_transformix_output_that_is_refused(tmp_path):
    good = LINE.format(n=0, x=1, y=2, z=3)
    refused(write(tmp_path, good + good[:60]), "in line 2")
    refused(write(tmp_path, good + LINE.format(n=1, x=1, y="", z=3)), "3-D points, x y z, in line 2, found 2 numbers")
    refused(write(tmp_path, LINE.format(n=1, x=1, y="nan", z=3)), "'nan' in line 1")


numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=8))
def test_what_is_written_reads_back_to_the_last_bit(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("points")
    lines = "\n".join(f"{x!r} {y!r} {z!r}" for z, y, x in points)
    pd.DataFrame(points, columns=["axis-0", "axis-1", "axis-2"]).to_csv(folder / "n.csv", index_label="index")
    found = [
        read_annotations(write(folder, f"index\n{len(points)}\n{lines}\n", "e.txt")),
        read_annotations(folder / "n.csv"),
    ]
    assert [table.format for table in found] == ["elastix", "napari"]
    for table in found:
        np.testing.assert_array_equal(coords(table), points)
