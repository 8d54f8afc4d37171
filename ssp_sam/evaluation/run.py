"""Asks a model about a data set and scores the answers."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

import numpy as np
from tqdm import tqdm

from ssp_sam.errors import InvalidArgumentError
from ssp_sam.evaluation.datasets import Dataset, DatasetError, Sample
from ssp_sam.evaluation.journal import ImageResult, Journal, Record
from ssp_sam.evaluation.metrics import Overlap
from ssp_sam.evaluation.release import release_overlap
from ssp_sam.evaluation.segmenters import Segmenter, answers
from ssp_sam.results import Segmentation, encode_rle


def run(dataset: Dataset, segmenter: Segmenter, journal: Journal, *, image_count: int, with_release: bool) -> None:
    """Score the first `image_count` images that `journal` does not hold yet and put their results into it.

    A bar on stderr shows how far it is. Raises SegmentationError or DatasetError; what was scored before is kept.
    """
    todo = (index for index in range(image_count) if index not in journal)
    done_before = sum(index in journal for index in range(image_count))
    pending: set[Future[ImageResult]] = set()
    with (
        ThreadPoolExecutor(segmenter.concurrency) as pool,
        tqdm(total=image_count, initial=done_before, unit="image", smoothing=0.05) as bar,
    ):
        try:
            while True:
                # A few more than are asked about at once, so that no thread waits for this one.
                for index in islice(todo, 2 * segmenter.concurrency - len(pending)):
                    pending.add(pool.submit(score_image, dataset, index, segmenter, with_release=with_release))
                if not pending:
                    break
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in sorted(finished, key=_has_failed):  # one that failed must not lose another's result
                    journal.append(future.result())
                    bar.update()
        finally:
            for future in pending:
                future.cancel()
            for future in wait(pending).done:  # what has begun is waited for in any case
                if not future.cancelled() and not _has_failed(future):
                    journal.append(future.result())


def _has_failed(future: Future[ImageResult]) -> bool:
    return future.exception() is not None


def score_image(dataset: Dataset, index: int, segmenter: Segmenter, *, with_release: bool) -> ImageResult:
    """Return the results of all samples of one image; raises SegmentationError or DatasetError."""
    entry = dataset[index]
    given = answers(segmenter, entry.unturned(), [sample.phrase for sample in entry.samples])
    records = (_score(sample, answer, with_release) for sample, answer in zip(entry.samples, given, strict=True))
    return ImageResult(index, tuple(records))


def _score(sample: Sample, answer: Segmentation | InvalidArgumentError, with_release: bool) -> Record:
    truth = sample.truth()
    if isinstance(answer, InvalidArgumentError):
        mask, score, no_target, refused = np.zeros_like(truth), 0.0, True, answer.message
    else:
        mask, score, no_target, refused = answer.mask, round(answer.score, 4), answer.no_target, None
    if mask.shape != truth.shape:
        raise DatasetError(
            f"sample {sample.id}: the truth is {truth.shape[1]} x {truth.shape[0]} pixels, "
            f"its image {mask.shape[1]} x {mask.shape[0]}"
        )
    return Record(
        id=sample.id,
        phrase=sample.phrase,
        kind=sample.kind,
        overlap=Overlap.of(mask, truth),
        release_overlap=release_overlap(mask, truth) if with_release else None,
        score=score,
        no_target=no_target,
        mask_rle=encode_rle(mask).decode("ascii"),
        refused=refused,
    )
