"""The data set, batches and the sampler of `keypatch.torch`, against those of numpy."""

from __future__ import annotations

import numpy as np
import pytest
from tests.stores import Design, make_store

from keypatch.augment import CutMix, Geometric, Patches, mix
from keypatch.augment import collate as collate_arrays
from keypatch.augment.balance import epoch_order
from keypatch.errors import UsageError

torch = pytest.importorskip("torch", reason="torch is not installed; make test-torch installs it")

from torch.utils.data import DataLoader  # noqa: E402 - needs torch

from keypatch.torch import BalancedSampler, Collate, PatchDataset, collate, split_keypoints  # noqa: E402

TURNS = Geometric(flip="zyx", rot90=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    design = Design(source_dtype="float32", dtype="float32", n_annotations=(1, 9))
    return make_store(tmp_path_factory.mktemp("stores"), design).path


def test_samples_are_those_of_numpy(path) -> None:
    arrays, tensors = (kind(path, geometric=TURNS, seed=2) for kind in (Patches, PatchDataset))
    assert len(arrays) == len(tensors) == len(list(tensors))
    for epoch in (0, 3):
        arrays.set_epoch(epoch)
        tensors.set_epoch(epoch)
        assert tensors.epoch == epoch
        for key in [*range(len(arrays)), (2, 1), -1]:
            expected, found = arrays[key], tensors[key]
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                if isinstance(value, str):
                    assert found[name] == value
                    continue
                assert isinstance(found[name], torch.Tensor)
                assert found[name].shape == np.shape(value)
                assert np.array_equal(found[name].numpy(), value)


def test_batches_are_those_of_numpy(path) -> None:
    arrays, tensors = Patches(path), PatchDataset(path)
    expected = collate_arrays([arrays[i] for i in (1, 0, 5)])
    found = collate([tensors[i] for i in (1, 0, 5)])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value == found[name] if name == "volume" else np.array_equal(value, found[name].numpy())
    for one, points in zip((1, 0, 5), split_keypoints(found), strict=True):
        assert torch.equal(points["keypoints"], tensors[one]["keypoints"])


def test_a_batch_is_mixed_from_its_first_sample(path) -> None:
    dataset = PatchDataset(path, seed=2)
    examples = [dataset[i] for i in (1, 0, 5)]
    mixed = Collate([CutMix()])(examples)
    seed = np.random.SeedSequence([2, 0, 1, 0], spawn_key=(2,))
    expected = mix(collate(examples), [CutMix()], np.random.default_rng(seed))
    assert all(
        mixed[key] == expected[key] if key == "volume" else torch.equal(mixed[key], expected[key]) for key in mixed
    )
    assert not torch.equal(mixed["image"], collate(examples)["image"])
    assert Collate()(examples).keys() == mixed.keys()


def test_samples_without_keypoints(path) -> None:
    """Whole batches of nothing, and some of it."""
    dataset = PatchDataset(path)
    counts = [len(dataset[i]["keypoints"]) for i in range(len(dataset))]
    assert 0 in counts, "the store has no empty patch to test with"
    empty = counts.index(0)
    batch = Collate([CutMix()])([dataset[empty], dataset[empty]])
    assert batch["keypoints"].shape == (0, 3)
    assert batch["batch_index"].dtype == torch.int64
    assert not batch["target"].any()
    some = collate([dataset[empty], dataset[int(np.argmax(counts))]])
    assert set(some["batch_index"].tolist()) == {1}


def test_a_loader_gives_batches(path) -> None:
    dataset = PatchDataset(path, geometric=TURNS)
    loader = DataLoader(dataset, 4, shuffle=True, collate_fn=collate)
    seen = torch.cat([batch["patch"] for batch in loader])
    assert sorted(seen.tolist()) == list(range(len(dataset)))


def test_the_sampler_draws_what_balance_says(path) -> None:
    dataset = PatchDataset(path, seed=8)
    sampler = BalancedSampler(dataset, kinds={"centered": 3, "grid": 1}, classes=None, n_draws=4000)
    assert len(sampler) == 4000
    sampler.set_epoch(2)
    assert dataset.epoch == 2
    drawn = list(sampler)
    order, turns = epoch_order(sampler.weights, 4000, seed=8, epoch=2)
    assert drawn == list(zip(order.tolist(), turns.tolist(), strict=True))
    kinds = [dataset.kinds[dataset.selection.kind[index]] for index, _ in drawn]
    assert abs(kinds.count("centered") / 4000 - 0.75) < 0.03


def test_processes_share_an_epoch(path) -> None:
    dataset = PatchDataset(path)
    parts = [list(BalancedSampler(dataset, n_draws=10, rank=rank, world_size=3)) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    together = [parts[i % 3][i // 3] for i in range(12)]
    assert together == list(BalancedSampler(dataset, n_draws=12))
    assert len(set(together)) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_draws": 0}, "n_draws: expected at least 1, found 0"),
        ({"rank": 2, "world_size": 2}, "rank: expected 0 … 1, found 2"),
        ({"kinds": {"multi": 1}}, "no patch of multi"),
    ],
)
def test_samplers_that_cannot_be(path, settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        BalancedSampler(PatchDataset(path), **settings)


def test_samples_of_numpy_are_no_tensors(path) -> None:
    with pytest.raises(
        UsageError, match=r"batch: expected samples of tensors, found arrays.*keypatch\.augment\.collate"
    ):
        collate([Patches(path)[0]])


def test_unknown_settings_are_errors(path) -> None:
    with pytest.raises(TypeError, match="augmentations"):
        PatchDataset(path, augmentations=3)
