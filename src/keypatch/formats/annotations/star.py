"""STAR files: the blocks that starfile reads, checked for what it lets pass."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import starfile

from keypatch.errors import FormatError
from keypatch.formats.annotations.source import read_text, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

_HASH_IN_A_VALUE = re.compile(r"^(?![ \t]*[_#])[^\n]*[^\s#]#.*$", re.MULTILINE)
_ROW_LIKE_A_BLOCK = re.compile(r"^[ \t]*data_\S*[ \t]+[^#\s].*$", re.MULTILINE)
# What RELION writes as a name; starfile would make numbers of "007".
_NAME_COLUMNS = (
    *("rlnTomoName", "rlnMicrographName", "rlnTomoReconstructedTomogram", "rlnTomoTiltSeriesName"),
    *("rlnTomoParticlesFile", "rlnTomoTomogramsFile"),
)


@dataclass(frozen=True, eq=False)
class Block:
    """One block of a STAR file.

    Attributes:
        path: The file.
        name: Without "data_"; may be empty.
        frame: Its columns, named without the leading "_".
        text: Of the file, for line numbers.
    """

    path: Path
    name: str
    frame: pd.DataFrame
    text: str

    def __len__(self) -> int:
        return len(self.frame)

    def has(self, *columns: str) -> bool:
        """Whether all of these columns are there."""
        return all(column in self.frame.columns for column in columns)

    def floats(self, column: str, *, may_be_nan: bool = False) -> NDArray[np.float64]:
        """One column as numbers.

        Raises:
            FormatError: At the first value that is no finite number.
        """
        cells = self.frame[column]
        values = np.asarray(pd.to_numeric(cells, errors="coerce"), np.float64)
        wrong = ~np.isfinite(values) & ~(np.asarray(cells.isna()) & may_be_nan)
        if wrong.any():
            row = int(np.argmax(wrong))
            found = f"{shortened(cells.iloc[row])} in {self.where(row)}"
            raise FormatError.at(self.path, expected=f"a number as {column}", found=found)
        return values

    def vectors(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Several columns as numbers, (K, len(columns)) float64."""
        return np.column_stack([self.floats(column) for column in columns])

    def texts(self, column: str) -> NDArray[Any]:
        """One column as names, (K,) object array of str.

        Raises:
            FormatError: At the first one that is missing.
        """
        cells = self.frame[column]
        missing = np.asarray(cells.isna())
        if missing.any():
            row = int(np.argmax(missing))
            raise FormatError.at(self.path, expected=f"a name as {column}", found=f"none in {self.where(row)}")
        return cells.astype(str).to_numpy(dtype=object)

    def where(self, row: int) -> str:
        """How an error message calls a row: its line in the file."""
        line = _line_of_row(self.text, self.name, row)
        return f"row {row} of data_{self.name}" if line is None else f"line {line}"


def read_star(path: Path, names: Sequence[str] = ()) -> dict[str, Block]:
    """Read every block of a STAR file; one that is no loop becomes a block of one row.

    Args:
        path: The file.
        names: Columns that hold names, beside RELION's own: "007" stays "007".

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it is no STAR file, or a row has more or fewer values than its block has columns.
    """
    text = read_text(path)
    _refuse_lost_values(path, text)
    try:
        with warnings.catch_warnings():
            # A column of mixed types is looked at again, value by value, when it is used.
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            blocks = starfile.read(path.absolute(), always_dict=True, parse_as_string=[*_NAME_COLUMNS, *names])
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise FormatError.at(path, expected="a STAR file", found=_reason(error)) from None
    if not blocks:
        raise FormatError.at(path, expected="a STAR file", found="no data_ block")
    result = {name: Block(path, name, _frame(block), text) for name, block in blocks.items()}
    _refuse_repeats(path, text, result)
    for block in result.values():
        _refuse_short_rows(block)
    return result


def _frame(block: Any) -> pd.DataFrame:  # noqa: ANN401 - starfile gives a table or a dict
    return block if isinstance(block, pd.DataFrame) else pd.DataFrame([block])


def _reason(error: Exception) -> str:
    text = str(error)
    if match := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text):
        return f"{match[3]} values in line {match[2]} of a loop that has {match[1]} columns"
    if "Length mismatch" in text:
        return "another number of values a row than columns"
    if isinstance(error, TypeError):
        return "a data_ block without loop_ or values"
    return text or type(error).__name__


def _refuse_lost_values(path: Path, text: str) -> None:
    """Refuse what starfile drops: the rest of a row after any "#", and a row whose first value starts with "data_"."""
    for pattern, expected in ((_HASH_IN_A_VALUE, "values without '#'"), (_ROW_LIKE_A_BLOCK, "no value like data_…")):
        match = pattern.search(text)
        if match:
            line = text.count("\n", 0, match.start()) + 1
            raise FormatError.at(path, expected=expected, found=f"{shortened(match.group().strip())} in line {line}")


def _refuse_repeats(path: Path, text: str, blocks: dict[str, Block]) -> None:
    """Refuse a name given twice: of two blocks, starfile keeps the last."""
    names = re.findall(r"^[ \t]*data_(\S*)", text, re.MULTILINE)
    if len(names) > len(blocks):
        repeated = next((name for name in names if names.count(name) > 1), names[-1])
        raise FormatError.at(path, expected="every block once", found=f"data_{repeated} several times")
    for block in blocks.values():
        columns = block.frame.columns
        if columns.has_duplicates:
            found = f"{columns[columns.duplicated()][0]} several times in data_{block.name}"
            raise FormatError.at(path, expected="every column once", found=found)


def _refuse_short_rows(block: Block) -> None:
    """Refuse rows with too few values: pandas fills them up with NaN, and all behind the gap would shift."""
    n_columns = block.frame.shape[1]
    if not n_columns or not block.frame.iloc[:, -1].isna().any():
        return
    for number, content in _rows(block.text, block.name):
        n_values = len(content.partition("#")[0].split())
        if n_values < n_columns:
            found = f"{n_values} in line {number}"
            raise FormatError.at(
                block.path, expected=f"{n_columns} values a row", found=found, hint="is the file cut short?"
            )


def _rows(text: str, block: str) -> Iterator[tuple[int, str]]:
    """Line, from 1, and content of every row of a loop."""
    inside, labels = False, False
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip()
        if content.startswith("data_"):
            inside, labels = content[5:] == block, False
        elif inside and content.startswith("_"):
            labels = True
        elif inside and labels and content and not content.startswith("#"):
            yield number, content


def _line_of_row(text: str, block: str, row: int) -> int | None:
    return next((number for number, _ in islice(_rows(text, block), row, None)), None)
