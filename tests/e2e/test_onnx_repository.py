"""A repository whose networks are ONNX files, on the real server: batching, ensembles and answers.

Triton's backend for ONNX Runtime is in NVIDIA's container and in no package, so `onnx_model.py` stands in for it: a
Python model that runs the same file with ONNX Runtime. Everything else is as `build_repository.py` wrote it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from safetensors.torch import load_file, save_file
from tritonclient.grpc import model_config_pb2 as pb

from ssp_sam.client import SegmentationClient
from ssp_sam.config import get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import STAGES
from ssp_sam.predictor import Predictor
from ssp_sam.serving import contract
from ssp_sam.serving.repository import onnx_path, weights_path
from ssp_sam.serving.server import ServerSettings, TritonServer

ROOT = Path(__file__).parents[2]
PHRASES = ("the dog on the left", "both dogs", "the car and the guitar", "the lemon", "the zebra")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The weights of this clone as ONNX files, and as float32 for PyTorch."""
    folder = tmp_path_factory.mktemp("onnx")
    stages = {stage: load_file(weights_path(ROOT / "model_repository", stage)) for stage in STAGES}
    weights = {f"{stage}.{key}": value for stage, state in stages.items() for key, value in state.items()}
    save_file(weights, folder / "tiny.safetensors")
    for out, options in (("onnx", ["--backend", "onnxruntime"]), ("torch", ["--dtype", "fp32"])):
        command = [sys.executable, str(ROOT / "scripts" / "build_repository.py"), "--preset", "tiny"]
        command += ["--checkpoint", str(folder / "tiny.safetensors"), *options, "--out", str(folder / out)]
        subprocess.run(command, check=True)
    return folder / "onnx", folder / "torch"


@pytest.fixture(scope="module")
def url(repositories: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """gRPC address of a server of the ONNX repository."""
    models = tmp_path_factory.mktemp("served") / "models"
    shutil.copytree(repositories[0], models)
    for model in contract.onnx_stage_models(get_preset("tiny"), "FP16"):
        path = models / model.name / "config.pbtxt"
        config = text_format.Parse(path.read_text(), pb.ModelConfig())
        if config.backend == contract.ONNXRUNTIME:
            config.backend = "python"
            path.write_text(text_format.MessageToString(config))
            shutil.copy(Path(__file__).parent / "onnx_model.py", models / model.name / "1" / "model.py")
    settings = ServerSettings(
        models, grpc_port=0, http_port=0, metrics_port=0, log_file=models.parent / "server.log", ready_timeout_s=300
    )
    with TritonServer(settings) as server:
        yield server.grpc_url
        server.check()


def test_the_repository_holds_onnx_files_and_no_other_weights(repositories: tuple[Path, Path]) -> None:
    onnx, _ = repositories
    written = {path.parent.parent.name for path in onnx.glob("*/1/model.onnx")}
    assert written == (STAGES.keys() - {contract.TEXT_ENCODER}) | {contract.TEXT_TOWER}
    assert not [*onnx.glob("**/*.safetensors")]
    assert not [*onnx.glob("**/*.data")]  # parameters of up to 2 GB lie in the file itself
    assert onnx_path(onnx, contract.MASK_DECODER).stat().st_size > 1_000_000


def test_in_process_it_is_refused_with_what_is_needed_instead(repositories: tuple[Path, Path]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"holds networks for the backend onnxruntime; .*--backend python"):
        Predictor.from_repository(repositories[0])


@pytest.mark.parametrize("entry", [contract.SEGMENT, contract.SEGMENT_ENSEMBLE])
def test_many_at_once_are_answered_as_in_process(repositories: tuple[Path, Path], url: str, entry: str) -> None:
    predictor = Predictor.from_repository(repositories[1], device="cpu")
    rng = np.random.default_rng(0)
    images = [np.kron(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((20, w, 1), np.uint8)) for w in (9, 30)]
    requests = [(images[number % 2], PHRASES[: 1 + number % 5]) for number in range(20)]
    with SegmentationClient(url, model=entry, timeout_s=120) as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda request: client.segment(*request), requests))
    for (image, phrases), answer in zip(requests, answers, strict=True):
        for ours, theirs in zip(predictor.segment(image, phrases), answer, strict=True):
            # Of a small mask, a single pixel of its edge is more than one in a hundred.
            union_px = np.count_nonzero(ours.mask | theirs.mask)
            assert np.count_nonzero(ours.mask ^ theirs.mask) <= max(1, 0.01 * union_px)
            assert theirs.score == pytest.approx(ours.score, abs=0.01)
            np.testing.assert_allclose(theirs.box_xyxy_px, ours.box_xyxy_px, atol=0.5)


def test_what_cannot_be_tokenized_is_refused_alone(url: str) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    with SegmentationClient(url, timeout_s=120) as client:
        with pytest.raises(InvalidArgumentError, match="phrase 1 is empty"):
            client.segment(image, ["a dog", " "])
        assert len(client.segment(image, ["a dog"])) == 1
