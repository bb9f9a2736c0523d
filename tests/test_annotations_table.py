"""Tables of any delimiter and Parquet: columns, units, numbers, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keypatch.errors import FormatError, UsageError
from keypatch.formats.annotations import AnnotationOptions, VolumeHint, read_annotations


def write(folder: Path, text: str, name: str = "points.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def coords(table):
    return table.points[["z", "y", "x"]].to_numpy().tolist()


def test_the_real_extra_labels(real_data):
    path = real_data / "csv/byu_extra_labels.csv"
    lines = path.read_bytes().decode().split("\r\n")
    rows = [line.split(",") for line in lines[1:] if line]
    table = read_annotations(path)
    assert table.format == "table"
    assert len(rows) == len(table.points) == 1617
    expected = [(row[3], *map(float, row[:3])) for row in rows]
    assert list(table.points[["volume", "z", "y", "x"]].itertuples(index=False, name=None)) == expected
    assert len(table.volumes) == len({row[3] for row in rows}) == 1288
    assert table.convention.inferred == ("unit", "zero", "index_base")


def test_the_real_tardis_table_is_in_angstrom(real_data):
    table = read_annotations(real_data / "matched/portal_fixture/tardis.csv")
    assert coords(table) == [[12, 8, 4], [4, 4, 4], [2, 4, 6], [0, 6, 0], [2, 4, 8], [1, 2, 3]]
    assert (table.convention.unit, table.convention.axis_order) == ("angstrom", "xyz")
    assert "unit" not in table.convention.inferred
    assert any("'IDs'" in note for note in table.convention.notes)


def test_the_real_pipes_under_csv(real_data):
    table = read_annotations(real_data / "matched/portal_fixture/points_with_header_pipe_delim.csv")
    assert coords(table) == [[3, 2, 1], [2, 2, 2], [0, 3, 0]]
    assert set(table.points["volume"]) == {None}
    assert dict(table.volumes) == {}


def test_the_real_headerless_table_is_not_guessed(real_data):
    path = real_data / "matched/portal_fixture/points.csv"
    with pytest.raises(FormatError, match="--axis-order") as caught:
        read_annotations(path)
    assert "--columns" in str(caught.value)
    assert coords(read_annotations(path, AnnotationOptions(axis_order="xyz"))) == [[3, 2, 1], [2, 2, 2], [0, 3, 0]]
    assert coords(read_annotations(path, AnnotationOptions(axis_order="zyx"))) == [[1, 2, 3], [2, 2, 2], [0, 3, 0]]
    columns = {"x": "1", "y": "0", "z": "2"}
    assert coords(read_annotations(path, AnnotationOptions(columns=columns))) == [[3, 1, 2], [2, 2, 2], [0, 0, 3]]
    with pytest.raises(UsageError, match="a permutation of xyz"):
        read_annotations(path, AnnotationOptions(axis_order="zy"))


def test_the_real_two_dimensional_table_is_refused(real_data):
    with pytest.raises(FormatError, match="2-D points: the columns x, y, score"):
        read_annotations(real_data / "csv/evalutils_reference.csv")


def test_blanks_in_header_and_cells_are_taken_off(tmp_path):
    table = read_annotations(write(tmp_path, " x, y, z, score\n 1.5, 2, 3, 0.5\n"))
    assert coords(table) == [[3, 2, 1.5]]
    assert list(table.points["score"]) == [0.5]


@pytest.mark.parametrize(
    ("delimiter", "name"),
    [(",", "a.csv"), ("\t", "a.csv"), (";", "a.txt"), ("|", "a.csv"), (" ", "a.coords"), ("   ", "a")],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_delimiter_line_end_and_byte_order_mark(tmp_path, delimiter, name, end, mark):
    rows = ["tomo_id class z y x score", "007 motor 1 2 3 0.25", "", "008 2 4 5 6 1e-3"]
    text = mark + end.join(row.replace(" ", delimiter) for row in rows) + end
    table = read_annotations(write(tmp_path, text, name))
    assert table.format == "table"
    assert coords(table) == [[1, 2, 3], [4, 5, 6]]
    assert list(table.volumes) == list(table.points["volume"]) == ["007", "008"]
    assert list(table.points["class_name"]) == ["motor", "2"]
    assert list(table.points["score"]) == [0.25, 1e-3]
    assert list(table.points["source_row"]) == [0, 1]


@pytest.mark.parametrize(
    "header",
    [
        "volume,z,y,x",
        "Tomogram,Z,Y,X",
        "run_name,z_coord,y_coord,x_coord",
        "index,axis-0,axis-1,axis-2",
        "volume_id,coord_z,coord_y,coord_x",
        "label,centroid-0,centroid-1,centroid-2",
        "ID,POSITION_Z,POSITION_Y,POSITION_X",
        "n,coordZ,coordY,coordX",
    ],
)
def test_names_that_columns_go_by(tmp_path, header):
    assert coords(read_annotations(write(tmp_path, f"{header}\n4,1,2,3\n"))) == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        ("x [A],y [A],z [A]", "angstrom"),
        ("X (Å),Y (Å),Z (Å)", "angstrom"),
        ("x_angstrom,y_angstrom,z_angstrom", "angstrom"),
        ("x (nm),y (nm),z (nm)", "nm"),
        ("x_nm,y_nm,z_nm", "nm"),
        ("x (mm),y (mm),z (mm)", "mm"),
        ("x_um,y_um,z_um", "um"),
        ("X (µm),Y (\u03bcm),Z [microns]", "um"),
        ("x [px],y [pixel],z [voxels]", "voxel"),
        ("x,y,z", "voxel"),
    ],
)
def test_units_in_the_header(tmp_path, header, unit):
    table = read_annotations(write(tmp_path, f"{header}\n1,2,3\n"))
    assert table.convention.unit == unit
    assert ("unit" in table.convention.inferred) == (header == "x,y,z")
    assert coords(table) == [[3, 2, 1]]


def test_an_unknown_or_mixed_unit_is_refused(tmp_path):
    path = write(tmp_path, "x [inch],y [inch],z [inch]\n1,2,3\n")
    with pytest.raises(FormatError, match="give --unit"):
        read_annotations(path)
    assert read_annotations(path, AnnotationOptions(unit="nm")).convention.unit == "nm"
    with pytest.raises(FormatError, match="one unit for all three"):
        read_annotations(write(tmp_path, "x [A],y [nm],z [A]\n1,2,3\n"))


def test_options_name_columns_by_name_or_number(tmp_path):
    path = write(tmp_path, "u,v,w,who,what,how\n1,2,3,7,motor,0.5\n")
    options = AnnotationOptions(
        columns={"x": "u", "y": "V", "z": "2", "volume": "who", "class": "what", "score": "how"}
    )
    table = read_annotations(path, options)
    assert table.points.to_dict("records") == [
        {"volume": "7", "z": 3.0, "y": 2.0, "x": 1.0, "class_name": "motor", "score": 0.5, "source_row": 0}
    ]
    assert table.convention.axis_order == "xyz"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"x": "u", "y": "v", "z": "nope"}, "'nope'"),
        ({"x": "u", "y": "v", "z": "3"}, "'3'"),
        ({"x": "u", "y": "v", "z": "u"}, "a column of its own"),
        ({"depth": "u"}, "depth"),
    ],
)
def test_options_that_name_no_column(tmp_path, columns, said):
    with pytest.raises(UsageError) as caught:
        read_annotations(write(tmp_path, "u,v,w\n1,2,3\n"), AnnotationOptions(columns=columns))
    assert said in str(caught.value)


def test_options_name_delimiter_and_header(tmp_path):
    path = write(tmp_path, "a:1:2:3\nb:4:5:6\n", "odd.txt")
    columns = {"volume": "0", "x": "1", "y": "2", "z": "3"}
    table = read_annotations(path, AnnotationOptions(columns=columns, delimiter=":"))
    assert coords(table) == [[3, 2, 1], [6, 5, 4]]
    table = read_annotations(path, AnnotationOptions(columns=columns, delimiter=":", header=True))
    assert coords(table) == [[6, 5, 4]]
    with pytest.raises(UsageError, match="one character"):
        read_annotations(path, AnnotationOptions(columns=columns, delimiter="::"))


def test_millimetres_say_where_they_count_from(tmp_path):
    notes = read_annotations(write(tmp_path, "x [mm],y [mm],z [mm]\n1,2,3\n")).convention.notes
    assert any("--zero world" in note for note in notes)


@pytest.mark.parametrize(
    "text",
    [
        "# z y x\n1 2 3\n4 5 6\n",
        "#z,y,x\n1,2,3\n4,5,6\n",
        "# by hand, in May\n#\n# z\ty\tx\n\n1\t2\t3\n4\t5\t6\n",
        "# by hand\nz;y;x\n1;2;3\n4;5;6\n",
        "# 1 2 3\nz,y,x\n1,2,3\n4,5,6\n",
    ],
)
def test_comments_before_a_table(tmp_path, text):
    table = read_annotations(write(tmp_path, text))
    assert coords(table) == [[1, 2, 3], [4, 5, 6]]
    assert table.points["source_row"].tolist() == [0, 1]


def test_what_numpy_writes(tmp_path):
    points = np.random.default_rng(0).normal(size=(5, 3))
    np.savetxt(tmp_path / "a.txt", points, header="z y x")
    np.testing.assert_array_equal(coords(read_annotations(tmp_path / "a.txt")), np.loadtxt(tmp_path / "a.txt"))


def test_comments_keep_the_numbers_of_the_lines(tmp_path):
    with pytest.raises(FormatError, match="'oops' in line 4"):
        read_annotations(write(tmp_path, "# one\n# two\nz,y,x\n1,2,oops\n"))
    with pytest.raises(FormatError, match="comments alone"):
        read_annotations(write(tmp_path, "# z,y,x\n# 1,2,3\n"))


def test_a_commented_row_is_no_row(tmp_path):
    table = read_annotations(write(tmp_path, "#9,9,9\n1,2,3\n"), AnnotationOptions(axis_order="zyx"))
    assert coords(table) == [[1, 2, 3]]


def test_an_axis_order_against_the_names_is_named(tmp_path):
    table = read_annotations(write(tmp_path, "x,y,z\n1,2,3\n"), AnnotationOptions(axis_order="zyx"))
    assert coords(table) == [[1, 2, 3]]
    assert "the columns are called x, y, z" in table.warnings[0]


def test_a_volume_without_coordinates_has_no_keypoint(tmp_path):
    table = read_annotations(write(tmp_path, "volume,z,y,x,label\na,1,2,3,m\nb,,,,\na,4,5,6,m\n"))
    assert coords(table) == [[1, 2, 3], [4, 5, 6]]
    assert list(table.points["source_row"]) == [0, 2]
    assert dict(table.volumes) == {"a": VolumeHint(), "b": VolumeHint()}
    assert not table.warnings
    assert not table.left_out


def test_rows_that_contradict_or_lack_a_class_are_named(tmp_path):
    table = read_annotations(write(tmp_path, "volume,z,y,x,label\na,1,2,3,\na,,,,\n"))
    assert table.points["class_name"].tolist() == [None]
    assert any("no class" in warning for warning in table.warnings)
    assert any("beside keypoints for a" in warning for warning in table.warnings)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,1,2,three", "'three' in line 4"),
        ("a,1,2,nan", "'nan' in line 4"),
        ("a,1,inf,3", "'inf' in line 4"),
        ("a,1,1_000,3", "'1_000' in line 4"),
        ('a,1,"2,5",3', "'2,5' in line 4; write decimals with a point"),
        ("a,1,,3", "an empty cell in line 4"),
        (",1,2,3", "an empty cell in line 4"),
        (",,,", "an empty cell in line 4"),
        ("a,1,2,3,4", "line 4"),
        ("a,1,2", "3 in line 4"),
        ("a", "1 in line 4"),
        ('"a,1,2,3', "EOF inside string"),
    ],
)
def test_a_broken_row_is_an_error_with_its_line(tmp_path, row, said):
    path = write(tmp_path, f"volume,z,y,x\n\na,1,2,3\n{row}\n")
    with pytest.raises(FormatError) as caught:
        read_annotations(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_row_without_volumes_is_an_error(tmp_path):
    with pytest.raises(FormatError, match="an empty cell in line 3"):
        read_annotations(write(tmp_path, "z,y,x\n1,2,3\n,,\n"))


@pytest.mark.parametrize("text", ["a,b,c\n1,2,3\n", "one\ntwo\n", "x,y,z,x_nm\n1,2,3,4\n", "1,2,3,4\n5,6,7,8\n"])
def test_columns_that_cannot_be_told(tmp_path, text):
    with pytest.raises(FormatError):
        read_annotations(write(tmp_path, text))


def test_a_table_without_rows_warns(tmp_path):
    table = read_annotations(write(tmp_path, "volume,z,y,x\n"))
    assert len(table.points) == 0
    assert table.warnings == ("the table has no rows",)


def test_line_numbers_count_through_quoted_lines(tmp_path):
    with pytest.raises(FormatError, match="'oops' in line 4"):
        read_annotations(write(tmp_path, 'volume,z,y,x\n"a\nb",1,2,3\na,1,2,oops\n'))


def test_parquet_reads_as_the_same_table(tmp_path):
    frame = pd.DataFrame({"tomo_id": [7, 8], "z": [1.5, 2], "y": [3, 4], "x": [5, 6], "label": ["a", "b"]})
    frame.to_parquet(tmp_path / "points.bin")
    table = read_annotations(tmp_path / "points.bin")
    assert table.format == "table"
    assert coords(table) == [[1.5, 3, 5], [2, 4, 6]]
    assert list(table.volumes) == ["7", "8"]
    assert list(table.points["class_name"]) == ["a", "b"]


def test_parquet_keeps_an_index_that_has_a_name(tmp_path):
    frame = pd.DataFrame({"tomo_id": ["a", "b"], "z": [1, 2], "y": [3, 4], "x": [5, 6]}).set_index("tomo_id")
    frame.to_parquet(tmp_path / "points.parquet")
    assert list(read_annotations(tmp_path / "points.parquet").volumes) == ["a", "b"]


def test_broken_parquet(tmp_path):
    path = tmp_path / "points.parquet"
    pd.DataFrame({"z": [1.0, np.nan], "y": [3, 4], "x": [5, 6]}).to_parquet(path)
    with pytest.raises(FormatError, match="an empty cell in row 1"):
        read_annotations(path)
    pd.DataFrame({"volume": [0.5], "z": [1], "y": [3], "x": [5]}).to_parquet(path)
    with pytest.raises(FormatError, match="text or whole numbers"):
        read_annotations(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match="a Parquet table"):
        read_annotations(path)


numbers = st.floats(allow_nan=False, allow_infinity=False)
names = (
    st.text(st.characters(categories=("L", "N"), include_characters="_-. ,;\"'"), min_size=1)
    .map(str.strip)
    .filter(bool)
)


@given(
    st.lists(st.tuples(names, numbers, numbers, numbers), min_size=1, max_size=8),
    st.sampled_from([",", "\t", ";", "|"]),
)
def test_what_pandas_writes_reads_back_to_the_last_bit(tmp_path_factory, rows, delimiter):
    frame = pd.DataFrame(rows, columns=["volume", "z", "y", "x"])
    path = tmp_path_factory.mktemp("tables") / "points.csv"
    frame.to_csv(path, sep=delimiter, index=False)
    table = read_annotations(path)
    assert table.points["volume"].tolist() == [row[0] for row in rows]
    for axis in "zyx":
        found = table.points[axis].tolist()
        assert [(value, math.copysign(1, value)) for value in found] == [
            (value, math.copysign(1, value)) for value in frame[axis].tolist()
        ]
