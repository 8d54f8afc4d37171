"""Calls through both clients to a server in process."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import math
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_segment_server import (
    HEIGHT,
    WIDTH,
    AsyncFakeTransport,
    FakeTransport,
    FakeTriton,
    MakeClient,
    expected_mask,
    triton_error,
)

from ssp_sam.client import AsyncSegmentationClient, SegmentationClient, exchange, messages
from ssp_sam.client.exchange import KnownImages
from ssp_sam.config import PRESETS
from ssp_sam.errors import (
    CancelledError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    SegmentationError,
    UnavailableError,
)
from ssp_sam.serving import contract

PHRASES = ["the left dog", "no dog", "a ball"]
BUSY = ("Exceeds maximum queue size", "UNAVAILABLE")


class Clock:
    """Time that passes only in pauses."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.pauses_s: list[float] = []

    async def pause(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(exchange, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    for runtime in (exchange.BlockingRuntime, exchange.AsyncioRuntime):
        monkeypatch.setattr(runtime, "pause", clock.pause)
    return clock


# --- answers ----------------------------------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_the_phrases(make_client: MakeClient, server: FakeTriton, png: bytes) -> None:
    answers = make_client(server=server).segment(png, PHRASES)
    assert [answer.phrase for answer in answers] == PHRASES
    for answer in answers:
        assert answer.mask.dtype == np.bool_
        assert np.array_equal(answer.mask, expected_mask(answer.phrase))
        assert answer.area_px == answer.mask.sum()
        assert answer.box_xyxy_px.dtype == np.float32
        assert answer.box_xyxy_px.flags.writeable
    assert [answer.no_target for answer in answers] == [False, True, False]
    assert [answer.score for answer in answers] == pytest.approx([0.9, 0.7, 0.5])
    assert answers[0].box_xyxy_px.tolist() == [0, 0, len(PHRASES[0]), HEIGHT]


@pytest.mark.parametrize(("most", "is_short"), [(10**6, True), (0, False)])
def test_what_takes_long_leaves_the_event_loop_free(
    most: int, is_short: bool, server: FakeTriton, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            threads.append(threading.current_thread())
            return function(*args)

        return call

    async def ask() -> int:
        async with AsyncSegmentationClient(transport=AsyncFakeTransport(server)) as client:
            return (await client.segment(png, ["a dog"]))[0].area_px

    monkeypatch.setattr(exchange, "encode_image", noting(exchange.encode_image))
    monkeypatch.setattr(messages, "decode_rle", noting(messages.decode_rle))
    monkeypatch.setattr(exchange, "_SHORT_BYTES", most)
    monkeypatch.setattr(exchange, "_SHORT_PX", most)
    assert asyncio.run(ask()) == expected_mask("a dog").sum()
    assert [thread is threading.main_thread() for thread in threads] == [is_short] * 2


def test_malformed_mask_is_the_servers_failure(
    make_client: MakeClient, server: FakeTriton, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fake_segment_server.encode_rle", lambda mask: b"")
    with pytest.raises(SegmentationError, match="malformed mask"):
        make_client(server=server).segment(png, ["a dog"])


def test_explain_adds_tokens_and_attention(make_client: MakeClient, server: FakeTriton, png: bytes) -> None:
    client = make_client(server=server)
    explanations = client.explain(png, PHRASES)
    assert [explanation.tokens for explanation in explanations] == [tuple(phrase.split()) for phrase in PHRASES]
    for explanation, phrase in zip(explanations, PHRASES, strict=True):
        assert explanation.segmentation.phrase == phrase
        assert explanation.token_attention.shape == (len(explanation.tokens),)
        assert explanation.token_attention.sum() == pytest.approx(1)
        assert explanation.spatial_attention.shape == (PRESETS["tiny"].clip.grid,) * 2
    client.segment(png, PHRASES)
    assert "tokens" not in server.requests[-1].outputs, "what is not asked for should not be sent"


def test_answer_with_an_output_missing(
    make_client: MakeClient, server: FakeTriton, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = server.answer

    def without_scores(message: Any, timeout_s: float | None) -> Any:
        response = answer(message, timeout_s)
        response.outputs[2].name = "other"
        return response

    monkeypatch.setattr(server, "answer", without_scores)
    with pytest.raises(SegmentationError, match="lacks the output 'score'"):
        make_client(server=server).segment(png, PHRASES)


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [contract.SEGMENT, contract.SEGMENT_ENSEMBLE])
def test_first_request_carries_the_image(make_client: MakeClient, server: FakeTriton, png: bytes, model: str) -> None:
    make_client(server=server, model=model).segment(png, PHRASES, mask_threshold=0.25)
    (request,) = server.requests
    assert request.model == model
    assert {name: array.shape for name, array in request.inputs.items()} == {
        "image": (1, 1),
        "expressions": (1, 3),
        "mask_format": (1, 1),
        "mask_threshold": (1, 1),
    }
    assert request.inputs["image"][0, 0] == png
    assert list(request.inputs["expressions"][0]) == [phrase.encode() for phrase in PHRASES]
    assert request.inputs["mask_format"][0, 0] == b"rle"
    assert request.inputs["mask_threshold"] == np.float32(0.25)
    assert ("image_id" in request.outputs) == (model == contract.SEGMENT)


def test_image_travels_once(make_client: MakeClient, server: FakeTriton, png: bytes) -> None:
    client = make_client(server=server)
    first = client.segment(png, PHRASES)
    second = client.segment(png, PHRASES)
    assert [set(request.inputs) & {"image", "image_id"} for request in server.requests] == [{"image"}, {"image_id"}]
    assert server.requests[1].inputs["image_id"][0, 0] == hashlib.sha256(png).hexdigest().encode()
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.mask, other.mask)


def test_stateless_model_gets_the_image_every_time(make_client: MakeClient, server: FakeTriton, png: bytes) -> None:
    client = make_client(server=server, model=contract.SEGMENT_ENSEMBLE)
    client.segment(png, PHRASES)
    client.segment(png, PHRASES)
    assert all("image" in request.inputs for request in server.requests)


def test_image_is_sent_again_if_the_server_forgot_it(make_client: MakeClient, server: FakeTriton, png: bytes) -> None:
    client = make_client(server=server)
    client.segment(png, PHRASES)
    server.images.clear()
    client.segment(png, PHRASES)
    client.segment(png, PHRASES)
    sources = ["image" if "image" in request.inputs else "image_id" for request in server.requests]
    assert sources == ["image", "image_id", "image", "image_id"]


def test_image_of_a_failed_request_is_not_taken_as_known(
    make_client: MakeClient, server: FakeTriton, png: bytes
) -> None:
    client = make_client(server=server)
    server.failures = [triton_error("[INVALID_ARGUMENT] a phrase is too long")]
    with pytest.raises(InvalidArgumentError):
        client.segment(png, PHRASES)
    client.segment(png, PHRASES)
    assert all("image" in request.inputs for request in server.requests)


def test_unknown_model_is_not_found(make_client: MakeClient, server: FakeTriton, png: bytes) -> None:
    with pytest.raises(NotFoundError, match=r"localhost:8001.*unknown model: 'other'"):
        make_client(server=server, model="other").segment(png, PHRASES)
    assert len(server.requests) == 1


def test_known_images_are_bounded() -> None:
    known = KnownImages(capacity=2)
    for image_id in ("a", "b", "a", "c"):
        known.add(image_id)
    assert [image_id in known for image_id in "abc"] == [True, False, True]
    known.discard("a")
    known.discard("a")
    assert "a" not in known


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        ("the left dog", r"pass \['the left dog'\]"),
        ([], "at least one"),
        ([b"dog"], "list of str"),
        (None, "list of str"),
        (["dog", "\ud800"], "not valid Unicode"),
    ],
)
def test_wrong_phrases(make_client: MakeClient, server: FakeTriton, png: bytes, phrases: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make_client(server=server).segment(png, phrases)
    assert not server.requests


def test_wrong_options(make_client: MakeClient, server: FakeTriton, png: bytes) -> None:
    client = make_client(server=server)
    with pytest.raises(InvalidArgumentError, match="mask_threshold is a number, not str"):
        client.segment(png, PHRASES, mask_threshold="0")
    for timeout_s in (0, -1, math.nan, math.inf, "5"):
        with pytest.raises(InvalidArgumentError, match="timeout_s"):
            client.segment(png, PHRASES, timeout_s=timeout_s)
        with pytest.raises(InvalidArgumentError, match="timeout_s"):
            make_client(server=server, timeout_s=timeout_s)
    with pytest.raises(InvalidArgumentError, match="retries is -1"):
        make_client(server=server, retries=-1)
    with pytest.raises(InvalidArgumentError, match="without http://"):
        make_client(url="http://localhost:8001")


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "status", "kind"),
    [
        ("[INVALID_ARGUMENT] not an image", "INTERNAL", InvalidArgumentError),
        ("in ensemble 'x', [NOT_FOUND] no such image", "INTERNAL", NotFoundError),
        ("[UNAVAILABLE] 64 requests are in flight", "INTERNAL", UnavailableError),
        ("[DEADLINE_EXCEEDED] before the mask decoder", "INTERNAL", DeadlineExceededError),
        ("[CANCELLED] given up", "INTERNAL", CancelledError),
        ("[INTERNAL] broken", "UNAVAILABLE", SegmentationError),
        ("wrong shape", "INVALID_ARGUMENT", InvalidArgumentError),
        ("no such model", "NOT_FOUND", NotFoundError),
        (*BUSY, UnavailableError),
        ("Deadline Exceeded", "DEADLINE_EXCEEDED", DeadlineExceededError),
        ("Locally cancelled", "CANCELLED", CancelledError),
        ("message too large", "RESOURCE_EXHAUSTED", SegmentationError),
    ],
)
def test_errors_keep_their_kind(
    make_client: MakeClient, png: bytes, message: str, status: str, kind: type[Exception]
) -> None:
    server = FakeTriton(failures=[triton_error(message, status)])
    with pytest.raises(SegmentationError) as caught:
        make_client(server=server, url="here:1").segment(png, PHRASES)
    assert type(caught.value) is kind
    if "[" in message:
        assert caught.value.message == message.split("] ")[1]
    else:
        assert "here:1" in caught.value.message


