"""3D Slicer's fcsv and mrk.json: frames, labels, and points that were never placed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sources import converted

from keypatch.errors import FormatError, UsageError
from keypatch.formats.annotations import AnnotationOptions, LeftOut, read_annotations
from keypatch.formats.store import Store

AFIDS = "matched/afids_mni/tpl-MNI152NLin2009cAsym_afids"
COLUMNS = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"


def write(folder: Path, content: object, name: str = "points.fcsv") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def fcsv(folder: Path, *rows: str, frame: str | None = "LPS", version: str = "4.13", columns: str = COLUMNS) -> Path:
    header = [f"# Markups fiducial file version = {version}"]
    header += [] if frame is None else [f"# CoordinateSystem = {frame}"]
    return write(folder, "\n".join([*header, columns, *rows]) + "\n")


def markup(*points: dict, **more: object) -> dict:
    return {"type": "Fiducial", "controlPoints": list(points), **more}


def markups(folder: Path, *lists: dict) -> Path:
    return write(folder, {"markups": list(lists)}, "points.mrk.json")


def coords(table):
    return table.points[["z", "y", "x"]].to_numpy().tolist()


def test_the_real_landmarks_are_the_same_in_both_files(real_data):
    listed = read_annotations(real_data / f"{AFIDS}.fcsv")
    marked = read_annotations(real_data / f"{AFIDS}.json")
    with (real_data / f"{AFIDS}.fcsv").open() as file:
        rows = [row for row in csv.reader(file) if not row[0].startswith("#")]
    lps = [[float(row[3]), -float(row[2]), -float(row[1])] for row in rows]  # the file says 0, which is RAS
    assert len(rows) == 32
    np.testing.assert_array_equal(coords(listed), lps)
    np.testing.assert_allclose(coords(marked), lps, rtol=0, atol=1e-9)
    for table in (listed, marked):
        assert (table.convention.unit, table.convention.zero, table.convention.axis_order) == ("mm", "world", "xyz")
        assert table.convention.inferred == ()
        assert "RAS" in table.convention.notes[0]
        assert "--columns class=label" in table.convention.notes[1]
        assert table.points["class_name"].isna().all()
        assert table.points["source_row"].tolist() == list(range(32))
        assert (table.left_out, table.warnings, dict(table.volumes)) == ((), (), {})


@pytest.mark.parametrize("suffix", ["fcsv", "json"])
def test_the_real_landmarks_in_the_real_brain(real_data, tmp_path, suffix):
    """End to end, against nibabel's affine map, which is RAS as the landmarks are."""
    nibabel = pytest.importorskip("nibabel")
    brain = real_data / f"{AFIDS.removesuffix('afids')}res-02_T1w.nii.gz"
    entries = json.loads((real_data / f"{AFIDS}.json").read_text())["markups"][0]["controlPoints"]
    ras = np.array([entry["position"] for entry in entries])
    expected = nibabel.affines.apply_affine(np.linalg.inv(nibabel.load(brain).affine), ras)[:, ::-1]
    out = tmp_path / "out.zarr"
    report = converted(
        *(brain, "-a", real_data / f"{AFIDS}.{suffix}", "-o", out, "--columns", "class=description"),
        *("--patch-shape", 16, "--ds-factor", 4, "--jitter", 0),
    )
    assert report["left_out"] == []
    assert len(report["annotations"]) == 32
    found = Store(out).annotations.sort_values("source_row")[["z", "y", "x"]].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("suffix", ["fcsv", "json"])
def test_labels_or_descriptions_become_classes_when_asked(real_data, suffix):
    path = real_data / f"{AFIDS}.{suffix}"
    by_label = read_annotations(path, AnnotationOptions(columns={"class": "label"}))
    assert by_label.points["class_name"].tolist() == [str(number) for number in range(1, 33)]
    for name in ("desc", "description"):
        by_name = read_annotations(path, AnnotationOptions(columns={"class": name}))
        assert by_name.points["class_name"].tolist()[:2] == ["AC", "PC"]
    assert len(by_name.convention.notes) == 1
    for columns in ({"class": "id"}, {"volume": "label"}):
        with pytest.raises(UsageError, match="label or"):
            read_annotations(path, AnnotationOptions(columns=columns))


