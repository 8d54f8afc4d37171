from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import fake_triton
import numpy as np
import pytest
from fake_triton import InferenceRequest, InferenceResponse, TritonError, model_arguments

from ssp_sam.config import get_preset
from ssp_sam.errors import DeadlineExceededError, SegmentationError, UnavailableError, error_from_message
from ssp_sam.predictor import Predictor
from ssp_sam.results import decode_rle
from ssp_sam.serving import contract
from ssp_sam.serving.feature_cache import CacheCounters
from ssp_sam.serving.orchestrator import ModelCall
from ssp_sam.serving.segment_model import Metrics, ModelCaller, SegmentModel, call_model

TINY = get_preset("tiny")
OUTPUTS = [tensor.name for tensor in contract.segment_model(TINY).outputs]
Start = Callable[..., SegmentModel]


@pytest.fixture
def start(tiny_repository: Path) -> Iterator[Start]:
    """Start the entry model, with other parameters if need be; it is stopped afterwards."""
    running: list[SegmentModel] = []

    def make(**parameters: object) -> SegmentModel:
        arguments = model_arguments(tiny_repository, contract.SEGMENT)
        config = json.loads(arguments["model_config"])
        for key, value in parameters.items():
            assert key in config["parameters"], key
            config["parameters"][key]["string_value"] = str(value)
        model = SegmentModel()
        model.initialize({**arguments, "model_config": json.dumps(config)})
        running.append(model)
        return model

    yield make
    for model in running:
        if model.thread.is_alive():
            model.finalize()


def error_of(request: InferenceRequest) -> TritonError:
    error = request.sender.answer().error()
    assert error is not None
    return error


class Gate:
    """Holds every call to one stage until it is opened."""

    def __init__(self, name: str) -> None:
        self.inner = fake_triton.models[name]
        self.entered, self.opened = threading.Semaphore(0), threading.Event()
        self.finished = 0
        fake_triton.models[name] = self

    def __call__(self, request: InferenceRequest) -> InferenceResponse:
        self.entered.release()
        assert self.opened.wait(30)
        response = self.inner(request)
        self.finished += 1
        return response


# --- answers ----------------------------------------------------------------------------------------------------------


def test_execute_returns_nothing_and_the_answer_is_that_of_the_predictor(
    start: Start, make_request, make_png, predictor: Predictor
) -> None:
    png, phrases = make_png(70, 50), ["dog", "the red cat"]
    request = make_request(OUTPUTS, image=png, expressions=phrases)
    model = start()
    model.loop.call_soon_threadsafe(time.sleep, 0.3)  # nothing is sent on before `execute` has returned

    assert fake_triton.execute(model, [request]) is None  # and the inputs are overwritten now

    arrays = request.sender.answer().arrays()
    assert arrays.keys() == set(OUTPUTS)
    for tensor in contract.segment_model(TINY).outputs:
        assert arrays[tensor.name].dtype == tensor.numpy_dtype
        assert arrays[tensor.name].shape == (1, *(2 if dim == -1 else dim for dim in tensor.dims))
    for n, wanted in enumerate(predictor.segment(png, phrases)):
        mask = decode_rle(arrays["masks"][0, n], 70, 50)
        np.testing.assert_array_equal(mask, wanted.mask)
        np.testing.assert_allclose(arrays["box_xyxy_px"][0, n], wanted.box_xyxy_px, atol=1e-3)

    by_id = make_request(OUTPUTS, image_id=hashlib.sha256(png).hexdigest(), expressions=phrases)
    fake_triton.execute(model, [by_id])
    np.testing.assert_array_equal(by_id.sender.answer().arrays()["masks"], arrays["masks"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("feature_cache_mib", "-1"), ("max_in_flight", "0"), ("rows_per_call", "many"), ("call_threads", "2.5")],
)
def test_an_edited_parameter_that_cannot_be_is_told_when_the_model_loads(start: Start, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"the parameter {name} of segment is '{value}'; allowed is a whole number"):
        start(**{name: value})


def test_an_image_that_the_cache_has_no_room_for_gets_no_id(start: Start, make_request, make_png) -> None:
    model = start(feature_cache_mib=0)
    request = make_request(["image_id", "score"], image=make_png(40, 30), expressions="dog")
    fake_triton.execute(model, [request])
    assert request.sender.answer().arrays()["image_id"].tolist() == [[b""]]


def test_a_request_without_rows_is_refused(start: Start, make_request, make_png) -> None:
    phrases = np.array([b"dog"], np.object_)  # of the shape (0, 1), as Triton passes it on
    request = make_request(["score"], image=make_png(40, 30), expressions=phrases)
    fake_triton.execute(start(), [request])
    assert error_of(request).code() == TritonError.INVALID_ARG
    assert "expressions has no row" in error_of(request).message()


