"""One large patch and its target through a drawn map, from memory, and how exact image, keypoints and target are then.

    python benchmarks/augment.py [--quick]

One core for everybody. A contender draws a new map each time, like in training. The peers do what they are asked to by
their own documentation: MONAI and TorchIO transform the image and a Gaussian of the same shape, albumentations and
SimpleITK the image alone, while ours always includes the keypoints and the target. To their credit, what a peer cannot
draw is left out for it: TorchIO has no shear, albumentations turns all slices alike in their plane, and MONAI and
SimpleITK are not asked for the flip, which would be a pass of its own or cost nothing.

The peers' error is that of a Gaussian which is interpolated like an image, against the same Gaussian's formula at the
place that each voxel comes from: of the full-size one, and of one on the coarse grid, which would be as small as ours.
"""

from __future__ import annotations

import itertools
import os
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from keypatch import gaussian, geometry
from keypatch.augment import Geometric, Keypoints, Map, Sample
from keypatch.augment.maps import PADDINGS
from keypatch.augment.reading import mapped
from keypatch.augment.resample import resample
from table import Row, Settings, measure, row
from timing import Contender, interleaved, settle
from tomograms import noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

PART = "augment"
OURS = "keypatch"
SHAPE: Final = (160, 288, 288)
FACTOR = np.full(3, 16)
SIGMA_DS = np.ones(3)
SPACING = (12.5, 12.5, 12.5)
ANGLE, SCALE, SHEAR, SHIFT = 15.0, 0.1, 0.05, 8.0
N_KEYPOINTS = 4
_SEED = 7

MONAI, TORCHIO, ALBUMENTATIONS, SIMPLEITK = (
    "MONAI RandAffined",
    "TorchIO RandomAffine",
    "albumentations Affine",
    "SimpleITK Resample",
)
WANTED = {MONAI: 20.0, TORCHIO: 8.0, ALBUMENTATIONS: 3.0, SIMPLEITK: 3.0}
"""For float32."""
ERROR, APART = 1e-6, 0.1
"""What the target's error, and the distance in voxels of a blob from its keypoint, must stay below."""

KINDS: Final[dict[str, dict[str, Any]]] = {
    "flip": {"flip": "zyx"},
    "quarter turns": {"rot90": True, "free_rotation": True},
    "rotate": {"rotate": 180, "free_rotation": True},
    "scale": {"scale": (0.8, 1.25)},
    "stretch": {"stretch": (0.8, 1.25)},
    "shear": {"shear": 0.2, "free_rotation": True},
    "shift": {"shift": 7.5},
    "crop": {"crop": (48, 48, 48)},
    "elastic": {"elastic": 3.0, "elastic_spacing": 32.0},
    "all": {
        "flip": "zyx",
        "rot90": True,
        "rotate": 180,
        "scale": (0.8, 1.25),
        "stretch": (0.9, 1.1),
        "shear": 0.1,
        "shift": 6.0,
        "elastic": 2.0,
        "elastic_spacing": 32.0,
        "free_rotation": True,
    },
}


def run(settings: Settings) -> list[Row]:
    """Speed, then exactness."""
    repeats = 3 if settings.quick else 9
    rows: list[Row] = []
    with _one_core():
        for dtype in ("float32", "uint8"):
            rows += _speed(settings, dtype, repeats)
    rows += _exactness(settings, 4 if settings.quick else 40)
    return rows


class _one_core:  # noqa: N801 - used like contextlib's own
    """This process and its threads on one core, where the system can."""

    def __enter__(self) -> None:
        self._before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
        if self._before is not None:
            os.sched_setaffinity(0, {min(self._before)})

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            os.sched_setaffinity(0, self._before)


# Speed


@dataclass(frozen=True)
class Scene:
    """A patch in memory.

    Attributes:
        image: Noise.
        points: Its keypoints.
        heatmap: The Gaussian at full size, in the image's dtype, as the peers keep it.
    """

    image: NDArray[Any]
    points: Keypoints
    heatmap: NDArray[Any]


def _scene(dtype: str) -> Scene:
    rng = np.random.default_rng(5)
    points = Keypoints.of(
        rng.uniform(40, np.array(SHAPE) - 40, (N_KEYPOINTS, 3)), [0] * N_KEYPOINTS, range(N_KEYPOINTS)
    )
    heatmap = gaussian.render(points.local_rs, points.class_index, n_classes=1, grid=SHAPE, sigma=SIGMA_DS * FACTOR)[0]
    if dtype == "uint8":
        heatmap = np.rint(heatmap * 255).astype(np.uint8)
    return Scene(noise(SHAPE, dtype, seed=6), points, heatmap)


