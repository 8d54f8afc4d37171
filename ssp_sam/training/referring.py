"""Batches of the referring data sets on disk, by epochs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssp_sam.errors import InvalidArgumentError
from ssp_sam.evaluation.datasets import BENCHMARKS, Dataset, DatasetError
from ssp_sam.evaluation.datasets import Sample as Phrase
from ssp_sam.preprocess import UInt8Array, read_image
from ssp_sam.results import BoolMask
from ssp_sam.tokenizer import tokenize
from ssp_sam.training.batches import Batch, Batches, BatchForm, Sample, make_batch, random_place
from ssp_sam.training.config import RunConfig
from ssp_sam.training.embeddings import EmbeddingFiles, image_data


def open_sets(config: RunConfig, names: Iterable[str], split: str) -> list[Dataset]:
    """Open a split of the run's data sets with these names; raises DatasetError."""
    opened = []
    for name in names:
        place = config.sets[name]
        opened.append(BENCHMARKS[name].open(split, place.root, place.images or None, place.form))
    return opened


class SetBatches(Batches):
    """Batches of the union of data sets, each image with up to `expressions` of its phrases.

    An epoch is every phrase once, in an order that `seed` and the epoch decide; the last step is filled up from the
    epoch's beginning. Without a seed the order is that of the data sets, and the last step is what is left.
    Phrases that the tokenizer refuses (empty or too long) are left out: `left_out` of them.
    embeddings: of all images, if SAM's encoder need not be asked.
    """

    def __init__(
        self,
        sets: Sequence[Dataset],
        form: BatchForm,
        *,
        images: int,
        expressions: int,
        seed: tuple[int, ...] | None = None,
        random_offset: bool = False,
        embeddings: EmbeddingFiles | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__(images, share)
        self._sets, self._form, self._embeddings = sets, form, embeddings
        self._seed, self._random_offset = seed, random_offset
        self._entries: list[tuple[int, int, tuple[int, ...]]] = []  # data set, image in it, phrases of the image
        self.phrases = self.left_out = 0
        for number, dataset in enumerate(sets):
            for index in range(len(dataset)):
                own = dataset[index].samples
                usable = [position for position, phrase in enumerate(own) if self._is_usable(phrase.phrase)]
                self.phrases += len(usable)
                self.left_out += len(own) - len(usable)
                for start in range(0, len(usable), expressions):
                    self._entries.append((number, index, tuple(usable[start : start + expressions])))
        self._epoch, self._order = -1, np.arange(len(self._entries))

    @property
    def steps_per_epoch(self) -> int:
        """Steps that it takes to see everything."""
        return -(-len(self._entries) // self._images)

    def sources(self) -> list[Path | UInt8Array]:
        """Return the images, each once for each data set that has it."""
        chosen = dict.fromkeys((number, index) for number, index, _ in self._entries)
        return [self._sets[number][index].image for number, index in chosen]

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step. Raises DatasetError, TrainingError or InvalidArgumentError for broken files."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order, first = self._order_of(epoch), position * self._images
        places = [first + k for k in self._own]
        if self._seed is None:
            places = [place for place in places if place < len(order)]
        return make_batch([self._sample(int(order[place % len(order)]), epoch) for place in places], self._form)

    def _is_usable(self, phrase: str) -> bool:
        try:
            tokenize([phrase], self._form.preset.text_positions)
        except InvalidArgumentError:
            return False
        return True

    def _order_of(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._seed is not None and epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([*self._seed, epoch]).permutation(len(self._entries))
        return self._order

    def _sample(self, entry: int, epoch: int) -> Sample:
        number, index, positions = self._entries[entry]
        content = self._sets[number][index]
        data = image_data(content.image)
        image = np.asarray(read_image(data, upright=False))  # as truths lie
        chosen = [content.samples[position] for position in positions]
        sample = Sample(
            image,
            [_mask(phrase, image) for phrase in chosen],
            [phrase.phrase for phrase in chosen],
            embedding=self._embeddings.load(data) if self._embeddings else None,
        )
        return random_place(sample, *(self._seed or ()), epoch, entry) if self._random_offset else sample


def _mask(phrase: Phrase, image: UInt8Array) -> BoolMask:
    mask = phrase.truth()
    if mask.shape != image.shape[:2]:
        raise DatasetError(f"sample {phrase.id}: its truth is of shape {mask.shape}, its image {image.shape[:2]}")
    return mask
