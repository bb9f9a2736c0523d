"""From heatmaps of patches to detections in volumes: peaks placed, then merged where patches overlap.

    import keypatch
    from keypatch.detections import detect

    store = keypatch.open("out.zarr")
    found = detect(store, heatmaps)                     # (N, C, d, h, w) in the store's order of patches
    found = detect(store, heatmaps, samples=samples)    # of augmented samples: each point goes back through its map

A heatmap knows a point the better the more of its Gaussian it holds, so a peak counts less where the border cuts the
target: by its distance from the border over two sigmas, 5 % at least. The peaks of one point, at most one of each
heatmap, become their mean, weighted by score and by that; those that count less than half of the best only confirm it.
What most heatmaps that hold a place do not show is none: near its border, one sees the tails of what lies outside.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np

from keypatch.errors import UsageError
from keypatch.peaks import THRESHOLD, Peaks, find_peaks
from keypatch.views import View

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from keypatch.augment.sample import Sample
    from keypatch.formats.store import Store
    from keypatch.geometry import Vector3

COLUMNS: Final = ("volume", "class_name", "z", "y", "x", "score", "n_views", "agreement", "patch")
"""Of the table of detections, in this order; see `detect`."""

MUCH_LESS: Final = 0.5
"""Of the best view's weight: a view that holds less of a point has no say in where it is."""

AGREEMENT: Final = 0.3
"""Share of the weight of the heatmaps that hold a place from which on they are believed to show a point there."""


class Heatmaps(Protocol):
    """What `detect` asks of an array of heatmaps: a numpy array, a memory map or a Zarr array has it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, d, h, w)."""
        ...

    def __getitem__(self, index: int, /) -> Any:  # noqa: ANN401 - whatever numpy makes an array of
        """(C, d, h, w) of one patch."""
        ...


