import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssp_sam.config import Preset, get_preset
from ssp_sam.data import SceneGenerator, glyphs
from ssp_sam.data.names import doubtful_for, names, nouns
from ssp_sam.data.standing import NO, NOT_THERE, TRAITS, UNSAID, YES
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.training import scenes as training_scenes
from ssp_sam.training.batches import Batch, Batches, BatchForm, Sample, ShownThings, make_batch
from ssp_sam.training.close_ups import CloseUpBatches
from ssp_sam.training.config import DataConfig
from ssp_sam.training.naming import NAMES_PER_BATCH, NOUNS_PER_BATCH, WantedName, names_to_look_for
from ssp_sam.training.scenes import SceneBatches, scene_generator, scene_sample
from ssp_sam.training.targets import NOTHING, UNCLEAR

DATA = DataConfig(side_px=64)


def _batches(preset: Preset, *, targets: str = "phrases", share: tuple[int, int] = (0, 1)) -> SceneBatches:
    form = BatchForm(preset)
    return SceneBatches(form, DATA, split="train", targets=targets, images=4, expressions=3, share=share)


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, Batch | ShownThings):
        return all(_equal(value, getattr(b, name)) for name, value in vars(a).items())
    return a == b


def test_a_step_has_the_same_batch_whenever_it_is_made(nano: Preset) -> None:
    ahead = list(_batches(nano).loader(range(5, 7), workers=1))
    assert _equal(ahead[1], _batches(nano)[6])
    assert not _equal(ahead[0], ahead[1])


class _Parents(Batches):
    def __getitem__(self, step: int) -> int:
        return os.getppid()


def test_workers_are_not_forked_from_a_process_that_may_have_threads() -> None:
    parents = _Parents(1, (0, 1))
    assert list(parents.loader(range(2), workers=0)) == [os.getppid()] * 2
    assert os.getpid() not in list(parents.loader(range(2), workers=1))


def test_processes_share_the_images_of_a_step(nano: Preset) -> None:
    whole = _batches(nano)[2]
    parts = [_batches(nano, share=(rank, 2))[2] for rank in range(2)]
    assert torch.equal(torch.cat([part.clip_image for part in parts]), whole.clip_image)
    assert torch.equal(torch.cat([part.truth_mask for part in parts]), whole.truth_mask)
    with pytest.raises(ValueError, match="4 images a step cannot be shared among 3"):
        _batches(nano, share=(0, 3))


def test_truth_lies_where_the_image_lies(nano: Preset) -> None:
    image = np.zeros((32, 64, 3), dtype=np.uint8)
    mask = np.zeros((32, 64), dtype=bool)
    mask[16:32, 0:16] = True  # bottom left
    image[mask] = 255
    batch = make_batch(
        [Sample(image, [mask, np.zeros_like(mask)], ["this", "nothing"], ["noun", "absent-noun"])], BatchForm(nano)
    )

    on_sam = batch.truth_mask[0].float() / 255  # (32, 32) over SAM's square: the image is at the top
    assert on_sam[10:14, 2:6].min() == 1
    assert on_sam[17:].max() == 0
    assert batch.sam_image is not None
    lit = batch.sam_image[0, 0].float().view(32, 2, 32, 2).mean(dim=(1, 3)) / 255
    assert torch.allclose(lit, on_sam, atol=0.02)

    on_clip = batch.truth_grid[0].view(4, 4)  # the image is in the middle: rows 16 to 48 of 64
    assert on_clip[2, 0] > 0.9
    assert on_clip.sum() == pytest.approx(1.0, abs=0.1)
    assert batch.truth_box[0].tolist() == pytest.approx([8 / 64, 40 / 64, 16 / 64, 16 / 64])
    assert batch.absent.tolist() == [False, True]
    assert batch.truth_box[1].tolist() == [0, 0, 0, 0]
    assert batch.image_index.tolist() == [0, 0]