def test_is_ready(make_client: MakeClient, server: FakeTriton) -> None:
    client = make_client(server=server)
    assert client.is_ready() is True
    server.ready = False
    assert client.is_ready() is False
    server.ready = True
    assert make_client(server=server, model="other").is_ready() is False
    for status in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        server.failures = [triton_error("no", status)]
        assert client.is_ready(timeout_s=1) is False
    server.failures = [triton_error("no", "PERMISSION_DENIED")]
    with pytest.raises(SegmentationError):
        client.is_ready()


# --- deadlines and retries --------------------------------------------------------------------------------------------


def test_deadline_goes_to_grpc_and_a_little_sooner_to_triton(
    make_client: MakeClient, server: FakeTriton, png: bytes, clock: Clock
) -> None:
    client = make_client(server=server, timeout_s=7)
    client.segment(png, PHRASES)
    client.segment(png, PHRASES, timeout_s=0.5)
    assert [request.client_timeout_s for request in server.requests] == pytest.approx([7, 0.5])
    assert [request.timeout_us for request in server.requests] == pytest.approx([6_900_000, 450_000], abs=1)


def test_busy_server_is_asked_again(make_client: MakeClient, server: FakeTriton, png: bytes, clock: Clock) -> None:
    server.failures = [triton_error(*BUSY)] * 3
    answers = make_client(server=server, retries=3, timeout_s=60).segment(png, PHRASES)
    assert len(answers) == len(PHRASES)
    for pause_s, longest_s in zip(clock.pauses_s, (0.1, 0.2, 0.4), strict=True):
        assert longest_s / 2 <= pause_s <= longest_s
    left_s = [request.client_timeout_s for request in server.requests]
    assert left_s == pytest.approx(60 - np.cumsum([0, *clock.pauses_s]))


