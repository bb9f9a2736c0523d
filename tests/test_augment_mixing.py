"""Mixing: every voxel and every keypoint of a batch is shared out by what was drawn, and the target follows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.batches import FACTOR, N_CLASSES, SHAPE, random_batch
from tests.trials import trials

from keypatch.augment import CoarseDropout, CutMix, CutMixup, Mixup, mix, mixing_from_mapping
from keypatch.augment.mixing import Blend, Holes, mixing_to_json
from keypatch.errors import UsageError

WHOLE = ((0, 0, 0), SHAPE)


def share_of(batch, drawing: Blend) -> tuple[np.ndarray, np.ndarray]:
    """How much of each voxel and of each keypoint is the sample's own, voxel by voxel and point by point."""
    (z0, y0, x0), (z1, y1, x1) = drawing.box
    shape = batch["image"].shape[-3:]
    voxels = np.ones(shape)
    for z in range(z0, z1):
        for y in range(y0, y1):
            for x in range(x0, x1):
                voxels[z, y, x] = drawing.share
    points = []
    for point in batch["keypoints"]:
        nearest = [min(max(int(np.floor(c + 0.5)), 0), n - 1) for c, n in zip(point, shape, strict=True)]
        points.append(voxels[tuple(nearest)])
    return voxels, np.array(points)


def expected_points(batch, drawing: Blend) -> list[tuple]:
    """(sample, place, class, annotation, weight) of all that have a weight, in any order."""
    n = len(batch["image"])
    shares = share_of(batch, drawing)[1]
    found = []
    for k, share in enumerate(shares):
        owner, weight = int(batch["batch_index"][k]), float(batch["weight"][k])
        key = (*batch["keypoints"][k].tolist(), int(batch["class_index"][k]), int(batch["annotation_index"][k]))
        for sample, part in ((owner, share), ((owner - drawing.shift) % n, 1 - share)):
            if part * weight > 0:
                found.append((sample, key, part * weight))
    return sorted(found)


def points_of(batch) -> list[tuple]:
    found = []
    for k in range(len(batch["weight"])):
        key = (*batch["keypoints"][k].tolist(), int(batch["class_index"][k]), int(batch["annotation_index"][k]))
        found.append((int(batch["batch_index"][k]), key, float(batch["weight"][k])))
    return sorted(found)


