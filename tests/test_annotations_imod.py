"""IMOD's models, against points read from their bytes by hand."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keypatch.errors import FormatError
from keypatch.formats.annotations import AnnotationOptions, detect_format, read_annotations
from keypatch.geometry import voxel_index

SCATTERED, OPEN = 1 << 9, 1 << 3
HAS_ORIGIN, FLIPPED = 1 << 14, 1 << 16
NO_SCALE = (0.0, 0.0, 0.0)


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack(">i", len(data)) + data


def contour(*points: tuple[float, float, float], count: int | None = None) -> bytes:
    flat = [value for point in points for value in point]
    head = struct.pack(">iIii", len(points) if count is None else count, 0, 0, 0)
    return b"CONT" + head + struct.pack(f">{len(flat)}f", *flat)


def mesh(n_vertices: int, n_indices: int) -> bytes:
    return b"MESH" + struct.pack(">iiIhh", n_vertices, n_indices, 0, 0, 0) + bytes(12 * n_vertices + 4 * n_indices)


def an_object(*contours: bytes, name: bytes = b"", flags: int = 0, count: int | None = None) -> bytes:
    n_contours = sum(part.startswith(b"CONT") for part in contours)
    head = struct.pack(">64s64siI40x", name, b"", n_contours if count is None else count, flags)
    assert len(head) == 176
    return b"OBJT" + head + b"".join(contours) + chunk(b"IMAT", bytes(16))


def minx(
    otrans: tuple[float, ...] = NO_SCALE, cscale: tuple[float, ...] = (1, 1, 1), ctrans: tuple[float, ...] = NO_SCALE
) -> bytes:
    # The old scale and rotation hold garbage in files that 3dmod wrote.
    return chunk(b"MINX", struct.pack(">18f", 0, 1e-45, 2988.7, *otrans, 0, 0, 0, *cscale, *ctrans, 0, 0, 0))


def model(*chunks: bytes, flags: int = 0, count: int | None = None, end: bytes = b"IEOF") -> bytes:
    n_objects = sum(part.startswith(b"OBJT") for part in chunks) if count is None else count
    head = struct.pack(">8s128s4iI", b"IMODV1.2", b"IMOD-NewModel", 100, 80, 60, n_objects, flags)
    return head.ljust(240, b"\0") + b"".join(chunks) + end


def write(folder: Path, content: bytes, name: str = "picks.mod") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def coords(table) -> list[list[float]]:
    return table.points[["z", "y", "x"]].to_numpy().tolist()


def points_by_hand(path: Path) -> list[list[float]]:
    """z, y, x of every contour, found by its name in the bytes."""
    data = path.read_bytes()
    points, position = [], data.find(b"CONT")
    while position > 0:
        (n,) = struct.unpack_from(">i", data, position + 4)
        values = struct.unpack_from(f">{3 * n}f", data, position + 20)
        points += [list(values[i : i + 3][::-1]) for i in range(0, 3 * n, 3)]
        position = data.find(b"CONT", position + 20 + 12 * n)
    return points


@pytest.mark.parametrize(
    ("name", "first", "classes", "note"),
    [
        ("imod/multiple_objects_example.mod", (134, 661.8334, 367.0001), ["chemo-array"] * 6, "6 of open contours"),
        ("imod/slicer_angle_example.mod", (301.95468, 682.9125, 235.42159), [None] * 4, "4 of closed contours"),
        ("matched/portal_fixture/points.mod", (3, 2, 1), [None] * 3, "3 of closed contours"),
        ("matched/portal_fixture/oriented_points.mod", (301.95468, 682.9125, 235.42159), [None] * 4, "4 of closed"),
    ],
)
def test_the_real_models(real_data, name, first, classes, note):
    table = read_annotations(real_data / name)
    assert coords(table) == points_by_hand(real_data / name)
    np.testing.assert_allclose(coords(table)[0], first, rtol=1e-6)
    assert table.points["class_name"].tolist() == classes
    convention = table.convention
    assert (convention.unit, convention.axis_order, convention.zero) == ("voxel", "xyz", "corner-xy")
    assert {"unit", "zero"} == set(convention.inferred)
    assert any(note in line for line in convention.notes)


def test_a_real_point_as_an_index(real_data):
    """IMOD's x = 1, y = 2 are the borders between voxels 0, 1 and 1, 2; z = 3 is the centre of slice 3."""
    table = read_annotations(real_data / "matched/portal_fixture/points.mod")
    assert voxel_index(coords(table)[0], unit="voxel", zero=table.convention.zero).tolist() == [3, 1.5, 0.5]


