"""Which nouns a batch tells apart, and how it calls them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ssp_sam.data.wording import called
from ssp_sam.tokenizer import tokenize

# Patches are told from so many nouns at once, or from as many as the images of a batch show.
NOUNS_PER_BATCH = 128


def nouns_to_tell_apart(shown: Iterable[str], vocabulary: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Return the nouns that are shown, and others to tell them from."""
    chosen = sorted(set(shown))
    others = [noun for noun in vocabulary if noun not in chosen]
    rng.shuffle(others)
    return chosen + others[: max(0, NOUNS_PER_BATCH - len(chosen))]


def token_ids_of(nouns: Sequence[str], rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Return the tokens (K, L) of nouns in one wording each."""
    return np.concatenate([tokenize([called(noun, rng)]) for noun in nouns])