def test_optional_inputs_change_the_answer(start: Start, make_request, make_png) -> None:
    model = start()
    requests = [
        make_request(["masks", "area_px"], image=make_png(40, 30), expressions="dog", **options)
        for options in (
            {},
            {"mask_format": "raw", "mask_threshold": np.array([[-1e6]], np.float32)},
            {"mask_format": "none", "mask_threshold": np.array([[1e6]], np.float32)},
        )
    ]
    fake_triton.execute(model, requests)
    plain, all_of_it, nothing = (request.sender.answer().arrays() for request in requests)
    assert decode_rle(plain["masks"][0, 0], 40, 30).sum() == plain["area_px"][0, 0]
    assert all_of_it["masks"][0, 0] == b"\x01" * 1200
    assert nothing["masks"][0, 0] == b""
    assert nothing["area_px"].tolist() == [[0]]


def test_64_requests_at_once_each_get_their_own_answer_once(start: Start, make_request, make_png) -> None:
    model = start()
    sizes = [(20 + n % 8, 31) for n in range(64)]
    requests = [
        make_request(["image_size", "tokens"], image=make_png(*size), expressions=["dog"] * (1 + n % 3))
        for n, size in enumerate(sizes)
    ]
    for at in range(0, 64, 8):
        fake_triton.execute(model, requests[at : at + 8])
    for n, (size, request) in enumerate(zip(sizes, requests, strict=True)):
        arrays = request.sender.answer(120).arrays()
        assert arrays["image_size"].tolist() == [list(size)]
        assert arrays["tokens"].shape == (1, 1 + n % 3, 28)
    model.finalize()
    assert all(len(request.sender.responses) == 1 for request in requests)
    assert model.orchestrator.cache.counters.misses == 8
    assert fake_triton.Logger.errors == []


# --- errors -----------------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_a_request_is_told_to_it_alone(start: Start, make_request, make_png) -> None:
    model, png = start(), make_png()
    cases = [
        ({"expressions": "dog"}, TritonError.INVALID_ARG, "none came"),
        ({"expressions": "dog", "image": png, "image_id": "x"}, TritonError.INVALID_ARG, "both came"),
        ({"expressions": " ", "image": png}, TritonError.INVALID_ARG, "phrase 0 is empty"),
        ({"expressions": b"\xff", "image": png}, TritonError.INVALID_ARG, "not UTF-8"),
        ({"expressions": "dog", "image": b"no image"}, TritonError.INVALID_ARG, "not an image"),
        ({"expressions": "dog", "image_id": b"\xff\xfe"}, TritonError.NOT_FOUND, "is not held here"),
        ({"expressions": "dog", "image": png, "mask_format": "gif"}, TritonError.INVALID_ARG, "unknown mask_format"),
    ]
    requests = [make_request(["score"], **inputs) for inputs, _, _ in cases]
    good = [make_request(["score"], image=png, expressions="dog") for _ in range(2)]
    fake_triton.execute(model, [good[0], *requests, good[1]])
    for (_, code, words), request in zip(cases, requests, strict=True):
        error = error_of(request)
        assert error.code() == code
        assert words in error.message()
        assert error_from_message(error.message()).code in error.message()
    for request in good:
        assert request.sender.answer().arrays()["score"].shape == (1, 1)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Exceeds maximum queue size", UnavailableError),
        ("Request timeout expired", DeadlineExceededError),
        ("Stub process 'mask_decoder_0' is not healthy.", UnavailableError),
        ("Request for unknown model: 'mask_decoder' is not ready", UnavailableError),
        ("in step 3: [UNAVAILABLE] busy", UnavailableError),
        ("something else", SegmentationError),
    ],
)
def test_what_triton_says_of_a_stage_keeps_its_meaning(
    start: Start, make_request, make_png, message: str, kind: type[SegmentationError]
) -> None:
    fake_triton.models["mask_decoder"] = lambda request: InferenceResponse(error=TritonError(message))
    request = make_request(["score"], image=make_png(), expressions="dog")
    fake_triton.execute(start(), [request])
    again = error_from_message(error_of(request).message())
    assert type(again) is kind
    assert message.rpartition("] ")[2] in again.message


