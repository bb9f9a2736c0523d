"""The recipe: every setting that shapes a store, from flags or a TOML file, checked in one place."""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from keypatch.converters import settings
from keypatch.converters.crop import PADDINGS, Padding
from keypatch.converters.patterns import below
from keypatch.converters.scaling import STORABLE
from keypatch.errors import ReadError, UsageError
from keypatch.formats.annotations import AnnotationOptions
from keypatch.formats.store.layout import SHARD_BYTES
from keypatch.formats.volumes import VolumeOptions
from keypatch.geometry import UNITS, ZEROS, Shape3, Unit, Vector3, Zero

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Unannotated: TypeAlias = Literal["skip", "negative"]
UNANNOTATED: Final[tuple[Unannotated, ...]] = ("skip", "negative")
GAUSSIAN_DTYPES: Final = ("float32", "float16")


@dataclass(frozen=True)
class Recipe:
    """What to read, what to cut and how to store it. Its field names are the flags and the keys of a recipe file.

    Attributes:
        volumes: Paths, globs or patterns with ``{volume}``.
        annotations: Paths, globs or patterns with ``{volume}`` and ``{class}``.
        patch_shape: Voxels, z, y, x; a multiple of ``ds_factor``.
        ds_factor: Full-resolution voxels a coarse voxel, each axis.
        sigma_angstrom: Sigma of the Gaussian in Å, each axis; each volume gets its own sigma in coarse voxels.
        sigma_ds: Sigma in coarse voxels, each axis. One of the two is None.
        gaussian: Whether targets are stored.
        gaussian_dtype: Of the stored targets.
        centered: Patches an annotation, with it near the centre.
        jitter: Largest displacement of such a patch in voxels, each axis.
        multi: Patches a volume that hold two annotations or more.
        hard_negatives: Patches a volume without an annotation inside, next to one.
        negatives: Patches a volume without an annotation inside, anywhere.
        grid: Stride in voxels of patches that cover each volume; None for no such patches.
        seed: Of all random draws.
        folds: Parts into which the volumes are shared out; 0 for none.
        classes: Names in the order of ``class_index``, others are left out; None takes all, sorted.
        unannotated: What to do with a volume that no annotation file names: leave it out, or take it as empty.
        padding: What fills a patch outside its volume.
        dtype: Stored dtype of the images, or "source".
        clip_percentiles: Source values at these percentiles of each volume become the dtype's extremes.
        codec: Of the chunks, see `keypatch.formats.store.codecs.choose_codec`.
        chunk_shape: Inner chunks of an image; None chooses 2 to 8 MiB.
        shard_size: Raw bytes of a shard at most.
        voxel_spacing: Å, each axis; declares or overrides that of every volume.
        resample_to: Å, each axis; volumes of another spacing are resampled to this one. None leaves all as they are.
        coordinate_spacing: Å, each axis, of the voxels that coordinates in voxels count; None for the volume's own.
        array: See `VolumeOptions`, as the next three.
        level_spacing: Å.
        unsigned: MRC mode 0 as uint8.
        volume_format: Name of the volumes' format.
        format: Name of the annotations' format; see `AnnotationOptions`, as the rest.
        unit: Of the coordinates.
        axis_order: Of the coordinates.
        zero: Of the coordinates.
        index_base: Of the coordinates.
        columns: Roles to columns of a table.
        delimiter: Of a table.
        header: Whether a table has a line of names.
        tomograms: A RELION tomograms.star.
        map: Volume names as in the annotations to ids of volumes.
    """

    volumes: tuple[str, ...]
    annotations: tuple[str, ...]
    patch_shape: Shape3 = (128, 128, 128)
    ds_factor: Shape3 = (16, 16, 16)
    sigma_angstrom: Vector3 | None = None
    sigma_ds: Vector3 | None = None
    gaussian: bool = True
    gaussian_dtype: str = "float32"
    centered: int = 1
    jitter: Shape3 | None = None
    multi: int = 0
    hard_negatives: int = 0
    negatives: int = 0
    grid: Shape3 | None = None
    seed: int = 0
    folds: int = 0
    classes: tuple[str, ...] | None = None
    unannotated: Unannotated = "skip"
    padding: Padding = "zero"
    dtype: str = "source"
    clip_percentiles: tuple[float, float] | None = None
    codec: str = "auto"
    chunk_shape: Shape3 | None = None
    shard_size: int = SHARD_BYTES
    voxel_spacing: Vector3 | None = None
    resample_to: Vector3 | None = None
    coordinate_spacing: Vector3 | None = None
    array: str | None = None
    level_spacing: float | None = None
    unsigned: bool = False
    volume_format: str | None = None
    format: str | None = None
    unit: Unit | None = None
    axis_order: str | None = None
    zero: Zero | None = None
    index_base: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    delimiter: str | None = None
    header: bool | None = None
    tomograms: str | None = None
    map: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, given: Mapping[str, object]) -> Recipe:
        """Check settings and resolve the defaults that depend on others.

        Args:
            given: Field names (dashes or underscores) to values: typed, or text as on the command line
                (``"160,288,288"``, ``"192MiB"``). None counts as not given.

        Raises:
            UsageError: If a name is unknown, a value is malformed, or values contradict each other.
        """
        values = _parsed(given, _flag)
        for needed in ("volumes", "annotations"):
            if not values.get(needed):
                raise UsageError.at(needed, expected="at least one path or pattern", found="none")
        return _checked(cls(**values))

    @property
    def volume_options(self) -> VolumeOptions:
        """What the readers of volumes are told."""
        return VolumeOptions(self.volume_format, self.array, self.level_spacing, self.unsigned)

    @property
    def annotation_options(self) -> AnnotationOptions:
        """What the readers of annotations are told."""
        return AnnotationOptions(
            format=self.format,
            unit=self.unit,
            axis_order=self.axis_order,
            zero=self.zero,
            index_base=self.index_base,
            columns=self.columns,
            delimiter=self.delimiter,
            header=self.header,
            tomograms=None if self.tomograms is None else Path(self.tomograms),
        )

    def to_json(self) -> dict[str, Any]:
        """All settings but the paths, as plain JSON values; written into the store."""
        paths = ("volumes", "annotations", "tomograms")
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in paths}


