"""Mixing the samples of a batch: mixup, cutmix, cutmixup and coarse dropout.

Everything here is one rule. A drawing says, for every voxel, how much of it is the sample's own (its share) and how
much its partner's (the rest). The image is mixed so, and a keypoint's weight is multiplied by the share at the voxel
that it lies in; a keypoint outside of the image goes with the voxel nearest to it. Then the target is written from the
keypoints that are left. A Gaussian belongs to its keypoint: its tail is drawn across an edge, and a keypoint that is
cut away takes its tail along. docs/mixing.md shows both.

One drawing serves a whole batch, as the authors of mixup and cutmix have it, and partners are rotated: sample i is
mixed with sample i + shift. So every voxel and every keypoint of the batch is shared out without rest, and the sum of
all weights stays what it was (coarse dropout alone takes away).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, TypeAlias

import numpy as np

from keypatch.augment.batch import (
    BATCH_INDEX,
    IMAGE,
    MAP,
    POINT_KEYS,
    POINTS,
    TARGET,
    WEIGHT,
    cast,
    namespace,
    render_targets,
)
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keypatch.augment.batch import Batch

Shape3: TypeAlias = tuple[int, int, int]
Box: TypeAlias = tuple[Shape3, Shape3]
"""First voxel and the one behind the last, z, y, x."""


class Drawing(Protocol):
    """What was drawn for one batch."""

    def apply(self, batch: Batch, *, in_place: bool = False) -> Batch:
        """The mixed batch; the one given stays as it is but for its image, if that may be written over."""
        ...


class Mixing(Protocol):
    """The settings of one way to mix."""

    def draw(self, rng: np.random.Generator, n_samples: int, shape: Sequence[int]) -> Drawing | None:
        """Draw for a batch of so many images of that (D, H, W) shape; None leaves the batch as it is."""
        ...


@dataclass(frozen=True)
class Blend:
    """Samples mixed with their partners inside one box.

    Attributes:
        shift: The partner of sample i is sample (i + shift) mod B.
        box: Where; outside of it a sample is wholly its own.
        share: Of the sample inside of the box, 0 … 1; the rest is its partner's.
    """

    shift: int
    box: Box
    share: float

    def apply(self, batch: Batch, *, in_place: bool = False) -> Batch:
        """See `Drawing`. Integer images are rounded half to even.

        Raises:
            UsageError: If voxels are integers of 64 bit, whose mixture no number here holds.
        """
        image = batch[IMAGE]
        xp, n = namespace(image), len(image)
        inside = (..., *_slices(self.box))
        blended = _blended(image[inside], self.shift, self.share)
        if blended.shape == image.shape and not in_place:
            mixed = blended
        else:
            mixed = image if in_place else xp.asarray(image, copy=True)
            mixed[inside] = blended

        within = _in_box(batch[POINTS], self.box, image.shape[-3:])
        partner_share = (1 - self.share) * cast(within, batch[WEIGHT].dtype)
        sample = batch[BATCH_INDEX]
        moved = {key: xp.concatenate([batch[key], batch[key]]) for key in POINT_KEYS if key in batch}
        moved[WEIGHT] = xp.concatenate([batch[WEIGHT] * (1 - partner_share), batch[WEIGHT] * partner_share])
        # Keypoints of sample i + shift go to sample i as those of its partner.
        moved[BATCH_INDEX] = xp.concatenate([sample, (sample - self.shift) % n])
        return _rewritten(batch | moved | {IMAGE: mixed})


@dataclass(frozen=True)
class Holes:
    """Boxes filled with one value, each sample with its own.

    Attributes:
        boxes: Of each sample.
        fill: What voxels become; "mean" is the mean of the sample's image.
        drop: Whether a keypoint in a box is taken away; else it stays as it is.
    """

    boxes: tuple[tuple[Box, ...], ...]
    fill: float | Literal["mean"]
    drop: bool

    def apply(self, batch: Batch, *, in_place: bool = False) -> Batch:
        """See `Drawing`.

        Raises:
            UsageError: If an integer image cannot hold the fill value.
        """
        image = batch[IMAGE]
        filled = image if in_place else namespace(image).asarray(image, copy=True)
        keep = batch[WEIGHT] > 0
        for i, boxes in enumerate(self.boxes):
            value = _fill_value(image[i], self.fill)
            for box in boxes:
                filled[(i, ..., *_slices(box))] = value
                keep &= ~((batch[BATCH_INDEX] == i) & _in_box(batch[POINTS], box, image.shape[-3:]))
        holed = batch | {IMAGE: filled}
        return _rewritten(holed | {WEIGHT: batch[WEIGHT] * cast(keep, batch[WEIGHT].dtype)}) if self.drop else holed


@dataclass(frozen=True)
class Mixup:
    """Whole images blended (Zhang et al. 2018, arXiv:1710.09412).

    Attributes:
        alpha: The share is drawn from Beta(alpha, alpha); small values stay near 0 and 1.
        p: Share of the batches that are mixed.

    Raises:
        UsageError: If a value is not what it must be.
    """

    name: ClassVar[str] = "mixup"
    alpha: float = 0.4
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(self, "alpha")
        _check_share(self, "p")

    def draw(self, rng: np.random.Generator, n_samples: int, shape: Sequence[int]) -> Blend | None:
        """See `Mixing`."""
        shift = _draw_partner(rng, self.p, n_samples)
        share = float(rng.beta(self.alpha, self.alpha))
        return Blend(shift, ((0, 0, 0), _shape3(shape)), share) if shift else None


@dataclass(frozen=True)
class CutMix:
    """A box of every image taken from its partner (Yun et al. 2019, arXiv:1905.04899).

    Attributes:
        alpha: The box's share of the volume is 1 - λ, with λ from Beta(alpha, alpha), before it is cut off at the
            image's edges; its sides have the image's proportions, its centre lies anywhere.
        p: Share of the batches that are mixed.

    Raises:
        UsageError: If a value is not what it must be.
    """

    name: ClassVar[str] = "cutmix"
    alpha: float = 1.0
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(self, "alpha")
        _check_share(self, "p")

    def draw(self, rng: np.random.Generator, n_samples: int, shape: Sequence[int]) -> Blend | None:
        """See `Mixing`."""
        shift = _draw_partner(rng, self.p, n_samples)
        box = _draw_box(rng, (1 - float(rng.beta(self.alpha, self.alpha))) ** (1 / 3), shape)
        return Blend(shift, box, 0.0) if shift else None


@dataclass(frozen=True)
class CutMixup:
    """A box of every image blended with its partner: cutmix for the box, mixup in it.

    Attributes:
        alpha: For the box, as in `CutMix`.
        blend: For the share in the box, as ``alpha`` of `Mixup`.
        p: Share of the batches that are mixed.

    Raises:
        UsageError: If a value is not what it must be.
    """

    name: ClassVar[str] = "cutmixup"
    alpha: float = 1.0
    blend: float = 1.0
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(self, "alpha")
        _check_positive(self, "blend")
        _check_share(self, "p")

    def draw(self, rng: np.random.Generator, n_samples: int, shape: Sequence[int]) -> Blend | None:
        """See `Mixing`."""
        shift = _draw_partner(rng, self.p, n_samples)
        box = _draw_box(rng, (1 - float(rng.beta(self.alpha, self.alpha))) ** (1 / 3), shape)
        share = float(rng.beta(self.blend, self.blend))
        return Blend(shift, box, share) if shift else None


@dataclass(frozen=True)
class CoarseDropout:
    """Boxes of every image filled with one value (cutout, DeVries & Taylor 2017, arXiv:1708.04552).

    Attributes:
        holes: Least and greatest number of boxes.
        size: Least and greatest side of a box, as a share of the image's; each side is drawn for itself.
        fill: What voxels become: a number, or "mean" for the mean of the image.
        keypoints: "drop" takes a keypoint in a box away, "keep" leaves it.
        p: Share of the samples that get boxes.

    Raises:
        UsageError: If a value is not what it must be.
    """

    name: ClassVar[str] = "coarse_dropout"
    holes: tuple[int, int] = (1, 4)
    size: tuple[float, float] = (0.1, 0.3)
    fill: float | Literal["mean"] = "mean"
    keypoints: Literal["drop", "keep"] = "drop"
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_share(self, "p")
        least, most = _pair(self, "holes")
        if not (0 <= least <= most < math.inf and least == int(least) and most == int(most)):
            raise _wrong(self, "holes", "two whole numbers, rising, from 0")
        smallest, largest = _pair(self, "size")
        if not 0 < smallest <= largest <= 1:
            raise _wrong(self, "size", "two shares, rising, above 0 and up to 1")
        if self.fill != "mean" and not (isinstance(self.fill, (int, float)) and math.isfinite(self.fill)):
            raise _wrong(self, "fill", 'a number or "mean"')
        if self.keypoints not in ("drop", "keep"):
            raise _wrong(self, "keypoints", '"drop" or "keep"')

    def draw(self, rng: np.random.Generator, n_samples: int, shape: Sequence[int]) -> Holes | None:
        """See `Mixing`."""
        boxes = tuple(self._draw_sample(rng, shape) for _ in range(n_samples))
        return Holes(boxes, self.fill, self.keypoints == "drop") if any(boxes) else None

    def _draw_sample(self, rng: np.random.Generator, shape: Sequence[int]) -> tuple[Box, ...]:
        wanted, n = rng.random() < self.p, int(rng.integers(self.holes[0], self.holes[1], endpoint=True))
        boxes = []
        for _ in range(n if wanted else 0):
            sides = np.maximum(np.rint(rng.uniform(*self.size, 3) * shape), 1).astype(int)
            start = rng.integers(0, np.array(shape) - sides, endpoint=True)
            boxes.append((_shape3(start), _shape3(start + sides)))
        return tuple(boxes)


MIXINGS: Final[dict[str, type[Mixup | CutMix | CutMixup | CoarseDropout]]] = {
    one.name: one for one in (Mixup, CutMix, CutMixup, CoarseDropout)
}
"""By the name that they have in a recipe."""


def mixing_from_mapping(settings: Mapping[str, Any]) -> tuple[Mixing, ...]:
    """From a recipe's tables: ``{"cutmix": {"p": 0.5}, "coarse_dropout": {}}``, carried out in that order.

    Raises:
        UsageError: If a name or a key is unknown, or a value is not what it must be.
    """
    chosen = []
    for name, values in settings.items():
        if name not in MIXINGS:
            raise UsageError.at("mixing", expected=f"one of {', '.join(MIXINGS)}", found=repr(name))
        known = [field.name for field in fields(MIXINGS[name])]
        if not isinstance(values, dict) or not set(values) <= set(known):
            raise UsageError.at(name, expected=f"a table of {', '.join(known)}", found=repr(values))
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        chosen.append(MIXINGS[name](**given))
    return tuple(chosen)


def mixing_to_json(mixings: Sequence[Mixup | CutMix | CutMixup | CoarseDropout]) -> dict[str, Any]:
    """What `mixing_from_mapping` takes."""
    return {one.name: asdict(one) for one in mixings}


def mix(batch: Batch, mixings: Sequence[Mixing], rng: np.random.Generator, *, in_place: bool = False) -> Batch:
    """Draw and carry out each of them in turn.

    Args:
        batch: Of numpy arrays or of tensors, on any device.
        mixings: In their order.
        rng: The same draws come from the same state, whatever the arrays are.
        in_place: Whether the images of the batch may be written over, which spares memory and its first touch.

    Returns:
        The mixed batch with its target written anew; the one given stays as it is, unless ``in_place``.

    Raises:
        UsageError: If the voxels' dtype cannot hold a mixture, or a fill value, or images are not resampled yet.
    """
    if MAP in batch:
        hint = "call keypatch.torch.resample first"
        raise UsageError.at("mixing", expected="images that have gone through their maps", found="others", hint=hint)
    shape = batch[IMAGE].shape
    for one in mixings:
        drawing = one.draw(rng, shape[0], shape[-3:])
        batch = batch if drawing is None else drawing.apply(batch, in_place=in_place)
    return batch


def _rewritten(batch: Batch) -> Batch:
    """Sorts the keypoints by sample, leaves out those without weight, and writes the target anew."""
    xp = namespace(batch[IMAGE])
    weighing = xp.where(batch[WEIGHT] > 0)[0]
    rows = weighing[xp.argsort(batch[BATCH_INDEX][weighing], stable=True)]
    sorted_ = batch | {key: batch[key][rows] for key in (*POINT_KEYS, BATCH_INDEX) if key in batch}
    if TARGET not in batch:
        return sorted_
    _, n_classes, *grid = batch[TARGET].shape
    written = render_targets(sorted_, n_classes=n_classes, grid=grid)
    return sorted_ | {TARGET: cast(written, batch[TARGET].dtype)}


def _in_box(points: Any, box: Box, shape: Sequence[int]) -> Any:  # noqa: ANN401 - of numpy or torch
    """(K,) whether the voxel that a keypoint lies in, or the nearest one of the image, lies in the box."""
    inside = points[:, 0] == points[:, 0]
    for axis, (first, stop, n) in enumerate(zip(*box, shape, strict=True)):
        place = points[:, axis].clip(0, n - 1)
        inside &= (place >= first - 0.5) & (place < stop - 0.5)
    return inside


def _blended(own: Any, shift: int, share: float) -> Any:  # noqa: ANN401 - of numpy or torch
    """``share`` of each image and the rest of its partner, in as few passes over fresh memory as may be."""
    xp = namespace(own)
    partner = xp.roll(own, -shift, 0)
    if share == 0:
        return partner
    if not _is_floating(own) and own.dtype.itemsize > 4:
        raise UsageError.at("mixing", expected="floats, or integers of up to 32 bit", found=str(own.dtype))
    real = own.dtype if _is_floating(own) else xp.float32 if own.dtype.itemsize <= 2 else xp.float64
    partner = cast(partner, real)
    partner *= 1 - share
    partner += cast(own, real) * share
    return partner if real == own.dtype else cast(xp.round(partner), own.dtype)


def _fill_value(image: Any, fill: float | Literal["mean"]) -> float:  # noqa: ANN401 - of numpy or torch
    xp = namespace(image)
    value = float(image.mean(dtype=xp.float64)) if fill == "mean" else float(fill)
    if _is_floating(image):
        return value
    if fill == "mean":
        return round(value)
    limits = xp.iinfo(image.dtype)
    if value != round(value) or not limits.min <= value <= limits.max:
        raise UsageError.at("coarse_dropout: fill", expected=f"a value of {image.dtype}", found=str(fill))
    return int(value)


def _is_floating(image: Any) -> bool:  # noqa: ANN401 - of numpy or torch
    return image.dtype.kind == "f" if isinstance(image, np.ndarray) else bool(image.dtype.is_floating_point)


def _draw_partner(rng: np.random.Generator, p: float, n_samples: int) -> int:
    """How far partners lie apart; 0 where nothing is to be mixed, as in a batch of one."""
    wanted, shift = rng.random() < p, int(rng.integers(1, max(n_samples, 2)))
    return shift if wanted and n_samples > 1 else 0


def _draw_box(rng: np.random.Generator, side: float, shape: Sequence[int]) -> Box:
    """A box whose sides are this share of the image's, centred anywhere in it and cut off at its edges."""
    size = np.array(shape)
    sides = np.maximum(np.rint(side * size), 1).astype(int)
    start = rng.integers(0, size) - sides // 2
    return _shape3(np.maximum(start, 0)), _shape3(np.minimum(start + sides, size))


