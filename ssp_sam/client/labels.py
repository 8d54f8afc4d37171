"""Text on overlays: labels inside the image and out of each other's way, and the strip of what was not found."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from PIL import ImageDraw, ImageFont

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are outside."""

_SMALLEST_FONT_PX = 11
_ELLIPSIS = "…"
_UNASSIGNED = "\U0010ffff"
_STRIP_COLOUR = (24, 24, 28)
_MOST_OF_THE_IMAGE = 0.3


@dataclass(frozen=True)
class Label:
    """A phrase and its score, to be written near the box of its mask."""

    index: int
    phrase: str
    score: str
    target: Box
    rgb: tuple[int, int, int]


def label_font(image_wh: tuple[int, int]) -> ImageFont.FreeTypeFont:
    """Return Pillow's built-in font in a size for the image."""
    size_px = max(_SMALLEST_FONT_PX, round(math.sqrt(image_wh[0] * image_wh[1]) / 36))
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=size_px))


def draw_caption(
    draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, phrases: Sequence[tuple[int, str]]
) -> list[Box]:
    """List (index, phrase) pairs that found nothing along the bottom; return the space that this takes, if any."""
    if not phrases:
        return []
    width, height = draw.im.size
    padding, line_px = _padding(font), _line_height(font)
    lines = max(1, int((height * _MOST_OF_THE_IMAGE - 2 * padding) // line_px))
    shown = phrases if len(phrases) <= lines else phrases[: lines - 1]
    texts = [
        "nothing found: "
        + fit(font, written(font, i, phrase), "", width - 2 * padding - font.getlength("nothing found: "))
        for i, phrase in shown
    ]
    if len(shown) < len(phrases):
        texts.append(f"nothing found: {len(phrases) - len(shown)} {'more ' if shown else ''}phrases")
    top = height - len(texts) * line_px - 2 * padding
    draw.rectangle((0, top, width, height), fill=_STRIP_COLOUR)
    for row, text in enumerate(texts):
        draw.text((padding, top + padding + row * line_px), text, font=font, fill="white")
    return [(0, top, width, height)]


def draw_labels(
    draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, labels: Sequence[Label], taken: Sequence[Box]
) -> None:
    """Write the labels, each near its target and, where there is room, clear of `taken` and of each other."""
    image_wh = draw.im.size
    padding = _padding(font)
    occupied = list(taken)
    for label in sorted(labels, key=lambda label: -len(label.phrase)):  # long ones are the hardest to place
        longest_px = max(0.6 * image_wh[0], min(image_wh[0], 20 * font.size)) - 4 * padding
        text = fit(font, written(font, label.index, label.phrase), f" {label.score}", longest_px)
        size_wh = math.ceil(font.getlength(text)) + 2 * padding, _line_height(font) + padding
        box = place(size_wh, label.target, image_wh, occupied, gap_px=max(2, padding // 2))
        occupied.append(box)
        draw.rounded_rectangle((box[0], box[1], box[2] - 1, box[3] - 1), radius=padding, fill=label.rgb)
        ink = "black" if _luminance(label.rgb) > 0.45 else "white"
        draw.text((box[0] + padding, (box[1] + box[3]) / 2), text, font=font, fill=ink, anchor="lm")


def place(
    size_wh: tuple[int, int], target: Box, image_wh: tuple[int, int], occupied: Sequence[Box], *, gap_px: int
) -> Box:
    """Return where a label of `size_wh` goes: the first good place that is free, else the one that covers least."""
    places = [_clamped(x, y, size_wh, image_wh) for x, y in _corners(size_wh, target, image_wh, gap_px)]
    return min(places, key=lambda box: sum(_overlap(box, other) for other in occupied))


def written(font: ImageFont.FreeTypeFont, index: int, phrase: str) -> str:
    """Return the phrase in letters that the font has: accents may go; a phrase in another script becomes its index."""
    lacking = _glyph(font, _UNASSIGNED)
    letters = []
    for letter in unicodedata.normalize("NFC", " ".join(phrase.split())):
        plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
        fitting = [form for form in (letter, plain) if all(_glyph(font, part) != lacking for part in form)]
        if not fitting:
            return f"phrase {index}"
        letters.append(fitting[0])
    return "".join(letters)


def fit(font: ImageFont.FreeTypeFont, text: str, ending: str, longest_px: float) -> str:
    """Return `text` and `ending`, with the end of `text` cut off where the two are longer than `longest_px`."""
    if font.getlength(text + ending) <= longest_px:
        return text + ending
    kept = len(text)
    while kept and font.getlength(text[:kept].rstrip() + _ELLIPSIS + ending) > longest_px:
        kept -= 1
    return text[:kept].rstrip() + _ELLIPSIS + ending


def _corners(
    size_wh: tuple[int, int], target: Box, image_wh: tuple[int, int], gap_px: int
) -> Iterator[tuple[int, int]]:
    """Yield top left corners, best first."""
    left, top, right, bottom = target
    width, height = size_wh
    yield left, top - height - gap_px
    yield left, bottom + gap_px
    yield left + gap_px, top + gap_px
    yield right - width, top - height - gap_px
    yield right - width, bottom + gap_px
    yield (left + right - width) // 2, (top + bottom - height) // 2
    yield right + gap_px, top
    yield left - width - gap_px, top
    anywhere = itertools.product(
        (left, *range(0, image_wh[0], max(1, width // 2)), image_wh[0] - width),
        (top, *range(0, image_wh[1], height + gap_px)),
    )
    yield from sorted(anywhere, key=lambda corner: math.dist(corner, (left, top)))


def _clamped(x: int, y: int, size_wh: tuple[int, int], image_wh: tuple[int, int]) -> Box:
    left = max(0, min(x, image_wh[0] - size_wh[0]))
    top = max(0, min(y, image_wh[1] - size_wh[1]))
    return left, top, left + size_wh[0], top + size_wh[1]


def _overlap(one: Box, other: Box) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)


def _glyph(font: ImageFont.FreeTypeFont, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    ascent, descent = font.getmetrics()
    return ascent + descent


def _padding(font: ImageFont.FreeTypeFont) -> int:
    return max(2, round(font.size / 4))


def _luminance(rgb: tuple[int, int, int]) -> float:
    """Return the perceived brightness, 0..1."""
    red, green, blue = (part / 255 for part in rgb)
    return 0.299 * red + 0.587 * green + 0.114 * blue