@pytest.mark.parametrize(
    ("frame", "version", "expected", "warned"),
    [
        ("0", "4.6", [3, -2, -1], False),
        ("RAS", "5.6", [3, -2, -1], False),
        ("1", "4.10", [3, 2, 1], False),
        ("LPS", "4.11", [3, 2, 1], False),
        (None, "4.10", [3, -2, -1], True),
        (None, "4.11", [3, 2, 1], True),
        (None, "5.0", [3, 2, 1], True),
    ],
)
def test_frames_by_number_name_and_version(tmp_path, frame, version, expected, warned):
    table = read_annotations(fcsv(tmp_path, "1,1,2,3,0,0,0,1,1,1,0,F-1,,", frame=frame, version=version))
    assert coords(table) == [expected]
    assert bool(table.warnings) == warned


def test_a_zero_that_is_no_world_keeps_the_signs(tmp_path):
    table = read_annotations(fcsv(tmp_path, "1,1,2,3", frame="RAS"), AnnotationOptions(zero="corner"))
    assert (coords(table), table.convention.zero, table.convention.notes) == ([[3, 2, 1]], "corner", ())


def test_rows_of_other_lengths_quotes_blanks_and_hidden_points(tmp_path):
    path = fcsv(
        tmp_path,
        '1,1,2,3,0,0,0,1,0,0,0,"cell, big","a ""name""",vtk',
        "",
        "2,4,5,6",
        "3, 7 ,8,9,0,0,0,1,1,1,0,c,d,e,f,g",
    )
    table = read_annotations(path, AnnotationOptions(columns={"class": "label"}))
    assert coords(table) == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]
    assert table.points["class_name"].tolist() == ["cell, big", None, "c"]
    assert table.points["source_row"].tolist() == [0, 1, 2]
    assert table.warnings == ("1 of 3 points have no label, so no class",)


def test_columns_in_another_order_and_slicer_3(tmp_path):
    assert coords(read_annotations(fcsv(tmp_path, "F,3,2,1", columns="# columns = label,z,y,x"))) == [[3, 2, 1]]
    text = "# Fiducial List file /a/b.fcsv\n# version = 2\n# columns = label,x,y,z,sel,vis\nF-1,1,2,3,1,1\n"
    table = read_annotations(write(tmp_path, text))
    assert (table.format, coords(table)) == ("slicer-fcsv", [[3, -2, -1]])


