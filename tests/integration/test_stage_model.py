from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fake_triton
import numpy as np
import pytest
from fake_triton import InferenceRequest, InferenceResponse, TritonError

from ssp_sam.config import get_preset
from ssp_sam.errors import (
    CancelledError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    SegmentationError,
    UnavailableError,
    error_from_message,
)
from ssp_sam.serving import contract, stage_model
from ssp_sam.serving.stage_model import triton_error

TINY = get_preset("tiny")
MODELS = {model.name: model for model in contract.stage_models(TINY, "FP16")}
ALL_OUTPUTS = {name: [tensor.name for tensor in model.outputs] for name, model in MODELS.items()}


def execute(model: Any, *requests: InferenceRequest) -> list[InferenceResponse]:
    responses: list[InferenceResponse] = fake_triton.execute(model, requests)
    assert len(responses) == len(requests)
    return responses


def test_images_of_many_sizes_in_one_batch(stage_models, make_request, make_png) -> None:
    sizes = [(30, 50), (50, 30), (200, 20), (1, 1)]
    requests = [make_request(["sam_image", "geometry"], image=make_png(*size)) for size in sizes]
    for size, response in zip(sizes, execute(stage_models["preprocess"], *requests), strict=True):
        arrays = response.arrays()
        assert list(arrays) == ["sam_image", "geometry"]
        assert arrays["sam_image"].shape == (1, 3, 256, 256)
        assert arrays["geometry"][0, 0].tolist() == list(size)


def test_requests_with_different_numbers_of_phrases_in_one_batch(stage_models, make_request) -> None:
    counts = [1, 20, 3]
    phrases = [[f"thing {n} of {count}" for n in range(count)] for count in counts]
    model = stage_models["text_encoder"]
    requests = [make_request(ALL_OUTPUTS["text_encoder"], expressions=some) for some in phrases]
    for some, response in zip(phrases, execute(model, *requests), strict=True):
        (alone,) = execute(model, make_request(ALL_OUTPUTS["text_encoder"], expressions=some))
        for tensor in MODELS["text_encoder"].outputs:
            got, wanted = response.arrays()[tensor.name], alone.arrays()[tensor.name]
            assert got.dtype == tensor.numpy_dtype
            assert got.shape == (1, *(len(some) if dim == -1 else dim for dim in tensor.dims))
            if tensor.dtype == "FP32":
                np.testing.assert_allclose(got, wanted, atol=1e-4)
            else:
                np.testing.assert_array_equal(got, wanted)


def test_a_request_of_several_rows_is_answered_as_one(stage_models, make_request) -> None:
    model = stage_models["clip_image_encoder"]
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 3, 256, 256), dtype=np.uint8)
    geometry = np.tile(np.array([[99, 50], [256, 129], [256, 129], [0, 63]], np.int32), (3, 1, 1))
    ask = {"outputs": ["clip_tokens"]}
    many, one = execute(
        model,
        make_request(**ask, clip_image=images, geometry=geometry),
        make_request(**ask, clip_image=images[1:2], geometry=geometry[1:2]),
    )
    assert many.arrays()["clip_tokens"].shape == (3, 257, 192)
    np.testing.assert_allclose(many.arrays()["clip_tokens"][1:2], one.arrays()["clip_tokens"], atol=1e-4)


@pytest.mark.parametrize("outputs", [["geometry"], ["clip_image", "geometry"], []])
def test_only_the_outputs_asked_for_are_sent(stage_models, make_request, make_png, outputs: list[str]) -> None:
    (response,) = execute(stage_models["preprocess"], make_request(outputs, image=make_png()))
    assert list(response.arrays()) == outputs


def test_inputs_may_be_left_out_and_what_follows_from_them_is_left_out_too(stage_models, make_request, make_png):
    everything = ALL_OUTPUTS["preprocess"]  # what Triton asks for when the caller names no outputs
    without, with_phrases = execute(
        stage_models["preprocess"],
        make_request(everything, image=make_png()),
        make_request(everything, image=make_png(), expressions=["dog", "cat"], mask_format="png"),
    )
    assert without.arrays().keys() == set(everything) - {"checked_expressions"}
    assert with_phrases.arrays().keys() == set(everything)
    assert with_phrases.arrays()["checked_expressions"].tolist() == [[b"dog", b"cat"]]


# Triton lets a batch of 0 pass, and takes its 0 away.
@pytest.mark.parametrize(("shape", "geometry_shape"), [((3, 256, 256), (4, 2)), ((0, 3, 256, 256), (0, 4, 2))])
def test_a_request_without_rows_is_refused_and_its_neighbours_are_answered(
    stage_models, make_request, shape: tuple[int, ...], geometry_shape: tuple[int, ...]
) -> None:
    geometry = np.array([[[99, 50], [256, 129], [256, 129], [0, 63]]], np.int32)
    good, bad = execute(
        stage_models["clip_image_encoder"],
        make_request(["clip_tokens"], clip_image=np.zeros((1, 3, 256, 256), np.uint8), geometry=geometry),
        make_request(
            ["clip_tokens"], clip_image=np.zeros(shape, np.uint8), geometry=np.zeros(geometry_shape, np.int32)
        ),
    )
    assert good.arrays()["clip_tokens"].shape == (1, 257, 192)
    assert bad.error().code() == TritonError.INVALID_ARG
    assert "clip_image has no row" in bad.error().message()


