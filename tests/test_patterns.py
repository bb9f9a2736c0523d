"""Paths, globs and ``{volume}`` / ``{class}`` patterns."""

from __future__ import annotations

import glob
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keypatch.converters.patterns import below, expand
from keypatch.errors import ReadError, UsageError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Makes files, folders first, and stands among them."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return make


def found(*patterns):
    return [(str(match.path), dict(match.fields)) for match in expand(patterns)]


LAYOUTS = {
    "CZII volumes": (
        ["static/ExperimentRuns/TS_5_4/VoxelSpacing10.000/denoised.zarr/x"],
        "static/ExperimentRuns/{volume}/VoxelSpacing10.000/denoised.zarr",
        {"volume": "TS_5_4"},
    ),
    "CZII picks": (
        ["overlay/ExperimentRuns/TS_5_4/Picks/virus-like-particle.json"],
        "overlay/ExperimentRuns/{volume}/Picks/{class}.json",
        {"volume": "TS_5_4", "class": "virus-like-particle"},
    ),
    "copick user and session": (
        ["Picks/alice_0_ribosome.json"],
        "Picks/*_*_{class}.json",
        {"class": "ribosome"},
    ),
    "portal": (
        ["10001/TS_026/Annotations/101/ribosome-1.0_point.ndjson"],
        "*/{volume}/Annotations/*/{class}-1.0_point.ndjson",
        {"volume": "TS_026", "class": "ribosome"},
    ),
    "a name inside a name": (["rec_TS_01_bin4.mrc"], "rec_{volume}_bin4.mrc", {"volume": "TS_01"}),
    "a field twice": (["TS_01/TS_01.mrc", "TS_02/TS_01.mrc"], "{volume}/{volume}.mrc", {"volume": "TS_01"}),
    "any depth": (["a/b/c/TS_1.mrc"], "**/{volume}.mrc", {"volume": "TS_1"}),
    "any depth, none": (["TS_1.mrc"], "**/{volume}.mrc", {"volume": "TS_1"}),
    "a set of letters": (["TS_1.mrc", "TS_x.mrc"], "{volume}_[0-9].mrc", {"volume": "TS"}),
    "not a letter": (["TS_1.mrc", "TS_x.mrc"], "{volume}_[!x].mrc", {"volume": "TS"}),
    "signs of regular expressions": (["a.b+c(1)_TS.mrc", "aXb+c(1)_TS.mrc"], "a.b+c(1)_{volume}.mrc", {"volume": "TS"}),
    "names with spaces and umlauts": (["Größe 1/TS ä.mrc"], "Größe 1/{volume}.mrc", {"volume": "TS ä"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fields_are_found_in_every_layout(tree, layout):
    files, pattern, fields = LAYOUTS[layout]
    tree(*files)
    matches = expand([pattern])
    assert [dict(match.fields) for match in matches] == [fields]
    assert not matches[0].named
    assert str(matches[0].path) in files[0]


def test_an_absolute_pattern_works_too(tree, tmp_path):
    tree("a/TS_1.mrc")
    assert found(f"{tmp_path}/a/{{volume}}.mrc") == [(f"{tmp_path}/a/TS_1.mrc", {"volume": "TS_1"})]


def test_a_path_that_exists_is_taken_whatever_signs_it_holds(tree):
    tree("a[1].mrc", "a1.mrc", "{volume}.mrc", "x*.mrc")
    for name in ("a[1].mrc", "{volume}.mrc", "x*.mrc"):
        (match,) = expand([name])
        assert (str(match.path), match.named, dict(match.fields)) == (name, True, {})


def test_each_path_comes_once_and_sorted_within_a_pattern(tree):
    tree("b.mrc", "a.mrc", "c.mrc")
    assert [path for path, _ in found("c.mrc", "*.mrc", "./a.mrc")] == ["c.mrc", "a.mrc", "b.mrc"]


def test_the_home_folder_is_known(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    tree("a.mrc")
    assert [path for path, _ in found("~/a.mrc")] == [f"{tmp_path}/a.mrc"]
    assert [path for path, _ in found("~/{volume}.mrc")] == [f"{tmp_path}/a.mrc"]


@pytest.mark.parametrize(
    ("pattern", "error", "says"),
    [
        ("none.mrc", ReadError, "nothing of that name"),
        ("none*.mrc", ReadError, "none that matches"),
        ("{volume}.rec", ReadError, "none that matches"),
        ("{tomogram}.mrc", UsageError, "{tomogram}"),
        ("{Volume}.mrc", UsageError, "{Volume}"),
        ("a" * 5000, ReadError, "nothing of that name"),
        ("a\0b", ReadError, "nothing of that name"),
        ("[z-a]{volume}.mrc", (ReadError, UsageError), "[z-a]"),
    ],
)
def test_what_stands_for_nothing_is_one_line(tree, pattern, error, says):
    tree("a.mrc")
    with pytest.raises(error) as caught:
        expand([pattern])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_a_name_that_is_no_text_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open(b"tomo_\xff.mrc", "wb"):  # noqa: PTH123 - a Path takes no bytes
        pass
    for pattern in ("*.mrc", os.fsdecode(b"tomo_\xff.mrc")):
        with pytest.raises(ReadError, match="expected a name in UTF-8") as caught:
            expand([pattern])
        str(caught.value).encode()


NAMES = st.text("ab1_.-[]!^&~{}()+$ ä", min_size=1, max_size=5).filter(lambda name: name.strip(". ") != "")


@given(
    st.sets(NAMES, min_size=1, max_size=6),
    st.lists(st.sampled_from(["*", "?", "a", "1", "[ab]", "[!a]", "_", "."]), max_size=5),
)
def test_a_glob_finds_what_the_standard_library_finds(names, parts):
    pattern = "".join(["*", *parts])
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            (Path(folder) / name).touch()
        expected = sorted(glob.glob(pattern, root_dir=folder))  # noqa: PTH207 - the oracle
        try:
            matches = [match.path.name for match in expand([below(Path(folder), pattern)])]
        except ReadError:
            matches = []
        assert matches == expected


@given(st.sets(st.text("ab1_-. ä[", min_size=1, max_size=6).filter(lambda n: n[0] not in ". "), min_size=1, max_size=5))
def test_every_volume_gets_its_own_name_back(names):
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            (Path(folder) / f"rec {name} x").mkdir()
            (Path(folder) / f"rec {name} x" / f"{name}.mrc").touch()
        matches = expand([below(Path(folder), "rec {volume} x/{volume}.mrc")])
        assert {match.fields["volume"] for match in matches} == names
