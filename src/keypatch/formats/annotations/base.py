"""The contract of an annotation reader: what it returns, what it declares, what flags may settle."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from keypatch.geometry import Shape3, Unit, Vector3, Zero

POINT_COLUMNS = ("volume", "z", "y", "x", "class_name", "score", "source_row")


@dataclass(frozen=True)
class Convention:
    """What the three numbers of a source's row mean.

    Attributes:
        unit: Of the coordinates.
        axis_order: Meaning of the source's three values, in the order in which the source lists them: a permutation
            of "xyz".
        zero: The point that the coordinate (0, 0, 0) names. World coordinates of medical files are in the LPS frame: a
            reader of a RAS file turns x and y round, and says so in ``notes``.
        index_base: 1 where the source counts its first voxel as 1, else 0.
        inferred: Names of the attributes above that no text states outright; a flag may change them.
        notes: What else was assumed or done (shifts subtracted, pixel sizes multiplied), one line each.
    """

    unit: Unit
    axis_order: str
    zero: Zero = "voxel-center"
    index_base: int = 0
    inferred: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def overridden(self, options: AnnotationOptions) -> Convention:
        """The same with what the person's flags say; a stated attribute is no longer inferred."""
        stated: dict[str, Any] = {
            name: value
            for name in ("unit", "axis_order", "zero", "index_base")
            if (value := getattr(options, name)) is not None
        }
        return replace(self, **stated, inferred=tuple(name for name in self.inferred if name not in stated))


@dataclass(frozen=True)
class AnnotationOptions:
    """What a flag may settle about an annotation file; None leaves it to the reader.

    Attributes:
        format: Name of the format, when the content shall not decide.
        unit: See `Convention`.
        axis_order: See `Convention`.
        zero: See `Convention`.
        index_base: See `Convention`.
        columns: Role ("volume", "z", "y", "x", "class", "score") to the name, or the number from 0, of a column.
        delimiter: Of a text table; None finds it out.
        header: Whether a text table has a line of names; None finds it out.
        tomograms: A file that says which tomograms the annotations name: a RELION tomograms.star (sizes, spacings and
            file names), or a Dynamo volume list or table of numbers and file names.
    """

    format: str | None = None
    unit: Unit | None = None
    axis_order: str | None = None
    zero: Zero | None = None
    index_base: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    delimiter: str | None = None
    header: bool | None = None
    tomograms: Path | None = None


@dataclass(frozen=True)
class VolumeHint:
    """What an annotation file says of a volume that it names.

    Attributes:
        voxel_spacing: Å, z, y, x.
        shape: Voxels, z, y, x.
        file_stem: Name of the volume's file without folder and suffixes, where the annotation file names one.
    """

    voxel_spacing: Vector3 | None = None
    shape: Shape3 | None = None
    file_stem: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """Rows that were read and not used; nothing is left out without one of these.

    Attributes:
        reason: One phrase for a person, the same for all rows of one kind.
        rows: Their `source_row` numbers.
        detail: The value that was found, where one says more than the reason.
    """

    reason: str
    rows: tuple[int, ...]
    detail: str = ""


@dataclass(frozen=True)
class AnnotationTable:
    """One annotation file, read into the one in-memory model.

    Attributes:
        path: The file.
        format: Name of the format in the registry.
        convention: What the coordinates mean; `keypatch.geometry.voxel_index` takes its parts.
        points: One row a keypoint, columns `POINT_COLUMNS`:
            ``volume`` (str, or None where the file names no volume); ``z``, ``y``, ``x`` (finite float64, in the
            convention's unit and from its zero, axis order undone and shifts applied exactly once); ``class_name``
            (str, or None where the file has no classes); ``score`` (float64, NaN where there is none);
            ``source_row`` (int64, number of the record in its file from 0, a header not counted).
        volumes: Every volume that the file names, in order of appearance, also those it says have no keypoint.
        left_out: Rows that are in the file and not in ``points``. A row that states "no keypoint here" (BYU's -1, -1,
            -1) is not left out: it has done its work in ``volumes``.
        warnings: One line each.
    """

    path: Path
    format: str
    convention: Convention
    points: pd.DataFrame
    volumes: Mapping[str, VolumeHint] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()


def zyx(values: ArrayLike, axis_order: str) -> NDArray[np.float64]:
    """Put the columns of (K, 3) source coordinates into z, y, x order.

    Args:
        values: (K, 3), the columns in the order in which the source lists them.
        axis_order: What these columns are: a permutation of "xyz".

    Raises:
        UsageError: If ``axis_order`` is no permutation of "xyz".
    """
    if sorted(axis_order) != ["x", "y", "z"]:
        raise UsageError.at("--axis-order", expected="a permutation of xyz, such as zyx", found=repr(axis_order))
    return np.asarray(values, np.float64).reshape(-1, 3)[:, [axis_order.index(axis) for axis in "zyx"]]


def point_frame(
    coords_zyx: ArrayLike,
    *,
    volume: Sequence[str | None],
    source_row: ArrayLike,
    class_name: Sequence[str | None] | None = None,
    score: ArrayLike | None = None,
) -> pd.DataFrame:
    """Build the ``points`` of an `AnnotationTable` from its columns, with the dtypes that it promises.

    Args:
        coords_zyx: (K, 3) float.
        volume: K names or None.
        source_row: (K,) integers.
        class_name: K names or None; all None when left out.
        score: (K,) floats; all NaN when left out.
    """
    points = np.asarray(coords_zyx, np.float64).reshape(-1, 3)
    n = len(points)
    return pd.DataFrame(
        {
            # As Series: pandas 3 makes an array of texts a column of its own string type, where None is NaN.
            "volume": pd.Series(list(volume), dtype=object),
            "z": points[:, 0],
            "y": points[:, 1],
            "x": points[:, 2],
            "class_name": pd.Series([None] * n if class_name is None else list(class_name), dtype=object),
            "score": np.full(n, np.nan) if score is None else np.asarray(score, np.float64),
            "source_row": np.asarray(source_row, np.int64).reshape(-1),
        },
        columns=list(POINT_COLUMNS),
    )
