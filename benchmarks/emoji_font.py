"""Pictures of the nouns, from an emoji font, for the generators of test scenes."""

from __future__ import annotations

import importlib.resources
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
"""Where Debian's package puts it."""

_CODES: Mapping[str, int] = {
    "backpack": 0x1F392,
    "basketball": 0x1F3C0,
    "bear": 0x1F43B,
    "camel": 0x1F42A,
    "castle": 0x1F3F0,
    "drum": 0x1F941,
    "ear of corn": 0x1F33D,
    "eggplant": 0x1F346,
    "ewe": 0x1F411,
    "fox": 0x1F98A,
    "frog": 0x1F438,
    "giraffe": 0x1F992,
    "house": 0x1F3E0,
    "kitchen knife": 0x1F52A,
    "kiwi fruit": 0x1F95D,
    "laptop": 0x1F4BB,
    "light bulb": 0x1F4A1,
    "lion": 0x1F981,
    "locomotive": 0x1F682,
    "motorcycle": 0x1F3CD,
    "panda": 0x1F43C,
    "pizza": 0x1F355,
    "robot": 0x1F916,
    "running shoe": 0x1F45F,
    "scissors": 0x2702,
    "sunglasses": 0x1F576,
    "telephone": 0x260E,
    "wrapped gift": 0x1F381,
    "zebra": 0x1F993,
}
"""Characters of the nouns that Unicode names otherwise, or by whose name it has another picture."""

_FONT_SIZE_PX = 109  # the only one that the font has
_TILE_SIDE_PX = 180


class FontError(Exception):
    """There is no font to draw with; the message says where it was looked for."""


def load_tiles(font: Path) -> dict[str, Image.Image]:
    """Return the pictures of the nouns, RGBA with empty margins. Raises FontError."""
    if not font.is_file():
        raise FontError(f"there is no emoji font at {font}; `make font` installs it at {FONT}")
    try:
        face = ImageFont.truetype(str(font), _FONT_SIZE_PX)
    except OSError as error:
        raise FontError(f"cannot draw with {font} ({error}); `make font` installs a font at {FONT}") from error
    tiles = {}
    nouns = importlib.resources.files("ssp_sam.data").joinpath("nouns.txt").read_text(encoding="utf-8")
    for noun in filter(None, nouns.splitlines()):
        try:
            character = chr(_CODES[noun]) if noun in _CODES else unicodedata.lookup(noun.upper())
        except KeyError:  # a noun that was added to the list since
            continue
        tile = Image.new("RGBA", (_TILE_SIDE_PX, _TILE_SIDE_PX))
        ImageDraw.Draw(tile).text((20, 20), character, font=face, embedded_color=True)
        if tile.getbbox():
            tiles[noun] = tile
    return tiles
