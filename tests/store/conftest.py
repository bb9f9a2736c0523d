"""A maker of small stores, shared by the tests of `keypatch.formats.store`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest

from keypatch import geometry
from keypatch.formats.store import StoreLayout, UnitRecord, write_metadata, write_unit
from keypatch.formats.store.codecs import choose_codec
from keypatch.formats.store.schema import KINDS, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass
class Made:
    """A store, and everything that was given to the writer."""

    folder: Path
    layout: StoreLayout
    images: NDArray[Any]
    targets: NDArray[Any] | None
    columns: dict[str, NDArray[Any]]
    volumes: list[dict[str, Any]]
    attributes: dict[str, Any]
    records: list[UnitRecord]
    digest: str = ""

    def write_unit(self, unit: int) -> UnitRecord:
        return write_unit(self.folder, self.layout, unit, self.patches(unit))

    def patches(self, unit: int) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None]]:
        for i in self.layout.unit_patches(unit):
            yield self.images[i], None if self.targets is None else self.targets[i]

    def write(self, units: Iterable[int] | None = None) -> None:
        self.records = [self.write_unit(u) for u in (range(self.layout.n_units) if units is None else units)]
        self.write_metadata()

    def write_metadata(self) -> None:
        self.digest = write_metadata(
            self.folder, self.layout, self.records, self.columns, self.volumes, self.attributes
        )


class MakeStore(Protocol):
    """Build the parts of a store below ``folder``; `Made.write` puts them there."""

    def __call__(
        self,
        folder: Path,
        *,
        n_patches: int = 11,
        patch_shape: tuple[int, int, int] = (16, 24, 32),
        ds_factor: tuple[int, int, int] = (8, 4, 16),
        dtype: str = "uint8",
        codec: str = "auto",
        chunk_shape: tuple[int, int, int] | None = None,
        patches_per_shard: int = 4,
        gaussian_dtype: str | None = "float32",
        seed: int = 0,
    ) -> Made: ...


def voxels(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Random bits as voxels, so that every value of a dtype comes up; the last half of an array is constant."""
    values = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype)[..., 0].copy()
    if dtype.kind == "f":
        values[~np.isfinite(values)] = 0
    values.reshape(-1)[values.size // 2 :] = dtype.type(0)
    return values


def _make(
    folder: Path,
    *,
    n_patches: int = 11,
    patch_shape: tuple[int, int, int] = (16, 24, 32),
    ds_factor: tuple[int, int, int] = (8, 4, 16),
    dtype: str = "uint8",
    codec: str = "auto",
    chunk_shape: tuple[int, int, int] | None = None,
    patches_per_shard: int = 4,
    gaussian_dtype: str | None = "float32",
    seed: int = 0,
) -> Made:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    image_dtype, target_dtype = np.dtype(dtype), None if gaussian_dtype is None else np.dtype(gaussian_dtype)
    layout = StoreLayout(
        n_patches,
        patch_shape,
        ds_factor,
        2,
        image_dtype,
        choose_codec(codec, image_dtype),
        chunk_shape or patch_shape,
        patches_per_shard,
        target_dtype,
        choose_codec(codec, target_dtype or np.dtype("float32")),
    )
    images = np.stack([voxels(rng, patch_shape, image_dtype) for _ in range(n_patches)])
    targets = None
    if target_dtype is not None:
        targets = rng.random((n_patches, 2, *layout.grid)).astype(target_dtype)
    columns = _columns(rng, layout)
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "axes": ["z", "y", "x"],
        "patch_shape": list(patch_shape),
        "ds_factor": list(ds_factor),
        "grid_shape": list(layout.grid),
        "classes": ["motor", "ribosome é"],
        "kinds": list(KINDS),
        "gaussian": {"stored": target_dtype is not None, "dtype": gaussian_dtype, "combine": "max", "reach": 6.0},
        "counts": {"patches": n_patches, "units": layout.n_units},
        "sources": [{"path": "one.csv"}, {"path": "two.csv"}],
    }
    volumes = [{"id": f"tomo_{v}", "shape": [100, 200, 300]} for v in range(3)]
    return Made(folder, layout, images, targets, columns, volumes, attributes, [])


def _columns(rng: np.random.Generator, layout: StoreLayout) -> dict[str, NDArray[Any]]:
    n, n_annotations = layout.n_patches, 2 * layout.n_patches + 1
    counts = rng.integers(0, 4, n)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    n_keypoints = int(offsets[-1])
    origin = rng.integers(-20, 200, (n, 3))
    coords = rng.uniform(-20, 220, (n_keypoints, 3))
    local_rs = geometry.local_rs(coords, np.repeat(origin, counts, axis=0))
    sigma = rng.uniform(0.5, 2.0, (n, 3))
    spacing = rng.uniform(5.0, 20.0, (n, 3))
    start, stop = geometry.valid_box(origin, layout.patch_shape, (100, 200, 300))
    return {
        "patches/volume_index": rng.integers(0, 3, n, np.int32),
        "patches/origin": origin,
        "patches/valid_start": start.astype(np.int32),
        "patches/valid_stop": stop.astype(np.int32),
        "patches/kind": rng.integers(0, len(KINDS), n, np.int8),
        "patches/fold": rng.integers(-1, 5, n, np.int16),
        "patches/ds_sigma": sigma,
        "patches/angstrom_sigma": geometry.angstrom_sigma(sigma, layout.ds_factor, spacing),
        "patches/voxel_spacing": spacing,
        "patches/keypoint_offsets": offsets,
        "keypoints/global_coords": coords,
        "keypoints/local_rs_coords": local_rs,
        "keypoints/local_ds_coords": geometry.local_ds(local_rs, layout.ds_factor),
        "keypoints/class_index": rng.integers(0, 2, n_keypoints, np.int32),
        "keypoints/annotation_index": rng.integers(0, n_annotations, n_keypoints, np.int64),
        "annotations/volume_index": rng.integers(0, 3, n_annotations, np.int32),
        "annotations/coords": rng.uniform(0, 100, (n_annotations, 3)),
        "annotations/class_index": rng.integers(0, 2, n_annotations, np.int32),
        "annotations/source_index": rng.integers(0, 2, n_annotations, np.int32),
        "annotations/source_row": np.arange(n_annotations, dtype=np.int64),
        "annotations/score": np.where(np.arange(n_annotations) % 2, np.nan, 0.5),
    }


@pytest.fixture(scope="session")
def make_store() -> MakeStore:
    """Builds a store with random content of every kind."""
    return _make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One written store of several shards, several chunks a patch and stored Gaussians; not to be changed."""
    store = _make(tmp_path_factory.mktemp("made") / "s.zarr", chunk_shape=(8, 24, 16))
    store.write()
    return store
