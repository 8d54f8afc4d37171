"""What `calibrate` and `compare` have in common: checkpoints and their answers to scenes of a split."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from ssp_sam.config import get_preset
from ssp_sam.evaluation.answers import Answer, answers_to
from ssp_sam.training.config import DataConfig, load_config
from ssp_sam.training.initial import read_model
from ssp_sam.training.scenes import scene_generator, scene_sample

EXPRESSIONS_PER_SCENE = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say of which preset a model is, and which scenes it answers."""
    parser.add_argument("--preset", default="tiny", help="preset of the checkpoint (default: %(default)s)")
    parser.add_argument("--count", type=int, default=500, help="number of scenes (default: %(default)s)")
    parser.add_argument("--config", type=Path, help="TOML of the training, for its nouns and drawing styles")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: %(default)s)")


def held_out_answers(arguments: argparse.Namespace, checkpoint: Path, split: str, seed: int = 0) -> Iterator[Answer]:
    """Yield the answers of a checkpoint to the first scenes of a split, with a bar on stderr.

    checkpoint: a safetensors file of the whole model, or a model repository.
    Raises InvalidArgumentError or DataError for a checkpoint or scenes that cannot be had.
    """
    torch.set_num_threads(arguments.threads)
    model = read_model(checkpoint, get_preset(arguments.preset)).eval()
    trained_on = load_config(arguments.config).data if arguments.config else DataConfig()
    data = replace(trained_on, seed=seed)
    generator = scene_generator(data, split, EXPRESSIONS_PER_SCENE)
    for index in tqdm(range(arguments.count), desc=f"{checkpoint.name}, {split} {seed}", unit="scene"):
        sample = scene_sample(generator, index, data, targets="phrases", count=EXPRESSIONS_PER_SCENE)
        yield from answers_to(model, sample.image, sample.expressions)
