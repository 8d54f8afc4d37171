"""Any benchmark as the release's scripts prepare it: `anns/<set>.json` and `masks/<set>/<mask_id>.npy`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssp_sam.evaluation.datasets.samples import DatasetError, ListedDataset, Sample, read_json
from ssp_sam.evaluation.datasets.source import Source
from ssp_sam.results import BoolMask

_MASKS_HINT = "the release's data_seg/data_process.py writes masks with --generate_mask"

ImagePath = Callable[[Path, Mapping[str, Any]], Path]
"""From the folder of the images and an annotation to the image's file."""


def read_prepared(source: Source, name: str, image_path: ImagePath) -> ListedDataset:
    """Read a split of the set that the release calls `name`, one sample a sentence; raises DatasetError."""
    path = source.file(f"anns/{name}.json")
    by_split, digest = read_json(path)
    if source.split not in by_split:
        raise DatasetError(f"{path} has no split {source.split!r}; it has {', '.join(by_split)}")
    masks = source.file(f"masks/{name}", f"masks/{name}_mask")
    try:
        entries = list(_entries(by_split[source.split], masks, partial(image_path, source.image_folder())))
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path} is not in the release's form: {type(error).__name__}: {error}") from error
    return ListedDataset(entries, {f"anns/{name}.json": digest}, source.hint)


def _entries(
    annotations: Sequence[Mapping[str, Any]], masks: Path, image_path: Callable[[Mapping[str, Any]], Path]
) -> Iterator[tuple[Path, Sample]]:
    for number, annotation in enumerate(annotations):
        truth = partial(_load_mask, masks / f"{annotation['mask_id']}.npy")
        for position, phrase in enumerate(annotation["refs"]):
            yield image_path(annotation), Sample(f"{number}.{position}", phrase, truth)


def _load_mask(path: Path) -> BoolMask:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DatasetError(f"the mask {path} is missing; {_MASKS_HINT}") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is no mask: {error}") from error
    if array.ndim != 2:
        raise DatasetError(f"{path} holds an array of shape {array.shape}; a mask is (H, W)")
    mask: BoolMask = array > 0  # where polygons of one thing overlap the release adds them up
    return mask