def _speed(settings: Settings, dtype: str, repeats: int) -> list[Row]:
    scene = _scene(dtype)
    general = Geometric(
        flip="zyx", rotate=ANGLE, scale=(1 - SCALE, 1 + SCALE), shear=SHEAR, shift=SHIFT, free_rotation=True
    )
    in_plane = replace(general, free_rotation=False)
    shape = "x".join(map(str, SHAPE))
    rows: list[Row] = []
    for what, geometric, peers in (
        ("rotate, scale, shear, shift, flip", general, [_monai, _torchio, _simpleitk, _torch, _scipy]),
        ("the same, about z", in_plane, [_albumentations]),
    ):
        case = f"{shape} {dtype}, {what}"
        settings.say(f"  {case}")
        contenders = [Contender(OURS, _ours(scene, geometric))]
        notes = {OURS: "image, keypoints and target"}
        for peer in peers:
            for name, work, note in peer(settings, scene):
                contenders.append(Contender(name, partial(_silent, work)))
                notes[name] = note
        for contender in contenders:  # compiles, imports, fills caches
            contender.run()
        settle()
        spent = {name: [one.seconds * 1e3 for one in times] for name, times in interleaved(contenders, repeats).items()}
        own = float(np.median(spent[OURS]))
        for name, times in spent.items():
            ratio = None if name == OURS else float(np.median(times)) / own
            wanted = WANTED.get(name) if dtype == "float32" else None
            rows.append(row(PART, case, name, times, "ms", ratio=ratio, wanted=wanted, note=notes[name]))
    return rows


def _silent(work: Callable[[], object]) -> None:
    work()


def _ours(scene: Scene, geometric: Geometric) -> Callable[[], None]:
    rng = np.random.default_rng(_SEED)
    sigma_rs = SIGMA_DS * FACTOR

    def work() -> None:
        drawn = geometric.draw(rng, SHAPE, SPACING)
        image = resample(scene.image, drawn)
        sample = _sample(image, mapped(scene.points, drawn, sigma_rs), drawn)
        sample.target(1, ds_factor=FACTOR, sigma_ds=SIGMA_DS)

    return work


def _sample(image: NDArray[Any], keypoints: Keypoints, drawn: Map) -> Sample:
    return Sample(image, keypoints, 0, "grid", -1, "tomo", SPACING, np.zeros(3, np.int64), drawn)


Peers: TypeAlias = "Iterator[tuple[str, Callable[[], object], str]]"
Warp: TypeAlias = "Callable[[NDArray[np.float32], NDArray[np.float64]], NDArray[np.float32]]"


def _monai(settings: Settings, scene: Scene) -> Peers:
    if not settings.has("torch", "monai", peer=MONAI):
        return
    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.transforms import RandAffined

    radians = np.deg2rad(ANGLE)
    ranges: dict[str, Any] = {
        "prob": 1,
        "rotate_range": (radians,) * 3,
        "scale_range": (SCALE,) * 3,
        "shear_range": (SHEAR,) * 6,
        "translate_range": (SHIFT,) * 3,
        "padding_mode": "zeros",
        "cache_grid": True,
        "spatial_size": SHAPE,
    }
    both = {"image": torch.from_numpy(scene.image[None]), "heatmap": torch.from_numpy(scene.heatmap[None])}
    yield MONAI, partial(RandAffined(("image", "heatmap"), **ranges), both), "image and full heatmap"
    alone = {"image": both["image"]}
    yield f"{MONAI}, image alone", partial(RandAffined(("image",), **ranges), alone), "no target at all"


def _torchio(settings: Settings, scene: Scene) -> Peers:
    if not settings.has("torch", "torchio", "SimpleITK", peer=TORCHIO):
        return
    import SimpleITK
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchio

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    affine = torchio.RandomAffine(scales=SCALE, degrees=ANGLE, translation=SHIFT, default_pad_value=0)
    transform = torchio.Compose([torchio.RandomFlip(axes=(0, 1, 2)), affine])
    tensors = {"image": scene.image, "heatmap": scene.heatmap}
    subject = torchio.Subject({k: torchio.ScalarImage(tensor=torch.from_numpy(v[None])) for k, v in tensors.items()})
    yield TORCHIO, partial(transform, subject), "image and full heatmap; no shear"


def _simpleitk(settings: Settings, scene: Scene) -> Peers:
    if not settings.has("SimpleITK", peer=SIMPLEITK):
        return
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = SimpleITK.GetImageFromArray(scene.image)
    geometric = Geometric(rotate=ANGLE, scale=(1 - SCALE, 1 + SCALE), shear=SHEAR, shift=SHIFT, free_rotation=True)
    rng = np.random.default_rng(_SEED)  # the same maps as ours, but for the flips

    def work() -> None:
        SimpleITK.GetArrayViewFromImage(_resampled(image, geometric.draw(rng, SHAPE, SPACING).matrix))

    yield SIMPLEITK, work, "image alone; no flip"


