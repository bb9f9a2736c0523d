"""Augmentation that moves keypoints instead of interpolating targets.

    from keypatch.augment import CutMix, Geometric, Patches, collate, mix

    patches = Patches("out.zarr", folds=[0, 1], geometric=Geometric(flip="zyx", rot90=True))
    batch = collate([patches[0], patches[1]])
    batch["image"], batch["target"], batch["keypoints"]
    mixed = mix(batch, [CutMix()], np.random.default_rng(0))

A map is drawn, all that is in it is composed into one matrix, and the image is read through it in one pass. The
keypoints are moved by the same matrix and the target is written from its formula. Nothing here needs torch;
`keypatch.torch` has the same as tensors.
"""

from __future__ import annotations

from keypatch.augment.batch import Batch, Example, collate, split_keypoints
from keypatch.augment.geometric import Geometric
from keypatch.augment.intensity import Intensity
from keypatch.augment.maps import Map
from keypatch.augment.mixing import CoarseDropout, CutMix, CutMixup, Mixing, Mixup, mix, mixing_from_mapping
from keypatch.augment.patches import Patches
from keypatch.augment.reading import read_sample
from keypatch.augment.sample import Keypoints, Sample

__all__ = [
    "Batch",
    "CoarseDropout",
    "CutMix",
    "CutMixup",
    "Example",
    "Geometric",
    "Intensity",
    "Keypoints",
    "Map",
    "Mixing",
    "Mixup",
    "Patches",
    "Sample",
    "collate",
    "mix",
    "mixing_from_mapping",
    "read_sample",
    "split_keypoints",
]
