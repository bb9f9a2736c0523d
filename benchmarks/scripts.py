"""What people write instead: one process, patch by patch, a Gaussian at full resolution.

    python benchmarks/scripts.py plain|monai JOB.json

Runs as a process of its own and prints the seconds that the work took; its imports do not count.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Job:
    """Patches to make.

    Attributes:
        out: Folder for the result.
        patch_shape: Voxels.
        sigma: Of the Gaussian, voxels.
        volumes: An .npy for each patch.
        origins: Of each patch, inside its volume.
        points: For each patch, keypoints in its own voxel indices; some may lie outside it.
    """

    out: str
    patch_shape: tuple[int, int, int]
    sigma: float
    volumes: list[str]
    origins: list[list[int]]
    points: list[list[list[float]]]

    def save(self, path: Path) -> None:
        """Write it for another process."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Job:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def patches(self) -> Iterator[tuple[int, NDArray[Any], NDArray[np.float64]]]:
        """Number, voxels and keypoints of each patch."""
        opened = {name: np.load(name, mmap_mode="r") for name in sorted(set(self.volumes))}
        for i, (volume, origin) in enumerate(zip(self.volumes, self.origins, strict=True)):
            box = tuple(slice(at, at + n) for at, n in zip(origin, self.patch_shape, strict=True))
            yield i, np.array(opened[volume][box]), np.array(self.points[i], np.float64).reshape(-1, 3)


def full_gaussian(points: NDArray[np.float64], shape: tuple[int, int, int], sigma: float) -> NDArray[np.float32]:
    """The usual lines: squared distances on an open grid, one exponential a voxel, the maximum over keypoints."""
    target = np.zeros(shape, np.float32)
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    for point in points:
        squared = sum((axis - np.float32(at)) ** 2 for axis, at in zip(axes, point, strict=True))
        np.maximum(target, np.exp(-squared / np.float32(2 * sigma**2), dtype=np.float32), out=target)
    return target


def write_plain(job: Job) -> None:
    """Write with numpy and zarr-python, its default codec, a chunk a patch."""
    import zarr

    root = zarr.open_group(job.out, mode="w")
    shape = (len(job.origins), *job.patch_shape)
    chunks = (1, *job.patch_shape)
    dtype = np.load(job.volumes[0], mmap_mode="r").dtype
    image = root.create_array("image", shape=shape, chunks=chunks, dtype=dtype)
    target = root.create_array("gaussian", shape=shape, chunks=chunks, dtype="float32")
    for i, patch, points in job.patches():
        image[i] = patch
        target[i] = full_gaussian(points, job.patch_shape, job.sigma)


def write_monai(job: Job) -> None:
    """Write MONAI's GenerateHeatmap, a channel a landmark and their maximum, saved by numpy. torch uses all cores."""
    from monai.transforms import GenerateHeatmap

    generate = GenerateHeatmap(sigma=job.sigma, spatial_shape=job.patch_shape)
    out = Path(job.out)
    for i, patch, points in job.patches():
        inside = points[((points >= 0) & (points < job.patch_shape)).all(axis=1)]
        heatmaps = generate(inside) if len(inside) else np.zeros((1, *job.patch_shape), np.float32)
        np.save(out / f"{i}.npy", patch)
        np.save(out / f"{i}_heatmap.npy", np.asarray(heatmaps).max(axis=0))


def main() -> None:
    """Do one job and print its seconds."""
    name, path = sys.argv[1:]
    job = Job.load(Path(path))
    module, write = {"plain": ("zarr", write_plain), "monai": ("monai.transforms", write_monai)}[name]
    importlib.import_module(module)
    start = time.perf_counter()
    write(job)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
