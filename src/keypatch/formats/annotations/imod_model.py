"""The chunks of an IMOD model, as far as its points need them.

Own code, since the library for this format (imodmodel) believes every count in a file and waits forever at the end of
one that is cut short. Read from IMOD's "Binary File Format", whose names are used here: all numbers are big-endian; a
model is an 8-byte id, a header of 232 bytes, then chunks, each a 4-byte name and its data, and ends with ``IEOF``.
``OBJT``, ``CONT`` and ``MESH`` are as long as their own fields say, all others state their length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from keypatch.errors import FormatError
from keypatch.formats.annotations.source import read_bytes, shortened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.geometry import Shape3, Vector3

MAGIC: Final = b"IMODV"
_ID: Final = b"IMODV1.2"
_HEADER: Final = struct.Struct(">8s128s4iI")
_HEADER_SIZE: Final = 8 + 232
_OBJECT: Final = struct.Struct(">64s64siI")
_OBJECT_SIZE: Final = 176
_CONTOUR: Final = struct.Struct(">iIii")
_MESH: Final = struct.Struct(">iiIhh")
_SIZE: Final = struct.Struct(">i")
_MINX: Final = struct.Struct(">18f")
_POINT_SIZE: Final = 12
_INDEX_SIZE: Final = 4

# Flags of a model: y and z exchanged; otrans of MINX holds the image's origin.
_FLIPPED: Final = 1 << 16
_HAS_ORIGIN: Final = 1 << 14
# Flags of an object.
_OPEN: Final = 1 << 3
_SCATTERED: Final = 1 << 9


@dataclass(eq=False)
class Object:
    """One object of a model.

    Attributes:
        number: From 1, as 3dmod counts.
        name: May be empty.
        kind: What its contours are: "scattered", "open" or "closed".
        n_contours: Number that its header states.
        contours: (n, 3) float64 x, y, z each.
    """

    number: int
    name: str
    kind: str
    n_contours: int
    contours: list[NDArray[np.float64]] = field(default_factory=list)

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """(K, 3) float64 x, y, z of all contours, as stored."""
        return np.concatenate([np.empty((0, 3)), *self.contours])


@dataclass(eq=False)
class Model:
    """A model as its file has it.

    Attributes:
        image_size: Pixels, x, y, z, of the image that it was drawn on.
        is_flipped: Whether y and z of its points are exchanged.
        has_origin: Whether the chunk MINX tells where the part of the image that it was drawn on begins.
        n_objects: Number that its header states.
        objects: In order.
        pixel_size: Å, x, y, z; None where the model does not state it.
        image_start: Pixels, x, y, z, from the start of the whole image to that of the part that it was drawn on.
    """

    image_size: Shape3
    is_flipped: bool
    has_origin: bool
    n_objects: int
    objects: list[Object] = field(default_factory=list)
    pixel_size: Vector3 | None = None
    image_start: Vector3 = (0.0, 0.0, 0.0)


def read_model(path: Path) -> Model:
    """Read a model.

    Raises:
        ReadError: If the file is missing or unreadable.
        FormatError: If it is of another version, cut short, or promises more than it holds.
    """
    data = read_bytes(path)
    if not data.startswith(_ID):
        found = shortened(data[:8])
        hint = "save it with 3dmod" if data.startswith(MAGIC) else ""
        raise FormatError.at(path, expected="a binary IMOD model (IMODV1.2)", found=found, hint=hint)
    if len(data) < _HEADER_SIZE:
        raise _cut_short(path, "its header", len(data))
    *_, x, y, z, n_objects, flags = _HEADER.unpack_from(data)
    model = Model((x, y, z), bool(flags & _FLIPPED), bool(flags & _HAS_ORIGIN), n_objects)
    _read_chunks(path, data, model)
    _check_counts(path, model)
    return model


def _read_chunks(path: Path, data: bytes, model: Model) -> None:
    position = _HEADER_SIZE
    while (name := data[position : position + 4]) != b"IEOF":
        if len(name) < 4:
            raise _cut_short(path, "the chunk IEOF", len(data))
        try:
            size = _CHUNKS.get(name, _skip_chunk)(path, data, position + 4, model)
        except struct.error:
            raise _cut_short(path, f"the chunk {name.decode('latin-1')!r}", len(data)) from None
        position += 4 + size


def _read_object(_path: Path, data: bytes, position: int, model: Model) -> int:
    name, _, n_contours, flags = _OBJECT.unpack_from(data, position)
    kind = "scattered" if flags & _SCATTERED else "open" if flags & _OPEN else "closed"
    text = name.partition(b"\0")[0].decode("utf-8", "replace").strip()
    model.objects.append(Object(len(model.objects) + 1, text, kind, n_contours))
    return _OBJECT_SIZE


def _read_contour(path: Path, data: bytes, position: int, model: Model) -> int:
    n_points: int
    n_points, *_ = _CONTOUR.unpack_from(data, position)
    start = position + _CONTOUR.size
    _check_fits(path, n_points, _POINT_SIZE, len(data) - start, "points in a contour")
    if not model.objects:
        raise FormatError.at(path, expected="an object before its contours", found="a contour of none")
    stored = np.frombuffer(data, ">f4", 3 * n_points, start)
    points = stored.reshape(-1, 3).astype(np.float64)
    if not np.isfinite(points).all():
        where = f"contour {len(model.objects[-1].contours) + 1} of object {len(model.objects)}"
        raise FormatError.at(path, expected="finite coordinates", found=f"NaN or infinity in {where}")
    model.objects[-1].contours.append(points)
    return _CONTOUR.size + _POINT_SIZE * n_points


def _skip_mesh(path: Path, data: bytes, position: int, _model: Model) -> int:
    n_vertices: int
    n_indices: int
    n_vertices, n_indices, *_ = _MESH.unpack_from(data, position)
    left = len(data) - position - _MESH.size
    _check_fits(path, n_vertices, _POINT_SIZE, left, "vertices in a mesh")
    _check_fits(path, n_indices, _INDEX_SIZE, left, "indices in a mesh")
    return _MESH.size + _POINT_SIZE * n_vertices + _INDEX_SIZE * n_indices


def _read_minx(path: Path, data: bytes, position: int, model: Model) -> int:
    """The image's pixel size and origin, from oscale, otrans, orot, cscale, ctrans, crot; 3dmod leaves two unused."""
    size = _skip_chunk(path, data, position, model)
    if size != 4 + _MINX.size:
        raise FormatError.at(path, expected=f"{_MINX.size} bytes in the chunk MINX", found=f"{size - 4}")
    values = np.array(_MINX.unpack_from(data, position + 4)).reshape(6, 3)
    origin, scale, start = values[1], values[3], values[4]
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        return size
    # 3dmod writes 1 where the image states no pixel size.
    model.pixel_size = None if (scale == 1).all() else (float(scale[0]), float(scale[1]), float(scale[2]))
    if model.has_origin and np.isfinite(values[[1, 4]]).all():
        x, y, z = (origin - start) / scale
        model.image_start = (float(x), float(y), float(z))
    return size