def _resampled(image: Any, matrix: NDArray[np.float64]) -> Any:  # noqa: ANN401 - SimpleITK.Image
    """Through a matrix of our axes; SimpleITK's are x, y, z."""
    import SimpleITK

    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(matrix[2::-1, 2::-1].ravel().tolist())
    transform.SetTranslation(matrix[2::-1, 3].tolist())
    return SimpleITK.Resample(image, image, transform, SimpleITK.sitkLinear, 0.0)


def _torch(settings: Settings, scene: Scene) -> Peers:
    if not settings.has("torch", peer="torch grid_sample") or scene.image.dtype != np.float32:
        return
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    torch.set_num_threads(1)
    image = torch.from_numpy(scene.image[None, None])
    theta = torch.tensor([[[0.95, 0.1, 0.05, 0.1], [-0.1, 0.95, 0.1, 0.1], [-0.05, -0.1, 0.95, 0.1]]])

    def work() -> None:
        grid = affine_grid(theta, list(image.shape), align_corners=True)
        grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=True)

    yield "torch affine_grid, grid_sample", work, "image alone; one fixed map"


def _scipy(_: Settings, scene: Scene) -> Peers:
    from scipy import ndimage

    matrix = np.array([[0.95, 0.1, 0.05], [-0.1, 0.95, 0.1], [-0.05, -0.1, 0.95]])
    yield (
        "scipy affine_transform",
        partial(ndimage.affine_transform, scene.image, matrix, offset=4.0, order=1),
        "image alone; one fixed map",
    )


def _albumentations(settings: Settings, scene: Scene) -> Peers:
    if not settings.has("albumentations", peer=ALBUMENTATIONS):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import albumentations
        import cv2

    cv2.setNumThreads(1)
    degrees = float(np.rad2deg(np.arctan(SHEAR)))
    affine = albumentations.Affine(
        scale=(1 - SCALE, 1 + SCALE),
        rotate=(-ANGLE, ANGLE),
        shear=(-degrees, degrees),
        translate_px=(-int(SHIFT), int(SHIFT)),
        interpolation=cv2.INTER_LINEAR,
        p=1,
    )
    transform = albumentations.Compose([affine])
    note = "image alone; slice by slice, z as it is; no flip"
    yield ALBUMENTATIONS, partial(transform, volume=scene.image), note


# Exactness

CUBE: Final = (96, 96, 96)


def _exactness(settings: Settings, draws: int) -> list[Row]:
    settings.say("  exactness")
    errors = {name: _target_errors(name, draws) for name in KINDS}
    rows = _within(f"target against its formula, {len(KINDS)} transforms", "of its height", errors, ERROR)
    rows += _interpolated(settings, rows[0], draws)
    pairs = itertools.product(KINDS, (padding for padding in PADDINGS if padding != "none"))
    apart = {f"{name}, {padding}": _distances(name, padding, draws) for name, padding in pairs}
    return rows + _within(f"blob against keypoint, {len(apart)} transforms and paddings", "voxels", apart, APART)


def _within(case: str, unit: str, found: dict[str, list[float]], limit: float) -> list[Row]:
    """The largest of all that was found, and the limit."""
    worst = max(found, key=lambda name: max(found[name]))
    values = [value for some in found.values() for value in some]
    largest, note = max(values), f"the largest of {len(values)} draws, in: {worst}"
    return [
        Row(PART, case, OURS, largest, unit, min(values), largest, len(values), note=note),
        row(PART, case, "what is allowed", [limit], unit, ratio=limit / largest if largest else None, wanted=1.0),
    ]


def _target_errors(name: str, draws: int) -> list[float]:
    """Of each draw, the largest difference of a target from its formula, written voxel by voxel in float64."""
    rng, geometric = np.random.default_rng(11), Geometric(**KINDS[name])
    found = []
    for _ in range(draws):
        drawn = geometric.draw(rng, CUBE, SPACING)
        local = rng.uniform(0, 95, (N_KEYPOINTS, 3))
        keypoints = mapped(_keypoints(local), drawn, SIGMA_DS * FACTOR)
        sample = _sample(np.zeros(drawn.shape, np.float32), keypoints, drawn)
        target = sample.target(1, ds_factor=FACTOR, sigma_ds=SIGMA_DS)[0]
        places = (drawn.to_sample(local[keypoints.annotation_index]) + 0.5) / FACTOR - 0.5
        j = np.moveaxis(np.indices(target.shape), 0, -1)
        square = (((j - places[:, None, None, None]) / SIGMA_DS) ** 2).sum(-1)
        expected = np.exp(-square / 2).max(axis=0, initial=0)
        found.append(float(np.abs(target - expected).max()))
    return found


