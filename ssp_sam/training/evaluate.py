"""Measure a checkpoint on held-out scenes, over all phrases and by kind.

`python -m ssp_sam.training.evaluate --checkpoint runs/tiny/best.safetensors --calibration runs/tiny/calibration.json`
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ssp_sam.data import SPLITS, DataError
from ssp_sam.data.phrases import KINDS
from ssp_sam.errors import SegmentationError
from ssp_sam.evaluation.metrics import Metrics, summarize
from ssp_sam.postprocess import Calibration
from ssp_sam.training.config import ConfigError
from ssp_sam.training.held_out import add_arguments, held_out_answers

COLUMNS = ("samples", "gIoU", "cIoU", "mIoU", "Pr@0.5", "Pr@0.8", "N-acc", "T-acc")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 if the checkpoint, the calibration or the scenes cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m ssp_sam.training.evaluate", description=__doc__)
    add_arguments(parser, stretched_share=0.0)
    parser.add_argument("--split", choices=SPLITS, default="test", help="stream of scenes (default: %(default)s)")
    parser.add_argument("--calibration", type=Path, help="JSON file of calibrate; without it the mask alone decides")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(argv)
    if arguments.count < 1:
        parser.error(f"--count is {arguments.count}; at least 1")
    try:
        calibration = _calibration(arguments.calibration)
        judged = [(a.kind, a.judged(calibration)) for a in held_out_answers(arguments, arguments.split)]
    except (SegmentationError, DataError, ConfigError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1

    found = {"overall": summarize(overlap for _, overlap in judged)}
    for kind in KINDS:
        found[kind] = summarize(overlap for own, overlap in judged if own == kind)
    if arguments.json:
        print(json.dumps({name: metrics.to_json() for name, metrics in found.items()}, indent=2))
    else:
        print(_table(found))
    return 0


def _calibration(path: Path | None) -> Calibration:
    return Calibration() if path is None else Calibration.from_json(json.loads(path.read_text(encoding="utf-8")))


def _table(found: dict[str, Metrics]) -> str:
    rows = ["".join([f"{'':18}", *(f"{column:>9}" for column in COLUMNS)])]
    for name, metrics in found.items():
        values = metrics.to_json()
        cells = ["" if values[column] is None else f"{values[column]:g}" for column in COLUMNS]
        rows.append("".join([f"{name:18}", *(f"{cell:>9}" for cell in cells)]))
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