def test_retries_are_bounded(make_client: MakeClient, server: FakeTriton, png: bytes, clock: Clock) -> None:
    server.failures = [triton_error(*BUSY)] * 10
    with pytest.raises(UnavailableError):
        make_client(server=server, retries=2).segment(png, PHRASES)
    assert len(server.requests) == 3


def test_no_retry_unless_asked_for(make_client: MakeClient, server: FakeTriton, png: bytes, clock: Clock) -> None:
    server.failures = [triton_error(*BUSY)]
    with pytest.raises(UnavailableError):
        make_client(server=server).segment(png, PHRASES)
    assert not clock.pauses_s


def test_retries_end_before_the_deadline(make_client: MakeClient, server: FakeTriton, png: bytes, clock: Clock) -> None:
    server.failures = [triton_error(*BUSY)] * 2000
    with pytest.raises(UnavailableError):
        make_client(server=server, retries=10**6, timeout_s=30).segment(png, PHRASES)
    assert 20 < sum(clock.pauses_s) < 30
    assert max(clock.pauses_s) <= 5


def test_only_unavailable_is_retried(make_client: MakeClient, server: FakeTriton, png: bytes, clock: Clock) -> None:
    server.failures = [triton_error("[INVALID_ARGUMENT] no")]
    with pytest.raises(InvalidArgumentError):
        make_client(server=server, retries=5).segment(png, PHRASES)
    assert len(server.requests) == 1


