from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from benchmarks.other_scenes.__main__ import main
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


def draw(out: Path, count: int, seed: int = 1) -> Path:
    assert main(["--count", str(count), "--seed", str(seed), "--out", str(out)]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def references(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "grefcoco" / "grefs(unc).json").read_text())


def centre_px(is_seen: BoolMask) -> float:
    """The middle between the first and the last place where there is something."""
    places = [i for i, value in enumerate(is_seen) if value]
    return (places[0] + places[-1] + 1) / 2


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("few"), FEW)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("many"), MANY, seed=2)


def test_pycocotools_reads_the_things(few: Path) -> None:
    coco = COCO(str(few / "grefcoco" / "instances.json"))
    assert len(coco.imgs) == FEW
    for image in coco.loadImgs(coco.getImgIds()):
        assert Image.open(few / "train2014" / image["file_name"]).size == (image["width"], image["height"])
        things = coco.loadAnns(coco.getAnnIds(image["id"]))
        masks = [coco.annToMask(thing) for thing in things]
        assert 1 <= len(things) <= 6
        assert np.sum(masks, axis=0).max() == 1, "no pixel is of two things"
        for thing, mask in zip(things, masks, strict=True):
            left, top, width, height = (int(value) for value in thing["bbox"])
            assert mask.sum() == thing["area"] > 0
            assert mask[top : top + height, left : left + width].sum() == thing["area"], "the box has all of it"


def test_our_reader_finds_every_truth(few: Path) -> None:
    dataset = BENCHMARKS["grefcoco"].open("val", few, few / "train2014")
    coco = COCO(str(few / "grefcoco" / "instances.json"))
    kinds = json.loads((few / "kinds.json").read_text())
    by_id = {f"{reference['ref_id']}.{reference['sent_ids'][0]}": reference for reference in references(few)}
    samples = [sample for index in range(len(dataset)) for sample in dataset[index].samples]
    assert len(dataset) == FEW
    assert {sample.id for sample in samples} == set(kinds) == set(by_id)
    assert {"absent"} < set(kinds.values()), "there should be phrases of both sorts"
    for sample in samples:
        reference, truth = by_id[sample.id], sample.truth()
        assert reference["no_target"] == (reference["ann_id"] == [-1]) == (kinds[sample.id] == "absent")
        assert truth.any() == (not reference["no_target"])
        for thing in coco.loadAnns([index for index in reference["ann_id"] if index != -1]):
            assert thing["image_id"] == reference["image_id"]
            assert truth[coco.annToMask(thing) > 0].all()


def test_the_seed_says_what_is_drawn(few: Path, tmp_path: Path) -> None:
    again, other = contents(draw(tmp_path / "again", FEW)), contents(draw(tmp_path / "other", FEW, seed=3))
    assert again == contents(few)
    assert again.keys() == other.keys()
    assert all(again[name] != other[name] for name in again)


def test_seed_1_is_what_it_was_when_its_figure_was_taken(few: Path) -> None:
    images = COCO(str(few / "grefcoco" / "instances.json")).imgs
    said: dict[int, list[str]] = {}
    for reference in references(few):
        said.setdefault(reference["image_id"], []).append(reference["sentences"][0]["sent"])
    assert [(images[i]["width"], images[i]["height"], said[i]) for i in (1, 2, 3)] == [
        (376, 370, ["the higher t-shirt", "giraffe", "a penguin", "first t-shirt from the bottom"]),
        (548, 308, ["the teapots and the frog", "purple teapot", "third teapot from the left"]),
        (434, 344, ["the locomotive next to the sailboat", "the sunflower and the coat", "the wine glass at the top"]),
    ]


def test_positions_sizes_and_orders_are_those_of_the_masks(many: Path) -> None:
    coco = COCO(str(many / "grefcoco" / "instances.json"))
    checked = 0
    for reference in references(many):
        if reference["kind"] not in ("position", "size", "order"):
            continue
        (target,) = coco.loadAnns(reference["ann_id"])
        noun = coco.cats[target["category_id"]]["name"]
        things = []
        for thing in coco.loadAnns(coco.getAnnIds(reference["image_id"], target["category_id"])):
            mask = coco.annToMask(thing).astype(bool)
            things.append(Seen(thing["id"], noun, centre_px(mask.any(0)), centre_px(mask.any(1)), int(mask.sum())))
        text = reference["sentences"][0]["sent"]
        assert meant(text, things).id == target["id"], text
        checked += 1
    assert checked >= 30


def meant(text: str, things: Sequence[Seen]) -> Seen:
    """Understand a phrase about one of several things of a noun."""
    noun = things[0].noun
    assert noun in text
    assert len(things) > 1
    words = text.replace(noun, "")
    from_left, from_top = sorted(things, key=lambda t: t.x_px), sorted(things, key=lambda t: t.y_px)
    from_small = sorted(things, key=lambda t: t.area_px)
    if "middle" in words:
        middles = {order[1].id: order[1] for order in (from_left, from_top)}
        # It is the middle one of the longer way.
        width_px, height_px = from_left[-1].x_px - from_left[0].x_px, from_top[-1].y_px - from_top[0].y_px
        assert len(things) == 3
        return from_left[1] if len(middles) == 1 or width_px > height_px else from_top[1]
    place = next((i for i, ordinal in enumerate(("first", "second", "third")) if ordinal in words), 0)
    for pattern, order in (
        ("left", from_left),
        ("right", from_left[::-1]),
        ("top|upper|high", from_top),
        ("bottom|low", from_top[::-1]),
        ("small|littl", from_small),
        ("big|large", from_small[::-1]),
    ):
        if re.search(pattern, words):
            return order[place]
    raise AssertionError(f"{text!r} says nothing about place or size")


@pytest.mark.parametrize("content", [None, b"no font"])
def test_a_font_that_cannot_be_had_is_told(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    font = tmp_path / "font.ttf"
    if content:
        font.write_bytes(content)
    assert main(["--count", "1", "--out", str(tmp_path / "out"), "--font", str(font)]) == 1
    error = capsys.readouterr().err
    assert str(font) in error
    assert "make font" in error
    assert not (tmp_path / "out").exists()
