"""The pages on mixing and loading: their code runs, and their tables say what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs import mixing_pictures
from PIL import Image
from tests.stores import Design, make_store

from keypatch.augment.batch import EXAMPLE_KEYS, POINT_KEYS

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    return str(make_store(tmp_path_factory.mktemp("stores"), Design(source_dtype="float32", dtype="float32")).path)


@pytest.mark.parametrize("page", ["mixing.md", "loading.md"])
def test_the_code_runs(page, path) -> None:
    if page == "loading.md":
        pytest.importorskip("torch", reason="torch is not installed; make test-torch installs it")
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2
    scope = {"path": path}
    for block in blocks:
        exec(compile(block, page, "exec"), scope)


def test_the_table_names_every_key() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (DOCS / "loading.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == EXAMPLE_KEYS | POINT_KEYS


def test_the_pictures_are_there_and_can_be_drawn(tmp_path, monkeypatch) -> None:
    text = (DOCS / "mixing.md").read_text(encoding="utf-8")
    named = re.findall(r"\(pictures/(\S+\.png)\)", text)
    monkeypatch.setattr(mixing_pictures, "FOLDER", tmp_path / "pictures")
    mixing_pictures.main()
    assert sorted(named) == sorted(path.name for path in (tmp_path / "pictures").iterdir())
    for name in named:
        with Image.open(DOCS / "pictures" / name) as kept, Image.open(tmp_path / "pictures" / name) as drawn:
            assert kept.size == drawn.size
            assert (DOCS / "pictures" / name).stat().st_size < 100_000
