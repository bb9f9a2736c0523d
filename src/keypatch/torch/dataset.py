"""The patches of stores as a map-style data set of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from keypatch.augment.maps import Map
from keypatch.augment.patches import Patches

if TYPE_CHECKING:
    from keypatch.augment.batch import Example


class PatchDataset(Patches, Dataset[dict[str, Any]]):
    """`keypatch.augment.Patches` as tensors: ``dataset[i]``, or ``dataset[i, turn]``, is a dictionary of tensors.

    The epoch lies in shared memory, so that `set_epoch` reaches workers that live on from epoch to epoch
    (``persistent_workers=True``) by whatever method they were started. Call it before a loader is iterated over.
    """

    def example(self, index: int, *, turn: int = 0, epoch: int | None = None) -> Example:
        """As that of `Patches`, of tensors; texts and maps stay as they are."""
        arrays = super().example(index, turn=turn, epoch=epoch)
        return {name: value if isinstance(value, (str, Map)) else _tensor(value) for name, value in arrays.items()}

    def _new_epoch(self) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.int64).share_memory_()


def _tensor(value: Any) -> torch.Tensor:  # noqa: ANN401 - an array or a number of numpy
    array = np.asarray(value)
    # Tables of a store are read-only, which a tensor cannot be.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
