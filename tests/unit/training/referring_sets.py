"""RefCOCO and gRefCOCO in their own formats, small: four images of boxes, two of them to learn from."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 80
# image id -> split, and boxes (left, top, right, bottom); annotations are 10 * image + place.
IMAGES: dict[int, tuple[str, list[tuple[int, int, int, int]]]] = {
    1: ("train", [(4, 6, 30, 40), (44, 10, 76, 42)]),
    2: ("train", [(10, 4, 40, 30)]),
    3: ("val", [(30, 12, 70, 44)]),
    4: ("val", [(2, 2, 24, 24)]),
}


def _ref(ref_id: int, ann_id: Any, image_id: int, *sentences: str) -> dict[str, Any]:
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "category_id": 1,
        "image_id": image_id,
        "split": IMAGES[image_id][0],
        "sentences": [{"sent_id": 10 * ref_id + n, "sent": sent} for n, sent in enumerate(sentences)],
    }


def write_sets(root: Path) -> Path:
    """Write both sets with their images; return `root`."""
    images, annotations = [], []
    (root / "images" / "train2014").mkdir(parents=True)
    for image_id, (_, boxes) in IMAGES.items():
        name = f"COCO_train2014_{image_id:012d}.jpg"
        pixels = np.random.default_rng(image_id).integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for place, (left, top, right, bottom) in enumerate(boxes):
            pixels[top:bottom, left:right, place % 3] = 250
            outline = [float(value) for value in (left, top, right, top, right, bottom, left, bottom)]
            annotation = {"id": 10 * image_id + place, "image_id": image_id, "iscrowd": 0, "segmentation": [outline]}
            annotations.append(annotation)
        Image.fromarray(pixels).save(root / "images" / "train2014" / name, quality=95)
        images.append({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH})
    instances = json.dumps({"images": images, "annotations": annotations, "categories": []})
    refs = [
        _ref(1, 10, 1, "the red box", "left one"),
        _ref(2, 11, 1, "the green box"),
        _ref(3, 20, 2, "the box", " "),  # the second cannot be tokenized
        _ref(4, 30, 3, "box on the right"),
        _ref(5, 40, 4, "small box", "box at the top"),
    ]
    grefs = [
        _ref(1, [10, 11], 1, "both boxes"),
        _ref(2, [-1], 1, "the dog"),
        _ref(3, [20], 2, "the box"),
        _ref(4, [30], 3, "a box"),
        _ref(5, [-1], 4, "two cats"),
    ]
    for folder in ("refcoco", "grefcoco"):
        (root / folder).mkdir()
        (root / folder / "instances.json").write_text(instances)
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (root / "grefcoco" / "grefs(unc).json").write_text(json.dumps(grefs))
    return root
