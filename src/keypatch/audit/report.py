"""The figures of `stats` as tables of text, which the command line, Markdown and the page lay out each in its way."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keypatch.audit.figures import duration, factor, number, plural, share, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from keypatch.audit.intensity import VolumeIntensity
    from keypatch.audit.savings import Estimate
    from keypatch.audit.stats import StoreStats


@dataclass(frozen=True)
class Table:
    """A table whose first column is a label and whose other columns are figures.

    Attributes:
        key: Its name, fixed and the same for every store.
        title: What it shows.
        columns: Heads, one a column.
        rows: Cells, all of them; who prints may leave rows out but must say so.
        notes: Sentences below it.
        listing: Whether it has a row for each of things that may be many, of which a terminal shows the first.
    """

    key: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    listing: bool = False


STEPS = {
    "sources": "sources' voxels, full float32 Gaussian",
    "gaussian": "Gaussian on the coarse grid",
    "dtype": "the stored dtype",
    "codec": "the codec",
    "tables": "tables, keypoints and metadata added",
}
"""What each step of `Savings.steps` is called."""


def report(result: StoreStats) -> list[Table]:
    """All tables, in the order in which a person reads them; one without a row is left out."""
    makers = (
        _bytes,
        _against,
        _steps,
        _memory,
        _timing,
        _classes,
        _per_patch,
        _balance,
        _borders,
        _uncovered,
        _overlap,
        _intensity,
    )
    return [table for table in (make(result) for make in makers) if table.rows]


def overview(result: StoreStats) -> list[tuple[str, str]]:
    """What the store is, in a few words."""
    kinds = ", ".join(f"{n} {kind}" for kind, n in result.patches_by_kind.items() if n)
    inside = sum(counts.inside for counts in result.classes.values())
    return [
        ("store", result.path),
        ("digest", result.digest),
        ("patches", f"{result.patches} ({kinds})"),
        ("volumes", f"{sum(n > 0 for n in result.patches_by_volume.values())} with patches"),
        ("keypoints", f"{inside} inside their patch, {result.keypoints - inside} beyond that reach in"),
        ("annotations", f"{result.annotations}, {len(result.uncovered)} in no patch"),
        ("takes", f"{size(result.raw)} raw, {size(result.on_disk)} on disk"),
    ]


def _bytes(result: StoreStats) -> Table:
    rows = [
        (part.name, size(part.raw), size(part.on_disk), factor(part.raw / part.on_disk) if part.raw else "")
        for part in result.parts
    ]
    rows.append(("together", size(result.raw), size(result.on_disk), factor(result.raw / result.on_disk)))
    return Table("bytes", "Bytes", ("part", "raw", "on disk", "ratio"), rows)


def _against(result: StoreStats) -> Table:
    sampled = any(not full.compressed.exact for full in result.full_gaussian)
    columns = ["Gaussian stored as", "raw", "compressed", "whole, raw", "on disk", *(["95 %"] if sampled else [])]
    rows = [
        (
            f"{full.dtype}, {full.codec.removesuffix(', crc32c')}",
            size(full.raw),
            size(full.compressed.value),
            factor(full.ratio_raw),
            factor(full.ratio_on_disk.value),
            *([_interval(full.ratio_on_disk)] if sampled else []),
        )
        for full in result.full_gaussian
    ]
    looked_at = result.full_gaussian[0].compressed
    note = f"Really compressed, in chunks like the image's: {_of(looked_at.n_sampled, looked_at.n_patches)}."
    notes = [note, "Whole: image + that Gaussian against this store."]
    return Table("against", "Against image + full-resolution Gaussian of the same patches", tuple(columns), rows, notes)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.2f}-{estimate.high:.2f}"


def _of(n: int, of: int) -> str:
    return f"{'all ' if of > 1 else ''}{plural(of, 'patch', 'patches')}" if n == of else f"{n} of {of} patches"


def _steps(result: StoreStats) -> Table:
    steps = result.savings.steps
    befores = (None, *steps[:-1])
    rows = [
        (
            STEPS[step.name],
            size(step.image),
            size(step.target),
            size(step.total),
            "" if before is None else factor(before.total / step.total),
        )
        for before, step in zip(befores, steps, strict=True)
    ]
    savings = result.savings
    codec = f"The codec: {factor(savings.image_codec)} on the images"
    if savings.gaussian_codec is not None:
        codec += f", {factor(savings.gaussian_codec)} on the Gaussians"
    notes = [
        f"The coarse grid has {savings.gaussian_grid} times fewer values than the patch.",
        f"The dtype alone: {factor(savings.dtype)} on the images. {codec}.",
    ]
    return Table(
        "steps", "Where the saving comes from", ("after", "images", "targets", "together", "saves"), rows, notes
    )


def _memory(result: StoreStats) -> Table:
    memory = result.memory
    ours = memory.image + memory.gaussian + memory.keypoints
    rows = [("coarse grid, with keypoints", size(memory.gaussian + memory.keypoints), size(ours), "")]
    rows += [
        (f"full resolution, {dtype}", size(n), size(memory.image + n), factor((memory.image + n) / ours))
        for dtype, n in memory.full_gaussian.items()
    ]
    note = f"The image itself is {size(memory.image)}."
    return Table("memory", "One patch in memory", ("target", "target", "with image", "this / ours"), rows, [note])


def _timing(result: StoreStats) -> Table:
    timing = result.timing
    rows = [("render the Gaussian from the keypoints", duration(timing.render_gaussian))]
    if timing.read_gaussian is not None:
        rows.append(("read the stored Gaussian", duration(timing.read_gaussian)))
    rows.append(("read the image, for scale", duration(timing.read_image)))
    patches = plural(timing.patches, "patch", "patches")
    note = f"Medians of {timing.rounds} rounds over {patches}, measured on this machine, files in memory."
    return Table("timing", "Time for one patch, one thread", ("to", "median"), rows, [note])


def _classes(result: StoreStats) -> Table:
    rows = [
        (name, str(c.annotations), str(c.in_no_patch), str(c.inside), str(c.outside), str(c.patches))
        for name, c in result.classes.items()
    ]
    columns = ("class", "annotations", "in no patch", "inside", "beyond", "patches")
    notes = ["Inside or beyond the box of a patch; patches: with one inside, or more."]
    return Table("classes", "Keypoints by class", columns, rows, notes)


def _per_patch(result: StoreStats) -> Table:
    rows = [
        (label, str(patches), share(patches / result.patches))
        for label, patches in grouped(result.keypoints_per_patch).items()
    ]
    return Table("per_patch", "Keypoints inside a patch", ("keypoints", "patches", "share"), rows)


def grouped(counts: Mapping[int, int], most: int = 10) -> dict[str, int]:
    """Counts by number, as so many lines at most: 0 for itself, and the others in runs of one length.

    Args:
        counts: Number to how many have it.
        most: Lines.
    """
    if len(counts) <= most:
        return {str(k): n for k, n in sorted(counts.items())}
    length = -(-max(counts) // (most - 1))
    lines: dict[str, int] = {}
    for k, n in sorted(counts.items()):
        first = 0 if k == 0 else (k - 1) // length * length + 1
        label = str(first) if k == 0 or length == 1 else f"{first} to {first + length - 1}"
        lines[label] = lines.get(label, 0) + n
    return lines


def _balance(result: StoreStats) -> Table:
    folds = result.folds.values()
    kinds = [kind for kind, n in result.patches_by_kind.items() if n]
    rows: list[tuple[str, ...]] = []
    if folds:
        rows = [
            ("volumes", *(str(fold.volumes) for fold in folds)),
            ("patches", *(str(fold.patches) for fold in folds)),
            ("  without a keypoint", *(str(fold.empty) for fold in folds)),
        ]
        rows += [(f"  {kind}", *(str(fold.kinds[kind]) for fold in folds)) for kind in kinds]
        rows += [(f"keypoints: {name}", *(str(fold.keypoints[name]) for fold in folds)) for name in result.classes]
        rows += [(f"annotations: {name}", *(str(fold.annotations[name]) for fold in folds)) for name in result.classes]
    return Table("balance", "Balance of the folds", ("", *(f"fold {fold}" for fold in result.folds)), rows)


def _borders(result: StoreStats) -> Table:
    borders = result.borders
    names = {0.0: "nearest", 0.5: "median", 1.0: "farthest"}
    rows = [(names.get(q, f"{100 * q:.0f} %"), f"{voxels:.1f}") for q, voxels in borders.voxels.items()]
    notes = [f"Of {plural(borders.keypoints, 'keypoint')} inside their patch, along the nearest axis."]
    if borders.nearer_than:
        listed = ", ".join(f"{share(part)} within {near:g}" for near, part in borders.nearer_than.items())
        notes.append(f"In sigmas: {listed}.")
    return Table("borders", "Distance of keypoints to the patch's border", ("quantile", "voxels"), rows, notes)


def _uncovered(result: StoreStats) -> Table:
    rows = [
        (
            f"{lost.source} row {lost.source_row}",
            lost.volume,
            lost.class_name,
            " ".join(f"{c:.1f}" for c in lost.coords),
            "yes" if lost.in_reach else "no",
        )
        for lost in result.uncovered
    ]
    note = "In reach: some patch has it as a keypoint beyond its box."
    columns = ("annotation", "volume", "class", "z y x", "in reach")
    return Table("uncovered", "Annotations that lie in no patch", columns, rows, [note], listing=True)


def _overlap(result: StoreStats) -> Table:
    rows = [
        (v.volume, str(v.patches), str(v.pairs), share(v.covered_share), share(v.shared_share))
        for v in result.overlap
        if v.patches
    ]
    notes = ["Covered: of the volume's voxels, those in a patch. In several: of these, those in two or more."]
    columns = ("volume", "patches", "pairs", "covered", "in several")
    return Table("overlap", "Overlap of patches", columns, rows, notes, listing=True)


def _intensity(result: StoreStats) -> Table:
    rows = [_intensity_row(v) for v in result.intensity]
    n_read, n = sum(v.patches_read for v in result.intensity), sum(v.patches for v in result.intensity)
    notes = [
        f"From {_of(n_read, n)}, padding left out.",
        "At the ends: voxels at the lowest or highest value that can be stored.",
        "Clipped: of the source's voxels, as recorded when they were converted.",
    ]
    columns = ("volume", "read", "1 %", "median", "99 %", "at ends", "clipped", "0.1 to 99.9 %")
    return Table("intensity", "Stored voxels by volume", columns, rows, notes, listing=True)


def _intensity_row(volume: VolumeIntensity) -> tuple[str, ...]:
    return (
        volume.volume,
        f"{volume.patches_read}/{volume.patches}",
        *(number(volume.percentiles.get(p)) for p in (1.0, 50.0, 99.0)),
        "" if volume.at_ends is None else share(sum(volume.at_ends)),
        "" if volume.source_clipped is None else share(volume.source_clipped),
        sparkline(volume.counts, 12),
    )


def sparkline(counts: Sequence[int], width: int) -> str:
    """A histogram of one line's height: the counts summed into ``width`` columns of eight levels."""
    columns = list(_regrouped(counts, min(width, len(counts)))) if counts else []
    top = max(columns, default=0)
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(8 * n / top))] if top else "▁" for n in columns)


def _regrouped(counts: Sequence[int], groups: int) -> Iterator[float]:
    """Mean of each of so many runs of neighbours, whose lengths differ by one at most."""
    bounds = [k * len(counts) // groups for k in range(groups + 1)]
    return (sum(counts[a:b]) / (b - a) for a, b in itertools.pairwise(bounds))
