"""What a client does for one call, written once for threads and for asyncio.

The steps are coroutines. `AsyncioRuntime` lets them wait in the event loop. `BlockingRuntime` blocks in each step: its
coroutines never suspend, and `run_blocking` gets their result without any event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from tritonclient.grpc import InferenceServerException, InferResult

from ssp_sam.client import messages
from ssp_sam.client.images import encode_image
from ssp_sam.errors import DeadlineExceededError, InvalidArgumentError, NotFoundError, UnavailableError
from ssp_sam.limits import MAX_TIMEOUT_S
from ssp_sam.preprocess import ImageInput
from ssp_sam.serving import contract

T = TypeVar("T")

_MAX_KNOWN_IMAGES = 4096
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
# What a server leaves of a call's time for its answer that time is up: at most this share, and this time.
_ANSWER_SHARE = 0.1
_ANSWER_S = 0.1
# To read, or to hash, so much takes about 0.2 ms; to hand it to a thread takes as long.
_SHORT_BYTES = 256 * 1024
_SHORT_PX = 1_000_000


class Transport(Protocol):
    """What is used of tritonclient's `InferenceServerClient`; the methods of its asyncio twin are coroutines."""

    def infer(
        self, model_name: str, inputs: list[Any], *, outputs: list[Any], timeout: int, client_timeout: float
    ) -> Any:
        """Return an `InferResult` or raise `InferenceServerException`; `timeout` is in us, `client_timeout` in s."""

    def is_server_ready(self, *, client_timeout: float) -> Any:
        """Return whether all models of the server are loaded."""

    def is_model_ready(self, model_name: str, *, client_timeout: float) -> Any:
        """Return whether the model takes requests."""

    def close(self) -> Any:
        """Close the connection."""


class BlockingRuntime:
    """Each step blocks the calling thread."""

    async def call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a method of the transport."""
        return method(*args, **options)

    async def compute(self, function: Callable[..., T], *args: Any, is_short: bool) -> T:
        """Call a function that keeps the processor busy."""
        return function(*args)

    async def pause(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class AsyncioRuntime:
    """Each step leaves the event loop free."""

    async def call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Await a method of the transport."""
        return await method(*args, **options)

    async def compute(self, function: Callable[..., T], *args: Any, is_short: bool) -> T:
        """Call a function that keeps the processor busy: in a thread, unless that would take longer than the call."""
        return function(*args) if is_short else await asyncio.to_thread(function, *args)

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


def run_blocking(steps: Coroutine[Any, Any, T]) -> T:
    """Return the result of coroutines that run on a `BlockingRuntime`."""
    try:
        steps.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a step on the blocking runtime suspended")


class KnownImages:
    """The ids of the images that the server has acknowledged; beyond `capacity` the longest unused are forgotten."""

    def __init__(self, capacity: int = _MAX_KNOWN_IMAGES) -> None:
        self._capacity = capacity
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, image_id: str) -> bool:
        with self._lock:
            return image_id in self._ids

    def add(self, image_id: str) -> None:
        """Remember the id as the one used last."""
        with self._lock:
            self._ids[image_id] = None
            self._ids.move_to_end(image_id)
            if len(self._ids) > self._capacity:
                self._ids.popitem(last=False)

    def discard(self, image_id: str) -> None:
        """Forget the id."""
        with self._lock:
            self._ids.pop(image_id, None)


class Deadline:
    """The end of the time that a call may take, retries included."""

    def __init__(self, timeout_s: float) -> None:
        try:
            is_allowed = 0 < timeout_s <= MAX_TIMEOUT_S  # nor is NaN
        except TypeError:
            is_allowed = False
        if not is_allowed:
            raise InvalidArgumentError(f"timeout_s is {timeout_s!r}; allowed is more than 0, up to {MAX_TIMEOUT_S:.0f}")
        self._timeout_s = timeout_s
        self._end_s = time.monotonic() + timeout_s

    def remaining_s(self) -> float:
        """Return the seconds that are left; negative once the deadline has passed."""
        return self._end_s - time.monotonic()

    def error(self, url: str) -> DeadlineExceededError:
        """Return the error that says that `url` did not answer in time."""
        return DeadlineExceededError(f"no answer from {url} within {self._timeout_s:g} s")


