"""The page on augmentation: its code runs, its table has every setting, and its pictures are those that it draws."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from docs import augment_pictures
from PIL import Image
from tests.stores import Design, make_store

from keypatch.augment import Geometric
from keypatch.augment.maps import PADDINGS, SIGMAS

TEXT = (augment_pictures.DOCS / "augment.md").read_text(encoding="utf-8")


def first_cells(heading):
    """The first cells of the table that follows a heading."""
    part = TEXT.split(f"\n## {heading}")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)


def test_the_code_runs(tmp_path):
    design = Design(
        source_dtype="float32", dtype="float32", patch_shape=(16, 32, 32), ds_factor=(4, 4, 4), chunk_shape=(8, 16, 32)
    )
    scope = {"path": str(make_store(tmp_path, design).path)}
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "augment.md", "exec"), scope)
    assert len(scope["found"]) > 0


def test_the_tables_have_every_setting_and_mode():
    assert first_cells("Settings") == [field.name for field in fields(Geometric)]
    assert tuple(first_cells("Sigma")) == SIGMAS
    assert tuple(first_cells("Padding: what lies outside of the patch")) == PADDINGS


def test_the_settings_are_told_as_the_code_tells_them():
    told = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", TEXT.split("## Settings")[1], re.MULTILINE))
    said = " ".join((Geometric.__doc__ or "").replace("``", "`").split())
    for name, text in told.items():
        assert f"{name}: {text}" in said, "take over what the class says"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(augment_pictures, "FOLDER", folder)
        augment_pictures.main()
    return folder


def test_the_pictures_are_there_and_can_be_drawn(drawn):
    named = re.findall(r"\(pictures/(augment-\S+\.png)\)", TEXT)
    assert sorted(named) == sorted(path.name for path in drawn.iterdir())
    for name in named:
        kept = augment_pictures.DOCS / "pictures" / name
        with Image.open(kept) as one, Image.open(drawn / name) as other:
            assert one.size == other.size
        assert kept.stat().st_size < 100_000
