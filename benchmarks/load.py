"""Samples a second from disk to batch, with all augmentations, and what a loaded sample weighs.

    python benchmarks/load.py [--quick]

Two workers each, page cache warm, one epoch to warm up before the first that is timed. The peer is what people have
today: MONAI's Dataset of .pt files, a patch and its Gaussian at full resolution, both flipped, rotated, scaled, sheared
and shifted by RandFlipd and RandAffined. Noise and contrast, where they are, are MONAI's on the peer's side; on ours
they are MONAI's too, or two lines of numpy: what they cost is the same for both, so they bound the ratio.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import keypatch
from keypatch import gaussian
from table import Row, Settings, measure, row
from timing import Contender, interleaved, settle, warm
from tomograms import SPACING, write_picks, write_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from keypatch import Store

PART = "load"
WORKERS, BATCH = 2, 2
WANTED, WANTED_MEMORY = 10.0, 2.0
MONAI = "MONAI Dataset of .pt files"
OURS = "keypatch"
ANGLE, SCALE, SHEAR, SHIFT = 15.0, 0.1, 0.05, 8.0


@dataclass(frozen=True)
class Case:
    """Patches that are loaded."""

    patch_shape: tuple[int, int, int]
    n_patches: int
    intensity: str = ""
    """Whose noise and contrast we take, beside mixup and cutmix; none of all these where it is empty."""

    @property
    def name(self) -> str:
        """In the table."""
        shape = "x".join(map(str, self.patch_shape))
        more = f", noise and contrast of {self.intensity}, mixing" if self.intensity else ""
        return f"{shape} float32, geometry{more}"


def run(settings: Settings) -> list[Row]:
    """All cases, and the weight of a sample."""
    if not settings.has("torch", "monai", peer=MONAI):
        return []
    large, small, repeats = (4, 12, 1) if settings.quick else (8, 32, 3)
    rows: list[Row] = []
    for shape, n_patches in (((128, 128, 128), small), ((160, 288, 288), large)):
        work = settings.fresh("load")
        store = _make_store(work, shape, n_patches)
        files = _write_pairs(work / "pairs", store)
        warm(work)
        for intensity in ("", "numpy", "MONAI"):
            rows += _samples_a_second(settings, Case(shape, n_patches, intensity), store, files, repeats)
    for dtype, n_classes in (("float32", 1), ("float32", 5), ("uint8", 1)):
        work = settings.fresh("load")
        store = _make_store(work, (128, 128, 128), 10, dtype, n_classes)
        rows += _weights(store, _write_pairs(work / "pairs", store))
    settings.fresh("load")
    return rows


def _make_store(
    work: Path, shape: tuple[int, int, int], n_patches: int, dtype: str = "float32", n_classes: int = 1
) -> Store:
    z, y, x = shape
    volume_shape = (z + 32, y + 64, x + 64)
    write_volume(work / "tomo.npy", volume_shape, dtype, seed=3)
    for k in range(n_classes):
        write_picks(work / f"class{k}.csv", ["tomo"], volume_shape, n_patches // n_classes, seed=4 + k)
    return keypatch.convert(
        work / "tomo.npy",
        str(work / "{class}.csv"),
        work / "out.zarr",
        patch_shape=shape,
        voxel_spacing=SPACING,
        padding="inside",
    )


def _write_pairs(folder: Path, store: Store) -> list[Path]:
    """A .pt file a patch: the image and its Gaussian at full resolution."""
    import torch

    folder.mkdir()
    for patch in store:
        target = gaussian.render(
            patch.local_rs_coords,
            patch.class_index,
            n_classes=len(store.classes),
            grid=store.patch_shape,
            sigma=patch.ds_sigma * store.ds_factor,
        )
        pair = {"image": torch.from_numpy(patch.image[None].copy()), "target": torch.from_numpy(target)}
        torch.save(pair, folder / f"{patch.index}.pt")
    return sorted(folder.iterdir())


def _samples_a_second(settings: Settings, case: Case, store: Store, files: Sequence[Path], repeats: int) -> list[Row]:
    settings.say(f"  {case.name}")
    loaders = {OURS: _our_loader(case, store), MONAI: _monai_loader(case, files)}
    for loader in loaders.values():
        _epoch(loader)
    settle()
    contenders = [Contender(name, partial(_epoch, loader)) for name, loader in loaders.items()]
    spent = interleaved(contenders, repeats)
    rates = {name: [case.n_patches / one.seconds for one in times] for name, times in spent.items()}
    ratio = float(np.median(rates[OURS]) / np.median(rates[MONAI]))
    note = f"{WORKERS} workers, batches of {BATCH}"
    return [
        row(PART, case.name, OURS, rates[OURS], "samples/s", note=note),
        row(PART, case.name, MONAI, rates[MONAI], "samples/s", ratio=ratio, wanted=WANTED, note=note),
    ]


def _epoch(loader: Any) -> None:  # noqa: ANN401 - torch.utils.data.DataLoader
    for _ in loader:
        pass


def _our_loader(case: Case, store: Store) -> Any:  # noqa: ANN401 - torch.utils.data.DataLoader
    from torch.utils.data import DataLoader

    from keypatch.augment import CutMix, Geometric, Intensity, Mixup
    from keypatch.torch import Collate, PatchDataset

    geometric = Geometric(
        flip="zyx", rotate=ANGLE, scale=(1 - SCALE, 1 + SCALE), shear=SHEAR, shift=SHIFT, free_rotation=True
    )
    own = [Intensity(_noise, takes_rng=True), Intensity(_contrast, takes_rng=True)]
    intensity = {"": [], "numpy": own}[case.intensity] if case.intensity != "MONAI" else _of_monai()
    dataset = PatchDataset(store, geometric=geometric, intensity=intensity)
    mixings = (Mixup(p=0.5), CutMix(p=0.5)) if case.intensity else ()
    return DataLoader(
        dataset, BATCH, shuffle=True, collate_fn=Collate(mixings), num_workers=WORKERS, persistent_workers=True
    )


def _noise(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    noise = rng.standard_normal(image.shape, np.float32)
    noise *= np.float32(0.1)
    noise += image
    return noise


def _contrast(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    low, high = image.min(), image.max()
    unit = image - low
    unit /= high - low
    unit **= np.float32(rng.uniform(0.7, 1.5))
    unit *= high - low
    unit += low
    return unit


def _of_monai() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.transforms import RandAdjustContrast, RandGaussianNoise

        return [RandGaussianNoise(prob=1, std=0.1), RandAdjustContrast(prob=1, gamma=(0.7, 1.5))]


def _monai_loader(case: Case, files: Sequence[Path]) -> Any:  # noqa: ANN401 - torch.utils.data.DataLoader
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.data import DataLoader, Dataset
        from monai.transforms import Compose, RandAdjustContrastd, RandAffined, RandFlipd, RandGaussianNoised

        both = ("image", "target")
        radians = np.deg2rad(ANGLE)
        transforms = [
            _load_pair,
            *(RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)),
            RandAffined(
                both,
                prob=1,
                rotate_range=(radians,) * 3,
                scale_range=(SCALE,) * 3,
                shear_range=(SHEAR,) * 6,
                translate_range=(SHIFT,) * 3,
                padding_mode="zeros",
            ),
        ]
        if case.intensity:
            transforms += [
                RandGaussianNoised("image", prob=1, std=0.1),
                RandAdjustContrastd("image", prob=1, gamma=(0.7, 1.5)),
            ]
        dataset = Dataset([str(path) for path in files], Compose(transforms))
        return DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)


def _load_pair(path: str) -> dict[str, Any]:
    import torch

    pair: dict[str, Any] = torch.load(path, weights_only=True)
    return pair


def _weights(store: Store, files: Sequence[Path]) -> list[Row]:
    """Megabytes of all tensors of a sample."""
    from keypatch.torch import PatchDataset

    classes = f"{len(store.classes)} class{'es' if len(store.classes) > 1 else ''}"
    image = store.read_image(0)
    case = f"{'x'.join(map(str, store.patch_shape))} {image.dtype}, {classes}: memory of a loaded sample"
    dataset = PatchDataset(store, dtype=None)
    ours = [sum(v.nbytes for v in sample.values() if hasattr(v, "nbytes")) / 1e6 for sample in dataset]
    pairs = [sum(tensor.nbytes for tensor in _load_pair(str(path)).values()) / 1e6 for path in files]
    ratio = float(np.median(pairs) / np.median(ours))
    patch = f"the patch alone is {image.nbytes / 1e6:.5g} MB"
    return [
        row(PART, case, OURS, ours, "MB", note=f"patch, Gaussian at 1/16 and keypoints; {patch}"),
        row(PART, case, MONAI, pairs, "MB", ratio=ratio, wanted=WANTED_MEMORY, note="patch and full Gaussian, float32"),
    ]


if __name__ == "__main__":
    measure([(PART, run)], __doc__ or "")
