import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from tiny_benchmarks import (
    ANNOTATIONS,
    HEIGHT,
    REFS,
    WIDTH,
    box_mask,
    coco_name,
    runs,
    write_grefcoco,
    write_phrasecut,
    write_prepared,
    write_refer,
)

from ssp_sam.evaluation.datasets import BENCHMARKS, Dataset, DatasetError
from ssp_sam.evaluation.datasets.refer import belongs_to
from ssp_sam.evaluation.datasets.segmentations import coco_segmentation_mask, polygons_mask
from ssp_sam.results import BoolMask


def everything(dataset: Dataset) -> dict[str, tuple[str, str, BoolMask]]:
    """{id: (name of the image, phrase, truth)}."""
    found = {}
    for index in range(len(dataset)):
        entry = dataset[index]
        assert isinstance(entry.image, Path)
        for sample in entry.samples:
            found[sample.id] = (entry.image.name, sample.phrase, sample.truth())
    assert len(found) == dataset.sample_count
    return found


@pytest.mark.parametrize(
    ("name", "folder", "by"),
    [
        ("refcoco", "refcoco", "unc"),
        ("refcoco+", "refcoco+", "unc"),
        ("refcocog-umd", "refcocog", "umd"),
        ("refcocog-google", "refcocog", "google"),
        ("refclef-berkeley", "refclef", "berkeley"),
        ("refclef-unc", "refclef", "unc"),
    ],
)
def test_refer_has_a_sample_a_sentence(name: str, folder: str, by: str, tmp_path: Path) -> None:
    dataset = BENCHMARKS[name].open("val", write_refer(tmp_path, folder, by))
    samples = everything(dataset)
    assert {key: value[1] for key, value in samples.items()} == {
        "0.0": "left box",
        "0.1": "the box",
        "2.20": "two parts",
    }
    assert len(dataset) == 1, "phrases about one image belong together"
    assert {value[0] for value in samples.values()} == {"72.jpg" if folder == "refclef" else coco_name(72)}
    np.testing.assert_array_equal(samples["0.1"][2], ANNOTATIONS[11][2])
    np.testing.assert_array_equal(samples["2.20"][2], ANNOTATIONS[12][2])


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_any_pickle_protocol(protocol: int, tmp_path: Path) -> None:
    samples = everything(BENCHMARKS["refcoco"].open("test", write_refer(tmp_path, protocol=protocol)))
    np.testing.assert_array_equal(samples["1.10"][2], ANNOTATIONS[13][2])  # a list of runs
    np.testing.assert_array_equal(samples["3.30"][2], ANNOTATIONS[14][2])  # compressed runs


def test_a_list_of_run_lengths_is_united(tmp_path: Path) -> None:
    samples = everything(BENCHMARKS["refcoco"].open("train", write_refer(tmp_path)))
    np.testing.assert_array_equal(samples["4.40"][2], ANNOTATIONS[15][2])


def test_files_may_lie_right_in_the_root_and_images_elsewhere(tmp_path: Path) -> None:
    write_refer(tmp_path)
    dataset = BENCHMARKS["refcoco"].open("val", tmp_path / "refcoco", tmp_path / "images" / "train2014")
    assert dataset.sample_count == 3


@pytest.mark.parametrize(
    ("split", "ref_split", "belongs"),
    [
        ("val", "val", True),
        ("val", "train", False),
        ("test", "testA", True),
        ("test", "test", True),
        ("test", "train", False),
        ("testA", "testA", True),
        ("testA", "testAB", True),
        ("testB", "testAB", True),
        ("testC", "testAB", False),
        ("testA", "test", False),
    ],
)
def test_splits(split: str, ref_split: str, belongs: bool) -> None:
    assert belongs_to(split, ref_split) is belongs


