"""``keypatch peaks``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keypatch.cli import printing, whole_file

if TYPE_CHECKING:
    import pandas as pd

    from keypatch.detections import Search
    from keypatch.export import Exported
    from keypatch.formats.store import Store

FORMATS = ("csv", "byu", "copick", "relion5", "relion4")


@click.command(epilog="Exit codes: 0 written; 2 the heatmaps do not fit the store; 3 cannot read or write.")
@click.argument("heatmaps", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="File to write; for copick a folder.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="csv", show_default=True, help="Of the file.")
@click.option("--threshold", type=float, default=0.3, show_default=True, help="Least height of a fitted Gaussian.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Write this class alone; may be repeated.")
@click.option("--sigma-ds", metavar="S|Z,Y,X", help="Sigma in voxels of the heatmap.  [the store's]")
@click.option("--fit-sigma", is_flag=True, help="Fit sigma at each peak, where the network's is not known.")
@click.option("--merge-angstrom", type=float, metavar="Å", help="Peaks at most so far apart are one.  [one sigma]")
@click.option("--merge-voxels", type=float, metavar="N", help="The same in voxels of the volume.")
@click.option(
    "--agreement",
    type=float,
    default=0.3,
    show_default=True,
    help="Least share of the overlapping patches, by how much they hold of the place, that must show it.",
)
@click.option(
    "--pixel-size", type=float, metavar="Å", help="Of the unbinned tilt series, for relion4.  [voxel spacing]"
)
@click.option("--user", default="keypatch", show_default=True, help="User id of copick picks.")
@click.option("--session", default="1", show_default=True, help="Session id of copick picks.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(
    heatmaps: Path,
    store: Path,
    *,
    out: Path,
    form: str,
    threshold: float,
    classes: tuple[str, ...],
    sigma_ds: str | None,
    fit_sigma: bool,
    merge_angstrom: float | None,
    merge_voxels: float | None,
    agreement: float,
    pixel_size: float | None,
    user: str,
    session: str,
    as_json: bool,
) -> None:
    """Turn predicted heatmaps into points in the volumes, and write them as a file that others read.

    HEATMAPS is a .npy file or a Zarr array of shape (N, C, d, h, w): one heatmap for each patch of STORE, in its order,
    a channel for each of its classes. Peaks are found to a fraction of a voxel, overlapping patches merged.

    \b
      keypatch peaks predicted.npy out.zarr -o picks.csv
      keypatch peaks predicted.npy out.zarr -o submission.csv --format byu --threshold 0.5
      keypatch peaks predicted.zarr out.zarr -o overlay/ --format copick
      keypatch peaks out.zarr/gaussian out.zarr -o back.csv          # the targets themselves, as a trial
    """  # noqa: D301
    from keypatch.detections import detect
    from keypatch.export import Options, export
    from keypatch.formats.store import Store
    from keypatch.heatmaps import open_heatmaps

    opened = Store(store)
    whole_file.check_outside(out, [store], "--out")
    search = _search(threshold, sigma_ds, fit_sigma, merge_angstrom, merge_voxels, agreement)
    detections = detect(opened, open_heatmaps(heatmaps), search)
    exported = export(detections, opened, out, form, Options(tuple(classes), pixel_size, user, session))
    summary = _summary(detections, opened, exported)
    if as_json:
        printing.as_json(summary)
    else:
        click.echo(_as_text(summary))
    printing.note(f"keypatch: wrote {out}")


def _search(
    threshold: float,
    sigma_ds: str | None,
    fit_sigma: bool,
    merge_angstrom: float | None,
    merge_voxels: float | None,
    agreement: float,
) -> Search:
    from keypatch.converters import settings
    from keypatch.detections import Search

    sigma = None if sigma_ds is None else settings.vector("--sigma-ds", sigma_ds)
    return Search(threshold, sigma, fit_sigma, merge_angstrom, merge_voxels, agreement)


def _summary(detections: pd.DataFrame, store: Store, exported: Exported) -> dict[str, Any]:
    counts = detections["class_name"].value_counts()
    return {
        "detections": len(detections),
        "by_class": {name: int(counts.get(name, 0)) for name in store.classes},
        "by_volume": {name: int((detections["volume"] == name).sum()) for name in store.volume_ids},
        "written": exported.rows,
        "files": [str(path) for path in exported.files],
        "notes": list(exported.notes),
    }


def _as_text(summary: dict[str, Any]) -> str:
    by_volume = summary["by_volume"]
    shown = sum(1 for n in by_volume.values() if n)
    pairs = [
        ("detections", str(summary["detections"])),
        ("classes", printing.counted(summary["by_class"])),
        ("volumes", f"{shown} of {len(by_volume)} with a detection"),
        ("written", f"{summary['written']} in {printing.plural(len(summary['files']), 'file')}"),
        *(("note", note) for note in summary["notes"]),
    ]
    return printing.rows(pairs)