def test_an_empty_list_warns(tmp_path):
    assert read_annotations(fcsv(tmp_path)).warnings == ("the list has no points",)
    assert read_annotations(markups(tmp_path, markup())).warnings == ("the markups hold no placed point",)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (lambda folder: fcsv(folder, "1,1,2,3", frame="2"), "RAS, 1 or LPS, found '2'"),
        (lambda folder: fcsv(folder, "1,1,2,3", frame="IJK"), "counts voxels"),
        (lambda folder: fcsv(folder, "1,1,2,3", "2,1,two,3"), "z in line 5, found '1', 'two', '3'"),
        (lambda folder: fcsv(folder, "1,1,2"), "in line 4, found '1', '2', ''"),
        (lambda folder: fcsv(folder, "1,1,2,nan"), "'nan'"),
        (lambda folder: fcsv(folder, "1,2", columns="# columns = x,y"), "x, y and z in the line '# columns ='"),
        (lambda folder: write(folder, "1,2,3,4\n"), "a header line '# Markups fiducial file version"),
        (lambda folder: fcsv(folder, "1," + "9" * 200_000 + ",3,4"), "numbers x, y and z in line 4"),
    ],
)
def test_a_list_that_is_refused(tmp_path, path, said):
    with pytest.raises(FormatError) as caught:
        read_annotations(path(tmp_path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_points_that_were_never_placed_and_shapes_are_listed(tmp_path):
    path = markups(
        tmp_path,
        {"type": "Line", "controlPoints": [{"position": [0, 0, 0]}, {"position": [1, 1, 1]}]},
        markup(
            {"position": [1, 2, 3], "positionStatus": "defined", "visibility": False, "selected": False},
            {"position": [0, 0, 0], "positionStatus": "undefined"},
            {"positionStatus": "preview"},
        ),
        markup({"position": [4, 5, 6]}, coordinateSystem="RAS"),
        {"type": "Plane"},
    )
    table = read_annotations(path)
    assert coords(table) == [[3, 2, 1], [6, -5, -4]]
    assert table.points["source_row"].tolist() == [2, 5]
    assert table.left_out == (
        LeftOut("its positionStatus says that the point was never placed", (3, 4)),
        LeftOut("control point of a shape, not of a point list", (0, 1), "Line"),
    )


@pytest.mark.parametrize(
    ("unit", "expected"),
    [(None, "mm"), ("mm", "mm"), ("um", "um"), (["um", "UCUM", "micrometer"], "um"), (["nm"], "nm")],
)
def test_units_of_markups(tmp_path, unit, expected):
    more = {} if unit is None else {"coordinateUnits": unit}
    assert read_annotations(markups(tmp_path, markup({"position": [1, 2, 3]}, **more))).convention.unit == expected


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ([markup({"position": [1, 2]})], "three numbers as position of point 0, found [1, 2]"),
        ([markup({"position": [1, 2, "3"]})], "position of point 0"),
        ([markup({"label": "a"})], "position of point 0, found None"),
        ([markup({"position": [1, 2, 3]}, {"position": [1, 2, True]})], "position of point 1"),
        ([markup(coordinateSystem="IJK")], "LPS or RAS, found 'IJK'"),
        ([markup(coordinateSystem=["LPS"])], "LPS or RAS"),
        ([markup(coordinateUnits=["cm", "UCUM", "centimeter"])], "give --unit"),
        ([markup(), markup(coordinateUnits="um")], "one unit for all markups, found mm, um"),
        ([markup({"position": [1, 2, 3], "positionStatus": "gone"})], "positionStatus"),
        ([{"type": "Fiducial", "controlPoints": {"a": 1}}], "a list of controlPoints"),
        ([3], "a list of markups"),
    ],
)
def test_markups_that_are_refused(tmp_path, lists, said):
    with pytest.raises(FormatError) as caught:
        read_annotations(markups(tmp_path, *lists), AnnotationOptions(format="slicer-markups"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stated_unit_counts_where_the_file_has_an_unknown_one(tmp_path):
    path = markups(tmp_path, markup({"position": [1, 2, 3]}, coordinateUnits="furlong"))
    assert read_annotations(path, AnnotationOptions(unit="um")).convention.unit == "um"


numbers = st.floats(-1e6, 1e6)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers), max_size=6))
def test_one_place_in_four_spellings(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("spellings")
    ras = [(-x, -y, z) for x, y, z in points]
    rows = {frame: [f"{k},{x!r},{y!r},{z!r}" for k, (x, y, z) in enumerate(given)]
            for frame, given in (("LPS", points), ("RAS", ras))}  # fmt: skip
    found = [coords(read_annotations(fcsv(folder, *rows[frame], frame=frame))) for frame in rows]
    for frame, given_points in (("LPS", points), ("RAS", ras)):
        entries = [{"position": list(point)} for point in given_points]
        found.append(coords(read_annotations(markups(folder, markup(*entries, coordinateSystem=frame)))))
    assert all(table == [[z, y, x] for x, y, z in points] for table in found)