def test_what_nobody_expected_is_logged_and_answered(start: Start, make_request, make_png) -> None:
    def broken(request: InferenceRequest) -> InferenceResponse:
        raise RuntimeError("a secret")

    fake_triton.models["mask_decoder"] = broken
    request = make_request(["score"], image=make_png(), expressions="dog")
    fake_triton.execute(start(), [request])
    error = error_of(request)
    assert error.code() == TritonError.INTERNAL
    assert "segment failed: RuntimeError" in error.message()
    assert "secret" not in error.message()
    assert any("a secret" in logged for logged in fake_triton.Logger.errors)


def test_a_request_that_cannot_be_read_is_answered_and_stops_no_other(start: Start, make_request, make_png) -> None:
    odd = make_request(["score"], image=make_png(), expressions="dog")
    odd.timeout = lambda: "a secret"
    good = make_request(["score"], image=make_png(), expressions="dog")
    fake_triton.execute(start(), [odd, good])
    assert error_of(odd).code() == TritonError.INTERNAL
    assert "segment failed: TypeError" in error_of(odd).message()
    assert good.sender.answer().arrays()


def test_an_answer_that_cannot_be_sent_is_logged(start: Start, make_request, make_png) -> None:
    request = make_request(["score"], image=make_png(), expressions="dog")
    failed = threading.Event()

    def broken(*_: object, **__: object) -> None:
        failed.set()
        raise RuntimeError("no memory is left")

    request.sender.send = broken
    model = start()
    fake_triton.execute(model, [request])
    assert failed.wait(30)
    model.finalize()
    assert "a request gets no answer" in fake_triton.Logger.errors[-1]


def test_phrases_do_not_wait_for_new_images(start: Start, make_request, make_png) -> None:
    model = start(call_threads=1)
    known = make_request(["image_id"], image=make_png(), expressions="dog")
    fake_triton.execute(model, [known])
    image_id = known.sender.answer().arrays()["image_id"][0, 0]
    gate = Gate("preprocess")
    new = make_request(["score"], image=make_png(9, 9), expressions="dog")
    fake_triton.execute(model, [new])
    assert gate.entered.acquire(timeout=30)
    again = make_request(["score"], image_id=image_id, expressions="cat")
    fake_triton.execute(model, [again])
    assert again.sender.answer().arrays()
    assert not new.sender.done.is_set()
    gate.opened.set()
    assert new.sender.answer().arrays()


def test_more_requests_than_allowed_are_refused_at_once(start: Start, make_request, make_png) -> None:
    model, gate = start(max_in_flight=2), Gate("preprocess")
    requests = [make_request(["score"], image=make_png(), expressions="dog") for _ in range(5)]
    fake_triton.execute(model, requests)
    for request in requests[2:]:
        assert error_of(request).code() == TritonError.UNAVAILABLE
    assert not any(request.sender.done.is_set() for request in requests[:2])
    gate.opened.set()
    for request in requests[:2]:
        assert request.sender.answer().arrays()


def test_a_request_whose_time_is_up_is_told_so(start: Start, make_request, make_png) -> None:
    model, gate = start(), Gate("mask_decoder")
    request = make_request(["score"], timeout_us=1_500_000, image=make_png(), expressions="dog")
    fake_triton.execute(model, [request])
    assert isinstance(error_from_message(error_of(request).message()), DeadlineExceededError)
    gate.opened.set()


def test_a_cancelled_request_stops_before_its_phrases(start: Start, make_request, make_png) -> None:
    model, gate, reached = start(), Gate("sam_image_encoder"), Gate("text_encoder")
    reached.opened.set()
    request = make_request(["score"], image=make_png(), expressions="dog")
    fake_triton.execute(model, [request])
    assert gate.entered.acquire(timeout=30)
    request.sender.cancelled = True
    gate.opened.set()
    assert error_of(request).code() == TritonError.CANCELLED
    assert reached.finished == 0


# --- calls and the end ------------------------------------------------------------------------------------------------


def test_a_call_that_has_begun_runs_to_its_end_when_nobody_waits_any_more(make_request, make_png) -> None:
    gate = Gate("preprocess")
    ended: list[InferenceResponse] = []
    run = InferenceRequest.exec

    def noted(self: InferenceRequest) -> InferenceResponse:
        response = run(self)
        ended.append(response)
        return response

    async def main() -> None:
        image = np.array([[make_png()]], dtype=np.object_)
        call = asyncio.ensure_future(ModelCaller(2, 1)(ModelCall("preprocess", {"image": image}, ["geometry"])))
        while not gate.entered.acquire(blocking=False):
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not ended
        gate.opened.set()
        while not ended:
            await asyncio.sleep(0.01)
        assert not ended[0].has_error()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InferenceRequest, "exec", noted)
        asyncio.run(asyncio.wait_for(main(), 30))


