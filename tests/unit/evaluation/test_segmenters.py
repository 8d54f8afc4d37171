from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_segment_server import FakeTransport, FakeTriton, expected_mask, triton_error

from ssp_sam.errors import InvalidArgumentError, UnavailableError
from ssp_sam.evaluation.segmenters import LocalSegmenter, ServedSegmenter, answers
from ssp_sam.limits import MAX_PHRASES
from ssp_sam.results import Segmentation

if TYPE_CHECKING:
    from ssp_sam.predictor import Predictor

URL = "localhost:1"


class ConfiguredTransport(FakeTransport):
    def get_model_config(self, name: str, as_json: bool) -> dict[str, Any]:
        return {"config": {"name": name, "parameters": {"preset": {"string_value": "tiny"}}}}


@pytest.fixture
def server() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def served(server: FakeTriton) -> ServedSegmenter:
    return ServedSegmenter(URL, concurrency=3, transport=ConfiguredTransport(server))


def test_served_answers(served: ServedSegmenter, server: FakeTriton, make_png: Any) -> None:
    phrases = ["dog", "no cat", *(f"thing {number}" for number in range(MAX_PHRASES))]
    given = answers(served, make_png(30, 40), phrases)
    for phrase, answer in zip(phrases, given, strict=True):
        assert isinstance(answer, Segmentation)
        assert answer.phrase == phrase
        np.testing.assert_array_equal(answer.mask, expected_mask(phrase))
    sent = [list(request.inputs) for request in server.requests]
    assert len(sent) == 2
    assert "image" in sent[0], "the image travels once"
    assert "image_id" in sent[1]


def test_a_busy_server_is_asked_again(served: ServedSegmenter, server: FakeTriton, make_png: Any) -> None:
    server.failures = [triton_error("[UNAVAILABLE] busy", "UNAVAILABLE")] * 2
    assert len(answers(served, make_png(30, 40), ["dog"])) == 1
    assert len(server.requests) == 3


def test_a_phrase_that_the_server_refuses(served: ServedSegmenter, server: FakeTriton, make_png: Any) -> None:
    refusal = triton_error("[INVALID_ARGUMENT] phrase 1 is empty", "INVALID_ARGUMENT")
    server.failures = [refusal]  # the three together; one by one they are fine
    given = answers(served, make_png(30, 40), ["a", "bb", "ccc"])
    assert [type(answer) for answer in given] == [Segmentation] * 3
    server.failures = [refusal]
    only = answers(served, make_png(30, 40), ["a"])
    assert isinstance(only[0], InvalidArgumentError)
    with pytest.raises(InvalidArgumentError, match="not an image"):
        server.failures = [refusal]
        answers(served, b"nothing", ["a"])


def test_what_a_server_is(served: ServedSegmenter) -> None:
    assert served.concurrency == 3
    assert served.identity["server"] == URL
    assert served.identity["parameters"]["segment"] == {"preset": "tiny"}


def test_close(served: ServedSegmenter, server: FakeTriton) -> None:
    served.close()
    assert server.closed


def test_no_server(server: FakeTriton) -> None:
    server.ready = False
    with pytest.raises(UnavailableError, match=r"no server is ready at localhost:1; start one with scripts/serve.py"):
        ServedSegmenter(URL, transport=ConfiguredTransport(server))
    with pytest.raises(InvalidArgumentError, match="concurrency is 0; at least 1"):
        ServedSegmenter(URL, concurrency=0)


@dataclass
class CountingPredictor:
    """The real predictor, with a count of the images that it encoded."""

    predictor: Predictor
    encoded: list[Any] = field(default_factory=list)

    def encode_image(self, image: Any) -> Any:
        self.encoded.append(image)
        return self.predictor.encode_image(image)

    def segment(self, *arguments: Any) -> Any:
        return self.predictor.segment(*arguments)


def test_local_answers_are_the_predictors(predictor: Predictor, make_png: Any) -> None:
    counting = CountingPredictor(predictor)
    phrases = ["dog", "", "the left cat"]
    given = answers(LocalSegmenter(counting, {}), make_png(), phrases)  # type: ignore[arg-type]
    assert len(counting.encoded) == 1
    assert isinstance(given[1], InvalidArgumentError)
    for answer, expected in zip(
        (given[0], given[2]), predictor.segment(make_png(), ["dog", "the left cat"]), strict=True
    ):
        assert isinstance(answer, Segmentation)
        assert answer.score == pytest.approx(expected.score, abs=1e-5)
        assert np.mean(answer.mask != expected.mask) < 0.001


def test_what_a_repository_is(tiny_repository: Path) -> None:
    identity = LocalSegmenter.from_repository(tiny_repository).identity
    assert identity["manifest"]["preset"] == "tiny"
    assert set(identity["manifest"]["weights_sha256"]) >= {"mask_decoder", "text_encoder"}


def test_an_address_of_http_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="without http://"):
        ServedSegmenter("http://localhost:8000")
