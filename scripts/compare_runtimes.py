"""Compare the runtimes in which each stage could compute on this machine: speed, and what becomes of the masks.

    python scripts/compare_runtimes.py --repository model_repository

For every stage and runtime it measures the time of a call, the cosine of what the stage answers to what it answers in
PyTorch's float32, and the IoU of the final masks to those of float32 in every stage. Data: synthetic test scenes (`make
font`). Exit code 0 if the runtime that the preset chooses keeps the bounds in every stage, 1 if not, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ssp_sam.checkpoint import load_stage_module
from ssp_sam.config import Preset, get_preset
from ssp_sam.data import SceneGenerator
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import STAGES
from ssp_sam.onnx_export import OnnxGraph, onnx_graph
from ssp_sam.postprocess import full_size_mask
from ssp_sam.preprocess import Geometry, prepare
from ssp_sam.runtime import Runtime, keep_freed_memory, stage_runtime
from ssp_sam.serving import contract
from ssp_sam.serving.repository import Manifest, weights_path
from ssp_sam.tokenizer import tokenize

Arrays = dict[str, npt.NDArray[Any]]
Call = Callable[[Arrays], Arrays]
REFERENCE = "torch fp32"


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
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="default: all")
    parser.add_argument("--scenes", type=int, default=24, help="test scenes (default: %(default)s)")
    parser.add_argument("--phrases", type=int, default=4, help="phrases of a scene (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each runtime (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--cosine-min", type=float, default=0.999, help="default: %(default)s")
    parser.add_argument("--iou-min", type=float, default=0.99, help="of the mean over phrases (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the table as JSON to this file as well")
    options = parser.parse_args()
    try:
        lines = compare(options)
    except InvalidArgumentError as error:
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
    """Measure all that the options ask for."""
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    manifest = Manifest.read(options.repository)
    preset = get_preset(manifest.preset)
    graphs = {
        stage: onnx_graph(
            stage, load_stage_module(stage, preset, weights_path(options.repository, stage)), preset, "FP32"
        )
        for stage in STAGES
    }
    scenes = [*scene_inputs(preset, options.scenes, options.phrases)]
    references = [run_all(graphs, {}, dict(scene)) for scene in scenes]
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        for stage in options.stages:
            calls = runtimes_of(graphs[stage], Path(folder), preset, options.threads)
            seconds = timed(calls, references[0], options.repeats)
            choice = stage_runtime(stage, preset, "cpu", manifest.dtype).dtype
            chosen = f"torch {'bf16' if choice == torch.bfloat16 else 'fp16' if choice == torch.float16 else 'fp32'}"
            for name, call in calls.items():
                answers = [run_all(graphs, {stage: call}, dict(scene)) for scene in scenes]
                pairs = [*zip(references, answers, strict=True)]
                outputs = [tensor.name for tensor in graphs[stage].model.outputs]
                ious = np.concatenate([mask_ious(*pair, preset) for pair in pairs])
                lines.append(
                    Line(
                        stage,
                        name,
                        1000 * median(seconds[name]),
                        median(a / b for a, b in zip(seconds[REFERENCE], seconds[name], strict=True)),
                        min(cosine(a[output], b[output]) for a, b in pairs for output in outputs),
                        float(ious.mean()),
                        float(ious.min()),
                        name == chosen,
                    )
                )
    return lines


def scene_inputs(preset: Preset, count: int, phrases: int) -> Iterator[Arrays]:
    """Yield what the networks start from, one image each: tensors of the contract."""
    generator = SceneGenerator(split="test", expressions_per_scene=phrases)
    for number in range(count):
        scene = generator.scene(number)
        inputs = prepare(Image.fromarray(scene.image), preset)
        yield {
            contract.sam_image(preset).name: inputs.sam_image[None],
            contract.clip_image(preset).name: inputs.clip_image[None],
            contract.GEOMETRY.name: inputs.geometry.to_array()[None],
            contract.TOKEN_IDS.name: tokenize([each.phrase for each in scene.expressions])[None],
        }


def torch_call(graph: OnnxGraph, runtime: Runtime) -> Call:
    """Return the stage in PyTorch."""
    module = runtime.place(copy.deepcopy(graph.module))

    def call(tensors: Arrays) -> Arrays:
        with runtime():
            answers = module(*(torch.from_numpy(tensors[tensor.name]) for tensor in graph.model.inputs))
        names = (tensor.name for tensor in graph.model.outputs)
        return {name: answer.float().numpy() for name, answer in zip(names, answers, strict=True)}

    return call


def onnxruntime_call(graph: OnnxGraph, file: Path, threads: int) -> Call:
    """Return the stage in ONNX Runtime."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in graph.model.outputs]

    def call(tensors: Arrays) -> Arrays:
        answers = session.run(names, {tensor.name: tensors[tensor.name] for tensor in graph.model.inputs})
        return dict(zip(names, answers, strict=True))

    return call


