from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import numpy as np
import pytest

from ssp_sam.config import get_preset
from ssp_sam.errors import (
    CancelledError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    SegmentationError,
    UnavailableError,
)
from ssp_sam.limits import MAX_IMAGE_BYTES
from ssp_sam.predictor import Predictor
from ssp_sam.results import decode_rle
from ssp_sam.serving import contract
from ssp_sam.serving.feature_cache import FeatureCache
from ssp_sam.serving.model_calls import ModelCall
from ssp_sam.serving.orchestrator import ImageFeatures, Orchestrator, SegmentRequest
from ssp_sam.serving.stages import Array, Stage

TINY = get_preset("tiny")
IMAGE_STAGES = (contract.PREPROCESS, contract.SAM_IMAGE_ENCODER, contract.CLIP_IMAGE_ENCODER)
MODELS = {model.name: model for model in contract.all_models(TINY, "FP16")}
# What the orchestrator calls, in this order.
CALLED = (*IMAGE_STAGES, contract.SEGMENT_PHRASES)
ANSWER = frozenset(tensor.name for tensor in contract.segment_model(TINY).outputs)


class Call:
    """A `CallModel` in process that notes each call; `before` runs inside of a call, before its answer."""

    def __init__(self, answer: Callable[[str, Mapping[str, Array]], Mapping[str, Array]]) -> None:
        self.answer = answer
        self.calls: list[tuple[str, frozenset[str]]] = []
        self.expressions_shapes: list[tuple[int, ...]] = []
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}

    async def __call__(self, call: ModelCall) -> dict[str, Array]:
        model, inputs, outputs = call.model, call.inputs, call.outputs
        assert model in CALLED
        self.calls.append((model, frozenset(outputs)))
        if contract.EXPRESSIONS.name in inputs:
            self.expressions_shapes.append(inputs[contract.EXPRESSIONS.name].shape)
        assert outputs, "Triton takes none to mean all"
        known = {tensor.name: tensor for tensor in MODELS[model].inputs}
        assert {name for name, tensor in known.items() if not tensor.optional} <= inputs.keys() <= known.keys()
        for name, values in inputs.items():
            assert 1 <= values.shape[0] <= MODELS[model].max_batch_size, "no batch dimension, or too many rows"
            assert values.ndim == 1 + len(known[name].dims), name
            assert values.dtype == known[name].numpy_dtype, name
        assert set(outputs) <= {tensor.name for tensor in MODELS[model].outputs}
        await asyncio.sleep(0)
        if model in self.before:
            await self.before[model]()
        answer = self.answer(model, inputs)
        return {name: answer[name] for name in outputs}

    def counts(self) -> Counter[str]:
        return Counter(model for model, _ in self.calls)


