"""``keypatch inspect``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click
from click.core import ParameterSource

from keypatch.cli import inspect_text, printing
from keypatch.cli.sections import Sectioned
from keypatch.cli.source_flags import ANNOTATION_FLAGS, VOLUME_FLAGS, source_flags
from keypatch.errors import FormatError, ReadError, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keypatch.audit.inspect import AnnotationsDescription, VolumeDescription
    from keypatch.audit.view import Slicing
    from keypatch.formats.store import Store


class _Sectioned(Sectioned):
    sections: ClassVar = {
        "Of a store": ("tree", "attributes", "patch", "annotation", "volume", "kind", "class_", "fold"),
        "Pictures of a store": ("png", "count", "seed", "slicing", "gaussian", "picture", "augment"),
        "Of a volume": VOLUME_FLAGS,
        "Of annotations": ANNOTATION_FLAGS,
        "Output": ("as_json", "help"),
    }  # fmt: skip


_EPILOG = (
    "A picture in the terminal: by the protocol of kitty, iTerm2 or sixel where its variables name such a terminal, "
    "else in half blocks where COLORTERM says 24 bits. KEYPATCH_PICTURE=kitty, iterm2, sixel, blocks or none decides "
    "instead. Exit codes: 0 fine, 2 wrong usage, 3 cannot be read."
)


@click.command(cls=_Sectioned, epilog=_EPILOG)
@click.argument("path", metavar="STORE|VOLUME|ANNOTATIONS")
@click.option("--tree", is_flag=True, help="Every group and array, what it holds and takes on the disk.")
@click.option("--attributes", is_flag=True, help="The attributes as they lie in the store, as JSON.")
@click.option("--patch", type=int, metavar="I", help="This patch and where it came from; negative counts from the end.")
@click.option("--volume", multiple=True, metavar="ID", help="This volume and what came of it; or only its patches.")
@click.option("--annotation", metavar="ROW", help="Where an annotation ended up: its row, or FILE:ROW of a source.")
@click.option("--kind", multiple=True, help="Only patches of this kind: centered, multi, …; repeatable.")
@click.option("--class", "class_", multiple=True, metavar="NAME", help="Only patches with a keypoint of this class.")
@click.option("--fold", multiple=True, type=int, metavar="K", help="Only patches of this fold; repeatable.")
@click.option("--count", type=click.IntRange(1), default=20, help="Patches of a sheet, drawn if there are more.  [20]")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of that draw.  [0]")
@click.option("--png", type=click.Path(path_type=Path), help="Draw the patch, or a sheet of patches, into this file.")
@click.option(
    "--slice",
    "slicing",
    type=click.Choice(["keypoint", "middle", "max", "min"]),
    default="keypoint",
    help="Through the most central keypoint, through the middle, or a projection.  [keypoint]",
)
@click.option("--gaussian/--no-gaussian", default=True, help="Lay the Gaussian over pictures.  [yes]")
@click.option(
    "--picture/--no-picture",
    default=None,
    help="Show it in the terminal too; NO_COLOR forbids it.  [a patch, where the terminal is known to]",
)
@click.option(
    "--augment",
    type=click.Path(path_type=Path),
    metavar="RECIPE",
    help="Draw patches as they are and as four epochs of training would see them, by this TOML or JSON file.",
)
@source_flags
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    path: str,
    *,
    tree: bool,
    attributes: bool,
    patch: int | None,
    volume: tuple[str, ...],
    annotation: str | None,
    kind: tuple[str, ...],
    class_: tuple[str, ...],
    fold: tuple[int, ...],
    count: int,
    seed: int,
    png: Path | None,
    slicing: Slicing,
    gaussian: bool,
    picture: bool | None,
    augment: Path | None,
    as_json: bool,
    **reading: object,
) -> None:
    """Show a store, a part of it, a volume or an annotation file: what was read, and what was assumed.

    \b
      keypatch inspect out.zarr
      keypatch inspect out.zarr --patch 7 --png patch.png
      keypatch inspect out.zarr --annotation picks.csv:12
      keypatch inspect out.zarr --kind centered --fold 0 --png sheet.png
      keypatch inspect out.zarr --patch 7 --augment augment.toml --png drawn.png
      keypatch inspect tomogram.mrc
      keypatch inspect particles.star
    """  # noqa: D301
    store = None if reading["volume_format"] or reading["format"] else _store(path)
    if store is not None:
        if of_a_source := _given(ctx, "Of a volume", "Of annotations"):
            belong = f"a volume or annotations, to which {', '.join(of_a_source)} belong"
            raise UsageError.at(path, expected=belong, found="a store")
        from keypatch.audit.selection import Selection
        from keypatch.cli.inspect_store import Asked, show

        show(
            store,
            Asked(
                tree=tree,
                attributes=attributes,
                patch=patch,
                annotation=annotation,
                selection=Selection(kind, class_, fold, volume),
                count=count,
                seed=seed,
                png=png,
                slicing=slicing,
                gaussian=gaussian,
                picture=picture,
                augment=augment,
                as_json=as_json,
            ),
        )
        return
    of_a_store = _given(ctx, "Of a store", "Pictures of a store")
    if of_a_store and not os.path.exists(path):  # noqa: PTH110 - that of Path may raise
        raise StoreError.at(path, expected="a store", found="nothing at this path")
    if of_a_store:
        raise UsageError.at(path, expected=f"a store, to which {', '.join(of_a_store)} belong", found="something else")
    description = _describe_source(path, reading)
    if as_json:
        printing.as_json(description.to_json())
    else:
        click.echo(inspect_text.source_text(description))


def _given(ctx: click.Context, *sections: str) -> list[str]:
    """Flags of these sections that were given."""
    names = {name for section in sections for name in _Sectioned.sections[section]}
    chosen = (param for param in ctx.command.params if param.name in names)
    return [
        param.opts[0] for param in chosen if ctx.get_parameter_source(str(param.name)) == ParameterSource.COMMANDLINE
    ]


def _store(path: str) -> Store | None:
    """The store at a path; None where something else lies there. A damaged store is an error, not something else."""
    from keypatch.formats.store import Store
    from keypatch.formats.store.arrays import read_json
    from keypatch.formats.store.building import unfinished
    from keypatch.formats.store.schema import ATTRIBUTE

    try:
        ours = ATTRIBUTE in read_json(Path(path) / "zarr.json").get("attributes", {})
    except (FileNotFoundError, NotADirectoryError):
        if Path(path).suffix == ".zip":
            return _zipped_store(path)
        ours = not Path(path).exists() and unfinished(Path(path)) is not None
    except OSError:
        ours = True  # whatever has this root: it cannot be read, and why is said below
    except (ValueError, AttributeError, TypeError):
        ours = False
    return Store(path) if ours else None


def _zipped_store(path: str) -> Store | None:
    from keypatch.formats.store import Store

    try:
        return Store(path)
    except StoreError:
        return None


def _describe_source(path: str, reading: Mapping[str, object]) -> VolumeDescription | AnnotationsDescription:
    """A volume if its content says so, else annotations; where it is neither, what both readers say."""
    from keypatch.audit.inspect import describe_annotations, describe_volume
    from keypatch.converters.recipe import Recipe
    from keypatch.formats.volumes import detect_format

    told = {name: value for name, value in reading.items() if value not in (None, ())}
    recipe = Recipe.from_mapping({"volumes": [path], "annotations": [path], **told})
    if recipe.format is not None:
        return describe_annotations(path, recipe.annotation_options)
    if recipe.volume_format is None:
        try:
            detect_format(Path(path), recipe.volume_options)
        except FormatError as no_volume:
            if Path(path).is_dir():
                raise
            try:
                return describe_annotations(path, recipe.annotation_options)
            except FormatError as error:
                if told.keys() & set(ANNOTATION_FLAGS) or "expected one of" not in str(error):
                    raise
                raise ReadError.at(
                    path,
                    expected="a store, a volume or an annotation file",
                    found="none that keypatch knows",
                    hint=f"name it with --volume-format or --format ({no_volume})",
                ) from error
    return describe_volume(path, recipe.volume_options)
