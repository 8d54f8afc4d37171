"""Average checkpoints of one preset that have a run in common: often better than any of them.

`python -m ssp_sam.training.average --checkpoint repository --checkpoint last.safetensors --out mean.safetensors`

Weights that were trained on from the same ones, with different data or rates, lie in one valley of the loss, and their
mean closer to its bottom ("model soups", arXiv 2203.05482). Weights that were drawn apart have no mean worth anything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssp_sam.config import Preset, get_preset
from ssp_sam.errors import SegmentationError
from ssp_sam.modeling.ssp_sam import SspSam
from ssp_sam.training.files import save_weights
from ssp_sam.training.initial import read_stages


def average(checkpoints: Sequence[Path], preset: Preset) -> SspSam:
    """Return the model of `preset` whose every parameter is the mean of the checkpoints'.

    Raises InvalidArgumentError if one of them cannot be read or does not fit the preset.
    """
    read = [read_stages(checkpoint, None, preset) for checkpoint in checkpoints]
    model = SspSam(preset)
    for stage in read[0]:
        model.get_submodule(stage).load_state_dict(
            {name: _mean([stages[stage][name] for stages in read]) for name in read[0][stage]}
        )
    return model


def _mean(values: Sequence[Tensor]) -> Tensor:
    if not values[0].is_floating_point():  # a counter or an index, which is the same in all of them
        return values[0]
    return torch.stack([value.double() for value in values]).mean(dim=0).float()


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 if a checkpoint cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m ssp_sam.training.average", description=__doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        required=True,
        help="safetensors file of the whole model, or a model repository; at least two",
    )
    parser.add_argument("--preset", default="tiny", help="preset of the checkpoints (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    arguments = parser.parse_args(argv)
    if len(arguments.checkpoint) < 2:
        parser.error("one --checkpoint is its own mean; give at least two")
    try:
        save_weights(arguments.out, average(arguments.checkpoint, get_preset(arguments.preset)))
    except (SegmentationError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
