"""Models of IMOD (.mod, binary, IMODV1.2): points in contours of objects.

Read from IMOD's "Binary File Format" and from its sources (``imodel.c``, ``imodview.c``):

- Points are pixels of the image that 3dmod showed, from 0 to NX and 0 to NY, so from the corner of the first pixel, but
  from -0.5 to NZ - 0.5 in z, where whole numbers are the centres of slices.
- A model that was drawn on a part of an image counts from that part. ``(otrans - ctrans) / cscale`` of the chunk MINX
  leads back to the whole image, where the flag "otrans has image origin values" is set (``ivwSetModelTrans``).
- ``cscale`` is the image's pixel size in Å. 3dmod scales a model by it when another image has other pixels.
- A model saved from a view with y and z exchanged has its points so, and a flag; IMOD turns them back by exchanging
  these two, no more (``imodFlipYZ``).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch.formats.annotations.base import AnnotationTable, Convention, point_frame, zyx
from keypatch.formats.annotations.hints import listed
from keypatch.formats.annotations.imod_model import MAGIC, Model, Object, read_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.annotations.base import AnnotationOptions

NAME = "imod"
SUFFIXES: tuple[str, ...] = (".mod",)
DESCRIPTION = "IMOD model (.mod, binary): every point of every contour, a class an object"
USES: frozenset[str] = frozenset()

_AXES: Final = "xyz"


def matches(_path: Path, head: bytes) -> bool:
    """Whether it begins as every version of a binary model does."""
    return head.startswith(MAGIC)


def read(path: Path, options: AnnotationOptions) -> AnnotationTable:
    """Read every point of every contour, scattered, open or closed.

    The class of a point is its object's name, else "object 1" and so on, as 3dmod counts; a model whose only object
    with points has no name has no classes. With ``options.unit`` "angstrom" the points are multiplied by the pixel size
    that the model states.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it is of another version, cut short, or promises more than it holds.
    """
    model = read_model(path)
    objects = [found for found in model.objects if len(found.points)]
    scales = options.unit == "angstrom" and model.pixel_size is not None
    coords, notes = _positions(model, scales=scales)
    notes = (*notes, *_kinds(objects), *_image_notes(model, scaled=scales))
    convention = Convention("voxel", "xyz", zero="corner-xy", inferred=("unit", "zero"), notes=notes).overridden(
        options
    )
    points = point_frame(
        zyx(coords, convention.axis_order),
        volume=[None] * len(coords),
        source_row=np.arange(len(coords)),
        class_name=_classes(objects),
    )
    return AnnotationTable(path, NAME, convention, points, warnings=tuple(_warnings(model, objects)))


def _positions(model: Model, *, scales: bool) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Positions x, y, z in the convention's unit, and what was done to them."""
    coords = np.concatenate([np.empty((0, 3)), *(found.points for found in model.objects)])
    notes: list[str] = []
    if model.is_flipped:
        coords = coords[:, [0, 2, 1]]
        notes.append(
            "the model was saved with y and z exchanged (a flag says so) and turned back, as IMOD does: "
            "half a voxel in y and z is uncertain"
        )
    if any(model.image_start):
        coords = coords + model.image_start
        shown = ", ".join(f"{axis} {value:g}" for axis, value in zip(_AXES, model.image_start, strict=True))
        notes.append(f"the model was drawn on a part of its image, whose start was added (MINX): {shown}")
    if scales and model.pixel_size is not None:
        coords = coords * model.pixel_size
        notes.append("points were multiplied by the model's pixel size (MINX)")
    return coords, tuple(notes)


def _classes(objects: list[Object]) -> list[str | None]:
    if len(objects) == 1 and not objects[0].name:
        return [None] * len(objects[0].points)
    return [found.name or f"object {found.number}" for found in objects for _ in range(len(found.points))]


def _kinds(objects: list[Object]) -> list[str]:
    n_points: Counter[str] = Counter()
    for found in objects:
        n_points[found.kind] += len(found.points)
    shown = ", ".join(f"{n} of {kind} contours" for kind, n in sorted(n_points.items()))
    return [f"every point of every contour is a keypoint: {shown}"] if shown else []


def _image_notes(model: Model, *, scaled: bool) -> list[str]:
    size = " × ".join(str(n) for n in model.image_size)
    if model.pixel_size is None:
        return [f"drawn on an image of {size} pixels (x, y, z)"]
    pixels = " ".join(f"{value:g}" for value in dict.fromkeys(model.pixel_size))
    drawn = f"drawn on an image of {size} pixels (x, y, z) of {pixels} Å"
    return [drawn if scaled else f"{drawn}; where the volume has others, --unit angstrom multiplies by these"]


def _warnings(model: Model, objects: list[Object]) -> list[str]:
    warnings = []
    names = Counter(found.name for found in objects if found.name)
    alike = [f"{name!r} ({count})" for name, count in names.items() if count > 1]
    if alike:
        warnings.append(f"objects of one name are one class: {listed(alike)}")
    if not objects:
        warnings.append(f"none of the model's {len(model.objects)} objects has a point")
    return warnings
