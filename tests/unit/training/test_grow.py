from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssp_sam.config import PRESETS, Preset, get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import SspSam
from ssp_sam.tokenizer import tokenize
from ssp_sam.training import grow as grow_module
from ssp_sam.training.files import save_weights
from ssp_sam.training.grow import grow, main
from ssp_sam.training.initial import read_model, read_stages


@pytest.fixture
def deep(nano: Preset) -> Preset:
    """`nano` with more blocks."""
    return replace(
        nano,
        clip=replace(nano.clip, layers=4, text_layers=3),
        sam=replace(nano.sam, depth=4, global_blocks=(1, 3)),
        name="deep",
    )


def _answers(model: SspSam) -> list[Tensor]:
    torch.manual_seed(1)
    side = model.preset.sam.image_side_px
    image = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    geometry = torch.tensor([[side, side], [side, side], [side, side], [0, 0]], dtype=torch.int32).expand(2, -1, -1)
    phrases = torch.from_numpy(tokenize(["the dog", "a red car"], model.preset.text_positions))
    with torch.inference_mode():
        output = model.eval()(image, image, geometry, phrases, torch.tensor([0, 1]))
    return [value for value in output if isinstance(value, Tensor)]


def test_a_grown_model_answers_as_before(nano: Preset, deep: Preset) -> None:
    small = SspSam(nano)
    large = grow(small.state_dict(), deep, "here")
    assert len(large.clip_image_encoder.blocks) == len(large.sam_image_encoder.vit.blocks) == 4
    for before, after in zip(_answers(small), _answers(large), strict=True):
        assert torch.equal(before, after)


def test_every_new_block_learns(nano: Preset, deep: Preset) -> None:
    model = grow(SspSam(nano).state_dict(), deep, "here")
    for blocks, new in ((model.clip_image_encoder.blocks, (1, 2)), (model.sam_image_encoder.vit.blocks, (2, 3))):
        for index, block in enumerate(blocks):
            is_new = not any(block.attn.proj.weight.flatten().tolist())
            assert is_new == (index in new)
            assert block.attn.qkv.weight.std() > 0  # else its projection would never get a gradient
    new = [not layer.mlp.fc2.weight.any() for layer in model.text_encoder.tower.encoder.layers]
    assert new == [index >= nano.clip.text_layers for index in range(3)]


def test_what_cannot_grow_is_told(nano: Preset, deep: Preset) -> None:
    state = SspSam(deep).state_dict()
    with pytest.raises(
        InvalidArgumentError, match=r"here has 4 blocks in clip_image_encoder\.blocks; allowed are 1 to 2"
    ):
        grow(state, nano, "here")
    state = SspSam(nano).state_dict()
    del state["mask_decoder.no_mask_embed.weight"]
    with pytest.raises(InvalidArgumentError, match=r"here does not fit preset 'deep': 1 missing in mask_decoder"):
        grow(state, deep, "here")


def test_the_command_writes_a_checkpoint(
    nano: Preset, deep: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, deep.name, deep)
    monkeypatch.setattr(grow_module, "SCENES", 2)
    small, grown = tmp_path / "small.safetensors", tmp_path / "grown.safetensors"
    save_weights(small, SspSam(nano))
    command = ["--checkpoint", str(small), "--preset", "deep", "--out", str(grown)]
    with monkeypatch.context() as without:
        without.setattr(grow_module, "SceneBatches", None)  # blocks alone need no scenes, and so no font
        assert main(command) == 0
    plain = read_model(grown, deep).clip_image_encoder
    for option, changed in (
        ("--position-waves", "positional_embedding"),
        ("--position-carriers", "blocks.2.mlp.2.bias"),
        ("--sides", "blocks.2.attn.qkv.weight"),
    ):
        assert main([*command, option]) == 0
        encoder = read_model(grown, deep).clip_image_encoder.state_dict()
        different = [name for name, value in plain.state_dict().items() if not torch.equal(value, encoder[name])]
        assert changed in different and "conv1.weight" not in different
    assert main(["--checkpoint", str(tmp_path / "none"), "--preset", "deep", "--out", str(grown)]) == 1
    assert "none" in capsys.readouterr().err


def test_the_command_takes_a_served_repository(tiny_repository: Path, tmp_path: Path) -> None:
    grown = tmp_path / "grown.safetensors"
    assert main(["--checkpoint", str(tiny_repository), "--out", str(grown)]) == 0
    preset = get_preset("tiny")
    loaded = read_model(grown, preset)
    for stage, parameters in read_stages(tiny_repository, None, preset).items():
        found = loaded.get_submodule(stage).state_dict()
        assert all(torch.equal(found[name], value.float()) for name, value in parameters.items()), stage