def test_some_targets_of_a_batch_keep_all_that_is_theirs(nano: Preset) -> None:
    sample = scene_sample(scene_generator(DATA, "val", 4), 0, DATA, targets="phrases", count=4)
    other = scene_sample(scene_generator(DATA, "val", 3), 1, DATA, targets="phrases", count=3)
    form = BatchForm(nano, own_masks=True)
    some = make_batch([sample, other], form).of_targets(torch.tensor([1, 3, 5]))
    fewer = [
        replace(
            each, **{name: [getattr(each, name)[i] for i in kept] for name in ("masks", "phrases", "kinds", "beside")}
        )
        for each, kept in ((sample, (1, 3)), (other, (1,)))
    ]
    expected = make_batch(fewer, form)
    assert all(_equal(value, getattr(expected, name)) for name, value in vars(some).items() if name != "own_masks")
    assert all(map(np.array_equal, some.own_masks, expected.own_masks))
    assert len(some.own_masks) == len(expected.own_masks) == 3


def test_things_have_no_phrases(nano: Preset) -> None:
    batch = _batches(nano, targets="things")[0]
    assert not batch.token_ids.any()
    assert not batch.absent.any()
    assert 4 <= len(batch.truth_mask) <= 12


def test_samples_are_of_the_shapes_of_their_scenes(nano: Preset) -> None:
    generator = SceneGenerator(side_px=64, expressions_per_scene=2)
    samples = [scene_sample(generator, index, DATA, targets="phrases", count=2) for index in range(12)]
    shapes = {sample.image.shape[:2] for sample in samples}
    assert (64, 64) in shapes
    assert any(height < 64 for height, _ in shapes)
    assert any(width < 64 for _, width in shapes)
    for sample in samples:
        assert {mask.shape for mask in sample.masks} == {sample.image.shape[:2]}


def test_patches_say_which_thing_they_show(nano: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_scenes, "doubtful_for", lambda noun: frozenset())
    form = BatchForm(nano, things=True)
    batches = SceneBatches(form, DATA, split="train", targets="phrases", images=3, expressions=2)
    batch, again = batches[1], batches[1]
    shown = batch.shown
    assert shown is not None
    assert _equal(batch, again)
    things = [batches._generator.scene(number).things for number in range(3, 6)]
    assert shown.noun_token_ids.shape == (NOUNS_PER_BATCH, 77)
    assert shown.traits.shape == (sum(map(len, things)), len(TRAITS))
    assert shown.of_patch.shape == (3, 16)
    # Things are numbered through the batch, and each image shows its own only.
    before = 0
    for own, seen in zip(things, shown.of_patch, strict=True):
        assert set(seen.tolist()) <= {NOTHING, UNCLEAR, *range(before, before + len(own))}
        nouns = shown.noun[before : before + len(own)].tolist()
        assert len(set(nouns)) == len({thing.noun for thing in own})
        assert max(nouns) < len({thing.noun for scene in things for thing in scene}), "those of the images come first"
        relations = shown.relations[before : before + len(own)]  # (things, RELATIONS, K)
        there = (relations != NOT_THERE).any(dim=1).any(dim=0).nonzero()[:, 0].tolist()
        assert sorted(there) == sorted(set(nouns)), "what an image shows, and nothing else, is there"
        before += len(own)


def test_nothing_is_said_of_nouns_that_an_image_may_show_in_a_part(
    nano: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_scenes, "doubtful_for", lambda noun: frozenset(nouns()))
    batches = SceneBatches(
        BatchForm(nano, things=True), DATA, split="train", targets="phrases", images=3, expressions=2
    )
    shown = batches[1].shown
    assert shown is not None
    assert not (shown.relations == NOT_THERE).any()
    assert doubtful_for("strawberry") == {"birthday cake"}
    assert doubtful_for("dog") == frozenset()


