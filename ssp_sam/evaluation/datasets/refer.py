"""RefCOCO, RefCOCO+, RefCOCOg, RefCLEF and gRefCOCO in their own format: `instances.json` and a list of references."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssp_sam.evaluation.datasets.pickles import load_plain_pickle
from ssp_sam.evaluation.datasets.samples import DatasetError, Json, ListedDataset, Sample, read_json
from ssp_sam.evaluation.datasets.segmentations import coco_segmentation_mask
from ssp_sam.evaluation.datasets.source import Source
from ssp_sam.results import BoolMask

NO_TARGET_ID = -1


def read_refer(source: Source, folder: str, refs_files: Sequence[str]) -> ListedDataset:
    """Read `<folder>/instances.json` and the first of `refs_files` beside it (or both right in the root).

    One sample a sentence. Raises DatasetError.
    """
    refs_path = source.file(*(f"{place}{name}" for place in (f"{folder}/", "") for name in refs_files))
    instances_path = source.file(str((refs_path.parent / "instances.json").relative_to(source.root)))
    refs, refs_digest = _read_refs(refs_path)
    instances, instances_digest = read_json(instances_path)
    try:
        chosen = [ref for ref in refs if belongs_to(source.split, ref["split"])]
        if not chosen:
            splits = ", ".join(sorted({ref["split"] for ref in refs}))
            raise DatasetError(f"{refs_path} has no reference of split {source.split!r}; it has {splits}")
        entries = list(_entries(chosen, instances, source.image_folder()))
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"{refs_path} and {instances_path} do not fit: {type(error).__name__}: {error}; {source.hint}"
        ) from error
    return ListedDataset(entries, {"refs": refs_digest, "instances": instances_digest}, source.hint)


def belongs_to(split: str, ref_split: str) -> bool:
    """Say whether a reference marked `ref_split` is of `split`.

    As the field's loader has it: "test" is all test splits, and RefCLEF marks "testAB" what is of testA and of testB.
    """
    if split == "test":
        return "test" in ref_split
    if split.startswith("test"):
        return ref_split.startswith("test") and split.removeprefix("test") in ref_split.removeprefix("test")
    return ref_split == split


def _read_refs(path: Path) -> tuple[Json, str]:
    if path.suffix == ".json":
        return read_json(path)
    refs, data = load_plain_pickle(path)
    return refs, hashlib.sha256(data).hexdigest()


def _entries(
    refs: Sequence[Mapping[str, Any]], instances: Mapping[str, Any], image_folder: Path
) -> Iterator[tuple[Path, Sample]]:
    images = {image["id"]: image for image in instances["images"]}
    wanted = {annotation_id for ref in refs for annotation_id in _annotation_ids(ref)}
    # Only what this split needs is kept: the whole of the annotations has hundreds of megabytes.
    segmentations = {
        annotation["id"]: None if annotation.get("iscrowd") else annotation["segmentation"]
        for annotation in instances["annotations"]
        if annotation["id"] in wanted
    }
    for ref in refs:
        image = images[ref["image_id"]]
        parts = [segmentations[annotation_id] for annotation_id in _annotation_ids(ref)]
        truth = partial(_truth, [part for part in parts if part is not None], image["height"], image["width"])
        for sentence in ref["sentences"]:
            identity = f"{ref['ref_id']}.{sentence['sent_id']}"
            yield image_folder / image["file_name"], Sample(identity, sentence["sent"], truth)


def _annotation_ids(ref: Mapping[str, Any]) -> list[int]:
    ids = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    return [annotation_id for annotation_id in ids if annotation_id != NO_TARGET_ID]


def _truth(segmentations: Sequence[Any], height: int, width: int) -> BoolMask:
    mask = np.zeros((height, width), dtype=np.bool_)
    for segmentation in segmentations:
        mask |= coco_segmentation_mask(segmentation, height, width)
    return mask
