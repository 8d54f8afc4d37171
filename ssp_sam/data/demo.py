"""A fixed, composed picture with showcase phrases."""

import numpy as np
import numpy.typing as npt

from ssp_sam.data.canvas import Canvas
from ssp_sam.data.glyphs import GlyphSet
from ssp_sam.data.phrases import Expression
from ssp_sam.data.rendering import make_sprite
from ssp_sam.data.scenes import Scene

WIDTH_PX, HEIGHT_PX = 640, 480

# Noun, longer side and middle in pixels, how far it is turned (degrees), whether it is mirrored; the hindmost first.
_LAYOUT = (
    ("dog", 185, (115, 135), 0, False),
    ("dog", 165, (505, 345), 0, True),
    ("automobile", 215, (190, 370), 0, False),
    ("guitar", 200, (330, 165), 12, False),
    ("lemon", 150, (540, 120), 0, False),
)

# Phrase, kind, numbers of what it means in the layout.
_PHRASES = (
    ("the dog on the left", "position", (0,)),
    ("both dogs", "all", (0, 1)),
    ("the car", "noun", (2,)),
    ("the lemon", "noun", (4,)),
    ("the zebra", "absent-noun", ()),
)


def demo_scene(glyphs: GlyphSet | None = None) -> Scene:
    """Return the showcase picture: a scene of 480 rows and 640 columns with its phrases and truth masks.

    Args:
        glyphs: the pictures, by default those of `GlyphSet()`; the first style is used.
    """
    glyphs = glyphs or GlyphSet()
    canvas = Canvas(_meadow())
    unchanged = np.eye(3, 4)
    for noun, longest_px, centre_xy_px, turn_degrees, mirrored in _LAYOUT:
        picture = glyphs.picture(noun, glyphs.styles[0], longest_px)
        sprite = make_sprite(picture, longest_px, matrix=unchanged, turn_degrees=turn_degrees, mirrored=mirrored)
        canvas.put(noun, sprite, centre_xy_px)
    things = canvas.things()
    nothing = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.bool_)
    expressions = tuple(
        Expression(phrase, kind, np.logical_or.reduce([nothing, *(things[number].mask for number in numbers)]), nothing)
        for phrase, kind, numbers in _PHRASES
    )
    return Scene(canvas.image(), things, expressions)


def _meadow() -> npt.NDArray[np.uint8]:
    """A pale sky that fades into pale grass: (HEIGHT_PX, WIDTH_PX, 3) uint8."""
    rows = np.linspace(0, 1, HEIGHT_PX)[:, None]
    stops = np.array([0.0, 0.4, 0.55, 1.0])
    colours = np.array([(196, 222, 245), (232, 241, 246), (214, 230, 196), (176, 206, 150)])
    column = np.stack([np.interp(rows[:, 0], stops, colours[:, channel]) for channel in range(3)], axis=-1)
    return np.broadcast_to(np.rint(column)[:, None, :], (HEIGHT_PX, WIDTH_PX, 3)).astype(np.uint8)
