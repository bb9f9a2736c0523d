"""What the values of patches must be: finite, padded as the recipe says; and Gaussians within 0 … 1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from keypatch.formats.volumes.base import Volume, VolumeInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keypatch.audit.findings import Findings
    from keypatch.audit.layout import Target
    from keypatch.converters.crop import Padding
    from keypatch.geometry import Shape3


@dataclass(frozen=True)
class _InMemory(Volume):
    """The valid part of a patch in the role of its volume, so that `crop.cut` pads it once more."""

    block: NDArray[Any]

    @property
    def info(self) -> VolumeInfo:
        z, y, x = self.block.shape
        return VolumeInfo(Path("patch"), "memory", (z, y, x), self.block.dtype, None, "region")

    def read(self, start: Shape3, stop: Shape3) -> NDArray[Any]:
        return self.block[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]

    def close(self) -> None:
        """Nothing is open."""


def check_finite(where: str, values: NDArray[Any], findings: Findings) -> bool:
    """Report NaN and infinity in a patch; True where there is none."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return True
    n = int(values.size - np.count_nonzero(np.isfinite(values)))
    findings.add("KP205", where, expected="finite voxels", found=f"{n} NaN or infinite ones", within="image")
    return False


def check_target(where: str, values: NDArray[Any], findings: Findings) -> bool:
    """Report values outside 0 … 1 in a stored Gaussian; True where there is none."""
    good = (values >= 0) & (values <= 1)
    if good.all():
        return True
    n = int(values.size - np.count_nonzero(good))
    findings.add("KP206", where, expected="values in 0 … 1", found=f"{n} others", within="gaussian")
    return False


def check_padding(target: Target, patch: int, values: NDArray[Any], findings: Findings) -> bool:
    """Report voxels outside the volume that are not what the recipe's padding makes of those inside.

    Every padding is decidable from the patch alone, since it fills with zeros or from the patch's own valid voxels.

    Returns:
        Whether the patch has padding that was checked.
    """
    if not target.has("patches/valid_start", "patches/valid_stop"):
        return False
    start = tuple(int(n) for n in target.tables["patches/valid_start"][patch])
    stop = tuple(int(n) for n in target.tables["patches/valid_stop"][patch])
    shape = values.shape
    in_order = all(0 <= a < b <= n for a, b, n in zip(start, stop, shape, strict=True))
    if (start, stop) == ((0, 0, 0), shape) or not in_order:
        return False  # nothing to check; a box that is none is found with the tables
    padding = known_padding(target)
    if padding is None:
        return False
    where = f"image: patch {patch}"
    if padding == "inside":
        found = f"valid voxels {start} … {stop} of {shape}"
        findings.add("KP210", where, expected="a patch inside its volume", found=found, within="image")
        return True
    expected = _padded(values, start, stop, padding)
    if not np.array_equal(expected, values):
        n = int(np.count_nonzero(expected != values))
        findings.add("KP210", where, expected=f"padding {padding!r}", found=f"{n} other voxels", within="image")
    return True


def known_padding(target: Target) -> Padding | None:
    """The recipe's padding; None where it names none that this program knows, which is a finding elsewhere."""
    from keypatch.converters.crop import PADDINGS  # noqa: PLC0415 - the audit of a store alone needs no converter

    recipe = target.attributes.get("recipe")
    padding = recipe.get("padding") if isinstance(recipe, dict) else None
    return cast("Padding", padding) if padding in PADDINGS else None


def _padded(values: NDArray[Any], start: tuple[int, ...], stop: tuple[int, ...], padding: Padding) -> NDArray[Any]:
    from keypatch.converters.crop import cut  # noqa: PLC0415
    from keypatch.converters.scaling import Scaling  # noqa: PLC0415

    valid = values[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    d, h, w = values.shape
    return cut(_InMemory(valid), [-a for a in start], (d, h, w), scaling=Scaling(values.dtype.name), padding=padding)
