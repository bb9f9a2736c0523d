"""Reports as JUnit XML, in the shape of the Jenkins xUnit plugin's ``junit-10.xsd``, which GitLab and others read too.

One test suite a store. Each group of checks is a test case, so that it has a history; where it found something, each
code is one instead. A code's findings are in one ``failure``: of several, Jenkins and GitLab show the first alone.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Final

from keypatch.audit.findings import CODES
from keypatch.cli import findings_text, printing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keypatch.audit.validate import ValidationReport
    from keypatch.errors import KeypatchError

_GROUPS: Final[Mapping[str, str]] = {
    "KP1": "layout and metadata",
    "KP2": "bytes and values",
    "KP3": "tables and geometry",
    "KP4": "Gaussians",
    "KP5": "sources",
}
"""First signs of the codes to what they are about."""


def document(suites: Sequence[ET.Element]) -> str:
    """The whole text, without a line feed at the end."""
    counted = ("tests", "failures", "errors")  # the schema has no sum of what was skipped
    totals = {name: str(sum(int(suite.get(name, "0")) for suite in suites)) for name in counted}
    root = ET.Element("testsuites", {"name": "keypatch validate", **totals})
    root.extend(suites)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode")


def suite_of_report(report: ValidationReport, *, strict: bool, source: bool) -> ET.Element:
    """The test suite of one store.

    Args:
        report: On the store.
        strict: Whether warnings are failures.
        source: Whether patches were to be cut again.
    """
    cases: list[ET.Element] = []
    for signs, group in _GROUPS.items():
        codes = [code for code in report.counts if code.startswith(signs)]
        cases += [_case_of_code(report, group, code, strict=strict) for code in codes]
        if not codes:
            case = _case(str(report.path), group, group)
            if missing := _not_checked(signs, report, source=source):
                ET.SubElement(case, "skipped", message=missing)
            cases.append(case)
    return _suite(findings_text.name(report), cases)


def suite_of_error(path: str, error: KeypatchError) -> ET.Element:
    """The test suite of a store of which there is no report."""
    case = _case(path, _GROUPS["KP1"], "a store that can be read")
    ET.SubElement(case, "error", message=_legal(str(error)), type=type(error).__name__)
    return _suite(path, [case])


def _not_checked(signs: str, report: ValidationReport, *, source: bool) -> str:
    """Why a group was not looked at; empty where it was."""
    if signs == "KP4" and report.depth != "deep":
        return "needs --depth deep"
    if signs == "KP5" and not source:
        return "needs --source"
    if signs in {"KP1", "KP3"} and not report.checked.files:
        return "belongs to the first subset"
    return ""


def _case_of_code(report: ValidationReport, group: str, code: str, *, strict: bool) -> ET.Element:
    entry, count = CODES[code], report.counts[code]
    case = _case(str(report.path), group, f"{code} {entry.meaning}")
    lines = findings_text.of_code(report, code)
    if entry.severity == "warning" and not strict:
        ET.SubElement(case, "system-out").text = _legal("\n".join(lines))
        return case
    message = lines[0] if count == 1 else f"{printing.plural(count, 'finding')}: {lines[0]}"
    ET.SubElement(case, "failure", message=_legal(message), type=code).text = _legal("\n".join(lines))
    return case


def _case(path: str, group: str, name: str) -> ET.Element:
    # What stands before the last dot is a package in Jenkins; names are told apart by class and name.
    return ET.Element("testcase", {"classname": _legal(f"{path}.{group}"), "name": name})


def _suite(path: str, cases: Sequence[ET.Element]) -> ET.Element:
    counts = {
        name: str(sum(case.find(tag) is not None for case in cases))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    }
    suite = ET.Element("testsuite", {"name": _legal(path), "tests": str(len(cases)), **counts})
    suite.extend(cases)
    return suite


def _legal(text: str) -> str:
    """A text of signs that XML 1.0 may hold (its production 2, Char); the others are written as escapes."""
    return "".join(sign if _is_legal(ord(sign)) else sign.encode("unicode_escape").decode() for sign in text)


def _is_legal(sign: int) -> bool:
    return sign in (0x9, 0xA, 0xD) or 0x20 <= sign <= 0xD7FF or 0xE000 <= sign <= 0xFFFD or sign >= 0x10000
