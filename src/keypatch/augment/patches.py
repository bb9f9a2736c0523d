"""The patches of one or several stores as a data set of numpy arrays."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from keypatch import geometry
from keypatch.augment.batch import COVARIANCE, IMAGE, MAP, POINTS, TARGET, WEIGHT, render_target
from keypatch.augment.geometric import Geometric
from keypatch.augment.intensity import Intensity, as_intensity
from keypatch.augment.reading import read_sample
from keypatch.augment.sample import coarse_covariance
from keypatch.augment.selection import LEFT_OUT, select
from keypatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

    from keypatch.augment.batch import Example
    from keypatch.augment.sample import Keypoints, Sample
    from keypatch.augment.selection import Classes, StoreLike
    from keypatch.formats.store import Store


class Patches:
    """A map-style data set: ``patches[i]`` is a dictionary of numpy arrays, drawn from (seed, epoch, i) alone.

    ``patches[i, turn]`` draws again for the same patch, where it comes up several times in an epoch. What a sample has
    is told by `keypatch.augment.batch.EXAMPLE_KEYS` and `POINT_KEYS`; `keypatch.augment.collate` makes a batch.

    Args:
        stores: One store or several, opened or as paths.
        kinds: Take patches of these kinds only.
        folds: Take patches of volumes of these folds only.
        holding: Take patches with a keypoint of one of these classes in their box only.
        classes: The target's channels; see `keypatch.augment.selection.select`.
        geometric: What is drawn of each sample's geometry; nothing when left out.
        intensity: Callables on the image, carried out in their order; see `keypatch.augment.Intensity`.
        ds_factor: Fine voxels a coarse one, one number or (3,); that of the stores when left out.
        sigma_ds: Sigma of the target in coarse voxels, one number or (3,).
        sigma_angstrom: The same in Å, by each patch's own spacing. With neither it stays what it is in Å in the store.
        dtype: Floats that images become before the intensity is changed; None keeps the store's dtype.
        with_target: Whether samples have a target.
        resample: Whether images go through their maps here. Else a sample has its whole patch and its ``map`` beside
            its keypoints and target, which have gone through it: for `keypatch.torch.resample` on a device.
        seed: Of all that is drawn.

    Raises:
        UsageError: If the settings do not fit each other or the stores, or no patch is left.
        StoreError: If a store cannot be read.
    """

    def __init__(
        self,
        stores: StoreLike | Iterable[StoreLike],
        *,
        kinds: str | Iterable[str] | None = None,
        folds: int | Iterable[int] | None = None,
        holding: str | Iterable[str] | None = None,
        classes: Classes | None = None,
        geometric: Geometric | None = None,
        intensity: Callable[[Any], Any] | Intensity | Sequence[Callable[[Any], Any] | Intensity] = (),
        ds_factor: int | Sequence[int] | None = None,
        sigma_ds: float | Sequence[float] | None = None,
        sigma_angstrom: float | Sequence[float] | None = None,
        dtype: DTypeLike | None = "float32",
        with_target: bool = True,
        resample: bool = True,
        seed: int = 0,
    ) -> None:
        self.selection = select(stores, kinds=kinds, folds=folds, holding=holding, classes=classes)
        self.geometric = _geometric(geometric)
        self.intensity = tuple(as_intensity(one) for one in ((intensity,) if callable(intensity) else intensity))
        self.ds_factor = _ds_factor(ds_factor, self.selection.stores)
        self.sigma_ds, self.sigma_angstrom = _sigma(sigma_ds, "sigma_ds"), _sigma(sigma_angstrom, "sigma_angstrom")
        if self.sigma_ds is not None and self.sigma_angstrom is not None:
            raise UsageError.at("sigma", expected="sigma_ds or sigma_angstrom", found="both")
        self.dtype = None if dtype is None else _float(dtype)
        self.with_target, self.resample = with_target, resample
        if self.intensity and not resample:
            hint = "change it after keypatch.torch.resample"
            raise UsageError.at("intensity", expected="none where images are resampled later", found="some", hint=hint)
        self.seed = _whole("seed", seed)
        self._epoch = self._new_epoch()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the target's channels."""
        return self.selection.classes

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds, in the order of a sample's ``kind``."""
        return self.selection.kinds

    @property
    def stores(self) -> tuple[Store, ...]:
        """Opened, in the order of a sample's ``store``."""
        return self.selection.stores

    @property
    def epoch(self) -> int:
        """That samples are drawn for."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Let every sample be drawn anew, as that epoch has it.

        Raises:
            UsageError: If it is no whole number from 0.
        """
        self._epoch[0] = _whole("epoch", epoch)

    def __len__(self) -> int:
        return len(self.selection)

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: int | tuple[int, int]) -> Example:
        index, turn = key if isinstance(key, tuple) else (key, 0)
        return self.example(index, turn=turn)

    def __repr__(self) -> str:
        stores = f"{len(self.stores)} store{'s' if len(self.stores) > 1 else ''}"
        return f"<{type(self).__name__}: {len(self)} patches of {stores}, classes {', '.join(self.classes)}>"

    def sample(self, index: int, *, turn: int = 0, epoch: int | None = None) -> Sample:
        """The sample behind ``patches[index, turn]``, with the way back to the volume, before its intensity is changed.

        Its keypoints have the classes of their own store.

        Raises:
            IndexError: If there is no such patch.
            CorruptionError: If bytes are missing or fail their checksum.
        """
        draw = self._draw(index, turn, epoch)
        return self._read(draw[2], _rng(draw))

    def example(self, index: int, *, turn: int = 0, epoch: int | None = None) -> Example:
        """A sample as a dictionary of arrays.

        Args:
            index: Of the patch in this data set; negative counts from the end.
            turn: How often it has come up before.
            epoch: That of `set_epoch` when left out.

        Raises:
            IndexError: If there is no such patch.
            UsageError: If a target or an intensity cannot be made.
            CorruptionError: If bytes are missing or fail their checksum.
        """
        draw = self._draw(index, turn, epoch)
        i, rng = draw[2], _rng(draw)
        store, sample = self.stores[self.selection.store[i]], self._read(i, rng)
        points = self._points(sample.keypoints, i)
        example: Example = {
            IMAGE: self._image(sample.image, rng)[None],
            **points,
            "store": self.selection.store[i],
            "patch": self.selection.patch[i],
            "kind": self.selection.kind[i],
            "fold": np.int64(sample.fold),
            "volume": sample.volume,
            "origin": np.array(sample.origin, np.int64),
            "voxel_spacing": np.array(sample.voxel_spacing, np.float64),
            "matrix": np.array(sample.matrix, np.float64),
            "draw": np.array(draw, np.int64),
        }
        if not self.resample:
            example[MAP] = sample.map
        if self.with_target:
            example[TARGET] = self._target(store, sample, points)
        return example

    def _new_epoch(self) -> Any:  # noqa: ANN401 - an array or tensor of one integer
        """Where the epoch lies; 0."""
        return np.zeros(1, np.int64)

    def _draw(self, index: int, turn: int, epoch: int | None) -> tuple[int, int, int, int]:
        wanted = self.epoch if epoch is None else _whole("epoch", epoch)
        return self.seed, wanted, self._checked_index(index), _whole("turn", turn)

    def _read(self, i: int, rng: np.random.Generator) -> Sample:
        store = self.stores[self.selection.store[i]]
        patch = int(self.selection.patch[i])
        spacing = store.table("patches/voxel_spacing")[patch]
        drawn = None if self.geometric is None else self.geometric.draw(rng, store.patch_shape, spacing)
        sigma_rs = self._sigma_of(store, patch) * self.ds_factor
        return read_sample(store, patch, drawn, sigma_rs=sigma_rs, resampled=self.resample)

    def _image(self, image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        image = image if self.dtype is None else image.astype(self.dtype, copy=False)
        for change in self.intensity:
            image = change(image, rng)
        return image

    def _points(self, found: Keypoints, i: int) -> dict[str, NDArray[Any]]:
        """The keypoints of the channels that the data set has."""
        number = self.selection.store[i]
        channels = self.selection.channels[number]
        points = found.take(channels[found.class_index] != LEFT_OUT)
        sigma_ds = self._sigma_of(self.stores[number], int(self.selection.patch[i]))
        arrays: dict[str, NDArray[Any]] = {
            POINTS: points.local_rs,
            "class_index": channels[points.class_index],
            WEIGHT: points.weight,
            "annotation_index": points.annotation_index,
            "sigma": sigma_ds * points.sigma_scale,
        }
        if points.linear is not None:
            arrays[COVARIANCE] = coarse_covariance(points.linear, sigma_ds, self.ds_factor)
        return arrays

    def _target(self, store: Store, sample: Sample, points: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        if self._is_stored(store, sample):
            return store.read_gaussian(sample.patch).astype(np.float32, copy=False)
        try:
            grid = geometry.grid_shape(sample.map.shape, self.ds_factor.tolist())
        except ValueError as error:
            hint = "crop samples to a multiple of the factor, or ask for another ds_factor"
            raise UsageError.at("target", expected="a grid that fits the image", found=str(error), hint=hint) from error
        return render_target(points, sample.map.shape, n_classes=len(self.classes), grid=grid)

    def _is_stored(self, store: Store, sample: Sample) -> bool:
        """Whether the store has the very target that is asked for."""
        channels = self.selection.channels[self.selection.stores.index(store)]
        same_classes = np.array_equal(channels, np.arange(len(self.classes)))
        if not (store.has_gaussian and sample.map.is_identity and same_classes):
            return False
        same_grid = np.array_equal(store.ds_factor, self.ds_factor)
        return same_grid and np.array_equal(self._sigma_of(store, sample.patch), _stored_sigma(store, sample.patch))

    def _sigma_of(self, store: Store, patch: int) -> NDArray[np.float64]:
        """(3,) sigma of a patch's target in coarse voxels, before any map."""
        if self.sigma_ds is not None:
            return self.sigma_ds
        if self.sigma_angstrom is None and np.array_equal(store.ds_factor, self.ds_factor):
            return _stored_sigma(store, patch)
        angstrom = store.table("patches/angstrom_sigma")[patch] if self.sigma_angstrom is None else self.sigma_angstrom
        return geometry.ds_sigma(angstrom, self.ds_factor, store.table("patches/voxel_spacing")[patch])

    def _checked_index(self, index: int) -> int:
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            message = f"patch {i} of a data set of {len(self)} patches"
            raise IndexError(message)
        return i % len(self)


def _rng(draw: tuple[int, int, int, int]) -> np.random.Generator:
    """The generator of (seed, epoch, index), and of its further turns."""
    *entropy, turn = draw
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(turn,) if turn else ()))


