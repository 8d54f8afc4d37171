"""Compare the runtimes in which each stage could compute on this machine: speed, and what becomes of the masks.

    python scripts/compare_runtimes.py --repository model_repository

For every stage and runtime it measures the time of a call, the cosine of what the stage answers to what it answers in
PyTorch's float32, and the IoU of the final masks to those of float32 in every stage; last, all chosen runtimes
together. Data: synthetic test scenes (`make font`). Exit code 0 if the runtime that the preset chooses keeps the bounds
in every stage, 1 if not, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssp_sam.checkpoint import load_stage_module
from ssp_sam.config import Preset, get_preset
from ssp_sam.data import DataError
from ssp_sam.errors import InvalidArgumentError, SegmentationError
from ssp_sam.networks import load_network
from ssp_sam.onnx_export import onnx_graph
from ssp_sam.postprocess import full_size_mask
from ssp_sam.preprocess import Geometry, prepare
from ssp_sam.runtime import INT8, OPENVINO, TORCH, Runtime, keep_freed_memory, stage_runtime
from ssp_sam.serving import contract
from ssp_sam.serving.contract import NETWORK_STAGES
from ssp_sam.serving.network_stages import network_stage
from ssp_sam.serving.repository import Manifest, weights_path
from ssp_sam.serving.stages import Stage
from ssp_sam.tokenizer import tokenize
from ssp_sam.training.config import ConfigError, DataConfig, load_config
from ssp_sam.training.scenes import scene_generator

Arrays = dict[str, npt.NDArray[Any]]
Call = Callable[[Arrays], Arrays]
REFERENCE = Runtime(TORCH, "fp32")
# Threads that wait for more work spin for some milliseconds, in the time of whatever is called next.
SETTLE_S = 0.1
RUNTIMES = (
    REFERENCE,
    Runtime(TORCH, "bf16"),
    *(Runtime(OPENVINO, precision) for precision in ("fp32", "bf16", INT8)),
)


@dataclass(frozen=True)
class Line:
    """One runtime of one stage. cosine: the least over scenes and outputs; iou_mean, iou_min: over phrases."""

    stage: str
    runtime: str
    milliseconds: float
    speedup: float
    cosine: float
    iou_mean: float
    iou_min: float
    chosen: bool


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: %(default)s")
    parser.add_argument(
        "--stages", nargs="+", choices=NETWORK_STAGES, default=list(NETWORK_STAGES), help="default: all"
    )
    parser.add_argument(
        "--config", type=Path, metavar="TOML", help="of a training, to draw scenes like its (default: all nouns, noto)"
    )
    parser.add_argument("--scenes", type=int, default=24, help="test scenes (default: %(default)s)")
    parser.add_argument("--phrases", type=int, default=4, help="phrases of a scene (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each runtime (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--cosine-min", type=float, default=0.999, help="default: %(default)s")
    parser.add_argument("--iou-min", type=float, default=0.99, help="of the mean over phrases (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the table as JSON to this file as well")
    options = parser.parse_args()
    for name in ("scenes", "phrases", "repeats", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; at least 1")
    try:
        lines = compare(options)
    except (InvalidArgumentError, ConfigError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n", encoding="utf-8")
    return report(lines, options.cosine_min, options.iou_min)


def report(lines: Sequence[Line], cosine_min: float, iou_min: float) -> int:
    """Print the table; return 1 if a chosen runtime is outside the bounds."""
    print(f"{'stage':22}{'runtime':16}{'ms':>9}{'speed-up':>10}{'cosine':>10}{'mask IoU':>10}{'least':>8}")
    failed = []
    for line in lines:
        within = line.cosine >= cosine_min and line.iou_mean >= iou_min
        remark = ("  <- chosen" if line.chosen else "") + ("" if within else "  outside the bounds")
        print(
            f"{line.stage:22}{line.runtime:16}{line.milliseconds:9.2f}{line.speedup:9.2f}x{line.cosine:10.5f}"
            f"{line.iou_mean:10.4f}{line.iou_min:8.3f}{remark}"
        )
        if line.chosen and not within:
            failed.append(line.stage)
    if failed:
        print(f"outside cosine >= {cosine_min} or mask IoU >= {iou_min}: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def compare(options: argparse.Namespace) -> list[Line]:
    """Measure all that the options ask for, and last what becomes of the masks in all chosen runtimes together."""
    keep_freed_memory()
    manifest = Manifest.read(options.repository)
    preset = get_preset(manifest.preset)
    scenes = [*scene_rows(preset, options.scenes, options.phrases, options.config)]
    chosen = {stage: stage_runtime(stage, preset, "cpu", manifest.dtype) for stage in NETWORK_STAGES}
    calls = {
        stage: runtimes_of(
            stage,
            weights_path(options.repository, stage),
            preset,
            {*(RUNTIMES if stage in options.stages else ()), REFERENCE, chosen[stage]},
            options.threads,
        )
        for stage in NETWORK_STAGES
    }
    plain = {stage: calls[stage][REFERENCE.name] for stage in NETWORK_STAGES}
    references = [run_all(plain, scene) for scene in scenes]
    lines: list[Line] = []
    for stage in options.stages:
        others = calls[stage]
        try:
            others["onnxruntime fp32"] = onnxruntime_call(
                stage, preset, weights_path(options.repository, stage), options.threads
            )
        except ModuleNotFoundError as error:
            print(f"left out: {error}; `pip install .[onnx]` brings it", file=sys.stderr)
        seconds = timed(others, references[0], options.repeats)
        for name, call in others.items():
            pairs = [(known, run_with(stage, call, plain, known, preset)) for known in references]
            times, is_chosen = (seconds[REFERENCE.name], seconds[name]), name == chosen[stage].name
            outputs = [tensor.name for tensor in stage_model(stage, preset).outputs if tensor.dtype == "FP32"]
            lines.append(line(stage, name, times, pairs, outputs=outputs, preset=preset, chosen=is_chosen))
    together = {stage: calls[stage][runtime.name] for stage, runtime in chosen.items()}
    whole = {"plain": partial(run_all, plain), "chosen": partial(run_all, together)}
    seconds = timed(whole, scenes[0], options.repeats)
    pairs = [(known, run_all(together, scene)) for known, scene in zip(references, scenes, strict=True)]
    times, outputs = (seconds["plain"], seconds["chosen"]), [contract.mask_logits(preset).name]
    lines.append(line("all of them", "as chosen", times, pairs, outputs=outputs, preset=preset, chosen=True))
    return lines


def line(
    stage: str,
    runtime: str,
    seconds: tuple[list[float], list[float]],
    pairs: Sequence[tuple[Arrays, Arrays]],
    *,
    outputs: Sequence[str],
    preset: Preset,
    chosen: bool,
) -> Line:
    """Sum up a runtime.

    seconds: of calls of the reference and of this runtime, by turns; pairs: all tensors of each image in both; outputs:
    what the cosine is of.
    """
    ious = np.concatenate([mask_ious(*pair, preset) for pair in pairs])
    return Line(
        stage,
        runtime,
        milliseconds=1000 * median(seconds[1]),
        speedup=median(a / b for a, b in zip(*seconds, strict=True)),
        cosine=min(cosine(a[output], b[output]) for a, b in pairs for output in outputs),
        iou_mean=float(ious.mean()),
        iou_min=float(ious.min()),
        chosen=chosen,
    )


def scene_rows(preset: Preset, count: int, phrases: int, config: Path | None) -> Iterator[Arrays]:
    """Yield what the stages start from, a row an image: tensors of the contract."""
    data = load_config(config).data if config else DataConfig()
    generator = scene_generator(data, "test", phrases)
    for number in range(count):
        scene = generator.scene(number)
        inputs = prepare(Image.fromarray(scene.image), preset)
        yield {
            contract.sam_image(preset).name: inputs.sam_image,
            contract.clip_image(preset).name: inputs.clip_image,
            contract.GEOMETRY.name: inputs.geometry.to_array(),
            contract.EXPRESSIONS.name: np.array([each.phrase.encode() for each in scene.expressions], dtype=np.object_),
        }


def runtimes_of(
    stage: str, weights: Path, preset: Preset, runtimes: Iterable[Runtime], threads: int
) -> dict[str, Call]:
    """Return the stage in those of the runtimes that are installed here, by their names."""
    calls = {}
    for runtime in sorted(runtimes, key=[*RUNTIMES, *runtimes].index):
        if importlib.util.find_spec(runtime.engine) is None:
            print(f"left out: {runtime.name}, as {runtime.engine} is not installed", file=sys.stderr)
            continue
        network = load_network(stage, preset, weights, runtime, threads)
        calls[runtime.name] = stage_call(network_stage(stage, network, preset, "FP32"))
    return calls


def stage_call(stage: Stage) -> Call:
    """Return a stage as a function of one row."""

    def call(row: Arrays) -> Arrays:
        (answer,) = stage.run([row])
        if isinstance(answer, SegmentationError):
            raise answer
        return answer

    return call


def onnxruntime_call(stage: str, preset: Preset, weights: Path, threads: int) -> Call:
    """Return a stage as the ONNX file that `build_repository.py --backend onnxruntime` writes."""
    import onnxruntime

    graph = onnx_graph(stage, load_stage_module(stage, preset, weights), preset, "FP32")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would spin in the others' time
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{stage}.onnx"
        graph.export(file, preset)
        session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in graph.model.outputs]

    def call(row: Arrays) -> Arrays:
        given = row
        if stage == contract.TEXT_ENCODER:  # there the tokenizer is a model of its own
            phrases = [phrase.decode() for phrase in row[contract.EXPRESSIONS.name]]
            given = row | {contract.TOKEN_IDS_NAME: tokenize(phrases, preset.text_positions)}
        answers = session.run(names, {tensor.name: given[tensor.name][None] for tensor in graph.model.inputs})
        return given | {name: answer[0] for name, answer in zip(names, answers, strict=True)}

    return call


def run_all(calls: Mapping[str, Call], row: Arrays) -> Arrays:
    """Return all tensors of one image, every stage computed by its call."""
    tensors = dict(row)
    for call in calls.values():
        tensors |= call(tensors)
    return tensors


def run_with(stage: str, call: Call, others: Mapping[str, Call], known: Arrays, preset: Preset) -> Arrays:
    """Return all tensors of one image, `stage` computed by `call` and the stages that feel it by those of `others`.

    known: all tensors, every stage computed by `others`.
    """
    tensors, changed = dict(known), set[str]()
    for name, other in others.items():
        if name == stage or changed & {tensor.name for tensor in stage_model(name, preset).inputs}:
            tensors |= (call if name == stage else other)(tensors)
            changed |= {tensor.name for tensor in stage_model(name, preset).outputs}
    return tensors


def stage_model(stage: str, preset: Preset) -> contract.Model:
    """Return what the contract says of a stage."""
    (model,) = (model for model in contract.stage_models(preset, "FP32") if model.name == stage)
    return model


def timed(calls: Mapping[str, Call], tensors: Arrays, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of calls by turns, after two that do not count; one engine's threads rest before the next."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(2 + repeats):
        for name, call in calls.items():
            time.sleep(SETTLE_S)
            start_s = time.perf_counter()
            call(tensors)
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start_s)
    return seconds


def cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Return the cosine of two arrays as vectors."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def mask_ious(a: Arrays, b: Arrays, preset: Preset) -> npt.NDArray[np.float64]:
    """Return the IoU of the two masks of each phrase, at the image's own size; 1 where both are empty."""
    geometry = Geometry.from_array(a[contract.GEOMETRY.name])
    name, side = contract.mask_logits(preset).name, preset.sam.image_side_px
    ious = []
    for logits in zip(a[name], b[name], strict=True):
        one, other = (full_size_mask(each, geometry, side, 0.0) for each in logits)
        union = np.count_nonzero(one | other)
        ious.append(np.count_nonzero(one & other) / union if union else 1.0)
    return np.array(ious)


if __name__ == "__main__":
    sys.exit(main())