def _distances(name: str, padding: str, draws: int) -> list[float]:
    """Of some blobs that lie whole in their sample: how far a centroid is from its keypoint, along the worst axis."""
    rng, geometric = np.random.default_rng(12), Geometric(**KINDS[name], padding=padding)  # type: ignore[arg-type]
    sigma, radius = 3.0, 14
    found: list[float] = []
    while len(found) < draws:
        drawn = geometric.draw(rng, CUBE, SPACING)
        center = rng.uniform(20, 75, 3)
        image = resample(_formula(CUBE, center, np.full(3, sigma)).astype(np.float32), drawn)
        points = mapped(_keypoints(center[None]), drawn, np.full(3, sigma)).local_rs
        for point in points[np.all((points > radius) & (points < np.array(drawn.shape) - 1 - radius), axis=1)]:
            first = np.rint(point).astype(int) - radius
            box = image[tuple(slice(a, a + 2 * radius + 1) for a in first)].astype(np.float64)
            places = np.indices(box.shape).reshape(3, -1)
            found.append(float(np.abs(places @ box.ravel() / box.sum() + first - point).max()))
    return found


def _keypoints(local: NDArray[np.float64]) -> Keypoints:
    return Keypoints.of(local, [0] * len(local), range(len(local)))


def _formula(shape: tuple[int, ...], center: NDArray[np.float64], sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    square = sum((((g - c) / s) ** 2 for g, c, s in zip(np.ogrid[*map(slice, shape)], center, sigma, strict=True)))
    return np.asarray(np.exp(-square / 2), np.float64)


def _interpolated(settings: Settings, ours: Row, draws: int) -> list[Row]:
    """Errors of those who bring a Gaussian through the map like an image, at full size and on the coarse grid."""
    rows = []
    for where, factor in (("full size", np.ones(3)), ("1/16", FACTOR)):
        shape = tuple(int(n) for n in np.array(CUBE) / factor)
        for who, warp in _warps(settings):
            rng = np.random.default_rng(13)
            geometric = Geometric(rotate=30, scale=(0.9, 1.1), shift=7.5, free_rotation=True)
            errors = [_warp_error(geometric.draw(rng, CUBE), warp, shape, factor, rng) for _ in range(min(draws, 10))]
            ratio = float(np.median(errors)) / ours.value if ours.value else None
            case = ours.case
            rows.append(
                row(PART, case, f"{who}, {where}", errors, ours.unit, ratio=ratio, note="median of the largest")
            )
    return rows


def _warp_error(
    drawn: Map,
    warp: Warp,
    shape: tuple[int, ...],
    factor: NDArray[Any],
    rng: np.random.Generator,
) -> float:
    """Largest difference from the Gaussian's own value at the place that each voxel comes from."""
    to_coarse = np.diag([*1 / factor, 1.0])
    to_coarse[:3, 3] = 0.5 / factor - 0.5
    matrix = to_coarse @ drawn.matrix @ np.linalg.inv(to_coarse)
    center = geometry.local_ds(rng.uniform(24, 71, (1, 3)), factor)[0]
    sigma = SIGMA_DS * FACTOR / factor
    found = warp(_formula(shape, center, sigma).astype(np.float32), matrix)
    places = np.einsum("ij,jzyx->izyx", matrix[:3, :3], np.indices(shape)) + matrix[:3, 3, None, None, None]
    square = (((places - center[:, None, None, None]) / sigma[:, None, None, None]) ** 2).sum(0)
    # Within the patch: what a peer pads with is no question of interpolation.
    seen = np.all((places >= 0) & (places <= np.array(shape)[:, None, None, None] - 1), axis=0)
    return float(np.abs(found - np.exp(-square / 2))[seen].max())


def _warps(settings: Settings) -> Iterator[tuple[str, Warp]]:
    from scipy import ndimage

    def by_scipy(image: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.asarray(ndimage.affine_transform(image, matrix, order=1))

    def by_monai(image: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
        center = np.eye(4)
        center[:3, 3] = (np.array(image.shape) - 1) / 2
        about = np.linalg.inv(center) @ matrix @ center  # MONAI's index space begins in the middle
        return np.asarray(Affine(affine=about, padding_mode="zeros", image_only=True)(image[None])[0])

    def by_itk(image: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.asarray(SimpleITK.GetArrayFromImage(_resampled(SimpleITK.GetImageFromArray(image), matrix)))

    yield "interpolated by scipy", by_scipy
    if settings.has("torch", "monai", peer=MONAI):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from monai.transforms import Affine
        yield "interpolated by MONAI", by_monai
    if settings.has("SimpleITK", peer=SIMPLEITK):
        import SimpleITK

        yield "interpolated by TorchIO's SimpleITK", by_itk


if __name__ == "__main__":
    measure([(PART, run)], __doc__ or "")
