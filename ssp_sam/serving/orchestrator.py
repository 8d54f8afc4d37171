"""How a request flows through the stages, and what is kept between requests. Without Triton, without torch."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ssp_sam.config import Preset
from ssp_sam.errors import (
    CancelledError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from ssp_sam.limits import check_image_bytes, check_threshold
from ssp_sam.serving import contract
from ssp_sam.serving.feature_cache import FeatureCache
from ssp_sam.serving.model_calls import CallModel, JoinedCalls, ModelCall, never
from ssp_sam.serving.stages import check_masks, decode_expressions, mask_encoder
from ssp_sam.tokenizer import tokenize

Array = npt.NDArray[Any]
T = TypeVar("T")

_TIME_IS_UP = "the time allowed for the request ran out on the server"


@dataclass(frozen=True)
class ImageFeatures:
    """What depends on the image alone; every array with its batch dimension of 1."""

    image_embedding: Array
    clip_tokens: Array
    geometry: Array

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))


@dataclass(frozen=True)
class SegmentRequest:
    """One request, checked: exactly one of `image` and `image_id` is given.

    text_positions: that of the preset. outputs: names of the tensors asked for. deadline_s: on the clock of
    `time.monotonic`, or None. is_cancelled: says whether the caller has given up.
    """

    image: bytes | None
    image_id: str | None
    expressions: Array
    text_positions: int
    mask_format: bytes
    mask_threshold: float
    outputs: frozenset[str]
    deadline_s: float | None = None
    is_cancelled: Callable[[], bool] = never

    def __post_init__(self) -> None:
        if (self.image is None) == (self.image_id is None):
            came = "none" if self.image is None else "both"
            raise InvalidArgumentError(f"exactly one of image and image_id must be given; {came} came")
        if self.image is not None:
            check_image_bytes(len(self.image))
        # What no stage could use is refused before an image is computed for it.
        tokenize(decode_expressions(self.expressions[0].tolist()), self.text_positions)
        mask_encoder(self.mask_format)
        check_threshold(self.mask_threshold)


class Orchestrator:
    """Answers requests by calling the stages; many requests are in flight at once on one event loop.

    A request beyond `max_in_flight` is refused at once: a queue that only grows helps nobody. So is a new image while
    so many are being computed: those go on when their callers give up. phrase_calls: as many calls are under way at
    once that lead phrases through the stages; requests that come meanwhile are joined to calls of up to `rows_per_call`
    of them and `preset.phrases_per_chunk` phrases, or of `rows_per_call` phrases about one image (see `JoinedCalls`).
    Longer calls are no gain: several at once are what keeps all stages at work.
    """

    def __init__(
        self,
        preset: Preset,
        call: CallModel,
        cache: FeatureCache[ImageFeatures],
        *,
        max_in_flight: int,
        phrase_calls: int,
        rows_per_call: int,
    ) -> None:
        self.call = call
        self.rows_per_call = rows_per_call
        self.phrases_per_chunk = preset.phrases_per_chunk
        self.call_phrases = JoinedCalls(
            call,
            at_once=phrase_calls,
            rows_max=self._rows_max,
            lists={tensor.name for tensor in contract.of_phrases(preset)},
            length_max=rows_per_call,
        )
        self.cache = cache
        self.max_in_flight = max_in_flight
        self.in_flight = 0
        self.rejected = 0
        self.sam_image = contract.sam_image(preset).name
        self.clip_image = contract.clip_image(preset).name
        self.image_embedding = contract.image_embedding(preset, "FP32").name
        self.clip_tokens = contract.clip_tokens(preset).name

    async def segment(self, request: SegmentRequest) -> dict[str, Array]:
        """Return the outputs asked for, each with the batch dimension of 1; raises SegmentationError."""
        self._check_room("requests are in flight", self.in_flight)
        self.in_flight += 1
        try:
            return await self._segment(request)
        finally:
            self.in_flight -= 1

    def _check_room(self, what: str, count: int) -> None:
        if count >= self.max_in_flight:
            self.rejected += 1
            raise UnavailableError(f"busy: {count} {what}, which is the limit; try again in 1 s")

    async def _segment(self, request: SegmentRequest) -> dict[str, Array]:
        image_id, features = await self._in_time(request, self._image_features(request))
        answer = await self._in_time(request, self._phrases(request, image_id, features))
        held_id = image_id if image_id in self.cache else ""
        answer[contract.IMAGE_ID.name] = np.array([[held_id.encode()]], dtype=np.object_)
        return {name: answer[name] for name in request.outputs}

    async def _phrases(self, request: SegmentRequest, image_id: str, features: ImageFeatures) -> dict[str, Array]:
        """Return those of the outputs asked for that depend on the phrases."""
        height, width = features.geometry[0, 0].tolist()
        check_masks(request.mask_format, request.expressions.shape[1], (height, width))
        inputs = {
            self.image_embedding: features.image_embedding,
            self.clip_tokens: features.clip_tokens,
            contract.GEOMETRY.name: features.geometry,
            contract.EXPRESSIONS.name: request.expressions,
            contract.MASK_FORMAT.name: np.array([[request.mask_format]], dtype=np.object_),
            contract.MASK_THRESHOLD.name: np.array([[request.mask_threshold]], dtype=np.float32),
        }
        # Triton takes none to mean all.
        outputs = sorted(request.outputs - {contract.IMAGE_ID.name}) or [contract.SCORE.name]
        # Raw masks of one row are bounded together, so each request has a row of its own.
        is_raw = request.mask_format == contract.MASK_FORMAT_RAW.encode()
        subject = None if is_raw else (image_id, request.mask_format, request.mask_threshold)
        return await self.call_phrases(
            ModelCall(contract.SEGMENT_PHRASES, inputs, outputs, subject, request.is_cancelled)
        )

    def _rows_max(self, call: ModelCall) -> int:
        phrases = call.inputs[contract.EXPRESSIONS.name].shape[1]
        return max(1, min(self.rows_per_call, self.phrases_per_chunk // phrases))

    async def _image_features(self, request: SegmentRequest) -> tuple[str, ImageFeatures]:
        if request.image_id is not None:
            try:
                return request.image_id, await self.cache.get(request.image_id)
            except KeyError:
                raise NotFoundError(
                    f"image_id {request.image_id[:80]!r} is not held here (any more); send the image itself"
                ) from None
        image = request.image
        assert image is not None
        if request.is_cancelled():
            raise CancelledError("the caller has cancelled the request")
        loop = asyncio.get_running_loop()
        image_id = await loop.run_in_executor(None, lambda: hashlib.sha256(image).hexdigest())
        if image_id not in self.cache:
            self._check_room("images are being computed", self.cache.computing)
        return image_id, await self.cache.get(image_id, lambda: self._compute_features(image))

    async def _compute_features(self, image: bytes) -> ImageFeatures:
        """Without a deadline: several requests may wait for it, and the next one will want it."""
        files = {contract.IMAGE.name: np.array([[image]], dtype=np.object_)}
        outputs = [self.sam_image, self.clip_image, contract.GEOMETRY.name]
        inputs = await self.call(ModelCall(contract.PREPROCESS, files, outputs))
        geometry = inputs[contract.GEOMETRY.name]
        sam, clip = await asyncio.gather(
            *(
                self.call(ModelCall(model, {name: inputs[name], contract.GEOMETRY.name: geometry}, [output]))
                for model, name, output in (
                    (contract.SAM_IMAGE_ENCODER, self.sam_image, self.image_embedding),
                    (contract.CLIP_IMAGE_ENCODER, self.clip_image, self.clip_tokens),
                )
            )
        )
        return ImageFeatures(sam[self.image_embedding], clip[self.clip_tokens], geometry)

    async def _in_time(self, request: SegmentRequest, work: Awaitable[T]) -> T:
        """Await work that belongs to a request, unless the request is cancelled or its deadline passes."""
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.wait_for(task, _time_left_s(request))
        except DeadlineExceededError:  # a stage's own, which is a TimeoutError as well
            raise
        except asyncio.TimeoutError:
            raise DeadlineExceededError(_TIME_IS_UP) from None
        finally:
            task.cancel()


def _time_left_s(request: SegmentRequest) -> float | None:
    """Return the time until the deadline; raises DeadlineExceededError if it has passed."""
    if request.deadline_s is None:
        return None
    left_s = request.deadline_s - time.monotonic()
    if left_s <= 0:
        raise DeadlineExceededError(_TIME_IS_UP)
    return left_s
