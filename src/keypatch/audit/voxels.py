"""What the values of patches must be: finite, padded as the recipe says; and Gaussians within 0 … 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from keypatch.audit.figures import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from keypatch.audit.findings import Findings
    from keypatch.audit.layout import Target
    from keypatch.converters.crop import Padding


def are_finite(values: NDArray[Any]) -> bool:
    """Whether there is no NaN and no infinity."""
    if values.dtype.kind != "f":
        return True
    if values.dtype == np.float16:  # which numpy widens value by value; the exponent tells in a tenth of the time
        return not bool(((values.view(np.uint16) & 0x7C00) == 0x7C00).any())
    return bool(np.isfinite(values).all())


def report_not_finite(where: str, values: NDArray[Any], findings: Findings) -> None:
    """Report the NaN and infinity of a patch."""
    n = int(values.size - np.count_nonzero(np.isfinite(values)))
    findings.add("KP205", where, expected="finite voxels", found=f"{n} NaN or infinite ones", within="image")


def check_target(where: str, values: NDArray[Any], findings: Findings) -> bool:
    """Report values outside 0 … 1 in a stored Gaussian; True where there is none."""
    good = (values >= 0) & (values <= 1)
    if good.all():
        return True
    n = int(values.size - np.count_nonzero(good))
    findings.add("KP206", where, expected="values in 0 … 1", found=f"{n} others", within="gaussian")
    return False


def known_padding(target: Target) -> Padding | None:
    """The recipe's padding; None where it names none that this program knows, which is a finding elsewhere."""
    from keypatch.converters.crop import PADDINGS  # noqa: PLC0415 - the audit of a store alone needs no converter

    recipe = target.attributes.get("recipe")
    padding = recipe.get("padding") if isinstance(recipe, dict) else None
    return cast("Padding", padding) if padding in PADDINGS else None


def check_padding(
    where: str,
    values: NDArray[Any],
    start: Sequence[int],
    stop: Sequence[int],
    padding: Padding,
    findings: Findings,
) -> bool:
    """Report voxels outside the volume that are not what the recipe's padding makes of those inside.

    Every padding is decidable from the patch alone, since it fills with zeros or from the patch's own valid voxels.
    Only the padded voxels are looked at.

    Args:
        where: The patch.
        values: (D, H, W) finite voxels.
        start: (3,) first patch index that lies in the volume.
        stop: (3,) first patch index after those.
        padding: Of the recipe.
        findings: Added to.

    Returns:
        Whether the patch has padding that was checked.
    """
    shape = values.shape
    in_order = all(0 <= a < b <= n for a, b, n in zip(start, stop, shape, strict=True))
    if (tuple(start), tuple(stop)) == ((0, 0, 0), shape) or not in_order:
        return False  # nothing to check; a box that is none is found with the tables
    if padding == "inside":
        found = f"valid voxels {tuple(start)} … {tuple(stop)} of {shape}"
        findings.add("KP210", where, expected="a patch inside its volume", found=found, within="image")
        return True
    n = sum(_count_others(stored, wanted) for stored, wanted in _slabs(values, start, stop, padding))
    if n:
        findings.add("KP210", where, expected=f"padding {padding!r}", found=plural(n, "other voxel"), within="image")
    return True


def _slabs(
    values: NDArray[Any], start: Sequence[int], stop: Sequence[int], padding: Padding
) -> Iterator[tuple[NDArray[Any], Any]]:
    """The padded voxels of a patch in at most six slabs, each with what it must hold.

    "edge" and "reflect" copy along one axis after the other, so a slab beside the valid part along x must repeat what
    lies there along x; then one beside it along y, over all x; then one along z, over all y and x.
    """
    from keypatch.converters.crop import mean_voxel  # noqa: PLC0415

    valid: tuple[Any, ...] = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    constant = mean_voxel(values[valid]) if padding == "mean" else 0
    for axis in (2, 1, 0):
        before = valid[:axis]
        n, a, b = values.shape[axis], start[axis], stop[axis]
        for side in (slice(0, a), slice(b, n)):
            if side.stop == side.start:
                continue
            wanted = constant
            if padding in ("edge", "reflect"):
                mode: Literal["edge", "reflect"] = "edge" if padding == "edge" else "reflect"
                source = np.pad(np.arange(a, b), (a, n - b), mode=mode)[side]
                wanted = values[(*before, source)]
            yield values[(*before, side)], wanted


def _count_others(stored: NDArray[Any], wanted: Any) -> int:  # noqa: ANN401 - an array, or one voxel
    if np.ndim(wanted) == 0 and not wanted and not stored.any():  # zeros, in a third of the time
        return 0
    return int(np.count_nonzero(stored != wanted))
