"""Reading the small arrays of a store, each held against the schema before anything is looked up in it."""

from __future__ import annotations

import math
import os
import stat
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch.errors import CorruptionError, StoreError
from keypatch.formats.store.arrays import read_array_metadata
from keypatch.formats.store.digest import ROOT_METADATA
from keypatch.formats.store.schema import TABLES
from keypatch.formats.store.zarr_array import ZARR_ERRORS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

OFFSETS: Final = "patches/keypoint_offsets"

_TABLE: Final = {table.path: table for table in TABLES}

_VALUES_PER_BYTE: Final = 2**17
"""More than any codec packs into a byte of its own: zstd takes 4 bytes or more for each block of 128 KiB."""


def check_claim(folder: Path) -> None:
    """See that a table in a folder may be read, before memory and time are taken for what its metadata claim.

    Args:
        folder: Of the table.

    Raises:
        StoreError: If the metadata cannot be read, or claim more values than its files can hold.
        CorruptionError: If there is no chunk, or something that is neither a file nor a folder; who reads a pipe may
            wait for ever.
    """
    shape = read_array_metadata(folder)["shape"]
    there = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)  # noqa: PTH118 - there may be many
            try:
                status = os.stat(path)  # noqa: PTH116
            except OSError:
                continue  # which reading it will say
            if not stat.S_ISREG(status.st_mode):
                raise CorruptionError.at(path, expected="a file", found="a pipe, socket or device")
            there += 0 if name == ROOT_METADATA else status.st_size
    values = math.prod(shape) if isinstance(shape, list) and all(type(n) is int for n in shape) else 0
    if values and not there:
        raise CorruptionError.at(folder, expected="chunks", found="none", hint="run keypatch validate")
    if values > there * _VALUES_PER_BYTE:
        raise StoreError.at(
            folder,
            expected=f"no more values than {there} bytes can hold",
            found=f"an array of shape {tuple(shape)}",
            hint="run keypatch validate",
        )


def read_table(
    group: Any,  # noqa: ANN401 - zarr.Group, imported late
    path: str,
    where: str,
    *,
    n_rows: int | None,
    below: int | None,
) -> NDArray[Any]:
    """Read a table whole.

    Args:
        group: Root of the store.
        path: Of the table.
        where: The store, for messages.
        n_rows: Rows that it must have; None where nothing says so.
        below: Its values are positions in a list of this length; None where they are not.

    Returns:
        A read-only array.

    Raises:
        StoreError: If it is missing, cannot be decoded, or is not what the schema demands.
        CorruptionError: If a chunk is missing, or a value names nothing.
    """
    place = f"{where}/{path}"
    try:
        array = group[path]
        values: NDArray[Any] = np.asarray(array[...])
        n_there, n_chunks = array.nchunks_initialized, array.nchunks
    except ZARR_ERRORS as error:
        found = str(error) or type(error).__name__
        raise StoreError.at(
            place, expected="an array that decodes", found=found, hint="run keypatch validate"
        ) from error
    if n_there < n_chunks:  # zarr-python gives zeros in their place
        raise CorruptionError.at(place, expected=f"{n_chunks} chunks", found=f"{n_there}", hint="run keypatch validate")
    _check_form(place, path, values, n_rows)
    if path == OFFSETS:
        _check_offsets(place, values)
    if below is not None and len(values) and not (values.min() >= 0 and values.max() < below):
        raise CorruptionError.at(
            place, expected=f"positions in a list of {below}", found=f"{values.min()} … {values.max()}"
        )
    values.flags.writeable = False
    return values


def _check_form(place: str, path: str, values: NDArray[Any], n_rows: int | None) -> None:
    table = _TABLE.get(path)
    if table is None:  # of a newer minor version
        return
    shape = table.shape(len(values) if n_rows is None and values.ndim else n_rows or 0)
    if values.shape != shape or values.dtype != np.dtype(table.dtype):
        raise StoreError.at(
            place,
            expected=f"{table.dtype} of shape {shape}",
            found=f"{values.dtype} of shape {values.shape}",
            hint="run keypatch validate",
        )


def _check_offsets(place: str, offsets: NDArray[Any]) -> None:
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise CorruptionError.at(
            place, expected="offsets that rise from 0", found="others", hint="run keypatch validate"
        )
