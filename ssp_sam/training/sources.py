"""What a phase learns from and is measured on, as its configuration says: scenes, or data sets on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssp_sam.preprocess import UInt8Array
from ssp_sam.training.batches import Batches, BatchForm
from ssp_sam.training.close_ups import CLOSE_UP_PATCHES, CloseUpBatches
from ssp_sam.training.config import RunConfig
from ssp_sam.training.embeddings import EmbeddingFiles, encoder_digest
from ssp_sam.training.objectives import OBJECTIVES, PATCH_LOSSES
from ssp_sam.training.ranks import Ranks
from ssp_sam.training.referring import SetBatches, open_sets
from ssp_sam.training.scenes import SceneBatches
from ssp_sam.training.trainee import Trainee

VALIDATION_IMAGES_PER_BATCH = 8
VALIDATION_EXPRESSIONS = 4


class HeldOut:
    """The batches of some steps, made each time they are gone through, or once and then kept."""

    def __init__(self, batches: Batches, steps: range, *, workers: int = 0, keep: bool = False) -> None:
        self._batches, self._steps, self._workers = batches, steps, workers
        self._keep, self._kept = keep, list[Any]()

    def __iter__(self) -> Iterator[Any]:
        if self._keep and not self._kept:
            self._kept = [self._batches[step] for step in self._steps]
        return iter(self._kept) if self._keep else self._batches.loader(self._steps, self._workers)


@dataclass(frozen=True)
class PhaseData:
    """What a phase learns from, and this process's share of what it is measured on.

    steps: of the whole phase; steps_per_epoch: None where there are no epochs.
    embeddings: they have to hold `images` before a batch can be made; None if SAM's encoder is asked at every step, or
        never. counts: what there is, for people.
    """

    batches: Batches
    held_out: HeldOut
    steps: int
    steps_per_epoch: int | None = None
    embeddings: EmbeddingFiles | None = None
    images: Sequence[Path | UInt8Array] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def epoch(self, step: int) -> int:
        """Return the epoch of a step; 0 where there are none."""
        return step // self.steps_per_epoch if self.steps_per_epoch else 0

    def ends_epoch(self, steps_done: int) -> bool:
        """Say whether the last of so many steps was an epoch's last."""
        return self.steps_per_epoch is not None and steps_done % self.steps_per_epoch == 0


def open_phase(config: RunConfig, index: int, trainee: Trainee, ranks: Ranks) -> PhaseData:
    """Open the data of phase `index`; raises DataError for scenes, DatasetError for data sets."""
    phase = config.phases[index]
    is_close_up = OBJECTIVES[phase.objective].targets == "close-ups"
    opener = _open_sets if phase.sets else _open_close_ups if is_close_up else _open_scenes
    return opener(config, index, trainee, ranks)


def _open_scenes(config: RunConfig, index: int, trainee: Trainee, ranks: Ranks) -> PhaseData:
    phase = config.phases[index]
    targets, uses_sam = OBJECTIVES[phase.objective].targets, OBJECTIVES[phase.objective].uses_sam
    batches = SceneBatches(
        BatchForm(
            trainee.preset,
            phase.compare_masks_on,
            sam_images=uses_sam,
            things=any(name in phase.loss_weights for name in PATCH_LOSSES),
        ),
        config.data,
        split="train",
        targets=targets,
        images=phase.images_per_step,
        expressions=phase.expressions_per_image,
        first_scene=_first_scene(config, index),
        random_offset=phase.random_offset,
        emphasis=phase.emphasis,
        smallness=phase.smallness,
        share=(ranks.rank, ranks.count),
    )
    held_out = SceneBatches(
        BatchForm(trainee.preset, sam_images=uses_sam, own_masks=True),
        config.data,
        split="val",
        targets=targets,
        images=VALIDATION_IMAGES_PER_BATCH,
        expressions=VALIDATION_EXPRESSIONS,
    )
    count = -(-config.validation.scenes // VALIDATION_IMAGES_PER_BATCH)
    return PhaseData(batches, HeldOut(held_out, range(ranks.rank, count, ranks.count), keep=True), phase.steps)


def _open_close_ups(config: RunConfig, index: int, trainee: Trainee, ranks: Ranks) -> PhaseData:
    phase = config.phases[index]
    batches = CloseUpBatches(
        trainee.preset,
        config.data,
        split="train",
        images=phase.images_per_step,
        first_image=_first_scene(config, index),
        share=(ranks.rank, ranks.count),
    )
    held_out = CloseUpBatches(trainee.preset, config.data, split="val", images=config.validation.scenes)
    steps = range(ranks.rank, len(CLOSE_UP_PATCHES), ranks.count)
    return PhaseData(batches, HeldOut(held_out, steps, keep=True), phase.steps)


def _first_scene(config: RunConfig, index: int) -> int:
    """Return the number of the first scene of phase `index`: phases share none."""
    return sum(phase.steps * phase.images_per_step for phase in config.phases[:index])


def _open_sets(config: RunConfig, index: int, trainee: Trainee, ranks: Ranks) -> PhaseData:
    phase = config.phases[index]
    uses_sam = OBJECTIVES[phase.objective].uses_sam
    embeddings = _embedding_files(config, trainee) if uses_sam and config.data.embeddings else None
    batches = SetBatches(
        open_sets(config, phase.sets, "train"),
        BatchForm(trainee.preset, phase.compare_masks_on, sam_images=uses_sam),
        images=phase.images_per_step,
        expressions=phase.expressions_per_image,
        seed=(config.seed, index),
        random_offset=phase.random_offset,
        embeddings=embeddings,
        share=(ranks.rank, ranks.count),
    )
    held_out = SetBatches(
        open_sets(config, phase.sets, config.validation.split),
        BatchForm(trainee.preset, sam_images=uses_sam, own_masks=True),
        images=VALIDATION_IMAGES_PER_BATCH,
        expressions=VALIDATION_EXPRESSIONS,
        embeddings=embeddings,
    )
    own = range(ranks.rank, held_out.steps_per_epoch, ranks.count)
    return PhaseData(
        batches,
        HeldOut(held_out, own, workers=config.data.workers),
        steps=phase.steps or phase.epochs * batches.steps_per_epoch,
        steps_per_epoch=batches.steps_per_epoch if phase.epochs else None,
        embeddings=embeddings,
        images=[*batches.sources(), *held_out.sources()],
        counts={
            "phrases": batches.phrases,
            "held out": held_out.phrases,
            "left out, as they cannot be tokenized": batches.left_out + held_out.left_out,
        },
    )


def _embedding_files(config: RunConfig, trainee: Trainee) -> EmbeddingFiles:
    sam = trainee.preset.sam
    folder = Path(config.data.embeddings) / encoder_digest(trainee.model.sam_image_encoder, config.precision)[:16]
    return EmbeddingFiles(folder, (sam.out_channels, sam.grid, sam.grid))
