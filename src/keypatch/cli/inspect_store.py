"""``keypatch inspect`` of a store: what was asked for, printed and drawn."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keypatch.cli import inspect_text, printing, terminal_picture, whole_file
from keypatch.errors import UsageError, WriteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from keypatch.audit.selection import Selection
    from keypatch.audit.view import Slicing
    from keypatch.formats.store import Store


@dataclass(frozen=True)
class Asked:
    """The flags of the command; see its help."""

    tree: bool
    attributes: bool
    patch: int | None
    annotation: str | None
    selection: Selection
    count: int
    seed: int
    png: Path | None
    slicing: Slicing
    gaussian: bool
    picture: bool | None
    augment: Path | None
    as_json: bool


def show(store: Store, asked: Asked) -> None:
    """Print what was asked for, draw it into a file, and show it in the terminal."""
    _check(store, asked)
    if asked.tree:
        _show_tree(store, asked)
    elif asked.attributes:
        printing.as_json(store.attributes)
    elif asked.patch is not None:
        _show_patch(store, asked.patch, asked)
    elif asked.annotation is not None:
        _show_annotations(store, asked.annotation, asked)
    elif asked.selection:
        _show_selection(store, asked)
    else:
        _show_whole(store, asked)


def _check(store: Store, asked: Asked) -> None:
    """See that the flags go together."""
    single = {
        "--tree": asked.tree,
        "--attributes": asked.attributes,
        "--patch": asked.patch is not None,
        "--annotation": asked.annotation is not None,
        "a choice of patches": bool(asked.selection),
    }
    given = [name for name, is_given in single.items() if is_given]
    if len(given) > 1:
        raise UsageError.at(given[0], expected="to be the only one of its kind", found=f"{given[1]} too")
    drawn = asked.png is not None or asked.picture
    if drawn and (asked.tree or asked.attributes):
        raise UsageError.at(given[0], expected="no picture", found="--png or --picture")
    if asked.augment is not None and (asked.annotation is not None or not drawn):
        found = "--annotation" if drawn else "none"
        raise UsageError.at("--augment", expected="--png or --picture, of patches", found=found)
    if asked.png is not None:
        whole_file.check_place(asked.png, [store.path], "--png")
    if asked.patch is not None and not -len(store) <= asked.patch < len(store):
        raise UsageError.at("--patch", expected=f"0 to {len(store) - 1}", found=str(asked.patch))


def _show_tree(store: Store, asked: Asked) -> None:
    from keypatch.audit.jsonable import jsonable
    from keypatch.audit.tracing import describe_tree

    nodes = describe_tree(store)
    _print([jsonable(node) for node in nodes], inspect_text.tree_text(store.path, nodes), asked)


def _show_patch(store: Store, index: int, asked: Asked) -> None:
    from keypatch.audit.inspect import describe_patch
    from keypatch.audit.picture import patch_picture, small_picture

    whole, patch = store[index], describe_patch(store, index)
    _print(patch.to_json(), inspect_text.patch_text(patch), asked)
    if asked.augment is not None:
        _draw_augmented(store, [whole.index], asked)
        return
    target = _target(store, index) if asked.gaussian else None
    given: Any = {"ds_factor": store.ds_factor, "slicing": asked.slicing}
    how = _terminal(asked, unasked=True)
    if asked.png is not None:
        _save(patch_picture(whole, target, classes=store.classes, **given), asked.png)
    if how == "blocks":
        columns, rows = terminal_picture.room()
        _emit(small_picture(whole, target, size=(columns, 2 * rows), **given), how)
    elif how is not None:
        _emit(patch_picture(whole, target, classes=store.classes, **given), how)


def _show_annotations(store: Store, name: str, asked: Asked) -> None:
    from keypatch.audit.tracing import describe_annotation, find_annotations

    found = [describe_annotation(store, row) for row in find_annotations(store, name)]
    text = "\n".join(map(inspect_text.annotation_text, found))
    _print([annotation.to_json() for annotation in found], text, asked)
    sightings = [sighting for annotation in found for sighting in annotation.sightings]
    inside = [sighting.patch for sighting in sightings if sighting.inside]
    _draw_sheet(store, sorted(set(inside or [sighting.patch for sighting in sightings])), f"annotation {name}", asked)


def _show_selection(store: Store, asked: Asked) -> None:
    from keypatch.audit.jsonable import jsonable
    from keypatch.audit.selection import select
    from keypatch.audit.tracing import describe_patches, describe_stored_volume

    chosen, selection = select(store, asked.selection), asked.selection
    alone = not (selection.kinds or selection.classes or selection.folds)
    if alone and len(selection.volumes) == 1:
        volume = describe_stored_volume(store, selection.volumes[0])
        _print(volume.to_json(), inspect_text.stored_volume_text(volume), asked)
    else:
        rows = describe_patches(store, chosen)
        _print([jsonable(row) for row in rows], inspect_text.patches_text(str(selection), rows), asked)
    _draw_sheet(store, chosen, str(selection), asked)


def _show_whole(store: Store, asked: Asked) -> None:
    from keypatch.audit.inspect import describe_store

    whole = describe_store(store.path)
    _print(whole.to_json(), inspect_text.store_text(whole), asked)
    _draw_sheet(store, range(len(store)), "", asked)


def _draw_sheet(store: Store, indices: Sequence[int], title: str, asked: Asked) -> None:
    """A sheet of patches, or of some that are drawn of them, into the file and the terminal."""
    from keypatch.audit.selection import draw
    from keypatch.audit.sheet import contact_sheet

    how = _terminal(asked, unasked=False)
    if asked.png is None and how is None:
        return
    if not indices:
        raise UsageError.at("--png" if asked.png else "--picture", expected="patches to draw", found="none of these")
    name = Path(store.path).resolve().name + (f": {title}" if title else "")
    drawn = draw(indices, asked.count, asked.seed)
    if asked.augment is not None:
        _draw_augmented(store, drawn, asked)
        return
    if asked.png is not None:
        sheet = contact_sheet(store, drawn, title=name, slicing=asked.slicing, gaussian=asked.gaussian)
        _save(sheet, asked.png)
    if how == "blocks":
        _emit(_mosaic(store, drawn, asked), how)
    elif how is not None:
        _emit(contact_sheet(store, drawn, title=name, slicing=asked.slicing, gaussian=asked.gaussian), how)


def _draw_augmented(store: Store, indices: Sequence[int], asked: Asked) -> None:
    """Patches before and after augmentation, into the file and the terminal."""
    from keypatch.audit.augmented import augmented_sheet
    from keypatch.augment.recipe import read_recipe

    assert asked.augment is not None  # noqa: S101 - asked before
    geometric = read_recipe(asked.augment).geometric
    sheet = augmented_sheet(store, indices, geometric, seed=asked.seed, gaussian=asked.gaussian)
    if asked.png is not None:
        _save(sheet, asked.png)
    how = _terminal(asked, unasked=False)
    if how is not None:
        _emit(sheet, how)


def _mosaic(store: Store, indices: Sequence[int], asked: Asked) -> Image.Image:
    """Small pictures of as many patches as a terminal has room for, in the order of their numbers."""
    from PIL import Image

    from keypatch.audit.picture import small_picture

    columns, rows = terminal_picture.room()
    cell = (columns + 1) // 2 - 1, rows
    canvas = Image.new("RGB", (2 * cell[0] + 1, 2 * cell[1] + 1))
    for k, index in enumerate(indices[:4]):
        target = _target(store, index) if asked.gaussian else None
        small = small_picture(
            store[index], target, ds_factor=store.ds_factor, size=(cell[0] - 1, cell[1] - 1), slicing=asked.slicing
        )
        canvas.paste(small, (k % 2 * (cell[0] + 1), k // 2 * (cell[1] + 1)))
    return canvas


def _target(store: Store, index: int) -> NDArray[Any]:
    """The stored Gaussian, which is what a person wants to see; rendered where none is stored."""
    return store.read_gaussian(index) if store.has_gaussian else store[index].gaussian()


def _print(as_json: Any, text: str, asked: Asked) -> None:  # noqa: ANN401 - anything that JSON holds
    click.echo(printing.json_text(as_json) if asked.as_json else text)


def _save(picture: Image.Image, png: Path) -> None:
    try:
        picture.save(png, format="PNG")
    except OSError as error:
        raise WriteError.at(png, expected="to write a picture there", found=error.strerror or str(error)) from error
    printing.note(f"keypatch: wrote {png}")


def _terminal(asked: Asked, *, unasked: bool) -> terminal_picture.Protocol | None:
    """How to show a picture in the terminal; None where none is wanted or it cannot.

    Args:
        asked: The flags.
        unasked: Whether one is shown where it was neither asked for nor forbidden.
    """
    if asked.as_json or asked.picture is False or (asked.picture is None and (not unasked or asked.png is not None)):
        return None
    how = terminal_picture.protocol_here(asked=bool(asked.picture))
    if how is None and asked.picture:
        printing.note("keypatch: no picture in the terminal: it is none, shows none, or NO_COLOR is set")
    return how


def _emit(picture: Image.Image, how: terminal_picture.Protocol) -> None:
    columns, _ = terminal_picture.room()
    width = columns * terminal_picture.CELL_WIDTH
    if how != "blocks" and picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)))
    sys.stdout.write(terminal_picture.encoded(picture, how))
    sys.stdout.flush()
