"""The quick depth: everything that metadata, tables and the sizes of files tell, without reading a shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from keypatch.audit.attributes import (
    VolumeRecord,
    check_attributes,
    check_counts,
    check_report,
    check_sources,
    is_newer,
    read_volumes,
)
from keypatch.audit.contents import read_tables
from keypatch.audit.digests import FileDigests, check_files
from keypatch.audit.figures import span
from keypatch.audit.findings import Findings
from keypatch.audit.metadata import (
    ShardedSpec,
    array_json,
    check_groups,
    check_sharded,
    check_tables,
    dig,
    read_json,
)
from keypatch.audit.tree import Names, Tree, check_tree, first_missing, numbered, walk
from keypatch.errors import StoreError
from keypatch.formats.store import Store
from keypatch.formats.store.digest import ROOT_METADATA
from keypatch.formats.store.layout import shard_key
from keypatch.formats.store.schema import ATTRIBUTE, GAUSSIAN, IMAGE
from keypatch.formats.store.zarr_array import is_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray

_SHARD_AXES: Final = {IMAGE: 4, GAUSSIAN: 5}


@dataclass(frozen=True)
class Target:
    """A store as far as it could be read; what is damaged is not in it, and the checks that need it are left out.

    Attributes:
        folder: Of the store.
        attributes: Of the root, with the keys and types that `keypatch.open` demands.
        tree: Its files.
        arrays: `image` and `gaussian`, where their metadata is in order.
        tables: Small arrays that could be read whole, by path.
        volumes: Their records, None in place of unusable ones; None where there is no list.
        n_sources: Annotation sources.
        names: That the store may have; None where a newer minor version may have more.
        digests: Of its files, held against those recorded.
    """

    folder: Path
    attributes: Mapping[str, Any]
    tree: Tree
    arrays: Mapping[str, ShardedSpec]
    tables: Mapping[str, NDArray[Any]]
    volumes: tuple[VolumeRecord | None, ...] | None
    n_sources: int
    names: Names | None
    digests: FileDigests

    def has(self, *paths: str) -> bool:
        """Whether these tables could be read."""
        return all(path in self.tables for path in paths)

    def record(self, name: str, of: Literal["size", "sha256"]) -> NDArray[Any] | None:
        """What ``integrity/`` has of the shards of an array; None where it cannot be read, or is itself another."""
        path = f"integrity/{name}_{of}"
        if any(other.startswith(f"{path}/") for other in self.digests.others):
            return None
        return self.tables.get(path)

    def shard_name(self, name: str, unit: int) -> str:
        """Path of a shard's file below the store."""
        return f"{name}/{shard_key(unit, _SHARD_AXES[name])}"

    @property
    def sharded(self) -> tuple[str, ...]:
        """`image`, and `gaussian` where it is stored, whether their metadata is in order or not."""
        return (IMAGE, GAUSSIAN) if self.attributes["gaussian"]["stored"] else (IMAGE,)

    def n_shards(self, name: str) -> int:
        """Shards that an array has by its metadata or, where that is damaged, by what is recorded of them."""
        if name in self.arrays:
            return self.arrays[name].n_shards
        recorded = self.record(name, "size")
        return 0 if recorded is None else len(recorded)

    def shard_sizes(self, name: str) -> dict[int, int]:
        """Units of which the shard is there, to its bytes."""
        return numbered(self.tree, name, _SHARD_AXES[name] - 1, self.n_shards(name))

    @property
    def n_units(self) -> int:
        """Units up to the last that has a shard; what metadata claim beyond it is missing, and is not walked."""
        return max((unit + 1 for name in self.sharded for unit in self.shard_sizes(name)), default=0)


def open_target(path: str | PathLike[str], findings: Findings) -> Target:
    """Open a store for an audit and check its layout, down to the chunks of its tables.

    Raises:
        StoreError: If there is no keypatch store in a local folder, or one of another major version.
    """
    folder = Path(path)
    attributes = _root_attributes(folder)
    tree = walk(folder)
    gaussian = bool(attributes["gaussian"]["stored"])
    check_groups(folder, tree, findings)
    check_attributes(attributes, findings)
    arrays = _sharded_arrays(folder, tree, attributes, findings)
    image = arrays.get(IMAGE)
    specs = check_tables(folder, tree, image.n_patches if image else None, findings, gaussian=gaussian)
    n_shards = {name: spec.n_shards for name, spec in arrays.items()}
    names = Names(gaussian=gaussian, n_shards=n_shards, n_chunks={name: spec.n_chunks for name, spec in specs.items()})
    newer = is_newer(attributes)
    check_tree(tree, names, findings, judge_strays=not newer)
    tables = read_tables(folder, tree, specs, findings)
    volumes = read_volumes(folder, tree, attributes, findings)
    n_sources = check_sources(attributes, findings)
    check_report(attributes, findings)
    digests = check_files(folder, tree, attributes, findings)
    target = Target(folder, attributes, tree, arrays, tables, volumes, n_sources, None if newer else names, digests)
    _check_all_counts(target, findings)
    _check_scalings(target, findings)
    return target


