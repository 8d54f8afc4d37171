"""The two clients. Both only pass on to `Exchange`, where the work is."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import tritonclient.grpc
import tritonclient.grpc.aio

from ssp_sam.client import messages
from ssp_sam.client.exchange import AsyncioRuntime, BlockingRuntime, Exchange, Transport, run_blocking
from ssp_sam.client.messages import Explanation
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.preprocess import ImageInput
from ssp_sam.results import Segmentation
from ssp_sam.serving import contract

DEFAULT_URL = "localhost:8001"
DEFAULT_TIMEOUT_S = 60.0
DEFAULT_READY_TIMEOUT_S = 5.0


class SegmentationClient:
    """Client of a segmentation server. Threads may share one.

    An image is sent once: the client remembers which images the server holds and then names them by their SHA-256.

    url: gRPC address, ``host:port`` (or any target that gRPC knows, such as ``dns:///name:8001``).
    model: `segment`, which keeps image features, or the stateless `segment_ensemble`.
    timeout_s: the time that a call may take in all, for calls that do not say otherwise.
    retries: how often to try again when the server is busy or unreachable; pauses grow and never pass the deadline.
    transport: a `tritonclient.grpc.InferenceServerClient` of your own, for TLS or authentication. The client closes it.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model: str = contract.SEGMENT,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = 0,
        transport: Transport | None = None,
    ) -> None:
        if transport is None:
            transport = ClosedOnce(grpc_target(url), channel_args=channel_args())
        self._exchange = Exchange(
            BlockingRuntime(), transport, url=url, model=model, timeout_s=timeout_s, retries=retries
        )

    def segment(
        self,
        image: ImageInput,
        phrases: Sequence[str],
        *,
        mask_threshold: float = contract.DEFAULT_MASK_THRESHOLD,
        timeout_s: float | None = None,
    ) -> list[Segmentation]:
        """Return what each phrase refers to, in the order of `phrases`.

        image: a path, the bytes of an image file, a uint8 RGB array (H, W, 3) or a Pillow image; see `encode_image`.
        mask_threshold: a pixel belongs to the mask if its logit is above this; 0 means more likely than not.
        timeout_s: the time that this call may take in all; the client's own if None.

        Raises the errors of `ssp_sam.errors`. A phrase that nothing in the image answers to is no error: its
        `no_target` is True.
        """
        return run_blocking(
            self._exchange.ask(
                messages.parse_segmentations,
                image,
                phrases,
                mask_threshold=mask_threshold,
                timeout_s=timeout_s,
                explain=False,
            )
        )

    def explain(
        self,
        image: ImageInput,
        phrases: Sequence[str],
        *,
        mask_threshold: float = contract.DEFAULT_MASK_THRESHOLD,
        timeout_s: float | None = None,
    ) -> list[Explanation]:
        """Segment, and return what the model paid attention to as well; the arguments are those of `segment`."""
        return run_blocking(
            self._exchange.ask(
                messages.parse_explanations,
                image,
                phrases,
                mask_threshold=mask_threshold,
                timeout_s=timeout_s,
                explain=True,
            )
        )

    def is_ready(self, *, timeout_s: float = DEFAULT_READY_TIMEOUT_S) -> bool:
        """Return whether the server can be reached, has loaded all of its models and serves this client's."""
        return run_blocking(self._exchange.is_ready(timeout_s))

    def close(self) -> None:
        """Close the connection."""
        run_blocking(self._exchange.close())

    def __enter__(self) -> SegmentationClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ClosedOnce(tritonclient.grpc.InferenceServerClient):  # type: ignore[misc]
    """tritonclient's transport, whose destructor closes only a channel that is still open.

    Closed twice, gRPC under gevent counts one channel too few; and at the interpreter's end, where destructors run as
    well, the lock of that count may belong to a thread that is no more: the process then never ends.
    """

    _is_closed = False

    def close(self) -> None:
        """Close the channel, the first time."""
        if not self._is_closed:
            self._is_closed = True
            super().close()


class AsyncSegmentationClient:
    """`SegmentationClient` for asyncio: the same arguments, answers and errors. Cancelling a task cancels its request.

    Make it inside the event loop that uses it. transport: a `tritonclient.grpc.aio.InferenceServerClient`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model: str = contract.SEGMENT,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = 0,
        transport: Transport | None = None,
    ) -> None:
        if transport is None:
            transport = tritonclient.grpc.aio.InferenceServerClient(grpc_target(url), channel_args=channel_args())
        self._exchange = Exchange(
            AsyncioRuntime(), transport, url=url, model=model, timeout_s=timeout_s, retries=retries
        )

    async def segment(
        self,
        image: ImageInput,
        phrases: Sequence[str],
        *,
        mask_threshold: float = contract.DEFAULT_MASK_THRESHOLD,
        timeout_s: float | None = None,
    ) -> list[Segmentation]:
        """Return what each phrase refers to; see `SegmentationClient.segment`."""
        return await self._exchange.ask(
            messages.parse_segmentations,
            image,
            phrases,
            mask_threshold=mask_threshold,
            timeout_s=timeout_s,
            explain=False,
        )

    async def explain(
        self,
        image: ImageInput,
        phrases: Sequence[str],
        *,
        mask_threshold: float = contract.DEFAULT_MASK_THRESHOLD,
        timeout_s: float | None = None,
    ) -> list[Explanation]:
        """Segment, and return what the model paid attention to; see `SegmentationClient.explain`."""
        return await self._exchange.ask(
            messages.parse_explanations,
            image,
            phrases,
            mask_threshold=mask_threshold,
            timeout_s=timeout_s,
            explain=True,
        )

    async def is_ready(self, *, timeout_s: float = DEFAULT_READY_TIMEOUT_S) -> bool:
        """Return whether the server takes requests; see `SegmentationClient.is_ready`."""
        return await self._exchange.is_ready(timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._exchange.close()

    async def __aenter__(self) -> AsyncSegmentationClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def channel_args() -> list[tuple[str, int]]:
    """Return the arguments of the gRPC channel.

    Any arguments replace all of tritonclient's, so its message size and keepalive stand here again. What is added is
    the reconnect backoff: gRPC's own grows to two minutes, in which a server that is back would still look unreachable.
    """
    keepalive = tritonclient.grpc.KeepAliveOptions()
    return [
        ("grpc.max_send_message_length", tritonclient.grpc.MAX_GRPC_MESSAGE_SIZE),
        ("grpc.max_receive_message_length", tritonclient.grpc.MAX_GRPC_MESSAGE_SIZE),
        ("grpc.keepalive_time_ms", keepalive.keepalive_time_ms),
        ("grpc.keepalive_timeout_ms", keepalive.keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", int(keepalive.keepalive_permit_without_calls)),
        ("grpc.http2.max_pings_without_data", keepalive.http2_max_pings_without_data),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]


def grpc_target(url: str) -> str:
    """Return the address; raise InvalidArgumentError if it is one of HTTP."""
    if url.startswith(("http://", "https://")):
        raise InvalidArgumentError(f"url is a gRPC address such as {DEFAULT_URL!r}, without http://; got {url!r}")
    return url
