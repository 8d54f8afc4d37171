"""Names: what a noun may be called, and how that is written for one thing and for several."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from benchmarks.third_scenes.words import ALSO_COVERED, ALWAYS_PLURAL, COUNTED, PLURALS, UNCOUNTED

_MEASURES = {"pair": "pairs", "bunch": "bunches", "stack": "stacks", "box": "boxes", "head": "heads"}


@dataclass(frozen=True)
class Name:
    """A name of a noun.

    text: for one thing. many: for several. form: "plural" if it is plural even for one thing. covers: the nouns that it
    could be taken to mean, its own among them.
    """

    text: str
    many: str
    noun: str
    form: Literal["counted", "uncounted", "plural"]
    covers: frozenset[str]

    @property
    def is_counted(self) -> bool:
        """Whether it goes with "a" and "every"."""
        return self.form == "counted"


@cache
def names_of(noun: str) -> tuple[Name, ...]:
    """Return all names of a noun."""
    counted = [Name(text, plural(text), noun, "counted", _covers(text, noun)) for text in COUNTED.get(noun, (noun,))]
    uncounted = [Name(text, text, noun, "uncounted", _covers(text, noun)) for text in UNCOUNTED.get(noun, ())]
    plurals = [Name(text, text, noun, "plural", _covers(text, noun)) for text in ALWAYS_PLURAL.get(noun, ())]
    return (*counted, *uncounted, *plurals)


def plural(text: str) -> str:
    """Return the plural of a name that can be counted."""
    if text in PLURALS:
        return PLURALS[text]
    measure, of, content = text.partition(" of ")
    if of and measure in _MEASURES:
        return _MEASURES[measure] + of + content
    if text.endswith("y") and text[-2] not in "aeiou":
        return text[:-1] + "ies"
    if text.endswith(("s", "x", "ch", "sh", "z")) or text in ("potato", "tomato"):
        return text + "es"
    return text + "s"


def with_article(text: str) -> str:
    """Put "a" or "an" before a name."""
    is_vowel_heard = text[0] in "aeiou" and not text.startswith(("ewe", "uni", "eu"))
    return f"{'an' if is_vowel_heard else 'a'} {text}"


def _covers(text: str, noun: str) -> frozenset[str]:
    return ALSO_COVERED.get(text, frozenset()) | {noun}
