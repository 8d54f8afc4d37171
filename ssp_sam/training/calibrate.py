"""Fit scores and "no target" of a checkpoint on held-out scenes.

`python -m ssp_sam.training.calibrate --checkpoint runs/tiny/best.safetensors --out runs/tiny/calibration.json`
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from ssp_sam.data import DataError
from ssp_sam.errors import SegmentationError
from ssp_sam.evaluation.calibration import ECE_BINS, expected_calibration_error, fit, raw_and_true
from ssp_sam.evaluation.metrics import summarize
from ssp_sam.postprocess import Calibration
from ssp_sam.training.config import ConfigError
from ssp_sam.training.held_out import add_arguments, held_out_answers

# The rest of the answers tells how good the fit is.
FITTED_SHARE = 0.6


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 if the checkpoint or the scenes cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m ssp_sam.training.calibrate", description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="safetensors file of the whole model, or a model repository"
    )
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args(argv)
    if arguments.count < 2:
        parser.error(f"--count is {arguments.count}; at least 2, one scene to fit and one to check")
    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        answers = list(held_out_answers(arguments, arguments.checkpoint, "calibration"))
        border = int(FITTED_SHARE * len(answers))
        calibration = fit(answers[:border])
        arguments.out.write_text(json.dumps(dataclasses.asdict(calibration), indent=2) + "\n", encoding="utf-8")
    except (SegmentationError, DataError, ConfigError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1

    checked = answers[border:]
    print(f"fitted on {border} phrases, checked on {len(checked)}")
    area, least = calibration.no_target_area_px512, calibration.no_target_score
    alike = calibration.no_target_similarity
    also = "" if alike is None else f", or a similarity of {alike:g}"
    print(f"no target below an area of {area:g} px of 512 x 512, a score of {least:g}{also}")
    print(f"{'':10}{f'ECE ({ECE_BINS} bins)':>14}{'gIoU':>8}{'N-acc':>8}{'T-acc':>8}")
    for name, used in (("before", Calibration()), ("after", calibration)):
        metrics = summarize(answer.judged(used) for answer in checked)
        raw, true = raw_and_true(answer for answer in checked if not answer.is_no_target(used))
        miss = expected_calibration_error(np.array([used.score(value) for value in raw]), true)
        print(f"{name:10}{miss:14.4f}{metrics.giou:8.4f}{metrics.n_acc:8.4f}{metrics.t_acc:8.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
