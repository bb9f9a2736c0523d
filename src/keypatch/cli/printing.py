"""How numbers, tables and omissions look on a terminal; shared by the commands."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import click

from keypatch.audit.figures import plural as plural  # noqa: PLC0414 - handed on
from keypatch.audit.figures import size as size  # noqa: PLC0414 - handed on

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ITEMS_SHOWN = 5

_SINGULAR = {"volumes": "volume", "annotations": "annotation", "patches": "patch"}


def shape(values: Iterable[int]) -> str:
    """``160×288×288``."""
    return "×".join(str(n) for n in values)


def counted(counts: Mapping[str, int]) -> str:
    """``3 centered, 2 grid``."""
    return ", ".join(f"{n} {name}" for name, n in counts.items()) or "none"


def rows(pairs: Iterable[tuple[str, str]], indent: str = "") -> str:
    """Label and text in two columns, long texts wrapped under their column."""
    listed = list(pairs)
    width = max((len(label) for label, _ in listed), default=0)
    columns = max(shutil.get_terminal_size((100, 24)).columns, 60)
    hanging = indent + " " * (width + 2)
    lines = []
    for label, text in listed:
        parts = text.splitlines() or [""]
        for i, part in enumerate(parts):
            first = f"{indent}{label:<{width}}  " if i == 0 else hanging
            lines.append(
                textwrap.fill(
                    part,
                    columns,
                    initial_indent=first,
                    subsequent_indent=hanging,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                or first.rstrip()
            )
    return "\n".join(line.rstrip() for line in lines)


def wrapped(text: str, width: int, indent: str = "") -> str:
    """A paragraph of lines of this width."""
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def omissions(left_out: Sequence[Mapping[str, Any]]) -> str:
    """What was left out, with its reason and the first few items."""
    lines = []
    for entry in left_out:
        what = entry["what"] if entry["count"] != 1 else _SINGULAR.get(entry["what"], entry["what"])
        lines.append(f"  {entry['count']} {what}: {entry['reason']}")
        items = list(entry["items"])
        lines += [f"    {item}" for item in items[:ITEMS_SHOWN]]
        if len(items) > ITEMS_SHOWN:
            lines.append(f"    … and {len(items) - ITEMS_SHOWN} more (--json lists all)")
    return "\n".join(lines)


def json_text(value: Any) -> str:  # noqa: ANN401 - anything that JSON holds
    """JSON for a person and a program."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)


def as_json(value: Any) -> None:  # noqa: ANN401 - anything that JSON holds
    """Print JSON alone on stdout."""
    click.echo(json_text(value))


def note(text: str) -> None:
    """Say something that is no result, on stderr."""
    click.echo(text, err=True)


def on_terminal() -> bool:
    """Whether stderr is a terminal, where a progress bar may be drawn."""
    return sys.stderr.isatty()