def test_the_real_pixel_size_is_noted_and_used_where_asked(real_data):
    path = real_data / "imod/multiple_objects_example.mod"
    note = read_annotations(path).convention.notes[-1]
    assert "956 × 924 × 300 pixels (x, y, z) of 19.7333 Å" in note
    assert "--unit angstrom" in note
    table = read_annotations(path, AnnotationOptions(unit="angstrom"))
    np.testing.assert_allclose(coords(table), np.array(points_by_hand(path)) * 19.733333587646484)
    assert (table.convention.unit, table.convention.zero) == ("angstrom", "corner-xy")
    assert "multiplied" in table.convention.notes[0]


def test_the_real_objects_of_one_name_are_named(real_data):
    table = read_annotations(real_data / "imod/multiple_objects_example.mod")
    assert table.warnings == ("objects of one name are one class: 'chemo-array' (2)",)


def test_objects_are_classes_and_every_contour_counts(tmp_path):
    path = write(
        tmp_path,
        model(
            an_object(contour((1, 2, 3), (4, 5, 6)), contour((7, 8, 9)), name=b"ribosome", flags=SCATTERED | OPEN),
            an_object(name=b"empty"),
            an_object(contour((0.5, 1.5, -0.5)), mesh(2, 3), contour(), flags=OPEN),
            an_object(contour((1, 1, 1))),
        ),
    )
    table = read_annotations(path)
    assert coords(table) == [[3, 2, 1], [6, 5, 4], [9, 8, 7], [-0.5, 1.5, 0.5], [1, 1, 1]]
    assert table.points["class_name"].tolist() == ["ribosome"] * 3 + ["object 3", "object 4"]
    assert "1 of closed contours, 1 of open contours, 3 of scattered contours" in table.convention.notes[0]
    assert table.points["volume"].tolist() == [None] * 5


def test_a_part_of_an_image_is_led_back_to_the_whole_once(tmp_path):
    """A model drawn on the voxels from (10, 20, 30) of an image of 2 Å: ctrans = otrans - 2 * start."""
    body = an_object(contour((1, 2, 3))), minx((100, 0, 7), (2, 2, 2), (80, -40, -53))
    table = read_annotations(write(tmp_path, model(*body, flags=HAS_ORIGIN)))
    assert coords(table) == [[33, 22, 11]]
    assert "x 10, y 20, z 30" in table.convention.notes[0]
    in_angstrom = read_annotations(write(tmp_path, model(*body, flags=HAS_ORIGIN)), AnnotationOptions(unit="angstrom"))
    assert coords(in_angstrom) == [[66, 44, 22]]
    without_origin = read_annotations(write(tmp_path, model(*body)))
    assert coords(without_origin) == [[3, 2, 1]]


def test_y_and_z_that_were_exchanged_are_turned_back_first(tmp_path):
    body = an_object(contour((1, 2, 3))), minx((0, 0, 0), (2, 2, 2), (-20, -40, -60))
    table = read_annotations(write(tmp_path, model(*body, flags=FLIPPED | HAS_ORIGIN)))
    assert coords(table) == [[32, 23, 11]]
    assert "exchanged" in table.convention.notes[0]