class Exchange:
    """The conversation of a client with one model of one server."""

    def __init__(
        self,
        runtime: BlockingRuntime | AsyncioRuntime,
        transport: Transport,
        *,
        url: str,
        model: str,
        timeout_s: float,
        retries: int,
    ) -> None:
        if retries < 0:
            raise InvalidArgumentError(f"retries is {retries}; allowed is 0 or more")
        Deadline(timeout_s)  # a wrong default should fail here, not at the first call
        self._runtime = runtime
        self._transport = transport
        self._url = url
        self._model = model
        self._timeout_s = timeout_s
        self._retries = retries
        self._keeps_images = model != contract.SEGMENT_ENSEMBLE
        self._known_images = KnownImages()

    async def ask(
        self,
        parse: Callable[[InferResult, Sequence[str]], list[T]],
        image: ImageInput,
        phrases: Sequence[str],
        *,
        mask_threshold: float,
        timeout_s: float | None,
        explain: bool,
    ) -> list[T]:
        """Ask about the image and return what `parse` makes of the answer; the image travels only if it has to."""
        deadline = Deadline(self._timeout_s if timeout_s is None else timeout_s)
        messages.encode_phrases(phrases)  # a wrong type should not cost the encoding of the image
        is_short = isinstance(image, bytes) and len(image) <= _SHORT_BYTES
        encoded, image_id = await self._runtime.compute(_encode, image, is_short=is_short)

        async def attempt(source: bytes | str) -> InferResult:
            inputs = messages.build_inputs(source, phrases, mask_threshold)
            outputs = messages.build_outputs(with_image_id=self._keeps_images, explain=explain)
            return await self._infer(inputs, outputs, deadline)

        async def attempt_by_id() -> InferResult:
            if image_id in self._known_images:
                try:
                    return await attempt(image_id)
                except NotFoundError:
                    self._known_images.discard(image_id)  # evicted, or another server behind the same address
            return await attempt(encoded)

        result = await self._with_retries(attempt_by_id, deadline)
        if self._keeps_images and messages.parse_image_id(result) == image_id:
            self._known_images.add(image_id)
        is_short = messages.mask_pixels(result) <= _SHORT_PX
        return await self._runtime.compute(parse, result, phrases, is_short=is_short)

    async def is_ready(self, timeout_s: float) -> bool:
        """Return whether the server has all its models loaded and the asked one takes requests."""
        deadline = Deadline(timeout_s)
        try:
            return bool(
                await self._call(self._transport.is_server_ready, deadline=deadline)
                and await self._call(self._transport.is_model_ready, self._model, deadline=deadline)
            )
        except (UnavailableError, DeadlineExceededError, NotFoundError):
            return False

    async def close(self) -> None:
        """Close the connection."""
        await self._runtime.call(self._transport.close)

    async def _with_retries(self, attempt: Callable[[], Coroutine[Any, Any, T]], deadline: Deadline) -> T:
        for pause_s in _pauses_s(self._retries):
            try:
                return await attempt()
            except UnavailableError:
                if pause_s >= deadline.remaining_s():
                    raise
            await self._runtime.pause(pause_s)
        return await attempt()

    async def _infer(self, inputs: list[Any], outputs: list[Any], deadline: Deadline) -> InferResult:
        # The server gives up a little before gRPC cancels the call: to cancel what is answered at the same moment can
        # kill a Triton without its fixes 7840 and 8078 (release 24.10, for one).
        remaining_s = deadline.remaining_s()
        remaining_s -= min(_ANSWER_SHARE * remaining_s, _ANSWER_S)
        timeout_us = max(1, math.ceil(remaining_s * 1e6))  # Triton reads 0 as none
        return await self._call(
            self._transport.infer, self._model, inputs, outputs=outputs, timeout=timeout_us, deadline=deadline
        )

    async def _call(self, method: Callable[..., Any], *args: Any, deadline: Deadline, **options: Any) -> Any:
        remaining_s = deadline.remaining_s()
        if remaining_s <= 0:
            raise deadline.error(self._url)
        try:
            return await self._runtime.call(method, *args, client_timeout=remaining_s, **options)
        except InferenceServerException as error:
            if error.status() == "StatusCode.DEADLINE_EXCEEDED":
                raise deadline.error(self._url) from error
            raise messages.translate_error(error, self._url) from error


def _encode(image: ImageInput) -> tuple[bytes, str]:
    encoded = encode_image(image)
    return encoded, hashlib.sha256(encoded).hexdigest()


def _pauses_s(retries: int) -> Iterator[float]:
    """Yield the pauses before the retries: they double, and differ between callers so that these do not meet again."""
    longest_s = _FIRST_PAUSE_S
    for _ in range(retries):
        yield longest_s * random.uniform(0.5, 1.0)
        longest_s = min(2 * longest_s, _LONGEST_PAUSE_S)
