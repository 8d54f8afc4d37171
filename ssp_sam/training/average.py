"""Average checkpoints of one preset that have a run in common: often better than any of them.

`python -m ssp_sam.training.average --checkpoint repository --checkpoint last.safetensors --out mean.safetensors`

With `--stage`, stages that were trained apart from each other are put together.

Weights that were trained on from the same ones, with different data or rates, lie in one valley of the loss, and their
mean closer to its bottom ("model soups", arXiv 2203.05482). Weights that were drawn apart have no mean worth anything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from ssp_sam.config import Preset, get_preset
from ssp_sam.errors import SegmentationError
from ssp_sam.modeling.ssp_sam import STAGES, SspSam
from ssp_sam.training.files import save_weights
from ssp_sam.training.initial import read_stages


def average(
    checkpoints: Sequence[Path], preset: Preset, of_stages: Mapping[str, Sequence[Path]] = MappingProxyType({})
) -> SspSam:
    """Return the model of `preset` whose every parameter is the mean of the checkpoints'.

    of_stages: stage -> the checkpoints that count for it instead.
    Raises InvalidArgumentError if one of them cannot be read or does not fit the preset.
    """
    read = cache(partial(read_stages, clip=None, preset=preset))
    model = SspSam(preset)
    for stage in STAGES:
        parts = [read(checkpoint)[stage] for checkpoint in of_stages.get(stage, checkpoints)]
        model.get_submodule(stage).load_state_dict({name: _mean([part[name] for part in parts]) for name in parts[0]})
    return model


def _mean(values: Sequence[Tensor]) -> Tensor:
    if not values[0].is_floating_point():  # a counter or an index, which is the same in all of them
        return values[0]
    return torch.stack([value.double() for value in values]).mean(dim=0).float()


def _of_stage(text: str) -> tuple[str, list[Path]]:
    stage, _, checkpoints = text.partition("=")
    if stage not in STAGES or not all(checkpoints.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not STAGE=CHECKPOINT[,...] of a stage: {', '.join(STAGES)}")
    return stage, [Path(checkpoint) for checkpoint in checkpoints.split(",")]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 if a checkpoint cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m ssp_sam.training.average", description=__doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        required=True,
        help="safetensors file of the whole model, or a model repository; at least two, or one with --stage",
    )
    parser.add_argument(
        "--stage",
        type=_of_stage,
        action="append",
        default=[],
        metavar="STAGE=CHECKPOINT[,CHECKPOINT...]",
        help="the checkpoints that count for this stage instead; can be given for several",
    )
    parser.add_argument("--preset", default="tiny", help="preset of the checkpoints (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    arguments = parser.parse_args(argv)
    if len(arguments.checkpoint) < 2 and not arguments.stage:
        parser.error("one --checkpoint is its own mean; give at least two, or --stage")
    of_stages = dict(arguments.stage)
    if len(of_stages) < len(arguments.stage):
        given = ", ".join(stage for stage, _ in arguments.stage)
        parser.error(f"a --stage was given twice ({given}); give all its checkpoints at once, after commas")
    try:
        model = average(arguments.checkpoint, get_preset(arguments.preset), of_stages)
        save_weights(arguments.out, model)
    except (SegmentationError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