def _skip_chunk(path: Path, data: bytes, position: int, _model: Model) -> int:
    size: int
    (size,) = _SIZE.unpack_from(data, position)
    _check_fits(path, size, 1, len(data) - position - 4, "bytes in a chunk")
    return 4 + size


_CHUNKS: dict[bytes, Callable[[Path, bytes, int, Model], int]] = {
    b"OBJT": _read_object,
    b"CONT": _read_contour,
    b"MESH": _skip_mesh,
    b"MINX": _read_minx,
}


def _check_fits(path: Path, count: int, size: int, left: int, what: str) -> None:
    if count < 0 or count * size > left:
        raise FormatError.at(
            path, expected=f"{count} {what}", found=f"{left} bytes to the file's end", hint="is the file cut short?"
        )


def _check_counts(path: Path, model: Model) -> None:
    if len(model.objects) != model.n_objects:
        raise FormatError.at(path, expected=f"{model.n_objects} objects", found=f"{len(model.objects)}")
    for found in model.objects:
        if len(found.contours) != found.n_contours:
            raise FormatError.at(
                path, expected=f"{found.n_contours} contours in object {found.number}", found=f"{len(found.contours)}"
            )


def _cut_short(path: Path, what: str, size: int) -> FormatError:
    return FormatError.at(
        path, expected=what, found=f"the file's end after {size} bytes", hint="is the file cut short?"
    )
