"""Cost against the number of patches: time and peak memory of each stage, from 10^3 to 10^6 patches.

    python benchmarks/size.py [--quick]

The patches are tiny (4x4x4 uint8, 1000 of a volume of holes), so what is left is what each patch costs whatever its
size: planning, metadata, opening, the quick validation. Every stage's peak (VmHWM) is set back before it, so it counts
what the stage was given too. "build" is the whole of it, units by two workers, metadata, fsyncs, rename; where that
would take too long, the shards are copies of one that was written, since all patches of holes are alike.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memory import read_status
from table import Row, Settings, measure, row
from tomograms import SPACING, write_holes, write_picks

if TYPE_CHECKING:
    from collections.abc import Callable

    from keypatch.converters.plan import Plan
    from keypatch.formats.store import UnitRecord

PART = "size"
PATCH, FACTOR, SIGMA_DS = 4, 4, 0.1
VOLUME = (64, 128, 128)
PICKS_A_VOLUME = 1000
WORKERS = 2
MOST_SECONDS = {"plan": 60.0, "metadata": 60.0, "plan and metadata": 60.0, "open": 0.5, "quick validation": 10.0}
MOST_MB = 2000.0
JUDGED_AT = 10**6
STAGES = ("plan", "metadata", "plan and metadata", "build", "open", "first patch", "quick validation")
WANTED_STEADY = 1 / 1.1


def run(settings: Settings) -> list[Row]:
    """All sizes."""
    sizes = (10**3, 10**4, 10**5) if settings.quick else (10**3, 10**4, 10**5, 10**6)
    small, large = (10**3, 10**4) if settings.quick else (10**3, 10**5)
    rows: list[Row] = []
    costs: dict[int, list[float]] = {}
    for n in sizes:
        settings.say(f"  {n:,} patches")
        once = settings.quick or n >= 10**5
        rounds = [_round(settings, n, built=n <= large) for _ in range(1 if once else 3)]
        rows += _rows(n, rounds)
        if n <= large:
            costs[n] = [sum(one[stage]["s"] for stage in ("plan", "build", "quick validation")) / n for one in rounds]
    ratio = float(np.median(costs[small]) / np.median(costs[large]))
    case = f"plan, build and quick validation: a patch of {large:,} against one of {small:,}"
    values = [one * 1e6 for one in costs[large]]
    rows.append(row(PART, case, "keypatch", values, "µs/patch", ratio=ratio, wanted=round(WANTED_STEADY, 2)))
    return rows


def _round(settings: Settings, n: int, *, built: bool) -> dict[str, dict[str, float]]:
    work = settings.fresh("size")
    names = [f"tomo{k:05}" for k in range(n // PICKS_A_VOLUME)]
    (work / "tomograms").mkdir()
    for name in names:
        write_holes(work / "tomograms" / f"{name}.npy", VOLUME, "uint8")
    write_picks(work / "picks.csv", names, VOLUME, PICKS_A_VOLUME, seed=0)
    found: dict[str, dict[str, float]] = {}
    for stages in ("build" if built else "make", "use"):
        command = [sys.executable, str(Path(__file__)), "--stages", stages, str(work)]
        found |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    settings.fresh("size")
    return found


def _rows(n: int, rounds: list[dict[str, dict[str, float]]]) -> list[Row]:
    rows = []
    for one in rounds:
        plan, metadata = one["plan"], one["metadata"]
        one["plan and metadata"] = {"s": plan["s"] + metadata["s"], "mb": max(plan["mb"], metadata["mb"])}
    for stage in STAGES:
        if stage not in rounds[0]:
            continue
        seconds = [one[stage]["s"] for one in rounds]
        peak = max(one[stage]["mb"] for one in rounds)
        judged = n == JUDGED_AT and stage in MOST_SECONDS
        ratio = MOST_SECONDS[stage] / float(np.median(seconds)) if judged else None
        note = f"peak {peak:.0f} MB, {1e6 * float(np.median(seconds)) / n:.3g} µs a patch"
        if judged:
            note += f"; budget {MOST_SECONDS[stage]:g} s"
        case = f"{n:,} patches, {stage}"
        rows.append(row(PART, case, "keypatch", seconds, "s", ratio=ratio, wanted=1 if judged else None, note=note))
        if judged and stage == "plan and metadata":
            rows.append(row(PART, case, "keypatch", [peak], "MB", ratio=MOST_MB / peak, wanted=1, note="peak memory"))
    return rows


class _Stages:
    """Times the stages of this process and takes their peaks."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    def measure(self, name: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the work gives
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets VmHWM back (proc(5))
        start = time.perf_counter()
        result = work()
        self.found[name] = {"s": time.perf_counter() - start, "mb": read_status("self", "VmHWM")}
        return result


