"""Both entry models on the real server: the predictor's answers, alone and under load, and errors that stay alone."""

from __future__ import annotations

import hashlib
import io
import random
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from ssp_sam.limits import MAX_IMAGE_PIXELS, MAX_PHRASES
from ssp_sam.predictor import Predictor
from ssp_sam.results import Segmentation, decode_rle
from ssp_sam.serving import contract
from ssp_sam.serving.server import TritonServer

DEMO = Path(__file__).parents[2] / "docs" / "demo.png"
MODELS = (contract.SEGMENT, contract.SEGMENT_ENSEMBLE)
PHRASES = ["the dog on the left", "both dogs", "the car and the guitar", "the zebra", "a car", "das Auto 車"]
TIMEOUT_S = 120.0
COUNTING_TIMEOUT_S = 10.0

Answer = dict[str, NDArray[Any]]


class Caller:
    """Asks a model without the client library, tensor by tensor."""

    def __init__(self, url: str) -> None:
        self.client = triton.InferenceServerClient(url)

    def ask(self, model: str, outputs: Sequence[str] = (), **values: Any) -> Answer:
        """Send one row; the values are by tensor name, without the batch dimension."""
        defaults = {contract.MASK_FORMAT: b"rle", contract.MASK_THRESHOLD: 0.0}
        inputs = []
        for tensor in (contract.IMAGE, contract.IMAGE_ID, contract.EXPRESSIONS, *defaults):
            value = values.get(tensor.name, defaults.get(tensor))
            if value is not None:
                array = np.array([value if isinstance(value, list) else [value]], dtype=tensor.numpy_dtype)
                inputs.append(triton.InferInput(tensor.name, array.shape, tensor.dtype))
                inputs[-1].set_data_from_numpy(array)
        wanted = [triton.InferRequestedOutput(name) for name in outputs] or None
        result = self.client.infer(model, inputs, outputs=wanted, client_timeout=TIMEOUT_S)
        return {output.name: result.as_numpy(output.name)[0] for output in result.get_response().outputs}

    def statistics(self, model: str) -> Any:
        return self.client.get_inference_statistics(model).model_stats[0]

    def inferences(self, model: str, awaited: int) -> int:
        """Return how many rows the model counts, as soon as they are those awaited: it counts after it has answered."""
        deadline = time.monotonic() + COUNTING_TIMEOUT_S
        while (counted := int(self.statistics(model).inference_count)) < awaited and time.monotonic() < deadline:
            time.sleep(0.05)
        return counted


@pytest.fixture(scope="session")
def caller(server: TritonServer) -> Caller:
    return Caller(server.grpc_url)


