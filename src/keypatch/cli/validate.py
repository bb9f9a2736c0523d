"""``keypatch validate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keypatch.cli import printing, validate_report, whole_file
from keypatch.cli.progress import Bar
from keypatch.errors import EXIT_FINDINGS, KeypatchError, UsageError

if TYPE_CHECKING:
    from keypatch.audit.validate import ValidationReport


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
@click.option("--workers", type=click.IntRange(1), help="Processes that read shards.  [the cores; 1 for a small store]")
@click.option(
    "--max-findings",
    type=click.IntRange(0),
    help="List so many of a store; all are counted.  [10 of a code within an array]",
)
@click.option(
    "--expect-digest", metavar="HEX", help="The digest that the store must have, or its first 8 digits or more."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "junit", "github"]),
    default="text",
    show_default=True,
    help="Of the report. junit: XML that CI systems show; github: annotations of a workflow.",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the report there, whole or not.")
@click.option("--strict", is_flag=True, help="Let warnings count as findings.")
def command(
    stores: tuple[str, ...],
    *,
    depth: str,
    source: str | None,
    subset: str | None,
    workers: int | None,
    max_findings: int | None,
    expect_digest: str | None,
    form: str,
    output: Path | None,
    strict: bool,
) -> None:
    """Look for damage in stores. Nothing in them is written.

    \b
      keypatch validate out.zarr
      keypatch validate out.zarr --depth deep --source tomograms/
      keypatch validate out.zarr --subset 1/4 --format junit --output report.xml
    """  # noqa: D301
    from keypatch.audit.validate import validate

    if output is not None:
        whole_file.check_place(output, stores)
    chosen = None if subset is None else _subset(subset)
    results: list[ValidationReport | validate_report.Unreadable] = []
    for store in stores:
        try:
            with Bar() as bar:
                report = validate(
                    store,
                    depth=depth,
                    source=source,
                    subset=chosen,
                    workers=workers,
                    max_findings=max_findings,
                    expect_digest=expect_digest,
                    progress=bar,
                )
        except UsageError:
            raise
        except KeypatchError as error:
            results.append(validate_report.Unreadable(store, error))
        else:
            results.append(report)
    text = validate_report.as_text_of(form, results, strict=strict, source=source)
    if output is None:
        click.echo(text, nl=bool(text))
    else:
        whole_file.write(output, text + "\n" if text else "")
    _leave(results, output, strict=strict)


def _leave(results: list[ValidationReport | validate_report.Unreadable], output: Path | None, *, strict: bool) -> None:
    """Say on stderr what is no result, or where the results are, and leave with the gravest exit code."""
    code = 0
    for result in results:
        if isinstance(result, validate_report.Unreadable):
            printing.note(f"keypatch: {result.error}")
            code = max(code, result.error.exit_code)
            continue
        if output is not None:
            printing.note(f"{validate_report.verdict(result, strict=strict)}; see {output}")
        if not result.passed(strict=strict):
            code = max(code, EXIT_FINDINGS)
    if code:
        raise click.exceptions.Exit(code)


def _subset(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal()):
        raise UsageError.at("--subset", expected="K/N, such as 1/4", found=repr(text))
    return int(first), int(second)
