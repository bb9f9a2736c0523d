"""``keypatch stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keypatch.cli import printing

if TYPE_CHECKING:
    from keypatch.audit.savings import Estimate, FullGaussian
    from keypatch.audit.stats import StoreStats


@click.command()
@click.argument("stores", nargs=-1, required=True, metavar="STORE...")
@click.option(
    "--sample",
    type=click.IntRange(2),
    help="Patches whose full-resolution Gaussian is compressed.  [all of a small store, else 16]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(stores: tuple[str, ...], *, sample: int | None, seed: int, as_json: bool) -> None:
    """Count what a store holds, and what the format saves.

    The comparison is a data set of the same patches with their Gaussian at full resolution, in the image's dtype,
    float16 and float32, raw and really compressed as the images are. A total from a sample has its 95 % interval.
    """
    from keypatch.audit.stats import stats

    results = [stats(store, sample=sample, seed=seed) for store in stores]
    if as_json:
        printing.as_json([result.to_json() for result in results])
        return
    click.echo("\n\n".join(map(_as_text, results)))


def _as_text(result: StoreStats) -> str:
    classes = result.classes.items()
    pairs = [
        ("store", result.path),
        ("patches", f"{result.patches} ({printing.counted({k: n for k, n in result.patches_by_kind.items() if n})})"),
    ]
    if result.patches_by_fold:
        pairs.append(("by fold", printing.counted({f"in {fold}": n for fold, n in result.patches_by_fold.items()})))
    pairs.append(
        ("keypoints", "; ".join(f"{c.inside} {name} inside their patch, {c.outside} beyond" for name, c in classes))
    )
    pairs.append(
        ("annotations", "; ".join(f"{c.annotations} {name}, {c.in_no_patch} in no patch" for name, c in classes))
    )
    per_patch = {f"with {n}": count for n, count in result.keypoints_per_patch.items()}
    pairs.append(("per patch", f"{printing.counted(per_patch)} keypoints inside"))
    return "\n".join(
        [printing.rows(pairs), "", *_size_lines(result), "", *_full_lines(result), "", *_cause_lines(result)]
    )


def _size_lines(result: StoreStats) -> list[str]:
    lines = [f"{'bytes':<14}{'raw':>10}{'on disk':>10}{'ratio':>8}"]
    for part in (*result.parts, None):
        name, raw, on_disk = (
            ("together", result.raw, result.on_disk) if part is None else (part.name, part.raw, part.on_disk)
        )
        ratio = f"{raw / on_disk:7.2f}x" if raw and on_disk else f"{'':>8}"
        lines.append(f"  {name:<12}{printing.size(raw):>10}{printing.size(on_disk):>10}{ratio}".rstrip())
    return lines


def _full_lines(result: StoreStats) -> list[str]:
    lines = [
        "against image + full-resolution Gaussian of the same patches",
        f"  {'Gaussian':<34}{'raw':>10}{'compressed':>12}   {'whole, raw':>10}   whole, on disk",
    ]
    for full in result.full_gaussian:
        label = f"{full.dtype} ({full.codec})"
        lines.append(
            f"  {label:<34}{printing.size(full.raw):>10}{printing.size(full.compressed.value):>12}"
            f"   {full.ratio_raw:9.2f}x   {_factor(full.ratio_on_disk)}"
        )
    sampled = _sampled(result.full_gaussian)
    return [*lines, sampled] if sampled else lines


def _factor(estimate: Estimate) -> str:
    interval = "" if estimate.exact else f" ({estimate.low:.2f} … {estimate.high:.2f})"
    return f"{estimate.value:.2f}x{interval}"


def _sampled(full: tuple[FullGaussian, ...]) -> str:
    estimate = full[0].compressed if full else None
    if estimate is None:
        return ""
    if estimate.exact:
        return f"  compressed: all {estimate.n_patches} patches"
    return f"  compressed: {estimate.n_sampled} of {estimate.n_patches} patches, with the 95 % interval of the whole"


def _cause_lines(result: StoreStats) -> list[str]:
    savings, memory = result.savings, result.memory
    gaussian = "none stored" if savings.gaussian_codec is None else f"{savings.gaussian_codec:.2f}x"
    full = ", ".join(f"{printing.size(n)} as {dtype}" for dtype, n in memory.full_gaussian.items())
    loaded = f"image {printing.size(memory.image)}, Gaussian {printing.size(memory.gaussian)}"
    pairs = [
        ("dtype", f"{savings.dtype:.2f}x (the sources' dtype against the stored one)"),
        ("codec", f"{savings.image_codec:.2f}x on the images; on the Gaussians: {gaussian}"),
        ("coarse grid", f"{savings.gaussian_grid}x fewer values in the Gaussian"),
        ("in memory", f"{loaded}, keypoints {printing.size(memory.keypoints)} a patch; a full Gaussian is {full}"),
    ]
    return ["where it comes from", printing.rows(pairs, indent="  ")]
