from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from drawn import FEW, MANY, Told, draw, read, sizes_and_phrases, understood

from benchmarks.third_scenes.__main__ import main
from benchmarks.third_scenes.names import names_of


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Told]:
    return list(read(draw(main, tmp_path_factory.mktemp("many"), MANY, seed=2)))


def test_seed_70213_is_what_it_was_when_its_figure_was_taken(tmp_path: Path) -> None:
    assert sizes_and_phrases(draw(main, tmp_path, FEW, seed=70213), (1, 2, 3)) == [
        (
            256,
            256,
            [
                "brown american football",
                "the jack-o-lantern as well as the american football",
                "the lower bunch of cherries",
            ],
        ),
        (
            256,
            256,
            [
                "the scarf shown here",
                "the small giraffe",
                "all the cows",
                "the penguin which is right of the scarf",
                "the lowest giraffe",
            ],
        ),
        (
            256,
            256,
            ["the left hand potato", "any potatoes you can see", "any food items", "the potato furthest to the right"],
        ),
    ]


def test_all_noun_and_group_cover_every_thing_of_their_nouns(many: Sequence[Told]) -> None:
    kinds: Counter[str] = Counter()
    for told in many:
        if told.kind not in ("noun", "all", "and", "group"):
            continue
        nouns = Counter(thing.noun for thing in told.targets)
        assert nouns == Counter(thing.noun for thing in told.things if thing.noun in nouns), told.text
        assert (len(told.targets) == 1) == (told.kind == "noun")
        if told.kind == "all":
            assert len(nouns) == 1
        if told.kind == "and":
            assert len(nouns) > 1
        kinds[told.kind] += 1
    assert min(kinds.values()) >= 5
    assert len(kinds) == 4


def test_absent_nouns_name_nothing_that_is_there(many: Sequence[Told]) -> None:
    absent = [told for told in many if told.kind == "absent-noun"]
    for told in absent:
        bare = re.sub(r"^(the only|a single|the|an?) | (in the picture|in this image|shown here)$", "", told.text)
        here = {name.text for thing in told.things for name in names_of(thing.noun)}
        assert not told.targets
        assert bare not in here
    assert absent


def test_positions_sizes_and_orders_are_those_of_the_masks(many: Sequence[Told]) -> None:
    checked: Counter[str] = Counter()
    for told in many:
        if told.kind in ("position", "size", "ordinal"):
            found = understood(told.text, told.same, [name.text for name in names_of(told.targets[0].noun)])
            assert [found.id] == [thing.id for thing in told.targets], told.text
            checked[told.kind] += 1
    assert len(checked) == 3
    assert sum(checked.values()) >= 30


def test_relations_are_those_of_the_masks(many: Sequence[Told]) -> None:
    checked = 0
    for told in many:
        said = re.search(r"(left of|right of|above|higher than|below|beneath|underneath|lower than) (.+)$", told.text)
        if told.kind != "relation" or not said:
            continue
        way, other = said.group(1), re.sub("^(the|an?) ", "", said.group(2))
        (target,) = told.targets
        anchors = [t for t in told.things if other in [name.text for name in names_of(t.noun)]]
        if len(anchors) != 1:  # the other is told by its colour
            continue
        (anchor,) = anchors
        assert target.noun != anchor.noun
        assert {
            "left": target.x_px < anchor.x_px,
            "right": target.x_px > anchor.x_px,
            "above": target.y_px < anchor.y_px,
            "higher": target.y_px < anchor.y_px,
        }.get(way.split()[0], target.y_px > anchor.y_px), told.text
        checked += 1
    assert checked >= 8
