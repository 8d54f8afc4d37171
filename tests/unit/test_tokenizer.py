"""The tokenizer against a slow one written here from OpenAI's description."""

from __future__ import annotations

import gzip
import html
from functools import cache
from itertools import pairwise
from pathlib import Path

import ftfy
import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

import ssp_sam
from ssp_sam.config import CONTEXT_LENGTH
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.tokenizer import token_texts, tokenize

MERGES = Path(ssp_sam.__file__).parent / "assets" / "bpe_simple_vocab_16e6.txt.gz"
START, END = 49406, 49407
NOTHING_LEFT = [START, 269, END]  # the full stop that ends every phrase, alone
SPECIAL = {"<|startoftext|>": START, "<|endoftext|>": END}
WORDS = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE
)


@cache
def tables() -> tuple[dict[int, str], dict[tuple[str, str], int], dict[str, int]]:
    """Return byte -> letter, merge -> rank and word piece -> id."""
    visible = [n for n in range(256) if chr(n).isprintable() and chr(n) != " "]
    hidden = [n for n in range(256) if n not in visible]
    letters = {n: chr(n) for n in visible} | {n: chr(256 + place) for place, n in enumerate(hidden)}
    lines = gzip.decompress(MERGES.read_bytes()).decode().split("\n")[1 : 48894 + 1]
    merges = [(line.split(" ")[0], line.split(" ")[1]) for line in lines]
    pieces = list(letters.values())
    pieces += [piece + "</w>" for piece in pieces] + [a + b for a, b in merges]
    return letters, {merge: rank for rank, merge in enumerate(merges)}, {piece: n for n, piece in enumerate(pieces)}


def slow_word(word: str) -> list[int]:
    letters, ranks, ids = tables()
    if word in SPECIAL:
        return [SPECIAL[word]]
    parts = [letters[byte] for byte in word.encode()]
    parts[-1] += "</w>"
    while True:
        pairs = [(ranks.get((a, b), len(ranks)), a, b) for a, b in pairwise(parts)]
        if not pairs or min(pairs)[0] == len(ranks):
            return [ids[part] for part in parts]
        _, a, b = min(pairs)
        merged, at = [], 0
        while at < len(parts):
            two = parts[at : at + 2] == [a, b]
            merged.append(a + b if two else parts[at])
            at += 2 if two else 1
        parts = merged


def slow_ids(phrase: str) -> list[int]:
    text = phrase.lower().strip()
    if " ||| " in text and "\n" not in text:
        text = text.rpartition(" ||| ")[0]
    text = html.unescape(html.unescape(ftfy.fix_text(text + ".")))
    text = " ".join(text.split()).lower()
    return [START, *(token for word in WORDS.findall(text) for token in slow_word(word)), END]


SCRIPTS = st.sampled_from("abzABZ éßøñ ÀĞ žЖщΩλ 日本語のカナ 한국 عرب שלום हिन्दी ไทย 0१٣五½²")
SIGNS = st.sampled_from("  .,;:!?'\"-–—…()[]{}<>|&#%$€@/\\_*+=~^`°©™“”’«»🐶👩🏽‍🚀🇩🇪☃️")
PIECES = st.one_of(
    st.text(SCRIPTS, min_size=1, max_size=8),
    st.text(SIGNS, min_size=1, max_size=4),
    st.sampled_from(
        ["  ", "\t", "\n", " &amp; ", "&amp;lt;b&amp;gt;", "&#39;s", "&nbsp;", " ||| ", "|||", "the man's", "we'll",
         "I'M", "they'd've", "2nd", "leftmost", "schÃ¶n", "â€™s", "ﬁre", "Ⅷ", " <|endoftext|> ", " <|startoftext|> "]
    ),
)  # fmt: skip
PHRASES = st.lists(PIECES, min_size=1, max_size=6).map("".join).filter(str.strip)


@given(PHRASES)
@settings(max_examples=400, deadline=None)
def test_the_ids_are_those_of_openais_tokenizer(phrase: str) -> None:
    expected = slow_ids(phrase)
    if expected == NOTHING_LEFT:
        with pytest.raises(InvalidArgumentError, match="is empty once it is cleaned"):
            tokenize([phrase])
        return
    if len(expected) > CONTEXT_LENGTH:
        with pytest.raises(InvalidArgumentError, match=f"has {len(expected)} tokens"):
            tokenize([phrase])
        return
    (row,) = tokenize([phrase])
    assert row.dtype == np.int32
    assert row[: len(expected)].tolist() == expected
    assert not row[len(expected) :].any()


