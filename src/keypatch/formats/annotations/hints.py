"""What the rows of a table say of their volumes, checked against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keypatch.formats.annotations.base import VolumeHint

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from numpy.typing import NDArray

    from keypatch.geometry import Shape3, Vector3


def listed(names: Iterable[str], most: int = 5) -> str:
    """Names for a message: the first few and how many more."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def hints_of_rows(
    volumes: NDArray[Any], shapes: NDArray[np.float64], spacings: NDArray[np.float64]
) -> tuple[dict[str, VolumeHint], list[str]]:
    """One hint a volume from what each of its rows states.

    Args:
        volumes: (K,) names.
        shapes: (K, 3) voxels, z, y, x; NaN where a row states none.
        spacings: (K,) Å; NaN where a row states none.

    Returns:
        Volume to hint, in order of appearance, without what its rows contradict each other in or what is not above
        0; and one warning line for each kind of trouble.
    """
    stated = pd.DataFrame(
        {"volume": volumes, "z": shapes[:, 0], "y": shapes[:, 1], "x": shapes[:, 2], "spacing": spacings}
    )
    groups = stated.drop_duplicates().groupby("volume", sort=False)
    first, kinds = groups.first(), groups.nunique()
    shape_differs = (kinds[["z", "y", "x"]] > 1).any(axis=1)
    spacing_differs = kinds["spacing"] > 1
    bad_shape = (first[["z", "y", "x"]] <= 0).any(axis=1) | (first[["z", "y", "x"]] % 1 > 0).any(axis=1)
    bad_spacing = first["spacing"] <= 0
    warnings = [
        *_warning("rows contradict each other about the shape of", first.index[shape_differs]),
        *_warning("rows contradict each other about the voxel spacing of", first.index[spacing_differs]),
        *_warning("no whole numbers above 0 as the shape of", first.index[bad_shape]),
        *_warning("no voxel spacing above 0 for", first.index[bad_spacing]),
    ]
    first.loc[shape_differs | bad_shape, ["z", "y", "x"]] = np.nan
    first.loc[spacing_differs | bad_spacing, "spacing"] = np.nan
    shape_of = first[["z", "y", "x"]].to_numpy(dtype=np.float64)
    spacing_of = first["spacing"].to_numpy(dtype=np.float64)
    hints = {
        str(name): VolumeHint(voxel_spacing=_spacing(spacing), shape=_shape(shape))
        for name, spacing, shape in zip(first.index, spacing_of, shape_of, strict=True)
    }
    return hints, warnings


def _warning(what: str, volumes: pd.Index) -> list[str]:
    return [f"{what} {listed(map(str, volumes))}: left out"] if len(volumes) else []


def _spacing(value: float) -> Vector3 | None:
    return None if np.isnan(value) else (float(value), float(value), float(value))


def _shape(values: NDArray[np.float64]) -> Shape3 | None:
    if np.isnan(values).any():
        return None
    z, y, x = (int(value) for value in values)
    return z, y, x
