"""Which thing may have which colour, and which colours one could mistake for each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Hue(NamedTuple):
    """A colour to paint with: hue in degrees, saturation and value from 0 to 1."""

    hue_deg: float
    saturation: float
    value: float


HUES: Mapping[str, Hue] = {
    "red": Hue(2, 0.85, 0.85),
    "orange": Hue(28, 0.92, 0.98),
    "yellow": Hue(51, 0.85, 0.98),
    "green": Hue(128, 0.75, 0.62),
    "blue": Hue(216, 0.82, 0.85),
    "purple": Hue(274, 0.68, 0.72),
    "pink": Hue(333, 0.45, 0.98),
    "black": Hue(220, 0.12, 0.2),
    "white": Hue(210, 0.04, 0.93),
}

PAINTABLE: Mapping[str, str] = {
    "automobile": "red",
    "backpack": "red",
    "balloon": "red",
    "billed cap": "blue",
    "bucket": "blue",
    "closed book": "red",
    "coat": "blue",
    "dress": "blue",
    "umbrella": "purple",
    "t-shirt": "blue",
    "teapot": "red",
    "telephone": "red",
    "running shoe": "blue",
    "high-heeled shoe": "red",
    "scarf": "red",
    "guitar": "red",
    "drum": "red",
    "tulip": "pink",
    "rose": "red",
    "fish": "blue",
    "motorcycle": "red",
    "racing car": "red",
    "tent": "orange",
    "alarm clock": "red",
    "butterfly": "orange",
    "bell": "yellow",
    "mushroom": "red",
}
"""Nouns that may be painted anew, with the colour that they have by themselves."""

UNPAINTED: Mapping[str, str] = {
    "banana": "yellow",
    "lemon": "yellow",
    "taxi": "yellow",
    "frog": "green",
    "cucumber": "green",
    "broccoli": "green",
    "cactus": "green",
    "crocodile": "green",
    "flamingo": "pink",
    "pig": "pink",
    "tomato": "red",
    "strawberry": "red",
    "elephant": "gray",
    "shark": "gray",
    "koala": "gray",
    "pear": "green",
    "carrot": "orange",
    "fire engine": "red",
    "fox": "orange",
    "eggplant": "purple",
    "grapes": "purple",
    "sunflower": "yellow",
    "swan": "white",
    "ewe": "white",
    "teddy bear": "brown",
    "potato": "brown",
    "bear": "brown",
    "american football": "brown",
    "basketball": "orange",
    "helicopter": "yellow",
    "tangerine": "orange",
    "top hat": "black",
    "sunglasses": "black",
    "snake": "green",
    "turtle": "green",
    "jeans": "blue",
    "handbag": "brown",
    "snowman": "white",
    "whale": "blue",
    "tractor": "green",
    "cherries": "red",
    "jack-o-lantern": "orange",
}
"""Colours of things that are not painted."""

_ALIKE = (
    frozenset({"orange", "red"}),
    frozenset({"orange", "yellow"}),
    frozenset({"pink", "red"}),
    frozenset({"pink", "purple"}),
    frozenset({"blue", "purple"}),
    frozenset({"orange", "pink"}),
    frozenset({"brown", "orange"}),
    frozenset({"brown", "red"}),
    frozenset({"gray", "white"}),
    frozenset({"black", "gray"}),
    frozenset({"blue", "gray"}),
    frozenset({"brown", "yellow"}),
    frozenset({"pink", "white"}),
    frozenset({"purple", "red"}),
    frozenset({"gray", "purple"}),
    frozenset({"black", "brown"}),
)
"""Pairs of colours that one could mistake for each other."""

BLACK_OR_WHITE = frozenset({"backpack", "balloon", "billed cap", "coat", "dress", "t-shirt", "umbrella"})
"""Paintable nouns that may be black or white too."""

NEVER_GREEN = frozenset({"rose", "tulip"})
"""Flowers, whose leaves are green."""

DOUBTFUL = frozenset({"bell", "mushroom", "teapot", "umbrella"})
"""Paintable nouns whose own colour lies between two names, so that it is not named."""

_PARTS: Mapping[str, frozenset[str]] = {
    "butterfly": frozenset({"yellow"}),
    **dict.fromkeys(("alarm clock", "bell", "drum", "guitar"), frozenset({"orange", "yellow"})),
    **dict.fromkeys(NEVER_GREEN, frozenset({"green"})),
    **dict.fromkeys(
        ("automobile", "fish", "motorcycle", "racing car", "running shoe", "t-shirt", "telephone"),
        frozenset({"black", "blue", "white"}),
    ),
}
"""Colours of which a thing has a part, whatever it is painted."""

_PAINTING_ORDER = (
    *("backpack", "balloon", "umbrella", "t-shirt", "telephone", "high-heeled shoe", "tulip", "coat", "alarm clock"),
    *("bell", "billed cap", "teapot", "fish", "tent", "scarf", "automobile", "guitar", "motorcycle", "butterfly"),
    *("dress", "bucket", "closed book", "running shoe", "drum", "racing car", "mushroom"),
)
_NAMING_ORDER = ("pink", "green", "red", "purple", "orange", "yellow", "black", "blue", "white")
"""Orders without meaning: those in which the scenes of seed 70213 were drawn. Others would give other scenes."""


def clearly_other(colour: str, other: str) -> bool:
    """Say whether nobody would take one colour for the other."""
    return colour != other and frozenset({colour, other}) not in _ALIKE


def in_painting_order(nouns: Sequence[str]) -> list[str]:
    """Return the paintable ones of the nouns, each once, in the order in which their colours are drawn.

    Roses and tulips have one place in it; of these two, the one that comes first stays first.
    """
    paintable = dict.fromkeys(noun for noun in nouns if noun in PAINTABLE)
    return sorted(paintable, key=lambda noun: _PAINTING_ORDER.index("tulip" if noun == "rose" else noun))


def in_naming_order(colours: Iterable[str]) -> list[str]:
    """Return the colours, each once, in the order in which phrases about them are worded."""
    return sorted(set(colours), key=_NAMING_ORDER.index)


def deniable(noun: str) -> list[str]:
    """Return the colours of which nothing is seen on a paintable thing that is not painted so."""
    seen = _PARTS.get(noun, frozenset()) | (frozenset() if noun in BLACK_OR_WHITE else {"black", "white"})
    return [] if noun == "mushroom" else [colour for colour in HUES if colour not in seen]
