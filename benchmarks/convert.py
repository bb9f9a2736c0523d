"""Building a store, against the floor and against what people write instead.

    python benchmarks/convert.py [--quick]

Patches of 160x288x288 from .npy volumes, two worker processes. The floor (`floor.py`) reads the same boxes with numpy
and writes as many bytes into as many files with as many fsyncs, by processes that were started before the clock.
keypatch is timed twice: the whole command, from the start of the interpreter to its end, and the build alone, from a
plan and with processes that were started before, as the floor's. The scripts (`scripts.py`) do not count their imports
and do not fsync; keypatch against them is the whole command. Ratios on keypatch's rows are shares of the floor's
throughput.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import keypatch
from floor import FloorUnit, Form, started_pool, write_all
from keypatch.converters.build import BuildOptions
from keypatch.converters.build import convert as build
from keypatch.converters.plan import Plan, build_plan
from keypatch.converters.recipe import Recipe
from keypatch.formats.store.layout import shard_key
from scripts import Job, full_gaussian
from table import Row, Settings, measure, row
from timing import Contender, interleaved, settle, warm
from tomograms import SPACING, write_picks, write_volume

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

    from numpy.typing import NDArray

    from keypatch import Store

PART = "convert"
PATCH = (160, 288, 288)
VOLUME = (256, 640, 640)
FACTOR = 16
WORKERS = 2
WANTED = {"none": 0.8, "auto": 0.85}
WANTED_SCRIPT, WANTED_MONAI = 4.0, 20.0


@dataclass(frozen=True)
class Case:
    """What is built.

    Attributes:
        dtype: Of volumes and store.
        codec: As ``--codec`` takes it.
        n_patches: Of two volumes together.
        repeats: Of each contender.
    """

    dtype: str
    codec: str
    n_patches: int
    repeats: int

    @property
    def name(self) -> str:
        """In the table."""
        codec = "default codec" if self.codec == "auto" else "codec none"
        return f"{self.n_patches} of {'x'.join(map(str, PATCH))} {self.dtype}, {codec}"


class Bench:
    """Sources, plan and paths of one case."""

    def __init__(self, settings: Settings, case: Case) -> None:
        self.case = case
        self.work = settings.fresh(f"convert-{case.dtype}-{case.codec}")
        self.sources = settings.folder / f"sources-{case.dtype}"
        if not self.sources.exists():
            self.sources.mkdir()
            for k in range(2):
                write_volume(self.sources / f"tomo{k}.npy", VOLUME, case.dtype, seed=k)
        self.picks = self.work / "picks.csv"
        write_picks(self.picks, ["tomo0", "tomo1"], VOLUME, case.n_patches // 2, seed=1, margin=24)
        self.flags = {
            "patch_shape": ",".join(map(str, PATCH)),
            "ds_factor": str(FACTOR),
            "sigma_ds": "1",
            "voxel_spacing": str(SPACING),
            "padding": "inside",
            "codec": case.codec,
        }
        given = {"volumes": [f"{self.sources}/*.npy"], "annotations": [str(self.picks)], **self.flags}
        self.plan: Plan = build_plan(Recipe.from_mapping(given))
        warm(self.sources)

    def command(self, out: Path) -> None:
        """The whole command, in a process of its own."""
        flags = [text for name, value in self.flags.items() for text in ("--" + name.replace("_", "-"), value)]
        command = [sys.executable, "-m", "keypatch", "convert", f"{self.sources}/*.npy", "-a", str(self.picks)]
        command += ["-o", str(out), "--workers", str(WORKERS), *flags]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def build(self, out: Path, pool: ProcessPoolExecutor) -> None:
        """The build alone."""
        build(self.plan, out, BuildOptions(workers=WORKERS, executor=pool))

    def floor_units(self, store: Path) -> list[FloorUnit]:
        """What the floor must write, by the example of a finished store."""
        layout, columns = self.plan.layout, self.plan.columns
        n_tail = 16 * layout.patches_per_shard * layout.chunks_per_patch + 4
        paths = [volume.path for volume in self.plan.catalog.volumes]
        units = []
        for number in range(layout.n_units):
            rows = layout.unit_patches(number)
            owners = columns["patches/volume_index"][rows.start : rows.stop]
            gaussian = (store / "gaussian" / shard_key(number, 5)).read_bytes()
            origins = columns["patches/origin"][rows.start : rows.stop]
            tail = bytes(n_tail + 4 * len(rows) * layout.chunks_per_patch)
            units.append(FloorUnit(number, tuple(paths[owner] for owner in owners), origins, gaussian, tail))
        return units

    def floor_form(self) -> Form:
        """The patches and their compressor as the floor takes them."""
        layout = self.plan.layout
        _demand(layout.chunk_shape[1:] == PATCH[1:], "the chunks are not cut along z alone")
        codec = {
            "none": None,
            "zstd": {"id": "zstd", "level": layout.image_codec.level},
            "lz4": {"id": "blosc", "cname": "lz4", "clevel": layout.image_codec.level, "shuffle": 2, "blocksize": 0},
        }[layout.image_codec.name]
        return Form(PATCH, layout.chunks_per_patch, codec)

    def job(self, out: Path, n: int) -> Job:
        """The first ``n`` patches as a script's job."""
        columns = self.plan.columns
        offsets = columns["patches/keypoint_offsets"]
        paths = [str(volume.path) for volume in self.plan.catalog.volumes]
        points = columns["keypoints/local_rs_coords"]
        return Job(
            out=str(out),
            patch_shape=PATCH,
            sigma=float(FACTOR),
            volumes=[paths[owner] for owner in columns["patches/volume_index"][:n]],
            origins=columns["patches/origin"][:n].tolist(),
            points=[points[offsets[i] : offsets[i + 1]].tolist() for i in range(n)],
        )


