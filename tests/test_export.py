"""What is written comes back to the same coordinates, by keypatch's readers and by libraries that know none of it."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from tests.trials import trials

from keypatch import geometry
from keypatch.errors import UsageError, WriteError
from keypatch.export import FORMATS, Options, export
from keypatch.formats.annotations import AnnotationOptions, read_annotations

CLASSES = ("motor", "ribosome")


class FakeStore:
    """The parts of a store that an export asks for."""

    path = "out.zarr"
    classes = CLASSES

    def __init__(self, records):
        self.volume_records = records
        self.volume_ids = tuple(record["id"] for record in records)


def record(name, shape=(40, 50, 61), spacing=(10.0, 10.0, 10.0), resampling=None):
    return {"id": name, "shape": list(shape), "voxel_spacing": list(spacing), "resampling": resampling}


def frame(rows):
    """(volume, class, z, y, x, score) a row."""
    columns = ["volume", "class_name", "z", "y", "x", "score"]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys("zyx", np.float64) | {"score": np.float64})
    return table.assign(n_views=np.arange(len(table)) + 1, patch=0)


names = st.text("abcXYZ019-_.", min_size=1, max_size=8).filter(lambda name: name.strip(".") and name[0] not in "_-.")


@st.composite
def scenes(draw):
    """Volumes of any shape and spacing, on their own grid or resampled, and detections in them."""
    records, rows = [], []
    for name in draw(st.lists(names, min_size=1, max_size=3, unique_by=str.lower)):
        shape = draw(st.tuples(*[st.integers(1, 200)] * 3))
        spacing = draw(st.floats(0.5, 30))
        resampling = None
        if draw(st.booleans()):
            source = draw(st.tuples(*[st.floats(0.5, 30)] * 3))
            resampling = {"source_shape": [n + 3 for n in shape], "source_spacing": list(source)}
        records.append(record(name, shape, (spacing,) * 3, resampling))
        for _ in range(draw(st.integers(0, 4))):
            point = [draw(st.floats(-0.5, n - 0.5, exclude_max=True)) for n in shape]
            rows.append((name, draw(st.sampled_from(CLASSES)), *point, draw(st.floats(0.01, 2))))
    return FakeStore(records), frame(rows)


def in_source(store, table):
    """Coordinates on the grid of the volume's file, by the rule of schema.md written out here."""
    result = []
    for _, row in table.iterrows():
        known = next(r for r in store.volume_records if r["id"] == row["volume"])
        point = row[["z", "y", "x"]].to_numpy(np.float64)
        if known["resampling"]:
            ratio = np.array(known["voxel_spacing"]) / np.array(known["resampling"]["source_spacing"])
            point = (point + 0.5) * ratio - 0.5
        result.append((row["volume"], row["class_name"], *point, row["score"]))
    return result


def read_back(paths, store, options=None):
    """Points of files as voxel indices, by keypatch's own readers and geometry, with the format left to be told."""
    result = []
    for path in paths:
        table = read_annotations(path, options)
        for _, row in table.points.iterrows():
            known = next(r for r in store.volume_records if r["id"] == row["volume"])
            own = known["resampling"] or {"source_shape": known["shape"], "source_spacing": known["voxel_spacing"]}
            index = geometry.voxel_index(
                row[["z", "y", "x"]].to_numpy(np.float64),
                unit=table.convention.unit,
                zero=table.convention.zero,
                index_base=table.convention.index_base,
                voxel_spacing=own["source_spacing"],
                volume_shape=own["source_shape"],
            )
            result.append((row["volume"], row["class_name"], *index, row["score"]))
    return result


def _place(row):
    return row[0], row[1], *(round(value, 3) for value in row[2:5])


def assert_same(found, expected, scores=True):
    found, expected = sorted(found, key=_place), sorted(expected, key=_place)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    if found:
        end = 6 if scores else 5
        assert_allclose(
            np.array([row[2:end] for row in found]), np.array([row[2:end] for row in expected]), atol=1e-9, rtol=1e-12
        )


