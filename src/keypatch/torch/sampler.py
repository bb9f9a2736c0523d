"""A sampler that brings up kinds and classes as often as wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.data import Sampler

from keypatch.augment.balance import epoch_order, patch_weights
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keypatch.augment.balance import Shares
    from keypatch.torch.dataset import PatchDataset


class BalancedSampler(Sampler[tuple[int, int]]):
    """Draws patches with replacement, balanced by kind and class; see `keypatch.augment.balance.patch_weights`.

    It gives (index, turn): a patch that comes up again in an epoch is augmented anew. The order comes from the data
    set's seed and epoch.

    Args:
        dataset: To draw from.
        kinds: "equal", None for as they are, or numbers by name: ``{"centered": 3, "negative": 1}``.
        classes: The same for classes; patches without a keypoint in their box are of the class "nothing".
        n_draws: Samples an epoch; as many as there are patches when left out.
        rank: Of this process, where several share an epoch.
        world_size: Such processes. Each draws as many, and none twice what another does.

    Raises:
        UsageError: If a name is unknown, a number is none, or nothing is left to draw.
    """

    def __init__(
        self,
        dataset: PatchDataset,
        *,
        kinds: Shares = "equal",
        classes: Shares = "equal",
        n_draws: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        self.weights = patch_weights(dataset.selection, kinds=kinds, classes=classes)
        self.n_draws = len(dataset) if n_draws is None else n_draws
        if self.n_draws < 1:
            raise UsageError.at("n_draws", expected="at least 1", found=str(n_draws))
        if not 0 <= rank < world_size:
            raise UsageError.at("rank", expected=f"0 … {world_size - 1}", found=str(rank))
        self.rank, self.world_size = rank, world_size

    def set_epoch(self, epoch: int) -> None:
        """That of the data set, too."""
        self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return (self.n_draws + self.world_size - 1) // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        n_all = len(self) * self.world_size
        order, turns = epoch_order(self.weights, n_all, seed=self.dataset.seed, epoch=self.dataset.epoch)
        mine = slice(self.rank, None, self.world_size)
        return zip(order[mine].tolist(), turns[mine].tolist(), strict=True)
