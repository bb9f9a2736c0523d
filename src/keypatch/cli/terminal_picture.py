"""A picture in the terminal: by a protocol for images where the terminal is known to have one, else in half blocks.

Which terminal it is, is told by the variables that terminals set, and by nothing else: asking it would put its answer
into the person's next command where it does not come. So what is not known for sure counts as text alone.

Protocols: kitty (https://sw.kovidgoyal.net/kitty/graphics-protocol/), iTerm2
(https://iterm2.com/documentation-images.html), sixel (DEC STD 070; https://vt100.net/docs/vt3xx-gp/chapter14.html).
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import sys
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from PIL import Image

Protocol: TypeAlias = Literal["kitty", "iterm2", "sixel", "blocks"]

OVERRIDE: Final = "KEYPATCH_PICTURE"
"""Names a protocol, where the variables of the terminal got lost on the way (ssh) or it is not known here."""

CELL_WIDTH: Final = 8
"""Pixels that a column has at least, in which pictures are measured where the terminal does not tell."""

_KITTY_CHUNK: Final = 4096
"""Bytes of base64 in one escape code at most, by kitty's protocol."""

_SIXEL_COLORS: Final = 128
_SIXEL_TERMS: Final = ("foot", "mlterm", "yaft")
"""Beginnings of TERM of terminals that show sixel in their standard build."""

_ESCAPE: Final = "\x1b"


def protocol(environment: Mapping[str, str], *, is_terminal: bool, encoding: str, asked: bool) -> Protocol | None:
    """How a picture can be shown; None where it cannot.

    Args:
        environment: The process's variables.
        is_terminal: Whether stdout is one.
        encoding: Of stdout.
        asked: Whether the person asked for a picture: then half blocks are taken for granted.
    """
    if not is_terminal or environment.get("NO_COLOR"):
        return None
    forced = environment.get(OVERRIDE)
    if forced:
        return next((known for known in get_args(Protocol) if known == forced), None)
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    # Multiplexers pass the variables of the terminal around them on, and not its pictures.
    multiplexed = bool(environment.get("TMUX") or environment.get("STY")) or term.startswith(("tmux", "screen"))
    if not multiplexed:
        if term in ("xterm-kitty", "xterm-ghostty") or environment.get("KITTY_WINDOW_ID"):
            return "kitty"
        if program in ("iTerm.app", "WezTerm", "mintty") or environment.get("LC_TERMINAL") == "iTerm2":
            return "iterm2"
        if term.startswith(_SIXEL_TERMS) or "sixel" in term:
            return "sixel"
    if term in ("", "dumb") or not encoding.lower().replace("-", "").startswith("utf"):
        return None
    colors = environment.get("COLORTERM") in ("truecolor", "24bit") or "direct" in term
    return "blocks" if colors or environment.get("WT_SESSION") or asked else None


def protocol_here(*, asked: bool) -> Protocol | None:
    """The same of this process."""
    return protocol(os.environ, is_terminal=sys.stdout.isatty(), encoding=sys.stdout.encoding or "", asked=asked)


def room() -> tuple[int, int]:
    """Columns and rows that a picture may take, with some left for what is said beside it."""
    size = shutil.get_terminal_size((80, 24))
    return max(20, min(size.columns - 1, 120)), max(10, min(size.lines - 3, 48))


def encoded(picture: Image.Image, how: Protocol) -> str:
    """The text that makes a terminal show an RGB picture; the cursor is at the beginning of a line after it."""
    return {"kitty": _kitty, "iterm2": _iterm2, "sixel": _sixel, "blocks": _blocks}[how](picture)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def _kitty(picture: Image.Image) -> str:
    """Transmit and show (a=T) a PNG (f=100), quietly (q=2): an answer would be typed into the shell."""
    data = base64.standard_b64encode(_png(picture)).decode()
    chunks = [data[at : at + _KITTY_CHUNK] for at in range(0, len(data), _KITTY_CHUNK)]
    codes = []
    for k, chunk in enumerate(chunks):
        control = "a=T,f=100,q=2," if k == 0 else ""
        codes.append(f"{_ESCAPE}_G{control}m={int(k < len(chunks) - 1)};{chunk}{_ESCAPE}\\")
    return "".join(codes) + "\n"


def _iterm2(picture: Image.Image) -> str:
    data = _png(picture)
    size = f"size={len(data)};width={picture.width}px;height={picture.height}px"
    return f"{_ESCAPE}]1337;File=inline=1;{size}:{base64.standard_b64encode(data).decode()}\a\n"


def _sixel(picture: Image.Image) -> str:
    """Bands of six rows; in each the colours that it has, one after the other over the same band."""
    indexed = picture.quantize(_SIXEL_COLORS)
    pixels = np.asarray(indexed)
    palette = np.array(indexed.getpalette()[: 3 * (int(pixels.max()) + 1)]).reshape(-1, 3)  # type: ignore[index]
    percent = np.rint(palette * 100 / 255).astype(int).tolist()
    colors = "".join(f"#{c};2;{r};{g};{b}" for c, (r, g, b) in enumerate(percent))
    bands = (_sixel_band(pixels[top : top + 6]) for top in range(0, len(pixels), 6))
    return f'{_ESCAPE}P0;1q"1;1;{picture.width};{picture.height}{colors}{"-".join(bands)}{_ESCAPE}\\\n'


def _sixel_band(rows: NDArray[np.uint8]) -> str:
    bits = 1 << np.arange(len(rows))
    return "$".join(f"#{c}{_runs(((rows == c) * bits[:, None]).sum(axis=0))}" for c in np.unique(rows).tolist())


def _runs(sixels: NDArray[np.int64]) -> str:
    """Six pixels as one sign from ``?`` on; a run of more than three as ``!count``."""
    starts = np.flatnonzero(np.r_[True, sixels[1:] != sixels[:-1]])
    lengths = np.diff(np.r_[starts, len(sixels)])
    signs = [chr(63 + int(value)) for value in sixels[starts]]
    return "".join(f"!{n}{sign}" if n > 3 else sign * n for sign, n in zip(signs, lengths.tolist(), strict=True))


def _blocks(picture: Image.Image) -> str:
    """Two pixels a sign: the upper one is the colour of ``▀``, the lower one that of its ground."""
    pixels = np.asarray(picture.convert("RGB"))
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    lines = []
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        line, before = "", None
        for pair in zip(upper, lower, strict=True):
            if pair != before:
                (r, g, b), (u, v, w) = pair
                line += f"{_ESCAPE}[38;2;{r};{g};{b};48;2;{u};{v};{w}m"
            line, before = line + "▀", pair
        lines.append(f"{line}{_ESCAPE}[0m\n")
    return "".join(lines)
