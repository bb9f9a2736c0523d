"""The contract of a volume reader, and the words that all readers share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from keypatch.geometry import Shape3, Vector3, World

Access: TypeAlias = Literal["mapped", "region", "slices", "whole"]
"""What reading one region costs: its own voxels, whose places in the file are known as in a memory map; the chunks that
it touches; every z slice that it touches; or the whole volume."""


@dataclass(frozen=True)
class VolumeOptions:
    """What a flag may settle about a volume file.

    Attributes:
        format: Name of the format, when the content shall not decide.
        array: Path of the array inside a container of several (Zarr, HDF5).
        level_spacing: Å; of the levels of a pyramid, take the one whose spacing is nearest.
        unsigned: Read MRC mode 0, and bytes of EM, as uint8, not int8.
    """

    format: str | None = None
    array: str | None = None
    level_spacing: float | None = None
    unsigned: bool = False


@dataclass(frozen=True)
class VolumeInfo:
    """What a header says of a volume, before any voxel is read.

    Attributes:
        path: The file or folder.
        format: Name of the format in the registry.
        shape: Voxels, z, y, x, after any axis permutation of the file was undone.
        dtype: Of the array that ``read`` returns, in the machine's byte order.
        voxel_spacing: Å a voxel, z, y, x; None where the file does not declare it (or declares 0).
        access: What reading one region costs.
        conventions: What was read and what was assumed, as plain JSON values; written into the store.
        warnings: One line each, for the person: what in the header contradicts itself or had to be guessed.
        world: (4, 4) map of index (z, y, x, 1) to world coordinates (z, y, x, 1) in Å, where the format has a world:
            origin, direction and shear of a scanner (always in the LPS frame: x to the left, y to the back, z up; a
            RAS header has its x and y turned round), or the origin of an MRC map. None where it has none.
    """

    path: Path
    format: str
    shape: Shape3
    dtype: np.dtype[Any]
    voxel_spacing: Vector3 | None
    access: Access
    conventions: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    world: World | None = None


class Volume(Protocol):
    """An open volume.

    A reader may keep a file open and cache what it decoded; ``close`` lets all of it go. It need not be safe to share
    between threads or processes: each worker opens its own. A class with this one as its base has ``blocks`` and the
    context manager from it.
    """

    @property
    def info(self) -> VolumeInfo:
        """What the header says."""
        ...

    def read(self, start: Shape3, stop: Shape3) -> NDArray[Any]:
        """Read the box ``start`` (inclusive) to ``stop`` (exclusive), z, y, x, which lies inside the volume.

        Returns:
            Array of shape ``stop - start`` and ``info.dtype``, contiguous or strided; it may be read-only.

        Raises:
            ReadError: If the bytes are not there or cannot be decoded.
        """
        ...

    def blocks(self, start: Shape3, stop: Shape3) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Read a box piece by piece, as its file has it, without memory for all of it.

        Args:
            start: As for `read`, as what it raises.
            stop: As for `read`.

        Yields:
            Where a piece lies in the box, z, y, x, and its voxels, which are valid until the next piece is asked for.
            Each voxel comes once, in any order.
        """
        yield tuple(slice(0, b - a) for a, b in zip(start, stop, strict=True)), self.read(start, stop)

    def close(self) -> None:
        """Let files and caches go; may be called twice."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True)
class Peek:
    """A first look at a path, taken once and shown to every format.

    Attributes:
        path: The path as given.
        is_dir: Whether it is a folder.
        head: First 2048 bytes of the file; empty for a folder.
        inner: The same of what is inside, where the file is compressed with gzip or bzip2; else equal to ``head``.
        names: Names in the folder, in no special order; empty for a file.
    """

    path: Path
    is_dir: bool
    head: bytes
    inner: bytes
    names: frozenset[str]
