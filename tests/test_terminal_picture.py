"""Pictures in the terminal: which protocol, and that each decodes to the pixels that went in."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from keypatch.cli.terminal_picture import encoded, protocol

TRUECOLOR = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app", "COLORTERM": "truecolor"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "mlterm-256color"}, "sixel"),
        ({"TERM": "xterm-sixel"}, "sixel"),
        (TRUECOLOR, "blocks"),
        ({"TERM": "xterm-256color", "COLORTERM": "24bit"}, "blocks"),
        ({"TERM": "xterm-direct"}, "blocks"),
        ({"TERM": "xterm-256color", "WT_SESSION": "x"}, "blocks"),
        # A multiplexer passes the variables on and not the pictures.
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "COLORTERM": "truecolor"}, "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x", "COLORTERM": "truecolor"}, "blocks"),
        ({"TERM": "screen", "TERM_PROGRAM": "iTerm.app"}, None),
        # Nothing says that these show 24-bit colours.
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "linux"}, None),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, None),
        ({}, None),
        ({**TRUECOLOR, "KEYPATCH_PICTURE": "sixel"}, "sixel"),
        ({**TRUECOLOR, "KEYPATCH_PICTURE": "none"}, None),
    ],
)
def test_the_terminal_is_told_by_its_variables(environment: dict[str, str], expected: str | None) -> None:
    given = {"encoding": "utf-8", "asked": False}
    assert protocol(environment, is_terminal=True, **given) == expected
    assert protocol(environment, is_terminal=False, **given) is None
    assert protocol({**environment, "NO_COLOR": "1"}, is_terminal=True, **given) is None
    assert protocol({**environment, "NO_COLOR": ""}, is_terminal=True, **given) == expected


def test_who_asks_gets_blocks_unless_they_cannot_be() -> None:
    plain = {"TERM": "xterm-256color"}
    assert protocol(plain, is_terminal=True, encoding="UTF-8", asked=True) == "blocks"
    assert protocol({"TERM": "dumb"}, is_terminal=True, encoding="utf-8", asked=True) is None
    assert protocol(plain, is_terminal=True, encoding="latin-1", asked=True) is None
    assert protocol(plain, is_terminal=False, encoding="utf-8", asked=True) is None
    assert protocol(TRUECOLOR, is_terminal=True, encoding="ascii", asked=False) is None


def _noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("width", "height"), [(7, 4), (1, 1), (30, 21)])
def test_half_blocks_are_the_pixels(width: int, height: int) -> None:
    pixels = _noise(width, height)
    pixels[0, :4] = pixels[0, 0]  # a run of one colour
    found = decode_blocks(encoded(Image.fromarray(pixels), "blocks"))
    assert (found[:height] == pixels).all()
    assert (found[height:] == 0).all()


def decode_blocks(text: str) -> np.ndarray:
    """(rows, columns, 3) pixels of half blocks, by the meaning of the escape codes."""
    rows = []
    for line in text.splitlines():
        upper, lower, pair = [], [], None
        assert line.endswith("\x1b[0m")
        for code, sign in re.findall(r"(?:\x1b\[([\d;]+)m)?(▀)", line):
            if code:
                values = [int(n) for n in code.split(";")]
                assert (values[:2], values[5:7]) == ([38, 2], [48, 2])
                pair = values[2:5], values[7:10]
            assert sign
            assert pair is not None
            upper.append(pair[0])
            lower.append(pair[1])
        rows += [upper, lower]
    return np.array(rows, np.uint8)


def test_kitty_gets_a_png_in_quiet_chunks() -> None:
    pixels = _noise(90, 60)
    text = encoded(Image.fromarray(pixels), "kitty")
    codes = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert re.sub(r"\x1b_G[^\x1b]*\x1b\\", "", text) == "\n"
    assert codes[0][0] == "a=T,f=100,q=2,m=1"
    assert [control for control, _ in codes[1:]] == ["m=1"] * (len(codes) - 2) + ["m=0"]
    assert all(len(data) <= 4096 and len(data) % 4 == 0 for _, data in codes)
    png = base64.standard_b64decode("".join(data for _, data in codes))
    assert (np.asarray(Image.open(io.BytesIO(png))) == pixels).all()


def test_a_small_picture_is_one_chunk_for_kitty() -> None:
    text = encoded(Image.new("RGB", (3, 3)), "kitty")
    assert text.startswith("\x1b_Ga=T,f=100,q=2,m=0;")


def test_iterm2_gets_a_png_with_its_size() -> None:
    pixels = _noise(20, 10)
    text = encoded(Image.fromarray(pixels), "iterm2")
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);width=20px;height=10px:(.*)\a\n", text)
    assert found
    png = base64.standard_b64decode(found[2])
    assert len(png) == int(found[1])
    assert (np.asarray(Image.open(io.BytesIO(png))) == pixels).all()


def decode_sixel(text: str) -> np.ndarray:
    """Pixels of a sixel picture in percent, written after the manual of the VT340; -1 where nothing is drawn."""
    body = re.fullmatch(r'\x1bP0;1q"1;1;(\d+);(\d+)(.*)\x1b\\\n', text, re.DOTALL)
    assert body
    width, height = int(body[1]), int(body[2])
    pixels = np.full((height + 6, width, 3), -1)
    palette, color, x, y = {}, None, 0, 0
    for number, definition, count, sign in re.findall(r"#(\d+)((?:;\d+){4})?|(?:!(\d+))?([?-~$-])", body[3]):
        if number:
            color = int(number)
            if definition:
                kind, *values = (int(n) for n in definition[1:].split(";"))
                assert kind == 2
                palette[color] = values
        elif sign == "$":
            x = 0
        elif sign == "-":
            x, y = 0, y + 6
        else:
            stop = x + int(count or 1)
            for bit in range(6):
                if (ord(sign) - 63) >> bit & 1:
                    pixels[y + bit, x:stop] = palette[color]
            x = stop
    assert (pixels[height:] == -1).all()
    return pixels[:height]


@pytest.mark.parametrize(("width", "height"), [(40, 24), (17, 13), (1, 1)])
def test_sixels_are_the_pixels(width: int, height: int) -> None:
    colors = np.array([(0, 0, 0), (255, 255, 255), (255, 82, 82), (51, 102, 153)], np.uint8)
    pixels = colors[np.random.default_rng(1).integers(0, 4, (height, width))]
    pixels[: height // 2, 3:15] = colors[2]  # runs
    found = decode_sixel(encoded(Image.fromarray(pixels), "sixel"))
    assert np.abs(found - pixels * (100 / 255)).max() <= 1


def test_a_grey_picture_in_sixels_keeps_its_greys() -> None:
    ramp = np.repeat(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(12, axis=0)
    found = decode_sixel(encoded(Image.fromarray(ramp), "sixel"))
    assert np.abs(found - ramp * (100 / 255)).max() <= 3
