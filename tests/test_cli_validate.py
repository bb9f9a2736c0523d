"""``keypatch validate`` on the command line: what a person copies from it, and what CI systems parse."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from .sources import keypatch
from .stores import Made, Spoiled, copy_of, edit_attributes, flip, make_store

IMAGE, TARGET = "image/c/0/0/0/0", "gaussian/c/1/0/0/0/0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


@pytest.fixture
def store(made: Made, tmp_path: Path) -> Spoiled:
    folder = tmp_path / "a folder"  # a name that a shell would take apart
    folder.mkdir()
    return copy_of(made, folder)


def command_in(text: str) -> list[str]:
    """The words of the command that a report gives, as a shell would read them."""
    found = re.search(r"^  To repair it: keypatch (.*)$", text, re.MULTILINE)
    return shlex.split(found[1], comments=True) if found else []


@pytest.mark.parametrize(("shards", "images"), [([IMAGE], True), ([TARGET], False), ([IMAGE, TARGET], True)])
def test_the_command_that_is_given_repairs(store: Spoiled, shards: list[str], *, images: bool) -> None:
    for shard in shards:
        flip(store.path / shard, 40)
    command = command_in(keypatch("validate", store.path).out)
    assert command[:2] == ["repair", str(store.path)]
    if images:
        assert command[2:] == ["--source", "VOLUMES"]
        command = command_in(keypatch("validate", store.path, "--source", store.made.source).out)
        assert command[2:] == ["--source", str(store.made.source)]
    ran = keypatch(*command)
    assert ran.code == 0, ran.out
    assert keypatch("validate", store.path).code == 0


def test_what_is_not_listed_may_be_an_image(store: Spoiled) -> None:
    flip(store.path / TARGET, 40)
    assert "--gaussians" in command_in(keypatch("validate", store.path).out)
    assert "--source" in command_in(keypatch("validate", store.path, "--max-findings", "0").out)


def test_no_command_where_none_would_help(made: Made, store: Spoiled) -> None:
    assert command_in(keypatch("validate", made.path).out) == []
    flip(store.path / IMAGE, 40)
    edit_attributes(store, lambda attributes: attributes.update(classes=["a", "b"]))
    assert command_in(keypatch("validate", store.path).out) == []
    assert keypatch("repair", store.path, "--source", store.made.source).code == 1


def test_an_annotation_of_github_names_store_code_and_cure(store: Spoiled) -> None:
    for shard in (IMAGE, "image/c/1/0/0/0"):
        flip(store.path / shard, 40)
    ran = keypatch("validate", store.path, store.path.parent / "none.zarr", "--format", "github")
    assert ran.code == 3
    lines = ran.out.splitlines()
    titles, texts = zip(*(re.fullmatch(r"::error title=([^:,]*)::(.*)", line).groups() for line in lines), strict=True)  # type: ignore[union-attr]
    assert [title.split()[0] for title in titles] == ["KP201", "KP204", "keypatch"]  # one a code, however many shards
    assert all(str(store.path.parent) in title for title in titles)
    assert texts[0].count("%0A") == 3
    assert "%0Aimage/c/1/0/0/0: expected sha256 " in texts[0]
    assert "%0ATo do: run keypatch repair" in texts[0]
    assert "expected a keypatch store" in texts[2]


def test_junit_counts_what_it_holds(made: Made, store: Spoiled) -> None:
    flip(store.path / IMAGE, 40)
    ran = keypatch("validate", made.path, store.path, store.path.parent / "none.zarr", "--format", "junit")
    root = ET.fromstring(ran.out)
    suites = root.findall("testsuite")
    assert len(suites) == 3
    for element in (root, *suites):
        for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
            assert int(element.attrib[name]) == len(element.findall(f".//{tag}"))
    failures = root.findall(".//failure")
    assert [failure.attrib["type"] for failure in failures] == ["KP201", "KP204"]
    assert all("To do: run keypatch repair" in str(failure.text) for failure in failures)
    assert len(root.findall(".//skipped")) == 4  # Gaussians and sources, of the two that were read


def test_a_subset_is_named_in_every_format(made: Made) -> None:
    text, junit, found = (
        keypatch("validate", made.path, "--subset", "2/3", "--format", form) for form in ("text", "junit", "json")
    )
    assert text.out.startswith(f"{made.path}, subset 2/3: sound")
    assert "0 files" not in text.out
    assert ET.fromstring(junit.out)[0].attrib["name"] == f"{made.path}, subset 2/3"
    assert found.report[0]["subset"] == [2, 3]


def test_a_finding_says_once_what_was_expected(store: Spoiled) -> None:
    flip(store.path / IMAGE, 40)
    (path,) = [line for line in keypatch("validate", store.path).out.splitlines() if line.startswith("  KP204")]
    assert re.fullmatch(r"  KP204 error .*: expected crc32c [0-9a-f]{8}, found [0-9a-f]{8}", path)
    (path,) = [line for line in keypatch("validate", store.path).out.splitlines() if line.startswith("  KP201")]
    assert re.fullmatch(r"  KP201 error .*: expected sha256 [0-9a-f]{12}…, found sha256 [0-9a-f]{12}…", path)
