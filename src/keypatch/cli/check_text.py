"""How the findings of the check of sources look on a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from keypatch.cli import printing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keypatch.converters.check import CatalogFinding

SHOWN: Final = 5
"""Findings of one code that are shown; JSON has all."""


def short(findings: Sequence[CatalogFinding]) -> str:
    """What a finding says and what settles it; notes are only counted, and "" is all where there is nothing else."""
    told = [found for found in findings if found.severity != "note"]
    if not told:
        return ""
    pairs = [(_label(found), f"{found.where}: {found.found}{_to_settle(found)}") for found in _first_of_each(told)]
    pairs += _more(told)
    return f"check: {counted(findings)} (--dry-run shows all)\n{printing.rows(pairs, indent='  ')}"


def full(findings: Sequence[CatalogFinding]) -> str:
    """Every finding with its meaning, its numbers and what settles it."""
    from keypatch.converters.check import CODES

    pairs = []
    for found in _first_of_each(findings):
        lines = [
            f"{found.where}: {CODES[found.code].meaning}",
            f"expected {found.expected}",
            f"found {found.found}",
            f"to settle it: {found.settle or CODES[found.code].cure}",
        ]
        pairs.append((_label(found), "\n".join(lines)))
    pairs += _more(findings)
    return "\n".join([f"check: {counted(findings)}", *filter(None, [printing.rows(pairs, indent="  ")])])


def _label(found: CatalogFinding) -> str:
    return f"{found.code} {found.severity}"


def _to_settle(found: CatalogFinding) -> str:
    return f"\nto settle it: {found.settle}" if found.settle else ""


def counted(findings: Sequence[CatalogFinding]) -> str:
    """``1 error, 2 notes``, or "nothing found"."""
    severities = [found.severity for found in findings]
    return (
        ", ".join(printing.plural(severities.count(kind), kind) for kind in dict.fromkeys(severities))
        or "nothing found"
    )


def _more(findings: Sequence[CatalogFinding]) -> list[tuple[str, str]]:
    counts = Counter(found.code for found in findings)
    return [("…", f"{n - SHOWN} more of {code} (--json lists all)") for code, n in counts.items() if n > SHOWN]


def _first_of_each(findings: Sequence[CatalogFinding]) -> Iterator[CatalogFinding]:
    seen: dict[str, int] = {}
    for found in findings:
        seen[found.code] = seen.get(found.code, 0) + 1
        if seen[found.code] <= SHOWN:
            yield found