def target_by_hand(batch) -> np.ndarray:
    """The formula, point by point, in float64."""
    shape = batch["image"].shape[-3:]
    grid = np.stack(np.meshgrid(*[np.arange(n // FACTOR) for n in shape], indexing="ij"), -1)
    target = np.zeros((len(batch["image"]), N_CLASSES, *grid.shape[:3]))
    for k, point in enumerate(batch["keypoints"]):
        d = (grid - ((point + 0.5) / FACTOR - 0.5)) / batch["sigma"][k]
        value = batch["weight"][k] * np.exp(-0.5 * (d**2).sum(-1))
        channel = target[batch["batch_index"][k], batch["class_index"][k]]
        np.maximum(channel, value, out=channel)
    return target


@st.composite
def blends(draw: st.DrawFn) -> Blend:
    ends = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in SHAPE]
    box = (tuple(a for a, _ in ends), tuple(b for _, b in ends))
    return Blend(draw(st.integers(1, 4)), box, draw(st.sampled_from([0.0, 1.0]) | st.floats(1e-3, 0.999)))


@settings(max_examples=trials(60))
@given(blends(), st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 20))
def test_a_blend_shares_out_voxels_and_keypoints(drawing, seed, n_samples, n_points) -> None:
    batch = random_batch(seed, n_samples, n_points)
    kept = {key: value.copy() for key, value in batch.items()}
    mixed = drawing.apply(batch)
    for key, value in kept.items():
        assert np.array_equal(batch[key], value), f"the given {key} was changed"
    in_place = drawing.apply(kept, in_place=True)
    assert in_place["image"] is kept["image"]
    assert all(np.array_equal(in_place[key], value) for key, value in mixed.items())
    voxels, _ = share_of(batch, drawing)
    partner = np.stack([batch["image"][(i + drawing.shift) % n_samples] for i in range(n_samples)]).astype(float)
    np.testing.assert_allclose(mixed["image"], voxels * batch["image"] + (1 - voxels) * partner, rtol=1e-6, atol=1e-4)
    assert mixed["image"].dtype == np.float32
    found, expected = points_of(mixed), expected_points(batch, drawing)
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    np.testing.assert_allclose([one[2] for one in found], [one[2] for one in expected], rtol=1e-5, atol=1e-7)
    assert (np.diff(mixed["batch_index"]) >= 0).all()
    assert mixed["target"].dtype == np.float32
    np.testing.assert_allclose(mixed["target"], target_by_hand(mixed), rtol=0, atol=1e-6)


@settings(max_examples=trials(60))
@given(st.sampled_from([Mixup(), CutMix(), CutMixup()]), st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_mixing_keeps_the_sum_of_weights(mixing, seed, n_samples) -> None:
    """Of every annotation, and so of the batch: what a sample loses its partner's partner has."""
    batch = random_batch(seed, n_samples, 15)
    mixed = mix(batch, [mixing], np.random.default_rng(seed))
    sums = np.zeros(15)
    np.add.at(sums, mixed["annotation_index"], mixed["weight"].astype(float))
    np.testing.assert_allclose(sums, batch["weight"], rtol=1e-6)
    assert np.isclose(mixed["image"].astype(float).sum(), batch["image"].astype(float).sum(), rtol=1e-6)


def test_cutmix_moves_points_whole_and_mixup_keeps_all() -> None:
    batch = random_batch(1, 4, 30)
    cut = mix(batch, [CutMix()], np.random.default_rng(3))
    assert sorted(cut["annotation_index"].tolist()) == list(range(30))
    assert set(cut["weight"].tolist()) == set(batch["weight"].tolist())
    assert not np.array_equal(cut["batch_index"], batch["batch_index"])
    blended = mix(batch, [Mixup()], np.random.default_rng(3))
    assert len(blended["weight"]) == 60


def test_a_point_on_the_edge_goes_with_its_voxel() -> None:
    """Voxel 4 covers [3.5, 4.5): a box from voxel 4 on begins at 3.5."""
    batch = random_batch(0, 2, 4)
    batch["keypoints"] = np.array([[3.5, 2, 2], [np.nextafter(3.5, 0), 2, 2], [7.7, 2, 2], [-3.0, 2, 2]])
    batch["batch_index"], batch["weight"] = np.zeros(4, int), np.ones(4, np.float32)
    mixed = Blend(1, ((4, 0, 0), SHAPE), 0.0).apply(batch)
    assert dict(zip(mixed["annotation_index"].tolist(), mixed["batch_index"].tolist(), strict=True)) == {
        0: 1,  # in the box: it is the partner's now
        1: 0,
        2: 1,  # outside of the image, nearest to the box
        3: 0,
    }


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32"])
def test_integers_stay_integers(dtype) -> None:
    batch = random_batch(2, 3, 5, dtype=dtype)
    batch["image"][0, 0, 0, 0, 0], batch["image"][1, 0, 0, 0, 0] = np.iinfo(dtype).max, np.iinfo(dtype).max
    mixed = Blend(1, WHOLE, 0.3).apply(batch)["image"]
    assert mixed.dtype == dtype
    own, partner = batch["image"].astype(float), np.roll(batch["image"], -1, 0).astype(float)
    np.testing.assert_allclose(mixed, 0.3 * own + 0.7 * partner, rtol=0, atol=0.5 + 1e-6)
    assert mixed[0, 0, 0, 0, 0] == np.iinfo(dtype).max
    cut = Blend(1, WHOLE, 0.0).apply(batch)["image"]
    assert np.array_equal(cut, np.roll(batch["image"], -1, 0))


def test_64_bit_integers_are_refused_where_they_would_be_blended() -> None:
    batch = random_batch(2, 3, 5, dtype="int64")
    assert Blend(1, WHOLE, 0.0).apply(batch)["image"].dtype == np.int64
    with pytest.raises(UsageError, match="integers of up to 32 bit, found int64"):
        Blend(1, WHOLE, 0.5).apply(batch)


def test_one_sample_has_no_partner() -> None:
    batch = random_batch(0, 1, 5)
    for mixing in (Mixup(), CutMix(), CutMixup()):
        assert mix(batch, [mixing], np.random.default_rng(0)) is batch


def test_p_is_the_share_of_batches() -> None:
    rng = np.random.default_rng(0)
    for mixing in (Mixup(p=0.3), CutMix(p=0.3), CutMixup(p=0.3)):
        drawn = [mixing.draw(rng, 4, SHAPE) is not None for _ in range(2000)]
        assert 0.25 < np.mean(drawn) < 0.35
    assert CutMix(p=0).draw(rng, 4, SHAPE) is None


def test_partners_are_never_the_sample_itself() -> None:
    rng = np.random.default_rng(0)
    shifts = {Mixup().draw(rng, 4, SHAPE).shift for _ in range(100)}
    assert shifts == {1, 2, 3}


def test_boxes_lie_in_the_image_and_have_the_share_that_was_drawn() -> None:
    """With lambda from Beta(1, 1) the box's share of the volume is uniform, less what the edges cut off."""
    rng = np.random.default_rng(0)
    shape = (40, 60, 80)
    sizes = []
    for _ in range(2000):
        drawing = CutMix().draw(rng, 4, shape)
        assert drawing.share == 0
        start, stop = drawing.box
        assert all(0 <= a < b <= n for a, b, n in zip(start, stop, shape, strict=True))
        sizes.append(np.prod(np.subtract(stop, start)) / np.prod(shape))
    # centre uniform: a side s keeps s - s^2 / 4 of the image on average, so E = E[(s - s^2/4)^3] with s^3 uniform
    u = np.linspace(0, 1, 10001) ** (1 / 3)
    assert abs(np.mean(sizes) - ((u - u**2 / 4) ** 3).mean()) < 0.02


# ----- coarse dropout -----


def test_holes_fill_and_drop() -> None:
    batch = random_batch(5, 2, 40)
    boxes = ((((1, 2, 3), (5, 9, 12)),), (((0, 0, 0), (2, 2, 2)), ((6, 6, 6), (8, 12, 16))))
    for drop in (True, False):
        holed = Holes(boxes, 7.0, drop).apply(batch)
        over = Holes(boxes, 7.0, drop).apply(batch | {"image": batch["image"].copy()}, in_place=True)
        assert all(np.array_equal(over[key], value) for key, value in holed.items())
        covered = np.zeros(batch["image"].shape, bool)
        for i, own in enumerate(boxes):
            for (z0, y0, x0), (z1, y1, x1) in own:
                covered[i, 0, z0:z1, y0:y1, x0:x1] = True
        assert (holed["image"][covered] == 7).all()
        assert np.array_equal(holed["image"][~covered], batch["image"][~covered])
        nearest = np.clip(np.floor(batch["keypoints"] + 0.5).astype(int), 0, np.array(SHAPE) - 1)
        hit = covered[batch["batch_index"], 0, nearest[:, 0], nearest[:, 1], nearest[:, 2]]
        assert 0 < hit.sum() < 40
        left = np.flatnonzero(~hit) if drop else np.arange(40)
        assert holed["annotation_index"].tolist() == left.tolist()
        assert np.array_equal(holed["weight"], batch["weight"][left])
        np.testing.assert_allclose(holed["target"], target_by_hand(holed), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_mean_is_that_of_the_sample(dtype) -> None:
    batch = random_batch(5, 2, 3, dtype=dtype)
    holed = Holes(((((0, 0, 0), (2, 2, 2)),), ()), "mean", drop=True).apply(batch)
    mean = batch["image"][0].astype(float).mean()
    assert holed["image"][0, 0, 0, 0, 0] == (np.float32(mean) if dtype == "float32" else round(mean))
    assert np.array_equal(holed["image"][1], batch["image"][1])


@pytest.mark.parametrize("fill", [-1, 256, 0.5])
def test_a_fill_that_the_image_cannot_hold(fill) -> None:
    with pytest.raises(UsageError, match="fill: expected a value of uint8"):
        Holes(((((0, 0, 0), (2, 2, 2)),),), fill, drop=True).apply(random_batch(0, 1, 0, dtype="uint8"))


def test_dropout_draws_sides_and_numbers_as_told() -> None:
    rng, shape = np.random.default_rng(0), (40, 60, 80)
    drawn = CoarseDropout(holes=(2, 3), size=(0.25, 0.5)).draw(rng, 200, shape)
    assert {len(boxes) for boxes in drawn.boxes} == {2, 3}
    sides = np.array([np.subtract(stop, start) / shape for boxes in drawn.boxes for start, stop in boxes])
    assert 0.23 < sides.min() < 0.27
    assert 0.48 < sides.max() < 0.52
    assert all(np.all(np.array(box) >= 0) and np.all(np.array(box[1]) <= shape) for b in drawn.boxes for box in b)
    assert CoarseDropout(p=0).draw(rng, 20, shape) is None


# ----- recipes and bad input -----


def test_a_recipe_comes_back() -> None:
    settings_ = {
        "cutmix": {"p": 0.5},
        "coarse_dropout": {"holes": [1, 2], "size": [0.1, 0.2], "fill": 0, "keypoints": "keep"},
        "mixup": {},
        "cutmixup": {"blend": 0.5},
    }
    chosen = mixing_from_mapping(settings_)
    assert chosen == (
        CutMix(p=0.5),
        CoarseDropout((1, 2), (0.1, 0.2), 0, "keep"),
        Mixup(),
        CutMixup(blend=0.5),
    )
    assert mixing_from_mapping(mixing_to_json(chosen)) == chosen


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cutmax": {}}, "one of mixup, cutmix, cutmixup, coarse_dropout, found 'cutmax'"),
        ({"cutmix": {"beta": 1}}, "cutmix: expected a table of alpha, p"),
        ({"cutmix": 3}, "cutmix: expected a table of alpha, p, found 3"),
        ({"cutmix": {"alpha": 0}}, "cutmix: alpha: expected a number above 0, found 0"),
        ({"cutmix": {"alpha": float("nan")}}, "cutmix: alpha: expected a number above 0, found nan"),
        ({"mixup": {"p": 1.5}}, "mixup: p: expected a number from 0 to 1"),
        ({"mixup": {"p": "often"}}, "mixup: p: expected a number from 0 to 1"),
        ({"cutmixup": {"blend": -1}}, "cutmixup: blend: expected a number above 0"),
        ({"coarse_dropout": {"holes": [3, 1]}}, "holes: expected two whole numbers, rising"),
        ({"coarse_dropout": {"holes": [float("nan"), 1]}}, "holes: expected two whole numbers, rising"),
        ({"coarse_dropout": {"holes": 3}}, "holes: expected two numbers, found 3"),
        ({"coarse_dropout": {"size": [0, 0.5]}}, "size: expected two shares"),
        ({"coarse_dropout": {"size": [0.5, float("nan")]}}, "size: expected two shares"),
        ({"coarse_dropout": {"fill": "noise"}}, 'fill: expected a number or "mean"'),
        ({"coarse_dropout": {"keypoints": "hide"}}, 'keypoints: expected "drop" or "keep"'),
    ],
)
def test_settings_that_make_no_sense(given, message) -> None:
    with pytest.raises(UsageError, match=message):
        mixing_from_mapping(given)


def test_no_keypoint_at_all() -> None:
    batch = random_batch(0, 3, 0)
    for mixing in (Mixup(), CutMix(), CutMixup(), CoarseDropout()):
        mixed = mix(batch, [mixing], np.random.default_rng(1))
        assert mixed["keypoints"].shape == (0, 3)
        assert not mixed["target"].any()
        assert not np.array_equal(mixed["image"], batch["image"])
