"""What the formats of a report on a store have in common: its name, and the findings of a code as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keypatch.audit.findings import CODES

if TYPE_CHECKING:
    from keypatch.audit.validate import ValidationReport


def name(report: ValidationReport) -> str:
    """The store, and which part of it was looked at."""
    k, n = report.subset
    return str(report.path) if n == 1 else f"{report.path}, subset {k}/{n}"


def of_code(report: ValidationReport, code: str) -> list[str]:
    """Every listed finding of a code, how many more there are, and what to do."""
    listed = [finding for finding in report.findings if finding.code == code]
    lines = [f"{finding.where}: expected {finding.expected}, found {finding.found}" for finding in listed]
    if more := report.counts[code] - len(listed):
        lines.append(f"and {more} more" if listed else f"{more} in all, none of them listed")
    return [*lines, f"To do: {CODES[code].cure}."]
