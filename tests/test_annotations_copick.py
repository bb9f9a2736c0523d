"""copick's picks, its CSV, and the portal's ndjson."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from keypatch.errors import FormatError
from keypatch.formats.annotations import AnnotationOptions, VolumeHint, read_annotations

IDENTITY = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def shifted(x: float, y: float, z: float) -> list[list[float]]:
    return [[1, 0, 0, x], [0, 1, 0, y], [0, 0, 1, z], [0, 0, 0, 1]]


def pick(x: float, y: float, z: float, **more) -> dict:
    return {"location": {"x": x, "y": y, "z": z}, **more}


def write(folder: Path, points: object, **more) -> Path:
    picks = {"pickable_object_name": "ribosome", "user_id": "u", "session_id": "0", "run_name": "TS_1", **more}
    path = folder / "picks.json"
    path.write_text(json.dumps({**picks, "points": points}))
    return path


def coords(table):
    return table.points[["z", "y", "x"]].to_numpy().tolist()


def test_the_real_picks(real_data):
    path = real_data / "matched/portal_fixture/copick.json"
    points = json.loads(path.read_text())["points"]
    table = read_annotations(path)
    assert table.format == "copick"
    assert len(points) == 4
    assert coords(table) == [[point["location"][axis] for axis in "zyx"] for point in points]
    assert set(table.points["class_name"]) == {"ribosome"}
    assert set(table.points["volume"]) == {None}
    assert list(table.points["score"]) == [1.0] * 4
    assert dict(table.volumes) == {}
    assert (table.convention.unit, table.convention.zero, table.convention.inferred) == (
        "angstrom",
        "voxel-center",
        ("zero",),
    )
    assert any("--zero corner" in note for note in table.convention.notes)
    assert not table.warnings


def test_a_translation_is_an_offset(tmp_path):
    points = [
        pick(10, 20, 30, transformation_=shifted(1, 2, 3)),
        pick(1, 1, 1, transformation_=IDENTITY),
        pick(4, 5, 6),
    ]
    table = read_annotations(write(tmp_path, points))
    assert coords(table) == [[33, 22, 11], [1, 1, 1], [6, 5, 4]]
    assert any("added to 1 of 3" in note for note in table.convention.notes)
    assert not table.warnings


def test_a_translation_that_repeats_the_location_is_not_added(tmp_path):
    points = [pick(10, 20, 30, transformation_=shifted(10, 20, 30)), pick(1, 1, 1, transformation_=shifted(2, 0, 0))]
    table = read_annotations(write(tmp_path, points))
    assert coords(table) == [[30, 20, 10], [1, 1, 3]]
    (warning,) = table.warnings
    assert "repeats the location of 1 of 2 points" in warning


def test_a_point_at_zero_without_translation_is_no_repetition(tmp_path):
    assert not read_annotations(write(tmp_path, [pick(0, 0, 0, transformation_=IDENTITY)])).warnings


def test_spacing_belongs_to_the_run(tmp_path):
    table = read_annotations(write(tmp_path, [pick(1, 2, 3)], voxel_spacing=10.012))
    assert dict(table.volumes) == {"TS_1": VolumeHint(voxel_spacing=(10.012, 10.012, 10.012))}
    table = read_annotations(write(tmp_path, [pick(1, 2, 3)], voxel_spacing=10.012, run_name=None))
    assert dict(table.volumes) == {}
    assert any("10.012" in note for note in table.convention.notes)


@pytest.mark.parametrize("points", [[], None])
def test_no_points_state_a_volume_without_any(tmp_path, points):
    table = read_annotations(write(tmp_path, points))
    assert len(table.points) == 0
    assert list(table.volumes) == ["TS_1"]


@pytest.mark.parametrize(
    ("word", "unit"), [("angstrom", "angstrom"), ("Angstrom", "angstrom"), ("nm", "nm"), ("pixel", "voxel")]
)
def test_units(tmp_path, word, unit):
    assert read_annotations(write(tmp_path, [pick(1, 2, 3)], unit=word)).convention.unit == unit


def test_an_unknown_unit_needs_the_option(tmp_path):
    path = write(tmp_path, [pick(1, 2, 3)], unit="parsec")
    with pytest.raises(FormatError, match="give --unit"):
        read_annotations(path)
    assert read_annotations(path, AnnotationOptions(unit="nm")).convention.unit == "nm"


def test_a_missing_score_is_nan(tmp_path):
    scores = read_annotations(write(tmp_path, [pick(1, 2, 3), pick(1, 2, 4, score=0.25)])).points["score"]
    assert math.isnan(scores[0])
    assert scores[1] == 0.25


def test_points_may_come_first(tmp_path):
    path = tmp_path / "picks.json"
    path.write_text(json.dumps({"points": [pick(1, 2, 3)] * 2000, "pickable_object_name": "motor", "run_name": "a"}))
    table = read_annotations(path)
    assert (table.format, len(table.points)) == ("copick", 2000)


@pytest.mark.parametrize(
    ("points", "more", "said"),
    [
        ([pick("1", 2, 3)], {}, "location of point 0"),
        ([pick(1, 2, 3), pick(1, 2, math.nan)], {}, "location of point 1"),
        ([{"location": {"x": 1, "y": 2}}], {}, "location of point 0"),
        ([{}], {}, "location of point 0"),
        ([7], {}, "location of point 0"),
        ({"a": 1}, {}, "a list of points"),
        ([pick(1, 2, 3, transformation_=[[1, 0, 0, 0]])], {}, "4x4 numbers"),
        ([pick(1, 2, 3, transformation_=[*IDENTITY[:3], [0, 0, 1, 1]])], {}, "0, 0, 0, 1 as last row"),
        ([pick(1, 2, 3, score="high")], {}, "score of point 0"),
        ([pick(1, 2, 3)], {"voxel_spacing": 0}, "voxel_spacing above 0"),
        ([pick(1, 2, 3)], {"run_name": 7}, "text as run_name"),
        ([pick(1, 2, 3)], {"pickable_object_name": None}, "pickable_object_name"),
    ],
)
def test_broken_picks(tmp_path, points, more, said):
    with pytest.raises(FormatError) as caught:
        read_annotations(write(tmp_path, points, **more))
    assert said in str(caught.value)


def test_picks_cut_short(tmp_path):
    path = write(tmp_path, [pick(1, 2, 3)])
    path.write_text(path.read_text()[:-9])
    with pytest.raises(FormatError, match="in line 1, column"):
        read_annotations(path)


def matrix_columns() -> list[str]:
    return [f"transform_{row}{column}" for row in range(4) for column in range(4)]


def test_the_csv_is_in_angstrom_and_its_translation_an_offset(tmp_path):
    path = tmp_path / "picks.csv"
    flat = [str(value) for row in shifted(1, 2, 3) for value in row]
    repeated = [str(value) for row in shifted(7, 8, 9) for value in row]
    header = ",".join(["run_name", "x", "y", "z", *matrix_columns(), "score", "instance_id"])
    path.write_text(
        "\n".join(
            [
                header,
                ",".join(["TS_1", "10", "20", "30", *flat, "0.5", "0"]),
                ",".join(["TS_2", "7", "8", "9", *repeated, "", "0"]),
            ]
        )
    )
    table = read_annotations(path)
    assert table.format == "copick-csv"
    assert coords(table) == [[33, 22, 11], [9, 8, 7]]
    assert table.convention.unit == "angstrom"
    assert table.points["volume"].tolist() == list(table.volumes) == ["TS_1", "TS_2"]
    assert table.points["score"][0] == 0.5
    assert math.isnan(table.points["score"][1])
    assert "repeats the location of 1 of 2" in table.warnings[0]


NDJSON = [
    '{"type": "point", "location": {"x": 1, "y": 2.5, "z": 3}}',
    '{"type": "orientedPoint", "location": {"x": 4, "y": 5, "z": 6}, "xyz_rotation_matrix": [[1,0,0],[0,1,0],[0,0,1]]}',
    '{"type": "instancePoint", "location": {"x": 7, "y": 8, "z": 9}, "instance_id": 3}',
]


@pytest.mark.parametrize("name", ["points.ndjson", "points.json", "points"])
def test_the_portals_lines(tmp_path, name):
    path = tmp_path / name
    path.write_text("\n".join([NDJSON[0], "", *NDJSON[1:]]))
    table = read_annotations(path)
    assert table.format == "portal"
    assert coords(table) == [[3, 2.5, 1], [6, 5, 4], [9, 8, 7]]
    assert list(table.points["source_row"]) == [0, 1, 2]
    assert (table.convention.unit, table.convention.axis_order) == ("voxel", "xyz")


def test_older_lines_of_the_portal_are_zyx(tmp_path):
    path = tmp_path / "points.ndjson"
    path.write_text(NDJSON[0])
    assert coords(read_annotations(path, AnnotationOptions(axis_order="zyx"))) == [[1, 2.5, 3]]


@pytest.mark.parametrize(
    "line",
    [
        '{"type": "point", "location": {"x": 1, "y": 2',
        '{"type": "point", "location": {"x": 1, "y": 2}}',
        '{"type": "point", "location": {"x": 1, "y": 2, "z": "3"}}',
        '{"type": "point", "location": {"x": 1, "y": 2, "z": Infinity}}',
        '{"type": "mesh", "location": {"x": 1, "y": 2, "z": 3}}',
        '{"location": {"x": 1, "y": 2, "z": 3}}',
        "[1, 2, 3]",
        "{",
        "[" * 100000,
    ],
)
@pytest.mark.parametrize("before", [0, 2])
def test_a_broken_line_of_the_portal_is_named(tmp_path, line, before):
    path = tmp_path / "points.ndjson"
    path.write_text("\n".join([*NDJSON[:before], line]))
    with pytest.raises(FormatError, match=f"in line {before + 1}"):
        read_annotations(path)


def test_points_are_float64(tmp_path):
    path = tmp_path / "points.ndjson"
    path.write_text(NDJSON[0])
    assert read_annotations(path).points["z"].dtype == np.float64