def test_an_error_is_the_answer_of_its_own_request_only(stage_models, make_request, make_png) -> None:
    good, bad, worse, good_too = execute(
        stage_models["preprocess"],
        make_request(["geometry"], image=make_png(10, 20)),
        make_request(["geometry"], image=b"no image"),
        make_request(["geometry"], image=make_png(), expressions=["x " * 90]),
        make_request(["geometry"], image=make_png(30, 40)),
    )
    assert good.arrays()["geometry"][0, 0].tolist() == [10, 20]
    assert good_too.arrays()["geometry"][0, 0].tolist() == [30, 40]
    for response, words in ((bad, "not an image"), (worse, "has 93 tokens")):
        assert response.error().code() == TritonError.INVALID_ARG
        assert response.error().message().startswith("[INVALID_ARGUMENT] ")
        assert words in response.error().message()
    assert fake_triton.Logger.errors == []


def test_one_bad_row_of_a_request_is_the_answer_of_the_request(stage_models, make_request, make_png) -> None:
    images = np.array([[make_png()], [b"no image"]], dtype=np.object_)
    (response,) = execute(stage_models["preprocess"], make_request(["geometry"], image=images))
    assert "not an image" in response.error().message()


def test_the_device_is_the_one_that_triton_gives(tiny_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[str] = []
    monkeypatch.setattr(stage_model, "load_stage", lambda *arguments: devices.append(arguments[3]))
    arguments = fake_triton.model_arguments(tiny_repository, "mask_decoder")
    for kind in ("CPU", "GPU"):
        of_kind = {**arguments, "model_instance_kind": kind, "model_instance_device_id": "1"}
        stage_model.StageModel().initialize(of_kind)
    assert devices == ["cpu", "cuda:1"]


def test_what_nobody_expected_of_a_row_is_its_own_answer(
    stage_models: Mapping[str, Any], make_request, make_png, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stage_models["preprocess"]
    run_row = model.stage.run_row

    def choosy(row: Mapping[str, np.ndarray]) -> Any:
        if row["image"][0] == b"odd":
            raise MemoryError("a secret")
        return run_row(row)

    monkeypatch.setattr(model.stage, "run_row", choosy)
    odd, good = execute(
        model, make_request(["geometry"], image=b"odd"), make_request(["geometry"], image=make_png(10, 20))
    )
    assert good.arrays()["geometry"][0, 0].tolist() == [10, 20]
    assert odd.error().code() == TritonError.INTERNAL
    assert "Preprocess failed: MemoryError" in odd.error().message()
    assert "secret" not in odd.error().message()
    (logged,) = fake_triton.Logger.errors
    assert "a secret" in logged and "Traceback" in logged


def test_what_nobody_expected_is_logged_and_told_without_its_details(
    stage_models: Mapping[str, Any], make_request, make_png, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stage_models["preprocess"]

    def broken(rows: object) -> None:
        raise KeyError("a secret")

    with monkeypatch.context() as patch:
        patch.setattr(model.stage, "run", broken)
        responses = execute(model, *(make_request(["geometry"], image=make_png()) for _ in range(3)))
    for response in responses:
        assert response.error().code() == TritonError.INTERNAL
        assert "preprocess failed on a batch of 3: KeyError" in response.error().message()
        assert "secret" not in response.error().message()
    (logged,) = fake_triton.Logger.errors
    assert "a secret" in logged
    assert "Traceback" in logged
    (response,) = execute(model, make_request(["geometry"], image=make_png()))
    assert response.arrays()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SegmentationError, TritonError.INTERNAL),
        (InvalidArgumentError, TritonError.INVALID_ARG),
        (NotFoundError, TritonError.NOT_FOUND),
        (UnavailableError, TritonError.UNAVAILABLE),
        (DeadlineExceededError, TritonError.UNAVAILABLE),
        (CancelledError, TritonError.CANCELLED),
    ],
)
def test_every_error_has_tritons_status_and_survives_its_loss(error: type[SegmentationError], code: int) -> None:
    sent = triton_error(error("what went wrong"))
    assert sent.code() == code
    again = error_from_message(sent.message())
    assert type(again) is error
    assert again.message == "what went wrong"


def test_the_model_files_of_the_repository_load_the_adapters(tiny_repository: Path) -> None:
    for path in tiny_repository.glob("*/1/model.py"):
        namespace: dict[str, Any] = {}
        exec(compile(path.read_text(), path, "exec"), namespace)
        assert hasattr(namespace["TritonPythonModel"], "execute")
