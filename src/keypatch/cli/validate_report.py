"""What `keypatch validate` reports, in each of its formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keypatch.audit.validate import ValidationReport
from keypatch.cli import junit, printing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keypatch.errors import KeypatchError
    from keypatch.findings import Finding


@dataclass(frozen=True)
class Unreadable:
    """A store of which there is no report.

    Attributes:
        path: As given.
        error: Why.
    """

    path: str
    error: KeypatchError

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"path": self.path, "error": str(self.error), "exit_code": self.error.exit_code}


def as_text_of(form: str, results: Sequence[ValidationReport | Unreadable], *, strict: bool, source: bool) -> str:
    """All results in one format, without a line feed at the end.

    Args:
        form: "text", "json", "junit" or "github".
        results: One a store.
        strict: Whether warnings are findings.
        source: Whether patches were to be cut again.
    """
    if form == "json":
        return printing.json_text([result.to_json() for result in results])
    if form == "junit":
        suites = [
            junit.suite_of_report(result, strict=strict, source=source)
            if isinstance(result, ValidationReport)
            else junit.suite_of_error(result.path, result.error)
            for result in results
        ]
        return junit.document(suites)
    reports = [result for result in results if isinstance(result, ValidationReport)]
    if form == "github":
        return "\n".join(line for report in reports for line in _annotations(report))
    return "\n".join(_as_text(report, strict=strict) for report in reports)


def verdict(report: ValidationReport, *, strict: bool) -> str:
    """Sound or not, in one line."""
    word = "sound" if report.passed(strict=strict) else "NOT SOUND"
    errors, warnings = printing.plural(report.n_errors, "error"), printing.plural(report.n_warnings, "warning")
    return f"{report.path}: {word} ({errors}, {warnings})"


def _as_text(report: ValidationReport, *, strict: bool) -> str:
    lines = [verdict(report, strict=strict), *_listed(report.findings)]
    if more := unlisted(report):
        lines.append(f"  {more}")
    lines.append(printing.rows([("checked", f"{report.depth}: {', '.join(_looked_at(report))}")], indent="  "))
    if report.digest is not None and not report.n_errors:
        lines.append(printing.rows([("digest", report.digest)], indent="  "))
    return "\n".join(lines)


def _looked_at(report: ValidationReport) -> list[str]:
    checked = report.checked
    looked_at = [printing.plural(checked.files, "file"), f"{checked.rows} rows of {checked.tables} tables"]
    if checked.units:
        looked_at += [
            f"{printing.size(checked.bytes_hashed)} hashed",
            f"{printing.plural(checked.patches, 'patch', 'patches')} decoded",
        ]
    if checked.gaussians:
        looked_at.append(
            f"{printing.plural(checked.gaussians, 'Gaussian')} rendered again "
            f"(largest difference {checked.gaussian_difference:.2g}, {checked.gaussians_equal} equal to the bit)"
        )
    if checked.peaks:
        looked_at.append(
            f"{printing.plural(checked.peaks, 'peak')} at most {checked.peak_offset:.2g} coarse voxels off"
        )
    if checked.recut:
        looked_at.append(f"{printing.plural(checked.recut, 'patch', 'patches')} cut again from the source")
    return looked_at


def _listed(findings: Sequence[Finding]) -> list[str]:
    """Findings, each code's cure once, behind the first of it."""
    from keypatch.audit.findings import CODES

    lines: list[str] = []
    told: set[str] = set()
    for finding in findings:
        lines.append(f"  {finding}")
        if finding.code not in told:
            lines.append(f"        {CODES[finding.code].meaning} To do: {CODES[finding.code].cure}.")
            told.add(finding.code)
    return lines


def unlisted(report: ValidationReport) -> str:
    """``and 5 more: 3 of KP201, 2 of KP204``; empty where all are listed."""
    more = report.unlisted
    if not more:
        return ""
    return f"and {sum(more.values())} more: {', '.join(f'{count} of {code}' for code, count in more.items())}"


def _annotations(report: ValidationReport) -> list[str]:
    """Workflow commands of GitHub, which shows at most 10 of a kind in a step."""
    lines = [
        _annotation(f.severity, f"{f.code} {f.where}", f"expected {f.expected}, found {f.found}")
        for f in report.findings
    ]
    if more := unlisted(report):
        lines.append(_annotation("error" if report.n_errors else "warning", str(report.path), more))
    return lines


def _annotation(kind: str, title: str, text: str) -> str:
    """A workflow command; it escapes as GitHub's toolkit does."""

    def escaped(text: str, more: str = "") -> str:
        for sign in "%\r\n" + more:
            text = text.replace(sign, f"%{ord(sign):02X}")
        return text

    return f"::{kind} title={escaped(title, ':,')}::{escaped(text)}"
