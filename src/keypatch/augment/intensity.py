"""Intensity augmentation by other libraries: any callable on the image, seeded for each sample.

keypatch has no brightness, noise or blur of its own. What it has is the way to call MONAI's, torchvision's, kornia's or
your own: the axes and the container that each expects, and random numbers that come from the sample's (seed, epoch,
index), so that the same sample gets the same noise in any worker.
"""

from __future__ import annotations

import contextlib
import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from keypatch.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

Axes: TypeAlias = Literal["DHW", "CDHW", "DCHW", "BDHW", "BCDHW"]
"""How an image is handed over; B and C have length 1."""

Container: TypeAlias = Literal["numpy", "torch"]

_NEW_AXES: Final[dict[str, tuple[int, ...]]] = {"DHW": (), "CDHW": (0,), "DCHW": (1,), "BDHW": (0,), "BCDHW": (0, 1)}

_MOST: Final = 2**32 - 1
"""Greatest seed that numpy's legacy generator, and so MONAI's, takes."""


@dataclass(frozen=True)
class Intensity:
    """A callable on images as keypatch calls it.

    What a library expects is known by the name of the package that the callable comes from, and may be said otherwise:

    | from | container | axes |
    |---|---|---|
    | monai | torch | CDHW |
    | kornia, classes for 3D | torch | BCDHW |
    | kornia, others | torch | BDHW: slices stand as channels; all of them get one draw |
    | torchvision | torch | DCHW: slices stand as a batch, of which v2 draws once |
    | any other | numpy | DHW |

    torchvision and kornia take floats for values in 0 … 1 and some of their transforms cut off what lies beyond: say
    ``value_range`` where voxels are not.

    Attributes:
        transform: Takes an image and gives one of the same shape.
        container: What the image is when handed over.
        axes: Its axes then.
        value_range: Values that are mapped to 0 and 1 before, and back afterwards; None leaves values as they are.
        seed_with: Called with a seed (an integer below 2^32) before each image, for callables that hold a generator of
            their own. MONAI's ``set_random_state`` and albumentations' ``set_random_seed`` are found without it, and
            what draws from torch's, numpy's or Python's global generator needs none.
        takes_rng: Whether the callable is handed the sample's own generator as a second argument. numpy's newer
            generators draw float32 noise in half the time that MONAI's need.

    Raises:
        UsageError: If the transform is no callable, or another value is not what it must be.
    """

    transform: Callable[..., Any]
    container: Container | None = None
    axes: Axes | None = None
    value_range: tuple[float, float] | None = None
    seed_with: Callable[[int], object] | None = None
    takes_rng: bool = False

    def __post_init__(self) -> None:
        if not callable(self.transform):
            raise UsageError.at("intensity", expected="a callable on an image", found=repr(self.transform))
        if self.container not in (None, *get_args(Container)):
            raise UsageError.at("intensity: container", expected='"numpy" or "torch"', found=repr(self.container))
        if self.axes not in (None, *_NEW_AXES):
            raise UsageError.at("intensity: axes", expected=f"one of {', '.join(_NEW_AXES)}", found=repr(self.axes))
        if self.value_range is not None:
            low, high = self.value_range
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise UsageError.at("intensity: value_range", expected="low < high", found=repr(self.value_range))

    def __call__(self, image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Carry it out on one image.

        Args:
            image: (D, H, W) of any number type.
            rng: Of the sample; one integer is drawn from it, for the seed.

        Returns:
            (D, H, W) of the image's dtype.

        Raises:
            UsageError: If the callable gives another shape, or floats for integers.
            MissingExtraError: If tensors are asked for and torch is missing.
        """
        seed = int(rng.integers(_MOST, endpoint=True))
        container, axes = self._form()
        given = np.expand_dims(self._to_unit(image), _NEW_AXES[axes])
        handed = _as_tensor(given) if container == "torch" else given
        with _seeded(seed):
            self._seed_transform(seed)
            result = np.asarray(self.transform(handed, rng) if self.takes_rng else self.transform(handed))
        if result.shape != given.shape:
            raise UsageError.at(
                self._name, expected=f"an image of shape {given.shape} back", found=f"one of {result.shape}"
            )
        return self._from_unit(result.reshape(image.shape), image.dtype)

    def _form(self) -> tuple[Container, Axes]:
        container, axes = _expected_by(self.transform)
        return self.container or container, self.axes or axes

    def _seed_transform(self, seed: int) -> None:
        if self.seed_with is not None:
            self.seed_with(seed)
            return
        for name in ("set_random_state", "set_random_seed"):
            if hasattr(self.transform, name):
                getattr(self.transform, name)(seed)
                return

    def _to_unit(self, image: NDArray[Any]) -> NDArray[Any]:
        if self.value_range is None:
            return image
        low, high = self.value_range
        wide: NDArray[Any] = image.astype(np.dtype("float64" if image.dtype.itemsize > 4 else "float32"))
        unit: NDArray[Any] = (wide - low) / (high - low)
        return unit

    def _from_unit(self, result: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        if self.value_range is not None:
            low, high = self.value_range
            result = result * (high - low) + low
            if dtype.kind != "f":
                limits = np.iinfo(dtype)
                result = np.rint(result).clip(limits.min, limits.max)
        elif dtype.kind != "f" and result.dtype != dtype:
            hint = 'read images as floats (dtype="float32"), or say value_range'
            raise UsageError.at(self._name, expected=f"{dtype} back", found=str(result.dtype), hint=hint)
        return np.ascontiguousarray(result, dtype)

    @property
    def _name(self) -> str:
        return f"intensity: {getattr(self.transform, '__name__', type(self.transform).__name__)}"


def as_intensity(transform: Callable[[Any], Any] | Intensity) -> Intensity:
    """A callable as an `Intensity`, or the one that it is already."""
    return transform if isinstance(transform, Intensity) else Intensity(transform)


def _expected_by(transform: Callable[[Any], Any]) -> tuple[Container, Axes]:
    """What the package that a callable comes from expects; see `Intensity`."""
    kind = transform if hasattr(transform, "__module__") and hasattr(transform, "__name__") else type(transform)
    package = str(kind.__module__).partition(".")[0]
    if package == "monai":
        return "torch", "CDHW"
    if package == "torchvision":
        return "torch", "DCHW"
    if package == "kornia":
        bases = {base.__name__ for base in getattr(kind, "__mro__", ())}
        return "torch", "BCDHW" if "AugmentationBase3D" in bases else "BDHW"
    return "numpy", "DHW"


def _as_tensor(image: NDArray[Any]) -> Any:  # noqa: ANN401 - torch.Tensor, of a library that may be missing
    try:
        import torch  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError.needs("intensity on tensors", "torch") from error
    return torch.from_numpy(image)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Global generators with this seed; afterwards they are where they were."""
    legacy, own = np.random.get_state(), random.getstate()  # noqa: NPY002 - other libraries draw from it
    torch = sys.modules.get("torch")
    tensors = None if torch is None else torch.default_generator.get_state()
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    if torch is not None:
        torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        np.random.set_state(legacy)  # noqa: NPY002
        random.setstate(own)
        if torch is not None:
            torch.default_generator.set_state(tensors)


__all__ = ["Intensity", "as_intensity"]
