"""Both clients over gRPC, against a server on the loopback interface."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from unittest.mock import Mock

import grpc
import pytest
import tritonclient.grpc
from fake_segment_server import HEIGHT, FakeTriton, MakeClient, triton_error

from ssp_sam.client import AsyncSegmentationClient, SegmentationClient
from ssp_sam.client.clients import channel_args
from ssp_sam.errors import DeadlineExceededError, InvalidArgumentError, UnavailableError


def unused_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_requests_and_answers(make_client: MakeClient, server: FakeTriton, png: bytes) -> None:
    with server.listening() as url:
        client = make_client(url=url)
        assert client.is_ready()
        for _ in range(2):
            (answer,) = client.segment(png, ["the left dog"], mask_threshold=0.5)
            assert answer.area_px == HEIGHT * len("the left dog")
    assert ["image" in request.inputs for request in server.requests] == [True, False]


def test_image_larger_than_the_usual_grpc_message(make_client: MakeClient, server: FakeTriton) -> None:
    image = os.urandom(8 * 2**20)
    with server.listening() as url:
        make_client(url=url).segment(image, ["a"])
    assert server.requests[0].inputs["image"][0, 0] == image


def test_tagged_error(make_client: MakeClient, server: FakeTriton, png: bytes) -> None:
    server.failures = [triton_error("[INVALID_ARGUMENT] phrase 'a [b] c' is too long")]
    with server.listening() as url, pytest.raises(InvalidArgumentError, match=r"^phrase 'a \[b\] c' is too long$"):
        make_client(url=url).segment(png, ["a"])


def test_deadline(make_client: MakeClient, server: FakeTriton, png: bytes) -> None:
    server.delay_s = 1.0
    with server.listening() as url:
        start_s = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=rf"no answer from {url} within 0\.2 s"):
            make_client(url=url, retries=5).segment(png, ["a"], timeout_s=0.2)
        assert time.monotonic() - start_s < 0.9


def test_refused_connection_names_the_url(make_client: MakeClient, png: bytes) -> None:
    url = unused_address()
    client = make_client(url=url)
    assert not client.is_ready()
    with pytest.raises(UnavailableError, match=url):
        client.segment(png, ["a"])


def test_retries_outlast_a_restart(make_client: MakeClient, server: FakeTriton, png: bytes) -> None:
    url = unused_address()
    client = make_client(url=url, retries=20, timeout_s=20)
    for _ in range(5):  # gRPC's own pauses between connections have grown by now
        assert not client.is_ready()
    with server.listening(url):
        assert client.segment(png, ["a"])


def test_cancelled_task_leaves_the_client_usable(server: FakeTriton, png: bytes) -> None:
    async def ask(url: str) -> None:
        async with AsyncSegmentationClient(url) as client:
            server.delay_s = 0.5
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.segment(png, ["a"]), 0.1)
            server.delay_s = 0
            assert await client.segment(png, ["a"])

    with server.listening() as url:
        asyncio.run(ask(url))


def test_transport_of_one_s_own(server: FakeTriton, png: bytes) -> None:
    with server.listening() as url:
        transport = tritonclient.grpc.InferenceServerClient(url)
        with SegmentationClient("behind a proxy", transport=transport) as client:
            assert client.segment(png, ["a"])


def test_no_channel_argument_of_tritonclient_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(
        "grpc.insecure_channel", lambda url, options: seen.update(options) or _insecure_channel(url, options)
    )
    tritonclient.grpc.InferenceServerClient(unused_address()).close()
    assert seen
    assert seen.items() <= dict(channel_args()).items()


_insecure_channel = tritonclient.grpc.grpc.insecure_channel


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_channel_is_closed_once(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Mock()
    monkeypatch.setattr(grpc, "insecure_channel", lambda *_, **__: channel)
    client = SegmentationClient(unused_address())
    for _ in range(times):
        client.close()
    del client  # its destructor closes what is still open
    gc.collect()
    channel.close.assert_called_once_with()
