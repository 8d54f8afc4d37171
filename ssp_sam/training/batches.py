"""From scenes to batches. Seed, step and place in the batch alone decide a sample, so a resumed run sees the same."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssp_sam.config import CONTEXT_LENGTH, Preset
from ssp_sam.data import Expression, SceneGenerator
from ssp_sam.preprocess import EncoderInputs, Geometry, UInt8Array, prepare
from ssp_sam.tokenizer import tokenize
from ssp_sam.training.config import DataConfig

BoolMask = npt.NDArray[np.bool_]

# A stretched image has a ratio of width to height between 1 / this and this.
STRETCH_MAX = 1.8


@dataclass(frozen=True)
class Batch:
    """B images with P targets: phrases, or single things where the objective asks for those.

    sam_image: uint8 (B, 3, S, S); clip_image: uint8 (B, 3, R, R); geometry: int32 (B, 4, 2), see `Geometry`;
    image_index: int64 (P,), the image of each target; token_ids: int32 (P, L), only zeros for things;
    truth_mask: uint8 (P, 4G, 4G), covered share of each cell of SAM's padded square, 255 for all of it;
    truth_grid: float32 (P, N), covered share of each patch of CLIP's padded square;
    truth_box: float32 (P, 4), centre and size in 0..1 of CLIP's padded square, zeros if absent; absent: bool (P,).
    """

    sam_image: Tensor
    clip_image: Tensor
    geometry: Tensor
    image_index: Tensor
    token_ids: Tensor
    truth_mask: Tensor
    truth_grid: Tensor
    truth_box: Tensor
    absent: Tensor

    @property
    def truth(self) -> Tensor:
        """The truth mask as float32 (P, 4G, 4G), 0..1."""
        return self.truth_mask.float() / 255


@dataclass(frozen=True)
class Sample:
    """One image, RGB uint8 (H, W, 3), and its targets.

    masks: their truths, bool (H, W); phrases, kinds: what each phrase says, and of which kind it is; both are empty
    where the targets are things.
    """

    image: UInt8Array
    masks: Sequence[BoolMask]
    phrases: Sequence[str] = ()
    kinds: Sequence[str] = ()

    @property
    def expressions(self) -> list[Expression]:
        """The targets as the generator gave them."""
        return [Expression(*each) for each in zip(self.phrases, self.kinds, self.masks, strict=True)]


def scene_sample(generator: SceneGenerator, index: int, data: DataConfig, *, targets: str, count: int) -> Sample:
    """Draw scene `index` with up to `count` targets ("phrases" or "things"), stretched now and then."""
    scene = generator.scene(index)
    rng = np.random.default_rng([data.seed, index])
    if targets == "things":
        chosen = rng.permutation(len(scene.things))[:count]
        sample = Sample(scene.image, [scene.things[i].mask for i in chosen])
    else:
        masks, phrases, kinds = zip(*((e.mask, e.phrase, e.kind) for e in scene.expressions), strict=True)
        sample = Sample(scene.image, masks, phrases, kinds)
    return _stretched(sample, rng) if rng.random() < data.stretched_share else sample


def _stretched(sample: Sample, rng: np.random.Generator) -> Sample:
    """Shorten one side: what is left of, larger than or as red as something else stays so."""
    height, width = sample.image.shape[:2]
    ratio = np.exp(rng.uniform(-1, 1) * np.log(STRETCH_MAX))
    size = (width, round(height / ratio)) if ratio > 1 else (round(width * ratio), height)
    image = np.asarray(Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR))
    masks = [np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in sample.masks]
    return replace(sample, image=image, masks=masks)


def make_batch(samples: Sequence[Sample], preset: Preset, text_positions: int = CONTEXT_LENGTH) -> Batch:
    """Bring samples into the form that the model takes; `text_positions` is that of `PhaseConfig`."""
    inputs = [prepare(Image.fromarray(sample.image), preset) for sample in samples]
    targets = [_targets(sample.masks, entry.geometry, preset) for sample, entry in zip(samples, inputs, strict=True)]
    token_ids = [_token_ids(sample, text_positions) for sample in samples]
    counts = [len(sample.masks) for sample in samples]
    truth_mask, truth_grid, truth_box = (np.concatenate(parts) for parts in zip(*targets, strict=True))
    return Batch(
        sam_image=_stack(inputs, "sam_image"),
        clip_image=_stack(inputs, "clip_image"),
        geometry=torch.from_numpy(np.stack([entry.geometry.to_array() for entry in inputs])),
        image_index=torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(counts)),
        token_ids=torch.from_numpy(np.concatenate(token_ids)),
        truth_mask=torch.from_numpy(truth_mask),
        truth_grid=torch.from_numpy(truth_grid),
        truth_box=torch.from_numpy(truth_box),
        absent=torch.from_numpy(~truth_mask.any(axis=(1, 2))),
    )


def _stack(inputs: Sequence[EncoderInputs], name: str) -> Tensor:
    return torch.from_numpy(np.stack([getattr(entry, name) for entry in inputs]))


def _token_ids(sample: Sample, text_positions: int) -> npt.NDArray[np.int32]:
    if not sample.phrases:
        return np.zeros((len(sample.masks), text_positions), dtype=np.int32)
    token_ids = tokenize(sample.phrases)
    if token_ids[:, text_positions:].any():
        longest = int((token_ids != 0).sum(axis=1).max())
        raise ValueError(f"text_positions is {text_positions}, but a phrase has {longest} tokens: {sample.phrases}")
    return token_ids[:, :text_positions]


def _targets(
    masks: Sequence[BoolMask], geometry: Geometry, preset: Preset
) -> tuple[UInt8Array, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return truth_mask, truth_grid and truth_box of one image."""
    sam_side, clip_side = preset.sam.image_side_px, preset.clip.image_side_px
    on_sam = np.stack([_place(mask, geometry.sam_hw, (0, 0), sam_side) for mask in masks])
    on_clip = np.stack([_place(mask, geometry.clip_hw, geometry.clip_offset_tl, clip_side) for mask in masks])
    truth_mask = _cell_means(on_sam, preset.sam.mask_side)
    truth_grid = _cell_means(on_clip, preset.clip.grid).reshape(len(masks), -1) / 255
    boxes = np.stack([_box(mask, geometry, clip_side) for mask in masks])
    return np.rint(truth_mask).astype(np.uint8), truth_grid.astype(np.float32), boxes


