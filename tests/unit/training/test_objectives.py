import math
from typing import Any

import numpy as np
import pytest
import torch

from ssp_sam.config import Preset
from ssp_sam.training import objectives
from ssp_sam.training.batches import Batch, BatchForm, Sample, SceneBatches, make_batch
from ssp_sam.training.config import DataConfig
from ssp_sam.training.objectives import OBJECTIVES
from ssp_sam.training.targets import UNCLEAR
from ssp_sam.training.trainee import Trainee


def _batch(preset: Preset) -> Batch:
    """Two images; of the first a thing and something absent, of the second a thing."""
    masks = np.zeros((2, 64, 64), dtype=bool)
    masks[0, 8:40, 16:32] = True
    masks[1, 32:64, 32:64] = True
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    return make_batch(
        [
            Sample(images[0], [masks[0], np.zeros_like(masks[0])], ["the dog", "the cat"], ["noun", "absent-noun"]),
            Sample(images[1], [masks[1]], ["two cars"], ["all"]),
        ],
        BatchForm(preset),
    )


def test_corners_enclose_a_mask(nano: Preset) -> None:
    corners = objectives._corners(_batch(nano).truth_mask > 127)
    assert corners[0].tolist() == [[8, 4], [16, 20]]  # x, y in cells of 2 pixels
    assert corners[2].tolist() == [[16, 16], [32, 32]]


def test_contrast_is_low_when_phrases_fit_their_regions(nano: Preset) -> None:
    batch = _batch(nano)
    patches = torch.zeros(3, 16, 16)
    patches[0, :, 0] = patches[1, :, 0] = 1  # the first image is all dog
    patches[2, :, 1] = 1  # the second is all car
    phrases = torch.eye(16)[[0, 2, 1]]
    assert objectives._contrast(batch, patches, phrases).item() < 1e-4
    swapped = objectives._contrast(batch, patches, phrases[[2, 1, 0]]).item()
    assert swapped > 1 / objectives.CONTRAST_TEMPERATURE
    # Where all look alike it is chance: two regions for a phrase, and two or three phrases for a region.
    alike = objectives._contrast(batch, torch.ones(3, 16, 16), torch.ones(3, 16) / 4).item()
    assert alike == pytest.approx((math.log(2) + (math.log(2) + math.log(3)) / 2) / 2, rel=1e-4)


def test_absent_phrases_count_more_in_cross_entropies_and_have_no_box(nano: Preset) -> None:
    torch.manual_seed(0)
    trainee, batch = Trainee(nano), _batch(nano)
    plain = OBJECTIVES["masks"].compute(trainee, batch, 1.0)
    heavy = OBJECTIVES["masks"].compute(trainee, batch, 4.0)
    raised = {name for name in plain if not torch.equal(plain[name], heavy[name])}
    assert raised == {"mask_bce", "attention_bce", "similarity_bce"}
    assert all(heavy[name] > plain[name] for name in raised)


def test_box_losses_of_a_batch_without_targets_are_zero(nano: Preset) -> None:
    sample = Sample(np.zeros((64, 64, 3), np.uint8), [np.zeros((64, 64), bool)], ["the cat"], ["absent-noun"])
    found = OBJECTIVES["boxes"].compute(Trainee(nano), make_batch([sample], BatchForm(nano)), 1.0)
    assert found["box_l1"].item() == found["box_giou"].item() == 0


def test_cut_padding_does_not_change_what_grounding_sees(nano: Preset) -> None:
    trainee, batch = Trainee(nano).eval(), _batch(nano)
    with torch.no_grad():
        _, phrases = objectives.patches_and_phrases(trainee, batch)
        whole, _ = trainee.model.text_encoder(batch.token_ids)
    torch.testing.assert_close(phrases, torch.nn.functional.normalize(whole, dim=-1))


def test_losses_are_named_as_announced(nano: Preset, run_table: dict[str, Any]) -> None:
    form = BatchForm(nano, nouns=True)
    batches = SceneBatches(form, DataConfig(64), split="train", targets="phrases", images=2, expressions=2)
    for objective in OBJECTIVES.values():
        assert set(objective.compute(Trainee(nano), batches[0], 1.0)) == set(objective.losses)


def test_naming_is_low_when_patches_say_what_they_show(nano: Preset) -> None:
    shown = torch.tensor([[0, 1, 2, UNCLEAR]])  # two nouns, then nothing
    similarity = torch.full((1, 4, 2), -1.0)
    similarity[0, 0, 0] = similarity[0, 1, 1] = 1
    trainee = Trainee(nano)
    trainee.similarity_head.bias.data.zero_()
    right = objectives._naming(trainee, similarity, shown).item()
    assert right < 1e-3
    similarity[0, 3] = 1  # what is unclear does not count
    assert objectives._naming(trainee, similarity, shown).item() == right
    swapped = objectives._naming(trainee, similarity.flip(2), shown).item()
    assert swapped == pytest.approx(10, abs=0.01)  # 20 for things (scale 10), none for nothing
    alike = objectives._naming(trainee, torch.zeros(1, 4, 2), shown).item()
    assert alike == pytest.approx(math.log(3))
