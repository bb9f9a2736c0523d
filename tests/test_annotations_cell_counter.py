"""Cell Counter XML of ImageJ and of cellfinder: classes, and what the slices count from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.sources import Truth, assert_store_is_true, converted, truth, write_tiff

from keypatch.errors import FormatError
from keypatch.formats.annotations import AnnotationOptions, VolumeHint, read_annotations


def marker(x: object, y: object, z: object) -> str:
    return f"<Marker><MarkerX>{x}</MarkerX><MarkerY>{y}</MarkerY>\n<MarkerZ> {z} </MarkerZ></Marker>"


def kind(number: object, *markers: str, name: str | None = None) -> str:
    named = "" if name is None else f"<Name>{name}</Name>"
    return f"<Marker_Type><Type>{number}</Type>{named}{''.join(markers)}</Marker_Type>"


def write(folder: Path, *kinds: str, image: str = "tomo_1.0.tif") -> Path:
    path = folder / "cells.xml"
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\r\n<CellCounter_Marker_File>'
        f"<Image_Properties><Image_Filename>{image}</Image_Filename></Image_Properties>"
        f"<Marker_Data><Current_Type>0</Current_Type>{''.join(kinds)}</Marker_Data></CellCounter_Marker_File>",
        encoding="utf-8",
    )
    return path


def coords(table):
    return table.points[["z", "y", "x"]].to_numpy().tolist()


def test_the_real_cells_of_cellfinder(real_data):
    path = real_data / "cellxml/cellfinder_cells.xml"
    table = read_annotations(path)
    texts = re.findall(r"<Marker[XYZ]>(\d+)<", path.read_text())
    expected = [[int(z), int(y), int(x)] for x, y, z in zip(*[iter(texts)] * 3, strict=True)]
    assert len(expected) == 65
    assert coords(table) == expected
    assert set(table.points["class_name"]) == {"1"}
    assert dict(table.volumes) == {}
    assert set(table.points["volume"]) == {None}
    assert "index_base" in table.convention.inferred
    assert "--index-base 1" in table.convention.notes[0]


def test_the_real_cells_counted_from_one(real_data):
    path = real_data / "cellxml/cellfinder_cells.xml"
    found = read_annotations(path, AnnotationOptions(index_base=1))
    plain = read_annotations(path)
    assert (plain.points["z"] - found.points["z"]).unique().tolist() == [1]
    assert plain.points[["y", "x"]].equals(found.points[["y", "x"]])
    assert found.convention.index_base == 0
    assert "index_base" not in found.convention.inferred


def test_imagej_counts_slices_from_one_and_pixels_from_zero(tmp_path):
    path = write(tmp_path, kind(1, marker(10, 20, 1), marker(11, 21, 7)), kind(2), kind(3, marker(1, 2, 3)))
    table = read_annotations(path)
    assert coords(table) == [[0, 20, 10], [6, 21, 11], [2, 2, 1]]
    assert table.points["class_name"].tolist() == ["1", "1", "3"]
    assert table.points["source_row"].tolist() == [0, 1, 2]
    assert set(table.points["volume"]) == {"tomo_1.0.tif"}
    assert dict(table.volumes) == {"tomo_1.0.tif": VolumeHint()}
    assert "1 was taken off z" in table.convention.notes[0]
    assert coords(read_annotations(path, AnnotationOptions(index_base=0))) == [[1, 20, 10], [7, 21, 11], [3, 2, 1]]


def test_a_slice_zero_shows_that_slices_count_from_zero(tmp_path):
    table = read_annotations(write(tmp_path, kind(1, marker(1, 2, 0), marker(3, 4, 5))))
    assert coords(table) == [[0, 2, 1], [5, 4, 3]]
    assert "count from 0" in table.convention.notes[0]


def test_names_that_a_person_gave_are_the_classes(tmp_path):
    kinds = [
        kind(number, marker(number, 2, 3), name=name)
        for number, name in enumerate(("motor", "Type 2", "&lt;Unnamed&gt;", "  ", None), 1)
    ]
    assert read_annotations(write(tmp_path, *kinds)).points["class_name"].tolist() == ["motor", "2", "3", "4", "5"]


def test_an_image_without_markers_is_stated_empty(tmp_path):
    table = read_annotations(write(tmp_path, kind(1)))
    assert (len(table.points), list(table.volumes)) == (0, ["tomo_1.0.tif"])


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ([kind(1, marker(1, 2, "three"))], "of marker 0, found '1', '2', 'three'"),
        ([kind(1, marker(1, 2, 3), marker(1, "", 3))], "of marker 1, found '1', '', '3'"),
        ([kind(1, "<Marker><MarkerX>1</MarkerX></Marker>")], "of marker 0"),
        ([kind(1, marker(1, 2, "1e999"))], "'1e999'"),
        ([kind("one", marker(1, 2, 3))], "a number as Type"),
        ([f"<Marker_Type>{marker(1, 2, 3)}</Marker_Type>"], "a number as Type"),
        (["<Marker_Type>"], "mismatched tag"),
    ],
)
def test_markers_that_are_refused(tmp_path, kinds, said):
    with pytest.raises(FormatError) as caught:
        read_annotations(write(tmp_path, *kinds))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_xml_under_the_forced_name(tmp_path):
    path = tmp_path / "a.xml"
    options = AnnotationOptions(format="cell-counter")
    path.write_text("<cells/>")
    with pytest.raises(FormatError, match="CellCounter_Marker_File, found 'cells'"):
        read_annotations(path, options)
    path.write_text("<CellCounter_Marker_File/>")
    with pytest.raises(FormatError, match="Marker_Data"):
        read_annotations(path)
    path.write_text('<!DOCTYPE a [<!ENTITY b "1">]><CellCounter_Marker_File>&b;</CellCounter_Marker_File>')
    with pytest.raises(FormatError, match="DOCTYPE"):
        read_annotations(path, options)


def test_a_marker_file_finds_its_image_and_its_slices(tmp_path):
    """End to end: the slice that ImageJ calls 1 is the volume's first."""
    image = truth(3, n_points=0)
    points = ((0.0, 5.0, 6.0), (19.0, 7.0, 8.0))
    known = {name: Truth(image.array, points, ("1", "1")) for name in ("cells",)}
    paths = [write_tiff(tmp_path / "cells", known["cells"]), write_tiff(tmp_path / "other", truth(4))]
    markers = write(tmp_path, kind(1, *(marker(int(x), int(y), int(z) + 1) for z, y, x in points)), image="cells.tif")
    report = converted(*paths, "-a", markers, "-o", tmp_path / "out.zarr", "--patch-shape", 8, "--ds-factor", 4)
    assert [entry["reason"] for entry in report["left_out"]] == [
        "no annotation file names them (--unannotated negative takes them as empty)"
    ]
    assert_store_is_true(tmp_path / "out.zarr", known, atol=1e-9)