@given(st.lists(PHRASES, min_size=2, max_size=5))
@settings(max_examples=30, deadline=None)
def test_a_row_of_many_is_the_row_of_one(phrases: list[str]) -> None:
    usable = [phrase for phrase in phrases if slow_ids(phrase) != NOTHING_LEFT]
    phrases = [phrase for phrase in usable if len(slow_ids(phrase)) <= CONTEXT_LENGTH] or ["dog"]
    together = tokenize(phrases)
    assert together.shape == (len(phrases), CONTEXT_LENGTH)
    for phrase, row in zip(phrases, together, strict=True):
        np.testing.assert_array_equal(row, tokenize([phrase])[0])


@pytest.mark.parametrize("variant", ["mini224", "mini336"])
def test_the_golden_phrases_have_the_golden_ids(variant: str) -> None:
    golden = np.load(Path(__file__).parents[1] / "goldens" / f"{variant}_open.npz")
    for case in range(3):
        ids = tokenize([str(golden[f"case{case}_phrase"])])
        np.testing.assert_array_equal(ids, golden[f"case{case}_token_ids"])


@pytest.mark.parametrize(
    ("phrase", "same_as"),
    [
        ("The  RED\tdog ", "the red dog"),
        ("the dog ||| the cat", "the dog"),
        ("a ||| b ||| c", "a ||| b"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("the dog’s ﬁsh", "the dog's fish"),
    ],
)
def test_cleaning(phrase: str, same_as: str) -> None:
    # The second phrase of a "pair" is dropped once only, so it is compared without being one.
    expected = tokenize([f"{same_as} ||| x" if " ||| " in same_as else same_as])
    np.testing.assert_array_equal(tokenize([phrase]), expected)


@pytest.mark.parametrize("phrase", ["&nbsp;", "\x00", "\x01\x02", "&amp;nbsp;"])
def test_a_phrase_of_which_nothing_is_left_is_refused(phrase: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"phrase 1 .* is empty once it is cleaned"):
        tokenize(["the dog", phrase])
    assert tokenize(["."])[0, 1:3].tolist() == slow_ids(".")[1:3]


def test_77_tokens_fit_and_78_do_not() -> None:
    (row,) = tokenize([" ".join(["dog"] * 74)])  # and start, full stop and end
    assert row.all()
    assert row[-1] == END
    with pytest.raises(InvalidArgumentError, match=r"phrase 1 \('dog dog.* has 78 tokens.* at most 77 are allowed"):
        tokenize(["cat", " ".join(["dog"] * 75)])


def test_there_may_be_fewer_positions() -> None:
    phrases = ["cat", "the dog on the left"]
    longest = 8  # five words, start, full stop and end
    np.testing.assert_array_equal(tokenize(phrases, longest), tokenize(phrases)[:, :longest])
    with pytest.raises(InvalidArgumentError, match=r"phrase 1 .* has 8 tokens.* at most 7 are allowed"):
        tokenize(phrases, longest - 1)


def test_token_texts_say_the_phrase_again() -> None:
    texts = token_texts(tokenize(["the dog's 🐶 café", "x"]))
    assert texts.shape == (2, CONTEXT_LENGTH)
    assert texts[0].tolist()[:8] == ["<|startoftext|>", "the", "dog", "'s", "🐶", "café", ".", "<|endoftext|>"]
    assert set(texts[0, 8:]) == {""}
    assert texts[1, 1] == "x"


def test_an_exclamation_mark_is_a_token_of_its_own_not_padding() -> None:
    token_ids = tokenize(["what!?"])
    assert token_ids[0, 2] == 0
    assert token_texts(token_ids)[0].tolist()[:6] == ["<|startoftext|>", "what", "!", "?.", "<|endoftext|>", ""]


def test_every_token_of_the_vocabulary_has_a_text() -> None:
    letters, _, ids = tables()
    bytes_of = {letter: byte for byte, letter in letters.items()}
    (texts,) = token_texts(np.arange(1, 49408)[None])
    assert texts[-2:].tolist() == list(SPECIAL)
    for piece in ("dog</w>", "do", "ing</w>", "é</w>"):
        word = piece.removesuffix("</w>")
        encoded = "".join(letters[byte] for byte in word.encode()) + piece[len(word) :]
        assert texts[ids[encoded] - 1] == bytes(bytes_of[c] for c in encoded.removesuffix("</w>")).decode() == word
