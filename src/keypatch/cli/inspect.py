"""``keypatch inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keypatch.cli import inspect_text, printing
from keypatch.errors import FormatError, ReadError, StoreError, UsageError, WriteError

if TYPE_CHECKING:
    from keypatch.audit.inspect import AnnotationsDescription, VolumeDescription
    from keypatch.formats.store import Store

SHEET_PATCHES = 20
"""Patches of a contact sheet, evenly over the store."""


@click.command()
@click.argument("path", metavar="STORE|VOLUME|ANNOTATIONS")
@click.option("--patch", type=int, help="Show this patch of a store; negative counts from the end.")
@click.option("--png", type=click.Path(path_type=Path), help="Draw the patch, or a sheet of the store, into this file.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--array", help="Array inside a container of several.")
@click.option("--unsigned", is_flag=True, help="Read MRC mode 0 and bytes of EM as uint8.")
@click.option("--volume-format", metavar="NAME", help="Read as a volume of this format.")
@click.option("--format", "annotation_format", metavar="NAME", help="Read as annotations of this format.")
@click.option("--columns", multiple=True, metavar="ROLE=NAME,…", help="A table's columns: z=NAME,y=NAME,x=NAME.")
@click.option("--axis-order", metavar="ORDER", help="What a table's three values are, such as zyx.")
def command(
    path: str,
    *,
    patch: int | None,
    png: Path | None,
    as_json: bool,
    array: str | None,
    unsigned: bool,
    volume_format: str | None,
    annotation_format: str | None,
    columns: tuple[str, ...],
    axis_order: str | None,
) -> None:
    """Show a store, one of its patches, a volume or an annotation file: what was read, and what was assumed.

    \b
      keypatch inspect out.zarr
      keypatch inspect out.zarr --patch 7 --png patch.png
      keypatch inspect tomogram.mrc
      keypatch inspect particles.star
    """  # noqa: D301
    store = None if volume_format or annotation_format else _store(path)
    if store is not None:
        _show_store(store, patch, png, as_json=as_json)
        return
    if patch is not None or png is not None:
        raise UsageError.at(path, expected="a store with --patch and --png", found="something else")
    description = _describe_source(path, array, unsigned, volume_format, annotation_format, columns, axis_order)
    if as_json:
        printing.as_json(description.to_json())
    else:
        click.echo(inspect_text.source_text(description))


def _store(path: str) -> Store | None:
    """The store at a path; None where something else lies there. A damaged store is an error, not something else."""
    from keypatch.formats.store import Store
    from keypatch.formats.store.schema import ATTRIBUTE

    root = Path(path) / "zarr.json"
    try:
        ours = ATTRIBUTE in json.loads(root.read_text(encoding="utf-8")).get("attributes", {})
    except (OSError, ValueError, AttributeError, TypeError):
        ours = Path(path).suffix == ".zip"
    if not ours:
        return None
    try:
        return Store(path)
    except StoreError:
        if Path(path).suffix == ".zip":
            return None
        raise


def _show_store(store: Store, index: int | None, png: Path | None, *, as_json: bool) -> None:
    from keypatch.audit.inspect import describe_patch, describe_store

    if index is not None and not -len(store) <= index < len(store):
        raise UsageError.at("--patch", expected=f"0 to {len(store) - 1}", found=str(index))
    if png is not None:
        _draw(store, index, png)
    if index is None:
        whole = describe_store(store.path)
        click.echo(printing.json_text(whole.to_json()) if as_json else inspect_text.store_text(whole))
    else:
        patch = describe_patch(store, index)
        click.echo(printing.json_text(patch.to_json()) if as_json else inspect_text.patch_text(patch))
    if png is not None:
        printing.note(f"keypatch: wrote {png}")


def _draw(store: Store, index: int | None, png: Path) -> None:
    from keypatch.audit.picture import contact_sheet, patch_picture

    if index is None:
        step = max(1, -(-len(store) // SHEET_PATCHES))
        picture = contact_sheet(store, range(0, len(store), step))
    else:
        stored = store.read_gaussian(index) if store.has_gaussian else None
        picture = patch_picture(store[index], stored, classes=store.classes, ds_factor=store.ds_factor)
    try:
        picture.save(png, format="PNG")
    except OSError as error:
        raise WriteError.at(png, expected="to write a picture there", found=error.strerror or str(error)) from error


def _describe_source(
    path: str,
    array: str | None,
    unsigned: bool,
    volume_format: str | None,
    annotation_format: str | None,
    columns: tuple[str, ...],
    axis_order: str | None,
) -> VolumeDescription | AnnotationsDescription:
    """A volume if its content says so, else annotations; where it is neither, what both readers say."""
    from keypatch.audit.inspect import describe_annotations, describe_volume
    from keypatch.converters import settings
    from keypatch.formats.annotations import AnnotationOptions
    from keypatch.formats.volumes import VolumeOptions, detect_format

    volume_options = VolumeOptions(format=volume_format, array=array, unsigned=unsigned)
    if annotation_format is None and volume_format is None:
        try:
            detect_format(Path(path), volume_options)
        except FormatError as no_volume:
            if Path(path).is_dir():
                raise
            options = AnnotationOptions(columns=settings.roles("--columns", columns), axis_order=axis_order)
            try:
                return describe_annotations(path, options)
            except FormatError as error:
                if columns or axis_order or "expected one of" not in str(error):
                    raise
                raise ReadError.at(
                    path,
                    expected="a store, a volume or an annotation file",
                    found="none that keypatch knows",
                    hint=f"name it with --volume-format or --format ({no_volume})",
                ) from error
    if annotation_format is not None:
        options = AnnotationOptions(
            format=annotation_format, columns=settings.roles("--columns", columns), axis_order=axis_order
        )
        return describe_annotations(path, options)
    return describe_volume(path, volume_options)
