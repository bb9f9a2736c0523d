"""The figures of a page: tiles, and a card for each table with the plot that goes with it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from keypatch.audit.figures import duration, factor, plural, share, size
from keypatch.audit.page.plots import Bar, Segment, bars, histogram, legend
from keypatch.audit.report import STEPS, grouped, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from keypatch.audit.report import Table
    from keypatch.audit.stats import StoreStats

ROWS: Final = 200
"""Rows of a table on the page."""

OPEN_ROWS: Final = 8
"""Rows of a table that is shown without being asked for, where a plot says the same."""

HISTOGRAMS: Final = 24
"""Volumes whose voxels are drawn."""

BARS: Final = 24
"""Bars of a plot."""


def tiles(result: StoreStats) -> str:
    """The few figures that come first."""
    inside = sum(counts.inside for counts in result.classes.values())
    n_volumes = sum(n > 0 for n in result.patches_by_volume.values())
    full = min(
        (entry for entry in result.full_gaussian if entry.dtype == "float32"),
        key=lambda entry: entry.ratio_on_disk.value,
    )
    figures = [
        ("patches", str(result.patches), f"of {plural(n_volumes, 'volume')}"),
        ("keypoints", str(inside), f"inside their patch, of {result.annotations} annotations"),
        ("in no patch", str(len(result.uncovered)), "annotations"),
        ("on disk", size(result.on_disk), f"{size(result.raw)} raw"),
        ("saves raw", factor(full.ratio_raw), "against a float32 Gaussian at full resolution"),
        ("saves on disk", factor(full.ratio_on_disk.value), "against the same, both compressed"),
    ]
    items = "".join(
        f"<li><span>{escape(name)}</span><strong>{escape(figure)}</strong><small>{escape(more)}</small></li>"
        for name, figure, more in figures
    )
    return f'<ul class="tiles">{items}</ul>'


def cards(result: StoreStats) -> str:
    """Every table of the report with its plot, those that take the whole width last."""
    ordered = sorted(report(result), key=lambda table: table.key in _WIDE)
    return "".join(_card(table, result) for table in ordered)


def _card(table: Table, result: StoreStats) -> str:
    draw = _PLOTS.get(table.key)
    plot = draw(result) if draw else ""
    body = _table(table)
    label = escape(table.title, quote=True)
    if plot and (len(table.rows) > OPEN_ROWS or table.key in _PLOT_ALONE):
        body = f'<details><summary aria-label="Figures: {label}">Figures</summary>{body}</details>'
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    style = f"card {table.key}" + (" wide" if table.key in _WIDE else "")
    return f'<section class="{style}"><h3>{escape(table.title)}</h3>{plot}{body}{notes}</section>'


def _table(table: Table) -> str:
    # A soft hyphen, where the longest head may break on a phone.
    heads = "".join(f'<th scope="col">{escape(_HYPHENATED.get(name, name))}</th>' for name in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(label.strip())}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for label, *cells in table.rows[:ROWS]
    )
    hidden = len(table.rows) - ROWS
    more = f"<p>… and {hidden} more; keypatch stats --json lists all.</p>" if hidden > 0 else ""
    label = escape(table.title, quote=True)
    scroll = f'<div class="scroll" tabindex="0" role="group" aria-label="{label}, table">'
    return f"{scroll}<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{more}"


def _plot_bytes(result: StoreStats) -> str:
    rows = [
        Bar(part.name, size(part.on_disk), [Segment(part.on_disk, "a", f"{size(part.on_disk)} on disk")])
        for part in result.parts
    ]
    return bars(rows, "bytes on disk of each part of the store")


def _plot_against(result: StoreStats) -> str:
    image = next(part for part in result.parts if part.name == "image").on_disk
    rest = result.on_disk - image
    rows = [
        Bar(
            "this store",
            size(result.on_disk),
            [Segment(image, "a", f"image, {size(image)}"), Segment(rest, "b", f"all else, {size(rest)}")],
        )
    ]
    rows += [
        Bar(
            f"image + {full.dtype}, {full.codec.removesuffix(', crc32c')}",
            f"{size(image + full.compressed.value)}, {factor(full.ratio_on_disk.value)}",
            [
                Segment(image, "a", f"image, {size(image)}"),
                Segment(full.compressed.value, "b", f"Gaussian, {size(full.compressed.value)}"),
            ],
        )
        for full in result.full_gaussian
    ]
    return bars(rows, "bytes on disk, this store against others") + legend([("a", "image"), ("b", "target")])


def _plot_steps(result: StoreStats) -> str:
    rows = [
        Bar(
            STEPS[step.name],
            size(step.total),
            [
                Segment(step.image, "a", f"images, {size(step.image)}"),
                Segment(step.target, "b", f"targets, {size(step.target)}"),
                Segment(step.rest, "c", f"tables, {size(step.rest)}"),
            ],
        )
        for step in result.savings.steps
    ]
    return bars(rows, "bytes after each step") + legend([("a", "images"), ("b", "targets"), ("c", "tables")])


def _plot_memory(result: StoreStats) -> str:
    memory = result.memory
    ours = memory.gaussian + memory.keypoints
    targets = [("coarse grid, with keypoints", ours), *((f"full, {k}", n) for k, n in memory.full_gaussian.items())]
    rows = [
        Bar(
            name,
            size(memory.image + n),
            [Segment(memory.image, "a", f"image, {size(memory.image)}"), Segment(n, "b", f"target, {size(n)}")],
        )
        for name, n in targets
    ]
    return bars(rows, "bytes of one patch in memory") + legend([("a", "image"), ("b", "target")])


def _plot_timing(result: StoreStats) -> str:
    timing = result.timing
    times = [("render the Gaussian", timing.render_gaussian, "b")]
    if timing.read_gaussian is not None:
        times.append(("read the stored Gaussian", timing.read_gaussian, "b"))
    times.append(("read the image", timing.read_image, "a"))
    rows = [Bar(name, duration(t), [Segment(t, style, duration(t))]) for name, t, style in times]
    return bars(rows, "median time for one patch")


def _plot_classes(result: StoreStats) -> str:
    rows = [
        Bar(
            name,
            f"{c.annotations - c.in_no_patch} of {c.annotations} in a patch",
            [
                Segment(c.annotations - c.in_no_patch, "a", f"{c.annotations - c.in_no_patch} in a patch"),
                Segment(c.in_no_patch, "d", f"{c.in_no_patch} in no patch"),
            ],
        )
        for name, c in list(result.classes.items())[:BARS]
    ]
    return bars(rows, "annotations of each class") + legend([("a", "in a patch"), ("d", "in no patch")])


def _plot_per_patch(result: StoreStats) -> str:
    rows = [
        Bar(
            f"{label} keypoint{'' if label == '1' else 's'}",
            str(patches),
            [Segment(patches, "a", share(patches / result.patches))],
        )
        for label, patches in grouped(result.keypoints_per_patch).items()
    ]
    return bars(rows, "patches by the keypoints inside")


def _plot_balance(result: StoreStats) -> str:
    styles = dict(zip(result.patches_by_kind, "abcde", strict=False))
    shown = [kind for kind, n in result.patches_by_kind.items() if n]
    rows = [
        Bar(
            f"fold {fold}, {plural(counts.volumes, 'volume')}",
            plural(counts.patches, "patch", "patches"),
            [Segment(counts.kinds[kind], styles[kind], f"{counts.kinds[kind]} {kind}") for kind in shown],
        )
        for fold, counts in list(result.folds.items())[:BARS]
    ]
    return bars(rows, "patches of each fold by kind") + legend([(styles[kind], kind) for kind in shown])


def _plot_borders(result: StoreStats) -> str:
    borders = result.borders
    return histogram(borders.counts, borders.edges, "keypoints by their distance to the border", "voxels")


def _plot_overlap(result: StoreStats) -> str:
    shown = [v for v in result.overlap if v.patches][:BARS]
    rows = [
        Bar(
            v.volume,
            f"{share(v.covered_share)} covered",
            [
                Segment(v.covered_share - v.covered_share * v.shared_share, "a", "in one patch"),
                Segment(v.covered_share * v.shared_share, "b", "in several patches"),
                Segment(1 - v.covered_share, "none", "in no patch"),
            ],
        )
        for v in shown
    ]
    return bars(rows, "share of each volume in patches") + legend([("a", "in one patch"), ("b", "in several")])


def _plot_intensity(result: StoreStats) -> str:
    shown = [volume for volume in result.intensity if volume.counts][:HISTOGRAMS]
    figures = "".join(
        f"<figure><figcaption>{escape(v.volume)}</figcaption>"
        f"{histogram(v.counts, v.edges, f'stored values of {v.volume}')}</figure>"
        for v in shown
    )
    hidden = len(result.intensity) - len(shown)
    more = f"<p>{hidden} more volumes are in the figures.</p>" if hidden else ""
    return f'<div class="small-multiples">{figures}</div>{more}'


_HYPHENATED: Final = {"annotations": "annota\xadtions"}

_WIDE: Final = {"uncovered", "intensity"}
"""Tables that need the whole width."""

_PLOTS: Final[dict[str, Callable[[StoreStats], str]]] = {
    "bytes": _plot_bytes,
    "against": _plot_against,
    "steps": _plot_steps,
    "memory": _plot_memory,
    "timing": _plot_timing,
    "classes": _plot_classes,
    "per_patch": _plot_per_patch,
    "balance": _plot_balance,
    "borders": _plot_borders,
    "overlap": _plot_overlap,
    "intensity": _plot_intensity,
}

_PLOT_ALONE: Final = {"bytes", "against", "steps", "memory", "timing", "per_patch", "overlap", "intensity", "balance"}
"""Tables that say what their plot says already; they open on demand."""
