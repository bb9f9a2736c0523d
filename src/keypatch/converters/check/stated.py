"""What formats leave open, and what headers and annotations say against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch.converters.check.finding import finding
from keypatch.converters.check.readings import same_spacing
from keypatch.converters.notes import some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from keypatch.converters.catalog_volume import CatalogVolume
    from keypatch.converters.check.finding import CatalogFinding
    from keypatch.converters.check.observed import Family
    from keypatch.formats.annotations import VolumeHint
    from keypatch.geometry import Vector3

SMALLEST_SPACING: Final = 0.1
"""Å. Atoms are 1 Å apart; maps of crystals are sampled at a third of that."""

THICKEST_SLICE: Final = 10.0
"""Largest z over y and x: the thickest slices of clinical scanners are 5 mm over 0.5 mm."""

THINNEST_SLICE: Final = 0.5
"""Smallest z over y and x: no scanner or reconstruction samples z much finer."""

PLANE_RATIO: Final = 2.0
"""Largest ratio of y and x."""

_LEFT_OPEN: Final = {
    "unit": "--unit",
    "axis_order": "--axis-order",
    "zero": "--zero",
    "index_base": "--index-base 1 (moves all by one voxel)",
}
_OTHER_ZERO: Final = {
    "voxel-center": "--zero corner (moves all by half a voxel)",
    "corner": "--zero voxel-center (moves all by half a voxel)",
    "corner-xy": "--zero corner or voxel-center (moves all by half a voxel)",
    "volume-center": "--zero volume-center-minus-1 (moves all by one voxel)",
    "volume-center-minus-1": "--zero volume-center (moves all by one voxel)",
}
"""The zeros that are mistaken for each other."""


def check_conventions(families: Sequence[Family]) -> Iterator[CatalogFinding]:
    """KP613: what the text of each format does not state and is taken as."""
    for family in families:
        open_ones = [name for name in _LEFT_OPEN if name in family.convention.inferred]
        if not open_ones:
            continue
        taken = {name: getattr(family.convention, name) for name in open_ones}
        told = ", ".join(f"{_words(name)} {value}" for name, value in taken.items())
        yield finding(
            "KP613",
            files=family.files,
            volumes=family.volumes,
            expected=f"a format that states {_listed(open_ones)}",
            found=f"{family.format}, which does not; taken is {told}",
            settle=", ".join(_flag_for(name, taken[name]) for name in open_ones),
            evidence={"format": family.format, "taken": taken},
        )


def check_headers(volumes: Sequence[CatalogVolume], hints: Mapping[str, VolumeHint]) -> Iterator[CatalogFinding]:
    """KP621 to KP624."""
    yield from _spacings_against_hints(volumes, hints)
    yield from _shapes_against_hints(volumes, hints)
    for why, wrong in _implausible(volumes).items():
        yield finding(
            "KP623",
            volumes=[volume.id for volume in wrong],
            expected=why,
            found=some(dict.fromkeys(angstrom(volume.source_spacing) for volume in wrong)) + ", z y x",
            settle="--voxel-spacing",
            evidence={"voxel_spacing": {volume.id: list(volume.source_spacing) for volume in wrong}},
        )
    default = [v for v in volumes if v.voxel_spacing_from == "header" and set(v.source_spacing) == {1.0}]
    if default:
        yield finding(
            "KP624",
            volumes=[volume.id for volume in default],
            expected="a voxel spacing that was measured",
            found=f"exactly 1 Å in the headers of {len(default)} of {len(volumes)} volumes",
            settle="--voxel-spacing",
            evidence={"volumes": len(default)},
        )


def _spacings_against_hints(
    volumes: Sequence[CatalogVolume], hints: Mapping[str, VolumeHint]
) -> Iterator[CatalogFinding]:
    apart: list[tuple[CatalogVolume, Vector3]] = []
    for volume in volumes:
        stated = hints[volume.id].voxel_spacing if volume.id in hints else None
        if stated is None or volume.voxel_spacing_from != "header" or same_spacing(volume.source_spacing, stated):
            continue
        apart.append((volume, stated))
    if not apart:
        return
    first, stated = apart[0]
    ratios = {v.id: [float(f"{s / o:.6g}") for s, o in zip(hint, v.source_spacing, strict=True)] for v, hint in apart}
    yield finding(
        "KP621",
        volumes=[volume.id for volume, _ in apart],
        expected=f"{angstrom(first.source_spacing)}, as the header of {first.id} states",
        found=f"{angstrom(stated)} in the annotations, {_ratio_text(ratios[first.id])} times that"
        f"{_more(len(apart))}; the header counts, and coordinates in voxels are not rescaled",
        settle=f"--voxel-spacing {_flag(stated)}, or --coordinate-spacing {_flag(stated)} if such voxels were picked",
        evidence={
            "header": {volume.id: list(volume.source_spacing) for volume, _ in apart},
            "annotations": {volume.id: list(hint) for volume, hint in apart},
            "ratio": ratios,
        },
    )


def _shapes_against_hints(
    volumes: Sequence[CatalogVolume], hints: Mapping[str, VolumeHint]
) -> Iterator[CatalogFinding]:
    apart = [
        (volume, hints[volume.id].shape)
        for volume in volumes
        if volume.id in hints and hints[volume.id].shape not in (None, volume.source_shape)
    ]
    if not apart:
        return
    first, stated = apart[0]
    evidence: dict[str, Any] = {
        "header": {volume.id: list(volume.source_shape) for volume, _ in apart},
        "annotations": {volume.id: list(shape or ()) for volume, shape in apart},
    }
    yield finding(
        "KP622",
        volumes=[volume.id for volume, _ in apart],
        expected=f"shape {first.source_shape}, as the header of {first.id} states",
        found=f"{stated} in the annotations{_more(len(apart))}; the volume's own counts",
        settle=_shape_hint(first.source_shape, stated or first.source_shape),
        evidence=evidence,
    )


def _shape_hint(own: tuple[int, ...], stated: tuple[int, ...]) -> str:
    """What may lie behind two shapes: axes in another order, or a factor."""
    if sorted(own) == sorted(stated):
        return "the same lengths in another order: see --axis-order"
    ratios = np.divide(stated, own)
    if np.ptp(ratios) <= 0.02 * ratios.max():
        return f"{ratios.mean():.4g} times as long on every axis: see --coordinate-spacing"
    return "see that the files belong together"


def _implausible(volumes: Sequence[CatalogVolume]) -> dict[str, list[CatalogVolume]]:
    found: dict[str, list[CatalogVolume]] = {}
    for volume in volumes:
        z, y, x = volume.source_spacing
        if min(z, y, x) < SMALLEST_SPACING:
            found.setdefault(f"a spacing of {SMALLEST_SPACING} Å or more", []).append(volume)
        elif max(y, x) > PLANE_RATIO * min(y, x):
            found.setdefault("nearly the same spacing in y and x", []).append(volume)
        elif z > THICKEST_SLICE * max(y, x) or z < THINNEST_SLICE * min(y, x):
            between = f"{THINNEST_SLICE:g} to {THICKEST_SLICE:g}"
            found.setdefault(f"a spacing in z of {between} times that in y and x", []).append(volume)
    return found


def angstrom(spacing: Vector3) -> str:
    """``10 Å`` or ``20 10 10 Å``."""
    values = [f"{value:g}" for value in spacing]
    return " ".join(values[:1] if len(set(values)) == 1 else values) + " Å"


def _flag(spacing: Vector3) -> str:
    values = [f"{value:g}" for value in spacing]
    return values[0] if len(set(values)) == 1 else ",".join(values)


def _ratio_text(ratio: Sequence[float]) -> str:
    return ", ".join(dict.fromkeys(f"{value:g}" for value in ratio))


def _more(n: int) -> str:
    return f" (and {n - 1} more volumes)" if n > 1 else ""


def _words(name: str) -> str:
    return name.replace("_", " ")


def _flag_for(name: str, taken: object) -> str:
    if name == "zero":
        return _OTHER_ZERO.get(str(taken), "--zero")
    return _LEFT_OPEN[name] if taken != 1 else "--index-base 0 (moves all by one voxel)"


def _listed(names: Sequence[str]) -> str:
    words = [_words(name) for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
