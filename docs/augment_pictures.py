"""Draw the pictures of docs/augment.md.

python docs/augment_pictures.py
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

import keypatch
from keypatch.audit.augmented import sheet_of_samples
from keypatch.augment import Map, read_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keypatch.augment import Sample
    from keypatch.formats.store import Store

DOCS = Path(__file__).resolve().parent
FOLDER = DOCS / "pictures"

_COLORS = 160
_SHAPE = (32, 64, 64)


def main() -> None:
    """Make a tomogram and a store of it, and draw one patch through the same map in every mode."""
    with tempfile.TemporaryDirectory() as name:
        store = _store(Path(name))
        patch = int(np.argmax(store.patches["n_keypoints"].to_numpy()))
        turned = _turned(25, (0.0, 9.0, -14.0))
        _draw(
            "augment-padding.png",
            store,
            patch,
            [
                (padding, read_sample(store, patch, Map(turned, _SHAPE, _SHAPE, padding=padding)))
                for padding in ("zero", "edge", "reflect")
            ],
            "One map, three paddings: turned by 25 degrees and shifted",
        )
        sheared = np.diag([1.0, 0.55, 1.3, 1.0]) @ _turned(25, (0.0, 0.0, 0.0))
        sheared[:3, 3] = _center() - sheared[:3, :3] @ _center()
        _draw(
            "augment-sigma.png",
            store,
            patch,
            [
                (sigma, read_sample(store, patch, Map(sheared, _SHAPE, _SHAPE, padding="edge", sigma=sigma)))
                for sigma in ("fixed", "scaled", "covariance")
            ],
            "One map, three sigmas: stretched along one axis, pressed along another, and turned",
        )


def _store(folder: Path) -> Store:
    sys.path.insert(0, str(DOCS.parent / "examples"))
    try:
        make = importlib.import_module("make_tomograms")
    finally:
        sys.path.pop(0)
    tomogram = make.make_tomogram((64, 96, 96), 20.0, 3, "particles", "many")
    make.write_mrc_csv(folder / "data", iter([("TS_000", tomogram)]))
    return keypatch.convert(
        str(next((folder / "data").rglob("*.mrc"))),
        str(next((folder / "data").rglob("*.csv"))),
        folder / "out.zarr",
        patch_shape=_SHAPE,
        ds_factor=(8, 8, 8),
        sigma_angstrom=100,
        dtype="uint8",
        centered=0,
        grid=(16, 32, 32),
    )


def _center() -> np.ndarray:
    return (np.array(_SHAPE) - 1) / 2


def _turned(degrees: float, shift: Sequence[float]) -> np.ndarray:
    """About z, around the middle of the patch."""
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = _center() - matrix[:3, :3] @ _center() + shift
    return matrix


def _draw(name: str, store: Store, patch: int, samples: list[tuple[str, Sample]], title: str) -> None:
    shapes = [_SHAPE] * len(samples)
    subtitle = "left: the patch as it lies in the store"
    sheet = sheet_of_samples(store, [patch], [samples], shapes=shapes, title=title, subtitle=subtitle)
    FOLDER.mkdir(exist_ok=True)
    sheet.quantize(_COLORS, Image.Quantize.MAXCOVERAGE).save(FOLDER / name, optimize=True)


if __name__ == "__main__":
    main()