def _root_attributes(folder: Path) -> Mapping[str, Any]:
    """What `keypatch.open` reads first. Where it fails at `image` only, the root is sound and the audit goes on."""
    if is_file(str(folder)) or "://" in str(folder):
        raise StoreError.at(
            folder, expected="a store in a local folder", found="a file or URL", hint="unpack or copy it to a folder"
        )
    try:
        return Store(folder).attributes
    except StoreError as error:
        if not str(error).startswith(" ".join(str(folder / IMAGE).split())):
            raise
    root = read_json(folder, Tree(files={ROOT_METADATA: 0}), ROOT_METADATA, Findings())
    attributes: Mapping[str, Any] = dig(root, "attributes", ATTRIBUTE)
    return attributes


def _sharded_arrays(
    folder: Path, tree: Tree, attributes: Mapping[str, Any], findings: Findings
) -> dict[str, ShardedSpec]:
    shapes = {IMAGE: tuple(attributes["patch_shape"])}
    if attributes["gaussian"]["stored"]:
        shapes[GAUSSIAN] = (len(attributes["classes"]), *attributes["grid_shape"])
    arrays = {}
    for name, item_shape in shapes.items():
        metadata = array_json(folder, tree, name, findings)
        spec = None if metadata is None else check_sharded(name, metadata, item_shape, findings)
        if spec is not None:
            arrays[name] = spec
    declared = attributes["gaussian"].get("dtype")
    stored = arrays[GAUSSIAN].dtype.name if GAUSSIAN in arrays else None
    if declared != stored and (GAUSSIAN in arrays or not attributes["gaussian"]["stored"]):
        findings.add("KP106", f"{ROOT_METADATA}: gaussian.dtype", expected=repr(stored), found=repr(declared))
    if len(arrays) == 2:
        _check_alike(arrays[IMAGE], arrays[GAUSSIAN], findings)
    return arrays


def _check_alike(image: ShardedSpec, gaussian: ShardedSpec, findings: Findings) -> None:
    where = f"{GAUSSIAN}/{ROOT_METADATA}"
    for code, mine, its, what in (
        ("KP104", gaussian.n_patches, image.n_patches, "patches"),
        ("KP105", gaussian.patches_per_shard, image.patches_per_shard, "patches a shard"),
    ):
        if mine != its:
            findings.add(code, where, expected=f"{its} {what}, as image has", found=mine)


def _check_all_counts(target: Target, findings: Findings) -> None:
    image = target.arrays.get(IMAGE)

    def rows(path: str) -> int | None:
        return len(target.tables[path]) if path in target.tables else None

    actual = {
        "patches": image.n_patches if image else rows("patches/volume_index"),
        "keypoints": rows("keypoints/class_index"),
        "annotations": rows("annotations/class_index"),
        "volumes": None if target.volumes is None else len(target.volumes),
        "units": image.n_shards if image else None,
    }
    check_counts(target.attributes, actual, findings)
    n_rows = rows("integrity/image_size")
    if image and n_rows is not None and n_rows != image.n_shards:
        found = f"{n_rows} rows"
        findings.add("KP104", "integrity", expected=f"{image.n_shards} rows, one a shard", found=found)


def _check_scalings(target: Target, findings: Findings) -> None:
    """The dtype that the voxels of each volume were brought to must be the one that is stored."""
    for k, record in enumerate(target.volumes or ()):
        dtype = None if record is None else dig(record.json, "scaling", "dtype")
        if dtype is not None and IMAGE in target.arrays and dtype != target.arrays[IMAGE].dtype.name:
            where = f"volumes/{ROOT_METADATA}: volumes[{k}].scaling.dtype"
            expected = f"{target.arrays[IMAGE].dtype.name}, as the image has"
            findings.add("KP109", where, expected=expected, found=repr(dtype)[:80], within="volumes")


def check_shard_files(target: Target, findings: Findings) -> None:
    """Report missing shards, and those whose size is not the recorded one."""
    for name in target.sharded:
        there, n_shards = target.shard_sizes(name), target.n_shards(name)
        missing = first_missing(there, n_shards, findings.cap)
        for unit in missing:
            found = f"no such file{_patches_of(target, name, unit)}"
            findings.add("KP113", target.shard_name(name, unit), expected="a shard", found=found, within=name)
        findings.add_uncounted("KP113", name, n_shards - len(there) - len(missing))
        recorded = target.record(name, "size")
        for unit, size in sorted(there.items()):
            if recorded is not None and unit < len(recorded) and size != recorded[unit]:
                where = target.shard_name(name, unit)
                findings.add("KP114", where, expected=f"{recorded[unit]} bytes", found=size, within=name)


def _patches_of(target: Target, name: str, unit: int) -> str:
    if name not in target.arrays:
        return ""
    patches = target.arrays[name].unit_patches(unit)
    return f" ({span(patches[0], patches[-1])})"
