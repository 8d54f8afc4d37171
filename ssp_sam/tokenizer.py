"""CLIP's tokenizer: OpenAI's vocabulary and text cleaning, byte-pair encoding by the `tokenizers` library."""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

import ftfy
import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from ssp_sam.config import CONTEXT_LENGTH, VOCABULARY_SIZE
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.limits import check_phrases

START = "<|startoftext|>"
END = "<|endoftext|>"
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_PAIR = re.compile(r"^(.*) \|\|\| (.*)$")


def tokenize(phrases: Sequence[str], positions: int = CONTEXT_LENGTH) -> npt.NDArray[np.int32]:
    """Return token_ids (P, positions): start, tokens, end, then 0 to the full length.

    Raises InvalidArgumentError for what `check_phrases` refuses, for a phrase of which nothing is left when control
    characters and the like are taken away, and for a phrase of more tokens than there are
    positions, with start, the full stop that is added, and end counted: cutting it would answer another question than
    the one asked.
    """
    check_phrases(phrases)
    token_ids = np.zeros((len(phrases), positions), dtype=np.int32)
    for index, phrase in enumerate(phrases):
        cleaned = _clean(phrase)
        if cleaned == ".":
            raise InvalidArgumentError(f"phrase {index} ({phrase[:40]!r}) is empty once it is cleaned as CLIP does")
        ids = [_start_id(), *_tokenizer().encode(cleaned).ids, _start_id() + 1]
        if len(ids) > positions:
            raise InvalidArgumentError(
                f"phrase {index} ({phrase[:40]!r}...) has {len(ids)} tokens, start, full stop and end counted; "
                f"at most {positions} are allowed"
            )
        token_ids[index, : len(ids)] = ids
    return token_ids


def token_texts(token_ids: npt.NDArray[np.int32]) -> npt.NDArray[np.object_]:
    """Return the text of each token of token_ids (P, positions), of the same shape; empty for padding."""
    texts = np.full(token_ids.shape, "", dtype=np.object_)
    for row, of_phrase in zip(token_ids, texts, strict=True):
        count = int(np.flatnonzero(row)[-1]) + 1  # up to the end; behind it 0 is padding, before it "!"
        of_phrase[:count] = [_token_text(int(token)) for token in row[:count]]
    return texts


def _clean(phrase: str) -> str:
    """Return the phrase as the release feeds it to CLIP: lower case, a full stop, cleaned as OpenAI does."""
    text = phrase.lower().strip()
    pair = _PAIR.match(text)  # data sets write "phrase ||| other"
    text = f"{pair[1] if pair else text}."
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


@lru_cache(maxsize=VOCABULARY_SIZE)
def _token_text(token_id: int) -> str:
    token = _tokenizer().id_to_token(token_id)
    assert token is not None  # the ids are our own
    if token in (START, END):
        return token
    letters = _byte_letters()
    data = bytes(letters.index(letter) for letter in token.removesuffix("</w>"))
    return data.decode("utf-8", errors="replace")


def _start_id() -> int:
    return VOCABULARY_SIZE - 2


@lru_cache(maxsize=1)
def _byte_letters() -> tuple[str, ...]:
    """Return the printable letter that stands for each byte in the vocabulary, indexed by byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return tuple(letters[byte] for byte in range(256))


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    packed = resources.files("ssp_sam").joinpath("assets/bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")
    # The first line is a comment; the file goes on past the merges that CLIP's vocabulary has room for.
    merges = [(a, b) for a, b in (line.split() for line in lines[1 : VOCABULARY_SIZE - 2 * 256 - 2 + 1])]
    # The order of the file that the vocabulary was first numbered by: printable bytes first.
    letters = sorted(_byte_letters(), key=lambda letter: (ord(letter) >= 256, ord(letter)))
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges), START, END]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([START, END])
    return tokenizer