def test_grefcoco_has_many_or_no_targets(tmp_path: Path) -> None:
    samples = everything(BENCHMARKS["grefcoco"].open("val", write_grefcoco(tmp_path)))
    np.testing.assert_array_equal(samples["0.0"][2], ANNOTATIONS[11][2] | ANNOTATIONS[12][2])
    np.testing.assert_array_equal(samples["3.30"][2], ANNOTATIONS[13][2])  # the other one is a crowd
    for empty in ("1.10", "2.20"):
        assert samples[empty][2].shape == (HEIGHT, WIDTH)
        assert not samples[empty][2].any()
    assert everything(BENCHMARKS["grefcoco"].open("testA", tmp_path))["4.40"][2].sum() == 9 + 100


def test_phrasecut_unites_the_polygons_of_all_instances(tmp_path: Path) -> None:
    dataset = BENCHMARKS["phrasecut"].open("miniv", write_phrasecut(tmp_path))
    samples = everything(dataset)
    image, phrase, truth = samples["72__1"]
    assert (image, phrase, truth.shape) == ("72.jpg", "wheels", (HEIGHT, WIDTH))
    # Whole pixels, outline included; the polygon of one point is left out.
    triangle = np.tril(np.ones((6, 6), dtype=bool))[:, ::-1].T[::-1]
    expected = box_mask(2, 3, 10, 9)
    expected[30:36, 30:36] |= triangle
    np.testing.assert_array_equal(truth, expected)
    np.testing.assert_array_equal(samples["3__9"][2], box_mask(0, 0, 60, 10))


def test_prepared_form(tmp_path: Path) -> None:
    write_prepared(tmp_path)
    samples = everything(BENCHMARKS["refcoco"].open("val", tmp_path))
    assert [value[1] for value in samples.values()] == ["left box", "the box", "two parts", "strip", "corner"]
    np.testing.assert_array_equal(samples["0.0"][2], ANNOTATIONS[11][2])
    assert samples["2.0"][0] == coco_name(581857)


def test_the_two_forms_agree(tmp_path: Path) -> None:
    original = everything(BENCHMARKS["refcoco"].open("train", write_refer(tmp_path / "original")))
    prepared = everything(BENCHMARKS["refcoco"].open("train", write_prepared(tmp_path / "prepared")))
    for one, other in zip(original.values(), prepared.values(), strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_array_equal(one[2], other[2])


def test_the_original_form_goes_first_unless_said(tmp_path: Path) -> None:
    write_refer(tmp_path)
    write_prepared(tmp_path / "prepared")
    for folder in ("anns", "masks"):
        (tmp_path / "prepared" / folder).rename(tmp_path / folder)
    assert "refs" in BENCHMARKS["refcoco"].open("val", tmp_path).fingerprint
    assert "anns/refcoco.json" in BENCHMARKS["refcoco"].open("val", tmp_path, form="prepared").fingerprint


def test_phrasecut_prepared(tmp_path: Path) -> None:
    write_prepared(tmp_path, "phrase_cut", masks="phrase_cut_mask")
    images = tmp_path / "images" / "train2014"
    for path in images.iterdir():
        path.rename(images / f"{int(path.stem.split('_')[-1])}.jpg")
    samples = everything(BENCHMARKS["phrasecut"].open("val", tmp_path, images))
    assert samples["0.0"][0] == "72.jpg"


@pytest.mark.parametrize("folder", ["", "VGPhraseCut_v0", "data/VGPhraseCut_v0"])
def test_the_original_form_of_phrasecut_goes_first_wherever_it_lies(tmp_path: Path, folder: str) -> None:
    write_prepared(tmp_path, "phrase_cut", masks="phrase_cut_mask")
    write_phrasecut(tmp_path)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "refer_miniv.json").rename(tmp_path / folder / "refer_miniv.json")
    assert "refer_miniv.json" in BENCHMARKS["phrasecut"].open("miniv", tmp_path).fingerprint


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    root = write_refer(tmp_path)
    before = BENCHMARKS["refcoco"].open("val", root).fingerprint
    assert before == BENCHMARKS["refcoco"].open("val", root).fingerprint
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(REFS[:1], protocol=2))
    assert before != BENCHMARKS["refcoco"].open("val", root).fingerprint


