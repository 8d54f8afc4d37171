import csv
import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ALL_COMPLETED, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_benchmarks import (
    Answer,
    StubSegmenter,
    noisy,
    nothing,
    right,
    write_grefcoco,
    write_phrasecut,
    write_prepared,
    write_refer,
)

from ssp_sam.errors import InvalidArgumentError
from ssp_sam.evaluation import thumbnails
from ssp_sam.evaluation.datasets import BENCHMARKS, Dataset, DatasetError, ImageSamples, Sample
from ssp_sam.evaluation.journal import ImageResult, Journal, JournalError, Record
from ssp_sam.evaluation.metrics import Overlap
from ssp_sam.evaluation.report import SHOWN, Page, best, false_alarms, render, worst
from ssp_sam.evaluation.run import run, score_image
from ssp_sam.evaluation.segmenters import Segmenter
from ssp_sam.evaluation.summary import figures, figures_by_kind, table, write_csv
from ssp_sam.results import BoolMask, decode_rle


@pytest.fixture
def grefcoco(tmp_path: Path) -> Dataset:
    return BENCHMARKS["grefcoco"].open("val", write_grefcoco(tmp_path / "data"))


@dataclass(frozen=True)
class OnePhraseEach:
    """The first phrase of each image of a data set."""

    whole: Dataset

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return self.whole.fingerprint

    @property
    def sample_count(self) -> int:
        return len(self)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> ImageSamples:
        entry = self.whole[index]
        return replace(entry, samples=entry.samples[:1])


def records_of(dataset: Dataset, segmenter: Segmenter, out: Path) -> list[Record]:
    journal = Journal(out / "journal.jsonl", {"model": dict(segmenter.identity)})
    run(dataset, segmenter, journal, image_count=len(dataset), with_release=True)
    return [record for result in journal for record in result.records]


def test_the_truth_scores_one_everywhere(tmp_path: Path) -> None:
    roots = {name: tmp_path / name for name in ("refcoco", "grefcoco", "phrasecut", "prepared")}
    datasets = (
        BENCHMARKS["refcoco"].open("test", write_refer(roots["refcoco"])),
        BENCHMARKS["grefcoco"].open("val", write_grefcoco(roots["grefcoco"])),
        BENCHMARKS["phrasecut"].open("miniv", write_phrasecut(roots["phrasecut"])),
        BENCHMARKS["refcoco"].open("val", write_prepared(roots["prepared"])),
    )
    for number, dataset in enumerate(datasets):
        records = records_of(dataset, StubSegmenter(dataset, right), tmp_path / f"out{number}")
        assert len(records) == dataset.sample_count
        assert all(record.overlap.iou == 1 for record in records)
        for strict in (False, True):
            found = figures(records, "both", strict_precision=strict)
            assert found["field"]["gIoU"] == found["field"]["cIoU"] == found["field"]["mIoU"] == 1
            assert found["field"]["Pr@0.9"] == found["field"]["T-acc"] == 1
        assert 0.8 < (found["release"]["gIoU"] or 0) <= 1, "the release's truth grows by up to a pixel"


def test_nothing_scores_zero_but_where_nothing_is_meant(grefcoco: Dataset, tmp_path: Path) -> None:
    records = records_of(grefcoco, StubSegmenter(grefcoco, nothing), tmp_path)
    found = figures(records, "both", strict_precision=False)
    for name in ("field", "release"):
        assert (found[name]["samples"], found[name]["targets"]) == (4, 2)
        assert found[name]["gIoU"] == 0.5
        assert found[name]["cIoU"] == found[name]["T-acc"] == 0
        assert found[name]["N-acc"] == 1
    assert found["field"]["Pr@0.5"] == 0
    assert found["release"]["Pr@0.5"] == 0.5
    assert all(record.no_target for record in records)


