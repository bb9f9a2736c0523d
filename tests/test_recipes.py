"""The files in recipes/: each builds the layout that it says it is for."""

from __future__ import annotations

import shutil

import pytest
from tests.conftest import ROOT
from tests.recipe_layouts import LAYOUTS
from tests.sources import assert_store_is_true, convert, converted

from keypatch.converters.recipe import Recipe, read_recipe_file

RECIPES = ROOT / "recipes"
SMALL = ("--patch-shape", "8,16,12", "--ds-factor", "2,4,3", "--sigma-ds", 1)
"""Instead of the recipe's patches, which are larger than the miniature's volumes."""

SAID_IN_ANY_CASE = ("seen from its own folder, was read", "are taken as empty")
"""Of the files that an optimisation set names, and of the scans that LUNA16's table does not name."""

OF_EMPTY_VOLUMES = "of kind hard_negative: their volume has no annotations"


def test_every_recipe_has_a_layout_and_stands_in_the_readme():
    files = sorted(path.name for path in RECIPES.iterdir())
    assert files == sorted(f"{name}.toml" for name in LAYOUTS)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"recipes/{name}" in readme for name in files)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_recipe_is_whole_and_says_what_it_is_for(name):
    path = RECIPES / f"{name}.toml"
    given = read_recipe_file(path)
    assert given.pop("out").endswith(".zarr")
    Recipe.from_mapping(given)
    comment = path.read_text(encoding="utf-8")
    assert f"keypatch convert {name}.toml" in comment
    assert "# Change:" in comment


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_recipe_builds_its_layout(tmp_path, name):
    known = LAYOUTS[name](tmp_path)
    recipe = shutil.copy(RECIPES / f"{name}.toml", tmp_path)
    report = converted(recipe, *SMALL)
    assert [entry for entry in report["left_out"] if OF_EMPTY_VOLUMES not in entry["reason"]] == []
    assert [line for line in report["warnings"] if not any(said in line for said in SAID_IN_ANY_CASE)] == []
    assert report["annotations"] == {
        own: sum(volume.names.count(own) for volume in known.values()) for own in report["annotations"]
    }
    assert_store_is_true(report["store"], known, atol=1e-9)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_recipe_as_it_stands_plans_its_layout(tmp_path, name):
    """Patches larger than the volumes are filled up: the file needs no flag."""
    LAYOUTS[name](tmp_path)
    ran = convert(shutil.copy(RECIPES / f"{name}.toml", tmp_path), "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert ran.report["patches"]["centered"] > 0
