"""Correct stores over random volumes, and the means to change one so that only one thing is wrong with it."""

from __future__ import annotations

import itertools
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from keypatch import __version__, gaussian
from keypatch.converters.crop import cut
from keypatch.converters.scaling import Scaling, measure, needs_range
from keypatch.formats.store import StoreLayout, write_metadata, write_unit
from keypatch.formats.store.codecs import choose_codec
from keypatch.formats.store.digest import file_digests, file_sha256, metadata_digest, store_digest
from keypatch.formats.store.layout import shard_key
from keypatch.formats.store.schema import AXES, COORDINATE_RULE, KINDS, SCHEMA_VERSION
from keypatch.formats.volumes import open_volume


@dataclass(frozen=True)
class Design:
    """What a made store is like. The defaults are as small as a store with everything in it can be."""

    seed: int = 0
    source_dtype: str = "int16"
    dtype: str = "uint8"
    patch_shape: tuple[int, int, int] = (16, 32, 24)
    ds_factor: tuple[int, int, int] = (4, 8, 4)
    chunk_shape: tuple[int, int, int] = (8, 16, 24)
    patches_per_shard: int = 3
    gaussian_dtype: str | None = "float32"
    padding: str = "zero"
    folds: int = 2
    classes: tuple[str, ...] = ("motor", "ribosome")
    ds_sigma: tuple[float, float, float] = (0.75, 0.5, 1.0)
    volume_shapes: tuple[tuple[int, int, int], ...] = ((40, 90, 60), (34, 100, 64))
    n_annotations: tuple[int, ...] = (6, 5)
    codec: str = "auto"


@dataclass(repr=False)
class Made:
    """A store and everything it was made of."""

    path: Path
    source: Path
    layout: StoreLayout
    columns: dict[str, NDArray[Any]]
    volumes: list[NDArray[Any]]
    images: list[NDArray[Any]]
    gaussians: list[NDArray[Any]]
    digest: str
    attributes: dict[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)


def make_store(folder: Path, design: Design = Design()) -> Made:
    """Write the volumes as NPY files below ``folder / "source"`` and the store ``folder / "store.zarr"``."""
    rng = np.random.default_rng(design.seed)
    source, path = folder / "source", folder / "store.zarr"
    path.mkdir(parents=True)
    volumes = [_write_volume(source / _relative(v), rng, design, shape) for v, shape in enumerate(design.volume_shapes)]
    annotations = _annotations(rng, design)
    columns = _columns(rng, design, annotations)
    layout = _layout(design, len(columns["patches/kind"]))
    scalings = [_scaling(volume, design) for volume in volumes]
    images, gaussians = _patches(design, layout, columns, source, scalings)
    pairs = list(itertools.zip_longest(images, gaussians))
    units = [write_unit(path, layout, u, (pairs[i] for i in layout.unit_patches(u))) for u in range(layout.n_units)]
    records = [_record(v, volumes[v], scalings[v], design) for v in range(len(volumes))]
    attributes = _attributes(design, layout, columns)
    digest = write_metadata(path, layout, units, columns, records, attributes)
    return Made(path, source, layout, columns, volumes, images, gaussians, digest, attributes, records)


def _relative(v: int) -> str:
    return f"day{v % 2}/tomo_{v}.npy"


def _write_volume(path: Path, rng: np.random.Generator, design: Design, shape: tuple[int, ...]) -> NDArray[Any]:
    dtype = np.dtype(design.source_dtype)
    values = rng.normal(100, 30, shape)
    volume = np.clip(values, 0, 250).astype(dtype) if dtype.kind != "f" else values.astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, volume)
    return volume


def _annotations(rng: np.random.Generator, design: Design) -> dict[str, NDArray[Any]]:
    volume = np.repeat(np.arange(len(design.volume_shapes)), design.n_annotations)
    # The first of each volume is in the middle, so that some patches need no padding.
    coords = [
        np.vstack([np.array(shape) / 2.1, rng.uniform(0, np.array(shape) - 1, (n - 1, 3))])
        for shape, n in zip(design.volume_shapes, design.n_annotations, strict=True)
    ]
    within = np.concatenate([np.arange(n) for n in design.n_annotations])
    score = rng.random(len(volume))
    score[::3] = np.nan
    return {
        "annotations/volume_index": volume.astype(np.int32),
        "annotations/coords": np.concatenate(coords),
        "annotations/class_index": rng.integers(0, len(design.classes), len(volume)).astype(np.int32),
        "annotations/source_index": (within >= 3).astype(np.int32),
        "annotations/source_row": np.arange(len(volume), dtype=np.int64),
        "annotations/score": score,
    }


