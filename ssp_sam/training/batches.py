"""From samples to batches. Seed, step and place in the batch alone decide a sample, so a resumed run sees the same."""

from __future__ import annotations

import multiprocessing
import signal
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssp_sam.config import Preset
from ssp_sam.data import Expression
from ssp_sam.preprocess import Geometry, UInt8Array, geometry_of, place_on_square
from ssp_sam.results import BoolMask
from ssp_sam.tokenizer import tokenize
from ssp_sam.training.config import ConfigError
from ssp_sam.training.targets import CELLS, patch_shares, targets_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_OF_TARGETS = ("image_index", "token_ids", "truth_mask", "truth_grid", "truth_box", "absent", "beside_grid")
_NAMED = ("own_masks", "phrases")
"""The fields of a `Batch` that have an entry for each target: tensors, and the others."""

AnyBatch = TypeVar("AnyBatch", bound="DataclassInstance")


@dataclass(frozen=True)
class ShownThings:
    """The T things of a batch's images, and where they are seen.

    of_patch: int64 (B, N), which thing each patch of CLIP's padded square shows, or `targets.NOTHING` or `UNCLEAR`;
    traits: int8 (T, `TRAITS`), what can be said of them; noun: int64 (T,), which of K nouns they are;
    noun_token_ids: int32 (K, L), the nouns in one wording each, those of the things among others;
    relations: int8 (T, `RELATIONS`, K), whether they are in each relation to what is called so in their image, or
        `NOT_THERE` where nothing is;
    name_token_ids: int32 (J, L), phrases of a name each; named: int8 (B, J), whether each means anything in each image.
    """

    of_patch: Tensor
    traits: Tensor
    noun: Tensor
    noun_token_ids: Tensor
    relations: Tensor
    name_token_ids: Tensor
    named: Tensor


