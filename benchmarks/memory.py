"""Peak memory of a worker, against the size of a patch and against the size and format of a volume.

    python benchmarks/memory.py [--quick]

A build runs with one spawned worker process, which then says its own peak (VmHWM of /proc/self/status). That peak
counts the pages of memory-mapped sources too, though the system can take them back at any time; the note gives the peak
without them (RssAnon, looked up every two milliseconds). The volumes are holes, so that 16 GiB fit on any disk.
"""

from __future__ import annotations

import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from keypatch.converters.build import BuildOptions
from keypatch.converters.build import convert as build
from keypatch.converters.plan import build_plan
from keypatch.converters.recipe import Recipe
from table import Row, Settings, measure, row
from tomograms import SPACING, write_holes, write_picks

if TYPE_CHECKING:
    from types import TracebackType

PART = "memory"
DTYPE, ITEMSIZE = "float32", 4
BUDGET_PATCHES, BUDGET_MB = 6, 250
SMALL = (128, 512, 1024)
LARGE_PATCH = (160, 288, 288)
SAMPLE_SECONDS = 0.002


@dataclass(frozen=True)
class Case:
    """One build."""

    what: str
    patch_shape: tuple[int, int, int]
    volume_shape: tuple[int, int, int]
    format: str = "npy"

    @property
    def name(self) -> str:
        """In the table."""
        patch, volume = ("x".join(map(str, shape)) for shape in (self.patch_shape, self.volume_shape))
        size = ITEMSIZE * self.volume_shape[0] * self.volume_shape[1] * self.volume_shape[2] / 2**30
        return f"{self.what}: patch {patch}, volume {volume} ({size:g} GiB {self.format})"


def run(settings: Settings) -> list[Row]:
    """All cases."""
    if not Path("/proc/self/status").exists():
        settings.skip("memory", "this system has no /proc/self/status")
        return []
    cases = [Case("patch", (n, n, n), (256, 512, 1024)) for n in (64, 128, 256)]
    sizes = [(256, 512, 512), (256, 1024, 1024), (1024, 1024, 1024)]
    if not settings.quick:
        sizes.append((1024, 2048, 2048))
    cases += [Case("volume", LARGE_PATCH, size) for size in sizes]
    cases += [Case("format", LARGE_PATCH, (256, 1024, 1024), name) for name in ("mrc", "zarr")]
    return [_peak(settings, case, 16 if settings.quick else 48) for case in cases]


def _peak(settings: Settings, case: Case, n_patches: int) -> Row:
    settings.say(f"  {case.name}")
    work = settings.fresh("memory")
    volume = _write_volume(work, case)
    write_picks(work / "picks.csv", ["tomo"], case.volume_shape, n_patches, seed=0)
    form = {"patch_shape": ",".join(map(str, case.patch_shape)), "voxel_spacing": str(SPACING), "padding": "inside"}
    given = {"volumes": [str(volume)], "annotations": [str(work / "picks.csv")], **form}
    plan = build_plan(Recipe.from_mapping(given))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        before = pool.submit(_own_memory, "VmHWM").result()
        (process,) = pool._processes  # nothing public tells it
        with _Anonymous(process) as anonymous:
            build(plan, work / "out.zarr", BuildOptions(workers=1, executor=pool))
        peak = pool.submit(_own_memory, "VmHWM").result()
    patch = plan.layout.image_bytes / 1e6
    budget = BUDGET_PATCHES * patch + BUDGET_MB
    note = f"{anonymous.peak:.0f} MB without mapped files, {before:.0f} MB before the first unit; "
    note += f"{n_patches} patches of {patch:.0f} MB; budget {budget:.0f} MB"
    settings.fresh("memory")
    return row(PART, case.name, "a keypatch worker", [peak], "MB", ratio=budget / peak, wanted=1, note=note)


def _write_volume(work: Path, case: Case) -> Path:
    path = work / f"tomo.{case.format}"
    if case.format == "npy":
        write_holes(path, case.volume_shape, DTYPE)
    elif case.format == "mrc":
        import mrcfile

        mrcfile.new_mmap(path, case.volume_shape, mrc_mode=2).close()
    else:
        import zarr

        array = zarr.create_array(
            path, shape=case.volume_shape, chunks=(128, 128, 128), dtype=DTYPE, config={"write_empty_chunks": True}
        )
        for z in range(0, case.volume_shape[0], 128):
            array[z : z + 128] = 1.0
    return path


def _own_memory(key: str) -> float:
    import keypatch.converters.units  # noqa: F401 - what a worker imports counts

    return read_status("self", key)


def read_status(process: int | str, key: str) -> float:
    """An entry of /proc/PROCESS/status, MB."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(key)


class _Anonymous:
    """Watches the memory of a process that is not mapped from files."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0.0

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, read_status(self._process, "RssAnon"))

    def __enter__(self) -> _Anonymous:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()


if __name__ == "__main__":
    measure([(PART, run)], __doc__ or "")
