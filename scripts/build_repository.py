"""Build a served model repository from a checkpoint.

    python scripts/build_repository.py --preset l336 --checkpoint SSP-SAM.pth --out DIR
    python scripts/build_repository.py --preset tiny --checkpoint best.safetensors --calibration calibration.json
    --out DIR python scripts/build_repository.py --refresh model_repository

A `.pth` is a published checkpoint, a `.safetensors` one of our own training. `--refresh` rewrites the generated files
of an existing repository and leaves its weights alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from ssp_sam.config import PRESETS, get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.postprocess import Calibration
from ssp_sam.serving.repository import write_configurations, write_repository


def main() -> int:
    """Return the exit code: 0 done, 1 the checkpoint does not fit; argparse itself exits with 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", type=Path, metavar="FILE", help="published .pth, or .safetensors of our training")
    what.add_argument("--random-weights", type=int, metavar="SEED", help="random weights, for measuring and for tests")
    what.add_argument("--refresh", type=Path, metavar="DIR", help="rewrite the generated files of this repository")
    parser.add_argument("--preset", choices=PRESETS, help="the variant of the model")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the repository to write")
    parser.add_argument(
        "--dtype",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="auto: stored in 16 bits, computed in float32 on a CPU and in 16 bits on a GPU (default)",
    )
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="JSON of ssp_sam.training.calibrate")
    options = parser.parse_args()
    if options.refresh is None and (options.preset is None or options.out is None):
        parser.error("--preset and --out are needed to build a repository")
    try:
        if options.refresh is not None:
            write_configurations(options.refresh)
            print(options.refresh)
        else:
            build(options)
            print(options.out)
    except (InvalidArgumentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build(options: argparse.Namespace) -> None:
    """Write the repository that the options ask for."""
    import torch

    from ssp_sam.checkpoint import load_published, load_trained, split_published
    from ssp_sam.modeling.ssp_sam import STAGES

    preset = get_preset(options.preset)
    if options.checkpoint is None:
        torch.manual_seed(options.random_weights)
        stages = {name: build_stage(preset).state_dict() for name, build_stage in STAGES.items()}
        source = {"random_seed": str(options.random_weights)}
    else:
        if options.checkpoint.suffix == ".safetensors":
            stages = load_trained(options.checkpoint, preset)
        else:
            stages = split_published(load_published(options.checkpoint), preset, str(options.checkpoint))
        with options.checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256") if sys.version_info >= (3, 11) else hashlib.sha256(file.read())
        source = {"file": options.checkpoint.name, "sha256": digest.hexdigest()}
    calibration = Calibration()
    if options.calibration is not None:
        calibration = Calibration.from_json(json.loads(options.calibration.read_text(encoding="utf-8")))
    write_repository(options.out, preset, stages, dtype=options.dtype, calibration=calibration, source=source)


if __name__ == "__main__":
    sys.exit(main())
