"""Dynamo's tables, and the lists that say which tomogram a number means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trials import trials

from keypatch.converters.catalog import build_catalog
from keypatch.converters.recipe import Recipe
from keypatch.errors import FormatError, ReadError
from keypatch.formats.annotations import AnnotationOptions, VolumeHint, detect_format, read_annotations
from keypatch.formats.annotations.tomogram_numbers import read_tomogram_files
from keypatch.geometry import voxel_index

WIDTH = 35


def row(width: int = WIDTH, **columns: object) -> str:
    """A row of zeros but for ``c24="1.5"`` and so on, columns counted from 1 as in Dynamo's convention."""
    cells = ["0"] * width
    for name, value in columns.items():
        cells[int(name[1:]) - 1] = str(value)
    return " ".join(cells)


def write(folder: Path, text: str, name: str = "particles.tbl") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def coords(table) -> np.ndarray:
    return table.points[["z", "y", "x"]].to_numpy()


@pytest.mark.parametrize(("name", "n_rows", "n_tomograms"), [("t_double", 300, 2), ("dynamo2m_example", 4934, 48)])
def test_the_real_tables(real_data, name, n_rows, n_tomograms):
    path = real_data / f"dynamo/{name}.tbl"
    rows = [[float(cell) for cell in line.split()] for line in path.read_text().splitlines()]
    table = read_annotations(path)
    assert len(table.points) == len(rows) == n_rows
    by_hand = [[r[25] + r[5], r[24] + r[4], r[23] + r[3]] for r in rows]
    np.testing.assert_array_equal(coords(table), by_hand)
    assert table.points["volume"].tolist() == [f"{r[19]:g}" for r in rows]
    assert list(table.volumes) == list(dict.fromkeys(table.points["volume"]))
    assert len(table.volumes) == n_tomograms
    np.testing.assert_array_equal(table.points["score"], [r[9] for r in rows])
    assert (table.convention.unit, table.convention.axis_order) == ("voxel", "xyz")
    assert table.convention.index_base == 1
    assert {"index_base", "zero"} == set(table.convention.inferred)
    assert table.warnings == ()


def test_the_real_tables_classes(real_data):
    table = read_annotations(real_data / "dynamo/t_double.tbl")
    assert table.points["class_name"].tolist()[:5] == ["9", "2", "2", "9", "7"]
    assert set(read_annotations(real_data / "dynamo/dynamo2m_example.tbl").points["class_name"]) == {None}


def test_a_real_position_as_an_index(real_data):
    """x 141.28, dx 2.5178 of the first row: voxel 143.7978 from 1 is index 142.7978."""
    table = read_annotations(real_data / "dynamo/t_double.tbl")
    convention = table.convention
    index = voxel_index(coords(table)[0], unit=convention.unit, zero=convention.zero, index_base=convention.index_base)
    np.testing.assert_allclose(index, [164.1843, 110.187, 142.7978])


def test_of_complex_cells_the_real_part_counts(tmp_path):
    rows = [
        row(c4="1.5+0i", c20=1, c24="10-2e-06i", c25="20+0i", c26="30+1.2e+03i", c28="0+1.2074e-06i"),
        row(c4="-1e-1-0.5i", c20=1, c24="1e1+0i", c25="20+NaNi", c26="30", c28="2+0i"),
    ]
    table = read_annotations(write(tmp_path, "\n".join(rows)))
    np.testing.assert_allclose(coords(table), [[30, 20, 11.5], [30, 20, 9.9]])


@pytest.mark.parametrize("cell", ["3i", "1+2", "1+2j", "one", "1,5", "nan", "inf", "NaN+1i", "1e999"])
def test_a_cell_that_is_no_number_is_named(tmp_path, cell):
    text = "\n".join([row(c20=1), row(c20=1, c25=cell)])
    with pytest.raises(FormatError, match=r"column 24.* in line 2"):
        read_annotations(write(tmp_path, text), AnnotationOptions(format="dynamo"))


def test_angstrom_per_pixel_is_a_hint_of_each_volume(tmp_path):
    lines = [row(36, c20=n, c24=1, c36=apix) for n, apix in ((1, 10), (1, 10), (2, 0), (3, 5), (3, 6), (4, -1))]
    table = read_annotations(write(tmp_path, "\n".join(lines)))
    assert dict(table.volumes) == {"1": VolumeHint((10, 10, 10)), **dict.fromkeys("234", VolumeHint())}
    assert [("contradict" in line, "3" in line) for line in table.warnings] == [(True, True), (False, False)]
    assert "no voxel spacing above 0 for 4" in table.warnings[1]


