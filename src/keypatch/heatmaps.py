"""Opening a file of predicted heatmaps: a .npy or a Zarr array, read one patch at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch.errors import FormatError, ReadError
from keypatch.formats.store.arrays import read_json
from keypatch.formats.store.disk import is_device
from keypatch.formats.store.schema import ATTRIBUTE, GAUSSIAN
from keypatch.formats.store.zarr_array import ZARR_ERRORS

if TYPE_CHECKING:
    from os import PathLike

    from keypatch.detections import Heatmaps

_AXES = "numbers of shape (N, C, d, h, w)"


def open_heatmaps(path: str | PathLike[str]) -> Heatmaps:
    """Open heatmaps without reading them.

    Args:
        path: A .npy file, or the folder of a Zarr array; a store's own ``gaussian`` is one.

    Raises:
        ReadError: If there is nothing, or it cannot be read.
        FormatError: If it is neither, an array of objects, or of other axes.
    """
    file = Path(path)
    if not os.path.exists(file):  # noqa: PTH110 - that of Path may raise
        raise ReadError.at(file, expected="heatmaps, a .npy file or a Zarr array", found="nothing there")
    if is_device(str(file)):
        raise ReadError.at(file, expected="heatmaps, a .npy file or a Zarr array", found="a pipe, socket or device")
    array: Any = _zarr_array(file) if file.is_dir() else _npy(file)
    if len(array.shape) != 5 or np.dtype(array.dtype).kind not in "fiub":
        raise FormatError.at(file, expected=_AXES, found=f"{array.dtype} of shape {tuple(array.shape)}")
    heatmaps: Heatmaps = array
    return heatmaps


class _ZarrHeatmaps:
    """A Zarr array whose damage is an error of one line."""

    def __init__(self, path: Path, array: Any) -> None:  # noqa: ANN401 - zarr.Array, imported late
        self._path, self._array = path, array
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)

    def __getitem__(self, index: int, /) -> Any:  # noqa: ANN401 - as zarr
        try:
            return self._array[index]
        except ZARR_ERRORS as error:
            found = str(error) or type(error).__name__
            raise ReadError.at(f"{self._path}: heatmap {index}", expected="chunks that decode", found=found) from error


def _npy(file: Path) -> Any:  # noqa: ANN401 - a memory map
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        raise FormatError.at(file, expected="a .npy file", found=_plain(error)) from error
    except OSError as error:
        raise ReadError.at(file, expected="a readable .npy file", found=error.strerror or str(error)) from error


def _plain(error: Exception) -> str:
    text = str(error)
    return "pickled objects, or no .npy at all" if "pickle" in text or "Python objects" in text else text or "none"


def _zarr_array(folder: Path) -> Any:  # noqa: ANN401 - with shape, dtype and items
    import zarr  # noqa: PLC0415 - 370 ms that a .npy file need not wait for

    if _is_store(folder):
        hint = f"its targets are {folder / GAUSSIAN}; predictions lie in an array of their own"
        raise FormatError.at(folder, expected="heatmaps", found="a keypatch store", hint=hint)
    try:
        opened = zarr.open(folder, mode="r")
    except ZARR_ERRORS as error:
        raise FormatError.at(folder, expected="a Zarr array", found=str(error) or repr(error)) from error
    if not isinstance(opened, zarr.Array):
        names = ", ".join(sorted(name for name, _ in opened.arrays())) or "none"
        hint = "give the path of one of its arrays"
        raise FormatError.at(folder, expected="a Zarr array", found=f"a group with the arrays: {names}", hint=hint)
    return _ZarrHeatmaps(folder, opened)


def _is_store(folder: Path) -> bool:
    try:
        return ATTRIBUTE in read_json(folder / "zarr.json").get("attributes", {})
    except (OSError, AttributeError, TypeError):
        return False
