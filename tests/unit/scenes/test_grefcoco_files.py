from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn import FEW, Main, draw, instances, kinds, references, sample_id
from PIL import Image

from benchmarks.other_scenes.__main__ import main as other_scenes
from benchmarks.third_scenes.__main__ import main as third_scenes
from ssp_sam.evaluation.datasets.benchmarks import BENCHMARKS


@pytest.fixture(scope="module", params=[other_scenes, third_scenes], ids=["other", "third"])
def main(request: pytest.FixtureRequest) -> Main:
    return request.param


@pytest.fixture(scope="module")
def folder(main: Main, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(main, tmp_path_factory.mktemp("drawn"), FEW, seed=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pycocotools_reads_the_things(folder: Path) -> None:
    coco = instances(folder)
    assert len(coco.imgs) == FEW
    for image in coco.loadImgs(coco.getImgIds()):
        assert Image.open(folder / "train2014" / image["file_name"]).size == (image["width"], image["height"])
        things = coco.loadAnns(coco.getAnnIds(image["id"]))
        masks = [coco.annToMask(thing) for thing in things]
        assert 1 <= len(things) <= 6
        assert np.sum(masks, axis=0).max() == 1, "no pixel is of two things"
        for thing, mask in zip(things, masks, strict=True):
            left, top, width, height = (int(value) for value in thing["bbox"])
            assert mask.sum() == thing["area"] > 0
            assert mask[top : top + height, left : left + width].sum() == thing["area"], "the box has all of it"


def test_our_reader_finds_every_truth(folder: Path) -> None:
    dataset = BENCHMARKS["grefcoco"].open("val", folder, folder / "train2014")
    coco, kind = instances(folder), kinds(folder)
    by_id = {sample_id(reference): reference for reference in references(folder)}
    samples = [sample for index in range(len(dataset)) for sample in dataset[index].samples]
    assert len(dataset) == FEW
    assert {sample.id for sample in samples} == set(kind) == set(by_id)
    assert len({name.startswith("absent") for name in kind.values()}) == 2, "there should be phrases of both sorts"
    for sample in samples:
        reference, truth = by_id[sample.id], sample.truth()
        is_absent = kind[sample.id].startswith("absent")
        assert reference["no_target"] == (reference["ann_id"] == [-1]) == is_absent
        assert truth.any() == (not is_absent)
        meant = coco.loadAnns([index for index in reference["ann_id"] if index != -1])
        assert {thing["image_id"] for thing in meant} <= {reference["image_id"]}
        assert truth.sum() == sum(thing["area"] for thing in meant)
        assert all(truth[coco.annToMask(thing) > 0].all() for thing in meant)


def test_the_seed_says_what_is_drawn(main: Main, folder: Path, tmp_path: Path) -> None:
    again = contents(draw(main, tmp_path / "again", FEW, seed=1))
    other = contents(draw(main, tmp_path / "other", FEW, seed=3))
    assert again == contents(folder)
    assert again.keys() == other.keys()
    assert all(again[name] != other[name] for name in again)


@pytest.mark.parametrize("content", [None, b"no font"])
def test_a_font_that_cannot_be_had_is_told(
    main: Main, content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    font = tmp_path / "font.ttf"
    if content:
        font.write_bytes(content)
    assert main(["--count", "1", "--out", str(tmp_path / "out"), "--font", str(font)]) == 1
    error = capsys.readouterr().err
    assert str(font) in error
    assert "make font" in error
    assert not (tmp_path / "out").exists()
