"""Batches of scenes. Seed, step and place in the batch alone decide a sample, so a resumed run sees the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch

from ssp_sam.config import Preset
from ssp_sam.data import GlyphSet, SceneGenerator
from ssp_sam.data.names import doubtful_for
from ssp_sam.data.standing import NOT_THERE, UNSAID, relations_of, traits_of
from ssp_sam.data.wording import RELATIONS
from ssp_sam.tokenizer import tokenize
from ssp_sam.training.batches import (
    Batch,
    Batches,
    BatchForm,
    Sample,
    SeenThing,
    ShownThings,
    geometry_of_sample,
    make_batch,
    random_place,
)
from ssp_sam.training.config import DataConfig
from ssp_sam.training.naming import names_to_look_for, nouns_to_tell_apart, token_ids_of
from ssp_sam.training.targets import things_shown


def scene_generator(
    data: DataConfig,
    split: str,
    expressions: int = 1,
    emphasis: Mapping[str, float] = MappingProxyType({}),
    smallness: float = 1.0,
) -> SceneGenerator:
    """Return what draws the scenes of a configuration, with so many phrases each; the last two: of `SceneGenerator`."""
    return SceneGenerator(
        side_px=data.side_px,
        seed=data.seed,
        split=split,
        expressions_per_scene=expressions,
        glyphs=GlyphSet(data.styles),
        vocabulary=data.vocabulary,
        emphasis=emphasis,
        smallness=smallness,
    )


def scene_sample(
    generator: SceneGenerator, index: int, data: DataConfig, *, targets: str, count: int, with_things: bool = False
) -> Sample:
    """Draw scene `index` with up to `count` targets ("phrases" or "things")."""
    scene = generator.scene(index)
    rng = np.random.default_rng([data.seed, index])
    if targets == "things":
        chosen = rng.permutation(len(scene.things))[:count]
        sample = Sample(scene.image, [scene.things[i].mask for i in chosen])
    else:
        masks, phrases, kinds = zip(*((e.mask, e.phrase, e.kind) for e in scene.expressions), strict=True)
        sample = Sample(scene.image, masks, phrases, kinds, [e.beside for e in scene.expressions])
    if with_things:
        side_px = max(scene.image.shape[:2])
        traits, relations = traits_of(scene.things, side_px), relations_of(scene.things, side_px)
        seen = [
            SeenThing(thing.noun, thing.mask, traits[i], {noun: said[i] for noun, said in relations.items()})
            for i, thing in enumerate(scene.things)
        ]
        sample = replace(sample, things=seen)
    return sample


class SceneBatches(Batches):
    """Batches of scenes.

    first_scene: number of the phase's first scene, so that phases do not share scenes.
    random_offset, emphasis, smallness: those of `PhaseConfig`.
    """

    def __init__(
        self,
        form: BatchForm,
        data: DataConfig,
        *,
        split: str,
        targets: str,
        images: int,
        expressions: int,
        first_scene: int = 0,
        random_offset: bool = False,
        emphasis: Mapping[str, float] = MappingProxyType({}),
        smallness: float = 1.0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__(images, share)
        self._form, self._data, self._targets = form, data, targets
        self._expressions, self._first_scene, self._random_offset = expressions, first_scene, random_offset
        self._generator = scene_generator(data, split, expressions, emphasis, smallness)

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        samples = [self._sample(step * self._images + k) for k in self._own]
        batch = make_batch(samples, self._form)
        if not self._form.things:
            return batch
        rng = np.random.default_rng([self._data.seed, self._first_scene, step, self._own.start])
        return replace(batch, shown=shown_things(samples, self._generator.vocabulary, self._form.preset, rng))

    def _sample(self, number: int) -> Sample:
        index = self._first_scene + number
        sample = scene_sample(
            self._generator,
            index,
            self._data,
            targets=self._targets,
            count=self._expressions,
            with_things=self._form.things,
        )
        return random_place(sample, self._data.seed, index) if self._random_offset else sample


def shown_things(
    samples: Sequence[Sample], vocabulary: Sequence[str], preset: Preset, rng: np.random.Generator
) -> ShownThings:
    """Return what the patches of samples with things show; other nouns of the vocabulary are to tell theirs from."""
    things = [thing for sample in samples for thing in sample.things]
    chosen = nouns_to_tell_apart((thing.noun for thing in things), vocabulary, rng)
    number = {noun: index for index, noun in enumerate(chosen)}
    relations = np.full((len(things), len(RELATIONS), len(chosen)), NOT_THERE, dtype=np.int8)
    patches, before = [], 0
    for sample in samples:
        present = {thing.noun for thing in sample.things}
        doubtful = [column for noun, column in number.items() if doubtful_for(noun) & present]
        for row, thing in enumerate(sample.things, start=before):
            relations[row, :, doubtful] = UNSAID
            for noun, said in thing.relations.items():
                relations[row, :, number[noun]] = said
        own = things_shown([thing.mask for thing in sample.things], geometry_of_sample(sample, preset), preset)
        patches.append(np.where(own >= 0, own + before, own))
        before += len(sample.things)
    noun_token_ids = token_ids_of(chosen, rng)
    wanted = names_to_look_for(vocabulary, rng)
    nouns_of = [[thing.noun for thing in sample.things] for sample in samples]
    named = np.array([[each.is_there(nouns) for each in wanted] for nouns in nouns_of], dtype=np.int8)
    return ShownThings(
        of_patch=torch.from_numpy(np.stack(patches)),
        traits=torch.from_numpy(np.stack([thing.traits for thing in things])),
        noun=torch.tensor([number[thing.noun] for thing in things]),
        noun_token_ids=torch.from_numpy(noun_token_ids),
        relations=torch.from_numpy(relations),
        name_token_ids=torch.from_numpy(np.concatenate([tokenize([each.phrase]) for each in wanted])),
        named=torch.from_numpy(named),
    )
