"""Phrases for a scene with what they refer to.

A phrase is made only where people would agree on its meaning.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssp_sam.data import wording
from ssp_sam.data.geometry import counted_from, furthest, holds, is_placed, most
from ssp_sam.data.names import ONE_FORM, Name, names_a_colour
from ssp_sam.data.things import COLOURS, Thing
from ssp_sam.data.view import SceneView
from ssp_sam.data.wording import pick

COLOUR_SHARE = 0.6  # a thing has a colour if so much of its surface has it
OTHER_COLOUR_SHARE = 0.15  # and has it not, if up to this share might be called so

COUNTING_SHARE = 0.75  # of phrases about order: only of three things or more

ABSENT_SHARE = 0.2
CONTRADICTED_SHARE = 0.5  # of absent relations and colours: the thing is there, but what is said of it is not true
OTHER_ABSENT_SHARE = 0.5  # of the remaining absent relations: the thing is there, but not what it is related to
SEVERAL_SHARE = 0.25  # of absent things in "A and B", relations and colours: said as of several
SAME_TARGET_SHARE = 0.25  # of phrases for what another phrase of the scene means already: the rest is drawn again

# So often is a phrase for something in the scene looked for before one for something absent takes its place.
_PRESENT_TRIES = 12

# So often is another absent thing looked for.
_ABSENT_TRIES = 100

# How often each kind is tried; where a scene has nothing to say in that kind, another is drawn.
PRESENT_WEIGHTS = {
    "noun": 2.4,
    "position": 2.4,
    "size": 1.2,
    "ordinal": 1.4,
    "relation": 1.6,
    "colour": 1.2,
    "and": 1.4,
    "all": 1.2,
    "group": 0.9,
}
ABSENT_WEIGHTS = {
    "absent-noun": 3.0,
    "absent-position": 1.6,
    "absent-size": 0.8,
    "absent-ordinal": 0.8,
    "absent-relation": 1.0,
    "absent-colour": 0.6,
    "absent-and": 0.6,
    "absent-all": 1.6,
    "absent-group": 1.0,
}
KINDS = (*PRESENT_WEIGHTS, *ABSENT_WEIGHTS)


@dataclass(frozen=True)
class Expression:
    """A phrase with its truth.

    Attributes:
        phrase: what a person would write.
        kind: one of `KINDS`.
        mask: (H, W) bool, the visible pixels of all that is meant; all False where it is not in the scene.
        beside: (H, W) bool, those of what a relation names and does not mean ("the dog left of the cat": the cat, and
            other dogs); all False for other kinds.
    """

    phrase: str
    kind: str
    mask: npt.NDArray[np.bool_]
    beside: npt.NDArray[np.bool_]


# Which things of one scene a phrase means.
Targets = frozenset[int]


class _Found(NamedTuple):
    """What a kind finds to say.

    bare: a phrase without article, said of `name`. meant: the things it refers to. named: of a relation, all things
    that it tells of, those meant among them.
    """

    bare: str
    name: Name
    meant: Sequence[Thing]
    named: Sequence[Thing] = ()


class _Said(NamedTuple):
    """A whole phrase, and `meant` and `named` as `_Found` has them."""

    phrase: str
    meant: Sequence[Thing]
    named: Sequence[Thing] = ()


def _noun(view: SceneView) -> _Found | None:
    for name, members in view.candidates(1, 1, groups=False):
        return _Found(name.singular, name, members)
    return None


def _position(view: SceneView) -> _Found | None:
    alone = view.rng.random() < 0.2
    for name, members in view.candidates(1, 1) if alone else view.candidates(2):
        for direction in view.rng.permutation(wording.DIRECTIONS):
            index = 0 if alone else furthest(direction, members, view.side_px)
            if index is None:
                continue
            placed = [is_placed(direction, member, view.size_wh_px) for member in members]
            place = placed[index] and sum(placed) == 1
            if place or not alone:
                bare = wording.positioned(name, direction, compare=not alone, place=place, rng=view.rng)
                return _Found(bare, name, [members[index]])
    return None


def _size(view: SceneView) -> _Found | None:
    for name, members in view.candidates(2):
        for extreme in view.rng.permutation(wording.EXTREMES):
            index = most(extreme, members)
            if index is not None:
                return _Found(wording.sized(name, extreme, len(members), view.rng), name, [members[index]])
    return None


def _ordinal(view: SceneView) -> _Found | None:
    # Of two, the second is the last: who mostly hears of those does not learn to count.
    for name, members in view.candidates(3 if view.rng.random() < COUNTING_SHARE else 2, 5):
        if not name.countable:
            continue
        for side in view.rng.permutation(wording.SIDES):
            order = counted_from(side, members, view.side_px)
            if order is not None:
                rank = int(view.rng.integers(len(members)))
                return _Found(wording.numbered(name, rank, side, view.rng), name, [members[order[rank]]])
    return None


class _Relation(NamedTuple):
    """A relation that things of a name may be in to the one thing of another name; held: whether each is."""

    name: Name
    members: Sequence[Thing]
    held: Sequence[bool | None]
    relation: str
    other_name: Name
    other: Thing

    def said_of(self, meant: Sequence[Thing], rng: np.random.Generator) -> _Found:
        """Word it of as many things as are meant, or of all of that name where none is."""
        bare = _related(self.name, len(meant) or len(self.members), self.relation, self.other_name, rng)
        return _Found(bare, self.name, meant, [*self.members, self.other])


def _relations(view: SceneView) -> Iterator[_Relation]:
    """Yield relations between the things of a scene at random."""
    others = [(name, members[0]) for name, members in view.candidates(1, 1, groups=False)]
    for name, members in view.candidates(1, groups=False):
        for other_name, other in others:
            if other_name.members & name.members:
                continue
            for relation in view.rng.permutation(wording.RELATIONS):
                held = [holds(relation, thing, other, view.side_px) for thing in members]
                yield _Relation(name, members, held, relation, other_name, other)


def _relation(view: SceneView) -> _Found | None:
    for found in _relations(view):
        if None not in found.held and any(found.held):
            meant = [thing for thing, holds_it in zip(found.members, found.held, strict=True) if holds_it]
            return found.said_of(meant, view.rng)
    return None


def _contradicted_relation(view: SceneView) -> _Found | None:
    """Word a relation of things that are there, which holds of none of them."""
    for found in _relations(view):
        if all(holds_it is False for holds_it in found.held):
            return found.said_of([], view.rng)
    return None


def _related(name: Name, count: int, relation: str, other: Name, rng: np.random.Generator) -> str:
    other_phrase = wording.with_the(other.singular, rng)
    return wording.related(name.form(count), relation, other_phrase, rng, several=name.is_plural(count))


def _colour(view: SceneView) -> _Found | None:
    for name, members in view.candidates(1):
        shares = np.array([thing.colour_shares for thing in members])  # (things, colours)
        shares_max = np.array([thing.colour_shares_max for thing in members])
        for colour in view.rng.permutation(len(COLOURS)):
            has_it, has_it_not = shares[:, colour] >= COLOUR_SHARE, shares_max[:, colour] <= OTHER_COLOUR_SHARE
            if has_it.any() and (has_it | has_it_not).all() and not names_a_colour(name.singular):
                meant = [members[index] for index in np.flatnonzero(has_it)]
                several = name.is_plural(len(meant))
                bare = wording.coloured(name.form(len(meant)), COLOURS[colour], view.rng, several=several)
                return _Found(bare, name, meant)
    return None


def _contradicted_colour(view: SceneView) -> _Found | None:
    """Word a colour that nothing of a name has."""
    for name, members in view.candidates(1):
        if names_a_colour(name.singular):
            continue
        shares_max = np.array([thing.colour_shares_max for thing in members])  # (things, colours)
        colours = np.flatnonzero((shares_max <= OTHER_COLOUR_SHARE).all(axis=0))
        if len(colours):
            colour = COLOURS[pick(colours.tolist(), view.rng)]
            several = name.is_plural(len(members))
            return _Found(wording.coloured(name.form(len(members)), colour, view.rng, several=several), name, [])
    return None


def _several(view: SceneView) -> _Found | None:
    for name, members in view.candidates(2, groups=False):
        return _Found(name.plural, name, members)
    return None


_OF_A_NAME: dict[str, Callable[[SceneView], _Found | None]] = {
    "noun": _noun,
    "several": _several,
    "position": _position,
    "size": _size,
    "ordinal": _ordinal,
    "relation": _relation,
    "colour": _colour,
}

_OF_SEVERAL = re.compile(r"\bof (all )?the\b")

# What the parts of "A and B" are, each as often as it stands here.
_PART_KINDS = ("noun", "noun", "noun", "several", "several", "position", "colour", "size")


def _and(view: SceneView) -> _Said | None:
    """Two or three names, each of a single thing or several and worded in its own way."""
    wanted = 3 if view.rng.random() < 0.15 else 2
    parts: list[_Found] = []
    for _ in range(8):
        found = _OF_A_NAME[pick(_PART_KINDS, view.rng)](view)
        if found is None:
            continue
        bare, name = found.bare, found.name
        # "the cat and the dog on the left" could be two things on the left, so what is said of a noun stands before it;
        # and "the highest of the dogs and the cat" the highest of them all.
        apart = all(name.members.isdisjoint(part.name.members) for part in parts)
        clear = bare.endswith((name.singular, name.plural)) and not _OF_SEVERAL.search(bare)
        if apart and clear:
            parts.append(found)
            if len(parts) == wanted:
                meant = [thing for part in parts for thing in part.meant]
                return _Said(wording.joined([part.bare for part in parts], len(meant), view.rng), meant)
    return None


def _all_of(name: Name, members: Sequence[Thing], rng: np.random.Generator) -> str:
    # One picture shows several grapes or two maracas: people would count those.
    counted = all(thing.noun not in ONE_FORM for thing in members)
    return wording.all_of(name, len(members) if counted else None, rng)


def _all(view: SceneView) -> _Said | None:
    for name, members in view.candidates(2, 5, groups=False):
        return _Said(_all_of(name, members, view.rng), members)
    return None


def _group(view: SceneView) -> _Said | None:
    groups = [(name, members) for name, members in view.candidates(1, 5) if name.is_group]
    groups.sort(key=lambda entry: len(entry[1]) == 1)  # several things first
    for name, members in groups:
        if len(members) > 1:
            return _Said(_all_of(name, members, view.rng), members)
        return _Said(wording.with_article(name.singular, name, view.rng), members)
    return None


def _present(kind: str, view: SceneView) -> _Said | None:
    if kind == "and":
        return _and(view)
    if kind == "all":
        return _all(view)
    if kind == "group":
        return _group(view)
    found = _OF_A_NAME[kind](view)
    if found is None:
        return None
    if kind == "noun":
        return _Said(wording.with_article(found.bare, found.name, view.rng), found.meant)
    return _Said(wording.with_the(found.bare, view.rng), found.meant, found.named)


def _absent(kind: str, view: SceneView) -> _Said:
    """Word a phrase of something that is not there."""
    rng = view.rng
    contradicted = {"absent-relation": _contradicted_relation, "absent-colour": _contradicted_colour}.get(kind)
    if contradicted and rng.random() < CONTRADICTED_SHARE and (found := contradicted(view)):
        return _Said(wording.with_the(found.bare, rng), [], found.named)
    name = view.absent_name(groups=kind == "absent-group")
    count, named = int(rng.integers(2, 5)), list[Thing]()
    if kind == "absent-noun":
        return _Said(wording.with_article(name.singular, name, rng), [])
    if kind in {"absent-all", "absent-group"}:
        return _Said(wording.all_of(name, count, rng), [])
    if kind == "absent-and":
        other = _absent_that(view, lambda each: not each.members & name.members)
        if other is None:  # of a small vocabulary nothing else is absent
            return _Said(wording.with_article(name.singular, name, rng), [])
        return _Said(wording.joined([_one_or_several(each, rng) for each in (name, other)], 0, rng), [])
    if kind == "absent-position":
        bare = wording.positioned(name, pick(wording.DIRECTIONS, rng), compare=True, place=True, rng=rng)
    elif kind == "absent-size":
        bare = wording.sized(name, pick(wording.EXTREMES, rng), count, rng)
    elif kind == "absent-ordinal":
        name = name if name.countable else _absent_that(view, lambda each: each.countable) or name
        bare = wording.numbered(name, int(rng.integers(count)), pick(wording.SIDES, rng), rng)
    elif kind == "absent-relation":
        # Where all things are doubtful for each other's names, nothing is said but of what is not there.
        there, named = next(iter(view.candidates(1)), (view.absent_name(), named))
        subject, other = (there, name) if rng.random() < OTHER_ABSENT_SHARE else (name, there)
        other_phrase = wording.with_the(other.singular, rng)
        several = rng.random() < SEVERAL_SHARE
        said = subject.plural if several else subject.singular
        marked = subject.is_plural(2 if several else 1)
        bare = wording.related(said, pick(wording.RELATIONS, rng), other_phrase, rng, several=marked)
    else:
        if names_a_colour(name.singular):
            name = _absent_that(view, lambda each: not names_a_colour(each.singular)) or name
        count = 2 if rng.random() < SEVERAL_SHARE else 1
        bare = wording.coloured(name.form(count), pick(COLOURS, rng), rng, several=name.is_plural(count))
    return _Said(wording.with_the(bare, rng), [], named)


def _absent_that(view: SceneView, fits: Callable[[Name], bool]) -> Name | None:
    """Return a name of nothing in the scene that fits; None where a small vocabulary has none."""
    return next((each for each in (view.absent_name() for _ in range(_ABSENT_TRIES)) if fits(each)), None)


def _one_or_several(name: Name, rng: np.random.Generator) -> str:
    return name.plural if rng.random() < SEVERAL_SHARE else name.singular


def _kinds_in_random_order(weights: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    """All kinds, the heavier the earlier: the first is drawn by weight, the second from the rest, and so on."""
    times = rng.exponential(size=len(weights)) / np.array(list(weights.values()))
    return [list(weights)[i] for i in np.argsort(times)]


def _targets_of(things: Sequence[Thing]) -> Targets:
    return frozenset(map(id, things))


def _draw_present(
    view: SceneView, meant: Collection[Targets], weights: Mapping[str, float]
) -> tuple[str, _Said] | None:
    """A random kind and what it says; None where the scene offers nothing that is new."""
    for kind in _kinds_in_random_order(weights, view.rng):
        found = _present(kind, view)
        if found is not None:
            fresh = _targets_of(found.meant) not in meant or view.rng.random() < SAME_TARGET_SHARE
            return (kind, found) if fresh else None
    return None


def expressions_for(
    scene_things: Sequence[Thing],
    rng: np.random.Generator,
    count: int,
    vocabulary: Collection[str] = (),
    emphasis: Mapping[str, float] = MappingProxyType({}),
) -> tuple[Expression, ...]:
    """Choose and word `count` different phrases for a scene and work out their truth masks.

    Args:
        scene_things: at least one thing, all of one scene.
        rng: decides everything that is random here.
        count: how many phrases.
        vocabulary: the nouns that absent things are drawn from; all if empty.
        emphasis: kind -> how many times as often it is tried as it is by itself.

    Returns:
        Exactly `count` expressions; about `ABSENT_SHARE` of them have no target.
    """
    view = SceneView(scene_things, rng, vocabulary)
    present, absent = (
        {kind: weight * emphasis.get(kind, 1.0) for kind, weight in weights.items()}
        for weights in (PRESENT_WEIGHTS, ABSENT_WEIGHTS)
    )
    result: dict[str, Expression] = {}
    meant: set[Targets] = set()
    while len(result) < count:
        tries = 0 if rng.random() < ABSENT_SHARE else _PRESENT_TRIES
        drawn = next(
            (
                found
                for _ in range(tries)
                if (found := _draw_present(view, meant, present)) and found[1].phrase not in result
            ),
            None,
        )
        if drawn is None:
            kind = _kinds_in_random_order(absent, rng)[0]
            drawn = kind, _absent(kind, view)
        kind, said = drawn
        if said.phrase not in result:
            meant.add(_targets_of(said.meant))
            nothing = np.zeros_like(scene_things[0].mask)
            mask = np.logical_or.reduce([nothing, *(thing.mask for thing in said.meant)])
            named = np.logical_or.reduce([nothing, *(thing.mask for thing in said.named)])
            phrase = wording.recapitalised(wording.framed(said.phrase, rng), rng)
            result[said.phrase] = Expression(phrase, kind, mask, named & ~mask)
    return tuple(result.values())