def run(settings: Settings) -> list[Row]:
    """All cases."""
    repeats = 3
    if settings.quick:
        floors = [Case("uint8", "none", 16, repeats), Case("uint8", "auto", 16, repeats)]
        floors += [Case("float32", "none", 8, repeats), Case("float32", "auto", 8, repeats)]
    else:  # Gigabytes, so that two seconds of starting are a small part, as of a data set that somebody uses.
        floors = [Case("uint8", "none", 512, repeats), Case("uint8", "auto", 512, repeats)]
        floors += [Case("float32", "none", 128, repeats), Case("float32", "auto", 128, repeats)]
    rows: list[Row] = []
    for case in floors:
        rows += _against_floor(settings, case)
    n, repeats = (8, 1) if settings.quick else (16, 3)
    for dtype in ("uint8",) if settings.quick else ("uint8", "float32"):
        rows += _against_scripts(settings, Case(dtype, "auto", n, repeats), n_monai=1)
    return rows


def _against_floor(settings: Settings, case: Case) -> list[Row]:
    settings.say(f"  {case.name}")
    bench = Bench(settings, case)
    outs = {name: bench.work / name for name in ("reference.zarr", "whole.zarr", "build.zarr", "floor")}
    bench.command(outs["reference.zarr"])
    units, form = bench.floor_units(outs["reference.zarr"]), bench.floor_form()
    whole, alone, least = "keypatch, whole command", "keypatch, build alone", "floor"
    with started_pool(WORKERS) as pool:
        contenders = [
            Contender(whole, lambda: bench.command(outs["whole.zarr"]), lambda: _fresh(outs["whole.zarr"])),
            Contender(alone, lambda: bench.build(outs["build.zarr"], pool), lambda: _fresh(outs["build.zarr"])),
            Contender(
                least,
                lambda: write_all(pool, outs["floor"], units, form),
                lambda: _fresh(outs["floor"], make=True),
            ),
        ]
        spent = interleaved(contenders, case.repeats, pool._processes)  # nothing public tells them
    _check_floor(outs, bench)
    n_bytes = case.n_patches * bench.plan.layout.image_bytes
    speeds = {name: [n_bytes / 1e6 / one.seconds for one in values] for name, values in spent.items()}
    notes = {}
    for name, values in spent.items():
        seconds, processor = np.median(values, axis=0)
        notes[name] = f"{seconds:.2f} s, processor time {processor:.2f} s"
    rows = [row(PART, case.name, least, speeds[least], "MB/s raw", note=notes[least])]
    for name in (whole, alone):
        share = float(np.median(speeds[name]) / np.median(speeds[least]))
        # Of so few patches the start of interpreter and processes is most of the command: not judged.
        wanted = None if settings.quick and name == whole else WANTED[case.codec]
        rows.append(row(PART, case.name, name, speeds[name], "MB/s raw", ratio=share, wanted=wanted, note=notes[name]))
    _remove(bench.work)
    return rows