@pytest.mark.parametrize("scale", [(0, 0, 0), (1, 1, 1), (np.nan, 1, 1), (-2, 2, 2)])
def test_a_model_without_pixel_size(tmp_path, scale):
    path = write(tmp_path, model(an_object(contour((1, 2, 3))), minx(cscale=scale), flags=HAS_ORIGIN))
    table = read_annotations(path, AnnotationOptions(unit="angstrom"))
    assert coords(table) == [[3, 2, 1]]
    assert table.convention.notes[-1] == "drawn on an image of 100 × 80 × 60 pixels (x, y, z)"


def test_a_model_without_points(tmp_path):
    table = read_annotations(write(tmp_path, model(an_object(), an_object(contour()))))
    assert len(table.points) == 0
    assert table.warnings == ("none of the model's 2 objects has a point",)


ONE = an_object(contour((1, 2, 3)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"IMODV0.2".ljust(300, b"\0"), "IMODV1.2"),
        (model(ONE)[:100], "its header"),
        (model(ONE, end=b""), "the chunk IEOF"),
        (model(ONE, end=b"IE"), "the chunk IEOF"),
        (model(ONE[:100], end=b""), "the chunk 'OBJT'"),
        (model(ONE[:170], end=b""), "the chunk IEOF"),
        (model(an_object(contour((1, 2, 3), count=4))), "4 points in a contour"),
        (model(an_object(contour((1, 2, 3), count=2**31 - 1))), "2147483647 points"),
        (model(an_object(contour((1, 2, 3), count=-1))), "-1 points"),
        (model(ONE, b"MESH" + struct.pack(">iiIhh", 2**30, 0, 0, 0, 0)), "vertices in a mesh"),
        (model(ONE, b"MESH" + struct.pack(">iiIhh", 0, 2**30, 0, 0, 0)), "indices in a mesh"),
        (model(ONE, b"VIEW" + struct.pack(">i", 2**31 - 1)), "bytes in a chunk"),
        (model(ONE, b"VIEW" + struct.pack(">i", -8)), "-8 bytes in a chunk"),
        (model(ONE, chunk(b"MINX", bytes(60))), "72 bytes in the chunk MINX, found 60"),
        (model(ONE, count=2), "2 objects, found 1"),
        (model(an_object(contour((1, 2, 3)), count=3)), "3 contours in object 1, found 1"),
        (model(contour((1, 2, 3))), "a contour of none"),
        (model(an_object(contour((1, np.nan, 3)))), "NaN or infinity in contour 1 of object 1"),
    ],
)
def test_broken_models(tmp_path, content, said):
    path = write(tmp_path, content)
    with pytest.raises(FormatError) as caught:
        read_annotations(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_content_tells_the_format(tmp_path):
    assert detect_format(write(tmp_path, model(ONE), "picks")).NAME == "imod"
    with pytest.raises(FormatError, match="text that is not UTF-8"):
        detect_format(write(tmp_path, b"\0" + model(ONE), "picks.mod"))


@given(st.data())
def test_a_model_cut_or_garbled_anywhere_is_an_error_of_ours(tmp_path_factory, data):
    whole = model(an_object(contour((1, 2, 3), (4, 5, 6)), mesh(1, 2), name=b"a"), minx(), flags=HAS_ORIGIN)
    content = bytearray(whole[: data.draw(st.integers(8, len(whole)))])
    position = data.draw(st.integers(8, len(content)))
    content[position : position + 4] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(FormatError):
        table = read_annotations(write(tmp_path_factory.mktemp("mod"), bytes(content)))
        assert len(table.points) <= 2


@given(st.lists(st.lists(st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 3), max_size=4), max_size=4))
def test_what_was_written_is_read(tmp_path_factory, contours):
    path = write(tmp_path_factory.mktemp("mod"), model(an_object(*[contour(*points) for points in contours])))
    assert coords(read_annotations(path)) == [[z, y, x] for points in contours for x, y, z in points]