def _make(folder: Path, *, built: bool) -> dict[str, dict[str, float]]:
    import zarr  # noqa: F401 - its import is no cost of a patch

    from keypatch.converters.build import BuildOptions, convert
    from keypatch.converters.plan import build_plan
    from keypatch.converters.recipe import Recipe

    stages = _Stages()
    form = {"patch_shape": str(PATCH), "ds_factor": str(FACTOR), "sigma_ds": str(SIGMA_DS), "jitter": "0"}
    given = {"volumes": [f"{folder}/tomograms/*.npy"], "annotations": [str(folder / "picks.csv")], **form}
    recipe = Recipe.from_mapping(given | {"voxel_spacing": str(SPACING)})
    plan = stages.measure("plan", lambda: build_plan(recipe))
    store = folder / "out.zarr"
    records = _copied_shards(plan, store)
    stages.measure("metadata", lambda: _write_metadata(plan, store, records))
    if built:
        stages.measure("build", lambda: convert(plan, store, BuildOptions(workers=WORKERS, overwrite=True)))
    return stages.found


def _copied_shards(plan: Plan, store: Path) -> list[UnitRecord]:
    """Shards of zeros: the first unit is written and copied, and the last one is written if it holds fewer patches."""
    from keypatch.formats.store import write_unit
    from keypatch.formats.store.layout import shard_key

    layout = plan.layout
    image = np.zeros(layout.patch_shape, layout.image_dtype)
    gaussian = np.zeros((layout.n_classes, *layout.grid), layout.gaussian_dtype)
    store.mkdir()
    records: list[UnitRecord] = []
    for unit in range(layout.n_units):
        n = len(layout.unit_patches(unit))
        if unit and n == layout.patches_per_shard:
            for name, axes in (("image", 4), ("gaussian", 5)):
                first, path = (store / name / shard_key(k, axes) for k in (0, unit))
                path.parent.mkdir(parents=True)
                shutil.copyfile(first, path)
            records.append(replace(records[0], unit=unit))
        else:
            records.append(write_unit(store, layout, unit, ((image, gaussian) for _ in range(n))))
    return records


def _write_metadata(plan: Plan, store: Path, records: list[UnitRecord]) -> None:
    """As a build does once its units are written."""
    from keypatch.converters.describe import store_attributes, volume_records
    from keypatch.converters.scaling import Scaling
    from keypatch.formats.store import write_metadata

    volumes = volume_records(plan, [Scaling("uint8")] * len(plan.catalog.volumes))
    write_metadata(store, plan.layout, records, plan.columns, volumes, store_attributes(plan))


def _use(folder: Path) -> dict[str, dict[str, float]]:
    import zarr  # noqa: F401 - its import is no cost of a patch

    import keypatch
    from keypatch.audit.validate import validate

    stages = _Stages()
    store = stages.measure("open", lambda: keypatch.open(folder / "out.zarr"))
    stages.measure("first patch", lambda: store[len(store) // 2].image)
    report = stages.measure("quick validation", lambda: validate(folder / "out.zarr", "quick"))
    if report.findings:
        raise AssertionError(report.findings)
    return stages.found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stages"]:
        stages, folder = sys.argv[2:]
        print(json.dumps(_use(Path(folder)) if stages == "use" else _make(Path(folder), built=stages == "build")))
    else:
        measure([(PART, run)], __doc__ or "")