@settings(max_examples=trials(40), suppress_health_check=[HealthCheck.too_slow])
@given(scenes(), st.sampled_from(FORMATS))
def test_what_is_written_comes_back(scene, form):
    store, table = scene
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        options, reading = Options(pixel_angstrom=3.3), AnnotationOptions()
        expected = in_source(store, table)
        if form == "byu":
            options = Options(classes=("motor",))
            best = {}
            for row in sorted((row for row in expected if row[1] == "motor"), key=lambda row: -row[5]):
                best.setdefault(row[0], row)  # of equals the first
            expected = list(best.values())
        if form.startswith("relion"):
            reading = AnnotationOptions(columns={"class": "rlnClassNumber"})
            expected = [(row[0], str(CLASSES.index(row[1]) + 1), *row[2:]) for row in expected]
        exported = export(table, store, path, form, options)
        assert exported.rows == len(expected)
        if not len(table) and form != "byu":
            return
        assert_same(read_back(exported.files, store, reading), expected, scores=form != "byu")


def test_byu_is_what_the_competition_takes(tmp_path):
    store = FakeStore([record("tomo_1"), record("tomo_2"), record("tomo_3")])
    table = frame(
        [
            ("tomo_3", "motor", 1.5, 2.25, 3, 0.4),
            ("tomo_1", "motor", 9, 9, 9, 0.5),
            ("tomo_1", "motor", 10, 11, 12.125, 0.9),
        ]
    )
    exported = export(table, store, tmp_path / "submission.csv", "byu")
    with (tmp_path / "submission.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["tomo_id", "Motor axis 0", "Motor axis 1", "Motor axis 2"],
            ["tomo_1", "10.0", "11.0", "12.125"],
            ["tomo_2", "-1", "-1", "-1"],
            ["tomo_3", "1.5", "2.25", "3.0"],
        ]
    assert exported.rows == 2
    assert "1 others were not" in exported.notes[0]
    back = read_annotations(tmp_path / "submission.csv")
    assert back.format == "byu"
    assert list(back.volumes) == ["tomo_1", "tomo_2", "tomo_3"]


def test_copick_files_are_where_and_what_copick_has(tmp_path):
    store = FakeStore([record("TS_1", spacing=(10.0, 10.0, 10.0)), record("TS_2", spacing=(8.0, 5.0, 4.0))])
    table = frame([("TS_1", "motor", 1, 2, 3, 0.5), ("TS_2", "ribosome", 1, 2, 3, 0.5)])
    exported = export(table, store, tmp_path, "copick", Options(user="my_net", session="a b"))
    first = tmp_path / "ExperimentRuns" / "TS_1" / "Picks" / "my-net_a-b_motor.json"
    second = tmp_path / "ExperimentRuns" / "TS_2" / "Picks" / "my-net_a-b_ribosome.json"
    assert exported.files == (first, second)
    picks = json.loads(first.read_text())
    assert picks["voxel_spacing"] == 10.0
    assert picks["unit"] == "angstrom"
    assert picks["run_name"] == "TS_1"
    assert picks["pickable_object_name"] == "motor"
    (point,) = picks["points"]
    assert point["location"] == {"x": 30.0, "y": 20.0, "z": 10.0}
    assert np.array_equal(point["transformation_"], np.eye(4))
    other = json.loads(second.read_text())
    assert other["voxel_spacing"] is None
    assert other["points"][0]["location"] == {"x": 12.0, "y": 10.0, "z": 8.0}


def test_relion_5_by_starfile(tmp_path):
    store = FakeStore([record("TS_1", shape=(40, 50, 61), spacing=(10.0,) * 3)])
    table = frame([("TS_1", "motor", 20, 25, 30.5, 0.75), ("TS_1", "motor", 0, 0, 0, 0.5)])
    export(table, store, tmp_path / "p.star", "relion5", Options(classes=("motor",)))
    block = starfile.read(tmp_path / "p.star", always_dict=True)["particles"]
    assert block["rlnTomoName"].tolist() == ["TS_1", "TS_1"]
    centered = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
    assert block[centered].to_numpy().tolist() == [[0, 0, 0], [-305, -250, -200]]
    assert "rlnClassNumber" not in block
    assert block["rlnAutopickFigureOfMerit"].tolist() == [0.75, 0.5]