def test_particles_without_tomogram_class_or_score(tmp_path):
    table = read_annotations(write(tmp_path, row(26, c24=1, c25=2, c26=3)))
    assert table.points[["volume", "class_name"]].iloc[0].tolist() == [None, None]
    assert np.isnan(table.points["score"].iloc[0])
    assert dict(table.volumes) == {}
    some = read_annotations(write(tmp_path, "\n".join([row(c20=1, c22=0), row(c20=1, c22=2)])))
    assert some.points["class_name"].tolist() == [None, "2"]
    assert "1 of 2 particles have the class 0" in some.warnings[0]


@pytest.mark.parametrize(("column", "said"), [("c20", "tomogram number"), ("c22", "class number")])
def test_numbers_that_count_must_be_whole(tmp_path, column, said):
    with pytest.raises(FormatError, match=f"{said}.*1.5 in row 1"):
        read_annotations(write(tmp_path, "\n".join([row(c20=1), row(**{"c20": 1, column: 1.5})])))


def test_flags_change_what_is_inferred(tmp_path):
    path = write(tmp_path, row(c20=1, c24=1, c25=2, c26=3))
    table = read_annotations(path, AnnotationOptions(index_base=0, axis_order="zyx"))
    assert coords(table).tolist() == [[1, 2, 3]]
    assert (table.convention.index_base, table.convention.inferred) == (0, ("zero",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (row(25), "26 columns or more, found 25"),
        (row(c20=1) + "\n" + row(30, c20=1), "35 cells a row, found 30 in line 2"),
        (row(c20=1) + "\n" + row(36, c20=1), "same number of cells"),
        ("1", "delimiter|26 columns"),
    ],
)
def test_rows_too_short(tmp_path, text, said):
    with pytest.raises(FormatError, match=said) as caught:
        read_annotations(write(tmp_path, text), AnnotationOptions(format="dynamo"))
    assert "\n" not in str(caught.value)


def test_content_tells_the_format(tmp_path):
    assert detect_format(write(tmp_path, "  " + row(26), "a")).NAME == "dynamo"
    assert detect_format(write(tmp_path, row(42), "a.csv")).NAME == "dynamo"
    for other in (row(25), row(43), row(26).replace(" ", ","), row(26, c3="x")):
        with pytest.raises(FormatError):
            detect_format(write(tmp_path, other, "a"))


@settings(max_examples=trials(30))
@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 6, st.integers(1, 9)), min_size=1, max_size=5))
def test_position_is_coordinate_plus_shift_once(tmp_path_factory, particles):
    lines = [
        row(c4=repr(p[0]), c5=repr(p[1]), c6=repr(p[2]), c24=repr(p[3]), c25=repr(p[4]), c26=repr(p[5]), c20=p[6])
        for p in particles
    ]
    table = read_annotations(write(tmp_path_factory.mktemp("tbl"), "\n".join(lines)))
    expected = [[p[5] + p[2], p[4] + p[1], p[3] + p[0]] for p in particles]
    np.testing.assert_array_equal(coords(table), expected)
    assert table.points["volume"].tolist() == [str(p[6]) for p in particles]


# Which tomogram a number means


def test_a_volume_list_counts_its_files_from_1(tmp_path):
    listing = write(
        tmp_path, "# ours\n/data/ts_a.mrc\n> a.tbl\n\nts_b.rec\n!m.omd\n*ftype = 1\nC:\\d\\ts c.em\n", "all.vll"
    )
    path = write(tmp_path, "\n".join(row(c20=n) for n in (3, 1, 4)))
    table = read_annotations(path, AnnotationOptions(tomograms=listing))
    assert table.points["volume"].tolist() == ["ts c", "ts_a", "4"]
    assert table.volumes["ts_a"] == VolumeHint(file_stem="ts_a")
    assert table.volumes["4"] == VolumeHint()
    assert table.warnings == ("all.vll does not list tomogram 4",)
    assert "tomograms are named by all.vll" in table.convention.notes


def test_a_parameter_sets_a_tomograms_number(tmp_path):
    listing = write(tmp_path, "a.mrc\n* index = 7\n* apix = 1.2\nb.mrc\n", "all.vll")
    assert read_tomogram_files(listing) == {7: "a.mrc", 2: "b.mrc"}