@pytest.mark.parametrize("missing", ["instances.json", "refs(unc).p"])
def test_a_missing_file_is_named_and_where_to_get_it(missing: str, tmp_path: Path) -> None:
    root = write_refer(tmp_path)
    (root / "refcoco" / missing).unlink()
    with pytest.raises(DatasetError) as error:
        BENCHMARKS["refcoco"].open("val", root)
    assert missing in str(error.value)
    assert "https://github.com/lichengunc/refer" in str(error.value)


def test_missing_folders_and_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no folder .*nowhere; PhraseCut is to be had here: https://github.com"):
        BENCHMARKS["phrasecut"].open("val", tmp_path / "nowhere")
    root = write_refer(tmp_path)
    with pytest.raises(DatasetError, match=r"there is no .*elsewhere; RefCOCO .*cocodataset\.org"):
        BENCHMARKS["refcoco"].open("val", root, tmp_path / "elsewhere")
    dataset = BENCHMARKS["refcoco"].open("val", root)
    (root / "images" / "train2014" / coco_name(72)).unlink()
    with pytest.raises(DatasetError, match=f"{coco_name(72)} is missing; RefCOCO .*cocodataset.org"):
        dataset[0]


def test_missing_masks_are_named(tmp_path: Path) -> None:
    root = write_prepared(tmp_path)
    dataset = BENCHMARKS["refcoco"].open("val", root)
    (root / "masks" / "refcoco" / "0.npy").unlink()
    with pytest.raises(DatasetError, match=r"refcoco/0.npy is missing; .*--generate_mask"):
        dataset[0].samples[0].truth()


def test_splits_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="refcocog-google has no split 'test'; it has val, train"):
        BENCHMARKS["refcocog-google"].open("test", tmp_path)
    write_prepared(tmp_path)
    with pytest.raises(DatasetError, match="no split 'testA'; it has val, train"):
        BENCHMARKS["refcoco"].open("testA", tmp_path)
    root = write_refer(tmp_path / "original")
    with pytest.raises(DatasetError, match="no reference of split 'testC'; it has testA, testAB, train, val"):
        BENCHMARKS["refclef-unc"].open("testC", write_refer(tmp_path / "clef", "refclef"))
    with pytest.raises(DatasetError, match="no format 'zip'; there are auto, original, prepared"):
        BENCHMARKS["refcoco"].open("val", root, form="zip")


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    root = write_refer(tmp_path)
    (root / "refcoco" / "instances.json").write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(DatasetError, match=r"refs\(unc\).p and .*instances.json do not fit: KeyError: 72"):
        BENCHMARKS["refcoco"].open("val", root)
    (root / "refcoco" / "instances.json").write_text("{")
    with pytest.raises(DatasetError, match=r"instances.json is no JSON file"):
        BENCHMARKS["refcoco"].open("val", root)


def test_ids_that_come_twice_are_refused(tmp_path: Path) -> None:
    root = write_refer(tmp_path)
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([REFS[0], REFS[0]], protocol=2))
    with pytest.raises(DatasetError, match=r"two samples have the id '0.0'"):
        BENCHMARKS["refcoco"].open("val", root)


def test_segmentations_that_are_none() -> None:
    with pytest.raises(DatasetError, match=r"size \[40, 60\] is about an image of 41 x 60"):
        coco_segmentation_mask(runs(box_mask(0, 0, 2, 2)), 41, 60)
    for wrong in ({"counts": 3}, "polygon", [{"size": [4, 4], "counts": None}]):
        with pytest.raises(DatasetError, match="neither polygons nor run lengths"):
            coco_segmentation_mask(wrong, 4, 4)


def test_polygons_outside_the_image_are_cut() -> None:
    np.testing.assert_array_equal(
        polygons_mask([[[-5, -5], [3, -5], [3, 2], [-5, 2]]], 10, 10), box_mask(0, 0, 4, 3, (10, 10))
    )
    assert not polygons_mask([], 10, 10).any()