def _stored_sigma(store: Store, patch: int) -> NDArray[np.float64]:
    sigma: NDArray[np.float64] = store.table("patches/ds_sigma")[patch]
    return sigma


def _ds_factor(asked: int | Sequence[int] | None, stores: Sequence[Store]) -> NDArray[np.int64]:
    if asked is None:
        factors = {store.ds_factor for store in stores}
        if len(factors) > 1:
            found = " and ".join(map(str, sorted(factors)))
            raise UsageError.at("ds_factor", expected="stores of one factor", found=found, hint="say ds_factor")
        return np.array(stores[0].ds_factor, np.int64)
    given = np.asarray(asked)
    if given.shape not in ((), (3,)) or given.dtype.kind != "i" or not np.all(given >= 1):
        raise UsageError.at("ds_factor", expected="one or three whole numbers from 1", found=repr(asked))
    return np.broadcast_to(given, (3,)).astype(np.int64)


def _sigma(asked: float | Sequence[float] | None, name: str) -> NDArray[np.float64] | None:
    if asked is None:
        return None
    given = np.asarray(asked, np.float64)
    if given.shape not in ((), (3,)) or not np.all(np.isfinite(given) & (given > 0)):
        raise UsageError.at(name, expected="one or three finite numbers above 0", found=repr(asked))
    return np.broadcast_to(given, (3,)).copy()


def _geometric(given: object) -> Geometric | None:
    if given is None or isinstance(given, Geometric):
        return given
    hint = "a table becomes one by Geometric.from_mapping, a file by keypatch.augment.recipe.read_recipe"
    raise UsageError.at("geometric", expected="a Geometric", found=repr(given), hint=hint)


def _float(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        wanted = None
    if wanted is None or wanted.kind != "f":
        raise UsageError.at("dtype", expected="a float of numpy's, or None for the store's", found=str(dtype))
    return wanted


def _whole(name: str, value: int) -> int:
    if not isinstance(value, (int, np.integer)) or not 0 <= value < 2**63:
        raise UsageError.at(name, expected="a whole number from 0", found=repr(value))
    return int(value)
