"""The tutorial does what it says: its blocks run, print what the page shows, and draw its pictures."""

from __future__ import annotations

import re
import warnings

import pytest
from docs import tutorial_page
from PIL import Image


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tutorial")
    page = tutorial_page.PAGE.read_text(encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # of the libraries that a block imports
        written, skipped = tutorial_page.run(page, folder)
    return page, written, skipped, folder


def test_every_block_prints_what_the_page_shows(ran):
    page, written, _, _ = ran
    assert written == page, "run: python docs/tutorial_page.py"
    assert page.count("```text\n") >= 5
    assert "```text\n```" not in page


def test_the_block_for_torch_runs_where_torch_is(ran):
    _, _, skipped, _ = ran
    if skipped:
        pytest.skip("torch is not installed; make test-torch installs it")


def test_the_pictures_of_the_page_are_those_that_it_draws(ran):
    page, _, _, folder = ran
    named = re.findall(r"\(pictures/(\S+\.png)\)", page)
    assert sorted(named) == sorted(path.name for path in folder.glob("tutorial_*.png"))
    for name in named:
        kept = tutorial_page.PICTURES / name
        with Image.open(kept) as one, Image.open(folder / name) as other:
            assert one.size == other.size
        assert kept.stat().st_size < 120_000


def test_a_page_that_says_something_else_is_found_out(tmp_path):
    page = "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n\n```sh\nkeypatch --version\n```\n"
    written, skipped = tutorial_page.run(page, tmp_path)
    assert written == page.replace("3", "2", 1)
    assert skipped == []


def test_a_command_that_fails_is_no_tutorial(tmp_path):
    with pytest.raises(RuntimeError, match="exit code 3"):
        tutorial_page.run("```sh\nkeypatch validate nothing.zarr\n```\n", tmp_path)
