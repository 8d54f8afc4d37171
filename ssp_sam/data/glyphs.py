"""Pictures of the nouns: emoji in one or more drawing styles, from a font or from a folder of pictures."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import emoji
from PIL import Image, ImageDraw, ImageFont

from ssp_sam.data.names import nouns


class DataError(Exception):
    """The synthetic data cannot be made as asked."""


class GlyphStyleNotFoundError(DataError):
    """The font or the pictures of a drawing style are not on this system; the message says how to get them."""


FONT_FOLDERS = (
    Path("/usr/share/fonts"),
    Path("/usr/local/share/fonts"),
    Path.home() / ".local/share/fonts",
    Path.home() / ".fonts",
    Path("/Library/Fonts"),
)
PICTURE_FOLDERS = (Path("build/glyphs"),)

_SMALLEST_LEVEL_PX = 48
_SEEN_ALPHA = 8  # of 255; fainter pixels around a picture are not part of it


class GlyphStyle(Protocol):
    """A way in which every noun is drawn."""

    def find(self, folders: tuple[Path, ...] | None = None) -> Path:
        """Return where the style is, looking into these folders or the usual ones; raise `GlyphStyleNotFoundError`."""

    def draw(self, found: Path, character: str) -> Image.Image:
        """Return an RGBA picture of an emoji, with any margin, empty where there is none."""


@dataclass(frozen=True)
class FontStyle:
    """A colour font: its file, the one size in pixels at which its pictures are stored, how to get it."""

    file_name: str
    size_px: int
    install_hint: str

    def find(self, folders: tuple[Path, ...] | None = None) -> Path:
        """Return the font's file."""
        searched = folders or FONT_FOLDERS
        for folder in searched:
            found = sorted(folder.rglob(self.file_name)) if folder.is_dir() else []
            if found:
                return found[0]
        raise _not_found(self.file_name, searched, self.install_hint)

    def draw(self, found: Path, character: str) -> Image.Image:
        """Draw an emoji with the font."""
        canvas = Image.new("RGBA", (2 * self.size_px, 2 * self.size_px))
        middle = (self.size_px, self.size_px)
        font = ImageFont.truetype(str(found), self.size_px)
        ImageDraw.Draw(canvas).text(middle, character, font=font, embedded_color=True, anchor="mm")
        return canvas


@dataclass(frozen=True)
class PictureStyle:
    """A folder of pictures, each named by the code points of its emoji (`1f415.webp`), and how to get it."""

    folder_name: str
    install_hint: str

    def find(self, folders: tuple[Path, ...] | None = None) -> Path:
        """Return the folder."""
        searched = folders or PICTURE_FOLDERS
        for folder in searched:
            if (folder / self.folder_name).is_dir():
                return folder / self.folder_name
        raise _not_found(self.folder_name, searched, self.install_hint)

    def draw(self, found: Path, character: str) -> Image.Image:
        """Read the picture of an emoji."""
        path = found / picture_file_name(character)
        if not path.is_file():
            raise _not_found(path.name, (found,), self.install_hint)
        with Image.open(path) as picture:
            return picture.convert("RGBA")


STYLES: dict[str, GlyphStyle] = {
    "noto": FontStyle("NotoColorEmoji.ttf", 109, "apt-get install fonts-noto-color-emoji"),
    "fluent-3d": PictureStyle("fluent-3d", "python scripts/fetch_glyph_styles.py"),
}


def picture_file_name(character: str) -> str:
    """Return the file name of an emoji in a `PictureStyle`; the variation selector is left out."""
    return "-".join(f"{ord(point):x}" for point in character if point != "\ufe0f") + ".webp"


def style_named(name: str) -> GlyphStyle:
    """Return a drawing style.

    Raises:
        DataError: there is none of that name.
    """
    if name not in STYLES:
        raise DataError(f"no drawing style {name!r}; there are {', '.join(STYLES)}")
    return STYLES[name]


def installed_styles() -> tuple[str, ...]:
    """Return the names of the drawing styles that are on this system."""
    result = []
    for name, style in STYLES.items():
        try:
            style.find()
        except GlyphStyleNotFoundError:
            continue
        result.append(name)
    return tuple(result)


def _not_found(what: str, folders: tuple[Path, ...], install_hint: str) -> GlyphStyleNotFoundError:
    searched = ", ".join(map(str, folders))
    return GlyphStyleNotFoundError(f"{what} is not in {searched}; scenes are drawn with it; to get it: {install_hint}")


@cache
def characters() -> dict[str, str]:
    """Return the emoji of every noun."""
    wanted = frozenset(nouns())
    fully_qualified = emoji.STATUS["fully_qualified"]
    return {
        name: character
        for character, data in emoji.EMOJI_DATA.items()
        if data["status"] == fully_qualified and (name := data["en"].strip(":").replace("_", " ").lower()) in wanted
    }


class GlyphSet:
    """Pictures of all nouns in one or more drawing styles, drawn when first asked for and then kept.

    Args:
        styles: names in `STYLES`; what a generator draws depends on them and on their order.
        folders: where the styles are looked for; by default the system's font folders and `build/glyphs`.

    Raises:
        GlyphStyleNotFoundError: a style is not installed.
    """

    def __init__(self, styles: tuple[str, ...] = ("noto",), folders: tuple[Path, ...] | None = None) -> None:
        if not styles:
            raise DataError(f"no drawing style was named; there are {', '.join(STYLES)}")
        self.styles = styles
        self._found = {name: style_named(name).find(folders) for name in styles}
        self._pyramids: dict[tuple[str, str], tuple[Image.Image, ...]] = {}

    def picture(self, noun: str, style: str, longest_px: float) -> Image.Image:
        """Return an RGBA picture cropped to its content, at least as large as asked for where there is one so large.

        Args:
            noun: a line of nouns.txt.
            style: one of `styles`.
            longest_px: the longer side at which the picture will be drawn.
        """
        levels = self._pyramid(noun, style)
        for level in reversed(levels):
            if max(level.size) >= longest_px:
                return level
        return levels[0]

    def _pyramid(self, noun: str, style: str) -> tuple[Image.Image, ...]:
        """The picture and copies of half, a quarter... its size, so that drawing it small does not alias."""
        key = noun, style
        if key not in self._pyramids:
            levels = [self._draw(noun, style)]
            while max(levels[-1].size) > _SMALLEST_LEVEL_PX:
                levels.append(levels[-1].reduce(2))
            self._pyramids[key] = tuple(levels)
        return self._pyramids[key]

    def _draw(self, noun: str, style: str) -> Image.Image:
        if noun not in characters():
            raise DataError(f"no picture of {noun!r}: it is not a line of nouns.txt")
        picture = style_named(style).draw(self._found[style], characters()[noun])
        box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > _SEEN_ALPHA)).getbbox()
        if box is None:
            raise DataError(f"style {style!r} has no picture of {noun!r}")
        return picture.crop(box)
