"""Motive lists: those of TOM and av3 in EM files, and STOPGAP's STAR files."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keypatch.errors import FormatError, UsageError
from keypatch.formats.annotations import AnnotationOptions, VolumeHint, detect_format, read_annotations
from keypatch.geometry import voxel_index

DTYPES = {2: "i2", 4: "i4", 5: "f4", 9: "f8"}


def em(
    values: np.ndarray, machine: int = 6, dtype: int = 5, sizes: tuple[int, int, int] | None = None, order: str = "<"
) -> bytes:
    """An EM file: one column of 20 numbers a particle."""
    n_particles, n_rows = values.shape
    head = struct.pack(f"{order}4B3i", machine, 0, 0, dtype, *(sizes or (n_rows, n_particles, 1)))
    return head.ljust(512, b"\0") + values.astype(order + DTYPES[dtype]).tobytes()


def particles(*rows: dict[int, float]) -> np.ndarray:
    """(K, 20) zeros but for the rows of the list, counted from 1."""
    values = np.zeros((len(rows), 20))
    for k, row in enumerate(rows):
        for number, value in row.items():
            values[k, number - 1] = value
    return values


def write(folder: Path, content: bytes | str, name: str = "motl.em") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def coords(table) -> list[list[float]]:
    return table.points[["z", "y", "x"]].to_numpy().tolist()


ONE = {1: 0.5, 5: 7, 8: 10, 9: 20, 10: 30, 11: 1, 12: -2, 13: 0.25, 17: 90, 20: 3}


@pytest.mark.parametrize(("machine", "order"), [(6, "<"), (3, ">"), (5, ">"), (0, ">")])
@pytest.mark.parametrize("dtype", [5, 9])
def test_a_motive_list_of_every_machine(tmp_path, machine, order, dtype):
    path = write(tmp_path, em(particles(ONE, ONE), machine, dtype, order=order), "motl")
    table = read_annotations(path)
    assert table.format == "motive-list"
    assert coords(table) == [[30.25, 18, 11]] * 2
    assert table.points[["volume", "class_name", "score"]].iloc[0].tolist() == ["7", "3", 0.5]
    assert dict(table.volumes) == {"7": VolumeHint()}
    assert (table.convention.index_base, set(table.convention.inferred)) == (1, {"index_base", "zero"})
    assert "the shifts of rows 11 to 13 were added" in table.convention.notes
    assert table.warnings == ()


def test_the_position_as_an_index(tmp_path):
    convention = (table := read_annotations(write(tmp_path, em(particles(ONE))))).convention
    index = voxel_index(coords(table), unit="voxel", zero=convention.zero, index_base=convention.index_base)
    assert index.tolist() == [[29.25, 17, 10]]


def test_shifts_of_another_dialect_are_named_and_chosen(tmp_path):
    path = write(tmp_path, em(particles({8: 1, 9: 2, 10: 3, 14: 0.5, 15: 0.25, 16: -1}, {8: 1})))
    table = read_annotations(path)
    assert coords(table) == [[3, 2, 1], [0, 0, 1]]
    (warning,) = table.warnings
    assert "rows 14 to 16 of 1 particles are not 0 and were not added" in warning
    assert "--columns shift=14" in warning
    chosen = read_annotations(path, AnnotationOptions(columns={"shift": "14"}))
    assert coords(chosen) == [[2, 2.25, 1.5], [0, 0, 1]]
    assert chosen.warnings == ()
    both = read_annotations(write(tmp_path, em(particles({8: 1, 11: 1, 14: 2}))), AnnotationOptions())
    assert coords(both) == [[0, 0, 2]]
    assert len(both.warnings) == 1


@pytest.mark.parametrize(("columns", "said"), [({"shift": "12"}, "11 or 14"), ({"x": "1"}, "shift, the first row")])
def test_other_columns_are_refused(tmp_path, columns, said):
    with pytest.raises(UsageError, match=said):
        read_annotations(write(tmp_path, em(particles(ONE))), AnnotationOptions(format="motive-list", columns=columns))


def test_a_list_without_tomogram_class_or_score(tmp_path):
    table = read_annotations(write(tmp_path, em(particles({8: 1}))))
    assert table.points[["volume", "class_name"]].iloc[0].tolist() == [None, None]
    assert np.isnan(table.points["score"].iloc[0])
    empty = read_annotations(write(tmp_path, em(np.zeros((0, 20)))), AnnotationOptions(format="motive-list"))
    assert len(empty.points) == 0


def test_tomogram_numbers_get_their_names(tmp_path):
    listing = write(tmp_path, "a.mrc\nb.mrc\n", "all.vll")
    values = particles({5: 2}, {5: 1})
    table = read_annotations(write(tmp_path, em(values)), AnnotationOptions(tomograms=listing))
    assert table.points["volume"].tolist() == ["b", "a"]


@pytest.mark.parametrize(
    "content",
    [
        em(np.zeros((30, 20)), sizes=(20, 30, 40)),
        em(np.zeros((30, 21))),
        em(particles(ONE), sizes=(20, 0, 1)),
        em(particles(ONE), machine=6, order=">"),
        em(particles(ONE), machine=1),
        em(particles(ONE), dtype=5).replace(b"\x06\0\0\x05", b"\x06\0\0\x07"),
        em(particles(ONE))[:500],
    ],
)
def test_an_em_volume_is_no_motive_list(tmp_path, content):
    with pytest.raises(FormatError, match="formats"):
        detect_format(write(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (em(particles(ONE, ONE))[:-1], "160 bytes for 2 particles, found 159"),
        (em(particles(ONE)) + b"\0", "80 bytes for 1 particles, found 81"),
        (em(particles(ONE), sizes=(20, 2**31 - 1, 1)), "bytes for 2147483647 particles, found 80"),
        (em(np.zeros((30, 20)), sizes=(20, 30, 40)), "20 × N × 1"),
        (em(particles(ONE, {8: np.nan})), "NaN or infinity in particle 1"),
        (em(particles(ONE, {5: 1.5})), "tomogram (row 5), found 1.5 in row 1"),
        (em(particles({20: 0.5})), "class (row 20), found 0.5"),
    ],
)
def test_broken_motive_lists(tmp_path, content, said):
    with pytest.raises(FormatError) as caught:
        read_annotations(write(tmp_path, content), AnnotationOptions(format="motive-list"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=700), st.integers(0, 20))
def test_a_garbled_motive_list_is_an_error_of_ours(tmp_path_factory, garbage, position):
    content = bytearray(em(particles(ONE)))
    content[position : position + len(garbage)] = garbage
    path = write(tmp_path_factory.mktemp("em"), bytes(content))
    with contextlib.suppress(FormatError):
        read_annotations(path, AnnotationOptions(format="motive-list"))


# STOPGAP

COLUMNS = ["motl_idx", "tomo_num", "halfset", "orig_x", "orig_y", "orig_z", "score", "x_shift", "y_shift", "z_shift"]


def stopgap(*rows: str, columns: list[str] | None = None, block: str = "stopgap_motivelist") -> str:
    labels = "\n".join(f"_{name}" for name in columns or [*COLUMNS, "class"])
    return f"\ndata_{block}\n\nloop_\n{labels}\n\n" + "\n".join(rows) + "\n"


def test_the_real_stopgap_list(real_data):
    path = real_data / "matched/portal_fixture/stopgap_star.star"
    lines = [line.split() for line in path.read_text().splitlines()]
    names = [line[0] for line in lines if line and line[0].startswith("_")]
    rows = [dict(zip(names, line, strict=True)) for line in lines if len(line) == len(names)]
    table = read_annotations(path)
    by_hand = [[float(row[f"_orig_{axis}"]) + float(row[f"_{axis}_shift"]) for axis in "zyx"] for row in rows]
    assert coords(table) == by_hand
    np.testing.assert_allclose(coords(table)[0], [12 - 3.2, 8 - 2.4, 4 - 1.2])
    assert table.points["volume"].tolist() == ["1", "1", "2", "2", "2", "3"]
    assert table.points["class_name"].tolist() == ["1"] * 6
    assert table.points["score"].tolist() == [0.1816, *[0.1704] * 5]
    assert (table.convention.unit, table.convention.index_base) == ("voxel", 1)
    assert {"index_base", "zero"} == set(table.convention.inferred)
    assert "x_shift, y_shift, z_shift were added" in table.convention.notes


def test_stopgap_numbers_get_their_names(tmp_path):
    listing = write(tmp_path, "5 ts_5.mrc\n", "map.doc")
    path = write(tmp_path, stopgap("1 5 A 1 2 3 0 0 0 0 0"), "motl.star")
    table = read_annotations(path, AnnotationOptions(tomograms=listing))
    assert table.points[["volume", "class_name"]].iloc[0].tolist() == ["ts_5", None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (stopgap("1 5 A 1 2 3 0 0 0 0 0", block="other"), "the block data_stopgap_motivelist, found data_other"),
        (stopgap("1 5 A 1 2 3 0 0 0 0", columns=COLUMNS), "no class"),
        (stopgap("1 5 A 1 2 3 0 0 0 0 0", "1 5 A 1 2 3 0 0 0 0"), "10 in line"),
        (stopgap("1 5 A 1 2 x 0 0 0 0 0"), "'x' in line 17"),
        (stopgap("1 1.5 A 1 2 3 0 0 0 0 0"), "a whole number as tomo_num, found 1.5"),
    ],
)
def test_broken_stopgap_lists(tmp_path, text, said):
    with pytest.raises(FormatError) as caught:
        read_annotations(write(tmp_path, text, "motl.star"), AnnotationOptions(format="stopgap"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stopgap_list_without_rows(tmp_path):
    table = read_annotations(write(tmp_path, stopgap(), "motl.star"))
    assert (len(table.points), table.warnings) == (0, ("data_stopgap_motivelist has no rows",))
