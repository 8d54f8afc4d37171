"""Which nouns a batch tells apart, which names it looks for, and how it calls them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssp_sam.data import wording
from ssp_sam.data.names import Name, names
from ssp_sam.data.standing import NO, UNSAID, YES
from ssp_sam.tokenizer import tokenize

# Patches are told from so many nouns at once, or from as many as the images of a batch show.
NOUNS_PER_BATCH = 128

NAMES_PER_BATCH = 160
"""So many names are looked for in every image of a batch: those of all groups, and others at random."""

SEVERAL_SHARE = 0.4
"""So often a name is looked for as of several things."""


def nouns_to_tell_apart(shown: Iterable[str], vocabulary: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Return the nouns that are shown, and others to tell them from."""
    chosen = sorted(set(shown))
    others = [noun for noun in vocabulary if noun not in chosen]
    rng.shuffle(others)
    return chosen + others[: max(0, NOUNS_PER_BATCH - len(chosen))]


def token_ids_of(nouns: Sequence[str], rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Return the tokens (K, L) of nouns in one wording each."""
    return np.concatenate([tokenize([wording.called(noun, rng)]) for noun in nouns])


class WantedName(NamedTuple):
    """A name that is looked for, and the phrase that asks for one thing or for several."""

    name: Name
    phrase: str
    several: bool

    def is_there(self, shown: Collection[str]) -> int:
        """Return whether it means anything in an image that shows these nouns: `YES`, `NO` or `UNSAID`."""
        if self.name.doubtful.intersection(shown):
            return UNSAID
        count = sum(noun in self.name.members for noun in shown)
        # Nobody asks for "all the dogs" where there is one.
        return UNSAID if self.several and count == 1 else YES if count else NO


def names_to_look_for(vocabulary: Sequence[str], rng: np.random.Generator) -> list[WantedName]:
    """Return names of the vocabulary's nouns and groups, each worded as a phrase of its own."""
    known = [name for name in names() if not name.members.isdisjoint(vocabulary)]
    groups, others = ([name for name in known if name.is_group == is_group] for is_group in (True, False))
    drawn = rng.permutation(len(others))[: max(0, NAMES_PER_BATCH - len(groups))]
    return [_wanted(name, rng) for name in (*groups, *(others[i] for i in drawn))]


def _wanted(name: Name, rng: np.random.Generator) -> WantedName:
    several = bool(rng.random() < SEVERAL_SHARE)
    said = wording.all_of(name, None, rng) if several else wording.with_article(name.singular, name, rng)
    return WantedName(name, said, several)
