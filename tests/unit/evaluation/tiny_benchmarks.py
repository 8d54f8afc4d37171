"""Benchmarks in their real formats, but with three images, and models that answer what a test wants."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ssp_sam.errors import InvalidArgumentError
from ssp_sam.evaluation.datasets import Dataset
from ssp_sam.results import BoolMask, Segmentation

HEIGHT, WIDTH = 40, 60
IMAGE_IDS = (72, 581857, 3)


def box_mask(left: int, top: int, right: int, bottom: int, hw: tuple[int, int] = (HEIGHT, WIDTH)) -> BoolMask:
    mask = np.zeros(hw, dtype=np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def polygon(left: int, top: int, right: int, bottom: int) -> list[float]:
    """A box as COCO writes polygons down: corners between pixels."""
    return [float(value) for value in (left, top, right, top, right, bottom, left, bottom)]


def runs(mask: BoolMask) -> dict[str, Any]:
    """Uncompressed run lengths, column by column, which begin with a run of zeros."""
    counts, value, length = [], False, 0
    for pixel in mask.ravel(order="F"):
        if pixel != value:
            counts.append(length)
            value, length = bool(pixel), 0
        length += 1
    return {"size": list(mask.shape), "counts": [*counts, length]}


def compressed_runs(mask: BoolMask) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


# annotation id -> (image id, segmentation, truth)
ANNOTATIONS: dict[int, tuple[int, Any, BoolMask]] = {
    11: (72, [polygon(5, 5, 20, 25)], box_mask(5, 5, 20, 25)),
    12: (
        72,
        [polygon(30, 0, 40, 10), polygon(35, 5, 50, 20)],
        box_mask(30, 0, 40, 10) | box_mask(35, 5, 50, 20),
    ),
    13: (581857, runs(box_mask(0, 0, 7, 40)), box_mask(0, 0, 7, 40)),
    14: (581857, compressed_runs(box_mask(20, 20, 60, 40)), box_mask(20, 20, 60, 40)),
    15: (
        3,
        [compressed_runs(box_mask(1, 1, 4, 4)), runs(box_mask(50, 30, 60, 40))],
        box_mask(1, 1, 4, 4) | box_mask(50, 30, 60, 40),
    ),
}


def ref(ref_id: int, annotation_ids: Any, image_id: int, split: str, *sentences: str) -> dict[str, Any]:
    return {
        "ref_id": ref_id,
        "ann_id": annotation_ids,
        "category_id": 1,
        "image_id": image_id,
        "split": split,
        "file_name": f"COCO_train2014_{image_id:012d}_0.jpg",
        "sent_ids": [10 * ref_id + number for number in range(len(sentences))],
        "sentences": [
            {"sent_id": 10 * ref_id + number, "sent": sentence, "raw": sentence.upper(), "tokens": sentence.split()}
            for number, sentence in enumerate(sentences)
        ],
    }


REFS = [
    ref(0, 11, 72, "val", "left box", "the box"),
    ref(1, 13, 581857, "testA", "strip"),
    ref(2, 12, 72, "val", "two parts"),
    ref(3, 14, 581857, "testAB", "corner"),
    ref(4, 15, 3, "train", "far apart"),
]


def write_images(folder: Path, name: Callable[[int], str]) -> None:
    folder.mkdir(parents=True)
    for image_id in IMAGE_IDS:
        shade = np.random.default_rng(image_id).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(shade).save(folder / name(image_id), quality=95)


def coco_name(image_id: int) -> str:
    return f"COCO_train2014_{image_id:012d}.jpg"


def clef_name(image_id: int) -> str:
    return f"{image_id}.jpg"


def instances(name: Callable[[int], str] = coco_name, crowd: Sequence[int] = ()) -> dict[str, Any]:
    return {
        "info": {},
        "images": [{"id": i, "file_name": name(i), "height": HEIGHT, "width": WIDTH} for i in IMAGE_IDS],
        "annotations": [
            {"id": key, "image_id": image_id, "segmentation": segmentation, "iscrowd": int(key in crowd)}
            for key, (image_id, segmentation, _) in ANNOTATIONS.items()
        ],
        "categories": [{"id": 1, "name": "box"}],
    }


def write_refer(root: Path, folder: str = "refcoco", by: str = "unc", protocol: int = 2) -> Path:
    """RefCOCO's own format; `root` is returned."""
    clef = folder == "refclef"
    name = clef_name if clef else coco_name
    (root / folder).mkdir(parents=True)
    (root / folder / "instances.json").write_text(json.dumps(instances(name)))
    (root / folder / f"refs({by}).p").write_bytes(pickle.dumps(REFS, protocol=protocol))
    write_images(root / "images" / ("saiapr_tc-12" if clef else "train2014"), name)
    return root


