"""``keypatch stats`` on the command line: text, JSON, Markdown, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from keypatch.audit.report import grouped, report, sparkline
from keypatch.audit.stats import stats

from .sources import keypatch
from .stores import Design, Made, copy_of, edit_attributes, make_store

HOSTILE = "</script><img src=x onerror=alert(1)> | `rm` \x1b[31m*b*"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


@pytest.fixture
def hostile(made: Made, tmp_path: Path) -> Path:
    store = copy_of(made, tmp_path)
    edit_attributes(store, lambda attributes: attributes.update(classes=[HOSTILE, "a" * 90]))
    return store.path


def test_text_fits_eighty_columns(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(hostile.parent)
    lines = keypatch("stats", "copy.zarr").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) > 60
    assert all(line.isprintable() for line in lines)


def test_many_folds_go_on_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    shapes = ((34, 66, 50),) * 14
    make_store(tmp_path, Design(folds=14, volume_shapes=shapes, n_annotations=(3,) * 14))
    text = keypatch("stats", "store.zarr").out
    assert max(map(len, text.splitlines())) <= 80
    assert [int(n) for n in re.findall(r"fold (\d+)", text)] == list(range(14))
    assert "… and 4 more (--json lists all)" in text


def test_json_has_everything(made: Made) -> None:
    (value,) = json.loads(keypatch("stats", str(made.path), "--format", "json").out)
    (other,) = json.loads(keypatch("stats", str(made.path), "--json").out)
    assert value.pop("timing").keys() == other.pop("timing").keys()
    assert value == other
    figures = stats(made.path).to_json()
    figures.pop("timing")
    assert value == figures
    assert [v["shared_share"] for v in value["overlap"]] == [v["shared"] / v["covered"] for v in value["overlap"]]


def test_every_table_is_in_the_text_and_in_markdown(made: Made) -> None:
    titles = [table.title for table in report(stats(made.path))]
    assert len(titles) == 12
    text, markdown = (
        keypatch("stats", str(made.path)).out,
        keypatch("stats", str(made.path), "--format", "markdown").out,
    )
    for title in titles:
        assert f"\n{title}\n" in text
        assert f"\n## {title}\n" in markdown


def test_markdown_is_a_table_whatever_the_names(hostile: Path) -> None:
    text = keypatch("stats", str(hostile), "--format", "markdown").out
    assert "<" not in text
    assert "\x1b" not in text
    columns = 0
    for line in text.splitlines():
        cells = line.count("|")
        assert not columns or not cells or cells == columns
        columns = cells


def test_a_sample_is_said_to_be_one(made: Made) -> None:
    text = keypatch("stats", str(made.path), "--sample", "4").out
    assert "4 of 10 patches" in text
    assert "95 %" in text
    assert "all 10 patches" in keypatch("stats", str(made.path), "--all").out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--all", "--sample", "4"], "either a sample or --all"),
        (["--json", "--format", "markdown"], "expected one format"),
        (["--format", "yaml"], "yaml"),
        (["--sample", "1"], "--sample"),
    ],
)
def test_wrong_flags(made: Made, flags: list[str], message: str) -> None:
    result = keypatch("stats", str(made.path), *flags)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_a_histogram_in_one_line() -> None:
    assert sparkline([0, 0, 1, 3, 8, 8, 3, 1], 8) == "▁▁▂▄██▄▂"
    assert sparkline([1, 1, 4, 4, 2, 2], 3) == "▃█▅"
    assert sparkline([0, 0], 2) == "▁▁"
    assert sparkline([], 5) == ""


def test_many_numbers_of_keypoints_are_grouped_and_none_is_lost() -> None:
    assert grouped({0: 5, 1: 2, 3: 1}) == {"0": 5, "1": 2, "3": 1}
    counts = {n: n + 1 for n in range(0, 41, 2)}
    lines = grouped(counts, most=5)
    assert list(lines) == ["0", "1 to 10", "11 to 20", "21 to 30", "31 to 40"]
    assert sum(lines.values()) == sum(counts.values())
    assert lines["1 to 10"] == 3 + 5 + 7 + 9 + 11
    assert list(grouped(dict.fromkeys(range(11), 1), most=10)) == [
        "0",
        "1 to 2",
        "3 to 4",
        "5 to 6",
        "7 to 8",
        "9 to 10",
    ]
