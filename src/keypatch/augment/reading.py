"""From a store and a map to a sample: one pass over the window that the map needs, and its keypoints."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch import geometry
from keypatch.augment.maps import Map
from keypatch.augment.resample import resample_window, window_of
from keypatch.augment.sample import Keypoints, Sample
from keypatch.errors import UsageError
from keypatch.gaussian import REACH

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from keypatch.formats.store import Patch, Store

_SAME_OBJECT = 1.0
"""Voxels from which on a mirror image is an object of its own: a point that lies on the mirror has none."""

LARGEST_MIRRORING: Final = 2**17
"""Mirror images of a patch that a sample may show; the smallest scale that `Geometric` takes, turned, shows 50 000."""


def read_sample(
    store: Store,
    patch: int,
    map: Map | None = None,
    *,
    sigma_rs: ArrayLike | None = None,
    reach: float = REACH,
    resampled: bool = True,
) -> Sample:
    """Read one patch through a map.

    A keypoint is kept where it, or its mirror image, lies within reach of the sample's box: its Gaussian shows. It is
    dropped where it would lie in the box but outside of the patch, as no voxel of the sample shows it, unless the map
    says ``keep_unseen``.

    Args:
        store: Opened.
        patch: Its number; negative counts from the end.
        map: As `Geometric.draw` gives it; the patch as it lies there when left out.
        sigma_rs: (3,) or one number, in voxels of the patch, of the target that will be asked for; the stored one when
            left out. A larger one brings more keypoints from outside.
        reach: In sigmas, beyond the sample's box.
        resampled: Whether the image goes through the map here. Else it is the whole patch as it lies there, for
            `keypatch.torch.resample`; the keypoints have gone through the map in any case.

    Returns:
        The sample: its image (D, H, W) of the map's shape and the store's dtype, its keypoints float64 z, y, x in the
        image's index coordinates; none where none is within reach.

    Raises:
        IndexError: If there is no such patch.
        UsageError: If the map is for patches of another shape, leaves the patch where padding is "none", shows it in
            more mirrors than `LARGEST_MIRRORING`, or if the image's dtype cannot be interpolated.
        CorruptionError: If bytes are missing or fail their checksum.
    """
    drawn = Map.identity(store.patch_shape) if map is None else map
    if drawn.patch_shape != store.patch_shape:
        raise UsageError.at(store.path, expected=f"a map for {drawn.patch_shape}", found=f"{store.patch_shape} voxels")
    found = store[patch]
    stored = found.ds_sigma * store.ds_factor
    given = stored if sigma_rs is None else np.asarray(sigma_rs, np.float64)
    if given.shape not in ((), (3,)) or not np.all(given > 0):
        raise UsageError.at("sigma_rs", expected="one number or three, above 0", found=str(given.tolist()))
    if not reach > 0:
        raise UsageError.at("reach", expected="a number above 0", found=str(reach))
    sigma = np.broadcast_to(given, (3,))
    points = _stored(found) if np.all(reach * sigma <= REACH * stored) else _of_volume(store, found)
    start, shape = window_of(drawn)
    if drawn.is_identity or not resampled:
        image = store.read_image(found.index)
    else:
        image = resample_window(store.read_image(found.index, start, shape), start, drawn)
    z, y, x = (float(s) for s in found.voxel_spacing)
    return Sample(
        image,
        mapped(points, drawn, sigma, reach),
        found.index,
        found.kind,
        found.fold,
        found.volume,
        (z, y, x),
        np.array(found.origin),
        drawn,
    )


def mapped(keypoints: Keypoints, map: Map, sigma_rs: NDArray[np.float64], reach: float = REACH) -> Keypoints:
    """A patch's keypoints in a sample of it.

    Args:
        keypoints: In the patch's index coordinates.
        map: Of the sample.
        sigma_rs: (3,) in voxels.
        reach: In sigmas.

    Returns:
        Those within reach of the sample's box, mirror images included, in the sample's index coordinates.
    """
    inside = geometry.inside(keypoints.local_rs, map.patch_shape)
    row, place, mirrors = _images(keypoints.local_rs, inside, map, reach * float(sigma_rs.max()))
    sample = map.to_sample(place)
    points = keypoints.take(row)
    linear, scale = None, points.sigma_scale
    if map.sigma != "fixed":
        steps = map.linear(sample) * mirrors[:, None, :]
        if map.sigma == "covariance":
            linear = steps if points.linear is None else steps @ points.linear
        else:
            scale = scale * np.linalg.norm(steps, axis=2)
    result = Keypoints(sample, points.class_index, points.weight, points.annotation_index, scale, linear)
    widths = sigma_rs * scale if linear is None else np.linalg.norm(linear * sigma_rs, axis=2)
    kept = geometry.within_reach(sample, map.shape, widths, reach)
    if not map.keep_unseen or map.padding == "reflect":
        kept &= inside[row] | ~geometry.inside(sample, map.shape)
    return result if kept.all() else result.take(kept)


def _images(
    points: NDArray[np.float64],
    inside: NDArray[np.bool_],
    map: Map,
    margin: float,
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Keypoints and, for those inside of a patch that is mirrored, their images near the sample.

    Returns:
        (N,) rows of the points, (N, 3) places in the patch's coordinates, (N, 3) of 1 and -1, which axes are mirrored.
    """
    rows = np.arange(len(points))
    if map.padding != "reflect" or not inside.any():
        return rows, points, np.ones_like(points)
    # A Gaussian that the map makes smaller still begins in the sample's box: the margin is the sample's.
    lowest, highest = map.bounds(margin)
    _check_mirroring(highest - lowest, map)
    lists = [_along(points[:, a], lowest[a], highest[a], map.patch_shape[a]) for a in range(3)]
    found: list[tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]] = [
        (rows, points, np.ones_like(points))
    ]
    for combined in itertools.product(*lists):
        if all(sign == 1 and turn == 0 for sign, turn, _, _ in combined):
            continue
        places = np.stack([place for _, _, place, _ in combined], axis=1)
        near = inside & np.all([apart for _, _, _, apart in combined], axis=0)
        near &= np.all((places >= lowest) & (places <= highest), axis=1)
        signs = np.array([float(sign) for sign, _, _, _ in combined])
        found.append((rows[near], places[near], np.tile(signs, (int(near.sum()), 1))))
    row, place, mirrors = (np.concatenate(part) for part in zip(*found, strict=True))
    return row, place, mirrors