def zeros(model: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Answer with arrays of the right shape; for tests of the flow alone."""
    rows = len(next(iter(inputs.values())))
    phrases = inputs[contract.EXPRESSIONS.name].shape[1] if contract.EXPRESSIONS.name in inputs else 1
    return {
        tensor.name: np.zeros((rows, *(phrases if dim == -1 else dim for dim in tensor.dims)), tensor.numpy_dtype)
        for tensor in MODELS[model].outputs
    }


def from_stages(stages: Mapping[str, Stage]) -> Callable[[str, Mapping[str, Array]], Mapping[str, Array]]:
    def answer(model: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        rows = len(next(iter(inputs.values())))
        known = [{name: values[row] for name, values in inputs.items()} for row in range(rows)]
        for stage in MODELS[model].steps or (model,):
            for row, answered in enumerate(stages[stage].run(known)):
                if isinstance(answered, SegmentationError):
                    raise answered
                known[row] |= answered
        return {name: np.stack([row[name] for row in known]) for name in known[0]}

    return answer


def orchestrator(call: Call, *, max_in_flight: int = 100, budget: int = 2**30, phrase_calls: int = 4) -> Orchestrator:
    return Orchestrator(
        TINY,
        call,
        FeatureCache(budget),
        max_in_flight=max_in_flight,
        phrase_calls=phrase_calls,
        rows_per_call=MODELS[contract.SEGMENT_PHRASES].max_batch_size,
    )


def request(**changed: Any) -> SegmentRequest:
    phrases = changed.pop("phrases", ["dog"])
    given = {
        "image": None if "image_id" in changed else b"image bytes",
        "image_id": None,
        "expressions": np.array([[phrase.encode() for phrase in phrases]], dtype=np.object_),
        "text_positions": TINY.text_positions,
        "mask_format": b"rle",
        "mask_threshold": 0.0,
        "outputs": frozenset({contract.MASKS.name}),
    }
    return SegmentRequest(**{**given, **changed})


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


# --- answers ----------------------------------------------------------------------------------------------------------


def test_the_answer_is_that_of_the_predictor(predictor: Predictor, stages: Mapping[str, Stage], make_png) -> None:
    png, phrases = make_png(70, 50), ["dog", "the red cat", "ü"]
    expected = predictor.segment(png, phrases)
    call = Call(from_stages(stages))

    async def main() -> None:
        served = orchestrator(call)
        first = await served.segment(request(image=png, phrases=phrases, outputs=ANSWER))
        (image_id,) = first[contract.IMAGE_ID.name][0]
        assert image_id == hashlib.sha256(png).hexdigest().encode()
        second = await served.segment(request(image_id=image_id.decode(), phrases=phrases, outputs=ANSWER))
        for answer in (first, second):
            assert answer.keys() == ANSWER
            for tensor in contract.segment_model(TINY).outputs:
                shape = tuple(len(phrases) if dim == -1 else dim for dim in tensor.dims)
                assert answer[tensor.name].shape == (1, *shape), tensor.name
            assert answer[contract.IMAGE_SIZE.name].tolist() == [[70, 50]]
            for n, wanted in enumerate(expected):
                mask = decode_rle(answer[contract.MASKS.name][0, n], 70, 50)
                np.testing.assert_array_equal(mask, wanted.mask)
                np.testing.assert_allclose(answer[contract.BOX_XYXY_PX.name][0, n], wanted.box_xyxy_px, atol=1e-3)
                assert answer[contract.SCORE.name][0, n] == pytest.approx(wanted.score, abs=1e-6)

    run(main())
    # The image was computed once, the phrases twice.
    assert {call.counts()[model] for model in IMAGE_STAGES} == {1}
    assert call.counts()[contract.SEGMENT_PHRASES] == 2


@pytest.mark.parametrize(
    "outputs",
    [frozenset(), {"masks"}, {"image_id"}, {"mask_logits", "image_size"}, {"tokens", "phrase_attention"}, ANSWER],
)
def test_only_what_is_asked_for_is_returned_and_sent_between_processes(outputs: frozenset[str]) -> None:
    call = Call(zeros)

    async def main() -> None:
        answer = await orchestrator(call).segment(request(outputs=frozenset(outputs)))
        assert answer.keys() == set(outputs)

    run(main())
    asked = dict(call.calls)
    assert asked[contract.SEGMENT_PHRASES] == (outputs - {"image_id"} or {"score"})
    assert contract.CHECKED_EXPRESSIONS.name not in asked[contract.PREPROCESS]


# --- the feature cache ------------------------------------------------------------------------------------------------


def test_identical_images_in_flight_are_computed_once() -> None:
    call = Call(zeros)

    async def main() -> None:
        served = orchestrator(call)

        async def until_all_wait() -> None:  # digests are made in threads, so a request may come late
            while served.cache.counters.joins < 19:
                await asyncio.sleep(0.001)

        call.before[contract.PREPROCESS] = until_all_wait
        await asyncio.gather(*(served.segment(request(phrases=[f"thing {n}"])) for n in range(20)))
        assert (served.cache.counters.misses, served.cache.counters.joins) == (1, 19)
        await served.segment(request(image=b"another image"))
        assert served.cache.counters.misses == 2

    run(main())
    assert {call.counts()[model] for model in IMAGE_STAGES} == {2}


def test_requests_about_an_image_share_a_row_and_get_what_they_would_alone(
    predictor: Predictor, stages: Mapping[str, Stage], make_png
) -> None:
    one, other = make_png(70, 50), make_png(40, 60)
    asked = [(one, ["dog"]), (one, ["cat"]), (other, ["dog"]), (one, ["the red cat", "ü"]), (one, ["dog"])]
    call = Call(from_stages(stages))

    async def main() -> None:
        served = orchestrator(call, phrase_calls=1)
        for image in (one, other):
            await served.segment(request(image=image))
        call.expressions_shapes.clear()
        gate = asyncio.Event()
        call.before[contract.SEGMENT_PHRASES] = gate.wait
        tasks = [asyncio.create_task(served.segment(request(image=other)))]
        while not call.expressions_shapes:
            await asyncio.sleep(0.001)
        raw = [request(image=one, mask_format=b"raw")] * 2 + [request(image=one, mask_threshold=1.0)]
        sent = [request(image=image, phrases=phrases, outputs=ANSWER) for image, phrases in asked]
        for number, each in enumerate([*sent, *raw], start=1):  # digests are made in threads: one after the other
            tasks.append(asyncio.create_task(served.segment(each)))
            while served.call_phrases.waiting < number:
                await asyncio.sleep(0.001)
        gate.set()
        _, *answers = await asyncio.gather(*tasks)
        for (image, phrases), answer in zip(asked, answers[: len(asked)], strict=True):
            for n, wanted in enumerate(predictor.segment(image, phrases)):
                mask = decode_rle(answer[contract.MASKS.name][0, n], *wanted.mask.shape)
                np.testing.assert_array_equal(mask, wanted.mask)
                assert answer[contract.SCORE.name][0, n] == pytest.approx(wanted.score, abs=1e-6)
            for tensor in contract.segment_model(TINY).outputs:
                shape = tuple(len(phrases) if dim == -1 else dim for dim in tensor.dims)
                assert answer[tensor.name].shape == (1, *shape), tensor.name
        *as_raw, stricter = (answer[contract.MASKS.name][0, 0] for answer in answers[len(asked) :])
        assert as_raw == [predictor.segment(one, ["dog"])[0].mask.tobytes()] * 2
        wanted_mask = predictor.segment(one, ["dog"], mask_threshold=1.0)[0].mask
        np.testing.assert_array_equal(decode_rle(stricter, *wanted_mask.shape), wanted_mask)

    run(main())
    # All of one image that ask in the same way; those that ask in another are rows of their own, as raw masks are.
    assert sorted(call.expressions_shapes) == [(1, 1), (1, 1), (1, 5), (3, 1)]


def test_an_unknown_image_id_is_not_found() -> None:
    async def main() -> None:
        with pytest.raises(NotFoundError, match="image_id 'abc' is not held here"):
            await orchestrator(Call(zeros)).segment(request(image_id="abc"))

    run(main())


def test_an_image_that_was_pushed_out_is_not_found() -> None:
    async def main() -> None:
        held = await orchestrator(Call(zeros))._compute_features(b"x")
        served = orchestrator(Call(zeros), budget=held.nbytes)
        for image in (b"first", b"second"):
            await served.segment(request(image=image))
        await served.segment(request(image_id=hashlib.sha256(b"second").hexdigest()))
        with pytest.raises(NotFoundError):
            await served.segment(request(image_id=hashlib.sha256(b"first").hexdigest()))
        assert served.cache.counters.bytes_held == held.nbytes

    run(main())


def test_features_know_their_bytes() -> None:
    arrays = [np.zeros(shape, dtype) for shape, dtype in (((1, 4), np.float16), ((2, 3), np.float32), ((5,), np.int32))]
    assert ImageFeatures(*arrays).nbytes == 8 + 24 + 20


# --- limits, deadlines, cancellation ----------------------------------------------------------------------------------


def test_more_than_the_bound_is_refused_at_once_and_room_comes_back() -> None:
    call = Call(zeros)

    async def main() -> None:
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        call.before[contract.SEGMENT_PHRASES] = wait
        served = orchestrator(call, max_in_flight=3)
        waiting = [asyncio.ensure_future(served.segment(request())) for _ in range(3)]
        await asyncio.sleep(0.01)
        with pytest.raises(UnavailableError, match="busy: 3 requests are in flight"):
            await served.segment(request())
        assert (served.in_flight, served.rejected) == (3, 1)
        gate.set()
        await asyncio.gather(*waiting)
        assert served.in_flight == 0
        await served.segment(request())
        assert served.rejected == 1

    run(main())


def test_images_of_those_who_gave_up_are_bounded_as_well() -> None:
    call = Call(zeros)

    async def main() -> None:
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        call.before[contract.PREPROCESS] = wait
        served = orchestrator(call, max_in_flight=3)
        for number in range(3):
            with pytest.raises(DeadlineExceededError):
                await served.segment(request(image=b"%d" % number, deadline_s=time.monotonic() + 0.05))
        with pytest.raises(UnavailableError, match="busy: 3 images are being computed"):
            await served.segment(request(image=b"another"))
        assert (served.in_flight, served.rejected) == (0, 1)
        one_of_them = asyncio.ensure_future(served.segment(request(image=b"1")))
        await asyncio.sleep(0.01)
        gate.set()
        assert await one_of_them
        assert await served.segment(request(image=b"another"))

    run(main())


@pytest.mark.parametrize("stage", CALLED)
def test_room_comes_back_after_an_error_of_any_stage(stage: str) -> None:
    call = Call(zeros)

    async def fail() -> None:
        raise InvalidArgumentError(f"{stage} does not like it")

    call.before[stage] = fail

    async def main() -> None:
        served = orchestrator(call)
        with pytest.raises(InvalidArgumentError, match=f"^{stage} does not like it$"):
            await served.segment(request())
        assert served.in_flight == 0
        del call.before[stage]
        assert await served.segment(request())  # nothing of the failure is kept

    run(main())


@pytest.mark.parametrize("stage", CALLED)
def test_a_deadline_that_passes_stops_the_request_before_the_next_stage(stage: str) -> None:
    call = Call(zeros)

    async def main() -> None:
        async def hang() -> None:
            await asyncio.sleep(30)

        call.before[stage] = hang
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            await orchestrator(call).segment(request(deadline_s=began_s + 0.2))
        assert 0.1 < time.monotonic() - began_s < 10

    run(main())
    begun = {model for model, _ in call.calls}
    if stage == contract.SAM_IMAGE_ENCODER:  # these two run side by side
        stage = contract.CLIP_IMAGE_ENCODER
    assert begun == set(CALLED[: CALLED.index(stage) + 1])


def test_a_deadline_that_has_passed_reaches_no_stage_of_the_phrases() -> None:
    call = Call(zeros)

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await orchestrator(call).segment(request(deadline_s=time.monotonic() - 1))

    run(main())
    assert call.calls == []


def test_a_request_that_is_cancelled_before_its_phrases_stops() -> None:
    call = Call(zeros)
    cancelled: list[bool] = []

    async def cancel() -> None:
        cancelled.append(True)

    call.before[contract.CLIP_IMAGE_ENCODER] = cancel

    async def main() -> None:
        with pytest.raises(CancelledError):
            await orchestrator(call).segment(request(is_cancelled=lambda: bool(cancelled)))

    run(main())
    assert {model for model, _ in call.calls} == set(IMAGE_STAGES)


def test_requests_that_are_cancelled_while_their_phrases_wait_are_not_computed_and_make_room() -> None:
    call = Call(zeros)

    async def main() -> None:
        served = orchestrator(call, phrase_calls=1)
        await served.segment(request())
        gate, cancelled = asyncio.Event(), list[bool]()
        call.before[contract.SEGMENT_PHRASES] = gate.wait
        call.calls.clear()
        patient = asyncio.ensure_future(served.segment(request()))
        while not call.calls:
            await asyncio.sleep(0.001)
        hasty = [asyncio.ensure_future(served.segment(request(is_cancelled=lambda: bool(cancelled)))) for _ in range(5)]
        while served.call_phrases.waiting < len(hasty):
            await asyncio.sleep(0.001)
        cancelled.append(True)
        gate.set()
        assert all(isinstance(each, CancelledError) for each in await asyncio.gather(*hasty, return_exceptions=True))
        assert await patient
        assert served.in_flight == 0

    run(main())
    assert call.counts() == {contract.SEGMENT_PHRASES: 1}


def test_a_request_that_gives_up_leaves_the_image_to_the_others() -> None:
    call = Call(zeros)

    async def main() -> None:
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        call.before[contract.SAM_IMAGE_ENCODER] = wait
        served = orchestrator(call)
        hasty = asyncio.ensure_future(served.segment(request(deadline_s=time.monotonic() + 0.1)))
        patient = asyncio.ensure_future(served.segment(request(phrases=["cat"])))
        with pytest.raises(DeadlineExceededError):
            await hasty
        assert not patient.done()
        gate.set()
        assert await patient
        assert served.in_flight == 0

    run(main())
    assert call.counts()[contract.SAM_IMAGE_ENCODER] == 1


def test_the_image_of_a_request_that_gave_up_is_kept_for_the_next() -> None:
    call = Call(zeros)

    async def main() -> None:
        async def pause() -> None:
            await asyncio.sleep(0.2)

        call.before[contract.CLIP_IMAGE_ENCODER] = pause
        served = orchestrator(call)
        with pytest.raises(DeadlineExceededError):
            await served.segment(request(deadline_s=time.monotonic() + 0.1))
        await served.segment(request())

    run(main())
    assert {call.counts()[model] for model in IMAGE_STAGES} == {1}


# --- checks -----------------------------------------------------------------------------------------------------------


def test_raw_masks_that_are_too_large_are_refused_before_the_phrases() -> None:
    call = Call(lambda model, inputs: zeros(model, inputs) | {"geometry": np.full((1, 4, 2), 7000, np.int32)})

    async def main() -> None:
        with pytest.raises(InvalidArgumentError, match="3 raw masks of 7000 x 7000"):
            await orchestrator(call).segment(request(mask_format=b"raw", phrases=["dog"] * 3))

    run(main())
    assert contract.SEGMENT_PHRASES not in call.counts()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image": None}, "exactly one of image and image_id must be given; none came"),
        ({"image": b"x", "image_id": "y"}, "both came"),
        ({"image": bytes(MAX_IMAGE_BYTES + 1)}, "bytes, at most"),
        ({"phrases": []}, "no phrase came"),
        ({"phrases": ["dog", ""]}, "phrase 1 is empty"),
        ({"phrases": ["x"] * 65}, "65 phrases came"),
        ({"phrases": ["dog", "the dog " * 14]}, r"phrase 1 .* has 31 tokens.* at most 28 are allowed"),
        ({"expressions": np.array([[b"\xff"]], dtype=np.object_)}, "not UTF-8"),
        ({"mask_format": b"jpg"}, "unknown mask_format 'jpg'"),
        ({"mask_threshold": float("nan")}, "must be a finite logit"),
    ],
)
def test_what_no_stage_could_use_is_refused_before_any_is_called(changed: dict[str, Any], words: str) -> None:
    call = Call(zeros)
    with pytest.raises(InvalidArgumentError, match=words):
        asyncio.run(orchestrator(call).segment(request(**changed)))
    assert not call.calls


def test_an_image_that_cannot_be_read_is_the_callers_fault_for_all_who_sent_it(stages: Mapping[str, Stage]) -> None:
    async def main() -> None:
        served = orchestrator(Call(from_stages(stages)))
        sent = [served.segment(request(image=b"no image")) for _ in range(3)]
        for error in await asyncio.gather(*sent, return_exceptions=True):
            assert isinstance(error, InvalidArgumentError)
            assert "not an image" in error.message

    run(main())
