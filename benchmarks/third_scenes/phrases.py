"""What can be said of a scene: phrases that have one answer."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from benchmarks.third_scenes import truth, wording
from benchmarks.third_scenes.colours import PAINTABLE, in_naming_order
from benchmarks.third_scenes.groups import GROUPS, NEED_TWO_NOUNS
from benchmarks.third_scenes.names import Name, names_of
from benchmarks.third_scenes.scene import Axis, Scene, Thing, X, Y

ABSENT = "absent-"
"""Before a kind, where nothing is meant."""

_SIDES: Sequence[tuple[Axis, str, str]] = ((X, "left", "right"), (Y, "top", "bottom"))
_MOST_COUNTED = 5


class Candidate(NamedTuple):
    """A phrase that could be chosen. weight: how readily, among those of its kind."""

    kind: str
    text: str
    things: Sequence[Thing]
    weight: float = 1.0


class Names(NamedTuple):
    """The names that are used of a scene. one: of a single thing each; many: of several."""

    one: Sequence[Name]
    many: Sequence[Name]

    @property
    def all(self) -> list[Name]:
        """Both, the single things first."""
        return [*self.one, *self.many]


def choose_names(rng: random.Random, scene: Scene) -> Names:
    """Return one or two names of each noun that is there, without those that could mean other things too."""
    one: list[Name] = []
    many: list[Name] = []
    for noun in sorted({thing.noun for thing in scene.things}):
        usable = [name for name in names_of(noun) if truth.called(scene, name)]
        for name in rng.sample(usable, min(2, len(usable))):
            (one if len(truth.called(scene, name)) == 1 else many).append(name)
    return Names(one, many)


def about_names(rng: random.Random, scene: Scene, names: Names) -> Iterator[Candidate]:
    """Yield what tells things of a noun by place, order, size or colour, or needs no more than the noun."""
    for name in names.one:
        yield Candidate("noun", wording.of_one(rng, name), truth.called(scene, name))
    for name in names.many:
        things = truth.called(scene, name)
        yield Candidate("all", wording.of_all(rng, name, len(things)), things)
        if name.is_counted:
            yield from _by_place(rng, scene, name, things)
            yield from _by_corner(rng, scene, name, things)
            yield from _by_size(rng, name, things)
            yield from _by_colour(rng, name, things)
    for name in names.one:
        (thing,) = truth.called(scene, name)
        if thing.colour:
            yield Candidate("colour", wording.of_colour(rng, name, thing.colour, are_many=False), [thing], 0.8)


def about_relations(rng: random.Random, scene: Scene, names: Names) -> Iterator[Candidate]:
    """Yield how things stand to a thing that its noun or its colour tells; and how none stands."""
    for name in names.all:
        things = truth.called(scene, name)
        if len(things) > 1 and not name.is_counted:
            continue
        for anchor_name in names.one:
            if anchor_name.noun != name.noun:
                yield from _by_relation(rng, scene, (name, things), anchor_name)
        for anchor_name in names.many:
            if anchor_name.noun != name.noun and anchor_name.is_counted and anchor_name.noun in PAINTABLE:
                yield from _by_relation_to_coloured(rng, scene, (name, things), anchor_name)


def about_several(rng: random.Random, scene: Scene, names: Names) -> Iterator[Candidate]:
    """Yield things of two or three nouns together."""
    for one, two in combinations(rng.sample(names.one, len(names.one)), 2):
        if one.noun != two.noun:
            things = truth.called(scene, one) + truth.called(scene, two)
            yield Candidate("and", wording.of_both(rng, one, two), things)
    first_names: Mapping[str, Name] = {name.noun: name for name in reversed(names.one)}
    if len(first_names) >= 3:
        three = [first_names[noun] for noun in rng.sample(sorted(first_names), 3)]
        things = [thing for name in three for thing in truth.called(scene, name)]
        yield Candidate("and", wording.of_three(rng, three), things)
    for many in names.many:
        for one in names.one:
            if many.noun != one.noun:
                things = truth.called(scene, many) + truth.called(scene, one)
                yield Candidate("and", wording.of_all_and_one(rng, many, one), things, 0.4)


def about_groups(rng: random.Random, scene: Scene) -> Iterator[Candidate]:
    """Yield all things of a group, and groups of which there is nothing."""
    here = {thing.noun for thing in scene.things}
    for key, group in GROUPS.items():
        if here & group.doubtful:
            continue
        members = [thing for thing in scene.things if thing.noun in group.sure]
        name = rng.choice(group.names)
        is_mixed = len({thing.noun for thing in members}) > 1
        if not members:
            yield Candidate(f"{ABSENT}group", wording.of_group(rng, name), [])
        elif len(members) > 1 and (is_mixed or key not in NEED_TWO_NOUNS):
            weight = (2 if is_mixed else 0.7) * (1 if len(members) < len(scene.things) else 0.5)
            yield Candidate("group", wording.of_group(rng, name), members, weight)


def _by_place(rng: random.Random, scene: Scene, name: Name, things: Sequence[Thing]) -> Iterator[Candidate]:
    """Yield the ones nearest to the sides, the middle one, and orders from left and right."""
    is_pair = len(things) == 2
    for axis, low, high in _SIDES:
        order = sorted(things, key=lambda thing: thing.centre_px(axis))
        first, last = truth.first_along(scene, things, axis), truth.last_along(scene, things, axis)
        if first:
            is_split = truth.is_split(scene, order[0], order[1], axis, is_low_meant=True)
            text = wording.of_end(rng, name, low, is_pair=is_pair, is_split=is_split)
            yield Candidate("position", text, [first])
        if last:
            is_split = truth.is_split(scene, order[-2], order[-1], axis, is_low_meant=False)
            text = wording.of_end(rng, name, high, is_pair=is_pair, is_split=is_split)
            yield Candidate("position", text, [last])
        clear_order = truth.ranked(scene, things, axis)
        if not clear_order:
            continue
        middle = truth.middle_of_three(clear_order, axis)
        if middle:
            yield Candidate("position", wording.of_middle(rng, name), [middle], 1.5)
        if axis == X and len(things) <= _MOST_COUNTED:
            yield from _by_order(rng, name, clear_order)


def _by_order(rng: random.Random, name: Name, order: Sequence[Thing]) -> Iterator[Candidate]:
    """Yield the first three from the left and from the right; of two only the second, and not always."""
    for index in range(min(3, len(order))):
        if len(order) == 2 and (index == 0 or rng.random() < 0.5):
            continue
        for side, thing in (("left", order[index]), ("right", order[-1 - index])):
            yield Candidate("ordinal", wording.of_order(rng, name, index, side), [thing], 0.5 if index == 0 else 1.5)


def _by_corner(rng: random.Random, scene: Scene, name: Name, things: Sequence[Thing]) -> Iterator[Candidate]:
    for row in ("top", "bottom"):
        for column in ("left", "right"):
            thing = truth.in_corner(scene, things, row, column)
            if thing:
                yield Candidate("position", wording.of_corner(rng, name, row, column), [thing], 0.6)


def _by_size(rng: random.Random, name: Name, things: Sequence[Thing]) -> Iterator[Candidate]:
    is_pair = len(things) == 2
    small, large = truth.smallest(things), truth.largest(things)
    if small:
        yield Candidate("size", wording.of_smallest(rng, name, is_pair=is_pair), [small])
    if large:
        yield Candidate("size", wording.of_largest(rng, name, is_pair=is_pair), [large])


def _by_colour(rng: random.Random, name: Name, things: Sequence[Thing]) -> Iterator[Candidate]:
    """Yield those of a colour, where not all have it."""
    if name.noun not in PAINTABLE:
        return
    for colour in in_naming_order(thing.colour for thing in things if thing.colour):
        same = [thing for thing in things if thing.colour == colour]
        if len(same) < len(things) and truth.is_colour_clear(things, colour):
            are_many = len(same) > 1
            yield Candidate(
                "colour", wording.of_colour(rng, name, colour, are_many=are_many), same, 9 if are_many else 3
            )


def _by_relation(
    rng: random.Random, scene: Scene, called: tuple[Name, Sequence[Thing]], anchor_name: Name
) -> Iterator[Candidate]:
    """Yield the one that stands so to the only thing of its noun, or that none does."""
    name, things = called
    (anchor,) = truth.called(scene, anchor_name)
    for way in wording.WAYS:
        thing = truth.only_standing(scene, way, things, anchor)
        if thing:
            text = wording.of_relation(rng, name, way, anchor_name)
            yield Candidate("relation", text, [thing], 3 if len(things) > 1 else 1)
        if truth.none_stands(scene, way, things, anchor):
            yield Candidate(f"{ABSENT}relation", wording.of_relation(rng, name, way, anchor_name), [], 1.2)


def _by_relation_to_coloured(
    rng: random.Random, scene: Scene, called: tuple[Name, Sequence[Thing]], anchor_name: Name
) -> Iterator[Candidate]:
    """Yield the one that stands so to that of several things which its colour tells."""
    name, things = called
    for anchor, colour in truth.told_by_colour(truth.called(scene, anchor_name)):
        for way in wording.WAYS:
            thing = truth.only_standing(scene, way, things, anchor)
            if thing:
                text = wording.of_relation(rng, name, way, anchor_name, colour)
                yield Candidate("relation", text, [thing], 0.6)
