"""Plots as inline SVG: bars and histograms, in colours that the page's style gives by class.

Every plot is ``WIDTH`` units wide, the width of a phone, so that its text stays readable there and is never tiny.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from keypatch.audit.figures import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH: Final = 340

_BAR, _ROW, _LABEL = 12, 34, 13
_HEIGHT, _FOOT, _TOP = 96, 18, 6
_LETTER: Final = 6.2
"""Units that a letter of 11 units takes on average, generously."""


@dataclass(frozen=True)
class Segment:
    """A part of a bar.

    Attributes:
        value: Its length.
        style: Of the page: "a", "b", "c", … (see ``page.css``).
        title: What it is, for the pointer.
    """

    value: float
    style: str
    title: str


@dataclass(frozen=True)
class Bar:
    """A bar with its label above it, and a figure at the right end of the label's line."""

    label: str
    figure: str
    segments: Sequence[Segment]


def bars(rows: Sequence[Bar], name: str) -> str:
    """Horizontal bars on one scale that begins at 0.

    Args:
        rows: From top to bottom.
        name: What the plot shows, for those who cannot see it.
    """
    longest = max((sum(s.value for s in row.segments) for row in rows), default=0) or 1
    return _svg(len(rows) * _ROW, name, "".join(_bar(row, k * _ROW, longest) for k, row in enumerate(rows)))


def histogram(counts: Sequence[float], edges: Sequence[float], name: str, unit: str = "") -> str:
    """Columns that touch, over an axis with its two ends named.

    Args:
        counts: One a column.
        edges: Values at the columns' sides, evenly spaced; one more than there are counts.
        name: What the plot shows.
        unit: Of the edges.
    """
    if not counts:
        return ""
    top, width = max(counts) or 1, WIDTH / len(counts)
    columns = "".join(_column(k, n, top, width, edges, unit) for k, n in enumerate(counts) if n)
    base = _TOP + _HEIGHT
    axis = f'<line class="axis" x1="0" x2="{WIDTH}" y1="{base}" y2="{base}"/>'
    # Bins of integers begin half below one: the integers themselves are named.
    half = 0.5 if edges[0] % 1 == edges[-1] % 1 == 0.5 else 0.0
    first, last = number(edges[0] + half), number(edges[-1] - half)
    ends = _text(0, base + 13, first) + _text(WIDTH, base + 13, f"{last} {unit}", "end")
    return _svg(base + _FOOT, name, columns + axis + ends)


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names of the styles that a plot uses: style and text."""
    items = "".join(f'<li><span class="swatch {style}"></span>{escape(text)}</li>' for style, text in entries)
    return f'<ul class="legend">{items}</ul>'


def _svg(height: float, name: str, content: str) -> str:
    label = escape(name, quote=True)
    box = f"0 0 {WIDTH} {height:g}"
    return f'<svg class="plot" viewBox="{box}" role="img" aria-label="{label}">{content}</svg>'


def _bar(row: Bar, top: float, longest: float) -> str:
    room = int((WIDTH - len(row.figure) * _LETTER - 8) / _LETTER)
    label = row.label if len(row.label) <= room else row.label[: room - 1] + "…"
    text = _text(0, top + _LABEL - 2, label) + _text(WIDTH, top + _LABEL - 2, row.figure, "end")
    return text + "".join(_segments(row.segments, top + _LABEL + 3, longest))


def _segments(segments: Sequence[Segment], top: float, longest: float) -> Iterator[str]:
    yield f'<rect class="track" x="0" y="{top:g}" width="{WIDTH}" height="{_BAR}" rx="2"/>'
    left = 0.0
    for segment in segments:
        width = segment.value / longest * WIDTH
        # What is there but too small to see still gets a hairline.
        shown = max(width, 0.8) if segment.value else 0
        title = f"<title>{escape(segment.title)}</title>"
        box = f'x="{left:.2f}" y="{top:g}" width="{shown:.2f}" height="{_BAR}"'
        yield f'<rect class="fill {segment.style}" {box}>{title}</rect>'
        left += width


def _column(k: int, n: float, top: float, width: float, edges: Sequence[float], unit: str) -> str:
    height = max(n / top * _HEIGHT, 0.8)
    y = _TOP + _HEIGHT - height
    title = f"<title>{number(edges[k])} to {number(edges[k + 1])} {escape(unit)}: {n:g}</title>"
    box = f'x="{k * width:.2f}" y="{y:.2f}" width="{max(width - 0.6, 0.6):.2f}" height="{height:.2f}"'
    return f'<rect class="fill a" {box}>{title}</rect>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text.strip())}</text>'
