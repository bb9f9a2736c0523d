"""The findings of a store as lines, for those formats that show them code by code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keypatch.audit.findings import CODES

if TYPE_CHECKING:
    from keypatch.audit.validate import ValidationReport


def of_code(report: ValidationReport, code: str) -> list[str]:
    """Every listed finding of a code, how many more there are, and what to do."""
    listed = [finding for finding in report.findings if finding.code == code]
    lines = [f"{finding.where}: expected {finding.expected}, found {finding.found}" for finding in listed]
    if more := report.counts[code] - len(listed):
        lines.append(f"and {more} more" if listed else f"{more} in all, none of them listed")
    return [*lines, f"To do: {CODES[code].cure}."]
