"""What `keypatch validate` reports, in each of its formats."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from keypatch.audit.validate import ValidationReport
from keypatch.cli import findings_text, junit, printing
from keypatch.formats.store.schema import GAUSSIAN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keypatch.errors import KeypatchError
    from keypatch.findings import Finding

_LONG_HASH: Final = re.compile(r"(sha256 [0-9a-f]{12})[0-9a-f]{52}")
_SHORT_HASH: Final = r"\1…"

_OF_SHARDS: Final = frozenset({"KP113", "KP114", "KP201"})
"""What `keypatch repair` undoes: a shard is not the one that was written."""

_OF_METADATA: Final = frozenset({"KP101", "KP102", "KP115", "KP116", "KP120", "KP208", "KP209"})
"""What it cannot undo, so that it leaves the shards alone too: what tells the right shards is not trusted."""


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


def as_text_of(form: str, results: Sequence[ValidationReport | Unreadable], *, strict: bool, source: str | None) -> str:
    """All results in one format, without a line feed at the end.

    Args:
        form: "text", "json", "junit" or "github".
        results: One a store.
        strict: Whether warnings are findings.
        source: The folder from which patches were cut again, if any.
    """
    if form == "json":
        return printing.json_text([result.to_json() for result in results])
    if form == "junit":
        suites = [
            junit.suite_of_report(result, strict=strict, source=source is not None)
            if isinstance(result, ValidationReport)
            else junit.suite_of_error(result.path, result.error)
            for result in results
        ]
        return junit.document(suites)
    if form == "github":
        return "\n".join(line for result in results for line in _annotations(result))
    reports = [result for result in results if isinstance(result, ValidationReport)]
    return "\n".join(_as_text(report, strict=strict, source=source) for report in reports)


def verdict(report: ValidationReport, *, strict: bool) -> str:
    """Sound or not, in one line."""
    word = "sound" if report.passed(strict=strict) else "NOT SOUND"
    errors, warnings = printing.plural(report.n_errors, "error"), printing.plural(report.n_warnings, "warning")
    return f"{findings_text.name(report)}: {word} ({errors}, {warnings})"


def _as_text(report: ValidationReport, *, strict: bool, source: str | None) -> str:
    lines = [verdict(report, strict=strict), *_listed(report.findings)]
    if more := unlisted(report):
        lines.append(f"  {more}")
    last = [("checked", f"{report.depth}: {', '.join(_looked_at(report)) or 'nothing'}")]
    if report.digest is not None and not report.n_errors:
        last.append(("digest", report.digest))
    lines.append(printing.rows(last, indent="  "))
    if command := repair_command(report, source):
        lines.append(f"  To repair it: {command}")  # not wrapped: it is there to be copied
    return "\n".join(lines)


def repair_command(report: ValidationReport, source: str | None) -> str:
    """The command that makes the damaged shards again; empty where none would.

    Args:
        report: On the store.
        source: Folder that all volumes share; None where it is not known, and a word stands in its place.
    """
    damaged = _OF_SHARDS & report.counts.keys()
    if not damaged or _OF_METADATA & report.counts.keys():
        return ""
    command = f"keypatch repair {shlex.quote(str(report.path))}"
    places = [finding.where for finding in report.findings if finding.code in damaged]
    all_listed = not damaged & report.unlisted.keys()
    if all_listed and all(place.startswith(f"{GAUSSIAN}/") for place in places):
        return f"{command} --{GAUSSIAN}s"
    if source is not None:
        return f"{command} --source {shlex.quote(source)}"
    return f"{command} --source VOLUMES   # VOLUMES: the folder that all volumes share"


def _looked_at(report: ValidationReport) -> list[str]:
    checked = report.checked
    looked_at = []
    if checked.files:  # else they are another subset's
        looked_at += [printing.plural(checked.files, "file"), f"{checked.rows} rows of {checked.tables} tables"]
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
            f"{printing.plural(checked.peaks, 'peak')} apart from others at most {checked.peak_offset:.2g} coarse "
            "voxels off"
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
        # A hash is recognised by its beginning; the other formats have the whole of it.
        lines.append(f"  {_LONG_HASH.sub(_SHORT_HASH, str(finding))}")
        if finding.code not in told:
            lines.append(f"        {CODES[finding.code].meaning} To do: {CODES[finding.code].cure}.")
            told.add(finding.code)
    return lines


def unlisted(report: ValidationReport) -> str:
    """``and 5 more: 3 of KP201, 2 of KP204``; empty where all are listed."""
    more = report.unlisted
    if not more:
        return ""
    what = f"and {sum(more.values())} more" if report.findings else f"{sum(more.values())} are not listed"
    return f"{what}: {', '.join(f'{count} of {code}' for code, count in more.items())}"


def _annotations(result: ValidationReport | Unreadable) -> list[str]:
    """Workflow commands of GitHub: one a code, since it shows at most 10 of a kind in a step."""
    from keypatch.audit.findings import CODES

    if isinstance(result, Unreadable):
        return [_annotation("error", f"keypatch validate {result.path}", str(result.error))]
    return [
        _annotation(
            CODES[code].severity,
            f"{code} {result.path}",
            "\n".join([CODES[code].meaning, *findings_text.of_code(result, code)]),
        )
        for code in result.counts
    ]


def _annotation(kind: str, title: str, text: str) -> str:
    """A workflow command; it escapes as GitHub's toolkit does."""

    def escaped(text: str, more: str = "") -> str:
        for sign in "%\r\n" + more:
            text = text.replace(sign, f"%{ord(sign):02X}")
        return text

    return f"::{kind} title={escaped(title, ':,')}::{escaped(text)}"