@pytest.mark.parametrize("answer", [noisy, right, nothing])
def test_agrees_with_a_slow_version(answer: Answer, grefcoco: Dataset, tmp_path: Path) -> None:
    """gRefCOCO's own rules, pixel by pixel."""
    found = figures(records_of(grefcoco, StubSegmenter(grefcoco, answer), tmp_path), "field", strict_precision=False)
    ious, shared_sum, union_sum, empties, passed = [], 0, 0, [], []
    for index in range(len(grefcoco)):
        for sample in grefcoco[index].samples:
            truth = sample.truth()
            predicted = answer(truth, sample.phrase)
            pixels = list(zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True))
            shared = sum(1 for p, t in pixels if p and t)
            union = sum(1 for p, t in pixels if p or t)
            if not any(t for _, t in pixels):
                empties.append(union == 0)
                ious.append(1.0 if union == 0 else 0.0)
            else:
                ious.append(shared / union)
                passed.append(shared / union >= 0.7)
            shared_sum, union_sum = shared_sum + shared, union_sum + union
    assert found["field"]["gIoU"] == pytest.approx(sum(ious) / len(ious), abs=5.1e-5)
    assert found["field"]["cIoU"] == pytest.approx(shared_sum / union_sum, abs=5.1e-5)
    assert found["field"]["N-acc"] == pytest.approx(sum(empties) / len(empties))
    assert found["field"]["Pr@0.7"] == pytest.approx(sum(passed) / len(passed))


def test_each_image_is_asked_about_once(tmp_path: Path) -> None:
    dataset = BENCHMARKS["refcoco"].open("test", write_refer(tmp_path / "data"))
    segmenter = StubSegmenter(dataset)
    assert len(records_of(dataset, segmenter, tmp_path)) == 2
    assert len(segmenter.images) == 1


def test_an_interrupted_run_goes_on(grefcoco: Dataset, tmp_path: Path) -> None:
    whole = records_of(grefcoco, StubSegmenter(grefcoco, noisy), tmp_path / "whole")
    out = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        records_of(grefcoco, StubSegmenter(grefcoco, noisy, concurrency=1, fails_after=1), out)
    path = out / "journal.jsonl"
    assert len(path.read_text().splitlines()) == 2
    with path.open("a") as file:
        file.write('{"index": 1, "records": [{"id"')  # killed in the middle of a line
    segmenter = StubSegmenter(grefcoco, noisy)
    assert records_of(grefcoco, segmenter, out) == whole
    assert len(segmenter.images) == 1
    again = StubSegmenter(grefcoco, noisy)
    assert records_of(grefcoco, again, out) == whole
    assert not again.images


def test_a_failure_loses_no_result_that_came_with_it(
    grefcoco: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All that is under way ends at once: the failures and the one success are found together.
    monkeypatch.setattr("ssp_sam.evaluation.run.wait", lambda pending, **_: wait(pending, return_when=ALL_COMPLETED))
    segmenter = StubSegmenter(grefcoco, noisy, concurrency=1, fails_after=1)
    with pytest.raises(KeyboardInterrupt):
        records_of(grefcoco, segmenter, tmp_path)
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("orientation", [3, 6])
def test_truths_lie_on_the_pixels_as_they_are_stored(orientation: int, tmp_path: Path) -> None:
    dataset = BENCHMARKS["phrasecut"].open("miniv", write_phrasecut(tmp_path / "data"))
    path = dataset[0].image
    assert isinstance(path, Path)
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.save(path, exif=exif)
    seen = StubSegmenter(dataset)
    records = score_image(dataset, 0, seen, with_release=False).records
    assert all(record.overlap.iou == 1 for record in records)
    (image,) = seen.images
    assert image.shape[:2] == dataset[0].samples[0].truth().shape
    assert "data:image" in render(Page("A title", [], {}, {}, ()), [ImageResult(0, records)], dataset)


def test_what_was_being_computed_when_a_run_was_stopped_is_kept(grefcoco: Dataset, tmp_path: Path) -> None:
    both_have_begun = threading.Barrier(2)

    def stopped(truth: BoolMask, phrase: str) -> BoolMask:
        if both_have_begun.wait(10) == 0:
            raise KeyboardInterrupt
        time.sleep(0.2)
        return truth

    dataset = OnePhraseEach(grefcoco)
    with pytest.raises(KeyboardInterrupt):
        records_of(dataset, StubSegmenter(dataset, stopped), tmp_path)
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 2


def test_a_changed_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, {"split": "val", "model": {"preset": "tiny", "sha256": "a"}})
    Journal(path, {"split": "val", "model": {"preset": "tiny", "sha256": "a"}})
    with pytest.raises(JournalError, match=r'another run: model.sha256 was "a", now it is "b"; choose another folder'):
        Journal(path, {"split": "val", "model": {"preset": "tiny", "sha256": "b"}})
    with pytest.raises(JournalError, match='split was "val", now it is null'):
        Journal(path, {"model": {"preset": "tiny", "sha256": "a"}})


