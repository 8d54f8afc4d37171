import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from ssp_sam.config import Preset, get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import SspSam
from ssp_sam.training.config import parse_config
from ssp_sam.training.files import save_weights
from ssp_sam.training.initial import begin, read_stages
from ssp_sam.training.ranks import Ranks


@pytest.fixture
def saved(nano: Preset, tmp_path: Path) -> Path:
    torch.manual_seed(7)
    path = tmp_path / "weights.safetensors"
    save_weights(path, SspSam(nano))
    return path


def test_stages_are_taken_or_drawn(run_table: dict[str, Any], nano: Preset, saved: Path) -> None:
    drawn = begin(parse_config(run_table, "here"), nano).state_dict()
    run_table |= {"initial_weights": str(saved), "fresh_stages": ["ssp_prompt_generator"]}
    begun = begin(parse_config(run_table, "here"), nano).state_dict()
    stages = read_stages(saved, None, nano)
    for name, value in begun.items():
        _, stage, *rest = name.split(".")
        taken = stages[stage][".".join(rest)] if stage in stages and stage != "ssp_prompt_generator" else drawn[name]
        assert torch.equal(value, taken), name


def test_a_served_repository_gives_its_weights(tiny_repository: Path) -> None:
    preset = get_preset("tiny")
    stages = read_stages(tiny_repository, None, preset)
    model = SspSam(preset)
    for stage, parameters in stages.items():
        model.get_submodule(stage).load_state_dict(dict(parameters))
    with pytest.raises(InvalidArgumentError, match="is of preset 'tiny'; asked for is 'mini224'"):
        read_stages(tiny_repository, None, get_preset("mini224"))


def test_weights_that_do_not_fit_are_told(nano: Preset, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"cannot read the weights .*absent\.pth"):
        read_stages(tmp_path / "absent.pth", None, nano)
    path = tmp_path / "published.pth"
    torch.save({"model": {"mlp.weight": torch.zeros(2, 2)}, "args": argparse.Namespace()}, path)
    with pytest.raises(InvalidArgumentError, match="holds no CLIP"):
        read_stages(path, None, nano)
    with pytest.raises(InvalidArgumentError, match="does not fit preset 'nano'"):
        torch.save({"model": {"encoder.x": torch.zeros(2, 2)}}, path)
        read_stages(path, None, nano)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_missing_gpu_is_told() -> None:
    assert Ranks.join("auto").device.type == "cpu"
    with pytest.raises(InvalidArgumentError, match="there is no GPU 0"):
        Ranks.join("cuda")
