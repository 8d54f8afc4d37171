"""The benchmarks by name: where their files are, how they are read, and which figures the field reports on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssp_sam.evaluation.datasets.phrasecut import genome_image_path, read_phrasecut, tasks_files
from ssp_sam.evaluation.datasets.prepared import ImagePath, read_prepared
from ssp_sam.evaluation.datasets.refer import read_refer
from ssp_sam.evaluation.datasets.samples import Dataset, DatasetError
from ssp_sam.evaluation.datasets.source import Source

FORMATS = ("auto", "original", "prepared")

SINGLE_TARGET = ("mIoU", "oIoU", "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9")
ANY_TARGETS = ("gIoU", "cIoU", "N-acc", "T-acc", "Pr@0.7", "Pr@0.8", "Pr@0.9")
SCENE_FIGURES = ("gIoU", "cIoU", "mIoU", "oIoU", "N-acc", "T-acc", "Pr@0.5", "Pr@0.7", "Pr@0.8", "Pr@0.9")

_COCO_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "coco/train2014", "train2014")
_CLEF_FOLDERS = ("images/saiapr_tc-12", "images/refclef", "saiapr_tc-12", "referit/images")
_GENOME_FOLDERS = ("images", "VGPhraseCut_v0/images", "data/VGPhraseCut_v0/images", "images/VG", "vg", "VG")

_REFER = "annotations: https://github.com/lichengunc/refer"
_COCO = "images: train2014 of https://cocodataset.org/#download"


def _coco_path(folder: Path, annotation: Mapping[str, Any]) -> Path:
    return folder / f"COCO_train2014_{annotation['iid']:012d}.jpg"


def _clef_path(folder: Path, annotation: Mapping[str, Any]) -> Path:
    return folder / f"{annotation['iid']}.jpg"


def _genome_path(folder: Path, annotation: Mapping[str, Any]) -> Path:
    return genome_image_path(folder, annotation["iid"], annotation.get("img_folder", ""))


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, and how its files are named.

    figures: what the field reports, by the names of `Metrics.to_json`. strict_precision: Pr@t asks for an IoU above t,
    not of at least t. folder, refs_files: of the original format; "" where it has none of the kind. prepared: the
    release's name of the set. hint: where the data set can be had.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    folder: str
    refs_files: tuple[str, ...]
    prepared: str
    image_folders: tuple[str, ...]
    image_path: ImagePath
    hint: str
    figures: tuple[str, ...] = SINGLE_TARGET
    strict_precision: bool = False

    def open(self, split: str, root: str | Path, images: str | Path | None = None, form: str = "auto") -> Dataset:
        """Read a split.

        root: folder of the data; images: folder of the image files, if they are not under `root` where the field keeps
        them; form: one of `FORMATS`, where "auto" takes the original one if it is there. Raises DatasetError.
        """
        if split not in self.splits:
            raise DatasetError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        if form not in FORMATS:
            raise DatasetError(f"no format {form!r}; there are {', '.join(FORMATS)}")
        hint = f"{self.title} is to be had here: {self.hint}"
        image_folder = None if images is None else Path(images)
        source = Source(self.title, split, Path(root), image_folder, self.image_folders, hint)
        if form == "prepared" or (form == "auto" and self._is_only_prepared(source)):
            return read_prepared(source, self.prepared, self.image_path)
        return read_refer(source, self.folder, self.refs_files) if self.refs_files else read_phrasecut(source)

    def _is_only_prepared(self, source: Source) -> bool:
        if not (source.root / "anns" / f"{self.prepared}.json").is_file():
            return False
        originals = (self.folder, "instances.json", *tasks_files(source.split))
        return not any((source.root / name).exists() for name in originals if name)


def _coco(name: str, title: str, folder: str, by: str, *splits: str, prepared: str) -> Benchmark:
    return Benchmark(
        name, title, splits, folder, (f"refs({by}).p",), prepared, _COCO_FOLDERS, _coco_path, f"{_REFER}; {_COCO}"
    )


def _clef(by: str, title: str, *splits: str) -> Benchmark:
    hint = f"{_REFER}; images: saiapr_tc-12, see there"
    return Benchmark(
        f"refclef-{by}", title, splits, "refclef", (f"refs({by}).p",), "refclef", _CLEF_FOLDERS, _clef_path, hint
    )


BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        _coco("refcoco", "RefCOCO", "refcoco", "unc", "val", "testA", "testB", "test", "train", prepared="refcoco"),
        _coco("refcoco+", "RefCOCO+", "refcoco+", "unc", "val", "testA", "testB", "test", "train", prepared="refcoco+"),
        _coco("refcocog-umd", "RefCOCOg (UMD)", "refcocog", "umd", "val", "test", "train", prepared="refcocog_umd"),
        _coco("refcocog-google", "RefCOCOg (Google)", "refcocog", "google", "val", "train", prepared="refcocog_google"),
        _clef("berkeley", "ReferIt (RefCLEF, Berkeley)", "val", "test", "train"),
        _clef("unc", "ReferIt (RefCLEF, UNC)", "val", "testA", "testB", "testC", "test", "train"),
        Benchmark(
            "grefcoco",
            "gRefCOCO",
            ("val", "testA", "testB", "train"),
            "grefcoco",
            ("grefs(unc).json", "grefs(unc).p"),
            "grefcoco",
            _COCO_FOLDERS,
            _coco_path,
            f"annotations: https://github.com/henghuiding/gRefCOCO; {_COCO}",
            figures=ANY_TARGETS,
        ),
        Benchmark(
            "phrasecut",
            "PhraseCut",
            ("val", "test", "miniv", "train"),
            "",
            (),
            "phrase_cut",
            _GENOME_FOLDERS,
            _genome_path,
            "https://github.com/ChenyunWu/PhraseCutDataset",
            figures=("mIoU", "cIoU", "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9"),
            strict_precision=True,
        ),
    )
}
