"""What is said of a scene: phrases of all kinds that have one answer, and phrases about what is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from benchmarks.other_scenes.relations import middle_of_three, ranked, stands
from benchmarks.other_scenes.scene import Axis, Scene
from benchmarks.other_scenes.words import (
    GROUPS,
    OF_MANY,
    OF_TWO,
    ORDINALS,
    SINGLE,
    WAYS,
    clash,
    counted,
    ways_to_name,
    ways_to_name_all,
    ways_to_name_group,
    ways_to_place,
)

T = TypeVar("T")

_AXES: Mapping[str, Axis] = {"left": "x", "right": "x", "top": "y", "bottom": "y"}
_LEAST_SIZE_RATIO = 1.3  # of the largest to the next, or of the next to the smallest
_ABSENT = "absent"
_WEIGHTS = {
    "noun": 1.2,
    "position": 1.5,
    "size": 2.2,
    "order": 1.1,
    "relation": 1.5,
    "colour": 2.5,
    "and": 0.8,
    "all": 1.1,
    "group": 2.2,
}
"""How much each kind is wanted; a kind that a scene has already is wanted less."""


class Phrase(NamedTuple):
    """A phrase with its answer. targets: indices of the things that it means, none for what is not there."""

    kind: str
    text: str
    targets: frozenset[int]


def choose_phrases(rng: np.random.Generator, scene: Scene, nouns: Sequence[str]) -> list[Phrase]:
    """Return three to five phrases about a scene, seldom fewer. nouns: of all scenes."""
    pool = present_phrases(rng, scene)
    wanted = int(rng.choice([3, 4, 5], p=[0.25, 0.5, 0.25]))
    chosen: list[Phrase] = []
    for _ in range(40):
        if len(chosen) == wanted:
            break
        if rng.random() < 0.2:
            if sum(phrase.kind == _ABSENT for phrase in chosen) == 2:
                continue
            new = absent_phrase(rng, scene, nouns)
        else:
            kinds = sorted({phrase.kind for phrase in pool})
            weights = np.array([_WEIGHTS[kind] / (1 + 2 * sum(p.kind == kind for p in chosen)) for kind in kinds])
            kind = str(rng.choice(kinds, p=weights / weights.sum()))
            new = _pick(rng, [phrase for phrase in pool if phrase.kind == kind])
        if new and all(new.text != phrase.text for phrase in chosen):
            chosen.append(new)
    return chosen


def present_phrases(rng: np.random.Generator, scene: Scene) -> list[Phrase]:
    """Return phrases about what is there: all that can be said, each in one wording or a few."""
    by_noun: dict[str, list[int]] = {}
    for i, thing in enumerate(scene.things):
        by_noun.setdefault(thing.noun, []).append(i)
    found: list[Phrase] = []
    for noun, ids in by_noun.items():
        found += _by_noun(rng, noun, ids)
        if len(ids) > 1:
            found += _by_place(rng, scene, noun, ids)
            found += _by_size(rng, scene, noun, ids)
        found += _by_colour(rng, scene, noun, ids)
        for other, others in by_noun.items():
            if other == noun:
                continue
            if len(others) == 1:  # "the zebra left of the dog" wants just one dog
                found += _by_relation(rng, scene, (noun, ids), (other, others[0]))
            found += _with_another(rng, (noun, ids), (other, others))
    found += _by_group(rng, scene)
    return found


def absent_phrase(rng: np.random.Generator, scene: Scene, nouns: Sequence[str]) -> Phrase | None:
    """Return a phrase about what is not there, or None if the one that was tried would not be fair."""
    here = sorted({thing.noun for thing in scene.things})
    form = _pick(rng, ["noun", "noun", "position", "relation", "relation", "all", "group"])
    if form == "group":
        text = _absent_group(rng, here)
    else:
        away = [noun for noun in nouns if not any(clash(noun, other) for other in here)]
        kin = [
            noun
            for noun in away
            if any(noun in group.sure and other in group.sure for group in GROUPS.values() for other in here)
        ]
        noun = _pick(rng, kin if kin and _toss(rng) else away)
        if noun in SINGLE and form in ("all", "position"):
            form = "noun"
        text = _absent_relation(rng, scene, here, noun) if form == "relation" else _absent_noun(rng, form, noun)
    return Phrase(_ABSENT, text, frozenset()) if text else None


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _toss(rng: np.random.Generator) -> bool:
    return _pick(rng, [True, False])


def _the(rng: np.random.Generator, of: int) -> str:
    """Return the article or, once in so many times, nothing."""
    return _pick(rng, ["the "] * (of - 1) + [""])


def _by_noun(rng: np.random.Generator, noun: str, ids: Sequence[int]) -> Iterator[Phrase]:
    if len(ids) == 1:
        yield Phrase("noun", _pick(rng, ways_to_name(noun)), frozenset(ids))
    else:
        yield Phrase("all", _pick(rng, ways_to_name_all(noun, len(ids))), frozenset(ids))


def _by_place(rng: np.random.Generator, scene: Scene, noun: str, ids: Sequence[int]) -> Iterator[Phrase]:
    """Yield positions, and orders counted from each side, of several things of a noun."""
    by_x, by_y = ranked(scene, ids, "x"), ranked(scene, ids, "y")
    for order, low, high in ((by_x, "left", "right"), (by_y, "top", "bottom")):
        if order:
            yield from _from_side(rng, scene, noun, order, low)
            yield from _from_side(rng, scene, noun, order[::-1], high)
    middle = middle_of_three(scene, ids, by_x, by_y)
    if middle is not None:
        words = [f"the middle {noun}", f"the {noun} in the middle", f"middle {noun}"]
        yield Phrase("position", _pick(rng, words), frozenset([middle]))


def _from_side(rng: np.random.Generator, scene: Scene, noun: str, order: Sequence[int], side: str) -> Iterator[Phrase]:
    """Yield what is said of things that stand in this order from a side of the picture."""
    axis = _AXES[side]
    is_pair = len(order) == 2
    options = ways_to_place((OF_TWO if is_pair else OF_MANY)[side], noun)
    if is_pair:
        low_px, high_px = sorted(scene.things[i].centre_px(axis) for i in order)
        if not low_px < 0.5 * scene.side_px(axis) < high_px:  # "on the left" would not do: both are in one half
            options = [option for option in options if " on the " not in option and " at the " not in option]
    yield Phrase("position", _pick(rng, options).format(noun), frozenset([order[0]]))
    # Of two, only the first is counted, and not always: "second" would be a strange word for the other.
    for ordinal, index in zip(ORDINALS, order[:1] if is_pair else order, strict=False):
        if not is_pair or _toss(rng):
            yield Phrase("order", f"{_the(rng, 2)}{ordinal} {noun} from the {side}", frozenset([index]))


def _by_size(rng: np.random.Generator, scene: Scene, noun: str, ids: Sequence[int]) -> Iterator[Phrase]:
    sizes = sorted(ids, key=lambda i: scene.things[i].size_px)
    for words, most, next_most in (
        (("smaller", "smallest", "littlest"), sizes[0], sizes[1]),
        (("bigger", "biggest", "largest"), sizes[-1], sizes[-2]),
    ):
        ratio = scene.things[most].size_px / scene.things[next_most].size_px
        if max(ratio, 1 / ratio) >= _LEAST_SIZE_RATIO:
            word = words[0] if len(ids) == 2 and _toss(rng) else _pick(rng, words[1:])
            yield Phrase("size", f"{_the(rng, 3)}{word} {noun}", frozenset([most]))


def _by_colour(rng: np.random.Generator, scene: Scene, noun: str, ids: Sequence[int]) -> Iterator[Phrase]:
    for colour in sorted({colour for i in ids if (colour := scene.things[i].colour)}):
        same = [i for i in ids if scene.things[i].colour == colour]
        yield Phrase("colour", f"{_the(rng, 2)}{colour} {counted(noun, len(same))}", frozenset(same))


def _by_relation(
    rng: np.random.Generator, scene: Scene, one: tuple[str, Sequence[int]], other: tuple[str, int]
) -> Iterator[Phrase]:
    """Yield how the things of a noun stand to the only one of another noun."""
    (noun, ids), (anchor_noun, anchor) = one, other
    for way, words in WAYS.items():
        truths = {i: stands(way, scene.things[i], scene.things[anchor], scene.short_side_px) for i in ids}
        targets = [i for i in ids if truths[i]]
        if not targets or None in truths.values():
            continue
        # In more wordings where the relation is needed to know which is meant, and for what is rarer.
        for _ in range(1 + 2 * (len(targets) < len(ids)) + 2 * (way == "beside")):
            text = f"{_the(rng, 3)}{counted(noun, len(targets))} {_pick(rng, words)} the {anchor_noun}"
            yield Phrase("relation", text, frozenset(targets))


def _with_another(
    rng: np.random.Generator, one: tuple[str, Sequence[int]], other: tuple[str, Sequence[int]]
) -> Iterator[Phrase]:
    """Yield all things of two nouns."""
    first, second = (counted(noun, len(ids)) for noun, ids in (one, other))
    words = [f"the {first} and the {second}", f"{first} and {second}", f"the {first} and {second}"]
    yield Phrase("and", _pick(rng, words), frozenset([*one[1], *other[1]]))


def _by_group(rng: np.random.Generator, scene: Scene) -> Iterator[Phrase]:
    for name, group in GROUPS.items():
        ids = [i for i, thing in enumerate(scene.things) if thing.noun in group.sure]
        is_mixed = len({scene.things[i].noun for i in ids}) > 1
        if is_mixed and not any(thing.noun in group.doubtful for thing in scene.things):
            yield Phrase("group", _pick(rng, ways_to_name_group(name)), frozenset(ids))


def _absent_group(rng: np.random.Generator, here: Sequence[str]) -> str | None:
    names = [name for name, group in GROUPS.items() if not (group.sure | group.doubtful).intersection(here)]
    return _pick(rng, ways_to_name_group(_pick(rng, names))) if names else None


def _absent_noun(rng: np.random.Generator, form: str, noun: str) -> str:
    if form == "all":
        return _pick(rng, ways_to_name_all(noun, None))
    if form == "position":
        templates = _pick(rng, list((OF_TWO if _toss(rng) else OF_MANY).values()))
        return _pick(rng, ways_to_place(templates, noun)).format(noun)
    return _pick(rng, ways_to_name(noun))


def _absent_relation(rng: np.random.Generator, scene: Scene, here: Sequence[str], noun: str) -> str | None:
    """Return a relation of which one side is not there."""
    one, two = (noun, _pick(rng, here)) if _toss(rng) else (_pick(rng, here), noun)
    if sum(thing.noun == two for thing in scene.things) > 1:
        return None
    return f"the {one} {_pick(rng, _pick(rng, list(WAYS.values())))} the {two}"
