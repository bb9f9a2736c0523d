"""The check of sources: every code where it belongs, no alarm on sound data, and flags that help."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sources import Truth, convert, converted, write_byu, write_copick, write_csv, write_mrc, write_npy
from tests.sources import keypatch as run_keypatch
from tests.store_truth import read_tables
from tests.trials import trials

import keypatch
from keypatch import geometry
from keypatch.converters.catalog import build_catalog
from keypatch.converters.check import CODES, Observed, check_points
from keypatch.converters.placing import place
from keypatch.converters.recipe import Recipe
from keypatch.errors import CheckError, UsageError
from keypatch.formats.annotations import Convention, VolumeHint
from keypatch.formats.volumes import VolumeInfo

SHAPE = (40, 60, 80)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spread(shape=SHAPE, n=30, seed=0):
    """Points that reach through a volume."""
    return np.random.default_rng(seed).uniform(0, np.array(shape) - 1, (n, 3))


def table(name, points, header="volume,z,y,x", volume="a", last=""):
    rows = [f"{volume},{','.join(f'{value!r}' for value in map(float, point))}{last}" for point in points]
    Path(name).write_text("\n".join([header, *rows]) + "\n")


def npy(*names, shape=SHAPE):
    for name in names:
        np.save(f"{name}.npy", np.zeros(shape, np.uint8))


def checked(volumes="*.npy", annotations="*.csv", **more):
    given = {"volumes": volumes, "annotations": annotations, **more}
    if volumes == "*.npy":
        given.setdefault("voxel_spacing", 10)
    return build_catalog(Recipe.from_mapping(given)).findings


def of(code, findings):
    (found,) = [entry for entry in findings if entry.code == code]
    return found


def alarms(findings):
    return [str(found) for found in findings if found.severity != "note"]


# ----- every code -----


def nothing_inside():
    npy("a")
    table("p.csv", spread() + 500)
    return checked()


def some_outside():
    npy("a")
    table("p.csv", [*spread(), (10, 10, 400)])
    return checked()


def other_axes():
    npy("a")
    table("p.csv", spread()[:, ::-1])
    return checked()


def other_unit():
    npy("a")
    table("p.csv", spread() * 10)
    return checked()


def other_zero():
    npy("a")
    table("p.csv", spread() - np.array(SHAPE) / 2)
    return checked()


def other_base():
    npy("a")
    table("p.csv", [*np.floor(spread()) + 1, SHAPE])
    return checked()


def small_part():
    npy("a")
    table("p.csv", spread() / 12)
    return checked()


def fractions():
    npy("a")
    table("p.csv", spread() / SHAPE)
    return checked()


def several_orders():
    npy("a", shape=(64, 64, 64))
    table("p.csv", spread((64, 64, 64)))
    return checked()


def small_part_by_chance():
    npy("a")
    table("p.csv", spread() / 2.5)
    return checked()


def convention_left_open():
    npy("a")
    table("p.csv", spread())
    return checked()


def halves():
    npy("a")
    table("p.csv", np.floor(spread()) + 0.5)
    return checked()


def other_frame():
    write_mrc(Path("a"), Truth(np.zeros(SHAPE, np.int8)))
    table("p.csv", [(5, 0, 0), (8, 0, 0)], "volume,z [A],y [A],x [A]")
    return checked("a.mrc", zero="world")


def other_spacing_stated():
    write_mrc(Path("a"), Truth(np.zeros(SHAPE, np.int8)))
    write_byu(Path(), {"a": Truth(np.zeros(SHAPE, np.int8), ((3.0, 4.0, 5.0),), ("m",), (20.0,) * 3)})
    return checked("a.mrc")


def other_shape_stated():
    npy("a")
    write_byu(Path(), {"a": Truth(np.zeros((80, 60, 40), np.int8), ((3.0, 4.0, 5.0),), ("m",))})
    return checked()


def implausible_spacing():
    npy("a")
    table("p.csv", spread())
    return checked(voxel_spacing="1,10,10")


def spacing_of_one():
    write_mrc(Path("a"), Truth(np.zeros(SHAPE, np.int8), (), (), (1.0, 1.0, 1.0)))
    table("p.csv", spread())
    return checked("a.mrc")


def silent_volume():
    npy("a", "b")
    table("p.csv", spread())
    return checked()


def missing_volume():
    npy("a")
    table("p.csv", spread())
    table("q.csv", spread(), volume="b")
    return checked()


def two_files_of_one_class():
    npy("a")
    table("p.csv", spread())
    table("q.csv", spread(seed=1))
    return checked()


def equal_points():
    npy("a")
    table("p.csv", [*spread(), spread()[0]])
    return checked()


def nearly_equal_points():
    npy("a")
    table("p.csv", spread())
    table("q.csv", spread()[:2] + 0.3)
    return checked()


def a_single_member():
    npy("a")
    table("p.csv", spread(n=1), "volume,z,y,x,class", last=",motor")
    table("q.csv", spread(), "volume,z,y,x,class", last=",ribosome")
    return checked()


def classes_by_case():
    npy("a")
    table("p.csv", spread(), "volume,z,y,x,class", last=",Apo-Ferritin")
    table("q.csv", spread(seed=1), "volume,z,y,x,class", last=",apo ferritin")
    return checked()


def too_many_folds():
    npy("a")
    table("p.csv", spread())
    return checked(folds=5)


def a_class_in_few_folds():
    npy("a", "b", "c")
    table("p.csv", spread(), "volume,z,y,x,class", last=",motor")
    table("q.csv", spread(), "volume,z,y,x,class", volume="b", last=",motor")
    table("r.csv", spread(), "volume,z,y,x,class", volume="c", last=",ribosome")
    return checked(folds=2)


CASES = {
    "KP601": (nothing_inside, "30 of 30 outside", {"outside": 30, "points": 30}),
    "KP602": (some_outside, "row 30 at (10, 10, 400)", {"outside": 1, "points": 31}),
    "KP603": (other_axes, "--axis-order xyz", {"inside_if": 30}),
    "KP604": (other_unit, "--unit angstrom", {"inside_if": 30}),
    "KP605": (other_zero, "--zero volume-center", {"inside_if": 30}),
    "KP606": (other_base, "--index-base 1", {"inside": 30, "inside_if": 31}),
    "KP607": (small_part, "--coordinate-spacing 80 or --coordinate-spacing 100", {"points": 30, "volumes": 1}),
    "KP608": (fractions, "--unit fraction", {"points": 30}),
    "KP611": (several_orders, "xyz, xzy, yxz, yzx, zxy", {"fitting": ["xyz", "xzy", "yxz", "yzx", "zxy"]}),
    "KP612": (small_part_by_chance, "multiplied by 2", {"points": 30}),
    "KP613": (convention_left_open, "--zero corner (moves all by half a voxel)", {"format": "table"}),
    "KP614": (halves, "--zero corner", {"points": 30}),
    "KP615": (other_frame, "LPS for RAS", {"points": 2}),
    "KP621": (other_spacing_stated, "2 times", {"ratio": {"a": [2.0, 2.0, 2.0]}}),
    "KP622": (other_shape_stated, "--axis-order", {"annotations": {"a": [80, 60, 40]}}),
    "KP623": (implausible_spacing, "1 10 10 Å", {"voxel_spacing": {"a": [1.0, 10.0, 10.0]}}),
    "KP624": (spacing_of_one, "--voxel-spacing", {"volumes": 1}),
    "KP631": (silent_volume, "b.npy", {"count": 1}),
    "KP632": (missing_volume, "q.csv: b (30 rows)", {"count": 30}),
    "KP633": (two_files_of_one_class, "p.csv, q.csv in a", {"class": "keypoint", "volumes": 1}),
    "KP641": (equal_points, "p.csv row 30", {"count": 1}),
    "KP642": (nearly_equal_points, "p.csv row 0 and q.csv row 0, 0.52 voxels", {"pairs": 2}),
    "KP643": (a_single_member, "'motor'", {"classes": ["motor"]}),
    "KP644": (classes_by_case, "'Apo-Ferritin', 'apo ferritin'", {"classes": ["Apo-Ferritin", "apo ferritin"]}),
    "KP651": (too_many_folds, "at least 5 volumes", {"folds": 5, "volumes": 1}),
    "KP652": (a_class_in_few_folds, "'ribosome' in 1", {"volumes_with": {"ribosome": 1}}),
}


def test_every_code_has_a_case():
    assert set(CASES) == set(CODES)


@pytest.mark.parametrize("code", CASES)
def test_a_code_is_found_with_its_numbers_and_its_flag(here, code):
    make, says, evidence = CASES[code]
    found = of(code, make())
    assert found.severity == CODES[code].severity
    assert says in str(found)
    assert evidence.items() <= found.evidence.items()
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == found.to_json()
    assert str(here) not in json.dumps(found.to_json())


@pytest.mark.parametrize("code", CASES)
def test_it_is_found_nowhere_in_a_sound_set(here, code):
    """Two volumes, one table, all points inside, in Å from the corner, which is stated: there is nothing to say."""
    for name in ("a", "b"):
        write_mrc(here / name, Truth(np.zeros(SHAPE, np.int8)))
    rows = [f"{name},{','.join(map(str, p * 10))}" for seed, name in enumerate("ab") for p in spread(seed=seed)]
    (here / "p.csv").write_text("\n".join(["volume,Z [A],Y [A],X [A]", *rows]) + "\n")
    findings = checked("*.mrc", zero="voxel-center", index_base=0)
    assert code not in {found.code for found in findings}


# ----- no alarm on sound data -----


def observed(coords, shape, unit="voxel", zero="voxel-center", spacing=10.0, volume="a"):
    """Points at known indices as a source of this convention has them."""
    info = VolumeInfo(Path(f"{volume}.npy"), "npy", tuple(shape), np.dtype("u1"), None, "mapped")
    convention, spacings = Convention(unit, "xyz", zero=zero), (spacing,) * 3
    source = np.asarray(coords, np.float64)
    if zero == "volume-center":
        source = source - np.array(shape) / 2
    source = {
        "voxel": source,
        "angstrom": source * spacing,
        "nm": source * spacing / 10,
        "fraction": source / np.array(shape),
    }[unit]
    hint, rows = VolumeHint(), np.arange(len(source))
    found = place(source, convention, spacings, info)
    return Observed("p", "table", convention, volume, info, spacings, None, hint, source, found, rows)


SHAPES = st.tuples(*[st.integers(32, 512)] * 3)
MEANINGS = st.sampled_from(
    [(unit, zero) for unit in ("voxel", "angstrom", "nm") for zero in ("voxel-center", "volume-center")]
    + [("fraction", "voxel-center")]
)


@settings(max_examples=trials(150), deadline=None)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=4),
    n=st.integers(20, 60),
    seed=st.integers(0, 2**32 - 1),
    meaning=MEANINGS,
    spacing=st.floats(0.5, 30),
)
def test_points_all_through_sound_volumes_raise_no_alarm(shapes, n, seed, meaning, spacing):
    rng = np.random.default_rng(seed)
    seen = [
        observed(rng.uniform(0, np.array(shape) - 1, (n, 3)), shape, *meaning, spacing, volume=str(k))
        for k, shape in enumerate(shapes)
    ]
    assert alarms(check_points(seen)) == []


@settings(max_examples=trials(150), deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), n=st.integers(1, 2), meaning=MEANINGS)
def test_one_or_two_points_are_not_enough_for_an_alarm(shape, seed, n, meaning):
    """Anywhere, also in the very corner next to zero; whole voxels, as one is picked in a viewer."""
    rng = np.random.default_rng(seed)
    coords = np.floor(rng.uniform(0, 1, (n, 3)) ** 4 * np.array(shape))
    found = list(check_points([observed(coords, shape, *meaning)]))
    assert alarms(found) == []


def crowded(rng):
    """Points of a single small object somewhere in a single volume: read right, though most of it is empty."""
    shape = rng.integers(100, 500, 3)
    center = rng.uniform(0, 1, 3) * shape
    coords = center + rng.normal(0, 0.05, (rng.integers(3, 100), 3)) * shape
    return [observed(np.clip(coords, 0, shape - 1), shape)]


def few_in_many(rng):
    """One point in each of three to ten volumes."""
    shapes = rng.integers(100, 500, (rng.integers(3, 11), 3))
    return [observed(rng.uniform(0, shape - 1, (1, 3)), shape, volume=str(k)) for k, shape in enumerate(shapes)]


@pytest.mark.parametrize("make", [crowded, few_in_many])
def test_the_chance_of_a_false_alarm_is_what_it_is_said_to_be(make):
    """One in a thousand at most, of the sets that are hardest to tell from wrong ones."""
    n = 1500
    raised = [alarms(check_points(make(np.random.default_rng(seed)))) for seed in range(n)]
    assert sum(map(bool, raised)) <= 4, [one for one in raised if one]


def test_an_alarm_is_raised_for_the_same_points_read_wrong():
    """So that the tests above can fail."""
    coords = spread(n=60)
    assert alarms(check_points([observed(coords / 12, SHAPE)]))
    assert alarms(check_points([observed(coords * 10, SHAPE)]))


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_strays_are_no_reason_to_doubt_the_unit(share):
    """A small enough factor brings any stray inside; only where most points are outside is it a reason."""
    coords = spread(n=100)
    coords[: int(100 * share)] += np.array([0, 0, 80])
    found = list(check_points([observed(coords, SHAPE)]))
    assert not {"KP604", "KP605"} & {entry.code for entry in found}
    assert "KP602" in {entry.code for entry in found}


# ----- where it is found, and what helps -----


def test_a_single_binned_volume_among_others_is_named(here):
    npy("a", "b", "c")
    for name in "ac":
        table(f"{name}.csv", spread(seed=ord(name)), volume=name)
    table("b.csv", (spread(seed=5) + 0.5) * 4 - 0.5, volume="b")
    found = of("KP604", checked())
    assert found.volumes == ("b",)
    assert found.settle == "convert b apart, with --coordinate-spacing 2.5"


def test_files_of_one_convention_are_weighed_together(here):
    """One point in each of 12 volumes, each read from its own file: none says anything alone."""
    npy(*"abcdefghijkl")
    for k, name in enumerate("abcdefghijkl"):
        table(f"{name}.csv", (spread(n=1, seed=k) + 0.5) / 2 - 0.5, volume=name)
    found = of("KP607", checked())
    assert len(found.files) == len(found.volumes) == 12
    assert found.settle == "--coordinate-spacing 20"


def test_the_ratio_of_two_known_spacings_is_tried_exactly(here):
    """BYU states 13.48 Å, the volume was binned to 19.7 Å, and the coordinates still count the smaller voxels."""
    write_mrc(here / "a", Truth(np.zeros(SHAPE, np.int8), (), (), (19.7,) * 3))
    other = (spread() + 0.5) * 19.7 / 13.48 - 0.5
    write_byu(here, {"a": Truth(np.zeros(SHAPE, np.int8), tuple(map(tuple, other)), ("m",) * 30, (13.48,) * 3)})
    findings = checked("a.mrc")
    assert of("KP604", findings).settle == "--coordinate-spacing 13.48"
    again = build_catalog(
        Recipe.from_mapping({"volumes": "a.mrc", "annotations": "*.csv", "coordinate_spacing": "13.48"})
    )
    np.testing.assert_allclose(again.volumes[0].points.coords, spread(), atol=1e-9)


@pytest.mark.parametrize("make", [other_axes, other_unit, other_zero, other_base, small_part, fractions])
def test_the_flag_that_is_named_ends_the_alarm(here, make):
    settle = next(found.settle for found in make() if found.severity == "warning" and found.settle)
    name, value = settle.split(" or ")[0].split()
    assert alarms(checked(**{name[2:].replace("-", "_"): value})) == []


def test_world_coordinates_in_the_other_frame_are_suspected():
    world = ((1.0, 0, 0, -20.0), (0, 1.0, 0, -30.0), (0, 0, 1.0, -10.0), (0, 0, 0, 1))
    info = VolumeInfo(Path("a.nii"), "nifti", SHAPE, np.dtype("u1"), (1.0,) * 3, "mapped", world=world)
    convention = Convention("angstrom", "xyz", zero="world")
    source = (spread() + np.array([-20.0, -30.0, -10.0])) * np.array([1, -1, -1])
    coords = place(source, convention, (1.0,) * 3, info)
    rows = np.arange(len(coords))
    seen = Observed("p", "slicer", convention, "a", info, (1.0,) * 3, None, VolumeHint(), source, coords, rows)
    found = of("KP605", list(check_points([seen])))
    assert "LPS for RAS" in found.found
    assert found.evidence["inside_if"] == 30


def test_a_point_or_two_outside_are_slips_and_stop_nothing(here):
    npy("a")
    table("p.csv", [(500, 500, 500), (0, 0, 400)])
    given = ("a.npy", "-a", "p.csv", *SMALL, "--negatives", 2)
    assert "KP602" in {entry.code for entry in checked()}
    assert convert(*given, "-o", "out.zarr").code == 0


def test_headers_are_compared_as_they_are_not_as_they_are_resampled(here):
    write_mrc(here / "a", Truth(np.zeros(SHAPE, np.int8)))
    write_byu(here, {"a": Truth(np.zeros(SHAPE, np.int8), tuple(map(tuple, spread())), ("m",) * 30)})
    assert alarms(checked("a.mrc", resample_to=20)) == []


def test_nearly_equal_points_of_one_file_are_its_own_business(here):
    npy("a")
    table("p.csv", [*spread(), spread()[0] + 0.3])
    assert "KP642" not in {found.code for found in checked()}


# ----- voxels of another length -----


ZEROS = ("voxel-center", "corner", "corner-xy")


@given(
    point=st.tuples(*[st.floats(-100, 1000)] * 3),
    own=st.floats(0.5, 50),
    other=st.floats(0.5, 50),
    zero=st.sampled_from(ZEROS),
    base=st.integers(0, 1),
)
def test_voxels_of_two_lengths_name_the_same_place(point, own, other, zero, base):
    """A place in Å from the volume's corner, counted in the other voxels, is found at its index in the volume's own."""
    place_in_angstrom = np.array(point)
    shift = {"voxel-center": (0.5,) * 3, "corner": (0.0,) * 3, "corner-xy": (0.5, 0.0, 0.0)}[zero]
    counted = place_in_angstrom / other - np.array(shift) + base
    source = geometry.own_voxels(counted, other / own, zero=zero, index_base=base)
    index = geometry.voxel_index(source, unit="voxel", zero=zero, index_base=base)
    np.testing.assert_allclose(index, place_in_angstrom / own - 0.5, atol=1e-9 * (1 + np.abs(point).max() / own))


def test_voxels_from_the_centre_are_lengths():
    source = geometry.own_voxels([[1.0, -2.0, 4.0]], 2.0, zero="volume-center")
    np.testing.assert_array_equal(source, [[2.0, -4.0, 8.0]])


def test_a_spacing_of_coordinates_that_are_no_voxels_is_wrong_usage(here):
    one = Truth(np.zeros(SHAPE, np.int8), ((3.0, 4.0, 5.0),), ("m",))
    write_mrc(here / "a", one)
    pattern = write_copick(here, {"a": one}, "{class}.json")
    with pytest.raises(UsageError, match="--coordinate-spacing: expected coordinates in voxels, found angstrom"):
        checked("a.mrc", pattern, coordinate_spacing=20)


# ----- how it shows -----

SMALL = ("--patch-shape", "8", "--ds-factor", "4", "--voxel-spacing", "10")


@pytest.fixture
def swapped(here):
    npy("a")
    table("p.csv", spread()[:, ::-1])
    return here


def test_a_dry_run_shows_everything_and_exits_0_on_warnings(swapped):
    ran = convert("a.npy", "-a", "p.csv", *SMALL, "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("check: 2 warnings, 1 note\n")
    for words in ("KP602 warning", "KP603 warning", "to settle it: --axis-order xyz", "KP613 note"):
        assert words in ran.out
    assert convert("a.npy", "-a", "p.csv", *SMALL, "--dry-run", "--strict").code == 1


def test_a_dry_run_as_json_has_the_evidence(swapped):
    report = converted("a.npy", "-a", "p.csv", *SMALL, "--dry-run")
    found = next(entry for entry in report["findings"] if entry["code"] == "KP603")
    assert found["settle"] == "--axis-order xyz"
    assert found["evidence"]["inside_if"] == 30
    assert (found["files"], found["volumes"]) == (["p.csv"], ["a"])


def test_a_build_says_it_before_it_builds_and_keeps_it_in_the_store(swapped):
    ran = convert("a.npy", "-a", "p.csv", *SMALL, "-o", "out.zarr")
    assert ran.code == 0
    assert ran.err.startswith("check: 2 warnings, 1 note (--dry-run shows all)\n  KP602 warning")
    assert "--axis-order xyz" in ran.err
    assert "2 warnings, 1 note" in ran.out
    assert "KP603 p.csv in a: 13 of 30 inside" in run_keypatch("inspect", "out.zarr").out
    report = keypatch.open("out.zarr").attributes["report"]
    assert [entry["code"] for entry in report["findings"]] == ["KP602", "KP603", "KP613"]
    assert str(swapped) not in json.dumps(report)
    assert keypatch.validate("out.zarr").passed(strict=True)
    assert len(read_tables(swapped / "out.zarr")["annotations/coords"]) < 30


def test_notes_alone_are_no_news_and_do_not_stop_even_strict(here):
    npy("a")
    table("p.csv", spread())
    ran = convert("a.npy", "-a", "p.csv", *SMALL, "-o", "out.zarr", "--strict")
    assert (ran.code, ran.err) == (0, "")


def test_an_error_stops_a_dry_run_and_a_build_with_exit_1(here):
    npy("a")
    table("p.csv", spread() + 500)
    given = ("a.npy", "-a", "p.csv", *SMALL, "--negatives", 2)
    ran = convert(*given, "--dry-run")
    assert ran.code == 1
    assert "KP601 error" in ran.out
    assert "KP601 error" in [
        f"{f['code']} {f['severity']}" for f in convert(*given, "--dry-run", "--json").report["findings"]
    ]
    ran = convert(*given, "-o", "out.zarr")
    assert (ran.code, ran.out) == (1, "")
    assert "nothing was built" in ran.err
    assert not (here / "out.zarr").exists()
    with pytest.raises(CheckError, match="KP601"):
        keypatch.convert("a.npy", "p.csv", "out.zarr", patch_shape=8, ds_factor=4, voxel_spacing=10, negatives=2)


def test_a_dry_run_of_sound_data_says_so(here):
    write_npy(here / "a", Truth(np.zeros(SHAPE, np.int8)))
    write_csv(here, {"a": Truth(np.zeros(SHAPE, np.int8), tuple(map(tuple, spread())), ("m",) * 30)})
    flags = ("--zero", "voxel-center", "--index-base", 0, "--unit", "voxel")
    ran = convert("a.npy", "-a", "picks.csv", *SMALL, *flags, "--dry-run", "--strict")
    assert ran.code == 0
    assert ran.out.startswith("check: nothing found\n")


def test_many_findings_of_one_code_are_cut_on_the_terminal_and_whole_in_json(here):
    npy("a")
    for k in range(8):
        table(f"p{k}.csv", spread(seed=2 * k), "volume,z,y,x,class", last=f",class {k}")
        table(f"q{k}.csv", spread(seed=2 * k + 1), "volume,z,y,x,class", last=f",class {k}")
    given = ("a.npy", "-a", "*.csv", *SMALL, "--dry-run")
    assert convert(*given).out.count("KP633 note") == 5
    assert "3 more of KP633" in convert(*given).out
    assert sum(entry["code"] == "KP633" for entry in converted(*given)["findings"]) == 8
