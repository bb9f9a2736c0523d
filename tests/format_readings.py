"""Ways to get one number or one point out of a file without keypatch: by its text, its bytes, or another library.

Each is called with the path and gives what it read; its text says where that stands, for the table of formats.
"""

from __future__ import annotations

import ast
import csv
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import mrcfile
import numpy as np
import SimpleITK
import zarr
from PIL import Image

Point = tuple[float, float, float]
ReadPoint = Callable[[Path], Point]


@dataclass(frozen=True)
class Cells:
    """Numbers of one line of a text: the cells of z, y, x, counted from 1, and others that are added to them.

    Attributes:
        line: Counted from 1.
        zyx: Cells of z, y and x.
        plus: Cells that are added, z, y, x.
        signs: Of z, y and x.
        separator: None for blanks.
    """

    line: int
    zyx: tuple[int, int, int]
    plus: tuple[int, int, int] | None = None
    signs: Point = (1, 1, 1)
    separator: str | None = None

    def __call__(self, path: Path) -> Point:
        cells = path.read_text(encoding="utf-8").splitlines()[self.line - 1].split(self.separator)
        shifts = [float(cells[k - 1]) for k in self.plus] if self.plus else [0.0] * 3
        z, y, x = (s * (float(cells[k - 1]) + d) for s, k, d in zip(self.signs, self.zyx, shifts, strict=True))
        return z, y, x

    def __str__(self) -> str:
        added = f" plus cells {_listed(self.plus)}" if self.plus else ""
        turned = "; x and y turned round" if self.signs == (1, -1, -1) else ""
        return f"line {self.line}, cells {_listed(self.zyx)}{added}{turned}"


@dataclass(frozen=True)
class Json:
    """A point of a JSON text: where it lies, the keys of z, y and x there, and their signs."""

    path: tuple[str | int, ...]
    zyx: tuple[str | int, ...]
    signs: Point = (1, 1, 1)
    line: int | None = None

    def __call__(self, path: Path) -> Point:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text if self.line is None else text.splitlines()[self.line - 1])
        for key in self.path:
            value = value[key]
        z, y, x = (sign * value[key] for sign, key in zip(self.signs, self.zyx, strict=True))
        return z, y, x

    def __str__(self) -> str:
        turned = "; x and y turned round" if self.signs == (1, -1, -1) else ""
        return f"JSON {'.'.join(map(str, self.path))}{turned}"


@dataclass(frozen=True)
class Xml:
    """A point of an XML text: the first element of a path, and its children or attributes z, y, x."""

    path: str
    zyx: tuple[str, str, str]

    def __call__(self, path: Path) -> Point:
        element = ElementTree.parse(path).find(self.path)
        assert element is not None
        z, y, x = (float(element.get(name) or element.findtext(name) or "nan") for name in self.zyx)
        return z, y, x

    def __str__(self) -> str:
        return f"first {self.path}, {', '.join(self.zyx)}"


@dataclass(frozen=True)
class Packed:
    """Three numbers at a byte of a binary file, in the order x, y, z."""

    byte: int
    layout: str

    def __call__(self, path: Path) -> Point:
        x, y, z = struct.unpack_from(self.layout, path.read_bytes(), self.byte)
        return z, y, x

    def __str__(self) -> str:
        return f"x, y, z at byte {self.byte} ({self.layout})"


@dataclass(frozen=True)
class Sum:
    """Several points of one file, added."""

    parts: tuple[ReadPoint, ...]

    def __call__(self, path: Path) -> Point:
        z, y, x = np.sum([part(path) for part in self.parts], axis=0).tolist()
        return z, y, x

    def __str__(self) -> str:
        return " plus ".join(map(str, self.parts))


@dataclass(frozen=True)
class ListInCell:
    """The first point z, y, x of a list that a quoted cell of a CSV line holds; both counted from 1."""

    line: int
    cell: int

    def __call__(self, path: Path) -> Point:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        z, y, x = ast.literal_eval(rows[self.line - 1][self.cell - 1])[0]
        return z, y, x

    def __str__(self) -> str:
        return f"line {self.line}, list in cell {self.cell}"


@dataclass(frozen=True)
class Box:
    """A box of a text line: corner plus half of its sides in y and x, and z."""

    line: int

    def __call__(self, path: Path) -> Point:
        cells = list(map(float, path.read_text(encoding="utf-8").splitlines()[self.line - 1].split()[:5]))
        x, y, z, width, height = cells
        return z, y + height / 2, x + width / 2

    def __str__(self) -> str:
        return f"line {self.line}: corner plus half the sides in y and x"


# ----- voxels: the value at an index z, y, x, and the spacing in Å where the library knows it -----

Voxel = tuple[float, tuple[float, ...] | None]
ReadVoxel = Callable[[Path, tuple[int, int, int]], Voxel]


def by_mrcfile(path: Path, index: tuple[int, int, int]) -> Voxel:
    """mrcfile leaves the axes as they are stored: MAPS, MAPR, MAPC say which of x, y, z sections, rows, columns are."""
    with mrcfile.open(path, permissive=True) as mrc:
        header, data = mrc.header, mrc.data
        stored = [int(header.maps), int(header.mapr), int(header.mapc)]
        place = tuple(index[3 - axis] for axis in stored)
        size = mrc.voxel_size
        return float(data[place]), (float(size.z), float(size.y), float(size.x))


def by_simpleitk(unit_in_angstrom: float) -> ReadVoxel:
    """SimpleITK counts x, y, z; its spacing is in the unit of the format."""

    def read(path: Path, index: tuple[int, int, int]) -> Voxel:
        image = SimpleITK.ReadImage(str(path))
        spacing = tuple(s * unit_in_angstrom for s in image.GetSpacing()[::-1])
        return float(image[index[::-1]]), spacing

    return read


def by_h5py(dataset: str) -> ReadVoxel:
    """h5py gives arrays in the order of the file; element_size_um is plant-seg's and ilastik's attribute, z, y, x."""

    def read(path: Path, index: tuple[int, int, int]) -> Voxel:
        with h5py.File(path) as file:
            sizes = file[dataset].attrs["element_size_um"]
            return float(file[dataset][index]), tuple(float(n) * 1e4 for n in sizes)

    return read


def by_zarr_xyz(path: Path, index: tuple[int, int, int]) -> Voxel:
    """An array whose axes are declared x, y, z, with the scale of its metadata."""
    group = zarr.open_group(path, mode="r")
    scale = group.attrs["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    return float(group["0"][index[::-1]]), tuple(map(float, scale[::-1]))


def by_pillow(path: Path, index: tuple[int, int, int]) -> Voxel:
    """A plane of a TIFF or a slice of a folder."""
    if path.is_dir():
        with Image.open(path / f"slice_{index[0]}.png") as image:
            return float(np.asarray(image)[index[1:]]), None
    with Image.open(path) as image:
        image.seek(index[0])
        return float(np.asarray(image)[index[1:]]), None


def by_bytes(offset: int, shape: tuple[int, int, int], layout: str) -> ReadVoxel:
    """The value at its byte of a file whose voxels lie one after the other, x the fastest."""

    def read(path: Path, index: tuple[int, int, int]) -> Voxel:
        flat = (index[0] * shape[1] + index[1]) * shape[2] + index[2]
        (value,) = struct.unpack_from(layout, path.read_bytes(), offset + flat * struct.calcsize(layout))
        return float(value), None

    return read


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))