def write_grefcoco(root: Path) -> Path:
    refs = [
        ref(0, [11, 12], 72, "val", "both boxes"),
        ref(1, [-1], 72, "val", "nothing here"),
        ref(2, -1, 581857, "val", "nothing there"),
        ref(3, [13, 14], 581857, "val", "not the crowd"),
        ref(4, 15, 3, "testA", "far apart"),
    ]
    (root / "grefcoco").mkdir(parents=True)
    (root / "grefcoco" / "instances.json").write_text(json.dumps(instances(crowd=[14])))
    (root / "grefcoco" / "grefs(unc).json").write_text(json.dumps(refs))
    write_images(root / "images" / "mscoco" / "images" / "train2014", coco_name)
    return root


def write_phrasecut(root: Path) -> Path:
    tasks = [
        {
            "task_id": "72__1",
            "image_id": 72,
            "phrase": "wheels",
            "Polygons": [
                [[[2.7, 3.2], [9.9, 3.9], [9.1, 8.5], [2.2, 8.8]]],
                [[[30, 30], [35, 30], [35, 35]], [[1, 1]]],
            ],
        },
        {"task_id": "3__9", "image_id": 3, "phrase": "sky", "Polygons": [[[[0, 0], [59, 0], [59, 9], [0, 9]]]]},
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "refer_miniv.json").write_text(json.dumps(tasks))
    write_images(root / "images" / "VG_100K", clef_name)
    return root


def write_prepared(root: Path, name: str = "refcoco", masks: str | None = None) -> Path:
    """What the release's scripts make of `REFS`: a sample a sentence but in "train"; masks may hold a 2."""
    by_split: dict[str, list[Any]] = {"val": [], "train": []}
    (root / "anns").mkdir(parents=True)
    folder = root / "masks" / (masks or name)
    folder.mkdir(parents=True)
    for entry in REFS:
        sentences = [sentence["sent"] for sentence in entry["sentences"]]
        split = "train" if entry["split"] == "train" else "val"
        for refs in [sentences] if split == "train" else [[sentence] for sentence in sentences]:
            by_split[split].append(
                {"iid": entry["image_id"], "bbox": [0, 0, 1, 1], "cat_id": 0, "refs": refs, "mask_id": entry["ref_id"]}
            )
        np.save(folder / f"{entry['ref_id']}.npy", 2 * ANNOTATIONS[entry["ann_id"]][2].astype(np.uint8))
    (root / "anns" / f"{name}.json").write_text(json.dumps(by_split))
    write_images(root / "images" / "train2014", coco_name)
    return root


Answer = Callable[[BoolMask, str], BoolMask]
"""From the truth and the phrase to the mask that a model answers."""


def right(truth: BoolMask, phrase: str) -> BoolMask:
    return truth


def nothing(truth: BoolMask, phrase: str) -> BoolMask:
    return np.zeros_like(truth)


def noisy(truth: BoolMask, phrase: str) -> BoolMask:
    """Moved and with pixels flipped, for some phrases empty; the same for the same phrase."""
    rng = np.random.default_rng(list(phrase.encode()))
    if rng.random() < 0.2:
        return np.zeros_like(truth)
    shift = tuple(int(value) for value in rng.integers(-6, 7, 2))
    mask: BoolMask = np.roll(truth, shift, axis=(0, 1)) ^ (rng.random(truth.shape) < rng.choice([0.0, 0.02]))
    return mask


@dataclass
class StubSegmenter:
    """A model that knows the truth of a data set and answers what `answer` makes of it.

    An empty phrase is refused as the real ones do it. fails_after: images until it raises KeyboardInterrupt.
    """

    dataset: Dataset
    answer: Answer = right
    identity: dict[str, Any] = field(default_factory=lambda: {"stub": 1})
    concurrency: int = 2
    fails_after: int | None = None
    images: list[Any] = field(default_factory=list)
    closed: bool = False

    def about(self, image: Any) -> Callable[[Sequence[str]], list[Segmentation]]:
        if self.fails_after is not None and len(self.images) >= self.fails_after:
            raise KeyboardInterrupt
        self.images.append(image)
        entries = (self.dataset[index] for index in range(len(self.dataset)))
        samples = next(entry.samples for entry in entries if np.array_equal(entry.unturned(), image))
        truths = {sample.phrase: sample.truth() for sample in samples}
        return partial(self._answers, truths)

    def close(self) -> None:
        self.closed = True

    def _answers(self, truths: dict[str, BoolMask], phrases: Sequence[str]) -> list[Segmentation]:
        if not all(phrases):
            raise InvalidArgumentError("a phrase is empty")
        masks = [self.answer(truths[phrase], phrase) for phrase in phrases]
        return [
            Segmentation(phrase, mask, np.zeros(4, np.float32), 0.75, not mask.any(), int(mask.sum()))
            for phrase, mask in zip(phrases, masks, strict=True)
        ]
