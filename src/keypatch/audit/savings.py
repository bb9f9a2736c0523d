"""Bytes: what a store takes, and what "patch + full-resolution Gaussian" of the same patches would take."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch import gaussian
from keypatch.audit.metadata import dig
from keypatch.errors import CorruptionError, StoreError, UsageError
from keypatch.formats.store.arrays import read_array_metadata
from keypatch.formats.store.codecs import ChunkCodec, blosc_shuffle, chain_metadata, choose_codec
from keypatch.formats.store.schema import GAUSSIAN, IMAGE, tables
from keypatch.formats.store.writer import chunk_boxes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from keypatch.formats.store import Store

ALL_BELOW: Final = 2**27
"""Voxels of all full-resolution Gaussians together up to which every one is compressed: some seconds of work."""

SAMPLE: Final = 16
"""Patches that are drawn where there is more to compress than that."""

_DISK_BLOCK: Final = 512
"""Unit of ``st_blocks`` (POSIX)."""


@dataclass(frozen=True)
class Part:
    """What one part of a store takes.

    Attributes:
        name: "image", "gaussian", a group of tables, or "metadata" for every zarr.json.
        raw: Bytes of its arrays, decoded.
        on_disk: Bytes of its files, as `os.stat` gives their size.
        allocated: Bytes that the file system sets aside for them; None where it does not say.
    """

    name: str
    raw: int
    on_disk: int
    allocated: int | None


@dataclass(frozen=True)
class Estimate:
    """A total over all patches, counted or estimated from a sample.

    Attributes:
        value: The total.
        low: Lower end of its 95 % interval; equal to ``value`` where it was counted.
        high: The upper end.
        n_sampled: Patches that were looked at.
        n_patches: Patches that there are.
    """

    value: float
    low: float
    high: float
    n_sampled: int
    n_patches: int

    @property
    def exact(self) -> bool:
        """Whether every patch was looked at."""
        return self.n_sampled == self.n_patches


@dataclass(frozen=True)
class FullGaussian:
    """The targets of the same patches at the resolution of the image: one (D, H, W) array a class, as others store it.

    The formula is the same, in real space: centres ``local_rs``, sigma ``ds_sigma * ds_factor``. For an integer dtype
    0 … 1 becomes 0 … its greatest value, rounded. It is cut off nowhere; a pipeline that sets small values to 0 has
    another target, which compresses better.

    Attributes:
        dtype: Of the target.
        codec: That compressed it. Each dtype has an entry with the image's codec, set to the dtype's item size, and,
            where that is another, one with the codec that keypatch itself would choose for the dtype. (A store of uint8
            has zstd without a shuffle, which compresses floats badly; the comparison must not rest on that.)
        raw: Bytes, not compressed.
        compressed: Bytes, in chunks like the image's.
        ratio_raw: (image + this) / (image + stored Gaussian + tables), all raw.
        ratio_on_disk: The same of what lies on the disk; its interval comes from ``compressed``.
        ratio_in_memory: (image + this) / (image + coarse Gaussian + keypoints) of one patch when loaded.
        gaussian_ratio_raw: This / stored Gaussian, raw; None where none is stored.
        gaussian_ratio_on_disk: The same on the disk.
    """

    dtype: str
    codec: str
    raw: int
    compressed: Estimate
    ratio_raw: float
    ratio_on_disk: Estimate
    ratio_in_memory: float
    gaussian_ratio_raw: float | None
    gaussian_ratio_on_disk: float | None


@dataclass(frozen=True)
class Step:
    """One step on the way from the sources' voxels and full-resolution Gaussians to what lies on the disk.

    Attributes:
        name: "sources", "gaussian", "dtype", "codec" or "tables"; the first is where the way begins.
        image: Bytes of the images after it.
        target: Bytes of the targets after it.
        rest: Bytes of tables and metadata after it; 0 up to the last step.
    """

    name: str
    image: int
    target: int
    rest: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.image + self.target + self.rest


@dataclass(frozen=True)
class Savings:
    """Where the saving comes from, each cause for itself, as factors (2 means half the bytes).

    Attributes:
        dtype: Bytes of the same voxels in their sources' dtypes / in the store's; 1 where nothing was converted.
        image_codec: Raw / compressed bytes of the images.
        gaussian_codec: The same of the stored Gaussians; None where none are stored.
        gaussian_grid: Values of the full-resolution target / of the coarse one: the product of ``ds_factor``.
        steps: The same in bytes, one cause after the other: the images in their sources' dtypes with full-resolution
            targets in float32, then the coarse target in their place, then the stored dtype, then the codec, and
            last the tables that all this needs.
    """

    dtype: float
    image_codec: float
    gaussian_codec: float | None
    gaussian_grid: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class PatchMemory:
    """Bytes of one patch when loaded.

    Attributes:
        image: (D, H, W) in the store's dtype.
        gaussian: (C, d, h, w) as stored, else as float32, which `Patch.gaussian` gives.
        keypoints: All columns of its keypoints, mean over the patches.
        full_gaussian: (C, D, H, W) by dtype.
    """

    image: int
    gaussian: int
    keypoints: float
    full_gaussian: Mapping[str, int]


def local_folder(store: Store) -> Path:
    """The folder of a store.

    Raises:
        StoreError: If the store lies in a file or behind a URL.
    """
    folder = Path(store.path)
    if not folder.is_dir():
        hint = "unpack or copy it to a folder"
        raise StoreError.at(store.path, expected="a store in a local folder", found="another place", hint=hint)
    return folder


def measure_parts(store: Store) -> tuple[Part, ...]:
    """Raw bytes by shape and dtype, bytes on disk by `os.stat` of every file.

    Raises:
        StoreError: If a table cannot be read.
        CorruptionError: If the shards have not the bytes that were written, or a folder is a link: no figure would be
            true then.
    """
    raw = {IMAGE: len(store) * math.prod(store.patch_shape) * store.image_array.dtype.itemsize}
    if store.has_gaussian:
        raw[GAUSSIAN] = len(store) * _coarse_bytes(store)
    for table in tables(gaussian=store.has_gaussian):
        group = table.path.split("/")[0]
        raw[group] = raw.get(group, 0) + store.table(table.path).nbytes
    raw["metadata"] = 0
    on_disk, allocated, blocks_known = dict.fromkeys(raw, 0), dict.fromkeys(raw, 0), True
    folder = local_folder(store)
    for path in folder.rglob("*"):
        if not path.is_file():
            if path.is_symlink() and path.is_dir():  # which is not gone into, so its part would count as nothing
                found, hint = f"a link to {path.readlink()}", "run keypatch validate"
                raise CorruptionError.at(path, expected="a folder", found=found, hint=hint)
            continue
        status = path.stat()
        top = path.relative_to(folder).parts[0]
        name = top if path.name != "zarr.json" and top in raw else "metadata"
        on_disk[name] += status.st_size
        blocks = getattr(status, "st_blocks", None)
        blocks_known = blocks_known and blocks is not None
        allocated[name] += (blocks or 0) * _DISK_BLOCK
    for name in (IMAGE, GAUSSIAN):
        written = int(store.table(f"integrity/{name}_size").sum()) if name in raw else 0
        if on_disk.get(name, 0) != written:
            found = f"{on_disk.get(name, 0)} bytes"
            hint = "run keypatch validate"
            raise CorruptionError.at(folder / name, expected=f"shards of {written} bytes", found=found, hint=hint)
    return tuple(Part(name, raw[name], on_disk[name], allocated[name] if blocks_known else None) for name in raw)


def compare_with_full(
    store: Store, parts: Sequence[Part], sample: int | None, seed: int, *, every: bool = False
) -> tuple[FullGaussian, ...]:
    """Render, compress and count the full-resolution targets in the image's dtype, float16 and float32.

    Args:
        store: Opened.
        parts: Of the store.
        sample: Patches that are drawn; None takes all where that is little work, else `SAMPLE`.
        seed: Of the draw.
        every: Take all patches, however much work that is.

    Raises:
        StoreError: If a patch cannot be read, or `image` is not in the schema's shards.
        UsageError: If the sample is too small for an interval.
    """
    chain, chunk_shape = _image_chunks(store)
    dtypes = [np.dtype(name) for name in dict.fromkeys((store.image_array.dtype.name, "float16", "float32"))]
    encoders = [_Encoder(_chains(chain, dtype), dtype, chunk_shape, store.patch_shape) for dtype in dtypes]
    drawn = np.arange(len(store)) if every else _drawn(store, sample, seed)
    sizes = np.array([_compressed_sizes(store, i, encoders) for i in drawn.tolist()], np.float64)
    candidates = [(encoder.dtype, chain) for encoder in encoders for chain in encoder.chains]
    return tuple(
        _compared(store, parts, dtype, describe_chain(chain), _total(sizes[:, k], len(store)))
        for k, (dtype, chain) in enumerate(candidates)
    )


def find_savings(store: Store, parts: Sequence[Part]) -> Savings:
    """See `Savings`."""
    by_name = {part.name: part for part in parts}
    itemsizes = np.array([_source_itemsize(store, record) for record in store.volume_records])
    source_bytes = int(itemsizes[store.table("patches/volume_index")].sum()) * math.prod(store.patch_shape)
    image, target = by_name[IMAGE], by_name.get(GAUSSIAN)
    full = len(store) * len(store.classes) * math.prod(store.patch_shape) * np.dtype(np.float32).itemsize
    target_raw, target_on_disk = (0, 0) if target is None else (target.raw, target.on_disk)
    rest = sum(part.on_disk for part in parts) - image.on_disk - target_on_disk
    return Savings(
        dtype=source_bytes / image.raw,
        image_codec=image.raw / image.on_disk,
        gaussian_codec=None if target is None else target.raw / target.on_disk,
        gaussian_grid=math.prod(store.ds_factor),
        steps=(
            Step("sources", source_bytes, full),
            Step("gaussian", source_bytes, target_raw),
            Step("dtype", image.raw, target_raw),
            Step("codec", image.on_disk, target_on_disk),
            Step("tables", image.on_disk, target_on_disk, rest),
        ),
    )


def _source_itemsize(store: Store, record: Mapping[str, Any]) -> int:
    try:
        return int(np.dtype(record["dtype"]).itemsize)
    except (KeyError, TypeError) as error:
        found = repr(record.get("dtype"))[:40]
        raise StoreError.at(f"{store.path}/volumes", expected="a dtype for each volume", found=found) from error


def loaded_bytes(store: Store) -> PatchMemory:
    """See `PatchMemory`."""
    voxels = math.prod(store.patch_shape)
    keypoints = sum(store.table(t.path).nbytes for t in tables(gaussian=False) if t.rows == "keypoints")
    dtypes = (store.image_array.dtype.name, "float16", "float32")
    return PatchMemory(
        image=voxels * store.image_array.dtype.itemsize,
        gaussian=_coarse_bytes(store),
        keypoints=keypoints / len(store),
        full_gaussian={name: len(store.classes) * voxels * np.dtype(name).itemsize for name in dtypes},
    )


class _Encoder:
    """Counts the compressed bytes of full-resolution targets of one dtype by several chains of codecs.

    A chunk is cast once for all of them, and one of zeros is encoded once.
    """

    def __init__(
        self,
        chains: Sequence[Sequence[Mapping[str, Any]]],
        dtype: np.dtype[Any],
        chunk_shape: tuple[int, ...],
        patch_shape: tuple[int, ...],
    ) -> None:
        self.dtype, self.chains = dtype, chains
        self._codecs = [ChunkCodec([dict(step) for step in chain], dtype, chunk_shape) for chain in chains]
        self._boxes = list(chunk_boxes(patch_shape, chunk_shape))
        self._zeros = self._encode(np.zeros(chunk_shape, dtype))

    def sizes(self, channel: NDArray[np.float64] | None) -> NDArray[np.int64]:
        """Bytes of one (D, H, W) channel with values in 0 … 1, one number a chain; None stands for zeros."""
        if channel is None:
            return self._zeros * len(self._boxes)
        chunks = (self._stored(channel[box]) for box in self._boxes)
        total: NDArray[np.int64] = sum(
            (self._encode(chunk) if chunk.any() else self._zeros for chunk in chunks), np.zeros_like(self._zeros)
        )
        return total

    def _encode(self, chunk: NDArray[Any]) -> NDArray[np.int64]:
        return np.array([len(codec.encode(chunk)) for codec in self._codecs], np.int64)

    def _stored(self, values: NDArray[np.float64]) -> NDArray[Any]:
        """As this dtype holds them."""
        if self.dtype.kind == "f":
            # What rounds to 0 is set to 0 first: processors take 20 times as long to find that out by themselves.
            half_of_smallest = float(np.finfo(self.dtype).smallest_subnormal) / 2
            return np.where(values > half_of_smallest, values, 0.0).astype(self.dtype)
        # Clipped, since float64 rounds the greatest 64-bit integers up, beyond their range.
        top = float(np.iinfo(self.dtype).max)
        return np.minimum(np.rint(values * top), np.nextafter(top + 1, 0)).astype(self.dtype)


def _compressed_sizes(store: Store, index: int, encoders: Sequence[_Encoder]) -> NDArray[np.int64]:
    """Bytes of one patch's full target, a number for each chain of each encoder; one class in memory at a time."""
    patch = store[index]
    sigma = patch.ds_sigma * np.array(store.ds_factor)
    totals = []
    for c in range(len(store.classes)):
        points = patch.local_rs_coords[patch.class_index == c]
        channel = None
        if len(points):
            zeros = np.zeros(len(points), np.int64)
            grid = store.patch_shape
            channel = gaussian.render(points, zeros, n_classes=1, grid=grid, sigma=sigma, dtype=np.float64)[0]
        totals.append(np.concatenate([encoder.sizes(channel) for encoder in encoders]))
    total: NDArray[np.int64] = np.sum(totals, axis=0)
    return total


