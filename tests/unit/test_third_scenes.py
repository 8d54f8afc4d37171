from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from benchmarks.third_scenes.__main__ import main
from benchmarks.third_scenes.names import names_of
from ssp_sam.evaluation.datasets.benchmarks import BENCHMARKS
from ssp_sam.results import BoolMask

FEW, MANY = 6, 40


@dataclass(frozen=True)
class Seen:
    """A thing as the files have it."""

    id: int
    noun: str
    x_px: float
    y_px: float
    area_px: int


@dataclass(frozen=True)
class Told:
    """A phrase as the files have it, with what it means and all there is."""

    kind: str
    text: str
    targets: Sequence[Seen]
    things: Sequence[Seen]

    @property
    def same(self) -> list[Seen]:
        """All things of the noun of the first target."""
        return [thing for thing in self.things if thing.noun == self.targets[0].noun]


def draw(out: Path, count: int, seed: int = 70213) -> Path:
    assert main(["--count", str(count), "--seed", str(seed), "--out", str(out)]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def references(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "grefcoco" / "grefs(unc).json").read_text())


def sample_id(reference: dict[str, Any]) -> str:
    return f"{reference['ref_id']}.{reference['sent_ids'][0]}"


def centre_px(is_seen: BoolMask) -> float:
    """The middle between the first and the last place where there is something."""
    places = [i for i, value in enumerate(is_seen) if value]
    return (places[0] + places[-1] + 1) / 2


def read(folder: Path) -> Iterator[Told]:
    coco = COCO(str(folder / "grefcoco" / "instances.json"))
    kinds = json.loads((folder / "kinds.json").read_text())
    seen: dict[int, Seen] = {}
    for thing in coco.anns.values():
        mask = coco.annToMask(thing).astype(bool)
        noun = coco.cats[thing["category_id"]]["name"]
        seen[thing["id"]] = Seen(thing["id"], noun, centre_px(mask.any(0)), centre_px(mask.any(1)), int(mask.sum()))
    for reference in references(folder):
        things = [seen[i] for i in coco.getAnnIds(reference["image_id"])]
        targets = [seen[i] for i in reference["ann_id"] if i != -1]
        yield Told(kinds[sample_id(reference)], reference["sentences"][0]["sent"], targets, things)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("few"), FEW)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Told]:
    return list(read(draw(tmp_path_factory.mktemp("many"), MANY, seed=2)))


def test_pycocotools_reads_the_things(few: Path) -> None:
    coco = COCO(str(few / "grefcoco" / "instances.json"))
    assert len(coco.imgs) == FEW
    for image in coco.loadImgs(coco.getImgIds()):
        assert Image.open(few / "train2014" / image["file_name"]).size == (image["width"], image["height"])
        things = coco.loadAnns(coco.getAnnIds(image["id"]))
        masks = [coco.annToMask(thing) for thing in things]
        assert 2 <= len(things) <= 6
        assert np.sum(masks, axis=0).max() == 1, "no pixel is of two things"
        for thing, mask in zip(things, masks, strict=True):
            left, top, width, height = (int(value) for value in thing["bbox"])
            assert mask.sum() == thing["area"] >= 80
            assert mask[top : top + height, left : left + width].sum() == thing["area"], "the box has all of it"


def test_our_reader_finds_every_truth(few: Path) -> None:
    dataset = BENCHMARKS["grefcoco"].open("val", few, few / "train2014")
    coco = COCO(str(few / "grefcoco" / "instances.json"))
    kinds = json.loads((few / "kinds.json").read_text())
    by_id = {sample_id(reference): reference for reference in references(few)}
    samples = [sample for index in range(len(dataset)) for sample in dataset[index].samples]
    assert len(dataset) == FEW
    assert {sample.id for sample in samples} == set(by_id)
    assert set(kinds) == set(by_id)
    assert len({kind.startswith("absent-") for kind in kinds.values()}) == 2, "there should be phrases of both sorts"
    for sample in samples:
        reference, truth = by_id[sample.id], sample.truth()
        is_absent = kinds[sample.id].startswith("absent-")
        assert reference["no_target"] == (reference["ann_id"] == [-1]) == is_absent
        assert truth.any() == (not is_absent)
        meant = coco.loadAnns([index for index in reference["ann_id"] if index != -1])
        assert {thing["image_id"] for thing in meant} <= {reference["image_id"]}
        assert truth.sum() == sum(thing["area"] for thing in meant)
        assert all(truth[coco.annToMask(thing) > 0].all() for thing in meant)


def test_the_seed_says_what_is_drawn(few: Path, tmp_path: Path) -> None:
    again, other = contents(draw(tmp_path / "again", FEW)), contents(draw(tmp_path / "other", FEW, seed=3))
    assert again == contents(few)
    assert again.keys() == other.keys()
    assert all(again[name] != other[name] for name in again)


def test_seed_70213_is_what_it_was_when_its_figure_was_taken(few: Path) -> None:
    images = COCO(str(few / "grefcoco" / "instances.json")).imgs
    said: dict[int, list[str]] = {}
    for reference in references(few):
        said.setdefault(reference["image_id"], []).append(reference["sentences"][0]["sent"])
    assert [(images[i]["width"], images[i]["height"], said[i]) for i in (1, 2, 3)] == [
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
            assert [understood(told.text, told.same).id] == [thing.id for thing in told.targets], told.text
            checked[told.kind] += 1
    assert len(checked) == 3
    assert sum(checked.values()) >= 30


def understood(text: str, things: Sequence[Seen]) -> Seen:
    """Understand a phrase about one of several things of a noun."""
    assert len(things) > 1
    words = text
    for name in sorted((name.text for name in names_of(things[0].noun)), key=len, reverse=True):
        words = words.replace(name, "")  # it may have a word for a place: "top hat", "high heel"
    from_left, from_top = sorted(things, key=lambda t: t.x_px), sorted(things, key=lambda t: t.y_px)
    from_small = sorted(things, key=lambda t: t.area_px)
    if re.search("middle|central|between", words):
        assert len(things) == 3
        width_px, height_px = from_left[-1].x_px - from_left[0].x_px, from_top[-1].y_px - from_top[0].y_px
        return from_left[1] if width_px > height_px else from_top[1]
    corner = re.search("(top|upper|bottom|lower) (left|right)", words)
    if corner:
        down, across = (1 if word in ("bottom", "lower", "right") else -1 for word in corner.groups())
        return max(things, key=lambda t: down * t.y_px + across * t.x_px)
    place = next((i for i, ordinal in enumerate(("first", "second", "third")) if ordinal in words), 0)
    for pattern, order in (
        ("left", from_left),
        ("right", from_left[::-1]),
        ("top|upper|high", from_top),
        ("bottom|low", from_top[::-1]),
        ("small|littl|tini", from_small),
        ("big|large", from_small[::-1]),
    ):
        if re.search(pattern, words):
            return order[place]
    raise AssertionError(f"{text!r} says nothing about place or size")


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


def test_a_font_that_cannot_be_had_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    font = tmp_path / "font.ttf"
    assert main(["--count", "1", "--out", str(tmp_path / "out"), "--font", str(font)]) == 1
    error = capsys.readouterr().err
    assert str(font) in error
    assert "make font" in error
    assert not (tmp_path / "out").exists()
