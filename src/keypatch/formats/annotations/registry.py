"""The formats of annotations, and the one way into them.

Our own formats are asked first, then those of other packages (`keypatch.formats.plugins`): a plugin reads what ours
refuse, and takes away nothing that they read. Only a format's name, given by the person, goes before content.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from keypatch.errors import FormatError, KeypatchError, UsageError
from keypatch.formats.annotations import (
    byu,
    byu_relabelled,
    cbox,
    cell_counter,
    cmm,
    copick,
    copick_csv,
    deepfinder,
    dynamo,
    elastix,
    imod,
    luna16,
    motive_list,
    napari,
    points_json,
    portal,
    relion,
    slicer_fcsv,
    slicer_markups,
    stopgap,
    table,
    tomotwin_coords,
)
from keypatch.formats.annotations.base import AnnotationOptions, AnnotationTable
from keypatch.formats.annotations.plugin import plugin_group
from keypatch.formats.annotations.source import head_text, read_head, shortened
from keypatch.formats.annotations.unread import unread_format

if TYPE_CHECKING:
    from os import PathLike


class AnnotationFormat(Protocol):
    """What the module of a format has."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a constant of a module
        """Name in messages, flags and stores."""
        ...

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """Lower-case suffixes, asked where no format knows the content."""
        ...

    @property
    def DESCRIPTION(self) -> str:  # noqa: N802
        """One line for a person."""
        ...

    @property
    def USES(self) -> frozenset[str]:  # noqa: N802
        """Which of the options columns, delimiter, header and tomograms it heeds."""
        ...

    def matches(self, path: Path, head: bytes, /) -> bool:
        """Whether the content is this format's; ``head`` is the file's first 64 KiB."""
        ...

    def read(self, path: Path, options: AnnotationOptions, /) -> AnnotationTable:
        """Read the whole file."""
        ...


FORMATS: tuple[AnnotationFormat, ...] = (
    portal,
    copick,
    slicer_markups,
    points_json,
    relion,
    stopgap,
    cbox,
    imod,
    motive_list,
    byu,
    byu_relabelled,
    copick_csv,
    luna16,
    napari,
    slicer_fcsv,
    elastix,
    cell_counter,
    deepfinder,
    cmm,
    dynamo,
    tomotwin_coords,
    table,
)
"""In the order in which they are asked; the table, which takes any header with z, y and x, comes last."""

PLUGINS = plugin_group(frozenset(candidate.NAME for candidate in FORMATS))
"""Those of other packages; looked up when they are first asked for."""

_COORDINATES = frozenset("zyx")


def detect_format(path: str | PathLike[str], options: AnnotationOptions | None = None) -> AnnotationFormat:
    """Tell a file's format: as ``options.format`` says, else by its content, else by its suffix.

    A delimited text for which ``options.columns`` names coordinates is a table, whatever its header looks like. Where a
    plugin claims by content what ours would take by the suffix, ours has it if it can read it.

    Raises:
        UsageError: If ``options.format`` is no known name, or a plugin that cannot be used.
        ReadError: If the file is missing or unreadable.
        FormatError: If it is empty, or of no format that is read.
    """
    file = Path(path)
    options = options or AnnotationOptions()
    forced = None if options.format is None else _by_name(options.format)
    head = read_head(file)
    if forced is not None:
        return forced
    known = unread_format(head)
    if known is not None and not options.columns.keys() >= _COORDINATES:
        plugin = _plugin_for(file, head)
        if plugin is not None:
            return plugin
        hint = "; ".join(PLUGINS.problems)
        raise FormatError.at(file, expected=_candidates(), found=f"{known}, which is not read yet", hint=hint)
    names_coordinates = bool(options.columns.keys() & _COORDINATES)
    text = head_text(head)
    for candidate in FORMATS:
        if candidate.matches(file, head):
            return table if names_coordinates and "delimiter" in candidate.USES else candidate
    if text is not None and names_coordinates:
        return table
    suffix = file.suffix.lower()
    by_suffix = next((f for f in FORMATS if text is not None and suffix in f.SUFFIXES), None)
    plugin = _plugin_for(file, head)
    if plugin is not None and not (by_suffix is not None and _reads(by_suffix, file, options)):
        return plugin
    if by_suffix is not None:
        return by_suffix
    found = "binary data, or text that is not UTF-8" if text is None else shortened(text.lstrip().partition("\n")[0])
    hint = "name the format with --format, or the columns of a table with --columns z=NAME,y=NAME,x=NAME"
    raise FormatError.at(file, expected=_candidates(), found=found, hint="; ".join((hint, *PLUGINS.problems)))


def _plugin_for(file: Path, head: bytes) -> AnnotationFormat | None:
    return next((plugin for plugin in PLUGINS.rows() if plugin.matches(file, head)), None)


def _reads(candidate: AnnotationFormat, file: Path, options: AnnotationOptions) -> bool:
    try:
        candidate.read(file, options)
    except KeypatchError:
        return False
    return True


def read_annotations(path: str | PathLike[str], options: AnnotationOptions | None = None) -> AnnotationTable:
    """Read an annotation file of any format into the one in-memory model.

    Raises:
        UsageError: If an option cannot be carried out on this file.
        ReadError: If the file is missing or unreadable.
        FormatError: If its content is not what its format demands, or of no known format.
        MissingExtraError: If a library that it needs is not installed.
    """
    options = options or AnnotationOptions()
    reader = detect_format(path, options)
    # Numbers of a damaged file that overflow become infinite, which is refused below.
    with np.errstate(all="ignore"):
        result = reader.read(Path(path), options)
    _check_finite(result)
    unused = [name for name in _given(options) if name not in reader.USES]
    if not unused:
        return result
    return replace(result, warnings=(*result.warnings, f"not used for the format {reader.NAME}: {', '.join(unused)}"))


def _check_finite(table: AnnotationTable) -> None:
    """See that no coordinate became infinite on its way: by a shift, a pixel size or a factor out of all bounds."""
    finite = np.isfinite(table.points[["z", "y", "x"]].to_numpy(np.float64)).all(axis=1)
    if not finite.all():
        rows = table.points["source_row"].to_numpy()[~finite].tolist()
        raise FormatError.at(
            table.path,
            expected="coordinates that are finite when shifts and pixel sizes are applied",
            found=f"{len(rows)} that are not, such as row {rows[0]}",
            hint="correct the numbers of these rows",
        )


def _by_name(name: str) -> AnnotationFormat:
    own = next((candidate for candidate in FORMATS if name == candidate.NAME), None)
    found = own or PLUGINS.named("--format", name)
    if found is None:
        raise UsageError.at("--format", expected=f"one of {', '.join(_names())}", found=repr(name))
    return found


def _names() -> tuple[str, ...]:
    return (*(candidate.NAME for candidate in FORMATS), *PLUGINS.names)


def _candidates() -> str:
    return f"annotations in one of the formats {', '.join(_names())}"


def _given(options: AnnotationOptions) -> list[str]:
    given = {
        "columns": bool(options.columns),
        "delimiter": options.delimiter is not None,
        "header": options.header is not None,
        "tomograms": options.tomograms is not None,
    }
    return [name for name, is_given in given.items() if is_given]
