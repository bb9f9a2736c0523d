"""Which tomogram a number means: Dynamo's volume list (.vll), or a table of numbers and files.

Read from Dynamo's wiki (Volume_list_file) and from dynamotable (``table_map_read``). A volume list has one file a line;
``#`` begins a comment, ``>`` and ``!`` name sources of particles or models, ``*`` sets a parameter of the tomogram
above, of which ``* index = 4`` is its number. A table map (.doc) has a number and a file a line.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keypatch.errors import FormatError
from keypatch.formats.annotations.base import VolumeHint
from keypatch.formats.annotations.hints import hints_of_rows, listed
from keypatch.formats.annotations.relion_tomograms import file_stem
from keypatch.formats.annotations.source import read_text, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_NUMBER_AND_FILE = re.compile(r"(\d{1,15})[\s,;]+(\S.*)")
_INDEX = re.compile(r"\*\s*index\s*=\s*(\d{1,15})\s*$")


@dataclass(frozen=True)
class NumberedVolumes:
    """The volumes that a column of tomogram numbers names.

    Attributes:
        names: One a row; None where the file names no volume.
        hints: Name to what is said of the volume, in order of appearance.
        notes: One line each.
        warnings: One line each.
    """

    names: tuple[str | None, ...]
    hints: Mapping[str, VolumeHint] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def whole_numbers(path: Path, values: NDArray[np.float64], what: str) -> NDArray[np.int64]:
    """Check that numbers are whole.

    Args:
        path: The file, for messages.
        values: (K,) finite.
        what: What they are.

    Raises:
        FormatError: At the first one that is not whole, or that no float64 tells from its neighbours.
    """
    wrong = (values % 1 != 0) | (np.abs(values) > 2**53)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise FormatError.at(path, expected=f"a whole number as {what}", found=f"{values[row]:g} in row {row}")
    return values.astype(np.int64)


def class_names(numbers: NDArray[np.int64]) -> tuple[list[str | None], list[str]]:
    """Class numbers as names, and a warning where only some rows have one: 0 is that of no class."""
    names = [str(number) if number else None for number in numbers.tolist()]
    n_without = int(np.count_nonzero(numbers == 0))
    if n_without in (0, len(numbers)):
        return names, []
    return names, [f"{n_without} of {len(numbers)} particles have the class 0, which is taken as none"]


def name_volumes(
    path: Path,
    numbers: NDArray[np.int64],
    listing: Path | None,
    *,
    first: int = 1,
    spacing: NDArray[np.float64] | None = None,
) -> NumberedVolumes:
    """Turn tomogram numbers into the names of volumes.

    A volume is called by the stem of its file in ``listing``; without a listing, or where several of its files have one
    stem, by its number as text. Zero in every row names no volume, where tomograms are counted from 1.

    Args:
        path: The annotation file, for messages.
        numbers: (K,) tomogram numbers.
        listing: A volume list, or a table of numbers and files.
        first: Number of the first file in a volume list.
        spacing: (K,) Å a voxel, NaN where a row states none.

    Raises:
        ReadError: If the listing is missing or unreadable.
        FormatError: If it is no such file.
    """
    if first and len(numbers) and not numbers.any():
        unused = () if listing is None else (f"{path.name} has no tomogram numbers for {listing.name}",)
        return NumberedVolumes((None,) * len(numbers), warnings=unused)
    files = {} if listing is None else read_tomogram_files(listing, first=first)
    stem_of = _unique_stems(files)
    names = np.array([stem_of.get(number, str(number)) for number in numbers.tolist()], dtype=object)
    unknown = np.full(len(names), np.nan)
    hints, warnings = hints_of_rows(names, np.full((len(names), 3), np.nan), unknown if spacing is None else spacing)
    stems = set(stem_of.values())
    hints = {name: replace(hint, file_stem=name) if name in stems else hint for name, hint in hints.items()}
    if listing is None:
        note = "tomograms are named by their numbers; --tomograms LIST.vll, or --map NUMBER=VOLUME, says which they are"
        return NumberedVolumes(tuple(names), hints, (note,), tuple(warnings))
    used = pd.unique(numbers).tolist()
    warnings += _listing_warnings(listing, [n for n in used if n not in files], files, stem_of)
    return NumberedVolumes(tuple(names), hints, (f"tomograms are named by {listing.name}",), tuple(warnings))


def read_tomogram_files(path: Path, *, first: int = 1) -> dict[int, str]:
    """Read a volume list, or a table of numbers and files.

    Args:
        path: The file.
        first: Number of the first file in a volume list.

    Returns:
        Tomogram's number to its file as the text has it.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it lists no file, or one number twice.
    """
    lines = [line.strip() for line in read_text(path).split("\n")]
    entries = [line for line in lines if line and line[0] not in "#>!"]
    files = [line for line in entries if not line.startswith("*")]
    if any(re.match(r"data_|loop_", line) for line in files):
        raise FormatError.at(path, expected="a volume list, or a table of numbers and files", found="a STAR file")
    if not files:
        raise FormatError.at(path, expected="a volume list with one file a line", found="no file")
    matches = [_NUMBER_AND_FILE.fullmatch(line) for line in files]
    if all(matches):
        pairs = [(int(match[1]), match[2]) for match in matches if match]
    else:
        pairs = _numbered(path, entries, first)
    result = dict(pairs)
    if len(result) < len(pairs):
        repeated = next(number for number, count in Counter(number for number, _ in pairs).items() if count > 1)
        raise FormatError.at(path, expected="every tomogram number once", found=f"{repeated} several times")
    return result


def _numbered(path: Path, entries: list[str], first: int) -> list[tuple[int, str]]:
    pairs: list[tuple[int, str]] = []
    for entry in entries:
        if not entry.startswith("*"):
            pairs.append((len(pairs) + first, entry))
        elif index := _INDEX.match(entry):
            if not pairs:
                raise FormatError.at(path, expected="a file before its parameters", found=shortened(entry))
            pairs[-1] = (int(index[1]), pairs[-1][1])
    return pairs


def _unique_stems(files: Mapping[int, str]) -> dict[int, str]:
    """Number to the stem of its file, where no other file has the same: ts1/rec.mrc and ts2/rec.mrc stay apart."""
    stems = {number: stem for number, file in files.items() if (stem := file_stem(file)) is not None}
    counts = Counter(stems.values())
    return {number: stem for number, stem in stems.items() if counts[stem] == 1}


def _listing_warnings(
    listing: Path, unlisted: list[int], files: Mapping[int, str], stem_of: Mapping[int, str]
) -> list[str]:
    warnings = []
    if unlisted:
        warnings.append(f"{listing.name} does not list tomogram {listed(map(str, unlisted))}")
    alike = [number for number in files if number not in stem_of]
    if alike:
        warnings.append(
            f"files of {listing.name} are called alike: the tomograms {listed(map(str, alike))} "
            "are named by their numbers; say with --map NUMBER=VOLUME which they are"
        )
    return warnings
