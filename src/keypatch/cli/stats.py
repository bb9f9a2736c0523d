"""``keypatch stats``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keypatch.cli import printing, tables
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keypatch.audit.stats import StoreStats

FORMATS = ("text", "json", "markdown")


@click.command()
@click.argument("stores", nargs=-1, required=True, metavar="STORE...")
@click.option(
    "--sample",
    type=click.IntRange(2),
    help="Patches that are read, and whose full-resolution Gaussian is compressed.  [all of a small store]",
)
@click.option("--all", "every", is_flag=True, help="Look at every patch, however long it takes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="Of what is printed."
)
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    help="Also write one HTML file with the figures, plots and a browser of patches; it opens offline.",
)
@click.option(
    "--html-patches",
    type=click.IntRange(1, 500),
    default=12,
    show_default=True,
    help="Patches in that file; with more, each is made smaller, so that the file stays below 15 MB.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(
    stores: tuple[str, ...],
    *,
    sample: int | None,
    every: bool,
    seed: int,
    form: str,
    html: Path | None,
    html_patches: int,
    as_json: bool,
) -> None:
    """Count what a store holds, and what the format saves.

    The comparison is a data set of the same patches with their Gaussian at full resolution, in the image's dtype,
    float16 and float32, raw and really compressed as the images are. A total from a sample has its 95 % interval.
    """
    from keypatch.audit.stats import stats

    if as_json and form not in ("text", "json"):
        raise UsageError.at("--json", expected="one format", found=f"also --format {form}")
    if html is not None:
        _check_page(html, stores)
    results = [stats(store, sample=sample, seed=seed, every=every) for store in stores]
    if html is not None:
        from keypatch.audit.page.document import write_page

        write_page(results[0], html, html_patches, seed)
        printing.note(f"keypatch: wrote {html}")
    if as_json or form == "json":
        printing.as_json([result.to_json() for result in results])
    elif form == "markdown":
        click.echo("\n\n".join(map(_as_markdown, results)))
    else:
        click.echo("\n\n\n".join(map(_as_text, results)))


def _check_page(html: Path, stores: Sequence[str]) -> None:
    from keypatch.audit.page.document import check_page_target

    if len(stores) > 1:
        raise UsageError.at("--html", expected="one store", found=str(len(stores)), hint="write a file for each")
    check_page_target(html, Path(stores[0]))


def _as_text(result: StoreStats) -> str:
    from keypatch.audit.report import overview, report

    pairs = [(label, tables.printable(text)) for label, text in overview(result)]
    return "\n\n".join([printing.rows(pairs), *map(tables.as_text, report(result))])


def _as_markdown(result: StoreStats) -> str:
    from keypatch.audit.report import overview, report

    listed: Sequence[str] = [f"- {label}: {tables.escaped(text)}" for label, text in overview(result)[1:]]
    head = f"# {tables.escaped(Path(result.path).name)}"
    return "\n\n".join([head, "\n".join(listed), *map(tables.as_markdown, report(result))])
