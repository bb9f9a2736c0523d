"""``keypatch convert`` as a person meets it: exit codes, one line for an error, results alone on stdout."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from tests.sources import convert, keypatch, truth, write_csv, write_npy

from keypatch.cli import convert as module
from keypatch.converters.recipe import Recipe

SMALL = ("--patch-shape", "8", "--ds-factor", "4", "--voxel-spacing", "10")

RUN_ONLY = {"out", "dry_run", "overwrite", "strict", "as_json", "workers", "restart", "on_error"}
"""Flags that say how to run, not what to make: they are in no recipe."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to stand in, with two volumes and their picks."""
    monkeypatch.chdir(tmp_path)
    known = {"a": truth(1), "b": truth(2)}
    for name, volume in known.items():
        write_npy(tmp_path / name, volume)
    write_csv(tmp_path, known)
    return tmp_path


def one_line(ran, code):
    """The line of an error that leaves with this code: the only output there is."""
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert ran.err.endswith("\n")
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.startswith("keypatch: ")
    assert "Traceback" not in ran.err
    return ran.err


# ----- exit codes and streams -----


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["convert"], "VOLUMES"),
        (["convert", "--no-such-flag"], "--no-such-flag"),
        (["convert", "a.npy", "--seed"], "--seed"),
        (["convert", "a.npy", "--patch-sahpe", "8"], "--patch-shape"),
        (["no-such-command"], "no-such-command"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(here, arguments, says):
    line = one_line(keypatch(*arguments), 2)
    assert says in line


def test_no_command_shows_the_help_on_stderr(here):
    ran = keypatch()
    assert (ran.code, ran.out) == (2, "")
    assert "convert" in ran.err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["convert", "--help"]])
def test_what_was_asked_for_is_on_stdout(arguments):
    ran = keypatch(*arguments)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out


def test_strict_builds_nothing_and_exits_1(here):
    (here / "picks.csv").write_text("volume,z,y,x\na,5,5,5\na,500,5,5\nb,5,5,5\n")
    ran = convert("a.npy", "b.npy", "-a", "picks.csv", "-o", "out.zarr", *SMALL, "--strict")
    assert ran.code == 1
    assert "outside" in ran.out
    assert "nothing was built" in ran.err
    assert not (here / "out.zarr").exists()
    assert convert("a.npy", "b.npy", "-a", "picks.csv", "-o", "out.zarr", *SMALL).code == 0


def test_strict_is_content_with_nothing_to_say(here):
    assert convert("a.npy", "b.npy", "-a", "picks.csv", "-o", "out.zarr", *SMALL, "--strict").code == 0


def test_a_table_whose_delimiter_and_header_are_said(here):
    (here / "odd.txt").write_text("a:5:6:7\nb:6:5:5\n")
    (here / "r.toml").write_text(
        'volumes = ["a.npy", "b.npy"]\nannotations = "odd.txt"\ndelimiter = ":"\nheader = false\n'
    )
    columns = "volume=0,z=1,y=2,x=3"
    for arguments in (["a.npy", "b.npy", "-a", "odd.txt", "--delimiter", ":", "--no-header"], ["r.toml"]):
        ran = convert(*arguments, "--columns", columns, *SMALL, "--dry-run", "--json")
        assert (ran.code, json.loads(ran.out)["annotations"]) == (0, {"keypoint": 2})
    ran = convert("a.npy", "b.npy", "-a", "odd.txt", "--delimiter", ":", "--header", "--columns", columns, *SMALL,
                  "--dry-run", "--json")  # fmt: skip
    assert json.loads(ran.out)["annotations"] == {"keypoint": 1}
    line = one_line(
        convert("a.npy", "-a", "odd.txt", "--delimiter", "ab", "--columns", columns, *SMALL, "--dry-run"), 2
    )
    assert "--delimiter: expected one character" in line


def test_an_internal_error_is_one_line_and_exit_4(here, monkeypatch):
    def fail(*_):
        message = "first line\nsecond line"
        raise RuntimeError(message)

    monkeypatch.setattr("keypatch.converters.plan.plan_catalog", fail)
    line = one_line(convert("a.npy", "b.npy", "-a", "picks.csv", "-o", "out.zarr", *SMALL), 4)
    assert "internal error: RuntimeError: first line" in line
    assert "KEYPATCH_DEBUG" in line


