"""The flags that say how sources are read, the same for every command that reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def option(*names: str, **attributes: Any) -> Decorator:  # noqa: ANN401
    """A flag whose absence is told from every value, so that a recipe file's value stays."""
    return click.option(*names, default=None, **attributes)


def switch(*names: str, **attributes: Any) -> Decorator:  # noqa: ANN401
    """The same without a value."""
    return click.option(*names, is_flag=True, default=None, **attributes)


_OF_VOLUMES = (
    option("--volume-format", metavar="NAME", help="Format of the volumes, if content shall not decide."),
    option("--array", metavar="PATH", help="Array inside a container of several."),
    option("--level-spacing", metavar="Å", help="Of a pyramid, the level nearest to this."),
    switch("--unsigned", help="Read MRC mode 0 and bytes of EM as uint8."),
)
_OF_ANNOTATIONS = (
    option("--format", metavar="NAME", help="Format of the annotations, if content shall not decide."),
    option("--unit", metavar="UNIT", help="Of the coordinates: voxel, angstrom, nm, um, mm or fraction."),
    option("--axis-order", metavar="ORDER", help="What the source's three values are, such as zyx."),
    option(
        "--zero",
        metavar="WHERE",
        help="voxel-center, corner, corner-xy, volume-center, volume-center-minus-1 or world.",
    ),
    option("--index-base", metavar="0|1", help="What the source counts its first voxel as."),
    click.option("--columns", multiple=True, metavar="ROLE=NAME,…", help="A table's columns: z=NAME,y=NAME,x=NAME."),
    option("--delimiter", metavar="SIGN", help="Of a table: one character, tab or space.  [found out]"),
    click.option("--header/--no-header", default=None, help="Whether a table has a line of names.  [found out]"),
    option("--tomograms", metavar="FILE", help="A RELION tomograms.star, or a .vll or table of tomogram numbers."),
)

VOLUME_FLAGS = ("volume_format", "array", "level_spacing", "unsigned")
"""Names of the parameters, as of the next."""

ANNOTATION_FLAGS = ("format", "unit", "axis_order", "zero", "index_base", "columns", "delimiter", "header", "tomograms")


def source_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all of them."""
    for decorate in reversed((*_OF_VOLUMES, *_OF_ANNOTATIONS)):
        command = decorate(command)
    return command
