"""Reading through zarr-python what cannot be read by position: other codecs, zip files, remote stores, small arrays."""

from __future__ import annotations

import itertools
import os
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch.errors import CorruptionError, StoreError
from keypatch.formats.store.disk import is_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ZARR_ERRORS: Final = (
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    RuntimeError,
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
)
"""What zarr-python and the codecs raise on metadata and bytes that are not theirs."""


class ZarrArray:
    """A `PatchArray` of any codec, any chunks, in any kind of store.

    A missing file is damage here too. A chunk that is missing inside a shard is not noticed: zarr-python gives its
    fill value.

    Args:
        path: Of the store, as `open_group` takes it.
        name: Of the array.

    Raises:
        StoreError: If there is no such array.
    """

    def __init__(self, path: str, name: str) -> None:
        self._where = f"{path}/{name}"
        self._path, self._name = path, name
        self._opened: tuple[int, Any] | None = None
        self._present: set[str] = set()
        try:
            array = self._array
            self._outer = tuple(int(n) for n in array.shards or array.chunks)
            self.chunk_shape = tuple(int(n) for n in array.chunks[1:])
            self.patches_per_shard = self._outer[0]
        except StoreError:
            raise
        except ZARR_ERRORS as error:
            raise StoreError.at(self._where, expected="a Zarr v3 array", found=repr(error)) from error

    @property
    def _array(self) -> Any:  # noqa: ANN401 - zarr.Array, imported late
        """Opened once in each process: forked workers that shared the file of a zip would move each other's place."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_group(self._path)[self._name]
        return self._opened[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, …)."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native byte order."""
        native: np.dtype[Any] = np.dtype(self._array.dtype).newbyteorder("=")
        return native

    def read(
        self, item: int, start: Sequence[int], stop: Sequence[int], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """See `PatchArray`."""
        try:
            self._demand_files(item, start, stop)
            found = np.asarray(self._array[(item, *map(slice, start, stop))], self.dtype)
        except StoreError:
            raise
        except ZARR_ERRORS as error:
            raise CorruptionError.at(
                f"{self._where}: item {item}", expected="chunks that decode", found=str(error)
            ) from error
        if out is None:
            return found
        out[...] = found
        return out

    def _demand_files(self, item: int, start: Sequence[int], stop: Sequence[int]) -> None:
        """Look once for every file that the box touches, since zarr-python gives zeros where one is missing."""
        from zarr.core.sync import sync  # noqa: PLC0415

        box = zip((item, *start), (item + 1, *stop), self._outer, strict=True)
        for chunk in itertools.product(*(range(a // c, -(-b // c)) for a, b, c in box)):
            key = self._array.metadata.encode_chunk_key(chunk)
            if key in self._present:
                continue
            if not sync((self._array.store_path / key).exists()):
                raise CorruptionError.at(
                    f"{self._where}/{key}", expected="a shard", found="none", hint="run keypatch validate"
                )
            if is_device(f"{self._where}/{key}"):
                raise CorruptionError.at(f"{self._where}/{key}", expected="a shard", found="a pipe, socket or device")
            self._present.add(key)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def is_file(path: str) -> bool:
    """Whether a path names a file; False, where `Path.is_file` raises, for a name that no system takes."""
    return os.path.isfile(path)  # noqa: PTH113


def open_group(path: str) -> Any:  # noqa: ANN401 - zarr.Group, imported late
    """The root of a Zarr v3 store in a folder, a zip file or at a URL, read-only, through zarr-python.

    Raises:
        StoreError: If there is none.
    """
    import zarr  # noqa: PLC0415 - 370 ms that reading images from a folder need not wait for

    try:
        place = zarr.storage.ZipStore(path, mode="r") if is_file(path) else path
        return zarr.open_group(place, mode="r", zarr_format=3)
    except ImportError as error:
        raise StoreError.at(path, expected="fsspec for a remote store", found=str(error)) from error
    except zipfile.BadZipFile as error:
        raise StoreError.at(path, expected="a folder or a zip file", found=str(error)) from error
    except ZARR_ERRORS as error:
        raise StoreError.at(path, expected="a keypatch store", found=str(error) or repr(error)) from error
