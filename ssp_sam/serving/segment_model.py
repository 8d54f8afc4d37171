"""The Triton side of the orchestrator: requests in, answers later. Imported by `segment`'s `model.py`.

`execute` only reads the requests and returns; an event loop on its own thread answers each one through its response
sender when it is done, so one process holds many requests in flight.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from ssp_sam.config import get_preset
from ssp_sam.errors import DeadlineExceededError, SegmentationError, UnavailableError, error_from_message
from ssp_sam.runtime import keep_freed_memory
from ssp_sam.serving import contract
from ssp_sam.serving.feature_cache import FeatureCache
from ssp_sam.serving.model_calls import ModelCall
from ssp_sam.serving.orchestrator import Orchestrator, SegmentRequest
from ssp_sam.serving.stage_model import dims_of, inputs_of, to_tensor, triton_error
from ssp_sam.serving.stages import Array

METRICS_PERIOD_S = 1.0
SHUTDOWN_TIMEOUT_S = 30.0

# The parameters of this model that are numbers, and the least that each may be.
_LEAST = {"feature_cache_mib": 0, "max_in_flight": 1, "call_threads": 1, "phrase_calls": 1, "rows_per_call": 1}

# What Triton itself says when it turns a call away. Release 24.10 loses the status of such an error on the way to the
# caller.
_TRITON_SAYS: tuple[tuple[str, type[SegmentationError]], ...] = (
    ("Exceeds maximum queue size", UnavailableError),
    ("timeout expired", DeadlineExceededError),
    ("is not healthy", UnavailableError),
    ("is not ready", UnavailableError),
)


class SegmentModel:
    """The Triton Python model `segment`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the event loop; no stage is called before the first request."""
        keep_freed_memory()
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        preset = get_preset(parameters["preset"])
        self.text_positions = preset.text_positions
        self.input_dims = dims_of(config["input"])
        self.outputs = {
            tensor["name"]: pb_utils.triton_string_to_numpy(tensor["data_type"]) for tensor in config["output"]
        }
        settings = {name: _whole_number(parameters, name, least) for name, least in _LEAST.items()}
        self.stages = ModelCaller(settings["call_threads"], settings["phrase_calls"])
        self.orchestrator = Orchestrator(
            preset,
            self.stages,
            FeatureCache(settings["feature_cache_mib"] * 2**20),
            max_in_flight=settings["max_in_flight"],
            phrase_calls=settings["phrase_calls"],
            rows_per_call=settings["rows_per_call"],
        )
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="orchestrator", daemon=True)
        self.thread.start()
        self.metrics = Metrics()
        self.publishing = asyncio.run_coroutine_threadsafe(self._publish(), self.loop)

    def execute(self, requests: Sequence[Any]) -> None:
        """Take the requests over; their answers follow through their response senders."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                # The inputs are gone once this method returns, so they are read (and copied) here.
                taken = self._read(request, sender)
            except SegmentationError as error:
                _send_error(sender, error)
            except Exception as error:  # the boundary, as in `_answer`
                _fail(sender, error)
            else:
                asyncio.run_coroutine_threadsafe(self._answer(taken, sender), self.loop)

    def finalize(self) -> None:
        """Let what is under way finish, then stop."""
        self.publishing.cancel()
        asyncio.run_coroutine_threadsafe(self._drain(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(SHUTDOWN_TIMEOUT_S)

    async def _drain(self) -> None:
        """Wait for every task: requests, also those that have not begun, and calls that nobody waits for any more."""
        deadline_s = time.monotonic() + SHUTDOWN_TIMEOUT_S
        while others := (asyncio.all_tasks() - {asyncio.current_task()}) | self.stages.under_way:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                pb_utils.Logger.log_error(f"segment: stopped with {len(others)} tasks under way")
                for other in others:
                    other.cancel()
                await asyncio.sleep(0)  # they end in this turn; what is pending when the loop is gone would complain
                await asyncio.sleep(0)
                return
            await asyncio.wait(others, timeout=left_s)

    async def _publish(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.metrics.publish, self.orchestrator)
            except pb_utils.TritonModelException as error:
                pb_utils.Logger.log_warn(f"segment: metrics are not published: {error}")
            await asyncio.sleep(METRICS_PERIOD_S)

    def _read(self, request: Any, sender: Any) -> SegmentRequest:
        arrays = inputs_of(request, self.input_dims)

        def value(name: str) -> Any:
            return arrays[name][0, 0] if name in arrays else None

        image_id, mask_format = value(contract.IMAGE_ID.name), value(contract.MASK_FORMAT.name)
        threshold, timeout_us = value(contract.MASK_THRESHOLD.name), request.timeout()
        return SegmentRequest(
            image=value(contract.IMAGE.name),
            image_id=None if image_id is None else image_id.decode("utf-8", "replace"),
            expressions=arrays[contract.EXPRESSIONS.name].copy(),
            text_positions=self.text_positions,
            mask_format=contract.DEFAULT_MASK_FORMAT.encode() if mask_format is None else mask_format,
            mask_threshold=contract.DEFAULT_MASK_THRESHOLD if threshold is None else float(threshold),
            outputs=frozenset(request.requested_output_names()),
            deadline_s=time.monotonic() + timeout_us / 1e6 if timeout_us else None,
            is_cancelled=sender.is_cancelled,
        )

    async def _answer(self, request: SegmentRequest, sender: Any) -> None:
        try:
            arrays = await self.orchestrator.segment(request)
            outputs = [to_tensor(name, arrays[name].astype(self.outputs[name], copy=False)) for name in arrays]
            sender.send(
                pb_utils.InferenceResponse(output_tensors=outputs), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            )
        except SegmentationError as error:
            _send_error(sender, error)
        except Exception as error:  # the boundary: a request without an answer would hang its caller
            _fail(sender, error)


def _whole_number(parameters: Mapping[str, str], name: str, least: int) -> int:
    """Return a parameter that somebody may have edited, or raise ValueError, with which the model fails to load."""
    text = parameters[name]
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"the parameter {name} of segment is {text!r}; allowed is a whole number of at least {least}")
    return int(text)


def _fail(sender: Any, error: Exception) -> None:
    """Log what nobody expected, within its `except`, and answer that it happened."""
    pb_utils.Logger.log_error(f"segment: {traceback.format_exc()}")
    try:
        _send_error(sender, SegmentationError(f"segment failed: {type(error).__name__}; see the server's log"))
    except Exception:  # a sender that failed while it was sending an answer takes no other
        pb_utils.Logger.log_error(f"segment: a request gets no answer: {traceback.format_exc()}")


def _send_error(sender: Any, error: SegmentationError) -> None:
    sender.send(
        pb_utils.InferenceResponse(error=triton_error(error)), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    )


class ModelCaller:
    """Calls models of this server, each call on a thread; a `CallModel`.

    threads: for what images need. phrase_threads: for calls that lead phrases through the stages, which new images must
    not keep waiting.

    A call that has begun always runs to its end, also when nobody waits for it any more: Triton does not cancel it,
    and dropping the request object under it corrupts the shared memory of later calls.
    """

    def __init__(self, threads: int, phrase_threads: int) -> None:
        self.under_way: set[asyncio.Future[Any]] = set()
        self._threads = ThreadPoolExecutor(threads, "call-model")
        self._phrase_threads = ThreadPoolExecutor(phrase_threads, "call-phrases")

    async def __call__(self, call: ModelCall) -> dict[str, Array]:
        """Make the call; answers are copies."""
        threads = self._phrase_threads if call.model == contract.SEGMENT_PHRASES else self._threads
        work = asyncio.get_running_loop().run_in_executor(threads, call_model, call)
        self.under_way.add(work)
        work.add_done_callback(self._ended)
        return await asyncio.shield(work)

    def _ended(self, work: asyncio.Future[Any]) -> None:
        self.under_way.discard(work)
        if not work.cancelled():
            work.exception()  # seen: the one who waited may have gone


def call_model(call: ModelCall) -> dict[str, Array]:
    """Send rows to a model of this server and return copies of its outputs."""
    request = pb_utils.InferenceRequest(
        model_name=call.model,
        requested_output_names=list(call.outputs),
        inputs=[to_tensor(name, values) for name, values in call.inputs.items()],
        # By default an answer stays where the backend likes it: ONNX Runtime's on the GPU, where numpy cannot read it.
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = request.exec()
    if response.has_error():
        raise _error_of(call.model, response.error().message())
    return {name: np.array(pb_utils.get_output_tensor_by_name(response, name).as_numpy()) for name in call.outputs}


def _error_of(model: str, message: str) -> SegmentationError:
    for words, error in _TRITON_SAYS:
        if words in message:
            return error(f"{model}: {message}")
    return error_from_message(message)


class Metrics:
    """What the feature cache and the entry count, for Prometheus."""

    def __init__(self) -> None:
        counter, gauge = pb_utils.MetricFamily.COUNTER, pb_utils.MetricFamily.GAUGE
        self.families: list[Any] = []  # a family takes its metrics with it when it goes
        self.cache = {
            "hits": self._metric(counter, "feature_cache_hits_total", "Requests whose image features were held"),
            "misses": self._metric(counter, "feature_cache_misses_total", "Image features that had to be computed"),
            "joins": self._metric(counter, "feature_cache_joins_total", "Requests that waited for the same image"),
            "evictions": self._metric(counter, "feature_cache_evictions_total", "Features dropped for the budget"),
        }
        self.held_bytes = self._metric(gauge, "feature_cache_bytes", "Bytes of image features held")
        self.in_flight = self._metric(gauge, "in_flight", "Requests in flight")
        self.rejected = self._metric(counter, "rejected_total", "Requests refused because of load")

    def _metric(self, kind: Any, name: str, description: str) -> Any:
        family = pb_utils.MetricFamily(name=f"ssp_sam_{name}", description=description, kind=kind)
        self.families.append(family)
        return family.Metric(labels={})

    def publish(self, orchestrator: Orchestrator) -> None:
        """Bring the metrics up to date; every update is a locked round trip to the server."""
        counters = orchestrator.cache.counters
        for name, metric in self.cache.items():
            metric.increment(getattr(counters, name) - metric.value())
        self.held_bytes.set(counters.bytes_held)
        self.in_flight.set(orchestrator.in_flight)
        self.rejected.increment(orchestrator.rejected - self.rejected.value())