def _slices(box: Box) -> tuple[slice, slice, slice]:
    z, y, x = (slice(first, stop) for first, stop in zip(*box, strict=True))
    return z, y, x


def _shape3(values: Any) -> Shape3:  # noqa: ANN401 - a sequence or an array of three
    z, y, x = (int(n) for n in values)
    return z, y, x


def _check_positive(settings: Any, name: str) -> None:  # noqa: ANN401 - any of the classes above
    value = getattr(settings, name)
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise _wrong(settings, name, "a number above 0")


def _check_share(settings: Any, name: str) -> None:  # noqa: ANN401 - any of the classes above
    value = getattr(settings, name)
    if not (isinstance(value, (int, float)) and 0 <= value <= 1):
        raise _wrong(settings, name, "a number from 0 to 1")


def _pair(settings: Any, name: str) -> tuple[float, float]:  # noqa: ANN401 - any of the classes above
    value = getattr(settings, name)
    if not (isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)):
        raise _wrong(settings, name, "two numbers")
    return value[0], value[1]


def _wrong(settings: Any, name: str, expected: str) -> UsageError:  # noqa: ANN401 - any of the classes above
    return UsageError.at(f"{settings.name}: {name}", expected=expected, found=repr(getattr(settings, name)))


__all__ = [
    "MIXINGS",
    "Blend",
    "CoarseDropout",
    "CutMix",
    "CutMixup",
    "Drawing",
    "Holes",
    "Mixing",
    "Mixup",
    "mix",
    "mixing_from_mapping",
    "mixing_to_json",
]
