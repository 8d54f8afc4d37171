"""Which things a scene has, and in which colours."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.third_scenes.colours import (
    BLACK_OR_WHITE,
    DOUBTFUL,
    HUES,
    NEVER_GREEN,
    PAINTABLE,
    UNPAINTED,
    in_painting_order,
)
from benchmarks.third_scenes.groups import GROUPS


def choose_nouns(rng: random.Random, nouns: Sequence[str]) -> list[str]:
    """Return the nouns of a scene: many of one, two pairs, some of a group, or any."""
    (total,) = rng.choices([2, 3, 4, 5, 6], [1, 3, 4, 4, 3])
    (style,) = rng.choices(["many", "pairs", "group", "mixed"], [4, 2, 3, 2])
    chosen: list[str] = []
    if style == "many":
        count = rng.randint(2, min(5, total))
        chosen = [_choose_repeated(rng, nouns)] * count
    elif style == "pairs" and total >= 4:
        chosen = [_choose_repeated(rng, nouns)] * 2 + [rng.choice(nouns)] * 2
    elif style == "group":
        members = sorted(rng.choice(list(GROUPS.values())).sure)
        chosen = rng.sample(members, min(len(members), rng.randint(2, max(2, total - 1))))
        if rng.random() < 0.35 and len(chosen) < total:
            chosen.append(rng.choice(chosen))
    while len(chosen) < total:
        noun = rng.choice(nouns)
        if noun not in chosen or rng.random() < 0.1:
            chosen.append(noun)
    rng.shuffle(chosen)
    return chosen


def choose_paints(rng: random.Random, nouns: Sequence[str]) -> dict[str, list[str]]:
    """Return the colours for the things of each noun that is painted, the last thing's first."""
    paints: dict[str, list[str]] = {}
    for noun in in_painting_order(nouns):
        count = nouns.count(noun)
        if rng.random() >= (0.75 if count > 1 else 0.5):
            continue
        # A coin is tossed for black and one for white, so this has to stay one pass over all colours.
        colours = [
            colour
            for colour in HUES
            if colour not in ("black", "white") or (noun in BLACK_OR_WHITE and rng.random() < 0.5)
        ]
        if noun in NEVER_GREEN:
            colours.remove("green")
        if count > 2 and rng.random() < 0.5:
            pair = rng.sample(colours, 2)
            paints[noun] = [rng.choice(pair) for _ in range(count)]
        elif rng.random() < 0.4:
            paints[noun] = [rng.choice(colours) for _ in range(count)]
        else:
            paints[noun] = rng.sample(colours, count)
    return paints


def own_colour(noun: str) -> str | None:
    """Return the colour of a thing that is not painted, None if one could argue about it."""
    return None if noun in DOUBTFUL else PAINTABLE.get(noun) or UNPAINTED.get(noun)


def _choose_repeated(rng: random.Random, nouns: Sequence[str]) -> str:
    return rng.choice(list(PAINTABLE) if rng.random() < 0.4 else nouns)