def test_the_traceback_is_there_when_asked_for(here, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr("keypatch.converters.plan.plan_catalog", fail)
    monkeypatch.setenv("KEYPATCH_DEBUG", "1")
    with pytest.raises(RuntimeError):
        convert("a.npy", "-a", "picks.csv", "-o", "out.zarr", *SMALL)


def test_a_broken_pipe_inside_is_not_taken_for_a_reader_that_left(here):
    ran = subprocess.run(
        [sys.executable, "-c", _WITH_A_BROKEN_PLAN, "convert", "*.npy", "-a", "picks.csv", "-o", "out.zarr", *SMALL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 4
    assert ran.stderr.count("\n") == 1
    assert not (here / "out.zarr").exists()


_WITH_A_BROKEN_PLAN = """
import keypatch.converters.plan
def fail(*_): raise BrokenPipeError(32, "Broken pipe")
keypatch.converters.plan.plan_catalog = fail
from keypatch.cli import main
main()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs pipes as POSIX has them")
@pytest.mark.parametrize("arguments", [["--help"], ["convert", "--help"]])
def test_a_reader_that_leaves_is_no_finding(arguments):
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-m", "keypatch", *arguments], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (ran.returncode, ran.stderr) == (0, b"")


# ----- help -----


def _options():
    command = module.command
    return [param for param in command.params if isinstance(param, click.Option)]


def test_every_option_has_a_help_text_and_stands_under_a_heading():
    listed = [name for names in module.SECTIONS.values() for name in names]
    assert len(set(listed)) == len(listed)
    assert {option.name for option in _options()} | {"help"} == set(listed)
    assert all(option.help for option in _options())
    text = keypatch("convert", "--help").out
    assert "Others" not in text
    for title in module.SECTIONS:
        assert f"\n{title}:\n" in text


def test_the_flags_are_the_recipe():
    settings = {field.name for field in dataclasses.fields(Recipe)}
    flags = {"map" if option.name == "map_" else option.name for option in _options()}
    assert flags - RUN_ONLY == settings - {"volumes"}
    assert [param.name for param in module.command.params if isinstance(param, click.Argument)] == ["volumes"]
    for option in _options():
        plain = option.opts[-1]
        if option.name not in ("map_", "as_json", "columns"):
            assert plain == "--" + option.name.replace("_", "-")


def test_the_defaults_in_the_help_are_the_recipes():
    helps = {option.name: option.help for option in _options()}
    recipe = Recipe.from_mapping({"volumes": ["v"], "annotations": ["a"]})
    for name in (
        "gaussian_dtype",
        "centered",
        "multi",
        "hard_negatives",
        "negatives",
        "seed",
        "unannotated",
        "padding",
        "dtype",
        "codec",
    ):
        assert f"[{getattr(recipe, name)}" in helps[name], name
    assert f"[{','.join(map(str, recipe.patch_shape))}]" in helps["patch_shape"]
    assert f"[{recipe.ds_factor[0]}]" in helps["ds_factor"]
    assert f"[{recipe.sigma_ds[0]}]" in helps["sigma_ds"]
    assert f"[{recipe.shard_size // 2**20}MiB]" in helps["shard_size"]
    assert "[0: none]" in helps["folds"]
    assert recipe.folds == 0


def test_an_overwriting_rerun_does_not_take_the_store_for_a_volume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.zeros((32, 32, 32), np.uint8))
    Path("picks.csv").write_text("z,y,x\n16,16,16\n")
    flags = ("-a", "picks.csv", "-o", "out.zarr", "--voxel-spacing", "10", "--patch-shape", "16", "--json")
    first = json.loads(convert("[ao]*[yr]", *flags).out)
    again = json.loads(convert("[ao]*[yr]", *flags, "--overwrite").out)
    assert again["left_out"] == []
    assert again["digest"] == first["digest"]


def test_a_class_in_the_file_that_is_not_that_of_its_path_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.zeros((32, 32, 32), np.uint8))
    Path("ribosome.csv").write_text("z,y,x,class\n16,16,16,motor\n")
    flags = ("-o", "out.zarr", "--voxel-spacing", "10", "--patch-shape", "16", "--json")
    result = json.loads(convert("a.npy", "-a", "{class}.csv", *flags).out)
    assert result["annotations"] == {"motor": 1}
    assert result["warnings"] == ["ribosome.csv: is of class motor, which counts; its path says ribosome"]


def test_too_little_memory_is_one_line_and_exit_3(here, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("keypatch.converters.plan.plan_catalog", fail)
    assert "not enough memory" in one_line(convert("a.npy", "b.npy", "-a", "picks.csv", "-o", "out.zarr", *SMALL), 3)


def test_json_does_not_swallow_the_check_when_there_can_be_no_plan(here):
    """Points that lie outside are left out; then no patch can be made of the kind that is asked for."""
    (here / "one.csv").write_text("volume,z,y,x\na,4,5,6\na,4,500,6\n")
    ran = convert("a.npy", "-a", "one.csv", "-o", "out.zarr", *SMALL, "--centered", "0", "--multi", "1", "--json")
    assert ran.code == 2
    assert ran.out == ""
    assert "KP602" in ran.err


def test_json_has_the_errors_of_the_check_where_no_patch_would_be_left(here):
    (here / "far.csv").write_text("volume,z,y,x\na,4,500,6\na,400,5,6\na,4,5,600\n")
    ran = convert("a.npy", "-a", "far.csv", "-o", "out.zarr", *SMALL, "--json")
    assert ran.code == 1
    assert "KP601" in [finding["code"] for finding in ran.report["findings"]]
