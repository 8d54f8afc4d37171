"""PhraseCut in its own format: `refer_<split>.json` and images of Visual Genome."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from ssp_sam.evaluation.datasets.samples import DatasetError, ListedDataset, Sample, read_json
from ssp_sam.evaluation.datasets.segmentations import polygons_mask
from ssp_sam.evaluation.datasets.source import Source
from ssp_sam.results import BoolMask


def read_phrasecut(source: Source) -> ListedDataset:
    """Read a split; raises DatasetError."""
    name, *_ = candidates = tasks_files(source.split)
    path = source.file(*candidates)
    tasks, digest = read_json(path)
    try:
        entries = list(_entries(tasks, source.image_folder()))
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path} is no list of PhraseCut's tasks: {type(error).__name__}: {error}") from error
    return ListedDataset(entries, {name: digest}, source.hint)


def tasks_files(split: str) -> tuple[str, ...]:
    """Return where the tasks of a split may lie under the root, the name alone first."""
    name = f"refer_{split}.json"
    return name, f"VGPhraseCut_v0/{name}", f"data/VGPhraseCut_v0/{name}"


def genome_image_path(folder: Path, image_id: int | str, part: str = "") -> Path:
    """Return the path of an image of Visual Genome: right in `folder`, or in one of the two folders it comes in."""
    name = f"{image_id}.jpg"
    candidates = [folder / place / name for place in filter(None, (part, "VG_100K", "VG_100K_2"))]
    return next((path for path in candidates if path.is_file()), folder / name)


def _entries(tasks: Sequence[Any], image_folder: Path) -> Iterator[tuple[Path, Sample]]:
    for task in tasks:
        path = genome_image_path(image_folder, task["image_id"])
        polygons = list(chain.from_iterable(task["Polygons"]))  # of all instances
        yield path, Sample(str(task["task_id"]), task["phrase"], partial(_truth, polygons, path))


def _truth(polygons: Sequence[Sequence[Sequence[float]]], image_path: Path) -> BoolMask:
    with Image.open(image_path) as image:  # reads the header alone
        return polygons_mask(polygons, image.height, image.width)