def _drawn(store: Store, sample: int | None, seed: int) -> NDArray[np.int64]:
    n = len(store)
    if sample is None:
        voxels = n * len(store.classes) * math.prod(store.patch_shape)
        sample = n if voxels <= ALL_BELOW else SAMPLE
    if sample < min(2, n):
        raise UsageError.at("--sample", expected="at least 2 patches", found=str(sample))
    if sample >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))


def _total(sizes: NDArray[np.float64], n_patches: int) -> Estimate:
    """Total over all patches from those drawn: mean ± Student's t, with the correction for a finite population."""
    n, value = len(sizes), float(sizes.mean() * n_patches)
    if n == n_patches:
        return Estimate(float(sizes.sum()), float(sizes.sum()), float(sizes.sum()), n, n_patches)
    from scipy.stats import t  # noqa: PLC0415 - slow to import, and only samples need it

    error = float(sizes.std(ddof=1) / math.sqrt(n) * math.sqrt(1 - n / n_patches))
    half = float(t.ppf(0.975, n - 1)) * error * n_patches
    return Estimate(value, max(value - half, float(sizes.sum())), value + half, n, n_patches)


def _compared(
    store: Store, parts: Sequence[Part], dtype: np.dtype[Any], codec: str, compressed: Estimate
) -> FullGaussian:
    by_name = {part.name: part for part in parts}
    image, target = by_name[IMAGE], by_name.get(GAUSSIAN)
    raw = len(store) * len(store.classes) * math.prod(store.patch_shape) * dtype.itemsize
    ours_raw, ours_on_disk = sum(part.raw for part in parts), sum(part.on_disk for part in parts)

    memory = loaded_bytes(store)
    loaded_full = memory.image + memory.full_gaussian[dtype.name]

    def ratio(size: float) -> float:
        return (image.on_disk + size) / ours_on_disk

    return FullGaussian(
        dtype=dtype.name,
        codec=codec,
        raw=raw,
        compressed=compressed,
        ratio_raw=(image.raw + raw) / ours_raw,
        ratio_on_disk=replace(
            compressed, value=ratio(compressed.value), low=ratio(compressed.low), high=ratio(compressed.high)
        ),
        ratio_in_memory=loaded_full / (memory.image + memory.gaussian + memory.keypoints),
        gaussian_ratio_raw=None if target is None else raw / target.raw,
        gaussian_ratio_on_disk=None if target is None else compressed.value / target.on_disk,
    )


