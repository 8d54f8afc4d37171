from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ssp_sam.checkpoint import load_published, load_stage_module, load_trained, split_published, stage_problems
from ssp_sam.config import get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import STAGES, SspSam

GOLDENS = Path(__file__).parents[1] / "goldens"
UNUSED = re.compile(
    r"img2img_attn\..+|norm_text_cond_img\..+|encoder\.logit_scale"
    r"|sam\.prompt_encoder\.(point_embeddings|not_a_point_embed|mask_downscaling)\..+"
)


def empty_state(variant: str) -> dict[str, Tensor]:
    """Return the published keys and shapes without any memory."""
    keys = json.loads((GOLDENS / f"{variant}_keys.json").read_text())
    return {key: torch.empty(shape, device="meta") for key, (shape, _) in keys.items()}


@pytest.mark.parametrize("variant", ["b224", "l336", "mini224", "mini336"])
def test_every_published_key_is_used_or_known_as_unused(variant: str) -> None:
    state = empty_state(variant)
    preset = get_preset(variant)

    stages = split_published(state, preset, "the key list")

    assert stages.keys() == STAGES.keys()
    for stage, parameters in stages.items():
        assert stage_problems(stage, parameters, preset) == []
    packed = sum("encoder.transformer" in key and ".in_proj_" in key for key in state)
    used = [key for key in state if not UNUSED.fullmatch(key)]
    assert sum(map(len, stages.values())) == len(used) + 2 * packed  # q, k and v are kept apart
    values = sum(parameter.numel() for parameters in stages.values() for parameter in parameters.values())
    assert values == sum(state[key].numel() for key in used)


def test_what_the_releases_own_trainer_saves_gives_the_same_stages(tmp_path: Path) -> None:
    preset = get_preset("mini224")
    shapes = empty_state("mini224")
    state = {key: torch.randn(value.shape) for key, value in shapes.items()}
    first = preset.clip.layers - preset.clip.surgery_layers
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        match = re.fullmatch(r"(encoder\.visual\.transformer\.resblocks\.(\d+)\.attn\.)(in_proj_|out_proj\.)(.+)", key)
        if match and int(match[2]) >= first:
            renamed[match[1] + ("qkv." if match[3] == "in_proj_" else "proj.") + match[4]] = value
        else:
            renamed[key] = value
    assert len(renamed.keys() - state.keys()) == 4 * preset.clip.surgery_layers
    last = f"encoder.visual.transformer.resblocks.{preset.clip.layers - 1}.attn."
    strays = {k.replace(last, "encoder.visual.attn."): v for k, v in renamed.items() if k.startswith(last)}
    assert len(strays) == 4

    ours, theirs = (split_published(s, preset, "it") for s in (state, {**renamed, **strays}))

    for stage in STAGES:
        assert ours[stage].keys() == theirs[stage].keys()
        assert all(torch.equal(ours[stage][key], theirs[stage][key]) for key in ours[stage])


def test_missing_unexpected_and_misshapen_keys_are_named() -> None:
    state = empty_state("mini224")
    del state["mlp.weight"]
    state["tf_scale"] = torch.empty(3, device="meta")
    state["something.else"] = torch.empty(1, device="meta")
    state["bbox_embed.layers.9.weight"] = torch.empty(1, device="meta")

    with pytest.raises(InvalidArgumentError) as caught:
        split_published(state, get_preset("mini224"), "weights.pth")

    message = str(caught.value)
    assert "weights.pth does not fit preset 'mini224'" in message
    assert "1 unexpected: something.else" in message
    assert "missing in ssp_prompt_generator: fuse.weight" in message
    assert "unexpected in ssp_prompt_generator: generator.bbox_embed.layers.9.weight" in message
    assert "visual.scale (3,) instead of (1,)" in message


def test_a_checkpoint_of_another_variant_gets_a_short_message() -> None:
    with pytest.raises(InvalidArgumentError, match=r"does not fit preset 'b224'.*\.\.\.") as caught:
        split_published(empty_state("mini336"), get_preset("b224"), "weights.pth")
    assert len(str(caught.value)) < 4000


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_published_file_and_a_bare_state_dict_load(tmp_path: Path, wrapped: bool) -> None:
    state = {"a.weight": torch.arange(4.0)}
    content: Any = {"model": state, "optimizer": {}, "epoch": 3, "args": argparse.Namespace(lr=1e-4)}
    torch.save(content if wrapped else state, tmp_path / "x.pth")
    loaded = load_published(tmp_path / "x.pth")
    assert loaded.keys() == state.keys()
    assert torch.equal(loaded["a.weight"], state["a.weight"])


class Runs:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    torch.save({"model": {}, "args": Runs(tmp_path / "ran")}, tmp_path / "x.pth")
    with pytest.raises(InvalidArgumentError, match=r"x\.pth"):
        load_published(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"hello world", b"PK\x03\x04 nearly a zip file"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=r"x\.pth"):
        load_published(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [{"model": {"a": 1}}, {"model": None}, [torch.zeros(1)]])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InvalidArgumentError, match="holds no state dict"):
        load_published(tmp_path / "x.pth")


def test_what_our_training_saves_loads_by_stage(tmp_path: Path) -> None:
    preset = get_preset("tiny")
    with torch.device("meta"):
        names = {key: value.shape for key, value in SspSam(preset).state_dict().items()}
    state = {key: torch.zeros(shape) for key, shape in names.items()}
    save_file(state, tmp_path / "best.safetensors")
    stages = load_trained(tmp_path / "best.safetensors", preset)
    assert {f"{stage}.{key}" for stage, parameters in stages.items() for key in parameters} == names.keys()

    save_file({**state, "head.weight": torch.zeros(1)}, tmp_path / "best.safetensors")
    with pytest.raises(InvalidArgumentError, match=r"1 unexpected: head\.weight"):
        load_trained(tmp_path / "best.safetensors", preset)


def test_a_stage_loads_exactly_its_own_parameters(tiny_repository: Path, tmp_path: Path) -> None:
    preset = get_preset("tiny")
    path = tiny_repository / "mask_decoder" / "1" / "model.safetensors"
    module = load_stage_module("mask_decoder", preset, path)
    assert not module.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in module.parameters())
    with pytest.raises(InvalidArgumentError, match="missing in clip_image_encoder"):
        load_stage_module("clip_image_encoder", preset, path)
    with pytest.raises(InvalidArgumentError, match="wrong shape in mask_decoder"):
        load_stage_module("mask_decoder", get_preset("mini224"), path)