def _check_mirroring(extent: NDArray[np.float64], map: Map) -> None:
    n_images = float(np.prod(extent / np.maximum(np.array(map.patch_shape) - 1, 1) + 1))
    if not n_images <= LARGEST_MIRRORING:
        raise UsageError.at(
            "map, padding",
            expected=f"a sample of at most {LARGEST_MIRRORING} mirror images of the patch",
            found=f"one of {n_images:.2g}",
            hint="take a larger scale, or another padding",
        )


def _along(
    place: NDArray[np.float64], lowest: float, highest: float, n: int
) -> list[tuple[int, int, NDArray[np.float64], NDArray[np.bool_]]]:
    """Images along one axis, in mirrors at 0 and n - 1: sign, turn, places, and which are objects of their own."""
    period = 2.0 * (n - 1)
    everywhere = np.ones(len(place), bool)
    if n == 1:
        return [(1, 0, place, everywhere)]
    images = []
    for turn in range(int(np.floor(lowest / period)) - 1, int(np.ceil(highest / period)) + 2):
        images.append((1, turn, place + turn * period, everywhere))
        # An image falls on an unmirrored one where the point lies on a mirror.
        apart = np.abs(2 * place - period * np.rint(2 * place / period)) >= _SAME_OBJECT
        images.append((-1, turn, turn * period - place, apart))
    return [image for image in images if image[2].max() >= lowest and image[2].min() <= highest]


def _stored(patch: Patch) -> Keypoints:
    return Keypoints.of(patch.local_rs_coords, patch.class_index, patch.annotation_index)


def _of_volume(store: Store, patch: Patch) -> Keypoints:
    """All annotations of the patch's volume, for sigmas that reach farther than what the patch keeps."""
    volumes = store.table("annotations/volume_index")
    number = store.volume_ids.index(patch.volume)
    rows = np.flatnonzero(volumes == number)
    local = geometry.local_rs(store.table("annotations/coords")[rows], patch.origin)
    return Keypoints.of(local, store.table("annotations/class_index")[rows], rows)