@dataclass(frozen=True)
class Search:
    """How peaks are found and merged.

    Attributes:
        threshold: Least height of a Gaussian.
        sigma_ds: (3,) in coarse voxels of the heatmap; None takes the store's, which is one length in all volumes.
        fit_sigma: Fit sigma at each peak instead.
        distance_angstrom: Peaks at most so far apart are one; one sigma where neither distance is given.
        distance_voxels: The same in voxels of the volume.
        agreement: Least share, by weight, of the heatmaps that hold a place that must show the point; 0 asks for none.
    """

    threshold: float = THRESHOLD
    sigma_ds: Vector3 | None = None
    fit_sigma: bool = False
    distance_angstrom: float | None = None
    distance_voxels: float | None = None
    agreement: float = AGREEMENT

    def __post_init__(self) -> None:
        if self.distance_angstrom is not None and self.distance_voxels is not None:
            raise UsageError.at("distance", expected="one, in Å or in voxels", found="both")
        if self.sigma_ds is not None and self.fit_sigma:
            raise UsageError.at("sigma", expected="one that is given or one that is fitted", found="both")
        for name in ("threshold", "distance_angstrom", "distance_voxels"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise UsageError.at(name, expected="a number above 0", found=f"{value}")
        if not 0 <= self.agreement <= 1:
            raise UsageError.at("agreement", expected="a number from 0 to 1", found=f"{self.agreement}")

    def reach(self, view: View) -> NDArray[np.float64]:
        """(3,) voxels: peaks within the ellipsoid of these axes are one."""
        if self.distance_voxels is not None:
            return np.full(3, float(self.distance_voxels))
        if self.distance_angstrom is not None:
            return np.asarray(self.distance_angstrom / view.spacing, np.float64)
        return view.sigma_ds * view.factor


@dataclass(frozen=True, eq=False)
class Found:
    """Peaks in their volumes, before those of one point are merged: one array an attribute, all of one length.

    Attributes:
        volume_index: int64, in the store's volumes.
        class_index: int64, in the store's classes.
        coords: (P, 3) float64 voxel-index coordinates in the volume.
        score: float64 height of the Gaussian.
        weight: float64 in (0, 1], how much of the Gaussian the heatmap holds.
        reach: (P, 3) float64 as `Search.reach` gives it.
        view: int64, number of the heatmap.
        n_views: int64, heatmaps that show it: 1 each.
        agreement: float64 share, by weight, of the heatmaps that hold its place which show it; 1 until known.
    """

    volume_index: NDArray[np.int64]
    class_index: NDArray[np.int64]
    coords: NDArray[np.float64]
    score: NDArray[np.float64]
    weight: NDArray[np.float64]
    reach: NDArray[np.float64]
    view: NDArray[np.int64]
    n_views: NDArray[np.int64]
    agreement: NDArray[np.float64]

    @classmethod
    def nothing(cls) -> Self:
        """No peak."""
        whole, real, rows = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 3))
        return cls(whole, whole, rows, real, real, rows, whole, whole, real)

    @classmethod
    def of(cls, peaks: Peaks, view: View, number: int, search: Search) -> Self:
        """Those peaks of a heatmap that are its to report."""
        coords, own = view.to_volume(peaks.local_ds)
        n = int(own.sum())
        return cls(
            np.full(n, view.volume_index),
            peaks.class_index[own].astype(np.int64),
            coords[own],
            peaks.score[own],
            view.weight(peaks.local_ds[own]),
            np.tile(search.reach(view), (n, 1)),
            np.full(n, number),
            np.ones(n, np.int64),
            np.ones(n),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """All of the parts, in their order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def take(self, rows: NDArray[Any]) -> Self:
        """Those of a mask or of row numbers."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.score)


def detect(
    store: Store, heatmaps: Heatmaps, search: Search = Search(), *, samples: Iterable[Sample] | None = None
) -> pd.DataFrame:
    """Find the keypoints that heatmaps show, in the volumes of their store.

    Args:
        store: Opened. Its images are not read.
        heatmaps: (N, C, d, h, w), read one by one: of every patch, in the store's order, or of the samples. The grid
            may be another than the store's, if the patch is a multiple of it.
        search: Threshold, sigma, and how far apart two peaks are two.
        samples: What each heatmap was predicted from, where not the patches as they lie in the store; several may be of
            one patch, as when a prediction is averaged over flips.

    Returns:
        One row a detection, by volume, class and falling score, columns `COLUMNS`: ``volume`` (str), ``class_name``
        (str), ``z``, ``y``, ``x`` (float64 voxel-index coordinates in the volume, as all of the store's),
        ``score`` (float64, about 1 at most), ``n_views`` (int64, how many heatmaps show it), ``agreement`` (float64,
        their share of the weight of those that hold the place) and ``patch`` (int64, where it counts most).

    Raises:
        UsageError: If the heatmaps do not fit the store or the samples, or hold values that are not finite.
        StoreError: If a table of the store cannot be read.
    """
    n, grid = _checked_shape(store, heatmaps, all_patches=samples is None)
    if samples is None:
        views = [View.of_patch(store, patch, grid, search.sigma_ds) for patch in range(n)]
    else:
        # One more than there may be is enough to see that there are too many.
        views = [View.of_sample(store, sample, grid, search.sigma_ds) for sample in islice(samples, n + 1)]
    if len(views) != n:
        found = f"{n} and {'more' if len(views) > n else len(views)} samples"
        raise UsageError.at("heatmaps", expected="one for each sample", found=found)
    parts = [Found.nothing()]
    for number, view in enumerate(views):
        parts.append(Found.of(_peaks(heatmaps, number, view, search), view, number, search))
    return _table(store, views, merge(Found.concatenate(parts), views, search.agreement))


def merge(found: Found, views: Sequence[View] = (), agreement: float = AGREEMENT) -> Found:
    """Make one of all peaks that are one point: greedy, the one that counts most first.

    Args:
        found: Peaks, of any number of volumes and classes.
        views: All heatmaps, also those without a peak; without them, all agree.
        agreement: As of `Search`.

    Returns:
        The detections by volume, class and falling score; ``coords`` the mean of their peaks weighted by score and
        weight, ``score`` by weight alone, ``weight`` their sum; ``view`` that of the peak that counts most.
    """
    parts = [Found.nothing()]
    keys = np.stack([found.volume_index, found.class_index], axis=1)
    for volume_index, class_index in np.unique(keys, axis=0):
        group = found.take((found.volume_index == volume_index) & (found.class_index == class_index))
        merged = _agreed(_merged(group), [view for view in views if view.volume_index == volume_index])
        merged = merged.take(merged.agreement >= agreement)
        parts.append(merged.take(np.argsort(-merged.score, kind="stable")))
    return Found.concatenate(parts)


def _checked_shape(store: Store, heatmaps: Heatmaps, *, all_patches: bool) -> tuple[int, tuple[int, ...]]:
    shape = tuple(int(n) for n in heatmaps.shape)
    if len(shape) != 5 or shape[1] != len(store.classes):
        expected = f"shape (N, {len(store.classes)}, d, h, w), a channel for each of the store's classes"
        raise UsageError.at("heatmaps", expected=expected, found=str(shape))
    if all_patches and shape[0] != len(store):
        raise UsageError.at("heatmaps", expected=f"one for each of the {len(store)} patches", found=str(shape[0]))
    return shape[0], shape[2:]


def _peaks(heatmaps: Heatmaps, number: int, view: View, search: Search) -> Peaks:
    covariance = None if search.fit_sigma else view.covariance
    try:
        return find_peaks(np.asarray(heatmaps[number]), sigma=None, covariance=covariance, threshold=search.threshold)
    except UsageError as error:
        message = f"heatmap {number}: {error}"
        raise UsageError(message) from error


def _merged(group: Found) -> Found:
    """The points of one class in one volume."""
    from scipy.spatial import cKDTree  # noqa: PLC0415 - a third of a second that reading stores need not wait for

    counts = group.score * group.weight
    # The reach is one length in a volume, so but for rounding one scale fits all of its peaks.
    scaled = group.coords / group.reach[0]
    tree, free = cKDTree(scaled), np.ones(len(group), np.bool_)
    parts = []
    for top in np.argsort(-counts, kind="stable"):
        if not free[top]:
            continue
        near = np.array(sorted(tree.query_ball_point(scaled[top], 1.0)), np.int64)
        near = near[free[near]]
        free[near] = False
        rows = _best_of_each_view(near, group.view, counts)
        held = rows[group.weight[rows] >= MUCH_LESS * group.weight[rows].max()]
        parts.append(
            replace(
                group.take(np.array([top])),
                coords=np.average(group.coords[held], axis=0, weights=counts[held])[None],
                score=np.average(group.score[held], weights=group.weight[held], keepdims=True),
                weight=group.weight[rows].sum(keepdims=True),
                n_views=np.array([len(rows)]),
            )
        )
    return Found.concatenate(parts)


def _best_of_each_view(
    rows: NDArray[np.int64], view: NDArray[np.int64], counts: NDArray[np.float64]
) -> NDArray[np.int64]:
    """One view shows a point once: its lower peaks nearby are noise."""
    ranked = rows[np.argsort(-counts[rows], kind="stable")]
    _, first = np.unique(view[ranked], return_index=True)
    return ranked[np.sort(first)]


def _agreed(merged: Found, views: Sequence[View]) -> Found:
    """With the share that the views which show each point have in the weight of all that hold its place."""
    held = np.zeros(len(merged))
    for view in views:
        held += view.weight_of_places(merged.coords)
    return replace(merged, agreement=np.minimum(1.0, merged.weight / np.maximum(held, merged.weight)))


def _table(store: Store, views: Sequence[View], found: Found) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 - half a second that reading stores need not wait for

    return pd.DataFrame(
        {
            "volume": pd.Series([store.volume_ids[i] for i in found.volume_index], dtype=object),
            "class_name": pd.Series([store.classes[i] for i in found.class_index], dtype=object),
            **{axis: found.coords[:, k] for k, axis in enumerate("zyx")},
            "score": found.score,
            "n_views": found.n_views,
            "agreement": found.agreement,
            "patch": np.array([views[number].patch for number in found.view], np.int64),
        },
        columns=list(COLUMNS),
    )
