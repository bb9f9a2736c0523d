"""Tables of a report as text for a terminal and as Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from keypatch.cli import printing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keypatch.audit.report import Table

WIDTH: Final = 80
"""Columns that a text table takes at most: what every terminal and every mail shows."""

SHOWN: Final = 10
"""Rows of a listing on a terminal."""

SHOWN_MARKDOWN: Final = 100

_NARROWEST_LABEL: Final = 12
_WIDEST_CELL: Final = 22
_INDENT: Final = "  "
_GAP: Final = "  "


def as_text(table: Table) -> str:
    """Aligned columns of `WIDTH` at most: long labels are cut, and what still is too wide continues below."""
    shown = SHOWN if table.listing else len(table.rows)
    rows = [
        [printable(label), *(_cut(printable(cell), _WIDEST_CELL) for cell in others)]
        for label, *others in table.rows[:shown]
    ]
    lines = [table.title]
    for columns in _blocks(table.columns, rows):
        lines += _aligned([table.columns[k] for k in columns], [[row[k] for k in columns] for row in rows])
    lines += _more(table, shown)
    lines += [printing.wrapped(note, WIDTH, _INDENT) for note in table.notes]
    return "\n".join(lines)


def as_markdown(table: Table) -> str:
    """A heading, a pipe table, and the notes."""
    lines = [f"## {table.title}", "", _piped(table.columns), _piped(["---", *["---:"] * (len(table.columns) - 1)])]
    lines += [_piped(row) for row in table.rows[:SHOWN_MARKDOWN]]
    notes = [*(line.strip() for line in _more(table, SHOWN_MARKDOWN)), *table.notes]
    return "\n".join([*lines, *(f"\n{escaped(note)}" for note in notes)])


def printable(text: str) -> str:
    """The text without what would steer a terminal: names come out of files."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def escaped(text: str) -> str:
    """The text as Markdown shows it, with nothing in it that Markdown or HTML would act on."""
    # A backslash would not help against a pipe in a name in every reader of Markdown; its entity does.
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
    return re.sub(r"([\\`*_\[\]])", r"\\\1", text)


def _piped(cells: Iterable[str]) -> str:
    return f"| {' | '.join(escaped(cell.strip()) for cell in cells)} |"


def _more(table: Table, shown: int) -> list[str]:
    hidden = len(table.rows) - shown
    return [f"{_INDENT}… and {hidden} more (--json lists all)"] if hidden > 0 else []


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[int]]:
    """Numbers of the columns that fit beside the label, block by block; each begins with the label."""
    room = WIDTH - len(_INDENT) - _NARROWEST_LABEL
    blocks, used = [[0]], 0
    for k in range(1, len(columns)):
        needed = len(_GAP) + _width(columns[k], [row[k] for row in rows])
        if used + needed > room and len(blocks[-1]) > 1:
            blocks.append([0])
            used = 0
        blocks[-1].append(k)
        used += needed
    return blocks


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [_width(head, [row[k] for row in rows]) for k, head in enumerate(heads)]
    others = sum(widths[1:]) + len(_GAP) * (len(widths) - 1)
    widths[0] = max(1, min(widths[0], WIDTH - len(_INDENT) - others))
    return [_line(cells, widths) for cells in (heads, *rows)]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    label = _cut(cells[0], widths[0])
    figures = [f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return (_INDENT + _GAP.join([f"{label:<{widths[0]}}", *figures])).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _width(head: str, cells: Iterable[str]) -> int:
    return max(map(len, (head, *cells)))
