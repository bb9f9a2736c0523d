"""DeepFinder's objects, ChimeraX's markers, and the coordinates and boxes of TomoTwin."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from keypatch.converters.catalog import build_catalog
from keypatch.converters.recipe import Recipe
from keypatch.errors import FormatError
from keypatch.formats.annotations import AnnotationOptions, VolumeHint, detect_format, read_annotations


def write(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def coords(table) -> list[list[float]]:
    return table.points[["z", "y", "x"]].to_numpy().tolist()


# DeepFinder

OBJECTS = """<objlist>
  <object tomo_idx="0" class_label="2" x="71" y="152.5" z="470"/>
  <object tomo_idx="1" obj_id="4" class_label="1" x="1" y="2" z="3" phi="10" psi="nan" the="30" cluster_size="44"/>
</objlist>
"""


def test_objects_of_deepfinder(tmp_path):
    table = read_annotations(write(tmp_path, OBJECTS, "objects"))
    assert table.format == "deepfinder"
    assert coords(table) == [[470, 152.5, 71], [3, 2, 1]]
    assert table.points["volume"].tolist() == ["0", "1"]
    assert table.points["class_name"].tolist() == ["2", "1"]
    assert dict(table.volumes) == {"0": VolumeHint(), "1": VolumeHint()}
    assert (table.convention.unit, table.convention.index_base) == ("voxel", 0)
    assert {"index_base", "zero"} == set(table.convention.inferred)


def test_deepfinder_counts_its_tomograms_from_0(tmp_path):
    listing = write(tmp_path, "a.h5\nb.h5\n", "tomograms.txt")
    table = read_annotations(write(tmp_path, OBJECTS, "o.xml"), AnnotationOptions(tomograms=listing))
    assert table.points["volume"].tolist() == ["a", "b"]


def test_objects_without_a_tomogram(tmp_path):
    one = '<objlist><object class_label="1" x="1" y="2" z="3"/><object tomo_idx="4" class_label="1" x="1" y="2" z="3"/>'
    table = read_annotations(write(tmp_path, f"{one}</objlist>", "o.xml"))
    assert table.points["volume"].tolist() == [None, "4"]
    table = read_annotations(write(tmp_path, '<?xml version="1.0"?>\n<objlist/>', "o.xml"))
    assert (len(table.points), table.warnings) == (0, ("the list has no objects",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OBJECTS.replace(' x="1"', ""), "a number as x of object 1, found none"),
        (OBJECTS.replace('y="2"', 'y="two"'), "a number as y of object 1, found 'two'"),
        (OBJECTS.replace('y="2"', 'y="inf"'), "a number as y of object 1, found 'inf'"),
        (OBJECTS.replace('class_label="1"', ""), "a whole number as class_label of object 1, found none"),
        (OBJECTS.replace('class_label="1"', 'class_label="1.5"'), "class_label of object 1, found '1.5'"),
        (OBJECTS.replace('tomo_idx="1"', f'tomo_idx="{10**30}"'), "a whole number as tomo_idx of object 1"),
        (OBJECTS[:-12], "in line"),
        (f'<!DOCTYPE a [<!ENTITY x "1">]>{OBJECTS}', "DOCTYPE"),
        ("<other/>", "an objlist, found <other>"),
    ],
)
def test_broken_objects(tmp_path, text, said):
    path = write(tmp_path, text, "o.xml")
    with pytest.raises(FormatError) as caught:
        read_annotations(path, AnnotationOptions(format="deepfinder"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# ChimeraX; the markers are those of its documentation

MARKERS = """<marker_set name="marker set 1">
<marker id="1" x="-6.1267" y="17.44" z="-3.1338"  radius="0.35217"/>
<marker id="2" x="1.5395" y="16.277" z="-3.0339" r="0" g="1" b="1"
               radius="0.5" note="An example note"/>
