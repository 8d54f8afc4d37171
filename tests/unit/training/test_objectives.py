import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from ssp_sam.config import Preset, get_preset
from ssp_sam.data.names import nouns
from ssp_sam.modeling.ssp import Prompts
from ssp_sam.tokenizer import tokenize
from ssp_sam.training import objectives
from ssp_sam.training.batches import Batch, BatchForm, Sample, ShownThings, make_batch
from ssp_sam.training.close_ups import CloseUpBatches
from ssp_sam.training.config import DataConfig
from ssp_sam.training.objectives import INVENTORY, OBJECTIVES
from ssp_sam.training.scenes import SceneBatches
from ssp_sam.training.targets import NOTHING, UNCLEAR
from ssp_sam.training.trainee import Trainee, draw_weights


@dataclass(frozen=True)
class Asked:
    """What an objective asks of a phase."""

    absent_weight: float = 1.0
    learned_per_image: int = 0
    loss_weights: Mapping[str, float] = field(default_factory=dict)


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


def test_absent_phrases_count_more_in_cross_entropies_and_have_no_box(nano: Preset) -> None:
    torch.manual_seed(0)
    trainee, batch = Trainee(nano), _batch(nano)
    plain = OBJECTIVES["masks"].compute(trainee, batch, Asked())
    heavy = OBJECTIVES["masks"].compute(trainee, batch, Asked(absent_weight=4))
    raised = {name for name in plain if not torch.equal(plain[name], heavy[name])}
    assert raised == {"mask_bce", "attention_bce", "similarity_bce"}
    assert all(heavy[name] > plain[name] for name in raised)