def png(height: int, width: int, seed: int) -> bytes:
    """Return a picture of coloured blocks, so that masks are not mere noise."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def crop(image: bytes, box: tuple[int, int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(image)).crop(box).save(file, "PNG")
    return file.getvalue()


def encoded(phrases: Sequence[str]) -> list[bytes]:
    return [phrase.encode() for phrase in phrases]


def assert_equal(answer: Answer, expected: Sequence[Segmentation]) -> None:
    height, width = answer["image_size"].tolist()
    assert len(answer["masks"]) == len(expected)
    for index, wanted in enumerate(expected):
        mask = decode_rle(answer["masks"][index], height, width)
        assert mask.shape == wanted.mask.shape
        union = np.count_nonzero(mask | wanted.mask)
        assert union == 0 or np.count_nonzero(mask & wanted.mask) / union > 0.999, wanted.phrase
        assert answer["area_px"][index] == np.count_nonzero(mask)
        assert bool(answer["no_target"][index]) == wanted.no_target
        assert answer["score"][index] == pytest.approx(wanted.score, abs=1e-3)
        np.testing.assert_allclose(
            answer["box_xyxy_px"][index], wanted.box_xyxy_px, atol=0.05 + 1e-4 * max(height, width)
        )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("height", "width"), [(480, 640), (1, 1), (37, 500), (1200, 90)])
def test_served_answers_are_the_predictors(
    caller: Caller, predictor: Predictor, model: str, height: int, width: int
) -> None:
    image = DEMO.read_bytes() if (height, width) == (480, 640) else png(height, width, seed=height)
    answer = caller.ask(model, image=image, expressions=encoded(PHRASES))
    assert_equal(answer, predictor.segment(image, PHRASES))


@pytest.mark.parametrize("model", MODELS)
def test_sixteen_clients_with_mixed_images_sizes_and_phrase_counts(
    caller: Caller, predictor: Predictor, model: str
) -> None:
    demo = DEMO.read_bytes()
    images = [demo, crop(demo, (0, 150, 300, 480)), crop(demo, (300, 100, 640, 420)), png(90, 700, 1), png(333, 77, 2)]
    expected = [{answer.phrase: answer for answer in predictor.segment(image, PHRASES)} for image in images]

    def ask(seed: int) -> None:
        chooser = random.Random(seed)
        which = chooser.randrange(len(images))
        phrases = chooser.choices(PHRASES, k=chooser.choice([1, 1, 2, 3, 7, 20]))
        answer = caller.ask(model, image=images[which], expressions=encoded(phrases))
        assert_equal(answer, [expected[which][phrase] for phrase in phrases])

    batches_before, asked_before = caller.statistics(contract.MASK_DECODER), caller.statistics(model).inference_count
    requests = 48
    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(ask, range(requests)))) == requests
    assert caller.inferences(model, asked_before + requests) - asked_before == requests
    now = caller.statistics(contract.MASK_DECODER)
    rows = now.inference_count - batches_before.inference_count
    # Requests about one image may share a row of `segment`'s.
    assert rows == requests if model == contract.SEGMENT_ENSEMBLE else 0 < rows <= requests
    assert now.execution_count - batches_before.execution_count < requests, "nothing was batched"


BAD_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "not an image": ({"image": b"hello"}, "JPEG"),
    "empty image": ({"image": b""}, "0 bytes"),
    "truncated image": ({"image": DEMO.read_bytes()[:5000]}, "broken"),
    "no phrase": ({"expressions": []}, "no phrase"),
    "empty phrase": ({"expressions": [b"a dog", b"  "]}, "phrase 1 is empty"),
    "phrase of too many tokens": ({"expressions": [b"dog " * 80]}, "at most 28"),
    "too many phrases": ({"expressions": [b"dog"] * (MAX_PHRASES + 1)}, f"1 to {MAX_PHRASES}"),
    "phrase that is no text": ({"expressions": [b"\xff\xfe"]}, "UTF-8"),
    "unknown format": ({"mask_format": b"bmp"}, "rle, png, raw"),
    "threshold that is no number": ({"mask_threshold": float("nan")}, "finite"),
}


def huge_png_header() -> bytes:
    """Return a small file that claims more pixels than allowed."""
    data = bytearray(png(8, 8, 0))
    data[16:24] = (MAX_IMAGE_PIXELS).to_bytes(4, "big") + (2).to_bytes(4, "big")
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def large_png() -> bytes:
    """Return a small file of 25 million pixels."""
    file = io.BytesIO()
    Image.new("1", (5000, 5000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("model", MODELS)
def test_raw_masks_are_bounded(caller: Caller, model: str) -> None:
    image = large_png()
    (mask,) = caller.ask(model, image=image, expressions=[b"a dog"], mask_format=b"raw")["masks"]
    assert len(mask) == 25_000_000
    with pytest.raises(InferenceServerException, match="6 raw masks of 5000 x 5000") as caught:
        caller.ask(model, image=image, expressions=[b"a dog"] * 6, mask_format=b"raw")
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("case", [*BAD_REQUESTS, "image too large"])
def test_bad_request_is_refused_with_the_reason(caller: Caller, model: str, case: str) -> None:
    values, reason = BAD_REQUESTS.get(case, ({"image": huge_png_header()}, f"at most {MAX_IMAGE_PIXELS}"))
    request = {"image": DEMO.read_bytes(), "expressions": [b"a dog"], **values}
    with pytest.raises(InferenceServerException) as caught:
        caller.ask(model, **request)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "[INVALID_ARGUMENT]" in caught.value.message()
    assert reason in caught.value.message()


@pytest.mark.parametrize("model", MODELS)
def test_bad_requests_do_not_spoil_their_neighbours(caller: Caller, predictor: Predictor, model: str) -> None:
    demo = DEMO.read_bytes()
    expected = predictor.segment(demo, PHRASES[:2])
    bad = list(BAD_REQUESTS.values())

    def ask(number: int) -> str:
        if number % 2:
            answer = caller.ask(model, image=demo, expressions=encoded(PHRASES[:2]))
            assert_equal(answer, expected)
            return "answered"
        values, reason = bad[number // 2 % len(bad)]
        try:
            caller.ask(model, **{"image": demo, "expressions": [b"a dog"], **values})
        except InferenceServerException as error:
            assert reason in error.message()
            return "refused"
        return "accepted"

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(ask, range(60)))
    assert outcomes == ["refused", "answered"] * 30


@pytest.mark.parametrize("model", [*MODELS, contract.TEXT_ENCODER])
def test_a_batch_of_none_is_refused_and_its_neighbours_are_answered(caller: Caller, model: str) -> None:
    """Triton refuses batches that are too large only; one of 0 reaches the models."""

    def ask(rows: int) -> str:
        values = {contract.EXPRESSIONS: b"a dog", contract.IMAGE: DEMO.read_bytes()}
        values |= {contract.MASK_FORMAT: b"rle", contract.MASK_THRESHOLD: 0.0}
        inputs = []
        for tensor in (contract.EXPRESSIONS,) if model == contract.TEXT_ENCODER else values:
            array = np.array([[values[tensor]]] * rows, dtype=tensor.numpy_dtype).reshape(rows, 1)
            inputs.append(triton.InferInput(tensor.name, array.shape, tensor.dtype))
            inputs[-1].set_data_from_numpy(array)
        try:
            caller.client.infer(model, inputs, client_timeout=TIMEOUT_S)
        except InferenceServerException as error:
            assert error.status() == "StatusCode.INVALID_ARGUMENT", error
            return "refused"
        return "answered"

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(ask, [0, 1] * 16))
    assert outcomes == ["refused", "answered"] * 16


def test_image_id_stands_for_the_image(caller: Caller, predictor: Predictor, server: TritonServer) -> None:
    image = png(200, 300, seed=77)
    first = caller.ask(contract.SEGMENT, image=image, expressions=[b"the red one"])
    image_id = hashlib.sha256(image).hexdigest()
    assert first["image_id"].tolist() == [image_id.encode()]
    encoder_runs = caller.statistics(contract.SAM_IMAGE_ENCODER).inference_count
    second = caller.ask(contract.SEGMENT, image_id=image_id.encode(), expressions=encoded(PHRASES))
    assert_equal(second, predictor.segment(image, PHRASES))
    assert caller.statistics(contract.SAM_IMAGE_ENCODER).inference_count == encoder_runs
    metrics = urllib.request.urlopen(server.metrics_url).read().decode()
    assert "ssp_sam_feature_cache_bytes" in metrics


def test_identical_images_in_flight_are_encoded_once(caller: Caller) -> None:
    image = png(210, 310, seed=78)
    before = caller.statistics(contract.SAM_IMAGE_ENCODER).inference_count
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda _: caller.ask(contract.SEGMENT, image=image, expressions=[b"the red one"]), range(12))
        )
    assert len({answer["masks"][0] for answer in answers}) == 1
    assert caller.statistics(contract.SAM_IMAGE_ENCODER).inference_count == before + 1


@pytest.mark.parametrize(
    ("values", "status", "reason"),
    [
        ({"image_id": b"f" * 64}, "NOT_FOUND", "send the image itself"),
        ({}, "INVALID_ARGUMENT", "exactly one of image and image_id"),
        ({"image": b"x", "image_id": b"y"}, "INVALID_ARGUMENT", "both came"),
    ],
)
def test_which_image_must_be_clear(caller: Caller, values: dict[str, bytes], status: str, reason: str) -> None:
    with pytest.raises(InferenceServerException, match=reason) as caught:
        caller.ask(contract.SEGMENT, expressions=[b"a dog"], **values)
    assert caught.value.status() == f"StatusCode.{status}"


@pytest.mark.parametrize("model", MODELS)
def test_mask_formats_tell_the_same(caller: Caller, model: str) -> None:
    request = {"image": DEMO.read_bytes(), "expressions": encoded(PHRASES[:3])}
    answers = {name: caller.ask(model, mask_format=name.encode(), **request) for name in contract.MASK_FORMATS}
    height, width = answers["rle"]["image_size"].tolist()
    for index in range(3):
        mask = decode_rle(answers["rle"]["masks"][index], height, width)
        raw = np.frombuffer(answers["raw"]["masks"][index], dtype=np.uint8).reshape(height, width)
        drawn = np.asarray(Image.open(io.BytesIO(answers["png"]["masks"][index])))
        assert np.array_equal(raw.astype(bool), mask)
        assert np.array_equal(drawn.astype(bool), mask)
        assert answers["none"]["masks"][index] == b""


@pytest.mark.parametrize("model", MODELS)
def test_threshold_and_optional_outputs(caller: Caller, predictor: Predictor, model: str) -> None:
    image, phrases = DEMO.read_bytes(), ["the dog on the left"]
    names = ["area_px", "tokens", "phrase_attention", "spatial_attention", "mask_logits"]
    strict = caller.ask(model, names, image=image, expressions=encoded(phrases), mask_threshold=2.0)
    assert set(strict) == set(names)
    assert strict["area_px"][0] == predictor.segment(image, phrases, mask_threshold=2.0)[0].area_px
    tokens = [token.decode() for token in strict["tokens"][0] if token]
    assert tokens == ["<|startoftext|>", "the", "dog", "on", "the", "left", ".", "<|endoftext|>"]
    assert strict["phrase_attention"][0, : len(tokens)].sum() == pytest.approx(1, abs=1e-4)
    assert strict["spatial_attention"].shape == (1, 16, 16)
    assert strict["mask_logits"].shape == (1, 128, 128)
