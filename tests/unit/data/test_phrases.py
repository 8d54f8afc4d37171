"""Every phrase is read again, by rules of its own, and what it means is worked out slowly from the scene's things."""

import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ssp_sam.data import Expression, Scene, SceneGenerator, Thing, expressions_for
from ssp_sam.data.demo import demo_scene
from ssp_sam.data.names import Name, names, nouns
from ssp_sam.data.phrases import ABSENT_SHARE, ABSENT_WEIGHTS, KINDS, PRESENT_WEIGHTS
from ssp_sam.data.things import COLOURS
from ssp_sam.data.wording import called, words

SCENES = 200

RANKS = {
    word: rank
    for rank, pair in enumerate(["first 1st", "second 2nd", "third 3rd", "fourth 4th", "fifth 5th"])
    for word in pair.split()
}

# What may stand around any phrase.
ASKED = r"(?:(?:please )?find |show me |segment |select |mark |where is |i mean )?"
LOCATED = r"(?: in the picture| in this image| in the photo| here| you can see| shown here)?[.?]?"

# How each meaning is worded: N is the name, K its plural, M the name of another thing.
BE, IT, ITS = "(is|are)", "(it|them)", "(its|their)"
PATTERNS = {
    **{
        side: rf"({side}|{side}most|{side}-most|{side}-hand|far {side}) N|N {side}|N (on|to|at|furthest to) the {side}"
        rf"|N on the {side}(-hand)? side|N on the far {side}|N farthest {side}|N that is furthest {side}"
        rf"|N that is on the {side}|{side}most of the K"
        for side in ("left", "right")
    },
    "top": r"(top|upper|topmost|highest|uppermost) N|highest of the K"
    r"|N (highest up|at the top|on top|up top|nearest the top|closest to the top|that is at the top|up at the top)",
    "bottom": r"(bottom|lower|bottommost|lowest) N|lowest of the K|N furthest down"
    r"|N (at|on|down at|nearest|closest to|that is at) the bottom",
    "middle": r"(middle|center|central) N|N (that is )?in the (middle|center|centre)"
    r"|N in between|N between the other two",
    **{
        f"{end} {side}": rf"({end}|{other}) {side} N|{end}-{side} N|N (in|at) the {end} {side}"
        rf"|N near the {end} {side} corner|N (in|towards) the {other} {side}( corner)?"
        for end, other in (("top", "upper"), ("bottom", "lower"))
        for side in ("left", "right")
    },
    "largest": r"(largest|biggest|big|large|huge|bigger|larger) N"
    r"|(biggest of|largest of all|bigger of the two) (the )?K|N that (is biggest|looks largest|is larger)",
    "smallest": r"(smallest|small|little|littlest|tiny|tiniest|smaller) N"
    r"|(smallest of|tiniest of all|smaller of the two) (the )?K|N that (is smallest|looks tiniest|is smaller)",
    "ordinal": rf"((?P<rank>{'|'.join(RANKS)}) N( counting| counted| starting)?|N that is (?P<rank2>{'|'.join(RANKS)})"
    rf"|(?P<rank3>{'|'.join(RANKS)}) of the K) from (the )?(?P<side>left|right|top|bottom)",
    **{
        f"{side} of": rf"N ((that|which) {BE} )?(to the |on the )?{side} (side )?of M|N with L (on|to) {ITS} {opposite}"
        for side, opposite in (("left", "right"), ("right", "left"))
    },
    "above": rf"N (that {BE} )?(above|over|higher than|up above|higher up than) M|N with L (below|underneath) {IT}",
    "below": rf"N (which {BE} )?(below|under|beneath|underneath|lower than|further down than) M|N with L above {IT}",
    "next to": rf"N ((that|which) {BE} )?(right )?(next to|beside|by|close to) M",
    "colour": rf"(?P<colour>{'|'.join(COLOURS)}|gray)( coloured)? N"
    rf"|N (that {BE}|coloured) (?P<colour2>{'|'.join(COLOURS)}|gray)",
    "alone": r"N|the only N|a single N",
}
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}
NAMES = names()


