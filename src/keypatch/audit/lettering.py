"""What is written in pictures: titles, captions, scale bars and legends."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Final, TypeAlias

from PIL import ImageDraw, ImageFont

from keypatch import geometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from keypatch.audit.panels import Color

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, the last two exclusive."""

LARGE: Final = 17
SMALL: Final = 13
LINE: Final = SMALL + 7
"""Pixels from one small line to the next."""

BACKGROUND: Final[Color] = (18, 20, 24)
TEXT: Final[Color] = (236, 239, 244)
DIM: Final[Color] = (160, 168, 180)

BAR_ROOM: Final = 22
"""Pixels that a scale bar and its label take below a panel."""

MARKS: Final = (
    "dot: within half a coarse voxel of the slice, ring: one sigma, faint circle: farther, "
    "colour: Gaussian, hatched: outside the volume"
)
MARKS_OF_PROJECTION: Final = (
    "dot: keypoint at any depth, ring: one sigma, colour: Gaussian, greatest along the axis, "
    "hatched: outside the volume"
)

_BAR_LENGTHS: Final = tuple(digit * 10.0**exponent for exponent in range(-1, 8) for digit in (1, 2, 5))
"""Å that a scale bar may stand for."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own; it has neither the sign for Å nor that for times."""
    return ImageFont.load_default(size)


def write(canvas: Image.Image, at: tuple[int, int], text: str, *, width: float, size: int, color: Color) -> None:
    """Write one line, cut with dots to a width."""
    ImageDraw.Draw(canvas).text(at, shortened(text, size, width), color, font(size))


def shortened(text: str, size: int, width: float) -> str:
    """The text, cut with dots where it is wider than so many pixels."""
    letters = font(size)
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def wrapped(text: str, width: float) -> list[str]:
    """Small lines of at most so many pixels, broken at blanks."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(SMALL).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def draw_bar(canvas: Image.Image, box: Box, spacing: float, scale: float) -> None:
    """A scale bar under a panel: the longest round length that takes at most half of the panel's width.

    Args:
        canvas: Drawn upon.
        box: Of the panel.
        spacing: Å a voxel along the panel's width.
        scale: Pixels a voxel.
    """
    per_angstrom = scale / spacing
    fitting = [length for length in _BAR_LENGTHS if length * per_angstrom <= (box[2] - box[0]) / 2]
    if not fitting or not math.isfinite(per_angstrom):
        return
    length = fitting[-1]
    pixels = max(round(length * per_angstrom), 1)
    top = box[3] + 9
    ImageDraw.Draw(canvas).rectangle((box[0], top, box[0] + pixels - 1, top + 2), fill=TEXT)
    label = f"{length / geometry.ANGSTROM_PER['nm']:g} nm"
    if pixels + 6 + font(SMALL).getlength(label) <= box[2] - box[0]:
        ImageDraw.Draw(canvas).text((box[0] + pixels + 6, top - 7), label, DIM, font(SMALL))


class Legend:
    """Coloured names and a note on what the marks mean, wrapped to a width.

    Args:
        entries: Colour and text.
        note: Below them.
        width: Pixels.
    """

    _SWATCH: Final = 12

    def __init__(self, entries: Sequence[tuple[Color, str]], note: str, width: int) -> None:
        self._places: list[tuple[int, int, Color, str]] = []
        left = top = 0
        for color, text in entries:
            shown = shortened(text, SMALL, width - self._SWATCH - 6)
            needed = self._SWATCH + 6 + math.ceil(font(SMALL).getlength(shown))
            if left and left + needed > width:
                left, top = 0, top + LINE
            self._places.append((left, top, color, shown))
            left += needed + 20
        self._note_top = top + LINE if entries else 0
        self._note = wrapped(note, width)
        self.height = self._note_top + len(self._note) * LINE

    def draw(self, canvas: Image.Image, at: tuple[int, int]) -> None:
        """Draw it with its upper left corner there."""
        draw, letters = ImageDraw.Draw(canvas), font(SMALL)
        for left, top, color, text in self._places:
            x, y = at[0] + left, at[1] + top
            draw.ellipse((x, y + 2, x + self._SWATCH - 1, y + 1 + self._SWATCH), fill=color)
            draw.text((x + self._SWATCH + 6, y), text, TEXT, letters)
        for k, line in enumerate(self._note):
            draw.text((at[0], at[1] + self._note_top + k * LINE), line, DIM, letters)