def _columns(rng: np.random.Generator, design: Design, annotations: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    size, factor = np.array(design.patch_shape), np.array(design.ds_factor)
    owner, origins, kinds = [], [], []
    for v, shape in enumerate(design.volume_shapes):
        mine = annotations["annotations/coords"][annotations["annotations/volume_index"] == v]
        centred = np.floor(mine[:3] + 0.5).astype(int) - size // 2 + rng.integers(-3, 4, (len(mine[:3]), 3))
        corners = np.array([-size // 4, np.array(shape) - size // 2])
        boxes = centred if design.padding != "inside" else np.clip(centred, 0, np.array(shape) - size)
        extra = corners if design.padding != "inside" else np.array([(0, 0, 0)])
        owner += [v] * (len(boxes) + len(extra))
        origins += [*boxes, *extra]
        kinds += [0] * len(boxes) + [4] * len(extra)
    n = len(owner)
    origin = np.array(origins, np.int64)
    shapes = np.array(design.volume_shapes)[owner]
    spacing = np.array([_spacing(v) for v in range(len(design.volume_shapes))])[owner]
    sigma = np.tile(np.array(design.ds_sigma), (n, 1))
    columns = {
        "patches/volume_index": np.array(owner, np.int32),
        "patches/origin": origin,
        "patches/valid_start": np.maximum(-origin, 0).astype(np.int32),
        "patches/valid_stop": np.minimum(shapes - origin, size).astype(np.int32),
        "patches/kind": np.array(kinds, np.int8),
        "patches/fold": np.array([_fold(v, design) for v in owner], np.int16),
        "patches/ds_sigma": sigma,
        "patches/angstrom_sigma": sigma * factor * spacing,
        "patches/voxel_spacing": spacing,
    }
    return columns | annotations | _keypoints(design, columns, annotations)


def _keypoints(
    design: Design, columns: dict[str, NDArray[Any]], annotations: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Point by point and patch by patch, as the schema's text has it."""
    factor, grid = np.array(design.ds_factor), np.array(design.patch_shape) // design.ds_factor
    offsets, rows, chosen = [0], [], []
    for p, origin in enumerate(columns["patches/origin"]):
        for a, point in enumerate(annotations["annotations/coords"]):
            ds = (point - origin + 0.5) / factor - 0.5
            margin = 6 * columns["patches/ds_sigma"][p]
            near = all(-0.5 - margin[k] <= ds[k] < grid[k] - 0.5 + margin[k] for k in range(3))
            if near and annotations["annotations/volume_index"][a] == columns["patches/volume_index"][p]:
                rows.append((point, point - origin, ds))
                chosen.append(a)
        offsets.append(len(rows))
    coords = np.array(rows, np.float64).reshape(-1, 3, 3)
    return {
        "patches/keypoint_offsets": np.array(offsets, np.int64),
        "keypoints/global_coords": np.ascontiguousarray(coords[:, 0]),
        "keypoints/local_rs_coords": np.ascontiguousarray(coords[:, 1]),
        "keypoints/local_ds_coords": np.ascontiguousarray(coords[:, 2]),
        "keypoints/class_index": annotations["annotations/class_index"][chosen].astype(np.int32),
        "keypoints/annotation_index": np.array(chosen, np.int64),
    }


def _layout(design: Design, n_patches: int) -> StoreLayout:
    image, target = np.dtype(design.dtype), np.dtype(design.gaussian_dtype or "float32")
    return StoreLayout(
        n_patches,
        design.patch_shape,
        design.ds_factor,
        len(design.classes),
        image,
        choose_codec(design.codec, image),
        design.chunk_shape,
        design.patches_per_shard,
        target if design.gaussian_dtype else None,
        choose_codec(design.codec, target),
    )


def _scaling(volume: NDArray[Any], design: Design) -> Scaling:
    stored = np.dtype(design.dtype)
    if not needs_range(volume.dtype, stored, None):
        return Scaling(stored.name)
    return measure("volume", lambda: [volume], stored, (0.5, 99.5))


def _patches(
    design: Design, layout: StoreLayout, columns: dict[str, NDArray[Any]], source: Path, scalings: list[Scaling]
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    images, gaussians = [], []
    for i, v in enumerate(columns["patches/volume_index"].tolist()):
        with open_volume(source / _relative(v)) as volume:
            origin = columns["patches/origin"][i].tolist()
            images.append(cut(volume, origin, design.patch_shape, scaling=scalings[v], padding=design.padding))
        if layout.gaussian_dtype is not None:
            rows = slice(*columns["patches/keypoint_offsets"][i : i + 2].tolist())
            gaussians.append(
                gaussian.render(
                    columns["keypoints/local_ds_coords"][rows],
                    columns["keypoints/class_index"][rows],
                    n_classes=layout.n_classes,
                    grid=layout.grid,
                    sigma=columns["patches/ds_sigma"][i],
                    dtype=layout.gaussian_dtype,
                )
            )
    return images, gaussians


def _spacing(v: int) -> list[float]:
    return [10.012 + v, 10.012, 10.012]


def _fold(v: int, design: Design) -> int:
    return v % design.folds if design.folds else -1


def _record(v: int, volume: NDArray[Any], scaling: Scaling, design: Design) -> dict[str, Any]:
    return {
        "id": f"tomo_{v}",
        "path": _relative(v),
        "format": "npy",
        "options": {"array": None, "level_spacing": None, "unsigned": False},
        "shape": list(volume.shape),
        "dtype": volume.dtype.name,
        "voxel_spacing": _spacing(v),
        "voxel_spacing_from": "flag",
        "fold": _fold(v, design),
        "conventions": {"axis_order": "zyx"},
        "scaling": scaling.to_json(),
    }


def _attributes(design: Design, layout: StoreLayout, columns: dict[str, NDArray[Any]]) -> dict[str, Any]:
    convention = {
        "unit": "voxel",
        "axis_order": "zyx",
        "zero": "voxel-center",
        "index_base": 0,
        "inferred": [],
        "notes": [],
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "writer": f"keypatch {__version__}",
        "axes": list(AXES),
        "patch_shape": list(layout.patch_shape),
        "ds_factor": list(layout.ds_factor),
        "grid_shape": list(layout.grid),
        "classes": list(design.classes),
        "kinds": list(KINDS),
        "folds": design.folds,
        "coordinate_rule": dict(COORDINATE_RULE),
        "gaussian": {
            "stored": design.gaussian_dtype is not None,
            "dtype": design.gaussian_dtype,
            "combine": "max",
            "reach": 6.0,
        },
        "counts": {
            "patches": layout.n_patches,
            "keypoints": len(columns["keypoints/class_index"]),
            "annotations": len(columns["annotations/class_index"]),
            "volumes": len(design.volume_shapes),
            "units": layout.n_units,
        },
        "sources": [
            {
                "path": f"{name}.csv",
                "format": "csv",
                "convention": {**convention, "inferred": [], "notes": []},
                "rows": 9,
                "warnings": [],
            }
            for name in ("first", "second")
        ],
        "recipe": {"padding": design.padding, "seed": design.seed, "codec": design.codec},
        "report": {"left_out": [{"what": "rows", "reason": "outside", "count": 1, "items": ["row 3"]}], "warnings": []},
    }


@dataclass(frozen=True, repr=False)
class Spoiled:
    """A copy of a made store that a test spoils; stands for the copy's path."""

    made: Made
    path: Path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__


def copy_of(made: Made, folder: Path) -> Spoiled:
    """A copy of the store that may be spoiled."""
    return Spoiled(made, Path(shutil.copytree(made.path, folder / "copy.zarr", symlinks=True)))


Mutation = Callable[[Spoiled], object]


@dataclass(frozen=True)
class Case:
    """One way to break a store: what it does, the code, the beginning of the place, the least depth that finds it."""

    name: str
    mutate: Mutation
    code: str
    where: str
    depth: str = "quick"

    def __str__(self) -> str:
        return self.name


def edit_json(path: Path, edit: Any) -> None:
    """Read a JSON file, let ``edit`` change it in place, write it back."""
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def edit_attributes(store: Spoiled | Path, edit: Any) -> None:
    """Change the root's own attributes in place."""
    edit_json(store / "zarr.json", lambda value: edit(value["attributes"]["keypatch"]))


def edit_table(store: Spoiled | Path, path: str, edit: Any) -> None:
    """Change a table in place and write its chunks validly again; ``edit`` may give another array back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = zarr.open_array(store / path, mode="r")[...]
        after = edit(before)
        values = np.asarray(before if after is None else after)
        shutil.rmtree(store / path)
        array = zarr.create_array(
            Path(store),
            name=path,
            shape=values.shape,
            chunks=(min(max(len(values), 1), 65536), *values.shape[1:]),
            dtype=values.dtype,
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            fill_value=0,
            config={"write_empty_chunks": True},
            zarr_format=3,
        )
        array[...] = values


def reseal(store: Spoiled | Path, *, shards: bool = False) -> None:
    """Make all digests (and, if asked, the hashes and sizes of shards) those of the files that are there now."""
    if shards:
        for name, axes in (("image", 4), ("gaussian", 5)):
            if not (store / name).is_dir():
                continue
            files = [store / name / shard_key(u, axes) for u in range(len(list((store / name / "c").iterdir())))]
            hashes = np.array([list(file_sha256(file)) for file in files], np.uint8)
            sizes = np.array([file.stat().st_size for file in files], np.int64)
            edit_table(store, f"integrity/{name}_sha256", lambda _, new=hashes: new)
            edit_table(store, f"integrity/{name}_size", lambda _, new=sizes: new)
    files = file_digests(Path(store))
    metadata = metadata_digest(files)

    def seal(attributes: dict[str, Any]) -> None:
        attributes["digests"] = {
            "metadata": metadata,
            "store": store_digest(metadata, attributes),
            "files": files,
        }

    edit_attributes(store, seal)


def rewrite_shards(store: Spoiled, images: list[NDArray[Any]], gaussians: list[NDArray[Any]]) -> None:
    """Write all shards again, validly, with other values, and seal the store."""
    layout = store.made.layout
    pairs = list(itertools.zip_longest(images, gaussians))
    for unit in range(layout.n_units):
        write_unit(store.path, layout, unit, (pairs[i] for i in layout.unit_patches(unit)))
    reseal(store, shards=True)


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Turn one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(bytes(data))


def swap(a: Path, b: Path) -> None:
    """Exchange the contents of two files."""
    first, second = a.read_bytes(), b.read_bytes()
    assert first != second
    a.write_bytes(second)
    b.write_bytes(first)


def flipped(name: str, at: int, bit: int = 0) -> Mutation:
    """Turns one bit of a file."""
    return lambda store: flip(store / name, at, bit)


def attribute(**values: object) -> Mutation:
    """Sets attributes of the root."""
    return lambda store: edit_attributes(store, lambda attributes: attributes.update(values))


def nested(name: str, *keys: str | int, value: object) -> Mutation:
    """Sets one value deep in a JSON file; None takes it away."""

    def change(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        if value is None:
            tree.pop(keys[-1])
        else:
            tree[keys[-1]] = value

    return lambda store: edit_json(store / name, change)


def volume(k: int, **values: object) -> Mutation:
    """Sets values of a volume's record."""

    def change(tree: Any) -> None:
        tree["attributes"]["keypatch"]["volumes"][k].update(values)

    return lambda store: edit_json(store / "volumes/zarr.json", change)


def cell(path: str, row: Any, value: object) -> Mutation:
    """Sets one entry of a table; its chunk stays valid."""
    return lambda store: edit_table(store, path, lambda values: values.__setitem__(row, value))


def nudge(path: str, row: int, axis: int) -> Mutation:
    """Moves one coordinate to the next float64: one bit."""

    def change(values: NDArray[Any]) -> None:
        values[row, axis] = np.nextafter(values[row, axis], np.inf)

    return lambda store: edit_table(store, path, change)
