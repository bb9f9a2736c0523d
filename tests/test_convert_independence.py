"""The same input and recipe give the same bytes; what does not matter changes none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.sources import (
    Truth,
    converted,
    every_file,
    keypatch,
    truth,
    write_copick,
    write_csv,
    write_mrc,
    write_relion5,
)
from tests.store_truth import read_tables

SETTINGS = (
    *("--patch-shape", "8,16,12", "--ds-factor", "2,4,3", "--multi", 1, "--hard-negatives", 1, "--negatives", 1),
    *("--dtype", "uint8", "--classes", "motor,ribosome"),
)


def lay_out(folder):
    """Two volumes and tables with every kind of thing to be said about them."""
    known = {f"t{seed}": truth(seed, names=("motor", "ribosome"), dtype=np.int16) for seed in range(2)}
    (folder / "volumes").mkdir(parents=True)
    for name, one in known.items():
        write_mrc(folder / "volumes" / name, one)
    (folder / "volumes" / "notes.txt").write_text("no volume")
    (folder / "volumes" / "slices").mkdir()
    (folder / "volumes" / "slices" / "slice_0.jpg").write_bytes(b"no picture")
    write_csv(folder, known)
    (folder / "more.csv").write_text(
        "volume,z,y,x,class\nt0,1,1,1,motor\nt0,1,1,1,motor\nt1,99,1,1,motor\nt1,2,2,2,membrane\nt7,1,1,1,motor\n"
    )
    return known


@pytest.fixture
def data(tmp_path):
    lay_out(tmp_path / "data")
    return tmp_path / "data"


def build(data, out, *more, volumes=("volumes/*",), tables=("picks.csv", "more.csv")):
    given = [data / one for one in volumes]
    annotations = [part for one in tables for part in ("-a", data / one)]
    return converted(*given, *annotations, "-o", out, *SETTINGS, *more)


def test_the_same_twice_has_the_same_bytes(data, tmp_path):
    first, second = (build(data, tmp_path / name)["digest"] for name in ("a.zarr", "b.zarr"))
    assert first == second
    assert every_file(tmp_path / "a.zarr") == every_file(tmp_path / "b.zarr")


def test_the_order_of_arguments_the_clock_and_the_folder_do_not_matter(data, tmp_path):
    build(data, tmp_path / "a.zarr", "--map", "x=t0", "--map", "y=t1")
    moved = tmp_path / "another home" / "of the data"
    shutil.copytree(data, moved)
    for path in moved.rglob("*"):
        os.utime(path, (1e9, 1e9))
    swapped = {"volumes": ("volumes/t1.mrc", "volumes/t0.mrc", "volumes/*"), "tables": ("more.csv", "picks.csv")}
    build(moved, tmp_path / "b.zarr", "--map", "y=t1", "--map", "x=t0", **swapped)
    assert every_file(tmp_path / "a.zarr") == every_file(tmp_path / "b.zarr")


def test_a_relative_path_is_the_same_as_an_absolute_one(data, tmp_path, monkeypatch):
    build(data, tmp_path / "a.zarr")
    monkeypatch.chdir(data)
    build(Path(), "../b.zarr")
    assert every_file(tmp_path / "a.zarr") == every_file(tmp_path / "b.zarr")


def test_a_recipe_file_is_the_same_as_its_flags(data, tmp_path):
    build(data, tmp_path / "a.zarr")
    (data / "recipe.toml").write_text(
        'volumes = "volumes/*"\nannotations = ["picks.csv", "more.csv"]\nout = "../b.zarr"\n'
        "patch-shape = [8, 16, 12]\nds-factor = [2, 4, 3]\nmulti = 1\nhard-negatives = 1\nnegatives = 2\n"
        'dtype = "uint8"\nclasses = ["motor", "ribosome"]\n'
    )
    converted(data / "recipe.toml", "--negatives", 1)
    assert every_file(tmp_path / "a.zarr") == every_file(tmp_path / "b.zarr")


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_does_not_matter(data, tmp_path, workers):
    build(data, tmp_path / "a.zarr")
    build(data, tmp_path / "b.zarr", "--workers", workers)
    assert every_file(tmp_path / "a.zarr") == every_file(tmp_path / "b.zarr")


def test_no_byte_tells_where_and_when_it_was_made(data, tmp_path, monkeypatch):
    home = tmp_path / "home of a person"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    build(data, tmp_path / "a.zarr")
    told = [str(tmp_path), tmp_path.name, str(data), "home of a person", str(Path.cwd()), os.uname().nodename]
    for name, content in every_file(tmp_path / "a.zarr").items():
        if name.endswith("zarr.json"):
            for secret in told:
                assert secret.encode() not in content, (name, secret)


def test_no_byte_tells_it_for_relion_and_copick_either(tmp_path):
    known = {f"t{seed}": truth(seed, names=("motor",), dtype=np.int16) for seed in range(2)}
    (tmp_path / "data").mkdir()
    for name, one in known.items():
        write_mrc(tmp_path / "data" / name, one)
    for k, pattern in enumerate([write_relion5(tmp_path / "relion", known), write_copick(tmp_path / "copick", known)]):
        out = tmp_path / f"{k}.zarr"
        converted(tmp_path / "data" / "{volume}.mrc", "-a", pattern, "-o", out, *SETTINGS[:4])
        assert not any(
            str(tmp_path).encode() in content or tmp_path.name.encode() in content
            for content in every_file(out).values()
        )


def test_another_volume_changes_no_patch_of_the_others(data, tmp_path):
    build(data, tmp_path / "a.zarr", volumes=("volumes/t1.mrc",))
    build(data, tmp_path / "b.zarr")
    alone, among = read_tables(tmp_path / "a.zarr"), read_tables(tmp_path / "b.zarr")
    mine = among["patches/volume_index"] == 1
    for name in ("origin", "kind", "valid_start", "ds_sigma"):
        np.testing.assert_array_equal(among[f"patches/{name}"][mine], alone[f"patches/{name}"])
    assert among.volumes[1]["scaling"] == alone.volumes[0]["scaling"]


def test_asking_for_more_kinds_changes_no_patch_of_the_others(data, tmp_path):
    build(data, tmp_path / "a.zarr")
    build(data, tmp_path / "b.zarr", "--negatives", 9, "--grid", 8, "--multi", 0)
    fewer, more = read_tables(tmp_path / "a.zarr"), read_tables(tmp_path / "b.zarr")
    for kind in (0, 2):
        np.testing.assert_array_equal(
            fewer["patches/origin"][fewer["patches/kind"] == kind], more["patches/origin"][more["patches/kind"] == kind]
        )


def test_a_seed_and_a_moved_point_change_the_digest(data, tmp_path):
    digests = {build(data, tmp_path / "a.zarr")["digest"], build(data, tmp_path / "b.zarr", "--seed", 1)["digest"]}
    table = (data / "picks.csv").read_text().splitlines()
    table[1] = table[1].replace(table[1].split(",")[1], "3.25")
    (data / "picks.csv").write_text("\n".join(table) + "\n")
    digests.add(build(data, tmp_path / "c.zarr")["digest"])
    assert len(digests) == 3


def test_a_dry_run_knows_the_counts_of_the_store(data, tmp_path):
    dry = build(data, tmp_path / "a.zarr", "--dry-run")
    assert dry["digest"] is None
    assert not (tmp_path / "a.zarr").exists()
    real = build(data, tmp_path / "a.zarr")
    assert {**dry, "digest": real["digest"]} == real


def test_validate_agrees(data, tmp_path):
    build(data, tmp_path / "a.zarr", "--folds", 2)
    ran = keypatch("validate", tmp_path / "a.zarr", "--depth", "deep", "--source", data / "volumes")
    assert ran.code == 0, ran.out + ran.err


def test_a_float_volume_scales_alone(tmp_path):
    """The percentiles of a volume are its own."""
    known = {
        "a": truth(0, dtype=np.float32),
        "b": Truth(truth(1, dtype=np.float32).array * 50, ((3, 3, 3),), ("motor",)),
    }
    for name, one in known.items():
        write_mrc(tmp_path / name, one)
    converted(
        *(tmp_path / f"{name}.mrc" for name in known),
        *("-a", write_csv(tmp_path, known), "-o", tmp_path / "o.zarr", "--patch-shape", 8, "--ds-factor", 4),
        *("--dtype", "uint8"),
    )
    scales = [record["scaling"]["scale"] for record in read_tables(tmp_path / "o.zarr").volumes]
    assert 25 < scales[1] / scales[0] < 100