def test_arrays_of_a_stage_are_copies(make_png) -> None:
    answer = np.zeros((1, 4, 2), np.int32)
    fake_triton.models["preprocess"] = lambda request: InferenceResponse([fake_triton.Tensor("geometry", answer)])
    image = np.array([[make_png()]], dtype=np.object_)
    got = call_model(ModelCall("preprocess", {"image": image}, ["geometry"]))
    answer.fill(5)  # the stage's memory is used again
    assert not got["geometry"].any()


@pytest.mark.parametrize("have_begun", [True, False])
def test_the_end_waits_for_those_in_flight(start: Start, make_request, make_png, have_begun: bool) -> None:
    model, gate = start(), Gate("mask_decoder")
    requests = [make_request(["score"], image=make_png(), expressions=f"thing {n}") for n in range(8)]
    if not have_begun:
        model.loop.call_soon_threadsafe(time.sleep, 0.3)  # the loop is busy while the requests come in
    fake_triton.execute(model, requests)
    if have_begun:
        assert gate.entered.acquire(timeout=30)
    threading.Timer(0.5, gate.opened.set).start()
    model.finalize()
    assert all(request.sender.done.is_set() for request in requests)
    assert all(request.sender.responses[0].arrays() for request in requests)
    assert not model.thread.is_alive()


def test_the_end_does_not_wait_for_ever(start: Start, make_request, make_png, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssp_sam.serving.segment_model.SHUTDOWN_TIMEOUT_S", 0.2)
    model, gate = start(), Gate("mask_decoder")
    fake_triton.execute(model, [make_request(["score"], image=make_png(), expressions="dog")])
    assert gate.entered.acquire(timeout=30)
    model.finalize()
    assert not model.thread.is_alive()
    assert any("stopped with" in logged for logged in fake_triton.Logger.errors)
    gate.opened.set()


def test_the_end_waits_for_calls_that_nobody_waits_for(start: Start, make_request, make_png) -> None:
    model, gate = start(), Gate("mask_decoder")
    request = make_request(["score"], timeout_us=1_000_000, image=make_png(), expressions="dog")
    fake_triton.execute(model, [request])
    assert gate.entered.acquire(timeout=30)
    assert error_of(request)
    threading.Timer(0.3, gate.opened.set).start()
    model.finalize()
    assert gate.finished == 1


def test_every_metric_is_published_and_counters_do_not_count_twice() -> None:
    counters = CacheCounters(hits=1, misses=2, joins=3, evictions=4, bytes_held=5)
    orchestrator = SimpleNamespace(cache=SimpleNamespace(counters=counters), in_flight=6, rejected=7)
    metrics = Metrics()
    for _ in range(2):
        metrics.publish(orchestrator)
    assert {name.removeprefix("ssp_sam_"): each.value() for name, each in fake_triton.MetricFamily.metrics.items()} == {
        "feature_cache_hits_total": 1,
        "feature_cache_misses_total": 2,
        "feature_cache_joins_total": 3,
        "feature_cache_evictions_total": 4,
        "feature_cache_bytes": 5,
        "in_flight": 6,
        "rejected_total": 7,
    }


def test_metrics_say_what_happened(start: Start, make_request, make_png, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssp_sam.serving.segment_model.METRICS_PERIOD_S", 0.01)
    model = start()
    for seed in (1, 1, 2):
        request = make_request(["score"], image=make_png(20, 30, seed), expressions="dog")
        fake_triton.execute(model, [request])
        request.sender.answer()
    expected = {
        "ssp_sam_feature_cache_hits_total": 1,
        "ssp_sam_feature_cache_misses_total": 2,
        "ssp_sam_feature_cache_joins_total": 0,
        "ssp_sam_feature_cache_evictions_total": 0,
        "ssp_sam_rejected_total": 0,
        "ssp_sam_in_flight": 0,
        "ssp_sam_feature_cache_bytes": model.orchestrator.cache.counters.bytes_held,
    }
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        got = {name: metric.value() for name, metric in fake_triton.MetricFamily.metrics.items()}
        if got == expected:
            break
        time.sleep(0.02)
    assert got == expected
    assert expected["ssp_sam_feature_cache_bytes"] > 0


def test_metrics_that_are_refused_stop_nothing(
    start: Start, make_request, make_png, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssp_sam.serving.segment_model.METRICS_PERIOD_S", 0.01)
    model = start()
    model.metrics.families.clear()
    deadline_s = time.monotonic() + 10
    while not fake_triton.Logger.warnings and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert "metrics are not published" in fake_triton.Logger.warnings[0]
    request = make_request(["score"], image=make_png(), expressions="dog")
    fake_triton.execute(model, [request])
    assert request.sender.answer().arrays()
