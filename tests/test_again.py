"""The command that builds a store again: run, it gives the same digest."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from tests.sources import converted, keypatch

from keypatch.converters.again import convert_command
from keypatch.formats.store import Store

COMMON = ("--voxel-spacing", "10,11,12.5", "--patch-shape", "8", "--ds-factor", "4")
SETTINGS = {
    "defaults": (),
    "kinds": ("--centered", "2", "--jitter", "3,2,1", "--negatives", "2", "--grid", "8", "--seed", "7", "--folds", "2"),
    "storage": ("--dtype", "uint8", "--clip-percentiles", "1,99.5", "--codec", "zstd:5", "--shard-size", "2KB"),
    "targets": ("--no-gaussian", "--sigma-angstrom", "200", "--padding", "edge", "--resample-to", "13"),
    "reading": ("--unit", "angstrom", "--zero", "corner", "--classes", "b,a", "--columns", "volume=which,z=z,y=y,x=x"),
}


def _sources(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["which,z,y,x,class"]
    for name in ("one", "two"):
        (folder / "vols" / name).mkdir(parents=True)
        np.save(folder / "vols" / name / "tomo.npy", rng.normal(size=(20, 22, 24)).astype(np.float32))
        rows += [f"{name},{z},{y},{x},{'ab'[k % 2]}" for k, (z, y, x) in enumerate(rng.uniform(2, 18, (5, 3)).round(2))]
    (folder / "picks").mkdir()
    (folder / "picks/all.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_the_command_builds_the_same_store(tmp_path: Path, settings: tuple[str, ...]) -> None:
    _sources(tmp_path)
    columns = () if "--columns" in settings else ("--columns", "volume=which")
    given = (f"{tmp_path}/vols/{{volume}}/tomo.npy", "-a", tmp_path / "picks/all.csv", *COMMON, *columns, *settings)
    digest = converted(*given, "-o", tmp_path / "first.zarr")["digest"]
    store = Store(tmp_path / "first.zarr")
    command = convert_command(store.attributes, store.volume_records, str(tmp_path / "out.zarr"), f"{tmp_path}/vols")
    words = shlex.split(command)
    assert words[:3] == ["keypatch", "convert", f"{tmp_path}/vols/{{volume}}/tomo.npy"]
    ran = keypatch(*(word.replace("ANNOTATIONS/", f"{tmp_path}/picks/") for word in words[1:]))
    assert ran.code == 0, ran.err
    assert Store(tmp_path / "out.zarr").digest == digest


def test_files_by_volume_and_class_are_one_pattern() -> None:
    volumes = [{"id": name, "path": f"{name}/VoxelSpacing10/denoised.zarr"} for name in ("TS_1", "TS_11")]
    files = [{"path": f"{v}/Picks/{c}.json"} for v in ("TS_1", "TS_11") for c in ("ribosome", "vlp")]
    attributes = {"classes": ["ribosome", "vlp"], "recipe": {"seed": 3}, "sources": files}
    command = convert_command(attributes, volumes, "a b.zarr")
    assert shlex.split(command) == [
        *("keypatch", "convert", "VOLUMES/{volume}/VoxelSpacing10/denoised.zarr", "--overwrite", "-o", "a b.zarr"),
        *("-a", "ANNOTATIONS/{volume}/Picks/{class}.json", "--seed", "3"),
    ]


@pytest.mark.parametrize(
    ("attributes", "volumes"),
    [
        ({"sources": [{"path": "a.csv"}]}, [{"id": "a", "path": "a.npy"}]),
        ({"recipe": {"sede": 1}, "sources": [{"path": "a.csv"}]}, [{"id": "a", "path": "a.npy"}]),
        ({"recipe": {"patch_shape": "odd"}, "sources": [{"path": "a.csv"}]}, [{"id": "a", "path": "a.npy"}]),
        ({"recipe": {}, "sources": []}, [{"id": "a", "path": "a.npy"}]),
        ({"recipe": {}, "sources": [{"path": 1}]}, [{"id": "a", "path": "a.npy"}]),
        ({"recipe": {}, "sources": [{"path": "a.csv"}]}, [{"id": "a"}]),
        ({"recipe": {}, "sources": [{"path": "a.csv"}]}, []),
    ],
)
def test_where_too_little_is_recorded_there_is_no_command(attributes: dict, volumes: list) -> None:
    assert convert_command({"classes": [], **attributes}, volumes, "out.zarr") == ""