def centre(thing: Thing) -> tuple[float, float]:
    rows, columns = np.nonzero(thing.mask)
    return (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2


def ordered(members: list[Thing], side: str) -> list[Thing]:
    axis, reverse = {"left": (0, False), "right": (0, True), "top": (1, False), "bottom": (1, True)}[side]
    return sorted(members, key=lambda thing: centre(thing)[axis], reverse=reverse)


BESIDE: dict[str, Callable[[Thing, Thing], bool]] = {
    "left of": lambda subject, other: centre(subject)[0] < centre(other)[0],
    "right of": lambda subject, other: centre(subject)[0] > centre(other)[0],
    "above": lambda subject, other: centre(subject)[1] < centre(other)[1],
    "below": lambda subject, other: centre(subject)[1] > centre(other)[1],
}


def meant_by(meaning: str, match: re.Match[str], members: list[Thing], other: Thing | None) -> list[Thing]:
    """What a person would take the phrase to mean, without any margin."""
    if not members or meaning == "alone":
        found = members
    elif meaning == "middle":
        found = [ordered(members, "left")[len(members) // 2]]
    elif meaning in {"largest", "smallest"}:
        found = sorted(members, key=lambda thing: np.count_nonzero(thing.mask), reverse=meaning == "largest")[:1]
    elif meaning == "ordinal":
        rank = RANKS[match["rank"] or match["rank2"] or match["rank3"]]
        found = [ordered(members, match["side"])[rank]]
    elif meaning == "colour":
        colour = COLOURS.index((match["colour"] or match["colour2"]).replace("gray", "grey"))
        found = [thing for thing in members if thing.colour_shares[colour] > 0.4]
    elif other is None:  # a side or a corner
        found, *rest = (ordered(members, side)[:1] for side in meaning.split())
        assert all(same[0] is found[0] for same in rest)
    elif meaning == "next to":
        found = [thing for thing in members if box_gap(thing, other) < 0.1 * max(other.mask.shape)]
    else:
        found = [thing for thing in members if BESIDE[meaning](thing, other)]
    return found


def box_gap(first: Thing, second: Thing) -> float:
    gaps = []
    for axis in (0, 1):
        a, b = (np.nonzero(thing.mask.any(axis=axis))[0] for thing in (first, second))
        gaps.append(max(a[0] - b[-1] - 1, b[0] - a[-1] - 1, 0))
    return float(np.hypot(*gaps))


def members_of(name: Name, scene: Scene) -> list[Thing]:
    return [thing for thing in scene.things if thing.noun in name.members]


def readings_of_a_part(phrase: str, scene: Scene) -> list[list[Thing]]:
    """Every way to read a phrase about one name, said as of one thing or of several: what each means."""
    result = []
    forms = [(name, form) for name in NAMES for form in {name.singular, name.plural} if form in phrase]
    for name, form in forms:
        members = members_of(name, scene)
        for meaning, pattern in PATTERNS.items():
            filled = pattern.replace("N", re.escape(form)).replace("K", re.escape(name.plural))
            filled = filled.replace("M", "(?P<other>.+)").replace("L", "(?P<with>.+)")
            match = re.fullmatch(f"(?:(?:the|an?) )?(?:{filled})", phrase)
            if match is None:
                continue
            other = None
            if "other" in match.groupdict():
                said = match["other"] or match["with"]
                other_names = [n for n in NAMES if n.singular == said.removeprefix("the ")]
                if not other_names:
                    continue
                others = members_of(other_names[0], scene)
                if not others:  # nothing is left of what is not there
                    members = []
                if members:  # only then it must be clear which other thing is meant
                    [other] = others
            result.append(meant_by(meaning, match, members, other))
    return result


def plural_readings(phrase: str, scene: Scene) -> list[list[Thing]]:
    """Every way to read a phrase about all things of a name: what each means."""
    result = []
    for name in (name for name in NAMES if name.singular in phrase or name.plural in phrase):
        plural = (
            rf"(?:(?:(?:all(?: of)? )?the|all|any|both(?: of the)?) )?(?:(?:{'|'.join(NUMBERS)}) )?(?:of the )?"
            + re.escape(name.plural)
        )
        each = rf"(?:every|each|every single) {re.escape(name.singular)}"
        each_of = rf"(?:every one|each) of the {re.escape(name.plural)}"
        if re.fullmatch(rf"{plural}|{each}|{each_of}", phrase):
            result.append(members_of(name, scene))
    return result


def unframed(phrase: str) -> str:
    """The phrase in lower case, without what asks for it."""
    match = re.fullmatch(f"{ASKED}(.*?){LOCATED}", phrase.lower())
    assert match is not None
    return match[1]


def readings(expression: Expression, scene: Scene) -> list[list[Thing]]:
    phrase = unframed(expression.phrase)
    kind = expression.kind.removeprefix("absent-")
    if kind == "and":
        connections = ", | and also | and | as well as | along with | together with | plus | & "
        parts = re.split(connections, phrase.removeprefix("both "))
        combined = itertools.product(*(readings_of_a_part(part, scene) for part in parts))
        return [[thing for part in parts for thing in part] for parts in combined]
    if kind == "all":
        return plural_readings(phrase, scene)
    if kind == "group":
        return plural_readings(phrase, scene) + readings_of_a_part(phrase, scene)
    return readings_of_a_part(phrase, scene)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    generator = SceneGenerator(seed=5, side_px=128)
    return [generator.scene(index) for index in range(SCENES)]


def test_truth_masks_agree_with_a_slow_reading_of_the_phrase(scenes: list[Scene]) -> None:
    for number, scene in enumerate(scenes):
        for expression in scene.expressions:
            found = readings(expression, scene)
            assert found, f"scene {number}: nobody can read {expression.phrase!r} ({expression.kind})"
            for things in found:
                expected = np.zeros_like(expression.mask)
                for thing in things:
                    expected = expected | thing.mask
                assert np.array_equal(expression.mask, expected), f"scene {number}: {expression.phrase!r}"


def test_the_demo_means_what_its_phrases_say() -> None:
    scene = demo_scene()
    for expression in scene.expressions:
        for things in readings(expression, scene):
            expected = np.logical_or.reduce([np.zeros_like(expression.mask), *(thing.mask for thing in things)])
            assert np.array_equal(expression.mask, expected), expression.phrase


def test_absent_kinds_have_no_target_and_present_kinds_have_one(scenes: list[Scene]) -> None:
    for expression in (expression for scene in scenes for expression in scene.expressions):
        assert expression.mask.any() != expression.kind.startswith("absent-"), expression.phrase


def test_numbers_said_are_the_numbers_there(scenes: list[Scene]) -> None:
    for scene in scenes:
        for expression in scene.expressions:
            said = [word for word in expression.phrase.lower().split() if word in NUMBERS]
            if expression.kind in {"all", "group"} and said:
                [count] = {len(things) for things in readings(expression, scene)}
                assert count == NUMBERS[said[0]]


def test_a_noun_alone_names_one_thing(scenes: list[Scene]) -> None:
    for scene in scenes:
        for expression in scene.expressions:
            if expression.kind == "noun":
                assert sum(bool((thing.mask & expression.mask).any()) for thing in scene.things) == 1


def test_a_relation_knows_what_it_names_beside_its_target(scenes: list[Scene]) -> None:
    forms = {form: name for name in NAMES for form in (name.singular, name.plural)}
    any_form = re.compile(rf"\b({'|'.join(sorted(map(re.escape, forms), key=len, reverse=True))})\b")
    said = [(scene, e) for scene in scenes for e in scene.expressions]
    for scene, expression in said:
        if not expression.kind.endswith("relation"):
            assert not expression.beside.any()
            continue
        words_of_phrase = any_form.findall(expression.phrase.lower())
        called = [thing for thing in scene.things if any(thing.noun in forms[word].members for word in words_of_phrase)]
        named = np.logical_or.reduce([expression.mask, *(thing.mask for thing in called)])
        np.testing.assert_array_equal(expression.beside, named & ~expression.mask, expression.phrase)
    assert sum(expression.beside.any() for _, expression in said) > 100


def test_every_kind_occurs_and_about_the_stated_share_is_absent(scenes: list[Scene]) -> None:
    counts = Counter(expression.kind for scene in scenes for expression in scene.expressions)
    total = sum(counts.values())
    assert set(counts) == set(KINDS) == {*PRESENT_WEIGHTS, *ABSENT_WEIGHTS}
    assert all(counts[kind] >= 0.03 * total for kind in PRESENT_WEIGHTS), counts
    absent = sum(counts[kind] for kind in ABSENT_WEIGHTS) / total
    assert ABSENT_SHARE - 0.04 < absent < ABSENT_SHARE + 0.04


def test_order_is_mostly_said_of_three_or_more_where_the_second_is_not_the_last(scenes: list[Scene]) -> None:
    counts = [
        len([thing for thing in scene.things if thing.noun in name.members])
        for scene in scenes
        for expression in scene.expressions
        if expression.kind == "ordinal"
        for name in NAMES
        if re.fullmatch(
            rf"(the )?({'|'.join(RANKS)}) {re.escape(name.singular)}( [a-z]+ing)? from .*", unframed(expression.phrase)
        )
    ]
    assert len(counts) >= 20
    assert min(counts) >= 2
    assert np.mean(np.array(counts) >= 3) > 0.5


def test_what_is_emphasised_occurs_more_often_and_the_things_stay() -> None:
    emphases = ({}, {"size": 4.0, "absent-and": 5.0})
    plain, emphatic = ([SceneGenerator(side_px=64, emphasis=e).scene(n) for n in range(100)] for e in emphases)
    counts, more = (Counter(e.kind for scene in scenes for e in scene.expressions) for scenes in (plain, emphatic))
    for kind in ("size", "absent-and"):
        assert more[kind] > 1.5 * counts[kind] > 0, kind
    assert all(np.array_equal(a.image, b.image) for a, b in zip(plain, emphatic, strict=True))


def test_phrases_are_clean_and_differ_within_a_scene(scenes: list[Scene]) -> None:
    for scene in scenes:
        phrases = [expression.phrase for expression in scene.expressions]
        assert len({phrase.lower() for phrase in phrases}) == len(phrases)
        for phrase in phrases:
            assert re.fullmatch(r"(?i:tv)|[A-Za-z0-9 ,'&-]{3,}[.?]?", phrase), phrase
            assert phrase == " ".join(phrase.split())
            assert "None" not in phrase


def thing(noun: str, left: int, top: int, side: int, colour: str | None = None) -> Thing:
    """A square thing on a scene of 100 pixels."""
    mask = np.zeros((100, 100), dtype=np.bool_)
    mask[top : top + side, left : left + side] = True
    shares = tuple(float(word == colour) for word in COLOURS)
    return Thing(noun, mask, (left, top, left + side, top + side), side * side, side * side, shares, shares)


def phrases_of(things: list[Thing], kind: str, draws: int = 400) -> set[str]:
    found = expressions_for(things, np.random.default_rng(0), draws)
    return {expression.phrase.lower() for expression in found if expression.kind == kind}


@pytest.mark.parametrize(("gap_px", "said"), [(7, False), (8, True)])
def test_left_and_right_need_the_stated_margin(gap_px: int, said: bool) -> None:
    things = [thing("dog", 10, 10, 20), thing("dog", 10 + gap_px, 50, 20)]
    assert any("left" in phrase for phrase in phrases_of(things, "position")) == said


@pytest.mark.parametrize(("side_px", "said"), [(23, False), (24, True)])  # 23² / 20² = 1.32, 24² / 20² = 1.44
def test_sizes_need_the_stated_ratio(side_px: int, said: bool) -> None:
    things = [thing("dog", 10, 10, 20), thing("dog", 50, 50, side_px)]
    assert bool(phrases_of(things, "size")) == said


def test_a_doubtful_thing_keeps_a_name_from_being_used() -> None:
    things = [thing("banana", 10, 10, 20), thing("tomato", 50, 50, 20)]
    groups = phrases_of(things, "group") | phrases_of(things, "absent-group")
    assert not any("fruit" in phrase or "vegetable" in phrase for phrase in groups)
    assert any("food" in phrase for phrase in groups)


def test_what_is_said_of_several_things_is_said_in_the_plural() -> None:
    dogs = [thing("dog", 5, 5, 20, "blue"), thing("dog", 5, 70, 20, "blue"), thing("cat", 75, 40, 20)]
    colours = phrases_of(dogs, "colour")
    assert any("blue dogs" in phrase for phrase in colours)
    assert any("dogs that are blue" in phrase for phrase in colours)
    assert any(re.fullmatch("(the )?dogs .*left .*of (the )?cat", phrase) for phrase in phrases_of(dogs, "relation"))
    pairs = {re.sub("the |both ", "", unframed(phrase)) for phrase in phrases_of(dogs, "and")}
    assert {"dogs and cat", "cat and dogs"} <= pairs


def test_what_does_not_hold_of_a_thing_that_is_there_is_absent() -> None:
    things = [thing("dog", 5, 40, 20, "blue"), thing("cat", 75, 40, 20, "red")]
    relations, colours = (" | ".join(phrases_of(things, f"absent-{kind}", 1000)) for kind in ("relation", "colour"))
    assert re.search("dog [a-z ]*right [a-z ]*of (the )?cat", relations)
    assert re.search("cat [a-z ]*(next to|beside|by|close to) (the )?dog", relations)
    assert not re.search("dog [a-z ]*left [a-z ]*of (the )?cat", relations)
    assert re.search(r"\bred dog", colours)
    assert not re.search(r"\b(blue dog|red cat)", colours)


@pytest.mark.parametrize(
    ("there", "more"),
    [
        ("panda koala shark whale dolphin", "bear fish dog"),  # "bear" and "fish" are doubtful: only a dog is absent
        ("panda dolphin taxi motorcycle", "bear fish automobile bicycle"),  # all others are doubtful
        ("panda koala shark whale dolphin", "scissors"),  # what is absent can hardly be counted
    ],
)
def test_of_a_small_vocabulary_little_or_nothing_may_be_absent(there: str, more: str) -> None:
    things = [thing(noun, 20 * index, 10, 15) for index, noun in enumerate(there.split())]
    vocabulary = [*there.split(), *more.split()]
    for kind in ABSENT_WEIGHTS:
        found = expressions_for(things, np.random.default_rng(0), 40, vocabulary, {kind: 1000.0})
        assert all(not expression.mask.any() for expression in found if expression.kind == kind)


def test_a_colour_that_is_doubtful_is_neither_said_nor_denied() -> None:
    doubtful = tuple(0.5 * (colour == "yellow") for colour in COLOURS)
    lemon = replace(thing("lemon", 60, 60, 20), colour_shares_max=doubtful)
    assert not any("yellow" in phrase for phrase in phrases_of([lemon], "absent-colour", 1000) if "lemon" in phrase)
    clear = thing("lemon", 10, 10, 20, "yellow")
    assert not any("yellow" in phrase for phrase in phrases_of([lemon, clear], "colour", 1000))
    assert any("yellow" in phrase for phrase in phrases_of([clear, thing("lemon", 60, 60, 20)], "colour", 1000))


def test_nothing_that_names_a_colour_is_said_to_have_another() -> None:
    phrases = phrases_of([thing("dog", 10, 10, 20)], "absent-colour", 2000)
    assert len(phrases) > 50
    named = re.compile(rf"\bapples?\b|\b({'|'.join(COLOURS)}|gray) (coloured )?oranges?\b")
    assert not [phrase for phrase in phrases if named.search(phrase)]


@pytest.mark.parametrize(("top", "said"), [(22, False), (0, True)])  # of 20 px, 20 or 2 beside the ball's
def test_what_lies_on_a_thing_is_not_above_it(top: int, said: bool) -> None:
    things = [thing("cat", 40, top, 20), thing("basketball", 20, 18, 60)]
    phrases = phrases_of(things, "relation", 1000)
    assert any(re.search("cat .*(above|over|higher)", phrase) for phrase in phrases) == said
    assert any(re.search("cat .*(next to|beside|by|close to)", phrase) for phrase in phrases) == said


@pytest.mark.parametrize(("top", "placed"), [(5, False), (40, True)])
def test_the_middle_of_three_is_in_the_center_only_where_that_is(top: int, placed: bool) -> None:
    dogs = [thing("dog", left, y, 20) for left, y in ((5, 20), (40, top), (75, 5))]
    phrases = phrases_of(dogs, "position", 1000)
    assert any("middle dog" in phrase or "in between" in phrase for phrase in phrases)
    assert any(re.search("(center|central) dog|in the (middle|center)", phrase) for phrase in phrases) == placed


def test_no_part_of_several_things_names_them_all_before_the_joiner(scenes: list[Scene]) -> None:
    found = [each.phrase for scene in scenes for each in scene.expressions if each.kind == "and"]
    things = [thing("dog", 5, 10, 20), thing("dog", 40, 70, 25), thing("cat", 70, 20, 22)]
    found += phrases_of(things, "and", 2000)
    assert len(found) > 50
    assert not any(re.search(r"\bof (all )?the\b", phrase.lower()) for phrase in found)


def test_either_side_of_an_absent_relation_can_be_what_is_not_there() -> None:
    relations = phrases_of([thing("dog", 40, 40, 20)], "absent-relation", 1000)
    the_dog = "(dog|animal|creature)s?"
    from_the_dog = {phrase for phrase in relations if re.match(f"(the )?{the_dog} ", unframed(phrase))}
    assert all(re.search(rf"\b{the_dog}\b", unframed(phrase)) for phrase in relations)
    assert 0.35 < len(from_the_dog) / len(relations) < 0.65


def test_things_that_are_doubtful_for_each_other_are_said_by_their_group_alone() -> None:
    things = [thing("necktie", 10, 10, 20), thing("t-shirt", 50, 50, 20)]
    found = expressions_for(things, np.random.default_rng(0), 200)
    assert not any(re.search("shirt|tie", expression.phrase.lower()) for expression in found if expression.mask.any())
    assert "absent-relation" in {expression.kind for expression in found}


def test_colour_is_said_only_where_it_tells_things_apart() -> None:
    apart = [thing("dog", 10, 10, 20, "blue"), thing("dog", 50, 50, 20, "red")]
    alike = [thing("dog", 10, 10, 20, "blue"), thing("dog", 50, 50, 20, "blue")]
    assert any("blue dog" in phrase for phrase in phrases_of(apart, "colour"))
    said = phrases_of(alike, "colour")
    assert said
    assert all(re.search("dogs|animals|creatures", phrase) for phrase in said), "of both together only"


def test_a_noun_is_called_by_its_own_names() -> None:
    rng = np.random.default_rng(0)
    for noun in nouns():
        own = [name for name in NAMES if name.members == {noun} and not name.is_group]
        words = {word for name in own for word in (name.singular, name.plural)}
        phrases = {called(noun, rng) for _ in range(20)}
        assert all(any(phrase.endswith(word) for word in words) for phrase in phrases), phrases
    assert {"dog", "the dog", "a dog", "dogs", "all the dogs"} <= {called("dog", rng) for _ in range(200)}


def test_no_phrase_has_a_word_that_is_not_listed(scenes: list[Scene]) -> None:
    said = {
        word
        for scene in scenes
        for expression in scene.expressions
        for word in re.sub("[.?]$", "", expression.phrase.lower()).replace(",", " ,").split()
    }
    assert said <= words(), said - words()


def test_vocabulary_is_whole() -> None:
    known = set(nouns())
    assert len(known) == len(nouns()) >= 150
    assert list(nouns()) == sorted(nouns())
    for name in NAMES:
        assert name.members <= known, (name.singular, name.members - known)
        assert name.doubtful <= known, (name.singular, name.doubtful - known)
        assert not name.members & name.doubtful, name.singular
        assert " and " not in name.singular
    assert len({name.singular for name in NAMES}) == len(NAMES)
