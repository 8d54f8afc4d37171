"""Which phrases are used of a scene, so that over all scenes the kinds have their shares."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.third_scenes.absent import AbsentNouns, wrong_colours
from benchmarks.third_scenes.names import names_of
from benchmarks.third_scenes.phrases import (
    ABSENT,
    Candidate,
    about_groups,
    about_names,
    about_relations,
    about_several,
    choose_names,
)
from benchmarks.third_scenes.scene import Scene

_SHARES: Mapping[str, float] = {
    "noun": 0.15,
    "position": 0.14,
    "size": 0.08,
    "ordinal": 0.1,
    "relation": 0.17,
    "colour": 0.1,
    "and": 0.08,
    "all": 0.1,
    "group": 0.08,
}
_ABSENT_SHARE = 0.205
_LEAST_WEIGHT = 0.004
_HEAD_START = 20  # phrases that are taken to be there already, so that the first are not all of one kind
_MOST_OF_A_KIND = {"relation": 2, "position": 2}  # in a scene; of others one


class Phrase(NamedTuple):
    """A phrase with its answer. targets: indices of the things that it means, none for what is not there."""

    kind: str
    text: str
    targets: frozenset[int]


class PhraseChooser:
    """Chooses phrases for one scene after the other. nouns: of all scenes."""

    def __init__(self, rng: random.Random, nouns: Sequence[str]) -> None:
        self._rng, self._nouns = rng, nouns
        self._counts: Counter[str] = Counter()

    def choose(self, scene: Scene) -> list[Phrase]:
        """Return three to five phrases about a scene, seldom fewer or none."""
        rng = self._rng
        by_kind = self._candidates(scene)
        (wanted,) = rng.choices([3, 4, 5], [1, 3, 1])
        chosen: list[Phrase] = []
        for _ in range(wanted + 4):
            if len(chosen) == wanted:
                break
            prefix = ABSENT if rng.random() < _ABSENT_SHARE else ""
            used = Counter(phrase.kind for phrase in chosen)
            kinds = [
                kind
                for kind in _SHARES
                if by_kind.get(prefix + kind) and used[prefix + kind] < _MOST_OF_A_KIND.get(kind, 1)
            ]
            if not kinds:
                continue
            (kind,) = rng.choices(kinds, self._weights(prefix, kinds))
            options = by_kind[prefix + kind]
            (candidate,) = rng.choices(options, [option.weight for option in options])
            if all(candidate.text != phrase.text for phrase in chosen):
                targets = frozenset(scene.things.index(thing) for thing in candidate.things)
                chosen.append(Phrase(candidate.kind, candidate.text, targets))
                self._counts[candidate.kind] += 1
        return chosen

    def _candidates(self, scene: Scene) -> dict[str, list[Candidate]]:
        rng = self._rng
        for noun in self._nouns:  # to no end but that as many numbers are drawn as when the figure was taken
            rng.choice(names_of(noun))
        names = choose_names(rng, scene)
        by_kind: dict[str, list[Candidate]] = {}
        for source in (
            about_names(rng, scene, names),
            wrong_colours(rng, scene, names),
            about_relations(rng, scene, names),
            about_several(rng, scene, names),
            about_groups(rng, scene),
            AbsentNouns(rng, scene, self._nouns).phrases(names),
        ):
            for candidate in source:
                by_kind.setdefault(candidate.kind, []).append(candidate)
        return by_kind

    def _weights(self, prefix: str, kinds: Sequence[str]) -> list[float]:
        """Return how far each kind is behind its share, among what is there or what is absent."""
        total = sum(count for kind, count in self._counts.items() if kind.startswith(ABSENT) == bool(prefix))
        behind = [(total + _HEAD_START) * _SHARES[kind] - self._counts[prefix + kind] for kind in kinds]
        return [max(_LEAST_WEIGHT, value) for value in behind]
