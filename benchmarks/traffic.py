"""Traffic as products make it: many callers at once, mostly new phrases on recent images, now and then a new image."""

from __future__ import annotations

import asyncio
import base64
import io
import random
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy as np
from PIL import Image

from benchmarks.phrases import PHRASES
from ssp_sam.client import AsyncSegmentationClient
from ssp_sam.serving import contract

TIMEOUT_S = 900.0


class Service(ABC):
    """Something that segments.

    keeps_images: whether an image that it has seen costs it less.
    """

    keeps_images = False

    @abstractmethod
    async def __aenter__(self) -> Service:
        """Connect."""

    @abstractmethod
    async def __aexit__(self, *error: object) -> None:
        """Disconnect."""

    @abstractmethod
    async def ask(self, image: bytes, phrases: Sequence[str]) -> None:
        """Segment, and raise if that failed."""


class Triton(Service):
    """A Triton server, through our own client. model: the entry."""

    def __init__(self, url: str, model: str = contract.SEGMENT) -> None:
        self._url, self._model = url, model
        self.keeps_images = model == contract.SEGMENT

    async def __aenter__(self) -> Triton:
        """Connect."""
        self._client = AsyncSegmentationClient(self._url, model=self._model, timeout_s=TIMEOUT_S)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnect."""
        await self._client.close()

    async def ask(self, image: bytes, phrases: Sequence[str]) -> None:
        """Segment."""
        await self._client.segment(image, phrases)


class LitServe(Service):
    """`benchmarks.rivals.litserve_server` at a URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> LitServe:
        """Connect."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(TIMEOUT_S), connector=aiohttp.TCPConnector(limit=0)
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnect."""
        await self._session.close()

    async def ask(self, image: bytes, phrases: Sequence[str]) -> None:
        """Segment."""
        request = {"image": base64.b64encode(image).decode(), "phrases": list(phrases)}
        async with self._session.post(f"{self._url}/predict", json=request) as response:
            response.raise_for_status()
            await response.json()


@dataclass(frozen=True)
class Load:
    """What is asked.

    clients: callers, each of whom asks again as soon as the answer is there; requests: of all of them together;
    new_image_share: of the requests, how many bring an image not seen before; phrases: of a request;
    size_wh: of the images in pixels; recent_images: how many the other requests are about.
    """

    clients: int = 32
    requests: int = 200
    new_image_share: float = 0.2
    phrases: int = 1
    size_wh: tuple[int, int] = (640, 480)
    recent_images: int = 8


@dataclass(frozen=True)
class Outcome:
    """requests_per_s: while the load was on; latency_s: of each request, in rising order."""

    requests_per_s: float
    latency_s: list[float] = field(repr=False)

    def latency_at(self, share: float) -> float:
        """Return the latency that this share of the requests did not exceed, in seconds."""
        return self.latency_s[min(len(self.latency_s) - 1, int(share * len(self.latency_s)))]


def run(
    service: Service, image: Image.Image, load: Load, *, seed: int = 0, on_start: Callable[[], None] = lambda: None
) -> Outcome:
    """Put a load on a service that knows the recent images when the clock starts; raises what a request raises.

    on_start: called just before the clock starts.
    """
    return asyncio.run(_run(service, image, load, seed, on_start))


async def _run(service: Service, image: Image.Image, load: Load, seed: int, on_start: Callable[[], None]) -> Outcome:
    rng = random.Random(seed)
    new = round(load.requests * load.new_image_share)
    pictures = different_images(image.resize(load.size_wh), load.recent_images + new, seed)
    recent = deque(pictures[: load.recent_images], maxlen=load.recent_images)
    fresh = iter(pictures[load.recent_images :])
    kinds = [True] * new + [False] * (load.requests - new)
    rng.shuffle(kinds)
    orders = iter(kinds)
    latency_s: list[float] = []

    async def caller() -> None:
        for is_new in orders:
            picture = next(fresh) if is_new else rng.choice(recent)
            if is_new:
                recent.append(picture)
            start_s = time.perf_counter()
            await service.ask(picture, [rng.choice(PHRASES) for _ in range(load.phrases)])
            latency_s.append(time.perf_counter() - start_s)

    async with service:
        for picture in list(recent)[: None if service.keeps_images else 1]:
            await service.ask(picture, PHRASES[:1])
        on_start()
        start_s = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(load.clients)))
        seconds = time.perf_counter() - start_s
    return Outcome(load.requests / seconds, sorted(latency_s))


def different_images(image: Image.Image, count: int, seed: int) -> list[bytes]:
    """Return the picture as JPEG files that differ in a few pixels: the same work, another content."""
    rng = np.random.default_rng(seed)
    pixels = np.array(image.convert("RGB"))
    files = []
    for _ in range(count):
        pixels[:16, :64] = rng.integers(0, 256, (16, 64, 3))
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files
