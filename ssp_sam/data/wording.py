"""How people word a reference: templates for every kind of phrase. Nothing here knows of pictures."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import numpy as np

from ssp_sam.data.names import Name, names
from ssp_sam.data.things import COLOURS

T = TypeVar("T")

SIDES = ("left", "right", "top", "bottom")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
DIRECTIONS = (*SIDES, "middle", *CORNERS)
RELATIONS = ("left of", "right of", "above", "below", "next to")
EXTREMES = ("largest", "smallest")

# "{}" is the noun and "{many}" its plural. Words that compare things with each other, and places, which also fit a
# thing that is alone.
_COMPARING = {
    "left": (
        "left {}",
        "left {}",
        "leftmost {}",
        "left-most {}",
        "left-hand {}",
        "{} furthest to the left",
        "{} farthest left",
        "{} on the far left",
        "far left {}",
        "leftmost of the {many}",
        "{} that is furthest left",
    ),
    "right": (
        "right {}",
        "right {}",
        "rightmost {}",
        "right-most {}",
        "right-hand {}",
        "{} furthest to the right",
        "{} farthest right",
        "{} on the far right",
        "far right {}",
        "rightmost of the {many}",
        "{} that is furthest right",
    ),
    "top": (
        "top {}",
        "upper {}",
        "topmost {}",
        "highest {}",
        "uppermost {}",
        "{} nearest the top",
        "{} closest to the top",
        "highest of the {many}",
        "{} highest up",
    ),
    "bottom": (
        "bottom {}",
        "lower {}",
        "bottommost {}",
        "lowest {}",
        "{} nearest the bottom",
        "{} closest to the bottom",
        "lowest of the {many}",
        "{} furthest down",
    ),
    "middle": (
        "middle {}",
        "{} in between",
        "{} between the other two",
    ),
    "top left": ("top left {}", "upper left {}", "top-left {}"),
    "top right": ("top right {}", "upper right {}", "top-right {}"),
    "bottom left": ("bottom left {}", "lower left {}", "bottom-left {}"),
    "bottom right": ("bottom right {}", "lower right {}", "bottom-right {}"),
}
_PLACING = {
    "left": (
        "{} on the left",
        "{} on the left",
        "{} to the left",
        "{} on the left side",
        "{} at the left",
        "{} that is on the left",
        "{} on the left-hand side",
        "{} left",
    ),
    "right": (
        "{} on the right",
        "{} on the right",
        "{} to the right",
        "{} on the right side",
        "{} at the right",
        "{} that is on the right",
        "{} on the right-hand side",
        "{} right",
    ),
    "top": ("{} at the top", "{} on top", "{} up top", "{} that is at the top", "{} up at the top"),
    "bottom": ("{} at the bottom", "{} on the bottom", "{} down at the bottom", "{} that is at the bottom"),
    "middle": (
        "{} in the middle",
        "{} in the center",
        "{} in the centre",
        "{} that is in the middle",
        "center {}",
        "central {}",
    ),
    **{
        f"{vertical} {side}": (
            f"{{}} in the {vertical} {side}",
            f"{{}} at the {vertical} {side}",
            f"{{}} in the {other} {side}",
            f"{{}} towards the {other} {side}",
            f"{{}} near the {vertical} {side} corner",
            f"{{}} in the {other} {side} corner",
        )
        for vertical, other in (("top", "upper"), ("bottom", "lower"))
        for side in ("left", "right")
    },
}
# "{}" is the subject, then the other thing; "{be}", "{its}" and "{it}" agree with the subject.
_RELATING = {
    **{
        f"{side} of": (
            f"{{}} {side} of {{}}",
            f"{{}} to the {side} of {{}}",
            f"{{}} on the {side} of {{}}",
            f"{{}} on the {side} side of {{}}",
            f"{{}} that {{be}} {side} of {{}}",
            f"{{}} which {{be}} to the {side} of {{}}",
            f"{{}} with {{}} on {{its}} {opposite}",
            f"{{}} with {{}} to {{its}} {opposite}",
        )
        for side, opposite in (("left", "right"), ("right", "left"))
    },
    "above": (
        "{} above {}",
        "{} over {}",
        "{} higher than {}",
        "{} up above {}",
        "{} higher up than {}",
        "{} that {be} above {}",
        "{} with {} below {it}",
        "{} with {} underneath {it}",
    ),
    "below": (
        "{} below {}",
        "{} under {}",
        "{} beneath {}",
        "{} lower than {}",
        "{} underneath {}",
        "{} further down than {}",
        "{} which {be} below {}",
        "{} with {} above {it}",
    ),
    "next to": (
        "{} next to {}",
        "{} beside {}",
        "{} by {}",
        "{} close to {}",
        "{} right next to {}",
        "{} right beside {}",
        "{} that {be} next to {}",
        "{} which {be} beside {}",
    ),
}
_SIZING = {
    "largest": (
        "largest {}",
        "biggest {}",
        "big {}",
        "large {}",
        "huge {}",
        "{} that is biggest",
        "{} that looks largest",
        "biggest of the {many}",
        "largest of all the {many}",
    ),
    "smallest": (
        "smallest {}",
        "small {}",
        "little {}",
        "tiniest {}",
        "littlest {}",
        "tiny {}",
        "{} that is smallest",
        "{} that looks tiniest",
        "smallest of the {many}",
        "tiniest of all the {many}",
    ),
}
_SIZING_TWO = {
    "largest": ("bigger {}", "larger {}", "bigger of the two {many}", "{} that is larger"),
    "smallest": ("smaller {}", "smaller {}", "smaller of the two {many}", "{} that is smaller"),
}
_ORDINALS = (("first", "1st"), ("second", "2nd"), ("third", "3rd"), ("fourth", "4th"), ("fifth", "5th"))
# "{rank}" is "second", "{from}" is "from the left".
_NUMBERING = (
    *("{rank} {} {from}",) * 6,
    "{} that is {rank} {from}",
    "{rank} of the {many} {from}",
    "{rank} {} counting {from}",
    "{rank} {} counted {from}",
    "{rank} {} starting {from}",
)
_COLOURING = (*("{colour} {}",) * 6, "{} that {be} {colour}", "{} coloured {colour}", "{colour} coloured {}")
_JOINING = (*(" and ",) * 8, " as well as ", " along with ", " together with ", " plus ", " and also ", " & ")
_NUMBERS = ("zero", "one", "two", "three", "four", "five")
# Around any phrase: what people say to somebody who is to do it, and where they say it is.
_ASKING = ("find {}", "show me {}", "segment {}", "select {}", "mark {}", "where is {}", "please find {}", "i mean {}")
_LOCATING = ("{} in the picture", "{} in this image", "{} in the photo", "{} here", "{} you can see", "{} shown here")
LAST_MARKS = (".", "?")
_PLURAL_MARKS = {"be": "are", "its": "their", "it": "them"}
_SINGULAR_MARKS = {"be": "is", "its": "its", "it": "it"}


def words() -> frozenset[str]:
    """Return every word that a phrase can hold, in lower case."""
    templates = [
        *_COMPARING.values(),
        *_PLACING.values(),
        *_RELATING.values(),
        *_SIZING.values(),
        *_SIZING_TWO.values(),
        *_ORDINALS,
        _NUMBERING,
        _COLOURING,
        _JOINING,
        _ASKING,
        _LOCATING,
        tuple(_PLURAL_MARKS.values()),
        tuple(_SINGULAR_MARKS.values()),
    ]
    texts = [re.sub(r"{\w*}", " ", template) for group in templates for template in group]
    texts += [form for name in names() for form in (name.singular, name.plural)]
    texts += [*COLOURS, *_NUMBERS, *DIRECTIONS, "gray the a an and , both all of every each any one single only from"]
    return frozenset(word for text in texts for word in text.split())


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """Choose one of the options evenly."""
    return options[int(rng.integers(len(options)))]


def with_the(bare: str, rng: np.random.Generator) -> str:
    """Put "the" before it, mostly."""
    return f"the {bare}" if rng.random() < 0.7 else bare


def with_article(bare: str, name: Name, rng: np.random.Generator) -> str:
    """Put "the", "a" or nothing before a noun alone, or "the only"."""
    draw = rng.random()
    if draw < 0.12 and name.countable:
        vowel = (bare[0] in "aeio" and not bare.startswith("ewe")) or bare.startswith("umb")
        return f"{'an' if vowel else 'a'} {bare}"
    if draw < 0.16:
        return f"the only {bare}"
    if draw < 0.18 and name.countable:
        return f"a single {bare}"
    return with_the(bare, rng)


def _fitting(templates: Sequence[str], name: Name) -> list[str]:
    """Return those that can be said of a name: "smallest of the food" cannot, nor "gloves that is smallest"."""
    clumsy = {"{many}"} if not name.countable else set()
    if name.is_plural(1):
        clumsy |= {" that is ", " that looks "}
    return [template for template in templates if not any(part in template for part in clumsy)]


def positioned(name: Name, direction: str, *, compare: bool, place: bool, rng: np.random.Generator) -> str:
    """Word "left dog" (`compare`: there are others) or "dog on the left" (`place`: that is where it is)."""
    templates = _COMPARING[direction] * compare + _PLACING[direction] * place
    return pick(_fitting(templates, name), rng).format(name.singular, many=name.plural)


def sized(name: Name, extreme: str, count: int, rng: np.random.Generator) -> str:
    """Word "biggest dog" of `count` dogs."""
    templates = _SIZING[extreme] + _SIZING_TWO[extreme] * (count == 2)
    return pick(_fitting(templates, name), rng).format(name.singular, many=name.plural)


def numbered(name: Name, rank: int, side: str, rng: np.random.Generator) -> str:
    """Word "second dog from the left"; `rank` counts from 0."""
    word = _ORDINALS[rank][rng.random() < 0.15]
    end = f"from {side}" if rng.random() < 0.2 else f"from the {side}"
    return pick(_NUMBERING, rng).format(name.singular, many=name.plural, rank=word, **{"from": end})


def related(subject: str, relation: str, other: str, rng: np.random.Generator, *, several: bool = False) -> str:
    """Word "dog left of the cat" or "dogs left of the cat" (`several`); `subject` is bare, `other` has its article."""
    marks = _PLURAL_MARKS if several else _SINGULAR_MARKS
    return pick(_RELATING[relation], rng).format(subject, other, **marks)


def coloured(subject: str, colour: str, rng: np.random.Generator, *, several: bool = False) -> str:
    """Word "red car", or "red cars" (`several`)."""
    said = "gray" if colour == "grey" and rng.random() < 0.5 else colour
    marks = _PLURAL_MARKS if several else _SINGULAR_MARKS
    return pick(_COLOURING, rng).format(subject, colour=said, **marks)


def joined(bare_phrases: Sequence[str], count: int, rng: np.random.Generator) -> str:
    """Word "the dogs and the left cat", "dog, cat and car"; `count` things are meant, 0 if nobody knows."""
    article = "the " if rng.random() < 0.65 else ""
    phrases = [article + phrase for phrase in bare_phrases]
    if len(phrases) == 2 and count <= 2 and rng.random() < 0.12:
        return "both " + " and ".join(phrases)
    if len(phrases) > 2 and rng.random() < 0.3:
        return " and ".join(phrases)
    return ", ".join(phrases[:-1]) + pick(_JOINING, rng) + phrases[-1]


def all_of(name: Name, count: int | None, rng: np.random.Generator) -> str:
    """Word "all the dogs" and the like; `count` of them, None where nobody would count them."""
    templates = ["all the {}", "all the {}", "all {}", "the {}", "the {}", "{}", "{}", "all of the {}", "any {}"]
    if name.countable and count is not None:
        number = _NUMBERS[count]
        templates += [f"{number} {{}}", f"the {number} {{}}"]
        if count > 2:
            templates += [f"all {number} {{}}", f"all {number} of the {{}}"]
        if count == 2:
            templates += ["both {}", "both of the {}"]
    if name.countable and rng.random() < 0.2:
        one_by_one = ("each {}", "every {}", "every single {}", "every one of the {many}", "each of the {many}")
        return pick(one_by_one, rng).format(name.singular, many=name.plural)
    return pick(templates, rng).format(name.plural)


def called(noun: str, rng: np.random.Generator) -> str:
    """Word a noun alone, by itself or by another word for it, for one thing or for several."""
    name = pick(_names_of(noun), rng)
    return all_of(name, None, rng) if rng.random() < 0.3 else with_article(name.singular, name, rng)


@cache
def _names_of(noun: str) -> tuple[Name, ...]:
    return tuple(name for name in names() if name.members == {noun} and not name.is_group)


def framed(phrase: str, rng: np.random.Generator) -> str:
    """Rarely ask for it ("show me the dog"), say that it is in the picture, or end with a mark."""
    draw = rng.random()
    if draw < 0.05:
        phrase = pick(_ASKING, rng).format(phrase)
    elif draw < 0.1:
        phrase = pick(_LOCATING, rng).format(phrase)
    return phrase + pick(LAST_MARKS, rng) if rng.random() < 0.03 else phrase


def recapitalised(phrase: str, rng: np.random.Generator) -> str:
    """Rarely begin with a capital or write all in capitals."""
    draw = rng.random()
    if draw < 0.05:
        return phrase[0].upper() + phrase[1:]
    return phrase.upper() if draw < 0.06 else phrase