def test_nothing_is_sent_after_the_deadline(
    make_client: MakeClient, server: FakeTriton, png: bytes, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = exchange.encode_image

    def slow(image: bytes) -> bytes:
        clock.now_s += 3
        return encode(image)

    monkeypatch.setattr(exchange, "encode_image", slow)
    with pytest.raises(DeadlineExceededError, match=r"no answer from localhost:8001 within 2 s"):
        make_client(server=server, timeout_s=2).segment(png, PHRASES)
    assert not server.requests


# --- concurrency, life time -------------------------------------------------------------------------------------------


def test_threads_share_a_client(server: FakeTriton, png: bytes) -> None:
    client = SegmentationClient(transport=FakeTransport(server))

    def ask(thread: int) -> None:
        for turn in range(20):
            if turn % 7 == thread % 7:
                server.images.clear()
            phrases = ["x" * (1 + (thread + turn) % WIDTH)]
            (answer,) = client.segment(png + bytes([thread % 3]), phrases)
            assert answer.phrase == phrases[0]
            assert answer.area_px == HEIGHT * len(phrases[0])

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(ask, range(16)))
    assert any("image_id" in request.inputs for request in server.requests)


def test_tasks_share_a_client(server: FakeTriton, png: bytes) -> None:
    async def ask() -> None:
        async with AsyncSegmentationClient(transport=AsyncFakeTransport(server)) as client:
            phrases = [["x" * (1 + i)] for i in range(32)]
            answers = await asyncio.gather(*(client.segment(png, each) for each in phrases))
            assert [answer.area_px for (answer,) in answers] == [HEIGHT * (1 + i) for i in range(32)]

    asyncio.run(ask())
    assert server.closed


def test_context_manager_closes(server: FakeTriton) -> None:
    with SegmentationClient(transport=FakeTransport(server)):
        assert not server.closed
    assert server.closed


def test_both_clients_have_the_same_interface() -> None:
    for name in ("__init__", "segment", "explain", "is_ready", "close"):
        one, other = getattr(SegmentationClient, name), getattr(AsyncSegmentationClient, name)
        assert inspect.signature(one) == inspect.signature(other)


def test_import_needs_no_torch() -> None:
    script = (
        "import sys, ssp_sam.client; print([m for m in ('torch', 'torchvision', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