def openvino_call(graph: OnnxGraph, file: Path, threads: int, precision: str) -> Call:
    """Return the stage in OpenVINO; precision: f32 or bf16."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    compiled = openvino.Core().compile_model(str(file), "CPU", settings)

    def call(tensors: Arrays) -> Arrays:
        answers = compiled({tensor.name: tensors[tensor.name] for tensor in graph.model.inputs})
        return {tensor.name: np.array(answers[tensor.name]) for tensor in graph.model.outputs}

    return call


def runtimes_of(graph: OnnxGraph, folder: Path, preset: Preset, threads: int) -> dict[str, Call]:
    """Return the stage in every runtime that is installed here."""
    cpu = torch.device("cpu")
    calls = {
        REFERENCE: torch_call(graph, Runtime(cpu, torch.float32)),
        "torch bf16": torch_call(graph, Runtime(cpu, torch.bfloat16)),
    }
    file = folder / f"{graph.model.name}.onnx"
    others: Mapping[str, Callable[[], Call]] = {
        "onnxruntime": lambda: onnxruntime_call(graph, file, threads),
        "openvino fp32": lambda: openvino_call(graph, file, threads, "f32"),
        "openvino bf16": lambda: openvino_call(graph, file, threads, "bf16"),
    }
    try:
        graph.export(file, preset)
        for name, make in others.items():
            calls[name] = make()
    except ModuleNotFoundError as error:
        print(f"left out: {error}; `pip install .[onnx,bench]` brings it", file=sys.stderr)
    return calls


def run_all(graphs: Mapping[str, OnnxGraph], instead: Mapping[str, Call], tensors: Arrays) -> Arrays:
    """Return all tensors of one image: every stage in PyTorch's float32, but those that `instead` has."""
    for stage, graph in graphs.items():
        call = instead.get(stage) or torch_float32(graph)
        tensors |= call(tensors)
    return tensors


def torch_float32(graph: OnnxGraph) -> Call:
    """Return the stage as it is."""

    def call(tensors: Arrays) -> Arrays:
        with torch.inference_mode():
            answers = graph.module(*(torch.from_numpy(tensors[tensor.name]) for tensor in graph.model.inputs))
        names = (tensor.name for tensor in graph.model.outputs)
        return {name: answer.numpy() for name, answer in zip(names, answers, strict=True)}

    return call


def timed(calls: Mapping[str, Call], tensors: Arrays, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of calls by turns, after two that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(2 + repeats):
        for name, call in calls.items():
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
    geometry = Geometry.from_array(a[contract.GEOMETRY.name][0])
    name, side = contract.mask_logits(preset).name, preset.sam.image_side_px
    ious = []
    for logits in zip(a[name][0], b[name][0], strict=True):
        one, other = (full_size_mask(each, geometry, side, 0.0) for each in logits)
        union = np.count_nonzero(one | other)
        ious.append(np.count_nonzero(one & other) / union if union else 1.0)
    return np.array(ious)


if __name__ == "__main__":
    sys.exit(main())