def read_recipe_file(path: Path) -> dict[str, Any]:
    """Read a TOML recipe; its relative paths are taken from its own folder.

    Returns:
        Settings for `Recipe.from_mapping`, and ``out`` where the file has it.

    Raises:
        ReadError: If the file cannot be read.
        UsageError: If it is no TOML.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReadError.at(path, expected="a recipe file", found=error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError.at(path, expected="TOML", found=str(error)) from error
    out = {key: settings.text(f"{path}: {key}", given.pop(key)) for key in ("out",) if key in given}
    values = _parsed(given, lambda name: f"{path}: {name}") | out
    base = path.absolute().parent
    for key in ("volumes", "annotations"):
        if key in values:
            values[key] = tuple(below(base, entry) for entry in values[key])
    for key in ("out", "tomograms"):
        if key in values:
            values[key] = str(base / Path(os.path.expanduser(values[key])))  # noqa: PTH111 - never raises
    return values


def _parsed(given: Mapping[str, object], where: Callable[[str], str]) -> dict[str, Any]:
    """Field names to values; ``where`` makes of a field's name what an error points at."""
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in _PARSERS:
            raise UsageError.at(
                where(key), expected="a setting of keypatch convert", found="none of that name", hint=_near(name)
            )
        if name in values:
            raise UsageError.at(where(name), expected="one value", found="two, one of them spelled with a dash")
        if value is not None:
            values[name] = _PARSERS[name](where(name), value)
    return values


