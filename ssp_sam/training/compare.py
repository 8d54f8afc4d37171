"""Compare checkpoints by their answers to the same held-out scenes, as before a mean of some is chosen.

`python -m ssp_sam.training.compare --checkpoint model_repository --checkpoint runs/tiny/best.safetensors --seed 1`

Each gets the threshold of similarity that leaves the same share of targets, so that none tells absent things at the
cost of targets. The thresholds are those of the compared scenes: the figures are good to choose by, and a little better
than those on other scenes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ssp_sam.data import DataError
from ssp_sam.errors import SegmentationError
from ssp_sam.evaluation.answers import Answer
from ssp_sam.evaluation.calibration import KEPT_TARGETS
from ssp_sam.evaluation.comparison import FIGURES, compared, keeping, right, right_by_kind
from ssp_sam.evaluation.summary import table
from ssp_sam.training.config import ConfigError
from ssp_sam.training.held_out import add_arguments, held_out_answers


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 if a checkpoint or the scenes cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m ssp_sam.training.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        required=True,
        help="safetensors file of the whole model, or a model repository; the first is what others are compared with",
    )
    parser.add_argument(
        "--seed", type=int, action="append", help="of the scenes; can be given several times (default: 0)"
    )
    parser.add_argument(
        "--kept-targets",
        type=float,
        default=KEPT_TARGETS,
        metavar="SHARE",
        help="of the targets that each leaves (default: %(default)s)",
    )
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.kept_targets <= 1:
        parser.error(f"--kept-targets is {arguments.kept_targets:g}; allowed is 0 to 1")
    seeds = arguments.seed or [0]
    try:
        answers = {
            str(checkpoint): [
                answer for seed in seeds for answer in held_out_answers(arguments, checkpoint, "val", seed)
            ]
            for checkpoint in arguments.checkpoint
        }
        print(_report(answers, arguments.kept_targets))
    except (SegmentationError, DataError, ConfigError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _report(answers: Mapping[str, Sequence[Answer]], kept_targets: float) -> str:
    """Return tables of figures and of shares by kind, and how many answers each has right that the first has not."""
    calibrations = {name: keeping(own, kept_targets) for name, own in answers.items()}
    figures = {name: compared(own, calibrations[name]) for name, own in answers.items()}
    kinds = {name: right_by_kind(own, calibrations[name]) for name, own in answers.items()}
    first, *others = answers
    has_target = np.array([answer.overlap.truth_px > 0 for answer in answers[first]])
    correct = {name: right(own, calibrations[name]) for name, own in answers.items()}
    lines = [
        f"{int(has_target.sum())} phrases with a target, {int((~has_target).sum())} without (per cent)",
        "",
        table(figures, FIGURES),
        "",
        "right answers by kind of phrase",
        table(kinds, [kind for kind in kinds[first] if kind != "samples"]),
    ]
    for name in others:
        gained, lost = correct[name] & ~correct[first], correct[first] & ~correct[name]
        told = (
            f"{kind} {int((gained & those).sum())} gained and {int((lost & those).sum())} lost"
            for kind, those in (("targets", has_target), ("absent", ~has_target))
        )
        lines += ["", f"{name}, against {first}: {', '.join(told)}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
