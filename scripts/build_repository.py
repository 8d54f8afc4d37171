"""Build a served model repository from a checkpoint.

    python scripts/build_repository.py --preset l336 --checkpoint SSP-SAM.pth --out DIR
    python scripts/build_repository.py --preset l336 --checkpoint SSP-SAM.pth --clip ViT-L-14-336px.pt --out DIR
    python scripts/build_repository.py --preset tiny --checkpoint best.safetensors --calibration FILE.json --out DIR
    python scripts/build_repository.py --preset l336 --checkpoint SSP-SAM.pth --backend onnxruntime --tensorrt --out DIR
    python scripts/build_repository.py --refresh DIR [--calibration FILE.json]

A `.pth` is a published checkpoint, a `.safetensors` one of our own training. CLIP is taken from the published
checkpoint unless --clip is given: OpenAI's file (TorchScript archive or state dict) or a Hugging Face folder. No code
in these files is run. `--refresh` rewrites the generated files of an existing repository and leaves its weights alone;
with `--calibration` they get another one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ssp_sam.config import PRESETS, Preset, get_preset
from ssp_sam.digest import sha256_of
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.postprocess import Calibration
from ssp_sam.serving.contract import BACKENDS, PYTHON
from ssp_sam.serving.repository import write_configurations, write_repository

if TYPE_CHECKING:
    from torch import Tensor


def main() -> int:
    """Return the exit code: 0 done, 1 the checkpoint does not fit; argparse itself exits with 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", type=Path, metavar="FILE", help="published .pth, or .safetensors of our training")
    what.add_argument("--random-weights", type=int, metavar="SEED", help="random weights, for measuring and for tests")
    what.add_argument("--refresh", type=Path, metavar="DIR", help="rewrite the generated files of this repository")
    parser.add_argument("--clip", type=Path, metavar="PATH", help="CLIP's own file or folder, for a published .pth")
    parser.add_argument("--preset", choices=PRESETS, help="the variant of the model")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the repository to write")
    parser.add_argument(
        "--dtype",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="auto: stored in 16 bits; computed in 16 bits on a GPU, on a CPU as the preset says by stage (default)",
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=PYTHON,
        help="what computes in the server: Python models by PyTorch or OpenVINO (default), or ONNX Runtime",
    )
    parser.add_argument("--tensorrt", action="store_true", help="ONNX Runtime leaves the networks to TensorRT on a GPU")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="JSON of ssp_sam.training.calibrate")
    options = parser.parse_args()
    if options.refresh is None and (options.preset is None or options.out is None):
        parser.error("--preset and --out are needed to build a repository")
    if options.clip is not None and not is_published(options.checkpoint):
        parser.error("--clip goes with a published .pth as --checkpoint")
    try:
        if options.refresh is not None:
            write_configurations(options.refresh, _calibration(options.calibration))
            print(options.refresh)
        else:
            build(options)
            print(options.out)
    except (InvalidArgumentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def is_published(checkpoint: Path | None) -> bool:
    """Tell whether a checkpoint is one of the authors' (and not of our training, and not missing)."""
    return checkpoint is not None and checkpoint.suffix != ".safetensors"


def build(options: argparse.Namespace) -> None:
    """Write the repository that the options ask for."""
    preset = get_preset(options.preset)
    calibration = _calibration(options.calibration) or Calibration()
    stages: Mapping[str, Mapping[str, Tensor]]
    if options.checkpoint is None:
        stages = RandomStages(preset, options.random_weights)
        source = {"random_seed": str(options.random_weights)}
    else:
        stages, source = read_checkpoint(options.checkpoint, options.clip, preset)
    write_repository(
        options.out,
        preset,
        stages,
        dtype=options.dtype,
        calibration=calibration,
        source=source,
        backend=options.backend,
        tensorrt=options.tensorrt,
    )


def _calibration(file: Path | None) -> Calibration | None:
    if file is None:
        return None
    try:
        return Calibration.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgumentError(
            f"{file} is no calibration: {type(error).__name__}: {error}; ssp_sam.training.calibrate writes one"
        ) from error


def read_checkpoint(
    checkpoint: Path, clip: Path | None, preset: Preset
) -> tuple[Mapping[str, Mapping[str, Tensor]], dict[str, str]]:
    """Return {stage: parameters}, and what the manifest says of their source."""
    from ssp_sam.checkpoint import load_trained
    from ssp_sam.clip_checkpoint import clip_weights_path, load_published_stages

    if is_published(checkpoint):
        stages = load_published_stages(checkpoint, preset, clip)
    else:
        stages = load_trained(checkpoint, preset)
    source = {"file": checkpoint.name, "sha256": sha256_of(checkpoint)}
    if clip is not None:
        weights = clip_weights_path(clip)
        name = weights.name if weights == clip else f"{clip.resolve().name}/{weights.name}"
        source |= {"clip_file": name, "clip_sha256": sha256_of(weights)}
    return stages, source


class RandomStages(Mapping[str, "Mapping[str, Tensor]"]):
    """Stages with random weights, each made when it is asked for: the full presets are not held in memory at once.

    The same seed gives the same weights, whichever stages are asked for.
    """

    def __init__(self, preset: Preset, seed: int) -> None:
        from ssp_sam.modeling.ssp_sam import STAGES

        self._preset = preset
        self._seed = seed
        self._build = STAGES

    def __getitem__(self, stage: str) -> Mapping[str, Tensor]:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            return self._build[stage](self._preset).state_dict()

    def __iter__(self) -> Iterator[str]:
        return iter(self._build)

    def __len__(self) -> int:
        return len(self._build)


if __name__ == "__main__":
    sys.exit(main())