def test_a_table_map_has_numbers_and_files(tmp_path):
    listing = write(tmp_path, "1\ttomo_ts01.mrc_15.00Apx.mrc\n20 /a b/tomo_2.mrc\n", "map.doc")
    assert read_tomogram_files(listing) == {1: "tomo_ts01.mrc_15.00Apx.mrc", 20: "/a b/tomo_2.mrc"}
    path = write(tmp_path, "\n".join(row(c20=n) for n in (20, 1)))
    table = read_annotations(path, AnnotationOptions(tomograms=listing))
    assert table.points["volume"].tolist() == ["tomo_2", "tomo_ts01.mrc_15.00Apx"]


def test_the_real_map_of_the_real_table(real_data, tmp_path):
    """Tomogram numbers of a real table, given the names that dynamo2m's other file has."""
    path = real_data / "dynamo/dynamo2m_example.tbl"
    numbers = [int(line.split()[19]) for line in path.read_text().splitlines()]
    listing = write(tmp_path, "\n".join(f"{n} tomo_ts{n:02d}.mrc" for n in sorted(set(numbers))), "map.doc")
    table = read_annotations(path, AnnotationOptions(tomograms=listing))
    assert table.points["volume"].tolist() == [f"tomo_ts{n:02d}" for n in numbers]
    assert table.warnings == ()


def test_files_of_one_name_are_kept_apart(tmp_path):
    listing = write(tmp_path, "ts1/rec.mrc\nts2/rec.mrc\nother.mrc\n", "all.vll")
    path = write(tmp_path, "\n".join(row(c20=n) for n in (1, 2, 3)))
    table = read_annotations(path, AnnotationOptions(tomograms=listing))
    assert table.points["volume"].tolist() == ["1", "2", "other"]
    assert table.volumes["1"].file_stem is None
    assert "called alike: the tomograms 1, 2" in table.warnings[0]


def test_a_list_for_a_table_without_numbers(tmp_path):
    listing = write(tmp_path, "a.mrc", "all.vll")
    table = read_annotations(write(tmp_path, row(26)), AnnotationOptions(tomograms=listing))
    assert table.points["volume"].tolist() == [None]
    assert "no tomogram numbers for all.vll" in table.warnings[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found no file"),
        ("# a.mrc\n", "found no file"),
        ("data_global\n\nloop_\n_rlnTomoName\nx\n", "a STAR file"),
        ("1 a.mrc\n1 b.mrc\n", "1 several times"),
        ("a.mrc\n*index = 2\nb.mrc\n", "2 several times"),
        ("*index = 2\nb.mrc\n", "a file before its parameters"),
    ],
)
def test_broken_lists(tmp_path, text, said):
    listing = write(tmp_path, text, "all.vll")
    with pytest.raises(FormatError) as caught:
        read_annotations(write(tmp_path, row(c20=1)), AnnotationOptions(tomograms=listing))
    assert said in str(caught.value)
    assert str(listing) in str(caught.value)


def test_a_missing_list(tmp_path):
    with pytest.raises(ReadError, match=r"nope\.vll.*nothing there"):
        read_annotations(write(tmp_path, row(c20=1)), AnnotationOptions(tomograms=tmp_path / "nope.vll"))


@pytest.mark.parametrize("how", ["list", "map"])
def test_numbers_lead_to_volumes(tmp_path, how):
    """Voxel (4, 5, 6) from 1, x y z, of two tomograms: index (3, 4, 5)."""
    for name in ("left", "right"):
        np.save(tmp_path / f"{name}.npy", np.zeros((12, 11, 10), np.uint8))
    write(tmp_path, "\n".join([row(c20=1, c24=4, c25=5, c26=6), row(c20=2, c24=3.5, c4=0.5, c25=5, c26=7)]))
    settings = {
        "list": {"tomograms": str(write(tmp_path, "/data/right.mrc\nleft.mrc", "all.vll"))},
        "map": {"map": {"1": "right", "2": "left"}},
    }[how]
    recipe = {"volumes": str(tmp_path / "*.npy"), "annotations": str(tmp_path / "*.tbl"), "voxel_spacing": 10}
    catalog = build_catalog(Recipe.from_mapping({**recipe, **settings}))
    found = {volume.id: volume.points.coords.tolist() for volume in catalog.volumes}
    assert found == {"left": [[6, 4, 3]], "right": [[5, 4, 3]]}
