"""Help with options under headings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


class Sectioned(click.Command):
    """Shows its options under headings; one that has none comes under "Others"."""

    sections: ClassVar[Mapping[str, tuple[str, ...]]]
    """Heading to the names of its parameters."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them; click calls it."""
        # click 8.5 has another name for the parameter of --help, and a help record for arguments.
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        named = {"help" if "--help" in option.opts else option.name: option for option in options}
        records = {name: record for name, option in named.items() if (record := option.get_help_record(ctx))}
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([records.pop(name) for name in names if name in records])
        if records:
            with formatter.section("Others"):
                formatter.write_dl(list(records.values()))
