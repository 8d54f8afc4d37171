"""Files in gRefCOCO's format of scenes that were drawn, and the command line of what draws them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from benchmarks.emoji_font import FONT
from ssp_sam.results import BoolMask

_JPEG_QUALITY = 92
_NO_TARGET = [-1]

Json = dict[str, Any]


class SeenThing(Protocol):
    """A thing of a scene. mask: what is seen of it, (H, W); box_xyxy_px: around that."""

    @property
    def noun(self) -> str:
        """What it is."""

    @property
    def mask(self) -> BoolMask:
        """What is seen of it."""

    @property
    def box_xyxy_px(self) -> tuple[float, float, float, float]:
        """What that lies in."""


class Said(Protocol):
    """A phrase with its answer. targets: indices of the things that it means, none for what is not there."""

    @property
    def kind(self) -> str:
        """Of what kind it is."""

    @property
    def text(self) -> str:
        """The phrase."""

    @property
    def targets(self) -> Collection[int]:
        """The things that it means."""


class GrefcocoFiles:
    """The files of a data set: images are written as they are added, the rest at the end."""

    def __init__(self, folder: Path, nouns: Sequence[str]) -> None:
        self._category_ids = {noun: number for number, noun in enumerate(nouns, 1)}
        self._data, self._image_folder = folder / "grefcoco", folder / "train2014"
        self._kinds_file = folder / "kinds.json"
        self._images: list[Json] = []
        self._annotations: list[Json] = []
        self._references: list[Json] = []
        self._kinds: dict[str, str] = {}
        for each in (self._data, self._image_folder):
            each.mkdir(parents=True, exist_ok=True)

    def add(self, image_id: int, picture: Image.Image, things: Sequence[SeenThing], phrases: Sequence[Said]) -> None:
        """Add a scene and what is said of it."""
        name = f"scene_{image_id:06d}.jpg"
        picture.save(self._image_folder / name, quality=_JPEG_QUALITY)
        image = {"id": image_id, "file_name": name, "height": picture.height, "width": picture.width}
        self._images.append(image)
        annotations = [self._annotation(image_id, index, thing) for index, thing in enumerate(things)]
        self._annotations += annotations
        for phrase in phrases:
            self._add_reference(image, phrase, [annotations[index] for index in sorted(phrase.targets)])

    def counts(self) -> str:
        """Say how much there is."""
        return f"{len(self._images)} images, {len(self._annotations)} things, {len(self._references)} phrases"

    def write(self) -> None:
        """Write all but the images."""
        categories = [{"id": i, "name": noun, "supercategory": "thing"} for noun, i in self._category_ids.items()]
        instances = {"images": self._images, "annotations": self._annotations, "categories": categories}
        for path, content in (
            (self._data / "instances.json", instances),
            (self._data / "grefs(unc).json", self._references),
            (self._kinds_file, self._kinds),
        ):
            path.write_text(json.dumps(content), encoding="utf-8")

    def _annotation(self, image_id: int, index: int, thing: SeenThing) -> Json:
        """Return a thing of the image that is being added. index: among its things."""
        runs = coco_mask.encode(np.asfortranarray(thing.mask.astype(np.uint8)))
        left, top, right, bottom = thing.box_xyxy_px
        return {
            "id": len(self._annotations) + 1 + index,
            "image_id": image_id,
            "category_id": self._category_ids[thing.noun],
            "segmentation": {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")},
            "iscrowd": 0,
            "area": int(thing.mask.sum()),
            "bbox": [left, top, right - left, bottom - top],
        }

    def _add_reference(self, image: Json, phrase: Said, meant: Sequence[Json]) -> None:
        number = len(self._references) + 1
        text = phrase.text
        self._references.append(
            {
                "ref_id": number,
                "image_id": image["id"],
                "split": "val",
                "file_name": image["file_name"],
                "ann_id": [annotation["id"] for annotation in meant] or _NO_TARGET,
                "no_target": not meant,
                "sentences": [{"sent_id": number, "sent": text, "raw": text, "tokens": text.split()}],
                "sent_ids": [number],
                "kind": phrase.kind,
                "category_id": [annotation["category_id"] for annotation in meant] or _NO_TARGET,
            }
        )
        self._kinds[f"{number}.{number}"] = phrase.kind


def parse_options(
    argv: Sequence[str] | None, *, module: str, description: str | None, count: int, seed: int
) -> argparse.Namespace:
    """Return count, seed, out and font; wrong usage exits with 2. count, seed: their defaults."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=count, help="how many scenes to draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=seed, help="which scenes, from 0 up (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--font", type=Path, default=FONT, metavar="FILE", help="emoji font (default: %(default)s)")
    options = parser.parse_args(argv)
    for name, least in (("count", 1), ("seed", 0)):
        value = getattr(options, name)
        if value < least:
            parser.error(f"--{name} is {value}; at least {least}")
    return options