def test_relion_4_by_starfile(tmp_path):
    """Pixels of the unbinned tilt series, whose size the optics table has."""
    store = FakeStore([record("TS_1", spacing=(10.0,) * 3), record("TS_2", spacing=(13.0,) * 3)])
    table = frame([("TS_1", "motor", 20, 25, 30.5, 0.75), ("TS_2", "ribosome", 1, 2, 3, 0.5)])
    export(table, store, tmp_path / "p.star", "relion4", Options(pixel_angstrom=2.5))
    blocks = starfile.read(tmp_path / "p.star")
    assert blocks["optics"]["rlnTomoTiltSeriesPixelSize"].tolist() == [2.5]
    particles = blocks["particles"]
    assert particles[[f"rlnCoordinate{axis}" for axis in "XYZ"]].iloc[0].tolist() == [122, 100, 80]
    assert particles["rlnClassNumber"].tolist() == [1, 2]
    export(table, store, tmp_path / "q.star", "relion4")
    blocks = starfile.read(tmp_path / "q.star")
    assert blocks["optics"]["rlnTomoTiltSeriesPixelSize"].tolist() == [10.0, 13.0]
    assert blocks["particles"]["rlnOpticsGroup"].tolist() == [1, 2]
    assert blocks["particles"][[f"rlnCoordinate{axis}" for axis in "XYZ"]].iloc[1].tolist() == [3, 2, 1]


def test_the_same_detections_give_the_same_bytes_and_nothing_beside_them(tmp_path):
    store = FakeStore([record("a")])
    table = frame([("a", "motor", 1, 2, 3, 0.5)])
    for form in FORMATS:
        contents = []
        for folder in ("one", "two"):
            out = tmp_path / form / folder
            out.mkdir(parents=True)
            path = out if form == "copick" else out / "x"
            export(table, store, path, form)
            export(table, store, path, form)
            files = [file for file in out.rglob("*") if file.is_file()]
            assert len(files) == 1
            contents.append(files[0].read_bytes())
        assert contents[0] == contents[1]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    store, path = FakeStore([record("a")]), tmp_path / "x.csv"
    path.write_text("old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keypatch.export.sync_file", full)
    with pytest.raises(WriteError, match="No space left"):
        export(frame([("a", "motor", 1, 2, 3, 0.5)]), store, path, "csv")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.csv"]


def test_names_that_a_table_must_quote_come_back(tmp_path):
    hostile = 'a,"b" #1'
    store = FakeStore([record(hostile), record("#x")])
    table = frame([(hostile, "motor", 1, 2, 3, 0.5), ("#x", "motor", 4, 5, 6, 0.5)])
    export(table, store, tmp_path / "x.csv", "csv")
    assert read_annotations(tmp_path / "x.csv").points["volume"].tolist() == [hostile, "#x"]


@pytest.mark.parametrize(
    ("rows", "form", "options", "words"),
    [
        ([("a b", "motor", 1, 2, 3, 1)], "relion5", Options(), "without blanks"),
        ([("../up", "motor", 1, 2, 3, 1)], "copick", Options(), "names that can be files"),
        ([("ok", "motor", 1, 2, 3, 1), ("ok", "ribosome", 1, 2, 3, 1)], "byu", Options(), "--class motor"),
        ([("ok", "motor", 1, 2, 3, 1)], "csv", Options(classes=("nothing",)), "classes of motor, ribosome"),
        ([("ok", "motor", 1, 2, 3, 1)], "xml", Options(), "one of csv, byu"),
        ([("elsewhere", "motor", 1, 2, 3, 1)], "csv", Options(), "volumes of out.zarr"),
        ([("ok", "motor", np.nan, 2, 3, 1)], "csv", Options(), "finite coordinates"),
        ([("flat", "motor", 1, 2, 3, 1)], "relion4", Options(), "--pixel-size"),
        ([("ok", "motor", 1, 2, 3, 1)], "relion4", Options(pixel_angstrom=0), "above 0"),
        ([("ok", "motor", 1, 2, 3, 1)], "copick", Options(user=""), "names that can be files"),
    ],
)
def test_what_is_refused(tmp_path, rows, form, options, words):
    names = {row[0] for row in rows} - {"elsewhere"} | {"ok"}
    store = FakeStore([record(n, spacing=(8.0, 5.0, 4.0) if n == "flat" else (10.0,) * 3) for n in sorted(names)])
    with pytest.raises(UsageError) as raised:
        export(frame(rows), store, tmp_path / "x", form, options)
    assert words in str(raised.value)
    assert list(tmp_path.rglob("*")) == []


def test_a_table_of_something_else_and_a_place_that_is_none(tmp_path):
    store, table = FakeStore([record("a")]), frame([("a", "motor", 1, 2, 3, 0.5)])
    with pytest.raises(UsageError, match="no score"):
        export(table.drop(columns="score"), store, tmp_path / "x", "csv")
    with pytest.raises(WriteError):
        export(table, store, tmp_path / "none" / "x.csv", "csv")
    with pytest.raises(UsageError, match="a folder"):
        export(table, store, tmp_path, "csv")