def test_half_of_what_is_learned_is_what_is_answered_worst(nano: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twelve phrases about two images; the last two have no target, and the decoder is sure of something there."""
    base, side = _batch(nano), nano.sam.mask_side
    truth = torch.zeros(12, side, side, dtype=torch.uint8)
    truth[:10, 4:20, 4:20] = 255
    batch = replace(
        base,
        image_index=torch.arange(12) // 6,
        truth_mask=truth.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2),  # on SAM's square
        absent=torch.arange(12) >= 10,
    )
    logits = torch.where(truth > 0, 5.0, -5.0)
    logits[3] = -logits[3]  # all wrong
    logits[7, :, :12] = -5  # half of it
    estimate = torch.full((12,), 0.9)
    estimate[11] = 0.1  # rightly sure of nothing
    monkeypatch.setattr(objectives, "prompts_of", lambda *_: None)
    monkeypatch.setattr(objectives, "prompted_masks", lambda *_: (logits, estimate))
    # Of the others (all but 3, 7 and 10) every third.
    assert objectives._to_learn(Trainee(nano), batch, torch.empty(0), 3).tolist() == [0, 3, 4, 7, 8, 10]
    assert objectives._to_learn(Trainee(nano), batch, torch.empty(0), 6).tolist() == list(range(12))


def test_what_is_chosen_is_learned_as_if_it_were_all(nano: Preset) -> None:
    torch.manual_seed(0)
    trainee, batch = Trainee(nano), _batch(nano)
    chosen = objectives._to_learn(trainee, batch, objectives.clip_tokens_of(trainee, batch), 1)
    assert len(chosen) == 2
    found = OBJECTIVES["masks"].compute(trainee, batch, Asked(learned_per_image=1))
    alone = OBJECTIVES["masks"].compute(trainee, batch.of_targets(chosen), Asked())
    for name, loss in found.items():
        torch.testing.assert_close(loss, alone[name], msg=name)
    torch.stack(list(found.values())).sum().backward()
    for stage in ("sam_image_encoder", "clip_image_encoder", "text_encoder", "mask_decoder"):
        gradients = [p.grad for p in trainee.part(stage).parameters() if p.grad is not None]
        assert any(gradient.abs().sum() > 0 for gradient in gradients), stage


def test_attention_may_rest_on_what_a_phrase_names_beside_its_target(nano: Preset) -> None:
    """Patches there are best seen a little, neither not at all nor as the target is; all others as before."""
    trainee, batch = Trainee(nano), _batch(nano)
    beside = torch.zeros_like(batch.truth_grid)
    beside[0, batch.truth_grid[0].argmin()] = 1
    there, target = int(beside[0].argmax()), int(batch.truth_grid[0].argmax())

    def lost(attention: torch.Tensor, *, known: bool) -> tuple[float, float]:
        prompts = Prompts(
            torch.zeros(3, 1, 1), torch.full((3, 4), 0.5), torch.zeros(3, 1), attention, torch.zeros_like(attention)
        )
        given = replace(batch, beside_grid=beside if known else torch.zeros_like(beside))
        found = objectives._prompt_losses(trainee, given, prompts, torch.ones(3))
        return found["attention_bce"].item(), found["attention_dice"].item()

    def seen(patch: int, much: float) -> torch.Tensor:
        attention = batch.truth_grid.clone()
        attention[0, patch] = much
        return attention

    bce, dice = zip(*(lost(seen(there, much), known=True) for much in (0.0, 0.35, 1.0)), strict=True)
    assert bce[1] < min(bce[0], bce[2])
    assert dice[0] == dice[1] == dice[2]
    assert lost(seen(there, 0.35), known=False)[0] > lost(seen(there, 0.0), known=False)[0]
    assert lost(seen(target, 0.35), known=True) > lost(seen(target, 1.0), known=True)


def test_box_losses_of_a_batch_without_targets_are_zero(nano: Preset) -> None:
    sample = Sample(np.zeros((64, 64, 3), np.uint8), [np.zeros((64, 64), bool)], ["the cat"], ["absent-noun"])
    found = OBJECTIVES["boxes"].compute(Trainee(nano), make_batch([sample], BatchForm(nano)), Asked())
    assert found["box_l1"].item() == found["box_giou"].item() == 0


def test_cut_padding_does_not_change_what_grounding_sees(nano: Preset) -> None:
    trainee, batch = Trainee(nano).eval(), _batch(nano)
    with torch.no_grad():
        _, phrases = objectives.patches_and_phrases(trainee, batch)
        whole, _ = trainee.model.text_encoder(batch.token_ids)
    torch.testing.assert_close(phrases, torch.nn.functional.normalize(whole, dim=-1))


def test_losses_are_named_as_announced(nano: Preset, run_table: dict[str, Any]) -> None:
    form = BatchForm(nano, things=True)
    scenes = SceneBatches(form, DataConfig(64), split="train", targets="phrases", images=2, expressions=2)
    close_ups = CloseUpBatches(nano, DataConfig(64), split="train", images=2)
    for objective in OBJECTIVES.values():
        batch = close_ups[0] if objective.targets == "close-ups" else scenes[0]
        counting = Asked(loss_weights=dict.fromkeys(objective.losses, 1.0))
        assert set(objective.compute(Trainee(nano), batch, counting)) == set(objective.losses)
        assert set(objective.compute(Trainee(nano), batch, Asked())) == set(objective.losses) - {INVENTORY}


def test_a_close_up_of_the_whole_square_is_what_the_encoder_sees(nano: Preset) -> None:
    """The same pixels at the same place give the same features as the encoder's own forward pass."""
    trainee = Trainee(nano).eval()
    draw_weights(trainee)
    batch = CloseUpBatches(nano, DataConfig(64), split="train", images=3)[0]
    assert batch.image.shape == (3, 3, 64, 64)
    size = torch.tensor([[64, 64]] * 3)
    with torch.no_grad():
        of_patches, of_things = objectives.named_patches(trainee, batch)
        tokens = trainee.model.clip_image_encoder(batch.image, size, torch.zeros_like(size))[:, 1:]
        text, _ = trainee.model.text_encoder(batch.noun_token_ids)
    similarity = torch.nn.functional.cosine_similarity(tokens[:, :, None], text, dim=-1)
    torch.testing.assert_close(of_patches, similarity, atol=1e-5, rtol=0)
    seen = (tokens * batch.covered[..., None]).sum(dim=1)
    similarity = torch.nn.functional.cosine_similarity(seen[:, None], text, dim=-1)
    torch.testing.assert_close(of_things, similarity, atol=1e-5, rtol=0)


def test_words_differ_from_the_start() -> None:
    torch.manual_seed(0)
    trainee = Trainee(get_preset("tiny"))
    draw_weights(trainee)
    table = trainee.model.text_encoder.tower.embeddings.token_embedding.weight
    spoken = tokenize(["the second dog from the left"])[0]
    drawn = table.abs().sum(dim=1) > 0
    assert drawn[spoken[1:7]].all()
    assert not drawn[spoken[7:]].any(), "full stop, end and padding"
    assert not drawn[tokenize(["quasar"])[0]].any()
    with torch.no_grad():
        phrases = objectives._phrases(trainee, torch.from_numpy(tokenize(["the " + noun for noun in nouns()[:40]])))
    assert torch.linalg.matrix_rank(phrases - phrases.mean(dim=0), rtol=0.02) >= 35, "of 40 nouns"


def test_naming_is_low_when_patches_say_what_they_show(nano: Preset) -> None:
    of_patch = torch.tensor([[0, 1, NOTHING, UNCLEAR]])
    unused = dict.fromkeys(("traits", "noun_token_ids", "relations", "name_token_ids", "named"), torch.zeros(0))
    shown = ShownThings(of_patch, noun=torch.tensor([1, 0]), **unused)
    similarity = torch.full((4, 2), -1.0)
    similarity[0, 1] = similarity[1, 0] = 1
    trainee = Trainee(nano)
    trainee.similarity_head.bias.data.zero_()
    trainee.similarity_head.log_scale.data.fill_(math.log(10))
    right = objectives._naming(trainee, similarity, shown).item()
    assert right < 1e-3
    similarity[3] = 1  # what is unclear does not count
    assert objectives._naming(trainee, similarity, shown).item() == right
    swapped = objectives._naming(trainee, similarity.flip(1), shown).item()
    assert swapped == pytest.approx(10, abs=0.01)  # 20 for things (scale 10), none for nothing
    alike = objectives._naming(trainee, torch.zeros(4, 2), shown).item()
    assert alike == pytest.approx(math.log(3))