def _against_scripts(settings: Settings, case: Case, n_monai: int) -> list[Row]:
    settings.say(f"  scripts, {case.name}")
    bench = Bench(settings, case)
    ours, theirs = bench.work / "ours.zarr", bench.work / "plain.zarr"
    n = bench.plan.layout.n_patches
    contenders = [
        Contender("keypatch, whole command", lambda: bench.command(ours), lambda: _fresh(ours)),
        Contender("plain script", lambda: _script("plain", bench.job(theirs, n), bench), lambda: _fresh(theirs)),
    ]
    with_monai = settings.has("monai", "torch", peer="MONAI")
    heatmaps = bench.work / "monai"
    if with_monai:
        job = bench.job(heatmaps, n_monai)
        work = Contender("MONAI", lambda: _script("monai", job, bench), lambda: _fresh(heatmaps, make=True))
        contenders.append(work)
    spent = interleaved(contenders, case.repeats)
    store = keypatch.open(ours)
    _check_plain(store, theirs)
    patches = {"keypatch, whole command": n, "plain script": n, "MONAI": n_monai}
    per_patch = {name: [1e3 * one.seconds / patches[name] for one in values] for name, values in spent.items()}
    notes = {
        "plain script": "full-resolution Gaussian by formula, zarr-python; no imports, no fsync",
        "MONAI": f"GenerateHeatmap, sigma {FACTOR} voxels, first {n_monai} patches; no imports, no fsync",
    }
    rows = [row(PART, case.name, "keypatch, whole command", per_patch["keypatch, whole command"], "ms/patch")]
    wanted = {"plain script": WANTED_SCRIPT, "MONAI": WANTED_MONAI}
    for name in list(per_patch)[1:]:
        ratio = float(np.median(per_patch[name])) / rows[0].value
        rows.append(
            row(PART, case.name, name, per_patch[name], "ms/patch", ratio=ratio, wanted=wanted[name], note=notes[name])
        )
    if with_monai:
        _check_monai(store, heatmaps, n_monai)
    _remove(bench.work)
    return rows


def _script(name: str, job: Job, bench: Bench) -> float:
    path = bench.work / f"{name}.json"
    job.save(path)
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("scripts.py")), name, str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _fresh(path: Path, *, make: bool = False) -> None:
    _remove(path)
    if make:
        path.mkdir(parents=True)
    settle()


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def _check_floor(outs: dict[str, Path], bench: Bench) -> None:
    """All stores are the same, and without a codec the floor's voxels are the store's."""
    stores = [keypatch.open(outs[name]) for name in ("reference.zarr", "whole.zarr", "build.zarr")]
    _demand(len({store.digest for store in stores}) == 1, "the digests of the builds differ")
    layout = bench.plan.layout
    for unit in range(layout.n_units):
        written = (outs["floor"] / f"{unit}.image").stat().st_size
        shard = (outs["whole.zarr"] / "image" / shard_key(unit, 4)).stat().st_size
        _demand(written == shard, f"unit {unit}: the floor wrote {written} bytes, keypatch {shard}")
        if bench.case.codec == "none":
            raw = np.fromfile(outs["floor"] / f"{unit}.image", layout.image_dtype, count=int(np.prod(PATCH)))
            image = stores[1].read_image(layout.unit_patches(unit).start)
            _demand(np.array_equal(image, raw.reshape(PATCH)), f"unit {unit}: other voxels than the floor's")


def _check_plain(store: Store, theirs: Path) -> None:
    """The script's patches are ours, and its full-resolution Gaussian is ours at the places of the coarse grid."""
    import zarr

    images, targets = (zarr.open_array(theirs / name, mode="r") for name in ("image", "gaussian"))
    for i in range(len(store)):
        _demand(
            np.array_equal(np.asarray(images[i]), store.read_image(i)), f"patch {i}: other voxels than the script's"
        )
        coarse = store.read_gaussian(i).max(axis=0)
        # A coarse voxel's centre lies between eight full-resolution ones, whose mean is off by sigma^-2 / 8 an axis.
        near = _around_coarse_centers(np.asarray(targets[i]))
        _demand(float(np.abs(near - coarse).max()) < 5e-3, f"patch {i}: another Gaussian than the script's")


def _around_coarse_centers(full: NDArray[Any]) -> NDArray[Any]:
    first = FACTOR // 2 - 1
    for axis in range(3):
        low, high = (np.take(full, range(first + k, full.shape[axis], FACTOR), axis) for k in (0, 1))
        full = (low + high) / 2
    return full


def _check_monai(store: Store, heatmaps: Path, n: int) -> None:
    """MONAI puts the peak on the nearest voxel, so its target is near ours and not equal."""
    for i in range(n):
        points = store[i].local_rs_coords
        inside = points[((points >= 0) & (points < PATCH)).all(axis=1)]
        formula = full_gaussian(inside, PATCH, FACTOR)
        difference = float(np.abs(np.load(heatmaps / f"{i}_heatmap.npy") - formula).max())
        _demand(difference < 0.06, f"patch {i}: MONAI's heatmap is off by {difference}")
        _demand(np.array_equal(np.load(heatmaps / f"{i}.npy"), store.read_image(i)), f"patch {i}: other voxels")


def _demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


if __name__ == "__main__":
    measure([(PART, run)], __doc__ or "")