<link id1="2" id2="1" r="1" g="1" b="0" radius="0.17609"/>
</marker_set>
"""


def test_markers_of_chimerax(tmp_path):
    table = read_annotations(write(tmp_path, MARKERS, "markers"))
    assert table.format == "cmm"
    assert coords(table) == [[-3.1338, 17.44, -6.1267], [-3.0339, 16.277, 1.5395]]
    assert table.points["class_name"].tolist() == ["marker set 1"] * 2
    assert table.points["volume"].tolist() == [None, None]
    convention = table.convention
    assert (convention.unit, convention.zero, convention.inferred) == ("angstrom", "world", ("zero",))
    assert "1 links between markers were not used" in convention.notes


def test_several_sets_are_classes(tmp_path):
    other = MARKERS.replace(' name="marker set 1"', "").replace("<link", "<other")
    table = read_annotations(write(tmp_path, f"<marker_sets>{MARKERS}{other}</marker_sets>", "m.cmm"))
    assert table.points["class_name"].tolist() == ["marker set 1"] * 2 + [None] * 2
    assert table.points["source_row"].tolist() == [0, 1, 2, 3]


def test_markers_where_the_person_says_where_zero_is(tmp_path):
    path = write(tmp_path, MARKERS, "m.cmm")
    convention = read_annotations(path, AnnotationOptions(zero="voxel-center")).convention
    assert (convention.zero, convention.inferred) == ("voxel-center", ())


@pytest.mark.parametrize(("flags", "index"), [({}, [4, 6, 5]), ({"zero": "voxel-center"}, [9, 8, 6])])
def test_markers_count_from_the_maps_origin(tmp_path, flags, index):
    """Origin x, y, z 10, 20, 50 Å, voxels of 10 Å: the marker at 60, 80, 90 Å is voxel 5, 6, 4."""
    with mrcfile.new(tmp_path / "map.mrc") as file:
        file.set_data(np.zeros((14, 12, 10), np.float32))
        file.voxel_size = 10
        file.header.origin = (10, 20, 50)
    write(tmp_path, '<marker_set name="motor"><marker id="1" x="60" y="80" z="90"/></marker_set>', "m.cmm")
    recipe = {"volumes": str(tmp_path / "map.mrc"), "annotations": str(tmp_path / "m.cmm"), **flags}
    catalog = build_catalog(Recipe.from_mapping(recipe))
    assert catalog.classes == ("motor",)
    np.testing.assert_allclose(catalog.volumes[0].points.coords, [index])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MARKERS.replace('z="-3.0339"', ""), "a number as z of marker 1, found none"),
        (MARKERS.replace('y="17.44"', 'y="17,44"'), "a number as y of marker 0, found '17,44'"),
        (MARKERS[:-5], "in line"),
        (f'<!DOCTYPE a SYSTEM "a.dtd">{MARKERS}', "DOCTYPE"),
        ("<objlist/>", "a marker_set, found <objlist>"),
    ],
)
def test_broken_markers(tmp_path, text, said):
    with pytest.raises(FormatError) as caught:
        read_annotations(write(tmp_path, text, "m.cmm"), AnnotationOptions(format="cmm"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_set_without_markers(tmp_path):
    table = read_annotations(write(tmp_path, '<marker_set name="a"/>', "m.cmm"))
    assert (len(table.points), table.warnings) == (0, ("the file has no markers",))


# TomoTwin


def test_coordinates_of_tomotwin(tmp_path):
    table = read_annotations(write(tmp_path, "10 20 30\n 1.5 2.5\t3.5\n", "1abc.coords"))
    assert table.format == "tomotwin-coords"
    assert coords(table) == [[30, 20, 10], [3.5, 2.5, 1.5]]
    assert (table.convention.unit, table.convention.axis_order) == ("voxel", "xyz")
    turned = read_annotations(table.path, AnnotationOptions(axis_order="zyx"))
    assert coords(turned)[0] == [10, 20, 30]


def test_named_columns_and_headers_make_coordinates_a_table(tmp_path):
    path = write(tmp_path, "10 20 30\n", "a.coords")
    assert detect_format(path, AnnotationOptions(columns={"z": "0", "y": "1", "x": "2"})).NAME == "table"
    assert detect_format(write(tmp_path, "X Y Z\n10 20 30\n", "b.coords")).NAME == "table"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2\n", "x, y and z in a line, found 2 columns"),
        ("1 2 3 4\n", "found 4 columns"),
        ("1 2 3\n1 2\n", "found 2 in line 2"),
        ("1 2 3\n1 2 x\n", "'x' in line 2"),
        ("1 2 3\n1 2 nan\n", "'nan' in line 2"),
    ],
)
def test_broken_coordinates(tmp_path, text, said):
    with pytest.raises(FormatError) as caught:
        read_annotations(write(tmp_path, text, "a.coords"))
    assert said in str(caught.value)


LABELS = ["CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "Depth", "EstWidth", "Confidence", "Angle"]


def cbox(*rows: str, labels: list[str] = LABELS) -> str:
    head = "\n".join(f"_{label} #{i}" for i, label in enumerate(labels, 1))
    boxes = "\n".join(rows)
    return (
        f"\ndata_global\n\n_cbox_format_version   1.0 \n\ndata_cryolo\n\nloop_\n{head}\n{boxes}\n\n"
        "data_cryolo_include\n\nloop_\n_slice_index #1\n 50.000000 \n"
    )


def test_boxes_of_tomotwin(tmp_path):
    """TomoTwin writes X - width / 2, Y - height / 2 and Z itself for a particle at X, Y, Z."""
    x, y, z, size = 24.75, 40.0, 50.0, 37
    row = f"{x - size / 2} {y - size / 2} {z} {size} {size} {size} 30 0.9 <NA>"
    table = read_annotations(write(tmp_path, cbox(row, row.replace("0.9", "<NA>")), "boxes"))
    assert table.format == "cbox"
    assert coords(table) == [[z, y, x]] * 2
    np.testing.assert_array_equal(table.points["score"], [0.9, np.nan])
    assert (table.convention.unit, table.convention.axis_order) == ("voxel", "xyz")
    assert "CoordinateZ is the centre's slice already" in table.convention.notes[0]


def test_boxes_of_unequal_sides(tmp_path):
    table = read_annotations(write(tmp_path, cbox("1 2 3 10 20 30 0 0 0"), "a.cbox"))
    assert coords(table) == [[3, 12, 6]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (cbox("1 2 3 4", labels=["CoordinateX", "CoordinateY", "Width", "Height"]), "boxes of images"),
        (cbox("1 2 3", labels=["CoordinateX", "CoordinateY", "CoordinateZ"]), "no Width, Height"),
        (cbox("1 2 <NA> 4 5 6 7 8 9"), "a number as CoordinateZ"),
        (cbox("1 2 3 4 five 6 7 8 9"), "'five' in line"),
        (cbox("1 2 3 4 5 6 7 8 9", "1 2 3 4 5 6 7 8"), "8 in line"),
        ("data_other\n\nloop_\n_CoordinateX #1\n1\n", "the block data_cryolo, found data_other"),
    ],
)
def test_broken_boxes(tmp_path, text, said):
    with pytest.raises(FormatError) as caught:
        read_annotations(write(tmp_path, text, "a.cbox"), AnnotationOptions(format="cbox"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_boxes(tmp_path):
    table = read_annotations(write(tmp_path, cbox(), "a.cbox"))
    assert (len(table.points), table.warnings) == (0, ("data_cryolo has no rows",))