def test_names_are_looked_for_in_every_image(nano: Preset) -> None:
    batches = SceneBatches(
        BatchForm(nano, things=True), DATA, split="train", targets="phrases", images=3, expressions=2
    )
    shown = batches[1].shown
    assert shown is not None
    assert shown.name_token_ids.shape == (NAMES_PER_BATCH, 77)
    assert shown.named.shape == (3, NAMES_PER_BATCH)
    assert set(shown.named.unique().tolist()) <= {YES, NO, UNSAID}
    assert ((shown.named == YES).any(dim=1)).all(), "each image shows something of a group"
    wanted = names_to_look_for(nouns(), np.random.default_rng(3))
    assert {each.name for each in wanted} >= {name for name in names() if name.is_group}
    assert {each.several for each in wanted} == {True, False}


def test_whether_a_name_is_there() -> None:
    of = {name.singular: name for name in names()}
    dog, animal, insect = (WantedName(of[word], "", several=False) for word in ("dog", "animal", "insect"))
    assert [dog.is_there(shown) for shown in (["cat"], ["cat", "dog"], ["dog", "dog"])] == [NO, YES, YES]
    assert [animal.is_there(shown) for shown in (["bed"], ["cat"], ["cat", "snail"])] == [NO, YES, UNSAID]
    assert insect.is_there(["spider"]) == UNSAID
    dogs = dog._replace(several=True)
    assert [dogs.is_there(shown) for shown in (["cat"], ["cat", "dog"], ["dog", "dog"])] == [NO, UNSAID, YES]


def test_close_ups_show_one_thing(nano: Preset) -> None:
    batches = CloseUpBatches(get_preset("tiny"), DATA, split="train", images=8)
    shapes = {tuple(batches[step].image.shape) for step in range(4)}
    assert shapes == {(8, 3, 64, 64), (4, 3, 96, 96), (2, 3, 128, 128)}
    batch = batches[3]
    assert batch.covered.shape == (2, 64)
    assert batch.covered.max() <= 1
    assert batch.noun.tolist() == batches[3].noun.tolist()
    assert 0 <= min(batch.place_rc) <= max(batch.place_rc) <= 8
    halves = [CloseUpBatches(get_preset("tiny"), DATA, split="train", images=8, share=(rank, 2))[0] for rank in (0, 1)]
    assert torch.equal(torch.cat([half.image for half in halves]), batches[0].image)


def test_phrases_have_the_positions_of_the_preset(nano: Preset) -> None:
    sample = Sample(np.zeros((64, 64, 3), np.uint8), [np.ones((64, 64), bool)], ["the dog on the left"], ["position"])
    assert make_batch([sample], BatchForm(replace(nano, text_positions=10))).token_ids.shape == (1, 10)
    with pytest.raises(InvalidArgumentError, match="has 8 tokens, start, full stop and end counted; at most 5 "):
        make_batch([sample], BatchForm(replace(nano, text_positions=5)))


def test_scenes_are_drawn_in_the_styles_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "PICTURE_FOLDERS", (tmp_path,))
    (tmp_path / "fluent-3d").mkdir()
    vocabulary = ("bear", "cat", "cow", "dog", "duck", "fish", "fox", "frog")
    for noun in vocabulary:
        file = tmp_path / "fluent-3d" / glyphs.picture_file_name(glyphs.characters()[noun])
        Image.new("RGBA", (256, 256), (255, 0, 255, 255)).save(file, lossless=True)
    data = DataConfig(side_px=64, styles=("noto", "fluent-3d"), vocabulary=vocabulary)
    generator = scene_generator(data, "train")
    drawn, picture = Counter[str](), generator.glyphs.picture

    def noted(noun: str, style: str, longest_px: float) -> Image.Image:
        drawn[style] += 1
        return picture(noun, style, longest_px)

    monkeypatch.setattr(generator.glyphs, "picture", noted)
    for number in range(8):
        generator.scene(number)
    assert min(drawn["noto"], drawn["fluent-3d"]) > 5
