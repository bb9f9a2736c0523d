"""``keypatch repair``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keypatch.audit.figures import span
from keypatch.cli import printing
from keypatch.cli.progress import Bar
from keypatch.errors import EXIT_FINDINGS
from keypatch.formats.store.schema import IMAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keypatch.audit.repair import RepairReport, ShardRepair

SHOWN = 20
"""Shards or strays that are listed one by one."""


@click.command(epilog="Exit codes: 0 repaired, or nothing to do; 1 something remains; 3 not a store, or no permission.")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--source", type=click.Path(path_type=Path), help="Folder that all volumes share: images are cut again.")
@click.option("--gaussians", is_flag=True, help="Look at the Gaussians alone; they need no source.")
@click.option("--remove-stray", is_flag=True, help="Take away what is no part of the store; else it is only listed.")
@click.option("--dry-run", is_flag=True, help="Say what is damaged; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    store: Path, *, source: Path | None, gaussians: bool, remove_stray: bool, dry_run: bool, as_json: bool
) -> None:
    """Make the damaged and missing shards of a store again, and nothing else.

    Images are cut again from the volumes, Gaussians rendered again from the stored keypoints. A shard is put in place,
    by one rename, only if it comes out with the very sha256 that was recorded when the store was built. So a source
    that changed cannot harm a store, and neither can a repair that is killed.

    \b
      keypatch repair out.zarr --dry-run
      keypatch repair out.zarr --source tomograms/
      keypatch repair out.zarr --gaussians
    """  # noqa: D301
    from keypatch.audit.repair import repair

    with Bar() as bar:
        report = repair(
            store, source, gaussians_only=gaussians, remove_stray=remove_stray, dry_run=dry_run, progress=bar
        )
    if as_json:
        printing.as_json(report.to_json())
    else:
        click.echo(_as_text(report))
    if not report.passed:
        raise click.exceptions.Exit(EXIT_FINDINGS)


def _as_text(report: RepairReport) -> str:
    lines = [f"{report.path}: {_verdict(report)}"]
    lines += _listed("repaired", [_shard(shard) for shard in report.repaired])
    lines += _listed("damaged" if report.dry_run else "remains", [_shard(shard) for shard in report.remaining])
    lines += _listed("removed", report.removed)
    lines += _listed("stray", report.strays, hint="no part of the store; --remove-stray takes it away")
    if report.metadata:
        lines += [f"  {finding}" for finding in report.metadata]
        lines.append(
            "  Metadata and tables cannot be made again from the sources alone: restore these files from a copy of "
            "the store, or build it again."
        )
    if report.rebuild:
        lines.append(f"  To build it again, put the real folders in: {report.rebuild}")
    looked_at = f"{printing.plural(report.shards_checked, 'shard')} of {' and '.join(report.arrays) or 'nothing'}"
    whole = IMAGE in report.arrays
    lines.append(
        f"  checked   {looked_at}, {printing.size(report.bytes_hashed)}{'' if whole else '; images not looked at'}"
    )
    if whole and report.passed and report.digest == report.original_digest:
        lines.append(f"  digest    {report.digest}, as it was built")
    return "\n".join(lines)


def _verdict(report: RepairReport) -> str:
    shards, remaining = len(report.shards), len(report.remaining)
    if report.metadata:
        return "CANNOT BE REPAIRED, its metadata or tables are damaged"
    if report.dry_run and shards:
        return f"{printing.plural(shards, 'shard')} of it damaged"
    if remaining:
        return f"NOT REPAIRED, {remaining} of {printing.plural(shards, 'damaged shard')} left"
    if shards:
        return f"repaired, {printing.plural(shards, 'shard')}"
    return "no shard is damaged"


def _shard(shard: ShardRepair) -> str:
    why = f"; {shard.reason}" if shard.reason else ""
    return f"{shard.file} ({span(shard.first_patch, shard.last_patch)}): {shard.fault}{why}"


def _listed(label: str, entries: Sequence[str], hint: str = "") -> list[str]:
    lines = [f"  {label:<9} {entry}" for entry in entries[:SHOWN]]
    if len(entries) > SHOWN:
        lines.append(f"  {'':<9} … and {len(entries) - SHOWN} more (--json lists all)")
    if entries and hint:
        lines.append(f"  {'':<9} {hint}")
    return lines
