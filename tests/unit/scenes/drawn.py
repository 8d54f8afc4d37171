"""Reads the files of drawn test scenes back, apart from what wrote them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from ssp_sam.results import BoolMask

FEW, MANY = 6, 40

Main = Callable[[Sequence[str] | None], int]


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


def draw(main: Main, out: Path, count: int, seed: int) -> Path:
    assert main(["--count", str(count), "--seed", str(seed), "--out", str(out)]) == 0
    return out


def references(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "grefcoco" / "grefs(unc).json").read_text())


def sample_id(reference: dict[str, Any]) -> str:
    return f"{reference['ref_id']}.{reference['sent_ids'][0]}"


def kinds(folder: Path) -> dict[str, str]:
    return json.loads((folder / "kinds.json").read_text())


def instances(folder: Path) -> COCO:
    return COCO(str(folder / "grefcoco" / "instances.json"))


def sizes_and_phrases(folder: Path, image_ids: Sequence[int]) -> list[tuple[int, int, list[str]]]:
    """Width, height and phrases of images."""
    images = instances(folder).imgs
    said: dict[int, list[str]] = {}
    for reference in references(folder):
        said.setdefault(reference["image_id"], []).append(reference["sentences"][0]["sent"])
    return [(images[i]["width"], images[i]["height"], said[i]) for i in image_ids]


def read(folder: Path) -> Iterator[Told]:
    coco, kind = instances(folder), kinds(folder)
    seen: dict[int, Seen] = {}
    for thing in coco.anns.values():
        mask = coco.annToMask(thing).astype(bool)
        noun = coco.cats[thing["category_id"]]["name"]
        seen[thing["id"]] = Seen(thing["id"], noun, centre_px(mask.any(0)), centre_px(mask.any(1)), int(mask.sum()))
    for reference in references(folder):
        things = [seen[i] for i in coco.getAnnIds(reference["image_id"])]
        targets = [seen[i] for i in reference["ann_id"] if i != -1]
        yield Told(kind[sample_id(reference)], reference["sentences"][0]["sent"], targets, things)


def centre_px(is_seen: BoolMask) -> float:
    """The middle between the first and the last place where there is something."""
    places = [i for i, value in enumerate(is_seen) if value]
    return (places[0] + places[-1] + 1) / 2


def understood(text: str, things: Sequence[Seen], names: Sequence[str]) -> Seen:
    """Understand a phrase about one of several things of a noun. names: what such a thing may be called."""
    assert len(things) > 1
    assert any(name in text for name in names), text
    words = text
    for name in sorted(names, key=len, reverse=True):
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
