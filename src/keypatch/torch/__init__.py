"""Patches as a PyTorch data set.

from torch.utils.data import DataLoader
from keypatch.augment import CutMix, Geometric
from keypatch.torch import BalancedSampler, Collate, PatchDataset

dataset = PatchDataset("out.zarr", folds=[0, 1, 2], geometric=Geometric(flip="zyx", rot90=True))
sampler = BalancedSampler(dataset)
loader = DataLoader(dataset, 8, sampler=sampler, collate_fn=Collate([CutMix(p=0.5)]), num_workers=4)
for epoch in range(100):
    sampler.set_epoch(epoch)
    for batch in loader:
        batch["image"], batch["target"], batch["keypoints"], batch["batch_index"]
"""

from __future__ import annotations

from keypatch.errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401 - said here once, by the name of the extra
except ImportError as _error:
    raise MissingExtraError.needs("keypatch.torch", "torch") from _error

from keypatch.augment.batch import split_keypoints
from keypatch.torch.collating import Collate, collate
from keypatch.torch.dataset import PatchDataset
from keypatch.torch.device import resample, to_device
from keypatch.torch.rendering import render
from keypatch.torch.sampler import BalancedSampler

__all__ = [
    "BalancedSampler",
    "Collate",
    "PatchDataset",
    "collate",
    "render",
    "resample",
    "split_keypoints",
    "to_device",
]
