"""``keypatch inspect`` as a person meets it: what it prints, draws, shows in a terminal and refuses."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image
from tests.sources import keypatch

from keypatch.audit.picture import small_picture
from keypatch.cli import inspect as module
from keypatch.formats.store import Store

from .stores import Design, Made, copy_of, flip, make_store
from .test_terminal_picture import TRUECOLOR, decode_blocks, decode_sixel


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


def _says(*arguments: object) -> str:
    ran = keypatch("inspect", *arguments)
    assert ran.code == 0, ran.err
    return ran.out


# ----- what it prints -----


def test_a_store_is_shown(made: Made) -> None:
    text = _says(made.path)
    assert made.digest in text
    assert "image      10×16×32×24 uint8" in text
    assert "\x1b" not in text


def test_the_tree_is_shown(made: Made) -> None:
    lines = _says(made.path, "--tree").splitlines()
    assert lines[0] == str(made.path)
    (line,) = (line for line in lines if "keypoint_offsets" in line)
    assert line.startswith("    keypoint_offsets")
    assert "11 int64" in line
    assert any(line.startswith("  volumes/") and "1 file" in line for line in lines)
    assert {node["path"] for node in keypatch("inspect", made.path, "--tree", "--json").report} >= {"image", "patches"}


def test_the_attributes_are_shown_as_they_lie_there(made: Made) -> None:
    root = json.loads((made.path / "zarr.json").read_text())
    assert json.loads(_says(made.path, "--attributes")) == root["attributes"]["keypatch"]


def test_a_patch_says_where_it_came_from(made: Made) -> None:
    text = _says(made.path, "--patch", 0)
    z, y, x = made.columns["patches/origin"][0].tolist()
    assert f"cut from  tomo_0, voxels z[{z}:{z + 16}] y[{y}:{y + 32}] x[{x}:{x + 24}] of day0/tomo_0.npy" in text
    assert "first.csv row 0" in text
    assert keypatch("inspect", made.path, "--patch", -1, "--json").report["file"] == "day1/tomo_1.npy"


def test_an_annotation_says_where_it_ended_up(made: Made) -> None:
    text = _says(made.path, "--annotation", "first.csv:0")
    assert "annotation  0, " in text
    assert "from        first.csv row 0" in text
    origin, point = made.columns["patches/origin"][0], made.columns["annotations/coords"][0]
    rs = ", ".join(f"{value:.2f}" for value in point - origin)
    assert f"patch 0, centered: rs ({rs})" in text
    (found,) = keypatch("inspect", made.path, "--annotation", 0, "--json").report
    assert found["sightings"][0]["patch"] == 0


def test_a_volume_of_a_store_says_what_came_of_it(made: Made) -> None:
    text = _says(made.path, "--volume", "tomo_0")
    assert "file        day0/tomo_0.npy, npy" in text
    assert "patches     5 (3 centered, 2 grid)" in text
    assert "6 annotations" in text
    assert keypatch("inspect", made.path, "--volume", "tomo_0", "--json").report["record"]["id"] == "tomo_0"


def test_chosen_patches_are_listed(made: Made) -> None:
    lines = _says(made.path, "--kind", "grid", "--fold", 1).splitlines()
    assert lines[0] == "2 patches: grid, fold 1"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["8", "9"]
    rows = keypatch("inspect", made.path, "--kind", "grid", "--json").report
    assert [row["index"] for row in rows] == [3, 4, 8, 9]
    assert _says(made.path, "--kind", "negative").startswith("0 patches: negative")


# ----- what it draws -----


def _drawn(png: Path) -> np.ndarray:
    with Image.open(png) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


def test_sheets_are_drawn_of_what_is_chosen(made: Made, tmp_path: Path) -> None:
    all_, some, other = tmp_path / "all.png", tmp_path / "some.png", tmp_path / "other.png"
    ran = keypatch("inspect", made.path, "--png", all_)
    assert (ran.code, ran.err) == (0, f"keypatch: wrote {all_}\n")
    _says(made.path, "--kind", "grid", "--png", some)
    _says(made.path, "--annotation", 0, "--png", tmp_path / "annotation.png")
    assert _drawn(some).size < _drawn(all_).size
    _says(made.path, "--count", 3, "--seed", 1, "--png", some)
    _says(made.path, "--count", 3, "--seed", 1, "--png", other)
    assert some.read_bytes() == other.read_bytes()
    _says(made.path, "--count", 3, "--seed", 5, "--png", other)
    assert some.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("flags", [("--slice", "max"), ("--slice", "min"), ("--slice", "middle"), ("--no-gaussian",)])
@pytest.mark.parametrize("what", [("--patch", "2"), ("--kind", "centered")])
def test_the_ways_to_draw_differ(made: Made, tmp_path: Path, what: tuple[str, ...], flags: tuple[str, ...]) -> None:
    _says(made.path, *what, "--png", tmp_path / "usual.png")
    _says(made.path, *what, *flags, "--png", tmp_path / "other.png")
    usual, other = _drawn(tmp_path / "usual.png"), _drawn(tmp_path / "other.png")
    assert usual.shape != other.shape or (usual != other).any()


# ----- what it shows in a terminal -----


def _in_a_terminal(environment: dict[str, str], *arguments: object, size: tuple[int, int] = (40, 90)) -> str:
    """Run the command with a pseudo-terminal of so many rows and columns as stdout; gives all that it wrote there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    keep = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "keypatch", "inspect", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=subprocess.PIPE,
        env={**keep, "PYTHONUTF8": "1", **environment},
    )
    os.close(slave)
    written = b""
    while True:
        try:
            block = os.read(master, 65536)
        except OSError:  # EIO, as Linux says when the other end is closed
            break
        if not block:
            break
        written += block
    os.close(master)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 0, said
    return written.decode().replace("\r\n", "\n") + said


