"""How people word a reference: templates for every kind of phrase. Nothing here knows of pictures."""

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

# Words that compare things with each other, and places, which also fit a thing that is alone.
_COMPARING = {
    "left": (
        "left {}",
        "left {}",
        "leftmost {}",
        "left-most {}",
        "left-hand {}",
        "{} furthest to the left",
        "{} on the far left",
        "far left {}",
    ),
    "right": (
        "right {}",
        "right {}",
        "rightmost {}",
        "right-most {}",
        "right-hand {}",
        "{} furthest to the right",
        "{} on the far right",
        "far right {}",
    ),
    "top": ("top {}", "upper {}", "topmost {}", "highest {}", "uppermost {}", "{} nearest the top"),
    "bottom": ("bottom {}", "lower {}", "bottommost {}", "lowest {}", "{} nearest the bottom"),
    "middle": ("middle {}", "center {}", "{} in the middle", "{} in the center", "{} between the other two"),
    "top left": ("top left {}", "upper left {}"),
    "top right": ("top right {}", "upper right {}"),
    "bottom left": ("bottom left {}", "lower left {}"),
    "bottom right": ("bottom right {}", "lower right {}"),
}
_PLACING = {
    "left": ("{} on the left", "{} on the left", "{} to the left", "{} on the left side", "{} left"),
    "right": ("{} on the right", "{} on the right", "{} to the right", "{} on the right side", "{} right"),
    "top": ("{} at the top", "{} on top", "{} up top"),
    "bottom": ("{} at the bottom", "{} on the bottom", "{} down at the bottom"),
    "middle": ("{} in the middle", "{} in the center"),
    "top left": ("{} in the top left", "{} at the top left", "{} in the upper left corner"),
    "top right": ("{} in the top right", "{} at the top right", "{} in the upper right corner"),
    "bottom left": ("{} in the bottom left", "{} at the bottom left", "{} in the lower left corner"),
    "bottom right": ("{} in the bottom right", "{} at the bottom right", "{} in the lower right corner"),
}
_RELATING = {
    "left of": ("{} left of {}", "{} to the left of {}", "{} on the left of {}", "{} on the left side of {}"),
    "right of": ("{} right of {}", "{} to the right of {}", "{} on the right of {}", "{} on the right side of {}"),
    "above": ("{} above {}", "{} over {}", "{} higher than {}"),
    "below": ("{} below {}", "{} under {}", "{} beneath {}", "{} lower than {}"),
    "next to": ("{} next to {}", "{} beside {}", "{} by {}", "{} close to {}"),
}
_SIZING = {
    "largest": ("largest {}", "biggest {}", "big {}", "large {}", "huge {}"),
    "smallest": ("smallest {}", "small {}", "little {}", "tiniest {}", "littlest {}", "tiny {}"),
}
_SIZING_TWO = {"largest": ("bigger {}", "larger {}"), "smallest": ("smaller {}", "smaller {}")}
_ORDINALS = (("first", "1st"), ("second", "2nd"), ("third", "3rd"), ("fourth", "4th"), ("fifth", "5th"))
_NUMBERS = ("zero", "one", "two", "three", "four", "five")


def words() -> frozenset[str]:
    """Return every word that a phrase can hold, in lower case."""
    templates = [
        *_COMPARING.values(),
        *_PLACING.values(),
        *_RELATING.values(),
        *_SIZING.values(),
        *_SIZING_TWO.values(),
    ]
    texts = [template.replace("{}", " ") for group in templates for template in group]
    texts += [word for pair in _ORDINALS for word in pair]
    texts += [form for name in names() for form in (name.singular, name.plural)]
    texts += [*COLOURS, *_NUMBERS, *DIRECTIONS, "the a an and , both all of every each from"]
    return frozenset(word for text in texts for word in text.split())


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """Choose one of the options evenly."""
    return options[int(rng.integers(len(options)))]


def with_the(bare: str, rng: np.random.Generator) -> str:
    """Put "the" before it, mostly."""
    return f"the {bare}" if rng.random() < 0.7 else bare


def with_article(bare: str, name: Name, rng: np.random.Generator) -> str:
    """Put "the", "a" or nothing before a noun alone."""
    if rng.random() < 0.12 and name.countable:
        return f"{'an' if bare[0] in 'aeio' or bare.startswith('umb') else 'a'} {bare}"
    return with_the(bare, rng)


def positioned(name: Name, direction: str, *, compare: bool, place: bool, rng: np.random.Generator) -> str:
    """Word "left dog" (`compare`: there are others) or "dog on the left" (`place`: that is where it is)."""
    templates = _COMPARING[direction] * compare + _PLACING[direction] * place
    return pick(templates, rng).format(name.singular)


def sized(name: Name, extreme: str, count: int, rng: np.random.Generator) -> str:
    """Word "biggest dog" of `count` dogs."""
    templates = _SIZING[extreme] + _SIZING_TWO[extreme] * (count == 2)
    return pick(templates, rng).format(name.singular)


def numbered(name: Name, rank: int, side: str, rng: np.random.Generator) -> str:
    """Word "second dog from the left"; `rank` counts from 0."""
    word = _ORDINALS[rank][rng.random() < 0.15]
    end = f"from {side}" if rng.random() < 0.2 else f"from the {side}"
    return f"{word} {name.singular} {end}"


def related(subject: str, relation: str, other: str, rng: np.random.Generator) -> str:
    """Word "dog left of the cat" or "dogs left of the cat"; `subject` is bare, `other` has its article."""
    return pick(_RELATING[relation], rng).format(subject, other)


def coloured(subject: str, colour: str) -> str:
    """Word "red car" or "red cars"."""
    return f"{colour} {subject}"


def joined(bare_phrases: Sequence[str], count: int, rng: np.random.Generator) -> str:
    """Word "the dogs and the left cat", "dog, cat and car"; `count` things are meant, 0 if nobody knows."""
    article = "the " if rng.random() < 0.65 else ""
    phrases = [article + phrase for phrase in bare_phrases]
    head = "both " if len(phrases) == 2 and count <= 2 and rng.random() < 0.06 else ""
    return head + ", ".join(phrases[:-1]) + " and " + phrases[-1]


def all_of(name: Name, count: int | None, rng: np.random.Generator) -> str:
    """Word "all the dogs" and the like; `count` of them, None where nobody would count them."""
    templates = ["all the {}", "all the {}", "all {}", "the {}", "{}", "all of the {}"]
    if name.countable and count is not None:
        number = _NUMBERS[count]
        templates += [f"{number} {{}}", f"the {number} {{}}"]
        if count == 2:
            templates += ["both {}", "both of the {}"]
    if name.countable and rng.random() < 0.2:
        return f"{pick(('every', 'each'), rng)} {name.singular}"
    return pick(templates, rng).format(name.plural)


def called(noun: str, rng: np.random.Generator) -> str:
    """Word a noun alone, by itself or by another word for it, for one thing or for several."""
    name = pick(_names_of(noun), rng)
    return all_of(name, None, rng) if rng.random() < 0.3 else with_article(name.singular, name, rng)


@cache
def _names_of(noun: str) -> tuple[Name, ...]:
    return tuple(name for name in names() if name.members == {noun} and not name.is_group)


def recapitalised(phrase: str, rng: np.random.Generator) -> str:
    """Rarely begin with a capital or write all in capitals."""
    draw = rng.random()
    if draw < 0.05:
        return phrase[0].upper() + phrase[1:]
    return phrase.upper() if draw < 0.06 else phrase
