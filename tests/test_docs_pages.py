"""The pages of docs/ that are made from the code are what the code makes today."""

from __future__ import annotations

import dataclasses
import os

import pytest
from docs import findings_page, wrong_conventions

from keypatch.audit.findings import CODES as STORE_CODES
from keypatch.converters.check import CODES as SOURCE_CODES
from keypatch.findings import SEVERITIES


def test_every_code_is_on_the_page_of_findings():
    text = findings_page.PAGE.read_text(encoding="utf-8")
    assert not STORE_CODES.keys() & SOURCE_CODES.keys()
    for name, code in {**STORE_CODES, **SOURCE_CODES}.items():
        assert f"| {name} | {code.severity} | {code.meaning} | {code.cure} |" in text
        assert code.severity in SEVERITIES
        assert code.meaning.endswith(".")
        assert "|" not in code.meaning + code.cure


def test_the_page_of_findings_is_up_to_date():
    assert findings_page.main(["--check"]) == 0, "run: python docs/findings_page.py"


def test_a_new_code_makes_the_page_of_findings_out_of_date():
    more = {**STORE_CODES, **SOURCE_CODES, "KP699": SOURCE_CODES["KP601"]}
    assert findings_page.page(more) != findings_page.PAGE.read_text(encoding="utf-8")
    assert "KP699" in findings_page.page(more)


@pytest.fixture(scope="module")
def results(real_data):
    """Each data set with what the check says of it, unchanged and by every wrong convention."""
    return [(data_set, wrong_conventions.run(data_set)) for data_set in wrong_conventions.data_sets(real_data)]


def test_every_deliberately_wrong_convention_is_reported(results):
    """By a code that doubts it, by the reader, or by a note that it cannot be told from a right file."""
    for data_set, (unchanged, *wrong) in results:
        silent = [r.mistake.text for r in wrong if not (r.suspicions or r.refused or r.notes)]
        if not unchanged.suspicions:
            assert silent == [], data_set.name
        assert len(wrong) >= 12


def test_real_and_made_files_as_they_are_raise_no_alarm(results):
    """But for the fixture whose picks lie outside its tiny volume, which is real too."""
    loud = {
        data_set.name: [str(found) for found in unchanged.findings if found.severity != "note"]
        for data_set, (unchanged, *_) in results
    }
    alarmed = loud.pop("Data Portal fixture, copick")
    assert [text.split()[0] for text in alarmed] == ["KP602", "KP604"]
    assert not any(loud.values()), loud


def test_what_is_named_with_a_flag_is_mostly_undone_by_it(results):
    outcomes = [r.undone for _, (_, *wrong) in results for r in wrong if r.undone]
    assert outcomes.count("no, it fits too") <= 1
    assert outcomes.count("yes") + outcomes.count("one of them") >= 40


def test_the_page_of_wrong_conventions_is_up_to_date(results, real_data):
    text = wrong_conventions.PAGE.read_text(encoding="utf-8")
    assert wrong_conventions.rendered(results) == text, "run: python docs/wrong_conventions.py"


def test_a_case_that_nobody_names_shows_on_the_page(results):
    data_set, found = results[0]
    silent = [found[0], *(dataclasses.replace(r, suspicions=(), findings=()) for r in found[1:])]
    assert "**nothing**" in wrong_conventions.rendered([(data_set, silent)])


def test_without_real_files_the_script_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.delitem(os.environ, "KEYPATCH_TEST_DATA", raising=False)
    assert wrong_conventions.main([]) == 2
    assert "KEYPATCH_TEST_DATA" in capsys.readouterr().err
