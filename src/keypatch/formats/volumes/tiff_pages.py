"""Pages of a TIFF, one at a time, through tifffile.

tifffile reports much of what is wrong with a file to its log and goes on with what is left of it; here an error in that
log is an error.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from keypatch.errors import FormatError, MissingExtraError
from keypatch.formats.volumes.reader import library_errors, require_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


def page_array(path: Path, page: Any, expected: str) -> NDArray[Any]:  # noqa: ANN401 - tifffile is untyped
    """Decode one page.

    Raises:
        FormatError: If it is damaged.
        MissingExtraError: If its compression needs imagecodecs, which is not installed.
        ReadError: If it cannot be read.
    """
    with library_errors(path, expected), log_as_errors(path, expected):
        try:
            array: NDArray[Any] = page.asarray(maxworkers=1)
        except Exception as error:
            if "imagecodecs" in str(error):
                raise MissingExtraError.needs(f"{path} ({enum_name(page.keyframe.compression)})", "tiff") from error
            raise
    return array


def enum_name(value: Any) -> str:  # noqa: ANN401
    """Name of one of tifffile's enumerations, or the number where it knows none."""
    return str(getattr(value, "name", value))


def check_page(path: Path, page: Any, number: int) -> None:  # noqa: ANN401
    """See that all bytes of a page are inside its file: tifffile reads a strip without bytes as zeros.

    Raises:
        FormatError: If they are not.
    """
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if not segments or any(offset == 0 or count == 0 for offset, count in segments):
        raise FormatError.at(path, expected=f"voxels in page {number}", found="a strip or tile without bytes")
    end = max(offset + count for offset, count in segments)
    size = page.parent.filehandle.size
    require_bytes(path, needed=end, found=size, what=f"up to the end of page {number}")


class _Collector(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def log_as_errors(path: Path, expected: str) -> Iterator[list[str]]:
    """Collect tifffile's log: its warnings go into the list that is given, its errors are raised at the end.

    Raises:
        FormatError: If tifffile logged an error.
    """
    handler = _Collector(logging.WARNING)
    logger = logging.getLogger("tifffile")
    said: list[str] = []
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
    errors = [record.getMessage() for record in handler.records if record.levelno >= logging.ERROR]
    if errors:
        raise FormatError.at(path, expected=expected, found=errors[0], hint="the file is cut short or damaged")
    said.extend(record.getMessage() for record in handler.records)
