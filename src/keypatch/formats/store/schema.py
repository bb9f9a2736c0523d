"""Names, dtypes and versions of a keypatch store: every on-disk name is written here once.

``schema.md`` at the repository's root is the same in prose; a test holds the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

SCHEMA_VERSION: Final = "1.0"
"""Major.minor. A minor version only adds; a reader takes every minor version of its major."""

ATTRIBUTE: Final = "keypatch"
"""Key in the attributes of the root group (and of a subgroup) under which everything of ours lies."""

AXES: Final = ("z", "y", "x")

Kind: TypeAlias = Literal["centered", "multi", "hard_negative", "negative", "grid"]
KINDS: Final[tuple[Kind, ...]] = ("centered", "multi", "hard_negative", "negative", "grid")
"""How a patch came to be; ``patches/kind`` holds the position in this tuple."""

NO_FOLD: Final = -1
"""Value of ``patches/fold`` where no folds were asked for."""

IMAGE: Final = "image"
"""(N, D, H, W) patches, sharded along N."""

GAUSSIAN: Final = "gaussian"
"""(N, C, d, h, w) targets, with the same patches a shard as the image; optional."""

COORDINATE_RULE: Final = {
    "voxel_center": "voxel i covers [i - 0.5, i + 0.5)",
    "local_rs_coords": "global_coords - origin",
    "local_ds_coords": "(local_rs_coords + 0.5) / ds_factor - 0.5",
    "angstrom_sigma": "ds_sigma * ds_factor * voxel_spacing",
}

COMBINE: Final = "max"

Rows: TypeAlias = Literal["patches", "patches+1", "keypoints", "annotations", "units"]


@dataclass(frozen=True)
class Table:
    """One small array of a store.

    Attributes:
        path: Below the root.
        dtype: numpy's name; little-endian on disk.
        rows: What its first axis counts.
        columns: Size of the second axis; 0 for an array of one axis.
        meaning: One line.
    """

    path: str
    dtype: str
    rows: Rows
    columns: int
    meaning: str

    def shape(self, n_rows: int) -> tuple[int, ...]:
        """Shape with this many rows."""
        return (n_rows, self.columns) if self.columns else (n_rows,)


TABLES: Final = (
    Table("patches/volume_index", "int32", "patches", 0, "position in the list of volumes"),
    Table("patches/origin", "int64", "patches", 3, "volume index of voxel (0, 0, 0); negative where padded"),
    Table("patches/valid_start", "int32", "patches", 3, "first patch index that lies in the volume"),
    Table("patches/valid_stop", "int32", "patches", 3, "first patch index after those that lie in the volume"),
    Table("patches/kind", "int8", "patches", 0, "position in the list of kinds"),
    Table("patches/fold", "int16", "patches", 0, "fold of its volume; -1 where there are no folds"),
    Table("patches/ds_sigma", "float64", "patches", 3, "sigma of the Gaussian in coarse voxels"),
    Table("patches/angstrom_sigma", "float64", "patches", 3, "the same sigma in Å"),
    Table("patches/voxel_spacing", "float64", "patches", 3, "Å a voxel of the volume"),
    Table(
        "patches/keypoint_offsets",
        "int64",
        "patches+1",
        0,
        "rows [o[i], o[i+1]) of keypoints/ belong to patch i",
    ),
    Table("keypoints/global_coords", "float64", "keypoints", 3, "voxel-index coordinates in the volume"),
    Table("keypoints/local_rs_coords", "float64", "keypoints", 3, "voxel-index coordinates in the patch"),
    Table("keypoints/local_ds_coords", "float64", "keypoints", 3, "index coordinates on the patch's coarse grid"),
    Table("keypoints/class_index", "int32", "keypoints", 0, "position in the list of classes"),
    Table("keypoints/annotation_index", "int64", "keypoints", 0, "row of annotations/ that it comes from"),
    Table("annotations/volume_index", "int32", "annotations", 0, "position in the list of volumes"),
    Table("annotations/coords", "float64", "annotations", 3, "voxel-index coordinates in the volume"),
    Table("annotations/class_index", "int32", "annotations", 0, "position in the list of classes"),
    Table("annotations/source_index", "int32", "annotations", 0, "position in the list of annotation sources"),
    Table("annotations/source_row", "int64", "annotations", 0, "number of the record in that source, from 0"),
    Table("annotations/score", "float64", "annotations", 0, "score that the source gives; NaN where none"),
    Table("integrity/image_sha256", "uint8", "units", 32, "sha256 of the shard of image"),
    Table("integrity/image_size", "int64", "units", 0, "bytes of the shard of image"),
    Table(
        "integrity/gaussian_sha256",
        "uint8",
        "units",
        32,
        "sha256 of the shard of gaussian; absent without gaussian",
    ),
    Table(
        "integrity/gaussian_size",
        "int64",
        "units",
        0,
        "bytes of the shard of gaussian; absent without gaussian",
    ),
)

GROUPS: Final = ("patches", "keypoints", "annotations", "volumes", "integrity")

TABLE_ROWS_PER_CHUNK: Final = 65536
"""Rows a chunk of the small arrays: 1.5 MiB of coordinates, and 10^6 patches make 16 files."""


def tables(*, gaussian: bool) -> tuple[Table, ...]:
    """The small arrays that a store has, with or without stored Gaussians."""
    return tuple(table for table in TABLES if gaussian or not table.path.startswith("integrity/gaussian"))


def parse_version(version: object) -> tuple[int, int] | None:
    """``"1.0"`` as (1, 0); None for anything that is no version."""
    if not isinstance(version, str):
        return None
    parts = version.split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return int(parts[0]), int(parts[1])
