"""Scenes: things cut out on a background, some hidden in part, with phrases for them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ssp_sam.data.backgrounds import random_background
from ssp_sam.data.canvas import Canvas
from ssp_sam.data.glyphs import DataError, GlyphSet
from ssp_sam.data.names import GROUPS, names_a_colour, nouns, words_of
from ssp_sam.data.phrases import KINDS, Expression, expressions_for
from ssp_sam.data.rendering import (
    DYES,
    Sprite,
    brightness_matrix,
    dye_matrix,
    jitter_matrix,
    make_sprite,
    tinted,
)
from ssp_sam.data.things import Thing

SPLITS = ("train", "val", "test", "calibration")

THINGS_MIN, THINGS_MAX = 2, 6
ABSENT_MIN = 3  # nouns of the vocabulary that a scene leaves out, so that something can be said to be absent
VOCABULARY_MIN = 8
SIZE_MIN, SIZE_MAX = 0.10, 0.60  # longer side of a thing before it is turned, as a share of the image's shorter side
OBLONG_SHARE = 0.6  # scenes that are not square
RATIO_MAX = 1.9  # of their sides
VISIBLE_SHARE_MIN = 0.4  # of a thing, when others and the image's edge hide the rest

REPEAT_SHARE = 0.65  # scenes in which one noun comes several times
ALL_ALIKE_SHARE = 0.15  # of those: scenes in which there may be nothing else
SAME_GROUP_SHARE = 0.3  # scenes whose other things are from one group of nouns
ROW_SHARE = 0.2  # scenes laid out in a row
UPRIGHT_SHARE = 0.25  # of those: one above the other
SHADOW_SHARE = 0.25  # scenes in which things throw shadows
CROWDED_SHARE = 0.35  # scenes in which things may hide one another
COLOURFUL_SHARE = 0.35  # scenes in which things of one noun are dyed, mostly each in its own colour
FEW_COLOURS_SHARE = 0.3  # of those: scenes in which several things may have the same colour
TINTED_SHARE = 0.6  # of dyed things: only what has a colour gets another one; else all of it
_PLACING_TRIES = 40


@dataclass(frozen=True)
class Scene:
    """A picture of H x W pixels with phrases.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        things: what is in it, the hindmost first.
        expressions: phrases with their truth masks.
    """

    image: npt.NDArray[np.uint8]
    things: tuple[Thing, ...]
    expressions: tuple[Expression, ...]


class SceneGenerator:
    """Makes scenes by number: the same arguments and number give the same scene, in any order and in any process.

    Args:
        side_px: the longer side of a scene.
        seed: a stream of scenes of its own, 0 to 2**32 - 1.
        split: one of `SPLITS`; they share no stream.
        expressions_per_scene: phrases a scene.
        glyphs: the pictures, by default those of `GlyphSet()`; its styles are part of what decides a scene.
        vocabulary: the nouns that scenes and phrases are about; all if empty.
        emphasis: kind of phrase -> how many times as often it is tried as it is by itself.
        smallness: at 1 all sizes that a scene has room for come alike; above, small things come more often.

    Raises:
        DataError: an argument is out of range.
        GlyphStyleNotFoundError: there are no pictures on this system.
    """

    def __init__(
        self,
        *,
        side_px: int = 256,
        seed: int = 0,
        split: str = "train",
        expressions_per_scene: int = 4,
        glyphs: GlyphSet | None = None,
        vocabulary: Collection[str] = (),
        emphasis: Mapping[str, float] = MappingProxyType({}),
        smallness: float = 1.0,
    ) -> None:
        if split not in SPLITS:
            raise DataError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        if side_px < 64:
            raise DataError(f"side_px is {side_px}; at least 64, so that the smallest thing can be seen")
        if expressions_per_scene < 1:
            raise DataError(f"expressions_per_scene is {expressions_per_scene}; at least 1")
        unknown = sorted(set(vocabulary) - set(nouns()))
        if unknown:
            raise DataError(f"the vocabulary holds {', '.join(unknown[:5])}, which are no nouns of nouns.txt")
        self.vocabulary = tuple(noun for noun in nouns() if not vocabulary or noun in vocabulary)
        if len(self.vocabulary) < VOCABULARY_MIN:
            raise DataError(
                f"the vocabulary holds {len(self.vocabulary)} nouns; at least {VOCABULARY_MIN}, so that something is "
                "always absent"
            )
        self.side_px = side_px
        self.split = split
        self.expressions_per_scene = expressions_per_scene
        self.glyphs = glyphs or GlyphSet()
        unknown = sorted(set(emphasis) - set(KINDS))
        if unknown:
            raise DataError(f"emphasis names {', '.join(unknown)}; there are {', '.join(KINDS)}")
        if smallness < 1:
            raise DataError(f"smallness is {smallness}; at least 1")
        self._smallness = smallness
        self._emphasis = dict(emphasis)  # goes to data workers, so it must be one that can be pickled
        self._seed = _checked_word(seed, "seed")

    def scene(self, index: int) -> Scene:
        """Return scene number `index`, 0 to 2**32 - 1."""
        # Each number is one word of 32 bits, so that no two triples give the same stream.
        rng = np.random.default_rng([SPLITS.index(self.split), self._seed, _checked_word(index, "index")])
        size_px = _choose_size(self.side_px, rng)
        shorter_px = min(size_px)
        canvas = Canvas(random_background(size_px[0], size_px[1], rng))
        chosen = _choose_nouns(self.vocabulary, rng)
        dyes = _choose_dyes(chosen, rng)
        row = rng.random() < ROW_SHARE
        along = int(rng.random() < UPRIGHT_SHARE) if size_px[0] == size_px[1] else int(size_px[1] > size_px[0])
        shadow = tuple(rng.integers(-3, 6, 2).tolist()) if rng.random() < SHADOW_SHARE else None
        hidden_share_max = 1 - VISIBLE_SHARE_MIN if rng.random() < CROWDED_SHARE else 0.08
        room = 0.95 * self.side_px / shorter_px / len(chosen) if row else 1.2 / np.sqrt(len(chosen))
        largest = min(SIZE_MAX, room)
        alike = rng.random() < 0.4
        common_size = self._size(min(1.6 * SIZE_MIN, largest), largest, rng)
        for position, (noun, dye) in enumerate(zip(chosen, dyes, strict=True)):
            size = common_size * rng.uniform(0.85, 1.1) if alike else self._size(SIZE_MIN, largest, rng)
            style = self.glyphs.styles[int(rng.integers(len(self.glyphs.styles)))]
            for _ in range(_PLACING_TRIES):
                sprite = self._sprite(noun, style, size * shorter_px, dye, rng)
                margin_px = 0.4 * size * shorter_px
                centre_px = rng.uniform(margin_px, np.array(size_px) - margin_px)
                if row:
                    centre_px = rng.uniform(0.4, 0.6, 2) * size_px
                    centre_px[along] = (position + rng.uniform(0.4, 0.6)) / len(chosen) * size_px[along]
                x, y = centre_px.tolist()
                if canvas.put(noun, sprite, (x, y), hidden_share_max=hidden_share_max, shadow_xy_px=shadow):
                    break
                size = max(SIZE_MIN, size * 0.93)
        things = canvas.things()
        expressions = expressions_for(
            things, rng, self.expressions_per_scene, frozenset(self.vocabulary), self._emphasis
        )
        return Scene(canvas.image(), things, expressions)

    def close_up(self, index: int, side_px: int) -> tuple[npt.NDArray[np.uint8], Thing]:
        """Return picture number `index` of a single thing, (side_px, side_px, 3) uint8 RGB, and the thing.

        It fills about the whole of the picture; now and then a part of something else lies behind it.
        """
        rng = np.random.default_rng([SPLITS.index(self.split), self._seed, _checked_word(index, "index"), side_px])
        background = random_background(side_px, side_px, rng)
        canvas = Canvas(background)
        size = rng.uniform(0.6, 1.1)
        places = [(rng.uniform(0.35, 0.65, 2), size)]
        if rng.random() < 0.4:  # drawn first, so it is hidden where both are
            angle = rng.uniform(0, 2 * np.pi)
            places.insert(0, (0.5 + 0.6 * np.array([np.cos(angle), np.sin(angle)]), rng.uniform(0.4, 0.9)))
        for (x, y), share in places:
            noun = self.vocabulary[int(rng.integers(len(self.vocabulary)))]
            dye = str(rng.choice(list(DYES))) if rng.random() < 0.15 and not names_a_colour(noun) else None
            style = self.glyphs.styles[int(rng.integers(len(self.glyphs.styles)))]
            sprite = self._sprite(noun, style, share * side_px, dye, rng)
            centre_xy_px = (x * side_px, y * side_px)
            if not canvas.put(noun, sprite, centre_xy_px, hidden_share_max=0.97):
                # It would hide all of what is behind it, which then has to go.
                canvas = Canvas(background)
                canvas.put(noun, sprite, centre_xy_px)
        return canvas.image(), canvas.things()[-1]

    def _size(self, smallest: float, largest: float, rng: np.random.Generator) -> float:
        share: float = rng.random() ** self._smallness
        return smallest + (largest - smallest) * share

    def _sprite(self, noun: str, style: str, longest_px: float, dye: str | None, rng: np.random.Generator) -> Sprite:
        picture = self.glyphs.picture(noun, style, longest_px)
        matrix = jitter_matrix(rng) if dye is None else dye_matrix(dye)
        if dye is not None and rng.random() < TINTED_SHARE and (other := tinted(picture, dye)):
            picture, matrix = other, brightness_matrix(rng)
        turn_degrees = rng.normal(0, 8)
        return make_sprite(picture, longest_px, matrix=matrix, turn_degrees=turn_degrees, mirrored=rng.random() < 0.3)


def _checked_word(value: int, name: str) -> int:
    if not 0 <= value < 2**32:
        raise DataError(f"{name} is {value}; 0 to {2**32 - 1}")
    return int(value)


def _choose_size(side_px: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw width and height of a scene, the longer of `side_px` pixels."""
    if rng.random() >= OBLONG_SHARE:
        return side_px, side_px
    shorter_px = round(side_px / RATIO_MAX ** rng.random())
    return (side_px, shorter_px) if rng.random() < 0.6 else (shorter_px, side_px)