@pytest.mark.parametrize("content", ["[1, 2]\n", "hello\n", "{}\n"])
def test_a_file_that_is_no_journal(content: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(content)
    with pytest.raises(JournalError, match=r"journal\.jsonl"):
        Journal(path, {"split": "val"})
    assert path.read_text() == content


def test_a_journal_gives_back_what_it_was_given(tmp_path: Path) -> None:
    path, header = tmp_path / "new" / "journal.jsonl", {"split": "val"}
    given = ImageResult(
        3,
        (
            Record("a", 'né "x"\u2028\n', None, Overlap(1, 2, 1), None, 0.5, False, "0"),
            Record("b", "y", "noun", Overlap(0, 0, 0), Overlap(4, 5, 3), 0.0, True, "0", "too long"),
        ),
    )
    journal = Journal(path, header)
    journal.append(given)
    journal.append(ImageResult(1, ()))
    assert list(Journal(path, header)) == [ImageResult(1, ()), given]
    assert 3 in Journal(path, header)


class Phrases:
    """A data set of one image with phrases of which some are refused."""

    sample_count = 3

    @property
    def fingerprint(self) -> dict[str, str]:
        return {}

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> ImageSamples:
        phrases = ("a", "", "b")
        samples = tuple(Sample(str(i), phrase, lambda: np.eye(4, dtype=np.bool_)) for i, phrase in enumerate(phrases))
        return ImageSamples(np.zeros((4, 4, 3), np.uint8), samples)


def test_a_refused_phrase_costs_only_itself(tmp_path: Path) -> None:
    records = records_of(Phrases(), StubSegmenter(Phrases()), tmp_path)
    assert [record.overlap.iou for record in records] == [1, 0, 1]
    assert [record.refused for record in records] == [None, "a phrase is empty", None]


def test_an_image_that_cannot_be_used_is_no_refused_phrase(tmp_path: Path) -> None:
    dataset = BENCHMARKS["phrasecut"].open("miniv", write_phrasecut(tmp_path))
    path = dataset[0].image
    assert isinstance(path, Path)
    data = path.read_bytes()
    path.write_bytes(data[:-200])  # the header is whole

    def refuse(truth: BoolMask, phrase: str) -> BoolMask:
        raise InvalidArgumentError("the image is broken")

    with pytest.raises(InvalidArgumentError, match=r"file of .* bytes is broken"):
        score_image(dataset, 0, StubSegmenter(dataset, refuse), with_release=False)


def test_a_truth_of_another_size_is_named(grefcoco: Dataset) -> None:
    wrong = StubSegmenter(grefcoco, lambda truth, phrase: truth[:-1])
    with pytest.raises(DatasetError, match=r"sample 0\.0: the truth is 60 x 40 pixels, its image 60 x 39"):
        score_image(grefcoco, 0, wrong, with_release=True)


# --- what is written ------------------------------------------------------------------------------------------------


def record(number: int, kind: str | None = None, *, shared: int = 5, truth: int = 10, score: float = 0.5) -> Record:
    return Record(str(number), f"phrase {number}", kind, Overlap(5, truth, shared), None, score, False, "0")


def test_csv(grefcoco: Dataset, tmp_path: Path) -> None:
    records = records_of(grefcoco, StubSegmenter(grefcoco, right), tmp_path)
    write_csv(tmp_path / "samples.csv", records)
    with (tmp_path / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["0.0", "1.10", "2.20", "3.30"]
    first = rows[0]
    assert (first["phrase"], first["iou"], first["union_px"]) == ("both boxes", "1.000000", first["truth_px"])
    assert (first["score"], first["no_target"], rows[1]["no_target"]) == ("0.75", "0", "1")
    assert int(first["release_truth_px512"]) > int(first["truth_px"])


def test_journal_keeps_masks(grefcoco: Dataset, tmp_path: Path) -> None:
    records = records_of(grefcoco, StubSegmenter(grefcoco, right), tmp_path)
    truth = grefcoco[0].samples[0].truth()
    np.testing.assert_array_equal(decode_rle(records[0].mask_rle.encode(), *truth.shape), truth)


def test_figures_by_kind_and_table() -> None:
    records = [record(0, "noun"), record(1, "colour", shared=0), record(2, "noun")]
    by_kind = figures_by_kind(records, strict_precision=False)
    assert list(by_kind) == ["colour", "noun"]
    assert table(by_kind, ("mIoU", "N-acc")).splitlines() == [
        "        phrases   mIoU  N-acc",
        "colour        1   0.00      -",
        "noun          2  50.00      -",
    ]
    assert figures_by_kind([record(0)], strict_precision=False) == {}


def test_strict_precision_reaches_the_field_alone() -> None:
    half = [Record("0", "x", None, Overlap(5, 10, 5), Overlap(5, 10, 5), 0.5, False, "0")]
    found = figures(half, "both", strict_precision=True)
    assert (found["field"]["Pr@0.5"], found["release"]["Pr@0.5"]) == (0, 1)
    assert list(figures(half, "field", strict_precision=False)) == ["field"]
    assert list(figures(half, "release", strict_precision=False)) == ["release"]


def test_best_and_worst_are_of_different_images() -> None:
    results = [ImageResult(i, (record(2 * i, shared=i % 6), record(2 * i + 1, shared=0, truth=0))) for i in range(20)]
    assert len({index for index, _ in worst(results)}) == len(worst(results)) == SHOWN
    assert all(shown.overlap.truth_px for _, shown in best(results))
    assert [shown.overlap.shared_px for _, shown in best(results)][:4] == [5, 5, 5, 4]
    assert worst([ImageResult(0, (record(0, shared=0), record(1, shared=0, score=0.9)))])[0][1].id == "1"
    assert len(false_alarms(results)) == SHOWN
    assert all(not shown.overlap.truth_px for _, shown in false_alarms(results))


def test_page_is_whole_in_itself(grefcoco: Dataset, tmp_path: Path) -> None:
    records = records_of(grefcoco, StubSegmenter(grefcoco, noisy), tmp_path)
    results = [ImageResult(i, tuple(r for r in records if r.id[0] in group)) for i, group in enumerate(("01", "23"))]
    found = figures(records, "both", strict_precision=False)
    page = render(Page("A <title>", [("model", "<b>&")], found, {}, ("gIoU", "N-acc")), results, grefcoco)
    assert "A &lt;title&gt;" in page
    assert "&lt;b&gt;&amp;" in page
    assert "both boxes" in page
    assert page.count("data:image/jpeg;base64,") >= 3
    assert "http" not in page.replace("data:image", "")
    assert "$" not in page.partition("</style>")[2].replace("data:image", ""), "every placeholder is filled"


@pytest.mark.parametrize("size", [(1, 1), (30, 500), (640, 480)])
def test_thumbnails(size: tuple[int, int]) -> None:
    truth, predicted = (np.zeros(size[::-1], dtype=np.bool_) for _ in range(2))
    truth[: size[1] // 2], predicted[:, : size[0] // 2] = True, True
    picture = thumbnails.draw(Image.new("RGB", size, (128, 128, 128)), truth, predicted)
    assert max(picture.size) == thumbnails.LONGEST_PX
    if size == (640, 480):
        pixels = np.asarray(picture).astype(int)
        blue, plain, shaded = pixels[40, 40], pixels[40, 400], pixels[300, 400]
        assert blue[2] > plain[2] > shaded[2]
        edge = pixels[picture.height // 2, 400]
        assert np.abs(edge - thumbnails.TRUTH_RGB).sum() < 60


def test_journal_is_json_lines(grefcoco: Dataset, tmp_path: Path) -> None:
    records_of(grefcoco, StubSegmenter(grefcoco, right), tmp_path)
    header, *results = map(json.loads, (tmp_path / "journal.jsonl").read_text().splitlines())
    assert header == {"format_version": 2, "model": {"stub": 1}}
    assert sorted(result["index"] for result in results) == [0, 1]