def _checked(recipe: Recipe) -> Recipe:
    values = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    patch, factor = recipe.patch_shape, recipe.ds_factor
    if any(n % f for n, f in zip(patch, factor, strict=True)):
        near = ",".join(str(max(f, round(n / f) * f)) for n, f in zip(patch, factor, strict=True))
        raise UsageError.at(
            "--patch-shape",
            expected=f"a multiple of --ds-factor {settings.as_text(factor)} on every axis",
            found=settings.as_text(patch),
            hint=f"use {near}",
        )
    if recipe.sigma_angstrom is not None and recipe.sigma_ds is not None:
        raise UsageError.at(
            "--sigma-angstrom", expected="one way to give sigma", found="--sigma-ds too", hint="drop one"
        )
    if recipe.sigma_angstrom is None and recipe.sigma_ds is None:
        values["sigma_ds"] = (1.0, 1.0, 1.0)
    if recipe.jitter is None:
        values["jitter"] = tuple(n // 4 for n in patch)
    elif any(2 * j >= n for j, n in zip(recipe.jitter, patch, strict=True)):
        raise UsageError.at(
            "--jitter",
            expected="less than half the patch, so that the keypoint stays inside",
            found=settings.as_text(recipe.jitter),
        )
    if recipe.centered > 1 and not any(values["jitter"]):
        raise UsageError.at(
            "--centered",
            expected="1 where nothing is displaced (--jitter 0)",
            found=f"{recipe.centered}, which are copies",
            hint="give a jitter",
        )
    if recipe.grid is not None and any(step > n for step, n in zip(recipe.grid, patch, strict=True)):
        raise UsageError.at(
            "--grid",
            expected=f"at most the patch shape {settings.as_text(patch)}, so that no voxel is passed over",
            found=settings.as_text(recipe.grid),
        )
    if not (recipe.centered or recipe.multi or recipe.hard_negatives or recipe.negatives or recipe.grid):
        raise UsageError.at(
            "--centered",
            expected="patches of some kind",
            found="0 of every kind",
            hint="ask for --centered, --multi, --hard-negatives, --negatives or --grid",
        )
    if recipe.clip_percentiles is not None and not 0 <= recipe.clip_percentiles[0] < recipe.clip_percentiles[1] <= 100:
        raise UsageError.at(
            "--clip-percentiles",
            expected="LOW,HIGH with 0 <= LOW < HIGH <= 100",
            found=settings.as_text(recipe.clip_percentiles),
        )
    return Recipe(**values)


def _near(name: str) -> str:
    close = difflib.get_close_matches(name, _PARSERS, 1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(_PARSERS))}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return dict(sorted(value.items())) if isinstance(value, dict) else value


_PARSERS: Final[dict[str, Callable[[str, object], Any]]] = {
    "volumes": settings.texts,
    "annotations": settings.texts,
    "patch_shape": settings.shape,
    "ds_factor": settings.shape,
    "sigma_angstrom": settings.vector,
    "sigma_ds": settings.vector,
    "gaussian": settings.switch,
    "gaussian_dtype": settings.one_of(GAUSSIAN_DTYPES),
    "centered": settings.count,
    "jitter": settings.displacement,
    "multi": settings.count,
    "hard_negatives": settings.count,
    "negatives": settings.count,
    "grid": settings.shape,
    "seed": settings.count,
    "folds": settings.count,
    "classes": settings.names,
    "unannotated": settings.one_of(UNANNOTATED),
    "padding": settings.one_of(PADDINGS),
    "dtype": settings.one_of(("source", *STORABLE)),
    "clip_percentiles": settings.pair,
    "codec": settings.text,
    "chunk_shape": settings.shape,
    "shard_size": settings.size,
    "voxel_spacing": settings.vector,
    "resample_to": settings.vector,
    "coordinate_spacing": settings.vector,
    "array": settings.text,
    "level_spacing": settings.positive,
    "unsigned": settings.switch,
    "volume_format": settings.text,
    "format": settings.text,
    "unit": settings.one_of(UNITS),
    "axis_order": settings.axis_order,
    "zero": settings.one_of(ZEROS),
    "index_base": settings.index_base,
    "columns": settings.roles,
    "delimiter": settings.text,
    "header": settings.switch,
    "tomograms": settings.text,
    "map": settings.pairs,
}
