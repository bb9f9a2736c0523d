"""Augmentation that moves keypoints instead of interpolating targets.

    from keypatch.augment import Geometric, read_sample

    geometric = Geometric(flip="zyx", rot90=True)
    sample = read_sample(store, 7, geometric.draw(np.random.default_rng((seed, epoch, 7)), store.patch_shape))
    sample.image, sample.target(len(store.classes), ds_factor=16, sigma_ds=1.0)

A map is drawn, all that is in it is composed into one matrix, and the image is read through it in one pass. The
keypoints are moved by the same matrix and the target is written from its formula. Nothing here needs torch.
"""

from __future__ import annotations

from keypatch.augment.geometric import Geometric
from keypatch.augment.maps import Map
from keypatch.augment.reading import read_sample
from keypatch.augment.sample import Keypoints, Sample

__all__ = ["Geometric", "Keypoints", "Map", "Sample", "read_sample"]
