"""What can be said of a scene that is not so: phrases that mean nothing in it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from benchmarks.third_scenes import truth, wording
from benchmarks.third_scenes.colours import HUES, PAINTABLE, UNPAINTED, deniable
from benchmarks.third_scenes.groups import GROUPS
from benchmarks.third_scenes.names import Name, names_of
from benchmarks.third_scenes.phrases import ABSENT, Candidate, Names
from benchmarks.third_scenes.scene import Scene

_ROUNDS = 3
_PLACES = ("left", "right", "top", "bottom", "middle", "top left", "bottom right")


def wrong_colours(rng: random.Random, scene: Scene, names: Names) -> Iterator[Candidate]:
    """Yield things that are there in a colour that none of them has."""
    for name in names.all:
        if name.noun not in PAINTABLE:
            continue
        things = truth.called(scene, name)
        colours = [colour for colour in deniable(name.noun) if truth.is_colour_absent(things, colour)]
        if colours:
            text = wording.of_colour(rng, name, rng.choice(colours), are_many=rng.random() < 0.2)
            yield Candidate(f"{ABSENT}colour", text, [], 9)


class AbsentNouns:
    """Phrases about nouns of which there is nothing; half of them are kin to what is there."""

    def __init__(self, rng: random.Random, scene: Scene, nouns: Sequence[str]) -> None:
        here = {thing.noun for thing in scene.things}
        self._rng, self._scene, self._nouns = rng, scene, nouns
        self._kin = sorted({noun for group in GROUPS.values() if group.sure & here for noun in group.sure} - here)

    def phrases(self, names: Names) -> Iterator[Candidate]:
        """Yield phrases of all kinds but groups. names: those of what is there."""
        for _ in range(_ROUNDS):
            yield from self._alone()
            yield from self._coloured()
            yield from self._related(names)

    def _alone(self) -> Iterator[Candidate]:
        rng = self._rng
        yield Candidate(f"{ABSENT}noun", wording.of_one(rng, self._name()), [])
        yield Candidate(f"{ABSENT}position", self._place(self._counted_name()), [])
        name = self._counted_name()
        word = wording.of_largest if rng.random() < 0.5 else wording.of_smallest
        yield Candidate(f"{ABSENT}size", word(rng, name, is_pair=rng.random() < 0.4), [])
        name, index, side = self._counted_name(), rng.choice([0, 1, 1, 2]), rng.choice(["left", "right"])
        yield Candidate(f"{ABSENT}ordinal", wording.of_order(rng, name, index, side), [])
        name = self._name()
        yield Candidate(f"{ABSENT}all", wording.of_all(rng, name, rng.randint(1, 4)), [])
        one, two = self._name(), self._name()
        if one.noun != two.noun:
            yield Candidate(f"{ABSENT}and", wording.of_both(rng, one, two), [])

    def _coloured(self) -> Iterator[Candidate]:
        rng = self._rng
        noun = rng.choice(sorted(PAINTABLE) if rng.random() < 0.6 else sorted(UNPAINTED))
        name = rng.choice(names_of(noun))
        if not truth.is_absent(self._scene, name):
            return
        paints = [colour for colour in HUES if colour not in ("black", "white")]
        colour = rng.choice(paints) if noun in PAINTABLE else UNPAINTED[noun]
        text = wording.of_colour(rng, name, colour, are_many=rng.random() < 0.15)
        yield Candidate(f"{ABSENT}colour", text, [], 0.8)

    def _related(self, names: Names) -> Iterator[Candidate]:
        """Yield relations of which one side is not there."""
        rng, ways = self._rng, list(wording.WAYS)
        if names.one:
            anchor, name, way = rng.choice(names.one), self._name(), rng.choice(ways)
            yield Candidate(f"{ABSENT}relation", wording.of_relation(rng, name, way, anchor), [])
        if names.all:
            here = rng.choice([name for name in names.all if name.is_counted] or [None])
            anchor, way = self._name(), rng.choice(ways)
            if here:
                yield Candidate(f"{ABSENT}relation", wording.of_relation(rng, here, way, anchor), [])

    def _place(self, name: Name) -> str:
        rng = self._rng
        place, is_pair, is_split = rng.choice(_PLACES), rng.random() < 0.4, rng.random() < 0.5
        if place == "middle":
            return wording.of_middle(rng, name)
        if " " in place:
            return wording.of_corner(rng, name, *place.split())
        return wording.of_end(rng, name, place, is_pair=is_pair, is_split=is_split)

    def _name(self) -> Name:
        rng = self._rng
        while True:
            noun = rng.choice(self._kin) if self._kin and rng.random() < 0.5 else rng.choice(self._nouns)
            name = rng.choice(names_of(noun))
            if truth.is_absent(self._scene, name):
                return name

    def _counted_name(self) -> Name:
        while True:
            name = self._name()
            if name.is_counted:
                return name
