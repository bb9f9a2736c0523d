"""Settings of a recipe: from flags and from TOML, in every form, and what is refused and how."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keypatch.converters.recipe import Recipe, read_recipe_file
from keypatch.errors import KeypatchError, ReadError, UsageError

GIVEN = {"volumes": ["v.mrc"], "annotations": ["a.csv"]}
NAMES = [field.name for field in dataclasses.fields(Recipe)]


def recipe(**settings):
    return Recipe.from_mapping({**GIVEN, **settings})


# ----- forms -----


@pytest.mark.parametrize(
    ("name", "forms", "value"),
    [
        ("patch_shape", ["160,288,288", [160, 288, 288], (160, 288, 288), "160, 288, 288"], (160, 288, 288)),
        ("patch_shape", ["64", 64, [64], 64.0], (64, 64, 64)),
        ("ds_factor", ["4,8,16", [4, 8, 16]], (4, 8, 16)),
        ("sigma_angstrom", ["200", 200, 200.0, [200, 200, 200]], (200.0, 200.0, 200.0)),
        ("sigma_ds", ["0.5,1,2", [0.5, 1, 2]], (0.5, 1.0, 2.0)),
        ("resample_to", ["13.3", 13.3, [13.3, 13.3, 13.3]], (13.3, 13.3, 13.3)),
        ("clip_percentiles", ["0.5,99.5", [0.5, 99.5]], (0.5, 99.5)),
        ("jitter", ["0", 0], (0, 0, 0)),
        ("shard_size", ["192MiB", "192 mib", 192 * 2**20, str(192 * 2**20)], 192 * 2**20),
        ("shard_size", ["1.5GB"], 1_500_000_000),
        ("seed", ["9007199254740993", 9007199254740993], 9007199254740993),
        ("classes", ["b,a", ["b", "a"], ["b,a"], " b , a "], ("b", "a")),
        ("map", [["x=y", "z=w"], {"x": "y", "z": "w"}], {"x": "y", "z": "w"}),
        ("map", [["a=b=c"]], {"a": "b=c"}),
        ("columns", [["z=0", "y=Y px"], {"z": 0, "y": "Y px"}], {"z": "0", "y": "Y px"}),
        ("index_base", ["1", 1], 1),
        ("grid", ["16", 16, [16, 16, 16]], (16, 16, 16)),
        ("volumes", ["one.mrc", ["one.mrc"]], ("one.mrc",)),
    ],
)
def test_a_setting_means_the_same_in_every_form(name, forms, value):
    for form in forms:
        assert getattr(recipe(**{name: form}), name) == value


def test_dashes_and_underscores_are_the_same():
    assert Recipe.from_mapping({**GIVEN, "patch-shape": 32}) == Recipe.from_mapping({**GIVEN, "patch_shape": 32})


def test_defaults_that_depend_on_others_are_resolved():
    plain = recipe()
    assert plain.jitter == (32, 32, 32)
    assert (plain.sigma_ds, plain.sigma_angstrom) == ((1.0, 1.0, 1.0), None)
    assert recipe(sigma_angstrom=200).sigma_ds is None
    assert recipe(patch_shape="160,288,288").jitter == (40, 72, 72)


def test_none_is_not_given():
    assert recipe(patch_shape=None, sigma_ds=None) == recipe()


def test_the_stored_form_has_every_setting_but_paths_and_is_json():
    stored = recipe(map={"b": "1", "a": "2"}, tomograms="/somewhere/t.star").to_json()
    assert set(stored) == set(NAMES) - {"volumes", "annotations", "tomograms"}
    assert "somewhere" not in json.dumps(stored, allow_nan=False)


def test_the_order_of_pairs_does_not_change_the_stored_form():
    first, second = (recipe(map=pairs, columns=["z=0", "y=1"]) for pairs in (["a=1", "b=2"], ["b=2", "a=1"]))
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())


# ----- what is refused -----

BAD = {
    "patch_shape": [
        "",
        "x",
        "1,2",
        "1,2,3,4",
        "16.5",
        0,
        -16,
        True,
        [16, "a", 16],
        {"z": 1},
        1e300,
        "1e19",
    ],
    "ds_factor": [0, "0,16,16", "1.5"],
    "sigma_angstrom": [0, -1, "nan", "inf", "", "a"],
    "sigma_ds": [0, "0", -0.5, "1,2"],
    "gaussian": ["yes", 1, 0],
    "gaussian_dtype": ["float64", "int8", 1],
    "centered": [-1, "many", 1.5, True, "1,2"],
    "jitter": [-1, 64, "32,64,32"],
    "multi": [-1],
    "hard_negatives": ["x"],
    "negatives": ["1.1"],
    "grid": [0, "129,128,128", 1000],
    "seed": [-1, "a", 0.5],
    "folds": [-1, "two"],
    "classes": [[], "", ",", "a,a", "a,,b", 3],
    "unannotated": ["maybe"],
    "padding": ["wrap", 0],
    "dtype": ["complex64", "bool", "float128", "str"],
    "clip_percentiles": ["1", "99,1", "-1,99", "1,101", "5,5"],
    "codec": ["", 3],
    "chunk_shape": [0],
    "shard_size": [0, "-1MiB", "many", "1XB", "MiB"],
    "voxel_spacing": [0, "-10", "ten", "nan"],
    "resample_to": [0, "-13.3", "fine", "13.3,13.3", "inf"],
    "coordinate_spacing": [0, "-10", "ten", "nan"],
    "array": ["", 1],
    "level_spacing": [0, "x"],
    "unsigned": ["true", 1],
    "volume_format": [""],
    "format": ["", 5],
    "unit": ["pixel"],
    "axis_order": ["", "xyy", "zy", "abc"],
    "zero": ["center"],
    "index_base": [2, -1, "a"],
    "columns": [["depth=1"], ["z"], ["=1"], 5],
    "delimiter": ["", 1],
    "header": ["yes", 1],
    "tomograms": [""],
    "map": [["a"], ["=b"], ["a="], 5],
    "volumes": [[], "", [""], [3], 3],
    "annotations": [[], ""],
}


def test_every_setting_has_bad_values():
    assert set(BAD) == set(NAMES)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_one_line_that_names_the_setting(name, value):
    with pytest.raises(UsageError) as caught:
        recipe(**{name: value})
    line = str(caught.value)
    assert "\n" not in line
    flag = "column" if name == "columns" else name.replace("_", "-")
    assert flag in line or name in line


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"patch_shape": "100,128,128"}, "--patch-shape: expected a multiple of --ds-factor 16,16,16"),
        ({"patch_shape": "100,128,128"}, "use 96,128,128"),
        ({"patch_shape": "4"}, "use 16,16,16"),
        ({"sigma_ds": 1, "sigma_angstrom": 200}, "drop one"),
        ({"jitter": 64}, "less than half the patch"),
        ({"jitter": 0, "centered": 2}, "copies"),
        ({"patch_shape": 2, "ds_factor": 1, "centered": 2}, "copies"),
        ({"centered": 0}, "0 of every kind"),
        ({"clip_percentiles": "99,1"}, "0 <= LOW < HIGH <= 100"),
        ({"grid": "128,129,128"}, "--grid: expected at most the patch shape 128,128,128"),
        ({"sigma_ds": "1e300"}, "at most 9223372036854775807"),
        ({"patch_shape": 2**21}, "at most 1048576"),
        ({"index_base": 2}, "1 whole number(s), at least 0 and at most 1"),
        ({"patch_sahpe": 16}, "did you mean patch_shape"),
        ({"hard-negative": 16}, "did you mean hard_negatives"),
        ({"qqq": 16}, "known are annotations, array"),
    ],
)
def test_what_does_not_fit_together_says_what_to_do(settings, says):
    with pytest.raises(UsageError) as caught:
        recipe(**settings)
    assert says in str(caught.value)


texts = st.one_of(
    st.text(max_size=12),
    st.text("0123456789.,-+eEinfax_ ", max_size=14),
    st.integers().map(str),
    st.floats().map(str),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(NAMES), anything, max_size=4))
def test_whatever_is_given_is_taken_or_refused_in_one_line(settings):
    try:
        found = recipe(**settings)
    except KeypatchError as error:
        assert isinstance(error, UsageError)  # noqa: PT017 - which of the two comes is not known
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert all(p % f == 0 for p, f in zip(found.patch_shape, found.ds_factor, strict=True))
    assert Recipe.from_mapping({"volumes": found.volumes, "annotations": found.annotations, **_again(found)}) == found
    json.dumps(found.to_json(), allow_nan=False)


def _again(found):
    stored = found.to_json()
    return {**stored, "tomograms": found.tomograms}


# ----- recipe files -----


def write(folder, text):
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_in_a_file_are_taken_from_its_folder(tmp_path):
    path = write(
        tmp_path,
        'volumes = "train/*.mrc"\nannotations = ["a.csv", "/data/b.csv"]\nout = "o.zarr"\ntomograms = "t.star"\n'
        "patch-shape = [64, 64, 64]\n[map]\nx = 'y'\n",
    )
    given = read_recipe_file(path)
    assert given["volumes"] == (str(tmp_path / "train/*.mrc"),)
    assert given["annotations"] == (str(tmp_path / "a.csv"), "/data/b.csv")
    assert given["out"] == str(tmp_path / "o.zarr")
    assert given["tomograms"] == str(tmp_path / "t.star")
    assert Recipe.from_mapping({k: v for k, v in given.items() if k != "out"}).map == {"x": "y"}


def test_signs_of_patterns_in_the_folders_name_are_no_pattern(tmp_path):
    from keypatch.converters.patterns import expand

    folder = tmp_path / "run[1] {volume} *"
    folder.mkdir()
    for name in ("a.csv", "b.csv"):
        (folder / name).touch()
    given = read_recipe_file(write(folder, 'volumes = "{volume}.csv"\nannotations = "b.csv"'))
    assert [match.fields["volume"] for match in expand(given["volumes"])] == ["a", "b"]
    assert [match.named for match in expand(given["annotations"])] == [True]


def test_the_home_folder_in_a_file_is_that_of_the_person(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of a person")
    monkeypatch.setenv("USERPROFILE", "/home/of a person")
    given = read_recipe_file(write(tmp_path, 'volumes = "~/train/*"\nannotations = "~/a.csv"\nout = "~/o.zarr"'))
    assert given["volumes"] == ("/home/of a person/train/*",)
    assert given["out"] == "/home/of a person/o.zarr"


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("volumes = [", UsageError, "TOML"),
        ("a = 1\na = 2", UsageError, "TOML"),
        ("\xff", UsageError, "TOML"),
        ("volumes = 3", UsageError, "volumes"),
        ("patch_sahpe = 3", UsageError, "did you mean patch_shape"),
        ("seed = 1.5", UsageError, "seed: expected 1 whole number"),
        ("patch-shape = 16\npatch_shape = 32", UsageError, "two"),
        ("[patches]\nseed = 3", UsageError, "patches"),
        ("out = 3", UsageError, "out"),
        ("tomograms = ['a']", UsageError, "tomograms"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, text, kind, says):
    path = tmp_path / "recipe.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(kind) as caught:
        read_recipe_file(path)
    assert "\n" not in str(caught.value)
    assert says in str(caught.value)
    assert "recipe.toml" in str(caught.value)


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(ReadError, match=r"none\.toml: expected a recipe file"):
        read_recipe_file(tmp_path / "none.toml")
    with pytest.raises(ReadError, match="expected a recipe file"):
        read_recipe_file(tmp_path)