def _picture_in(text: str) -> np.ndarray:
    return decode_blocks("\n".join(line for line in text.splitlines() if "▀" in line))


def test_a_patch_is_shown_in_half_blocks(made: Made) -> None:
    shown = _picture_in(_in_a_terminal(TRUECOLOR, made.path, "--patch", 2))
    store = Store(made.path)
    expected = small_picture(store[2], store.read_gaussian(2), ds_factor=store.ds_factor, size=(89, 74))
    pixels = np.asarray(expected)
    assert shown.shape[1] <= 89
    assert shown.shape[0] <= 2 * (40 - 3)
    assert (shown[: len(pixels)] == pixels).all()


def test_a_choice_is_shown_only_when_asked(made: Made) -> None:
    assert "▀" not in _in_a_terminal(TRUECOLOR, made.path, "--kind", "grid")
    assert "▀" not in _in_a_terminal(TRUECOLOR, made.path)
    shown = _picture_in(_in_a_terminal(TRUECOLOR, made.path, "--kind", "grid", "--picture"))
    assert shown.shape[1] <= 90
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize(
    ("environment", "flags"),
    [
        ({**TRUECOLOR, "NO_COLOR": "1"}, ()),
        (TRUECOLOR, ("--no-picture",)),
        (TRUECOLOR, ("--json",)),
        ({"TERM": "dumb"}, ()),
        ({"TERM": "xterm-256color"}, ()),
        ({**TRUECOLOR, "KEYPATCH_PICTURE": "none"}, ()),
    ],
)
def test_there_is_no_picture_where_none_is_wanted_or_known_to_work(
    made: Made, environment: dict[str, str], flags: tuple[str, ...]
) -> None:
    text = _in_a_terminal(environment, made.path, "--patch", 2, *flags)
    assert "\x1b" not in text
    assert "tomo_0" in text


def test_who_asks_in_vain_is_told(made: Made) -> None:
    text = _in_a_terminal({**TRUECOLOR, "NO_COLOR": "1"}, made.path, "--patch", 2, "--picture")
    assert "keypatch: no picture in the terminal: it is none, shows none, or NO_COLOR is set" in text
    assert "\x1b" not in text
    ran = keypatch("inspect", made.path, "--patch", 2, "--picture")
    assert (ran.code, "no picture in the terminal" in ran.err) == (0, True)
    assert "\x1b" not in ran.out


@pytest.mark.parametrize(
    ("environment", "begins"),
    [
        ({"TERM": "xterm-kitty"}, "\x1b_Ga=T,f=100,q=2,"),
        ({"LC_TERMINAL": "iTerm2", "TERM": "xterm"}, "\x1b]1337;File="),
    ],
)
def test_terminals_with_a_protocol_get_the_whole_picture(made: Made, environment: dict[str, str], begins: str) -> None:
    text = _in_a_terminal(environment, made.path, "--patch", 2)
    assert begins in text
    assert "▀" not in text


def test_a_terminal_with_sixel_gets_a_picture_that_fits_it(made: Made) -> None:
    text = _in_a_terminal({"TERM": "foot"}, made.path, "--patch", 2, size=(40, 70))
    pixels = decode_sixel(text[text.index("\x1bP") :])
    assert 400 <= pixels.shape[1] <= 70 * 8
    assert (pixels >= 0).all()