def _choose_nouns(vocabulary: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Draw what a scene holds, in the order in which it is put."""
    count = int(rng.integers(THINGS_MIN, min(THINGS_MAX, len(vocabulary) - ABSENT_MIN) + 1))
    result: list[str] = []
    if rng.random() < REPEAT_SHARE:
        noun = vocabulary[int(rng.integers(len(vocabulary)))]
        if rng.random() < ALL_ALIKE_SHARE:
            result += [noun] * int(rng.integers(2, count + 1))
        else:  # among others: "all the dogs" is not to be learned as "everything"
            count = max(3, count)
            result += [noun] * int(rng.integers(2, count, 2).max())
    pool = vocabulary
    if rng.random() < SAME_GROUP_SHARE:
        group = words_of(list(GROUPS)[int(rng.integers(len(GROUPS)))])
        pool = [noun for noun in group if noun in vocabulary] or vocabulary
    while len(result) < count:
        result.append(pool[int(rng.integers(len(pool)))])
    return [result[i] for i in rng.permutation(count)]


def _choose_dyes(chosen: Sequence[str], rng: np.random.Generator) -> list[str | None]:
    """Draw a colour for some of the things of a noun that comes several times; None leaves a thing as it is."""
    dyes: list[str | None] = [None] * len(chosen)
    if rng.random() < COLOURFUL_SHARE:
        colours = rng.permutation(list(DYES))
        if rng.random() < FEW_COLOURS_SHARE:
            colours = colours[rng.integers(3, size=len(colours))]
        for position, noun in enumerate(chosen):
            if rng.random() < (0.6 if chosen.count(noun) > 1 else 0.15) and not names_a_colour(noun):
                dyes[position] = str(colours[position])
    return dyes
