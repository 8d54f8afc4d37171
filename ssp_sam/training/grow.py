"""Give a checkpoint the blocks that its preset has had since, positions that CLIP can read, and heads that use them.

`python -m ssp_sam.training.grow --checkpoint runs/tiny/best.safetensors --position-waves --out runs/grown.safetensors`

New blocks add nothing to begin with (their last projections are zero): what the checkpoint has learned stays. Those of
CLIP's image tower go before the blocks with two streams, those of its text tower and of SAM's image encoder behind all
others.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_sam.checkpoint import StateDict, load_safetensors, split_trained
from ssp_sam.config import Preset, get_preset
from ssp_sam.data import DataError
from ssp_sam.errors import InvalidArgumentError, SegmentationError
from ssp_sam.modeling.ssp_sam import STAGES, SspSam
from ssp_sam.serving.repository import weights_path
from ssp_sam.training.batches import Batch, BatchForm
from ssp_sam.training.config import ConfigError, DataConfig, load_config
from ssp_sam.training.files import save_weights
from ssp_sam.training.positions import add_waves, carry_waves
from ssp_sam.training.scenes import SceneBatches
from ssp_sam.training.sides import look_to_sides

# Scenes whose patches tell what positions have to stand out from, and which show what things are called.
SCENES = 192


class _Tower(NamedTuple):
    """Blocks by their path in the model, how many of them stay the last, and by which layers a block adds something."""

    path: str
    last: int
    adds: tuple[str, str]


def grow(parameters: Mapping[str, Tensor], preset: Preset, source: str | Path) -> SspSam:
    """Return a model of `preset` that answers as that of fewer blocks does which `parameters` are the state of.

    source: what errors call the parameters. Raises InvalidArgumentError if anything but blocks is missing, there are
    more blocks than the preset has, or something does not fit.
    """
    model, grown = SspSam(preset), dict(parameters)
    for tower in (
        _Tower("clip_image_encoder.blocks", preset.clip.surgery_layers, ("attn.proj", "mlp.2")),
        _Tower("text_encoder.tower.encoder.layers", 0, ("self_attn.out_proj", "mlp.fc2")),
        _Tower("sam_image_encoder.vit.blocks", 0, ("attn.proj", "mlp.lin2")),
    ):
        grown = _with_new_blocks(grown, model, tower, source)
    for stage, own in split_trained(grown, preset, source).items():
        model.get_submodule(stage).load_state_dict(own)
    return model


def _with_new_blocks(
    parameters: Mapping[str, Tensor], model: SspSam, tower: _Tower, source: str | Path
) -> dict[str, Tensor]:
    """Return the parameters with those of the blocks that the model has more, which add nothing."""
    blocks = model.get_submodule(tower.path)
    assert isinstance(blocks, nn.ModuleList)
    pattern = re.compile(rf"{re.escape(tower.path)}\.(\d+)\.(.+)")
    had = len({found[1] for found in map(pattern.fullmatch, parameters) if found})
    if not tower.last <= had <= len(blocks):
        allowed = f"allowed are {tower.last} to {len(blocks)}"
        raise InvalidArgumentError(f"{source} has {had} blocks in {tower.path}; {allowed}")
    first, count = had - tower.last, len(blocks) - had

    def moved(key: str) -> str:
        found = pattern.fullmatch(key)
        if not found or int(found[1]) < first:
            return key
        return f"{tower.path}.{int(found[1]) + count}.{found[2]}"

    grown = {moved(key): value for key, value in parameters.items()}
    for index in range(first, first + count):
        for name in tower.adds:
            layer = blocks[index].get_submodule(name)
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        grown |= {f"{tower.path}.{index}.{key}": value for key, value in blocks[index].state_dict().items()}
    return grown


def _read(path: Path) -> StateDict:
    if not path.is_dir():
        return load_safetensors(path)
    parts = {stage: load_safetensors(weights_path(path, stage)) for stage in STAGES}
    return {f"{stage}.{key}": value for stage, part in parts.items() for key, value in part.items()}


def _scenes(preset: Preset, data: DataConfig) -> Batch:
    form = BatchForm(preset, sam_images=False, things=True)
    return SceneBatches(form, data, split="train", targets="phrases", images=SCENES, expressions=1)[0]


@torch.no_grad()
def _look_to_sides(model: SspSam, scenes: Batch) -> None:
    shown = scenes.shown
    assert shown is not None
    nouns, _ = model.text_encoder(shown.noun_token_ids)
    names = F.normalize(nouns, dim=-1)[shown.noun]
    look_to_sides(model.clip_image_encoder, scenes.clip_image, scenes.geometry, shown.of_patch, names)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 if the checkpoint or the scenes cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m ssp_sam.training.grow", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="safetensors file or served repository")
    parser.add_argument("--preset", default="tiny", help="preset to grow it to (default: %(default)s)")
    parser.add_argument("--config", type=Path, help="TOML of the training, for its nouns and drawing styles")
    parser.add_argument("--position-waves", action="store_true", help="add waves to CLIP's positional embeddings")
    parser.add_argument("--position-carriers", action="store_true", help="let CLIP's blocks carry them on")
    parser.add_argument("--sides", action="store_true", help="let the heads of CLIP's new blocks look to sides")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    arguments = parser.parse_args(argv)
    try:
        preset = get_preset(arguments.preset)
        torch.manual_seed(0)
        model = grow(_read(arguments.checkpoint), preset, arguments.checkpoint)
        if arguments.position_waves or arguments.position_carriers or arguments.sides:
            scenes = _scenes(preset, load_config(arguments.config).data if arguments.config else DataConfig())
        if arguments.position_waves:
            add_waves(model.clip_image_encoder, scenes.clip_image, scenes.geometry)
        if arguments.position_carriers:
            carry_waves(model.clip_image_encoder, scenes.clip_image, scenes.geometry)
        if arguments.sides:
            _look_to_sides(model, scenes)
        save_weights(arguments.out, model)
    except (SegmentationError, DataError, ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
