"""Coordinates against average pooling, brute force and formulas written by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tests.trials import trials

from keypatch import geometry
from keypatch.gaussian import REACH

coordinates = st.floats(-1e4, 1e4)
points = st.tuples(coordinates, coordinates, coordinates)
factors = st.tuples(*[st.integers(1, 32)] * 3)
small_shapes = st.tuples(*[st.integers(1, 9)] * 3)
origins = st.tuples(*[st.integers(-30, 30)] * 3)


def pooled(volume: np.ndarray, factor: tuple[int, int, int]) -> np.ndarray:
    """Average pooling by scipy: the mean of each block, by labels."""
    coarse = tuple(n // f for n, f in zip(volume.shape, factor, strict=True))
    blocks = np.arange(math.prod(coarse)).reshape(coarse)
    for axis, f in enumerate(factor):
        blocks = blocks.repeat(f, axis)
    return np.asarray(ndimage.mean(volume, blocks, np.arange(math.prod(coarse)))).reshape(coarse)


# Between real space and the coarse grid


@given(points, factors)
def test_rs_to_ds_and_back(point, factor) -> None:
    there = geometry.local_ds(point, factor)
    np.testing.assert_allclose(geometry.rs_from_ds(there, factor), point, rtol=0, atol=1e-11)
    np.testing.assert_allclose(geometry.local_ds(geometry.rs_from_ds(point, factor), factor), point, rtol=0, atol=1e-11)


@given(points, factors)
def test_ds_by_hand(point, factor) -> None:
    expected = [(p + 0.5) / f - 0.5 for p, f in zip(point, factor, strict=True)]
    assert geometry.local_ds(point, factor).tolist() == expected
    assert geometry.rs_from_ds(point, factor).tolist() == [
        (p + 0.5) * f - 0.5 for p, f in zip(point, factor, strict=True)
    ]


@given(st.tuples(*[st.integers(1, 16)] * 3), small_shapes)
def test_coarse_voxels_lie_where_average_pooling_puts_them(factor, coarse) -> None:
    """Each coarse voxel lies at the mean of the indices that it pools."""
    shape = tuple(f * n for f, n in zip(factor, coarse, strict=True))
    for axis in range(3):
        ramp = np.arange(shape[axis], dtype=np.float64)
        means = ramp.reshape(coarse[axis], factor[axis]).mean(axis=1)
        j = np.zeros((coarse[axis], 3))
        j[:, axis] = np.arange(coarse[axis])
        assert geometry.rs_from_ds(j, factor)[:, axis].tolist() == means.tolist()
        np.testing.assert_allclose(
            geometry.local_ds(geometry.rs_from_ds(j, factor), factor)[:, axis], j[:, axis], atol=1e-14
        )


@settings(max_examples=trials(15), deadline=None)
@given(st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.floats(0, 1)] * 3))
def test_a_blob_keeps_its_place_when_pooled(factor, share) -> None:
    """A blob rendered at a known sub-voxel place and pooled by scipy has its centroid at `local_ds`.

    With a sigma of 1.2 coarse voxels what sampling adds to a centroid is below exp(-2 (1.2 pi)^2) = 5e-13 of a voxel.
    """
    coarse = np.array([19, 20, 21])
    shape = coarse * factor
    center = (np.array(share) + coarse // 2) * factor
    profiles = [
        np.exp(-0.5 * ((np.arange(n) - c) / (1.2 * f)) ** 2) for n, c, f in zip(shape, center, factor, strict=True)
    ]
    fine = profiles[0][:, None, None] * profiles[1][:, None] * profiles[2]
    np.testing.assert_allclose(ndimage.center_of_mass(fine), center, rtol=0, atol=1e-8)
    found = ndimage.center_of_mass(pooled(fine, factor))
    np.testing.assert_allclose(geometry.local_ds(center, factor), found, rtol=0, atol=1e-8)


def test_the_naive_rule_is_off_by_half_a_coarse_voxel() -> None:
    """What this module is for: dividing alone puts every point (f - 1) / 2f too far, 94 A at 16 and 12.5 A a voxel."""
    off = np.array([100.0, 100, 100]) / 16 - geometry.local_ds([100.0, 100, 100], 16)
    np.testing.assert_allclose(off, 15 / 32)
    assert round(15 / 32 * 16 * 12.5) == 94


def test_local_rs_is_a_difference() -> None:
    coords, origin = np.array([[1.5, 2, 3], [4, 5, 6.25]]), np.array([-3, 0, 10])
    assert geometry.local_rs(coords, origin).tolist() == [[4.5, 2, -7], [7, 5, -3.75]]
    assert geometry.local_rs(coords, [[1, 1, 1], [2, 2, 2]]).tolist() == [[0.5, 1, 2], [2, 3, 4.25]]


@given(st.tuples(*[st.floats(0.1, 10)] * 3), factors, st.tuples(*[st.floats(0.5, 30)] * 3))
def test_sigma_in_angstrom_and_back(sigma, factor, spacing) -> None:
    there = geometry.angstrom_sigma(sigma, factor, spacing)
    np.testing.assert_allclose(there, [s * f * v for s, f, v in zip(sigma, factor, spacing, strict=True)], rtol=1e-15)
    np.testing.assert_allclose(geometry.ds_sigma(there, factor, spacing), sigma, rtol=1e-15)


def test_sigma_of_the_users_example() -> None:
    assert geometry.ds_sigma(200.0, (16, 16, 16), (12.5, 12.5, 12.5)).tolist() == [1.0, 1.0, 1.0]


# The coarse grid


@given(factors, small_shapes)
def test_grid_shape(factor, coarse) -> None:
    assert geometry.grid_shape([f * n for f, n in zip(factor, coarse, strict=True)], factor) == coarse


@pytest.mark.parametrize(
    ("shape", "factor"), [((16, 16, 17), (16, 16, 16)), ((8, 16, 16), (16, 16, 16)), ((4, 4, 4), (0, 1, 1)),
                          ((4, 4, 4), (-1, 1, 1)), ((16, 16), (16, 16, 16))],
)  # fmt: skip
def test_grid_shape_that_does_not_divide(shape, factor) -> None:
    with pytest.raises(ValueError, match=r"multiple|zip"):
        geometry.grid_shape(shape, factor)


# Patches in volumes


@given(points, st.tuples(*[st.integers(1, 300)] * 3))
@example((-0.5, 0.5, 1.5), (4, 5, 6))
@example((-1.5, -2.5, 2.5), (4, 5, 7))
@example((-0.4999, -0.5001, 0.4999), (16, 16, 16))
def test_centered_origin(point, shape) -> None:
    """The voxel that covers the point, [i - 0.5, i + 0.5), is voxel size // 2 of the patch."""
    origin = geometry.centered_origin(point, shape)
    assert origin.dtype == np.int64
    for p, o, n in zip(point, origin.tolist(), shape, strict=True):
        voxel = o + n // 2
        assert voxel - 0.5 <= p < voxel + 0.5 or abs(abs(p - voxel) - 0.5) < 1e-12
    local = geometry.local_rs(point, origin)
    assert np.abs(local - np.array(shape) // 2).max() <= 0.5


@pytest.mark.parametrize(("coord", "voxel"), [(0.5, 1), (-0.5, 0), (1.5, 2), (-1.5, -1), (2.5, 3), (-0.51, -1), (7, 7)])
def test_ties_go_to_the_voxel_that_begins_there(coord, voxel) -> None:
    """Not to the even one, as `round` would have it."""
    assert geometry.centered_origin([coord] * 3, (10, 11, 1)).tolist() == [voxel - 5, voxel - 5, voxel]


@given(origins, small_shapes, st.tuples(*[st.integers(1, 30)] * 3))
def test_valid_box_against_brute_force(origin, patch, volume) -> None:
    start, stop = geometry.valid_box(origin, patch, volume)
    for axis in range(3):
        inside = [i for i in range(patch[axis]) if 0 <= origin[axis] + i < volume[axis]]
        assert list(range(start[axis], stop[axis])) == inside
        assert 0 <= start[axis] <= stop[axis] <= patch[axis]


def test_valid_box_of_many() -> None:
    origin = np.array(list(itertools.product((-9, -1, 0, 5, 99), repeat=3)))
    volumes = np.full_like(origin, 7)
    start, stop = geometry.valid_box(origin, (4, 4, 4), (7, 7, 7))
    again = geometry.valid_box(origin, (4, 4, 4), volumes)
    assert start.shape == stop.shape == origin.shape
    assert np.array_equal(start, again[0])
    assert np.array_equal(stop, again[1])
    for o, a, b in zip(origin, start, stop, strict=True):
        one = geometry.valid_box(o, (4, 4, 4), (7, 7, 7))
        assert (a.tolist(), b.tolist()) == (one[0].tolist(), one[1].tolist())


@given(st.lists(st.tuples(*[st.floats(-3, 12)] * 3), min_size=1, max_size=9), small_shapes)
@example([(-0.5, 0.0, 0.0), (0.0, 3.5, 0.0), (np.nextafter(3.5, 0), 0, 0), (np.nextafter(-0.5, -1), 0, 0)], (4, 4, 4))
def test_inside_against_brute_force(coords, shape) -> None:
    expected = [all(-0.5 <= c < n - 0.5 for c, n in zip(point, shape, strict=True)) for point in coords]
    assert geometry.inside(coords, shape).tolist() == expected


def test_inside_of_nothing_and_nowhere() -> None:
    assert geometry.inside(np.empty((0, 3)), (4, 4, 4)).shape == (0,)
    assert not geometry.inside([np.nan, 1, 1], (4, 4, 4))
    assert not geometry.inside([np.inf, 1, 1], (4, 4, 4))
    assert not geometry.inside([1, 1, -np.inf], (4, 4, 4))


@given(
    st.lists(st.tuples(*[st.floats(-30, 40)] * 3), min_size=1, max_size=9),
    small_shapes,
    st.tuples(*[st.floats(0.1, 4)] * 3),
    st.sampled_from([0.0, 1.0, 3.0, REACH]),
)
def test_within_reach_against_brute_force(coords, grid, sigma, reach) -> None:
    expected = [
        all(-0.5 - reach * s <= c < n - 0.5 + reach * s for c, n, s in zip(point, grid, sigma, strict=True))
        for point in coords
    ]
    assert geometry.within_reach(coords, grid, sigma, reach).tolist() == expected
    each = geometry.within_reach(coords, grid, np.tile(sigma, (len(coords), 1)), reach)
    assert each.tolist() == expected


@given(st.lists(st.tuples(*[st.floats(-3, 12)] * 3), min_size=1, max_size=9), small_shapes)
def test_without_reach_within_is_inside(coords, grid) -> None:
    assert np.array_equal(geometry.within_reach(coords, grid, 1.0, 0.0), geometry.inside(coords, grid))


# From the source's coordinates to voxel indices

SHAPE, SPACING = (100, 201, 302), (10.0, 12.5, 8.0)
# By hand: the first voxel's centre, the first voxel's corner, the last voxel's centre and the volume's middle between
# its two outer corners, each in the words of a unit and a zero.
IN_VOXELS = {
    "voxel-center": {"first": (0, 0, 0), "corner": (-0.5, -0.5, -0.5), "last": (99, 200, 301)},
    "corner": {"first": (0.5, 0.5, 0.5), "corner": (0, 0, 0), "last": (99.5, 200.5, 301.5)},
    "corner-xy": {"first": (0, 0.5, 0.5), "corner": (-0.5, 0, 0), "last": (99, 200.5, 301.5)},
    "volume-center": {"first": (-50, -100.5, -151), "corner": (-50.5, -101, -151.5), "last": (49, 99.5, 150)},
    "volume-center-minus-1": {"first": (-49, -99.5, -150), "corner": (-49.5, -100, -150.5), "last": (50, 100.5, 151)},
}
PLACES = {"first": (0, 0, 0), "corner": (-0.5, -0.5, -0.5), "last": (99, 200, 301)}
A_UNIT = {
    "voxel": (1, 1, 1),
    "angstrom": (10.0, 12.5, 8.0),
    "nm": (1.0, 1.25, 0.8),
    "um": (1e-3, 1.25e-3, 0.8e-3),
    "mm": (1e-6, 1.25e-6, 0.8e-6),
    "fraction": [1 / n for n in SHAPE],
}


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("zero", [zero for zero in geometry.ZEROS if zero != "world"])
@pytest.mark.parametrize("unit", geometry.UNITS)
def test_voxel_index_of_every_unit_and_zero(unit, zero, place, base) -> None:
    """The same place in every dialect comes out as the same index; counting from 1 moves it by one voxel."""
    given_coords = (np.array(IN_VOXELS[zero][place]) + base) * A_UNIT[unit]
    found = geometry.voxel_index(
        given_coords, unit=unit, zero=zero, index_base=base, voxel_spacing=SPACING, volume_shape=SHAPE
    )
    np.testing.assert_allclose(found, PLACES[place], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("settings", "coords", "expected"),
    [
        # A copick pick at 1000, 1250, 800 A in a tomogram of these spacings: index = A / spacing
        ({"unit": "angstrom"}, (1000, 1250, 800), (100, 100, 100)),
        # the same, its zero at the corner: half a voxel less
        ({"unit": "angstrom", "zero": "corner"}, (1000, 1250, 800), (99.5, 99.5, 99.5)),
        # RELION 5: A from the centre, which lies at size / 2 when extracting, and at size / 2 - 1 in its picker
        ({"unit": "angstrom", "zero": "volume-center"}, (-500, 0, 8), (0, 100.5, 152)),
        ({"unit": "angstrom", "zero": "volume-center-minus-1"}, (-500, 0, 8), (-1, 99.5, 151)),
        # Dynamo and TOM count from 1
        ({"unit": "voxel", "index_base": 1}, (1, 1, 1), (0, 0, 0)),
        ({"unit": "nm"}, (1, 1.25, 8), (1, 1, 10)),
        ({"unit": "fraction"}, (0.5, 0.5, 0.5), (50, 100.5, 151)),
    ],
)
def test_voxel_index_by_hand(settings, coords, expected) -> None:
    found = geometry.voxel_index(coords, **settings, voxel_spacing=SPACING, volume_shape=SHAPE)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_voxel_index_of_rows_with_their_own_spacing() -> None:
    found = geometry.voxel_index(np.full((2, 3), 100.0), unit="angstrom", voxel_spacing=[[10, 10, 10], [20, 25, 50]])
    assert found.tolist() == [[10, 10, 10], [5, 4, 2]]
    assert geometry.voxel_index(np.empty((0, 3)), unit="voxel").shape == (0, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unit": "angstrom"}, "need the voxel spacing"),
        ({"unit": "nm"}, "need the voxel spacing"),
        ({"unit": "fraction"}, "need the volume's shape"),
        ({"unit": "voxel", "zero": "volume-center"}, "need the volume's shape"),
        ({"unit": "voxel", "zero": "volume-center-minus-1"}, "need the volume's shape"),
        ({"unit": "mm", "zero": "world"}, "need a length and the volume's world map"),
        ({"unit": "voxel", "zero": "world", "world": np.eye(4)}, "need a length"),
        ({"unit": "mm", "zero": "world", "world": np.zeros((4, 4))}, "singular"),
        ({"unit": "pixel"}, "unknown unit 'pixel'"),
        ({"unit": "voxel", "zero": "center"}, "zero 'center'"),
    ],
)
def test_voxel_index_without_what_it_needs(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        geometry.voxel_index([1, 2, 3], **settings)


WORLD_BY_HAND = [[3.0, 0, 0, 5], [0, 0, -2.0, 60], [0, 2.0, 0.5, 70], [0, 0, 0, 1]]
"""Å; z with its own spacing, y and x changed for each other, y mirrored, and a shear."""


@pytest.mark.parametrize(("unit", "angstrom"), [("angstrom", 1.0), ("nm", 10.0), ("um", 1e4), ("mm", 1e7)])
def test_world_coordinates_by_hand(unit, angstrom) -> None:
    # index (2, 7, 4): z = 3*2 + 5, y = -2*4 + 60, x = 2*7 + 0.5*4 + 70
    coords = np.array([[[11, 52, 86], [5, 60, 70]]]) / angstrom
    found = geometry.voxel_index(coords, unit=unit, zero="world", world=WORLD_BY_HAND)
    np.testing.assert_allclose(found, [[[2, 7, 4], [0, 0, 0]]], rtol=0, atol=1e-9)
    assert geometry.voxel_index(np.empty((0, 3)), unit=unit, zero="world", world=WORLD_BY_HAND).shape == (0, 3)


@given(points, st.lists(st.floats(-50, 50), min_size=9, max_size=9), points)
def test_world_coordinates_return(index, linear, offset) -> None:
    """The inverse of the map, whatever its direction, shear and origin."""
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = np.reshape(linear, (3, 3)) + 200 * np.eye(3), offset
    coords = world[:3, :3] @ np.array(index) + offset
    found = geometry.voxel_index(coords, unit="angstrom", zero="world", world=world)
    np.testing.assert_allclose(found, index, rtol=1e-9, atol=1e-6)