def _coarse_bytes(store: Store) -> int:
    itemsize = store.gaussian_array.dtype.itemsize if store.has_gaussian else np.dtype(np.float32).itemsize
    return len(store.classes) * math.prod(store.grid_shape) * itemsize


def _image_chunks(store: Store) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    """Codecs and shape of the image's inner chunks."""
    metadata = read_array_metadata(local_folder(store) / IMAGE)
    configuration = dig(metadata, "codecs", 0, "configuration")
    chain, chunk_shape = dig(configuration, "codecs"), dig(configuration, "chunk_shape")
    if not isinstance(chain, list) or not isinstance(chunk_shape, list):
        raise StoreError.at(
            f"{store.path}/{IMAGE}", expected="shards as the schema has them", found="others", hint="see schema.md"
        )
    return chain, tuple(chunk_shape[1:])


def _chains(chain: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]) -> list[list[dict[str, Any]]]:
    """The image's codecs and our own choice for a dtype; once where they are the same."""
    own = chain_metadata(choose_codec("auto", dtype), dtype)
    alike = _chain_for(chain, dtype)
    return [alike] if describe_chain(alike) == describe_chain(own) else [alike, own]


def _chain_for(chain: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    """The image's codecs, set to another item size: byte order, and blosc's type size and shuffle."""
    adapted = []
    for step in chain:
        name, configuration = step["name"], dict(step.get("configuration", {}))
        if name == "bytes" and dtype.itemsize > 1:
            configuration["endian"] = "little"
        elif name == "blosc":
            configuration["typesize"] = dtype.itemsize
            configuration["shuffle"] = blosc_shuffle(str(configuration.get("cname")), dtype.itemsize)
        adapted.append({"name": name, "configuration": configuration})
    return adapted


def describe_chain(chain: Sequence[Mapping[str, Any]]) -> str:
    """The codecs of a chunk as text, such as "zstd:1, crc32c"; "none" where nothing compresses."""
    names = []
    for step in chain[1:]:
        level = dig(step, "configuration", "level") or dig(step, "configuration", "clevel")
        inner, shuffle = dig(step, "configuration", "cname"), dig(step, "configuration", "shuffle")
        name = f"{step['name']}-{inner}" if inner else str(step["name"])
        names.append(name + (f":{level}" if level else "") + (f" {shuffle}" if shuffle else ""))
    return ", ".join(names if len(names) > 1 else ["none", *names])
