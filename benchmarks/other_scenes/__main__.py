"""Draw test scenes by another author, with phrases about them, as files in gRefCOCO's format.

    python -m benchmarks.other_scenes --count 500 --seed 1 --out build/other_scenes

OUT/grefcoco/instances.json and OUT/grefcoco/grefs(unc).json are the data set's files, of split val; OUT/train2014 has
the images; OUT/kinds.json says of what kind each phrase is, by the id that `scripts/evaluate.py` gives it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from benchmarks.other_scenes.draw import draw_scene
from benchmarks.other_scenes.glyphs import FONT, FontError, load_glyphs
from benchmarks.other_scenes.phrases import Phrase, choose_phrases
from benchmarks.other_scenes.scene import Scene, Thing

_JPEG_QUALITY = 92
_NO_TARGET = [-1]

Json = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed; argparse itself exits with 2."""
    options = _parse(argv)
    try:
        glyphs = load_glyphs(options.font)
        files = _Files(options.out, sorted(glyphs))
        for image_id in range(1, options.count + 1):
            _add_scene(files, np.random.default_rng([options.seed, image_id]), image_id, glyphs)
        files.write()
    except (FontError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{files.counts()}, {len(glyphs)} nouns")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.other_scenes",
        description=__doc__,
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=500, help="how many scenes to draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which scenes, from 0 up (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--font", type=Path, default=FONT, metavar="FILE", help="emoji font (default: %(default)s)")
    options = parser.parse_args(argv)
    for name, least in (("count", 1), ("seed", 0)):
        value = getattr(options, name)
        if value < least:
            parser.error(f"--{name} is {value}; at least {least}")
    return options


def _add_scene(files: _Files, rng: np.random.Generator, image_id: int, glyphs: Mapping[str, Image.Image]) -> None:
    scene = draw_scene(rng, glyphs)
    while not scene.things:
        scene = draw_scene(rng, glyphs)
    files.add(image_id, scene, choose_phrases(rng, scene, sorted(glyphs)))


class _Files:
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

    def add(self, image_id: int, scene: Scene, phrases: Sequence[Phrase]) -> None:
        """Add a scene and what is said of it."""
        name = f"scene_{image_id:06d}.jpg"
        picture = scene.picture
        picture.save(self._image_folder / name, quality=_JPEG_QUALITY)
        image = {"id": image_id, "file_name": name, "height": picture.height, "width": picture.width}
        self._images.append(image)
        annotations = [self._annotation(image_id, index, thing) for index, thing in enumerate(scene.things)]
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

    def _annotation(self, image_id: int, index: int, thing: Thing) -> Json:
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

    def _add_reference(self, image: Json, phrase: Phrase, meant: Sequence[Json]) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