# ----- what it refuses -----


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (("--patch", "10"), 2, "--patch: expected 0 to 9, found 10"),
        (("--patch", "1", "--tree"), 2, "--tree: expected to be the only one of its kind, found --patch too"),
        (("--patch", "1", "--kind", "grid"), 2, "found a choice of patches too"),
        (("--tree", "--png", "x.png"), 2, "--tree: expected no picture"),
        (("--kind", "odd"), 2, "--kind: expected one of centered"),
        (("--annotation", "first.csv"), 2, "ROW or FILE:ROW"),
        (("--kind", "negative", "--png", "x.png"), 2, "--png: expected patches to draw, found none of these"),
        (("--count", "0"), 2, "--count"),
        (("--slice", "odd"), 2, "--slice"),
        (("--png", "nowhere/x.png"), 3, "nowhere/x.png: expected a folder to write in"),
    ],
)
def test_wrong_calls_are_one_line(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = keypatch("inspect", made.path, *flags)
    assert ran.code == code, ran.err
    assert ran.err.count("\n") == 1
    assert says in ran.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", [("--patch", "0"), ("--png", "x.png"), ("--tree",), ("--fold", "1"), ("--picture",)])
def test_flags_of_a_store_belong_to_a_store(made: Made, flags: tuple[str, ...]) -> None:
    ran = keypatch("inspect", made.source / "day0/tomo_0.npy", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert f"expected a store, to which {flags[0]} belong, found something else" in ran.err


@pytest.mark.parametrize("flags", [("--array", "x"), ("--unsigned",), ("--unit", "nm"), ("--header",)])
def test_flags_of_a_source_belong_to_a_source(made: Made, flags: tuple[str, ...]) -> None:
    ran = keypatch("inspect", made.path, *flags)
    assert (ran.code, ran.out) == (2, "")
    assert f"expected a volume or annotations, to which {flags[0]} belong, found a store" in ran.err


def test_annotations_are_read_by_the_flags_of_convert(tmp_path: Path) -> None:
    path = tmp_path / "picks.txt"
    path.write_text("a;1;2;3\na;4;5;6\n")
    flags = ("--delimiter", ";", "--no-header", "--columns", "volume=0,z=1,y=2,x=3", "--unit", "nm")
    shown = json.loads(keypatch("inspect", path, *flags, "--index-base", "1", "--zero", "corner", "--json").out)
    assert (shown["convention"]["unit"], shown["convention"]["index_base"], shown["convention"]["zero"]) == (
        "nm",
        1,
        "corner",
    )
    assert keypatch("inspect", path, *flags, "--unit", "miles").code == 2


def test_a_damaged_patch_is_an_error_and_leaves_no_picture(made: Made, tmp_path: Path) -> None:
    store = copy_of(made, tmp_path)
    flip(store / "image/c/0/0/0/0", 40)
    ran = keypatch("inspect", store, "--patch", 0, "--png", tmp_path / "x.png")
    assert ran.code == 3
    assert ran.err.count("\n") == 1
    assert "crc32c" in ran.err
    assert not (tmp_path / "x.png").exists()


def test_every_option_has_a_help_text_and_stands_under_a_heading() -> None:
    options = [param for param in module.command.params if isinstance(param, click.Option)]
    sections = module.command.sections
    listed = [name for names in sections.values() for name in names]
    assert len(set(listed)) == len(listed)
    assert {option.name for option in options} | {"help"} == set(listed)
    assert all(option.help for option in options)
    text = keypatch("inspect", "--help").out
    assert all(f"\n{title}:\n" in text for title in sections)


def test_a_store_without_gaussians_is_drawn_and_listed(tmp_path: Path) -> None:
    made = make_store(tmp_path, Design(gaussian_dtype=None, folds=0))
    assert not any(line.strip().startswith("gaussian") for line in _says(made.path, "--tree").splitlines())
    assert "fold" not in _says(made.path, "--kind", "grid")
    _says(made.path, "--patch", 0, "--png", tmp_path / "x.png")
    _says(made.path, "--png", tmp_path / "y.png")


def test_a_store_without_folds_says_so(tmp_path: Path) -> None:
    made = make_store(tmp_path, Design(folds=0))
    ran = keypatch("inspect", made.path, "--fold", "0")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "keypatch: --fold: expected a store with folds, found none in it; leave it out\n"


@pytest.mark.parametrize("command", ["inspect", "peaks"])
def test_nothing_is_written_into_a_store(made: Made, command: str) -> None:
    before = sorted(made.path.rglob("*"))
    inside = made.path / "out.png"
    arguments = {
        "inspect": (made.path, "--patch", 0, "--png", inside),
        "peaks": (made.path / "gaussian", made.path, "-o", inside),
    }
    ran = keypatch(command, *arguments[command])
    assert (ran.code, ran.out) == (2, "")
    assert "expected a place outside the store" in ran.err
    assert sorted(made.path.rglob("*")) == before