@dataclass(frozen=True)
class Batch:
    """B images with P targets: phrases, or single things where the objective asks for those.

    sam_image: uint8 (B, 3, S, S), None where it is not needed; clip_image: uint8 (B, 3, R, R); geometry: int32 (B, 4,
    2), see `Geometry`; image_index: int64 (P,), the image of each target; token_ids: int32 (P, L), zeros for things;
    truth_mask: uint8 (P, 4G, 4G), covered share of each cell of SAM's padded square, 255 for all of it; (P, S, S) or
        (P, S / 2, S / 2) if `masks_on` is "square" or "half-square";
    truth_grid: float32 (P, N), covered share of each patch of CLIP's padded square, 1 for the most covered of a target;
    beside_grid: float32 (P, N), the same of what a phrase names beside its target; zeros where that is not known;
    truth_box: float32 (P, 4), centre and size in 0..1 of CLIP's padded square, zeros if absent; absent: bool (P,).
    shown: the things that patches show, where they are asked for.
    image_embedding: (B, D, G, G), what SAM's encoder made of the images earlier; None if it has to be asked.
    masks_on: one of `MASK_GRIDS`.
    own_masks: the truths at the images' own sizes, bool (H, W) each, where they are asked for.
    phrases: what each target is called; empty for things.
    """

    sam_image: Tensor | None
    clip_image: Tensor
    geometry: Tensor
    image_index: Tensor
    token_ids: Tensor
    truth_mask: Tensor
    truth_grid: Tensor
    truth_box: Tensor
    absent: Tensor
    beside_grid: Tensor
    shown: ShownThings | None = None
    image_embedding: Tensor | None = None
    masks_on: str = CELLS
    own_masks: tuple[BoolMask, ...] = ()
    phrases: tuple[str, ...] = ()

    @property
    def truth(self) -> Tensor:
        """The truth mask as float32, 0..1."""
        return self.truth_mask.float() / 255

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device."""
        return on_device(self, device)

    def of_targets(self, chosen: Tensor) -> Batch:
        """Return the same images with some of the targets; chosen: int64 (C,), their numbers."""
        parts: dict[str, Any] = {name: getattr(self, name)[chosen] for name in _OF_TARGETS}
        for name in _NAMED:
            if every := getattr(self, name):
                parts[name] = tuple(every[i] for i in chosen.tolist())
        return replace(self, **parts)


def on_device(batch: AnyBatch, device: torch.device) -> AnyBatch:
    """Return a dataclass of a batch with its tensors, and those of dataclasses in it, on a device."""
    moved: dict[str, Any] = {}
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            moved[name] = value.to(device)
        elif is_dataclass(value) and not isinstance(value, type):
            moved[name] = on_device(value, device)
    return replace(batch, **moved)


class SeenThing(NamedTuple):
    """A thing in an image: its noun, its mask, bool (H, W), its `TRAITS`, int8, and its relations to nouns there."""

    noun: str
    mask: BoolMask
    traits: npt.NDArray[np.int8]
    relations: Mapping[str, npt.NDArray[np.int8]]


@dataclass(frozen=True)
class Sample:
    """One image, RGB uint8 (H, W, 3), and its targets.

    masks: their truths, bool (H, W); phrases, kinds: what each phrase says, and of which kind it is; both are empty
    where the targets are things. beside: what each phrase names beside its target, bool (H, W), if that is known.
    things: all that is in the image, if that is asked for. clip_place:
    how far down and right CLIP's image lies on its square, each as a share of the room there is, below 1; if None, in
    the middle. embedding: float16 (D, G, G), what SAM's encoder made of the image, if that is known.
    """

    image: UInt8Array
    masks: Sequence[BoolMask]
    phrases: Sequence[str] = ()
    kinds: Sequence[str] = ()
    beside: Sequence[BoolMask] = ()
    things: Sequence[SeenThing] = ()
    clip_place: tuple[float, float] | None = None
    embedding: npt.NDArray[np.float16] | None = None

    @property
    def expressions(self) -> list[Expression]:
        """The targets as the generator gave them."""
        return [Expression(*each) for each in zip(self.phrases, self.kinds, self.masks, self.beside, strict=True)]


@dataclass(frozen=True)
class BatchForm:
    """How samples are brought into the form that the model takes.

    masks_on: one of `MASK_GRIDS`. sam_images: whether SAM's encoder will be asked.
    own_masks: whether truths at the images' own sizes are wanted. things: whether it is asked what patches show.
    """

    preset: Preset
    masks_on: str = CELLS
    sam_images: bool = True
    own_masks: bool = False
    things: bool = False


def make_batch(samples: Sequence[Sample], form: BatchForm) -> Batch:
    """Bring samples, of which all or none have an embedding, into the form that the model takes."""
    preset = form.preset
    images = [Image.fromarray(sample.image) for sample in samples]
    geometries = [geometry_of_sample(sample, preset) for sample in samples]
    embedded = [sample.embedding for sample in samples if sample.embedding is not None]
    sam_images = [
        place_on_square(image, geometry.sam_hw, (0, 0), preset.sam.image_side_px)
        for image, geometry in zip(images, geometries, strict=True)
        if form.sam_images and not embedded
    ]
    clip_images = [
        place_on_square(image, geometry.clip_hw, geometry.clip_offset_tl, preset.clip.image_side_px)
        for image, geometry in zip(images, geometries, strict=True)
    ]
    targets = [
        targets_of(sample.masks, geometry, preset, masks_on=form.masks_on)
        for sample, geometry in zip(samples, geometries, strict=True)
    ]
    truth_mask, truth_grid, truth_box = (np.concatenate(parts) for parts in zip(*targets, strict=True))
    beside_grids = [
        patch_shares(sample.beside, geometry, preset)
        if any(mask.any() for mask in sample.beside)
        else np.zeros_like(target.truth_grid)
        for sample, geometry, target in zip(samples, geometries, targets, strict=True)
    ]
    token_ids = [_token_ids(sample, preset.text_positions) for sample in samples]
    counts = [len(sample.masks) for sample in samples]
    own_masks = [mask for sample in samples for mask in sample.masks]
    return Batch(
        sam_image=_stack(sam_images),
        clip_image=torch.from_numpy(np.stack(clip_images)),
        geometry=torch.from_numpy(np.stack([geometry.to_array() for geometry in geometries])),
        image_index=torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(counts)),
        token_ids=torch.from_numpy(np.concatenate(token_ids)),
        truth_mask=torch.from_numpy(truth_mask),
        truth_grid=torch.from_numpy(truth_grid),
        truth_box=torch.from_numpy(truth_box),
        absent=torch.from_numpy(~truth_mask.any(axis=(1, 2))),
        beside_grid=torch.from_numpy(np.concatenate(beside_grids)),
        image_embedding=_stack(embedded),
        masks_on=form.masks_on,
        own_masks=tuple(own_masks) if form.own_masks else (),
        phrases=tuple(phrase for sample in samples for phrase in sample.phrases),
    )


def _stack(arrays: Sequence[npt.NDArray[np.uint8] | npt.NDArray[np.float16]]) -> Tensor | None:
    return torch.from_numpy(np.stack(arrays)) if arrays else None


def geometry_of_sample(sample: Sample, preset: Preset) -> Geometry:
    """Return where a sample lies on the squares of SAM and CLIP."""
    height, width, _ = sample.image.shape
    geometry = geometry_of((height, width), preset)
    if sample.clip_place is None:
        return geometry
    room = (preset.clip.image_side_px - side for side in geometry.clip_hw)
    top, left = (int(place * (free + 1)) for place, free in zip(sample.clip_place, room, strict=True))
    return replace(geometry, clip_offset_tl=(top, left))


def _token_ids(sample: Sample, positions: int) -> npt.NDArray[np.int32]:
    if not sample.phrases:
        return np.zeros((len(sample.masks), positions), dtype=np.int32)
    return tokenize(sample.phrases, positions)


class Batches(Dataset[Any]):
    """The batches of one phase by number of the step; each process of a distributed run makes its own part of them.

    images: of a step, of all processes together; share: (rank, ranks). Raises ConfigError if they cannot be shared.
    """

    def __init__(self, images: int, share: tuple[int, int]) -> None:
        rank, ranks = share
        check_share(images, ranks)
        self._images = images
        self._own = range(rank * images // ranks, (rank + 1) * images // ranks)

    @abstractmethod
    def __getitem__(self, step: int) -> Any:
        """Return the batch of a step: a `Batch`, or what else the objective learns from."""

    def loader(self, steps: Iterable[int], workers: int) -> Iterator[Any]:
        """Yield the batches of `steps` in order, made ahead by worker processes (by this one if `workers` is 0)."""
        batches: DataLoader[Any] = DataLoader(
            self,
            batch_size=None,
            sampler=list(steps),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_start_worker,
            multiprocessing_context=_worker_context() if workers else None,
        )
        yield from batches


def check_share(images: int, ranks: int) -> None:
    """Raise ConfigError unless so many processes can share the images of a step evenly."""
    if images % ranks:
        raise ConfigError(f"{images} images a step cannot be shared among {ranks} processes")


def random_place(sample: Sample, *seed: int) -> Sample:
    """Return the sample with a place for CLIP's image that the seed decides."""
    down, right = np.random.default_rng(seed).random(2)
    return replace(sample, clip_place=(float(down), float(right)))


def _worker_context() -> BaseContext:
    """Return the context that forks workers from a process without threads: a copy of this one might crash or hang.

    Threads of gRPC, of OpenMP or of a collective do not survive a fork, but the locks they hold do.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start_worker(_: int) -> None:
    """Leave signals to the main process, which saves its state first and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