def _place(mask: BoolMask, size_hw: tuple[int, int], offset_tl: tuple[int, int], side: int) -> UInt8Array:
    """Return uint8 (side, side), the mask where `preprocess.prepare` puts the image."""
    square = np.zeros((side, side), dtype=np.uint8)
    (height, width), (top, left) = size_hw, offset_tl
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    resized = grey.resize((width, height), Image.Resampling.BILINEAR)
    square[top : top + height, left : left + width] = np.asarray(resized)
    return square


def _cell_means(squares: UInt8Array, cells: int) -> npt.NDArray[np.float64]:
    """Return (count, cells, cells), the mean of each cell of (count, side, side)."""
    count, side, _ = squares.shape
    means: npt.NDArray[np.float64] = squares.reshape(count, cells, side // cells, cells, side // cells).mean(
        axis=(2, 4)
    )
    return means


def _box(mask: BoolMask, geometry: Geometry, clip_side: int) -> npt.NDArray[np.float32]:
    """Return the box around a mask as centre and size on CLIP's padded square; zeros for an empty mask."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(4, dtype=np.float32)
    low = np.array([cols[0], rows[0]])
    high = np.array([cols[-1] + 1, rows[-1] + 1])
    ratio = np.divide(geometry.clip_hw, geometry.original_hw)[::-1]
    low, high = (end * ratio + geometry.clip_offset_tl[::-1] for end in (low, high))
    box: npt.NDArray[np.float32] = (np.concatenate([(low + high) / 2, high - low]) / clip_side).astype(np.float32)
    return box


class SceneBatches(Dataset[Batch]):
    """The batches of one phase by number of the step; each process of a distributed run makes its own part of them.

    first_scene: number of the phase's first scene, so that phases do not share scenes.
    share: (rank, ranks).
    """

    def __init__(
        self,
        preset: Preset,
        data: DataConfig,
        *,
        split: str,
        targets: str,
        images: int,
        expressions: int,
        text_positions: int,
        first_scene: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        rank, ranks = share
        if images % ranks:
            raise ValueError(f"{images} images a step cannot be shared among {ranks} processes")
        self._preset, self._data, self._targets = preset, data, targets
        self._expressions, self._text_positions = expressions, text_positions
        self._images, self._first_scene = images, first_scene
        self._own = range(rank * images // ranks, (rank + 1) * images // ranks)
        self._generator = SceneGenerator(
            side_px=data.side_px, seed=data.seed, split=split, expressions_per_scene=expressions
        )

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        first = self._first_scene + step * self._images
        samples = [
            scene_sample(self._generator, first + k, self._data, targets=self._targets, count=self._expressions)
            for k in self._own
        ]
        return make_batch(samples, self._preset, self._text_positions)

    def loader(self, steps: Iterable[int], workers: int) -> Iterator[Batch]:
        """Yield the batches of `steps` in order, made ahead by worker processes (by this one if `workers` is 0)."""
        batches: DataLoader[Batch] = DataLoader(
            self,
            batch_size=None,
            sampler=list(steps),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_start_worker,
        )
        yield from batches


def _start_worker(_: int) -> None:
    """Leave signals to the main process, which saves its state first and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
