"""From samples to batches of tensors, mixed where it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.utils.data import default_collate

from keypatch.augment.batch import EXAMPLE_KEYS, IMAGE, check_same_shapes, join_maps, join_points
from keypatch.augment.mixing import mix
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keypatch.augment.batch import Batch, Example
    from keypatch.augment.mixing import Mixing

_MIXING: Final = 2
"""Keeps the random numbers of a batch apart from those of its first sample."""


def collate(examples: Sequence[Example]) -> Batch:
    """Put samples of tensors together; a ``collate_fn``.

    What is one array a sample gets a first axis B. The keypoints of all samples are rows one after the other, with
    ``batch_index``, the number of the sample that each belongs to; `split_keypoints` gives them sample by sample.

    Raises:
        UsageError: If there is none, images or targets differ in shape, or samples are of numpy arrays.
    """
    check_same_shapes(examples)
    if not isinstance(examples[0][IMAGE], torch.Tensor):
        hint = "take keypatch.torch.PatchDataset, or keypatch.augment.collate"
        raise UsageError.at("batch", expected="samples of tensors", found="arrays of numpy", hint=hint)
    # torch's own puts the stacked tensors straight into shared memory where it runs in a worker.
    stacked: dict[str, Any] = {
        key: default_collate([example[key] for example in examples]) for key in EXAMPLE_KEYS if key in examples[0]
    }
    return stacked | join_maps(examples) | join_points(examples, torch)


class Collate:
    """`collate`, and then `keypatch.augment.mix`, in the worker; a ``collate_fn``.

    What is drawn for a batch comes from the (seed, epoch, index) of its first sample, so that it is the same whatever
    the number of workers.

    Args:
        mixings: Carried out in their order.
    """

    def __init__(self, mixings: Sequence[Mixing] = ()) -> None:
        self.mixings = tuple(mixings)

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """The mixed batch of these samples.

        Raises:
            UsageError: As `collate` and `keypatch.augment.mix` do.
        """
        batch = collate(examples)
        # In place the images stay in shared memory, where collate has put them.
        return mix(batch, self.mixings, batch_rng(batch), in_place=True) if self.mixings else batch


def batch_rng(batch: Batch) -> np.random.Generator:
    """The generator of a batch, from what its first sample was drawn from."""
    first = [int(value) for value in batch["draw"][0]]
    return np.random.default_rng(np.random.SeedSequence(first, spawn_key=(_MIXING,)))
