"""A table as its file has it: names and cells, and the one place that turns cells into numbers."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_numeric_dtype

from keypatch.errors import FormatError, MissingExtraError, UsageError
from keypatch.formats.annotations.source import head_text, read_text, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from keypatch.formats.annotations.base import AnnotationOptions

BLANKS = r"\s+"
PARQUET_MAGIC = b"PAR1"

_DELIMITERS = (",", "\t", ";", "|")
_DELIMITER_NAMES = {"tab": "\t", "\\t": "\t", " ": BLANKS, "space": BLANKS, "blank": BLANKS, BLANKS: BLANKS}
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_SAMPLE_LINES = 20


@dataclass(frozen=True, eq=False)
class Cells:
    """A table before any cell has a meaning.

    Attributes:
        path: The file.
        names: Of the columns, blanks around them taken off; None where the table has no header.
        frame: One column a table column, labelled 0, 1, 2 …; all of str where the file is text.
        text: The file's text, for line numbers; None for Parquet.
        delimiter: Of the text.
    """

    path: Path
    names: tuple[str, ...] | None
    frame: pd.DataFrame
    text: str | None = None
    delimiter: str = ","

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return self.frame.shape[1]

    def name(self, column: int) -> str:
        """How an error message calls a column."""
        return f"column {column}" if self.names is None else f"column {self.names[column]!r}"

    def where(self, row: int) -> str:
        """How an error message calls a row: its line in the file where it has one."""
        record = row + (self.names is not None)
        line = None if self.text is None else _line_of_record(self.text, self.delimiter, record)
        return f"row {row}" if line is None else f"line {line}"

    def columns(self, required: Sequence[str], plain: Callable[[str], str] = str.lower) -> dict[str, int]:
        """Plain name of every column to its number.

        Args:
            required: Plain names that must be there.
            plain: Brings a name to its plain form.

        Raises:
            FormatError: If one of ``required`` is missing, or there several times.
        """
        names = [plain(name) for name in self.names or ()]
        column = {name: i for i, name in enumerate(names)}
        repeated = [name for name in required if names.count(name) > 1]
        if repeated:
            raise FormatError.at(self.path, expected="every column once", found=f"{', '.join(repeated)} several times")
        missing = [name for name in required if name not in column]
        if missing:
            raise FormatError.at(
                self.path, expected=f"the columns {', '.join(required)}", found=f"none called {', '.join(missing)}"
            )
        return column

    def volume_names(self, column: int) -> NDArray[Any]:
        """One column as names of volumes.

        Returns:
            (K,) object array of str, none of them empty.

        Raises:
            FormatError: At the first empty cell.
        """
        names = self.texts(column)
        unnamed = names == ""
        if unnamed.any():
            row = int(np.argmax(unnamed))
            raise FormatError.at(
                self.path,
                expected=f"a volume's name in {self.name(column)}",
                found=f"an empty cell in {self.where(row)}",
            )
        return names

    def texts(self, column: int) -> NDArray[Any]:
        """One column as text.

        Returns:
            (K,) object array of str, blanks around them taken off; "" where the cell is empty.

        Raises:
            FormatError: If a Parquet column holds fractional numbers, which name nothing.
        """
        cells = self.frame[column]
        if is_float_dtype(cells.dtype):
            raise FormatError.at(
                self.path, expected=f"text or whole numbers in {self.name(column)}", found=f"the type {cells.dtype}"
            )
        filled = cells.astype(object).where(cells.notna(), "")
        return filled.astype(str).str.strip().to_numpy(dtype=object)

    def floats(self, column: int, *, may_be_empty: bool = False) -> NDArray[np.float64]:
        """One column as numbers, each exactly the float64 that its text names.

        Args:
            column: Number of the column.
            may_be_empty: Give NaN for an empty cell.

        Returns:
            (K,) float64, finite but for the empty cells.

        Raises:
            FormatError: At the first cell that is no finite number.
        """
        cells = self.frame[column]
        if is_numeric_dtype(cells.dtype) and not is_bool_dtype(cells.dtype):
            values = cells.to_numpy(dtype=np.float64, na_value=np.nan)
            empty = np.isnan(values)
        else:
            values, empty = _parsed(self.texts(column))
        wrong = ~np.isfinite(values) & ~(empty & may_be_empty)
        if wrong.any():
            row = int(np.argmax(wrong))
            cell = self.frame[column].iloc[row]
            found = "an empty cell" if empty[row] else shortened(cell)
            raise FormatError.at(
                self.path,
                expected=f"a number in {self.name(column)}",
                found=f"{found} in {self.where(row)}",
                hint="write decimals with a point" if _DECIMAL_COMMA.fullmatch(str(cell).strip()) else "",
            )
        return values


def _parsed(texts: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Numbers of texts and where they are empty; NaN where there is no number.

    pandas tells what is a number (it takes no "1_000"), float() gives its value to the last bit.
    """
    empty = np.asarray(texts == "", np.bool_)
    values = np.asarray(pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce"), np.float64).copy()
    numbers = np.isfinite(values)
    values[numbers] = texts[numbers].astype(np.float64)
    return values, empty


def read_cells(path: Path, options: AnnotationOptions) -> Cells:
    """Read a delimited text; its delimiter and whether it has a header are found out where no option says.

    Lines before the table that begin with "#" are comments. The last of them is the header if it has a name for each
    column, as ``numpy.savetxt`` writes it.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it is no UTF-8 text, has no delimiter, or a row has another number of cells than the first.
        UsageError: If ``options.delimiter`` is no delimiter.
    """
    text = _without_comments(read_text(path))
    sample = list(islice(_filled_lines(text), _SAMPLE_LINES))
    if not sample:
        raise FormatError.at(path, expected="a table", found="an empty file, or comments alone")
    delimiter = _delimiter(path, sample, options.delimiter)
    frame = _read_frame(path, text, delimiter)
    first = tuple(str(cell).strip() for cell in frame.iloc[0])
    has_header = _is_header(first) if options.header is None else options.header
    body = frame.iloc[1:].reset_index(drop=True) if has_header else frame
    cells = Cells(path, first if has_header else None, body, text, delimiter)
    _refuse_short_rows(cells, text)
    return cells


def read_parquet(path: Path) -> Cells:
    """Read a Parquet table.

    Raises:
        MissingExtraError: If no library for it is installed.
        FormatError: If it is cut short or damaged.
    """
    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise MissingExtraError.needs("a Parquet table", "parquet") from None
    except (ValueError, TypeError, KeyError, OSError, NotImplementedError) as error:  # pyarrow's derive from these
        raise FormatError.at(path, expected="a Parquet table", found=f"{error}") from None
    frame = frame.reset_index(drop=frame.index.names == [None])
    names = tuple(str(name).strip() for name in frame.columns)
    frame.columns = pd.RangeIndex(len(names))
    return Cells(path, names, frame)


def header_names(head: bytes) -> tuple[str, ...]:
    """The lower-case names in the first line of a delimited text; () where it is no text or that line no header."""
    text = head_text(head)
    if text is None:
        return ()
    text = _without_comments(text.replace("\r\n", "\n").replace("\r", "\n"))
    lines = list(islice(_filled_lines(text), _SAMPLE_LINES + 1))
    complete = lines[:-1] or lines
    if not complete:
        return ()
    delimiter = _likely_delimiter(complete)
    if delimiter is None:
        return ()
    names = _split(complete[0], delimiter)
    return tuple(name.lower() for name in names) if _is_header(names) else ()


def _read_frame(path: Path, text: str, delimiter: str) -> pd.DataFrame:
    try:
        return pd.read_csv(
            StringIO(text), sep=delimiter, header=None, dtype=str, na_filter=False, skipinitialspace=True, engine="c"
        )
    except (ValueError, OverflowError) as error:  # pandas' ParserError and EmptyDataError are ValueErrors
        reason = str(error).removeprefix("Error tokenizing data. C error: ")
        raise FormatError.at(path, expected="rows of the same number of cells", found=reason) from None


def _refuse_short_rows(cells: Cells, text: str) -> None:
    """Refuse short rows: pandas fills them up with empty cells, and a file cut short would read as whole."""
    if not (cells.frame[cells.n_columns - 1] == "").any():
        return
    for line, count in _records(text, cells.delimiter):
        if count != cells.n_columns:
            raise FormatError.at(
                cells.path,
                expected=f"{cells.n_columns} cells a row",
                found=f"{count} in line {line}",
                hint="is the file cut short?",
            )


def _delimiter(path: Path, sample: Sequence[str], stated: str | None) -> str:
    if stated is None:
        found = _likely_delimiter(sample)
        if found is None:
            raise FormatError.at(
                path,
                expected="a table of comma, tab, semicolon, pipe or blank separated cells",
                found=shortened(sample[0]),
                hint="name its delimiter with --delimiter",
            )
        return found
    delimiter = _DELIMITER_NAMES.get(stated, stated)
    if delimiter != BLANKS and (len(delimiter) != 1 or delimiter.isalnum() or delimiter in '"\n\r'):
        raise UsageError.at("--delimiter", expected="one character, tab or space", found=repr(stated))
    return delimiter


def _likely_delimiter(sample: Sequence[str]) -> str | None:
    """The delimiter that gives every line the same number of cells, and the most; else the first line's."""
    steady: dict[str, int] = {}
    for delimiter in (*_DELIMITERS, BLANKS):
        counts = {len(_split(line, delimiter)) for line in sample}
        if len(counts) == 1 and (count := counts.pop()) > 1:
            steady[delimiter] = count
    strict = {delimiter: count for delimiter, count in steady.items() if delimiter != BLANKS}
    if strict or steady:
        best = strict or steady
        return max(best, key=lambda delimiter: best[delimiter])
    first = {delimiter: len(_split(sample[0], delimiter)) for delimiter in _DELIMITERS}
    widest = max(first, key=lambda delimiter: first[delimiter])
    return widest if first[widest] > 1 else None


def _without_comments(text: str) -> str:
    """Empty the comment lines before a table, but for names of its columns; no line changes its number."""
    lines = text.split("\n")
    comments: list[int] = []
    first_row = ""
    for number, line in enumerate(lines):
        if line.lstrip().startswith("#"):
            comments.append(number)
        elif line.strip():
            first_row = line
            break
    if not comments:
        return text
    names = lines[comments[-1]].lstrip().removeprefix("#").strip(" ")
    for number in comments:
        lines[number] = ""
    delimiter = _likely_delimiter([names, first_row]) if first_row and names else None
    if delimiter is not None and _names_columns(names, first_row, delimiter):
        lines[comments[-1]] = names
    return "\n".join(lines)


def _names_columns(names: str, first_row: str, delimiter: str) -> bool:
    cells = _split(names, delimiter)
    return len(cells) == len(_split(first_row, delimiter)) and _is_header(cells)


def _split(line: str, delimiter: str) -> tuple[str, ...]:
    if delimiter == BLANKS:
        return tuple(line.split())
    try:
        return tuple(cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True)))
    except csv.Error:
        return (line,)


def _is_header(cells: Sequence[str]) -> bool:
    return any(cells) and not any(_is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _filled_lines(text: str) -> Iterator[str]:
    return (match.group() for match in re.finditer(r"^.*\S.*$", text, re.MULTILINE))


def _records(text: str, delimiter: str) -> Iterator[tuple[int, int]]:
    """Line, from 1, and number of cells of every record; as for pandas, a blank line is none, quotes may span lines."""
    lines = text.split("\n")
    if delimiter == BLANKS:
        yield from ((number, len(cells)) for number, line in enumerate(lines, 1) if (cells := line.split()))
        return
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    for cells in reader:
        if len(cells) > 1 or any(cell.strip() for cell in cells):
            yield reader.line_num, len(cells)


def _line_of_record(text: str, delimiter: str, record: int) -> int | None:
    try:
        return next((line for line, _ in islice(_records(text, delimiter), record, None)), None)
    except csv.Error:
        return None
