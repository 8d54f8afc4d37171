"""Batches of small pictures of single things, which teach CLIP's two towers what things are called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssp_sam.config import Preset
from ssp_sam.data import SceneGenerator
from ssp_sam.training.batches import Batches, on_device
from ssp_sam.training.config import DataConfig
from ssp_sam.training.naming import nouns_to_tell_apart, token_ids_of
from ssp_sam.training.scenes import scene_generator
from ssp_sam.training.targets import cell_means

# Patches along one side of a close-up, by turns; so many more small ones make a step that all take about as long.
CLOSE_UP_PATCHES = (4, 4, 6, 8)


@dataclass(frozen=True)
class CloseUps:
    """Pictures of single things, smaller than CLIP's square.

    image: uint8 (B, 3, s, s); noun: int64 (B,), which of the K nouns each shows; covered: float32 (B, n), the share of
    each of its n patches that the thing covers; noun_token_ids: int32 (K, L), the nouns in one wording each;
    place_rc: row and column of CLIP's grid where the first patch is taken to be.
    """

    image: Tensor
    noun: Tensor
    covered: Tensor
    noun_token_ids: Tensor
    place_rc: tuple[int, int]

    def to(self, device: torch.device) -> CloseUps:
        """Return the batch with its tensors on a device."""
        return on_device(self, device)


def close_ups(
    generator: SceneGenerator, numbers: Iterable[int], patches: int, preset: Preset, rng: np.random.Generator
) -> CloseUps:
    """Draw pictures by number, each of `patches` x `patches` patches of CLIP's image encoder."""
    drawn = [generator.close_up(number, patches * preset.clip.patch_px) for number in numbers]
    shown = [thing.noun for _, thing in drawn]
    chosen = nouns_to_tell_apart(shown, generator.vocabulary, rng)
    covered = cell_means(np.stack([thing.mask for _, thing in drawn]), patches).reshape(len(drawn), -1)
    row, column = rng.integers(preset.clip.grid - patches + 1, size=2).tolist()
    return CloseUps(
        image=torch.from_numpy(np.stack([image for image, _ in drawn]).transpose(0, 3, 1, 2).copy()),
        noun=torch.tensor([chosen.index(noun) for noun in shown]),
        covered=torch.from_numpy(covered.astype(np.float32)),
        noun_token_ids=torch.from_numpy(token_ids_of(chosen, rng)),
        place_rc=(row, column),
    )


class CloseUpBatches(Batches):
    """Batches of close-ups. images: of a step whose close-ups are the smallest; first_image: number of the first."""

    def __init__(
        self,
        preset: Preset,
        data: DataConfig,
        *,
        split: str,
        images: int,
        first_image: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__(images, share)
        self._preset, self._first_image, self._seed = preset, first_image, data.seed
        self._generator = scene_generator(data, split)

    def __getitem__(self, step: int) -> CloseUps:
        """Return the batch of a step."""
        patches = min(CLOSE_UP_PATCHES[step % len(CLOSE_UP_PATCHES)], self._preset.clip.grid)
        fewer = max(1, round((patches / CLOSE_UP_PATCHES[0]) ** 2))
        first = self._first_image + step * self._images
        numbers = [first + own for own in self._own[::fewer]]
        rng = np.random.default_rng([self._seed, self._first_image, step, self._own.start])
        return close_ups(self._generator, numbers, patches, self._preset, rng)
