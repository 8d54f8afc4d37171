from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fake_segment_server import AsyncFakeTransport, FakeTransport, FakeTriton, MakeClient
from PIL import Image

from ssp_sam.client import AsyncSegmentationClient, SegmentationClient


class Waiting:
    """An `AsyncSegmentationClient` whose methods wait, so that one test serves both clients."""

    def __init__(self, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        self._loop = loop
        self._client = loop.run_until_complete(self._make(**options))

    async def _make(self, **options: Any) -> AsyncSegmentationClient:
        return AsyncSegmentationClient(**options)

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            return self._loop.run_until_complete(getattr(self._client, name)(*args, **options))

        return call


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    """Make a client of either kind, of a `FakeTriton` in process (`server=`) or of a `url=`."""
    loop = asyncio.new_event_loop()
    clients: list[Any] = []

    def make(*, server: FakeTriton | None = None, **options: Any) -> Any:
        if request.param == "sync":
            transport = FakeTransport(server) if server else None
            clients.append(SegmentationClient(transport=transport, **options))
        else:
            transport = AsyncFakeTransport(server) if server else None
            clients.append(Waiting(loop, transport=transport, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
    loop.close()


@pytest.fixture
def server() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()
