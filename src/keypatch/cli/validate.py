"""``keypatch validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keypatch.cli import printing
from keypatch.errors import EXIT_FINDINGS, KeypatchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keypatch.audit.validate import ValidationReport
    from keypatch.findings import Finding


@click.command(epilog="Codes (KP101 …) keep their meaning for ever. Exit codes: 0 sound, 1 findings, 3 not a store.")
@click.argument("stores", nargs=-1, required=True, metavar="STORE...")
@click.option(
    "--depth",
    type=click.Choice(["quick", "full", "deep"]),
    default="full",
    show_default=True,
    help="quick: metadata, tables, file sizes. full: every byte and every identity. deep: every Gaussian again.",
)
@click.option("--source", type=click.Path(), help="Cut every patch again from the volumes in this folder.")
@click.option("--subset", metavar="K/N", help="Of the shards, every N-th from the K-th; N jobs check all, once.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="How findings are printed; github makes them annotations of a workflow.",
)
@click.option("--strict", is_flag=True, help="Let warnings count as findings.")
def command(
    stores: tuple[str, ...], *, depth: str, source: str | None, subset: str | None, form: str, strict: bool
) -> None:
    """Look for damage in stores. Nothing in them is written.

    \b
      keypatch validate out.zarr
      keypatch validate out.zarr --depth deep --source tomograms/
      keypatch validate out.zarr --subset 1/4 --format github
    """  # noqa: D301
    from keypatch.audit.validate import validate

    chosen = None if subset is None else _subset(subset)
    reports: list[ValidationReport] = []
    unreadable: list[KeypatchError] = []
    for store in stores:
        try:
            reports.append(validate(store, depth=depth, source=source, subset=chosen))
        except UsageError:
            raise
        except KeypatchError as error:
            unreadable.append(error)
    _print(reports, form, strict=strict)
    for unread in unreadable:
        printing.note(f"keypatch: {unread}")
    if unreadable:
        raise click.exceptions.Exit(unreadable[0].exit_code)
    if not all(report.passed(strict=strict) for report in reports):
        raise click.exceptions.Exit(EXIT_FINDINGS)


def _print(reports: Sequence[ValidationReport], form: str, *, strict: bool) -> None:
    if form == "json":
        printing.as_json([report.to_json() for report in reports])
        return
    for report in reports:
        if form == "text":
            click.echo(_as_text(report, strict=strict))
            continue
        for finding in report.findings:
            click.echo(_as_annotation(finding))


def _subset(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal()):
        raise UsageError.at("--subset", expected="K/N, such as 1/4", found=repr(text))
    return int(first), int(second)


def _as_text(report: ValidationReport, *, strict: bool) -> str:
    errors, warnings = len(report.errors), len(report.warnings)
    verdict = "sound" if report.passed(strict=strict) else "NOT SOUND"
    lines = [f"{report.path}: {verdict} ({printing.plural(errors, 'error')}, {printing.plural(warnings, 'warning')})"]
    lines += _listed(report.findings)
    checked = report.checked
    looked_at = [
        printing.plural(checked.files, "file"),
        f"{checked.rows} rows of {checked.tables} tables",
    ]
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
    lines.append(printing.rows([("checked", f"{report.depth}: {', '.join(looked_at)}")], indent="  "))
    if report.digest is not None and not report.errors:
        lines.append(printing.rows([("digest", report.digest)], indent="  "))
    return "\n".join(lines)


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


def _as_annotation(finding: Finding) -> str:
    """A workflow command; it escapes as GitHub's toolkit does."""

    def escaped(text: str, more: str = "") -> str:
        for sign in "%\r\n" + more:
            text = text.replace(sign, f"%{ord(sign):02X}")
        return text

    title = escaped(f"{finding.code} {finding.where}", ":,")
    return f"::{finding.severity} title={title}::expected {escaped(finding.expected)}, found {escaped(finding.found)}"
