"""Pairing volumes with annotations, and what is said of all that does not fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.sources import (
    Truth,
    truth,
    write_byu,
    write_copick,
    write_csv,
    write_mrc,
    write_npy,
    write_ome,
    write_portal,
    write_relion3,
    write_relion5,
)

from keypatch.converters.catalog import build_catalog
from keypatch.converters.recipe import Recipe
from keypatch.errors import FormatError, ReadError, UsageError

POINT = (3.0, 4.0, 5.0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def known(*points, names=None, shape=(10, 12, 14), **more):
    return Truth(np.zeros(shape, np.int8), tuple(points), tuple(names or ["motor"] * len(points)), **more)


def volumes(folder, **named):
    """MRC files with these points; a number stands for that many different ones."""
    made = {
        name: known(*[(1.0 + k, 2, 3) for k in range(of)]) if isinstance(of, int) else of for name, of in named.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in made.items():
        write_mrc(folder / name, one)
    return made


def catalog(given, annotations, **settings):
    given = [given] if isinstance(given, str) else given
    annotations = [annotations] if isinstance(annotations, str) else annotations
    return build_catalog(Recipe.from_mapping({"volumes": given, "annotations": annotations, **settings}))


def points_of(found):
    return {volume.id: sorted(map(tuple, volume.points.coords.tolist())) for volume in found.volumes}


def wanted(made):
    return {name: sorted(map(tuple, np.array(one.points, float).reshape(-1, 3).tolist())) for name, one in made.items()}


def codes(found, severity):
    return [entry.code for entry in found.findings if entry.severity == severity]


def left_out(found):
    return {(entry.what, entry.reason): (entry.count, list(entry.items)) for entry in found.left_out}


# ----- layouts -----


def test_czii_layout(here):
    made = {
        "TS_5_4": known(POINT, (1, 1, 1), names=["ribosome", "apo-ferritin"]),
        "TS_6_4": known((2, 2, 2), names=["ribosome"]),
    }
    for name, one in made.items():
        folder = here / "static" / "ExperimentRuns" / name / "VoxelSpacing10.000"
        folder.mkdir(parents=True)
        write_ome(folder / "denoised", one, version="0.4")
    write_copick(here / "overlay" / "ExperimentRuns", made)
    found = catalog(
        "static/ExperimentRuns/{volume}/VoxelSpacing10.000/denoised.zarr",
        "overlay/ExperimentRuns/{volume}/Picks/{class}.json",
    )
    assert points_of(found) == wanted(made)
    assert found.classes == ("apo-ferritin", "ribosome")
    assert [volume.relative_path for volume in found.volumes] == [
        f"{name}/VoxelSpacing10.000/denoised.zarr" for name in made
    ]
    assert not found.left_out
    assert not found.warnings


def test_byu_layout_of_folders_of_slices_and_one_table(here):
    made = {"tomo_1": known(POINT), "tomo_2": known()}
    for name, one in made.items():
        write_npy(here / name, one)
    found = catalog("*.npy", write_byu(here, made))
    assert points_of(found) == wanted(made)
    assert [(volume.voxel_spacing, volume.voxel_spacing_from) for volume in found.volumes] == [
        ((10.0, 10.0, 10.0), "annotations")
    ] * 2
    assert found.classes == ("motor",)


def test_relion_5_by_its_optimisation_set(here):
    made = volumes(here / "rec", TS_01=2, TS_02=1)
    found = catalog("rec/*.mrc", write_relion5(here / "relion", made))
    assert points_of(found) == wanted(made)
    assert found.sources[0]["convention"]["zero"] == "volume-center"


def test_warp_names_files(here):
    made = volumes(here / "rec", TS_01=2, TS_02=1)
    assert points_of(catalog("rec/*.mrc", write_relion3(here, made))) == wanted(made)


def test_portal_layout_has_volume_and_class_in_the_path(here):
    made = {"r1": known(POINT, names=["ribosome"]), "r2": known((1, 1, 1), names=["membrane"])}
    for name, one in made.items():
        (here / name).mkdir()
        write_mrc(here / name / "tomogram", one)
    found = catalog("{volume}/tomogram.mrc", write_portal(here / "portal", made))
    assert points_of(found) == wanted(made)
    assert found.classes == ("membrane", "ribosome")


def test_one_table_a_volume(here):
    made = volumes(here / "v", a=2, b=1)
    for name, one in made.items():
        (here / f"{name}_picks.csv").write_text("z,y,x\n" + "".join("{},{},{}\n".format(*p) for p in one.points))
    assert points_of(catalog("v/{volume}.mrc", "{volume}_picks.csv")) == wanted(made)


def test_a_single_volume_and_a_single_file_need_no_name(here):
    made = volumes(here, tomogram=known(POINT))
    (here / "p.csv").write_text("z,y,x\n3,4,5\n")
    found = catalog("tomogram.mrc", "p.csv")
    assert points_of(found) == wanted(made)
    assert not found.warnings


def test_files_of_two_classes_of_a_single_volume_need_no_name(here):
    volumes(here, tomogram=known())
    for name in ("ribosome", "motor"):
        (here / f"{name}.csv").write_text("z,y,x\n3,4,5\n")
    found = catalog("tomogram.mrc", "{class}.csv")
    assert found.classes == ("motor", "ribosome")
    assert len(found.volumes[0].points) == 2


def test_a_single_name_for_a_single_volume_is_taken_and_said(here):
    volumes(here, tomogram=known())
    write_copick(here / "p", {"run_7": known(POINT, POINT, names=["a", "b"])}, "{class}.json")
    found = catalog("tomogram.mrc", "p/*.json")
    assert points_of(found) == {"tomogram": [POINT, POINT]}
    assert found.warnings == ("a.json, b.json: 'run_7' is taken to mean the volume 'tomogram'",)


def test_several_names_for_a_single_volume_are_not_guessed(here):
    volumes(here, tomogram=known())
    for name in ("TS_01", "TS_02"):
        (here / f"{name}.csv").write_text(f"volume,z,y,x\n{name},3,4,5\n")
    with pytest.raises(UsageError, match="2 annotations: their volume was not given"):
        catalog("tomogram.mrc", ["TS_01.csv", "TS_02.csv"])


def test_a_pattern_that_names_other_volumes_is_not_guessed(here):
    volumes(here, TS_01=known())
    for name in ("TS_01", "TS_02"):
        (here / f"{name}.csv").write_text("z,y,x\n3,4,5\n")
    found = catalog("{volume}.mrc", "{volume}.csv")
    assert points_of(found) == {"TS_01": [POINT]}
    assert left_out(found) == {("annotations", "their volume was not given"): (1, ["TS_02.csv: TS_02 (1 rows)"])}
    with pytest.raises(UsageError, match="their volume was not given"):
        catalog("TS_01.mrc", "{volume}2.csv")


def test_a_stem_that_several_volumes_share_names_none_of_them(here):
    for name in ("r1", "r2"):
        (here / name).mkdir()
        write_mrc(here / name / "denoised", known())
    (here / "p.csv").write_text("volume,z,y,x\ndenoised,3,4,5\nr1,3,4,5\n")
    found = catalog("{volume}/denoised.mrc", "p.csv")
    assert points_of(found) == {"r1": [POINT]}
    assert ("annotations", "their volume was not given") in left_out(found)


@pytest.mark.parametrize("name", ["TS_01.mrc", "rec/TS_01.mrc", "TS_01", "/elsewhere/TS_01.rec"])
def test_a_volume_named_by_its_file_is_found(here, name):
    (here / "TS_01").mkdir()
    write_mrc(here / "TS_01" / "denoised", known())
    volumes(here, TS_02=known())
    (here / "p.csv").write_text(f"volume,z,y,x\n{name},3,4,5\n")
    found = catalog(["{volume}/denoised.mrc", "TS_02.mrc"], "p.csv")
    assert points_of(found) == {"TS_01": [POINT]}
    assert not found.warnings


def test_a_name_without_what_follows_its_last_dot_is_taken_and_said(here):
    volumes(here, tomo_1=known(), other=known())
    (here / "p.csv").write_text("volume,z,y,x\ntomo_1.5,3,4,5\n")
    found = catalog("*.mrc", "p.csv")
    assert points_of(found) == {"tomo_1": [POINT]}
    assert found.warnings == ("p.csv: 'tomo_1.5' is taken to mean the volume 'tomo_1'",)


def test_map_pairs_what_has_other_names(here):
    volumes(here, a=known(), b=known())
    (here / "p.csv").write_text("volume,z,y,x\nfirst,3,4,5\nsecond,1,1,1\n")
    found = catalog("*.mrc", "p.csv", map=["first=a", "second=b", "third=a"])
    assert points_of(found) == {"a": [POINT], "b": [(1, 1, 1)]}
    assert found.warnings == ("--map: no annotation file names 'third'",)
    with pytest.raises(UsageError, match="--map first=c: expected a volume of a, b"):
        catalog("*.mrc", "p.csv", map=["first=c"])


def test_the_path_counts_before_a_single_name_inside(here):
    made = volumes(here, a=known(POINT))
    (here / "a.csv").write_text("volume,z,y,x\nsomething,3,4,5\n")
    found = catalog("{volume}.mrc", "{volume}.csv")
    assert points_of(found) == wanted(made)
    assert found.warnings == ("a.csv: names something inside; its path says a, which counts",)


def test_rows_of_others_in_a_file_of_one_volume_are_left_out(here):
    volumes(here, a=known(), b=known())
    for name in ("a", "b"):
        (here / f"{name}.csv").write_text("volume,z,y,x\na,3,4,5\nb,1,1,1\n")
    found = catalog("{volume}.mrc", "{volume}.csv")
    assert points_of(found) == {"a": [POINT], "b": [(1, 1, 1)]}
    reason = ("annotations", "their row names another volume than their path")
    assert left_out(found) == {reason: (2, ["a.csv row 1", "b.csv row 0"])}


def test_points_without_a_volume_and_several_volumes_is_wrong_usage(here):
    volumes(here, a=known(), b=known())
    (here / "p.csv").write_text("z,y,x\n3,4,5\n")
    with pytest.raises(UsageError, match=r"p.csv: expected the name of a volume for every point.*--column"):
        catalog("*.mrc", "p.csv")


def test_two_volumes_of_one_name_are_wrong_usage(here):
    for name in ("x", "y"):
        (here / name).mkdir()
        write_mrc(here / name / "tomogram", known())
    (here / "p.csv").write_text("volume,z,y,x\ntomogram,3,4,5\n")
    with pytest.raises(UsageError, match=r"a name of its own.*\{volume\}"):
        catalog("*/tomogram.mrc", "p.csv")
    with pytest.raises(UsageError, match="a name of its own"):
        catalog(["x/tomogram.mrc", "y/tomogram.mrc"], "p.csv")


# ----- what is left out, and said -----


def test_volumes_that_no_file_names_are_skipped_or_empty(here):
    volumes(here, a=1, b=0, c=0)
    (here / "p.csv").write_text("volume,z,y,x\na,3,4,5\nb,,,\n")
    found = catalog("*.mrc", "p.csv")
    assert points_of(found) == {"a": [POINT], "b": []}
    ((what, reason), (count, items)) = next(iter(left_out(found).items()))
    assert (what, count, items) == ("volumes", 1, ["c.mrc"])
    assert "--unannotated negative" in reason
    found = catalog("*.mrc", "p.csv", unannotated="negative")
    assert points_of(found) == {"a": [POINT], "b": [], "c": []}
    assert not found.left_out
    assert "1 volumes" in found.warnings[0]


def test_annotations_without_their_volume_are_counted(here):
    volumes(here, a=1)
    (here / "p.csv").write_text("volume,z,y,x\na,3,4,5\nb,1,1,1\nb,2,2,2\nc,,,\n")
    found = catalog("a.mrc", "p.csv")
    reason = ("annotations", "their volume was not given")
    assert left_out(found) == {reason: (2, ["p.csv: b (2 rows)", "p.csv: c (0 rows)"])}


def test_nothing_that_pairs_is_wrong_usage(here):
    volumes(here, a=1, b=1)
    (here / "p.csv").write_text("volume,z,y,x\nc,3,4,5\nd,3,4,5\n")
    with pytest.raises(UsageError, match=r"annotations of at least one of the volumes.*--map NAME=VOLUME"):
        catalog("*.mrc", "p.csv")


def test_points_outside_are_listed_with_their_place(here):
    volumes(here, a=0)
    (here / "p.csv").write_text("volume,z,y,x\na,-0.5,-0.5,-0.5\na,9.5,4,5\na,-0.6,4,5\na,9.4,11.4,13.4\n")
    found = catalog("a.mrc", "p.csv")
    assert points_of(found) == {"a": [(-0.5, -0.5, -0.5), (9.4, 11.4, 13.4)]}
    assert left_out(found)["annotations", "outside their volume"] == (
        2,
        ["p.csv row 1 at (9.5, 4, 5) in a of 10×12×14 voxels", "p.csv row 2 at (-0.6, 4, 5) in a of 10×12×14 voxels"],
    )


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("13,11,9", "--axis-order xyz"),
        ("9,13,11", "--axis-order zxy"),
        ("36,44,52", "--coordinate-spacing 2.5"),
        ("90,110,130", "--unit angstrom"),
    ],
)
def test_a_reading_that_fits_better_is_named_and_not_taken(here, rows, says):
    volumes(here, a=0)
    (here / "p.csv").write_text(f"volume,z,y,x\na,1,1,1\n{''.join(f'a,{rows}' + chr(10))}")
    found = catalog("a.mrc", "p.csv")
    assert points_of(found) == {"a": [(1, 1, 1)]}
    (outside, other) = [entry for entry in found.findings if entry.severity == "warning"]
    assert (outside.code, outside.evidence["outside"], outside.evidence["points"]) == ("KP602", 1, 2)
    assert (other.evidence["inside"], other.evidence["inside_if"]) == (1, 2)
    assert says in str(other)


def test_the_flag_that_is_named_helps(here):
    volumes(here, a=0)
    (here / "p.csv").write_text("volume,z,y,x\na,13,11,9\n")
    found = catalog("a.mrc", "p.csv", axis_order="xyz")
    assert points_of(found) == {"a": [(9, 11, 13)]}
    assert not found.left_out


def test_points_far_from_any_reading_give_no_hint(here):
    volumes(here, a=0)
    (here / "p.csv").write_text("volume,z,y,x\na,1,1,1\na,1e6,1e6,1e6\n")
    found = catalog("a.mrc", "p.csv")
    assert codes(found, "warning") == ["KP602"]
    assert found.left_out[0].count == 1


def test_duplicates_are_listed_within_a_file_and_between_files(here):
    volumes(here, a=0)
    (here / "p.csv").write_text("volume,z,y,x,class\na,3,4,5,m\na,3,4,5,m\na,3,4,5,n\n")
    (here / "q.csv").write_text("volume,z,y,x,class\na,3,4,5,m\na,3,4,6,m\n")
    found = catalog("a.mrc", ["q.csv", "p.csv"])
    assert len(found.volumes[0].points) == 3
    assert left_out(found)["annotations", "duplicates of another in place and class"] == (
        2,
        ["p.csv row 1 at (3, 4, 5) in a", "q.csv row 0 at (3, 4, 5) in a"],
    )


def test_classes_are_chosen_in_their_order(here):
    volumes(here, a=0)
    (here / "p.csv").write_text("volume,z,y,x,class\na,3,4,5,m\na,1,1,1,n\na,2,2,2,o\n")
    found = catalog("a.mrc", "p.csv")
    assert found.classes == ("m", "n", "o")
    found = catalog("a.mrc", "p.csv", classes="o,m,missing")
    assert found.classes == ("o", "m", "missing")
    assert found.volumes[0].points.class_index.tolist() == [1, 0]
    assert left_out(found) == {("annotations", "their class is not in --classes"): (1, ["p.csv row 1"])}
    assert found.warnings == ("--classes: no annotation is of class 'missing'; found are m, n, o",)


def test_one_reason_is_told_once_however_many_volumes(here):
    volumes(here, **{f"v{i}": 0 for i in range(8)})
    rows = "".join(f"v{i},3,4,5\nv{i},3,4,5\nv{i},99,1,1\n" for i in range(8))
    (here / "p.csv").write_text("volume,z,y,x\n" + rows)
    found = catalog("*.mrc", "p.csv")
    assert [entry.count for entry in found.left_out] == [8, 8]
    assert all(len(entry.items) == 8 for entry in found.left_out)


def test_a_stranger_that_a_pattern_matches_is_listed_by_name_alone(here):
    volumes(here / "v", a=1)
    (here / "v" / "notes.txt").write_text("not a volume")
    (here / "v" / "slices").mkdir()
    (here / "v" / "slices" / "slice_0.jpg").write_bytes(b"not a picture")
    (here / "p.csv").write_text("volume,z,y,x\na,3,4,5\n")
    found = catalog(str(here / "v" / "*"), "p.csv")
    ((what, _), (count, items)) = next(iter(left_out(found).items()))
    assert (what, count) == ("volumes", 2)
    assert [item.partition(":")[0].partition("/")[0] for item in items] == ["notes.txt", "slices"]
    assert not any(str(here) in item for item in items)
    with pytest.raises(FormatError, match=r"notes\.txt"):
        catalog(["v/a.mrc", "v/notes.txt"], "p.csv")


def test_nothing_but_strangers_is_unreadable(here):
    (here / "notes.txt").write_text("not a volume")
    (here / "p.csv").write_text("volume,z,y,x\na,3,4,5\n")
    with pytest.raises(ReadError, match=r"at least one volume.*notes\.txt"):
        catalog("*.txt", "p.csv")


# ----- spacing -----


def test_the_flag_counts_before_the_header_before_the_annotations(here):
    write_mrc(here / "with", known(spacing=(8.0, 10.0, 12.5)))
    write_npy(here / "without", known())
    stated = {"with": known(POINT, spacing=(20.0,) * 3), "without": known(POINT, spacing=(20.0,) * 3)}
    table = write_byu(here, stated)
    found = catalog(["with.mrc", "without.npy"], table)
    assert {v.id: (v.voxel_spacing, v.voxel_spacing_from) for v in found.volumes} == {
        "with": ((8.0, 10.0, 12.5), "header"),
        "without": ((20.0, 20.0, 20.0), "annotations"),
    }
    (warning,) = [entry for entry in found.findings if entry.severity == "warning"]
    assert (warning.code, warning.volumes) == ("KP621", ("with",))
    assert warning.evidence["ratio"] == {"with": [2.5, 2.0, 1.6]}
    assert "20 Å in the annotations" in warning.found
    found = catalog(["with.mrc", "without.npy"], table, voxel_spacing="13.48")
    assert {v.voxel_spacing_from for v in found.volumes} == {"flag"}
    assert {v.voxel_spacing for v in found.volumes} == {(13.48, 13.48, 13.48)}


def test_a_mismatch_is_said_also_where_the_path_names_the_volume(here):
    write_mrc(here / "a", known(spacing=(8.0,) * 3))
    write_byu(here / "a-labels", {"inside": known(POINT, spacing=(20.0,) * 3)})
    found = catalog("{volume}.mrc", "{volume}-labels/train_labels.csv")
    assert codes(found, "warning") == ["KP621"]


@pytest.mark.parametrize(("spacing", "warned"), [(10.012, False), (10.2, True)])
def test_a_spacing_that_differs_by_rounding_is_no_news(here, spacing, warned):
    write_mrc(here / "a", known(spacing=(10.0,) * 3))
    found = catalog("a.mrc", write_byu(here, {"a": known(POINT, spacing=(spacing,) * 3)}))
    assert codes(found, "warning") == ["KP621"] * warned


def test_no_spacing_anywhere_is_wrong_usage(here):
    write_npy(here / "a", known())
    with pytest.raises(UsageError, match=r"a\.npy: expected a voxel spacing.*--voxel-spacing"):
        catalog("a.npy", write_csv(here, {"a": known(POINT)}))


def test_a_shape_that_the_annotations_get_wrong_is_said(here):
    write_mrc(here / "a", known())
    found = catalog("a.mrc", write_byu(here, {"a": known(POINT, shape=(10, 12, 99))}))
    (warning,) = [entry for entry in found.findings if entry.severity == "warning"]
    assert (warning.code, warning.evidence["annotations"]) == ("KP622", {"a": [10, 12, 99]})


def test_angstrom_are_divided_by_the_spacing_that_counts(here):
    one = known(POINT, names=["m"], spacing=(8.0, 10.0, 12.5))
    write_mrc(here / "a", one)
    pattern = write_copick(here, {"a": one}, "{class}.json")
    assert points_of(catalog("a.mrc", pattern)) == {"a": [POINT]}
    halved = tuple(c / 2 for c in POINT)
    assert points_of(catalog("a.mrc", pattern, voxel_spacing="16,20,25")) == {"a": [halved]}
    corner = tuple(c - 0.5 for c in POINT)
    assert points_of(catalog("a.mrc", pattern, zero="corner")) == {"a": [corner]}


# ----- order -----


def test_the_order_of_arguments_changes_nothing(here):
    made = volumes(here / "v", a=2, b=1, c=0)
    (here / "v" / "x.txt").write_text("no volume")
    (here / "p.csv").write_text("volume,z,y,x\na,1,2,3\nb,99,2,3\nc,,,\n")
    (here / "q.csv").write_text("volume,z,y,x\na,1,2,3\na,2,2,3\nz,1,1,1\n")
    assert set(made) == {"a", "b", "c"}
    first = catalog(["v/a.mrc", "v/b.mrc", "v/*"], ["p.csv", "q.csv"])
    second = catalog(["v/*", "v/b.mrc", "v/a.mrc"], ["q.csv", "p.csv"])
    for field in ("classes", "sources", "left_out", "warnings", "findings"):
        assert getattr(first, field) == getattr(second, field), field
    for one, other in zip(first.volumes, second.volumes, strict=True):
        assert (one.id, one.relative_path, one.voxel_spacing) == (other.id, other.relative_path, other.voxel_spacing)
        for field in dataclasses.fields(one.points):
            np.testing.assert_array_equal(getattr(one.points, field.name), getattr(other.points, field.name))


def test_links_keep_the_names_they_have(here):
    volumes(here / "elsewhere" / "deep", run1=known())
    (here / "train").mkdir()
    (here / "train" / "a.mrc").symlink_to(here / "elsewhere" / "deep" / "run1.mrc")
    volumes(here / "train", b=known())
    found = catalog("train/*", write_csv(here, {"a": known(POINT), "b": known(POINT)}))
    assert [(volume.id, volume.relative_path) for volume in found.volumes] == [("a", "a.mrc"), ("b", "b.mrc")]


def test_real_truths_of_every_table_are_found_again(here):
    made = {name: truth(seed, n_points=6, dtype=np.int8) for seed, name in enumerate(("a", "b"))}
    for name, one in made.items():
        write_mrc(here / name, one)
    found = catalog("*.mrc", write_csv(here, made))
    assert points_of(found) == wanted(made)
