"""The shape of a store on disk: chunks, shards and units, from the recipe and the number of patches alone."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch.errors import UsageError
from keypatch.formats.store.codecs import Codec, chain_metadata
from keypatch.formats.store.schema import GAUSSIAN, IMAGE
from keypatch.geometry import Shape3, grid_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB: Final = 2**20
CHUNK_MAX: Final = 8 * MIB
CHUNK_MIN: Final = 2 * MIB
SHARD_BYTES: Final = 192 * MIB
"""Raw bytes of a shard unless asked otherwise: the middle of 128 to 256 MiB."""

MIN_UNITS: Final = 16
"""A small data set is cut into about this many units, so that a pool of workers has something to share out."""


@dataclass(frozen=True)
class StoreLayout:
    """Where each patch lies. Nothing in it depends on the machine or the number of workers.

    Attributes:
        n_patches: N, above 0.
        patch_shape: (D, H, W) voxels.
        ds_factor: An entry an axis.
        n_classes: C.
        image_dtype: Of `image`.
        image_codec: Of its chunks.
        chunk_shape: (cd, ch, cw) of `image`'s inner chunks; divides ``patch_shape``.
        patches_per_shard: Patches of a unit; the last unit may hold fewer.
        gaussian_dtype: Of `gaussian`; None where it is not stored.
        gaussian_codec: Of its chunks.
    """

    n_patches: int
    patch_shape: Shape3
    ds_factor: Shape3
    n_classes: int
    image_dtype: np.dtype[Any]
    image_codec: Codec
    chunk_shape: Shape3
    patches_per_shard: int
    gaussian_dtype: np.dtype[Any] | None
    gaussian_codec: Codec

    @property
    def grid(self) -> Shape3:
        """(d, h, w) of the coarse grid."""
        return grid_shape(self.patch_shape, self.ds_factor)

    @property
    def n_units(self) -> int:
        """Units, which is shards of each array."""
        return -(-self.n_patches // self.patches_per_shard)

    def unit_patches(self, unit: int) -> range:
        """Patches of one unit."""
        first = unit * self.patches_per_shard
        return range(first, min(first + self.patches_per_shard, self.n_patches))

    @property
    def chunks_per_patch(self) -> int:
        """Inner chunks of one patch's image."""
        return math.prod(n // c for n, c in zip(self.patch_shape, self.chunk_shape, strict=True))

    @property
    def image_bytes(self) -> int:
        """Raw bytes of one patch's image."""
        return math.prod(self.patch_shape) * self.image_dtype.itemsize

    @property
    def gaussian_bytes(self) -> int:
        """Raw bytes of one patch's Gaussian; 0 where it is not stored."""
        return (
            0 if self.gaussian_dtype is None else self.n_classes * math.prod(self.grid) * self.gaussian_dtype.itemsize
        )

    def array_metadata(self, name: str) -> dict[str, Any]:
        """``zarr.json`` of `image` or `gaussian`."""
        if name == IMAGE:
            shape, inner = self.patch_shape, self.chunk_shape
            return _sharded_metadata(self, shape, inner, self.image_dtype, self.image_codec, ("patch", "z", "y", "x"))
        if name == GAUSSIAN and self.gaussian_dtype is not None:
            target = (self.n_classes, *self.grid)
            names = ("patch", "class", "z", "y", "x")
            return _sharded_metadata(self, target, target, self.gaussian_dtype, self.gaussian_codec, names)
        message = f"no sharded array {name!r} in this layout"
        raise ValueError(message)


def _sharded_metadata(
    layout: StoreLayout,
    shape: Sequence[int],
    inner: Sequence[int],
    dtype: np.dtype[Any],
    codec: Codec,
    names: Sequence[str],
) -> dict[str, Any]:
    index_codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {
        "chunk_shape": [1, *inner],
        "codecs": chain_metadata(codec, dtype),
        "index_codecs": index_codecs,
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [layout.n_patches, *shape],
        "data_type": dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [layout.patches_per_shard, *shape]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if dtype.kind == "f" else 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list(names),
        "attributes": {},
    }


def shard_key(unit: int, n_dimensions: int) -> str:
    """Path of a unit's shard below its array: ``c/<unit>/0/0/0``."""
    return "/".join(["c", str(unit), *["0"] * (n_dimensions - 1)])


def choose_chunk_shape(patch_shape: Shape3, itemsize: int) -> Shape3:
    """Inner chunk of one patch: the whole patch up to 8 MiB, else a split that keeps 2 to 8 MiB.

    Of the splits into equal parts, the one with the fewest chunks; among these the one that cuts z before y before
    x, since a cut along z leaves each chunk one run of memory. Where no split keeps to the range (a prime shape), the
    one nearest below 8 MiB.
    """
    divisors = [[d for d in range(1, n + 1) if n % d == 0] for n in patch_shape]

    def chunk_bytes(cuts: Shape3) -> int:
        return math.prod(n // c for n, c in zip(patch_shape, cuts, strict=True)) * itemsize

    cuttings = [(z, y, x) for z, y, x in itertools.product(*divisors)]
    small = [cuts for cuts in cuttings if chunk_bytes(cuts) <= CHUNK_MAX]
    kept = [cuts for cuts in small if chunk_bytes(cuts) >= CHUNK_MIN] or small
    z, y, x = min(kept, key=lambda cuts: (math.prod(cuts), cuts[2], cuts[1], cuts[0]))
    return patch_shape[0] // z, patch_shape[1] // y, patch_shape[2] // x


def check_chunk_shape(chunk_shape: Shape3, patch_shape: Shape3) -> Shape3:
    """The person's ``--chunk-shape``, if it divides the patch.

    Raises:
        UsageError: If it does not.
    """
    if any(c < 1 or n % c for n, c in zip(patch_shape, chunk_shape, strict=True)):
        raise UsageError.at(
            "--chunk-shape",
            expected=f"a divisor of the patch shape {','.join(map(str, patch_shape))} on every axis",
            found=",".join(map(str, chunk_shape)),
        )
    return chunk_shape


def choose_patches_per_shard(n_patches: int, patch_bytes: int, shard_bytes: int = SHARD_BYTES) -> int:
    """Patches a shard: as many as ``shard_bytes`` hold, fewer where that would leave under `MIN_UNITS` units."""
    return max(1, min(shard_bytes // patch_bytes, -(-n_patches // MIN_UNITS)))
