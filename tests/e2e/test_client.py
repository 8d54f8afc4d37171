"""Both clients and the command line against the real server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from PIL import Image

from ssp_sam.client import AsyncSegmentationClient, SegmentationClient
from ssp_sam.errors import DeadlineExceededError, InvalidArgumentError, NotFoundError, UnavailableError
from ssp_sam.limits import MAX_PHRASE_CHARACTERS, MAX_PHRASES
from ssp_sam.results import Segmentation, decode_rle
from ssp_sam.serving import contract

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "docs" / "demo.png"
PHRASES = ["the left one", "the largest thing", "the red one"]


class WatchedTransport(tritonclient.grpc.InferenceServerClient):
    """Remembers which inputs went out; `forget_next` makes the next image id one that the server does not hold."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sent: list[set[str]] = []
        self.forget_next = False

    def infer(self, model_name: str, inputs: list[Any], **options: Any) -> Any:
        self.sent.append({tensor.name() for tensor in inputs})
        for tensor in inputs:
            if self.forget_next and tensor.name() == "image_id":
                tensor.set_data_from_numpy(np.array([[b"0" * 64]], dtype=object))
                self.forget_next = False
        return super().infer(model_name, inputs, **options)


@pytest.fixture
def client(server: Any) -> Iterator[SegmentationClient]:
    with SegmentationClient(server.grpc_url) as client:
        yield client


def assert_same(one: list[Segmentation], other: list[Segmentation]) -> None:
    assert [answer.phrase for answer in one] == [answer.phrase for answer in other]
    for mine, its in zip(one, other, strict=True):
        assert np.array_equal(mine.mask, its.mask)
        assert mine.box_xyxy_px == pytest.approx(its.box_xyxy_px, abs=0.01)
        assert mine.score == pytest.approx(its.score, abs=1e-4)
        assert mine.no_target == its.no_target


def test_answers_are_whole(client: SegmentationClient) -> None:
    assert client.is_ready()
    with Image.open(DEMO) as image:
        width, height = image.size
    answers = client.segment(DEMO, PHRASES)
    assert [answer.phrase for answer in answers] == PHRASES
    for answer in answers:
        assert answer.mask.shape == (height, width)
        assert answer.area_px == answer.mask.sum()
        assert 0 <= answer.score <= 1
        assert answer.no_target == (answer.area_px == 0)


def test_a_phrase_alone_gets_the_answer_that_it_gets_among_others(client: SegmentationClient) -> None:
    alone = [client.segment(DEMO, [phrase])[0] for phrase in PHRASES]
    assert_same(alone, client.segment(DEMO, PHRASES))


def test_file_bytes_and_pixels_get_the_same_answer(client: SegmentationClient) -> None:
    with Image.open(DEMO) as image:
        pixels = np.asarray(image.convert("RGB"))
    answers = client.segment(DEMO, PHRASES)
    assert_same(answers, client.segment(DEMO.read_bytes(), PHRASES))
    assert_same(answers, client.segment(pixels, PHRASES))


def test_asyncio_gets_the_same_answers(server: Any, client: SegmentationClient) -> None:
    async def ask() -> list[list[Segmentation]]:
        async with AsyncSegmentationClient(server.grpc_url) as asynchronous:
            assert await asynchronous.is_ready()
            return list(await asyncio.gather(*(asynchronous.segment(DEMO, [phrase]) for phrase in PHRASES * 4)))

    expected = client.segment(DEMO, PHRASES)
    assert_same([answer for (answer,) in asyncio.run(ask())], expected * 4)


def test_stateless_model_gives_the_same_answers(server: Any, client: SegmentationClient) -> None:
    with SegmentationClient(server.grpc_url, model=contract.SEGMENT_ENSEMBLE) as stateless:
        assert_same(stateless.segment(DEMO, PHRASES), client.segment(DEMO, PHRASES))


def test_image_travels_once_unless_the_server_forgot_it(server: Any) -> None:
    transport = WatchedTransport(server.grpc_url)
    with SegmentationClient(server.grpc_url, transport=transport) as client:
        first = client.segment(DEMO, PHRASES)
        assert_same(client.segment(DEMO, PHRASES), first)
        transport.forget_next = True
        assert_same(client.segment(DEMO, PHRASES), first)
    assert [sent & {"image", "image_id"} for sent in transport.sent] == [
        {"image"},
        {"image_id"},
        {"image_id"},
        {"image"},
    ]


def test_explanations(client: SegmentationClient) -> None:
    explanations = client.explain(DEMO, PHRASES)
    assert_same([explanation.segmentation for explanation in explanations], client.segment(DEMO, PHRASES))
    for explanation, phrase in zip(explanations, PHRASES, strict=True):
        text = "".join(explanation.tokens)
        assert all(word in text for word in phrase.split())
        assert explanation.token_attention.shape == (len(explanation.tokens),)
        assert explanation.token_attention.sum() == pytest.approx(1, abs=1e-3)
        assert explanation.spatial_attention.ndim == 2


def test_higher_threshold_never_adds_pixels(client: SegmentationClient) -> None:
    low, high = (client.segment(DEMO, PHRASES, mask_threshold=threshold) for threshold in (0, 2))
    for one, other in zip(low, high, strict=True):
        assert not (other.mask & ~one.mask).any()


@pytest.mark.parametrize(
    ("image", "phrases"),
    [
        (b"not an image", PHRASES),
        (b"", PHRASES),
        (DEMO.name, PHRASES),
        (DEMO, [" "]),
        (DEMO, ["a"] * (MAX_PHRASES + 1)),
        (DEMO, ["a " * MAX_PHRASE_CHARACTERS]),
    ],
)
@pytest.mark.parametrize("model", [contract.SEGMENT, contract.SEGMENT_ENSEMBLE])
def test_wrong_requests(server: Any, model: str, image: Any, phrases: list[str]) -> None:
    with SegmentationClient(server.grpc_url, model=model) as client:
        with pytest.raises(InvalidArgumentError) as caught:
            client.segment(image, phrases)
        assert "[" + InvalidArgumentError.code not in str(caught.value)
        assert client.segment(DEMO, PHRASES), "a wrong request should leave the server well"


def test_deadline(server: Any, client: SegmentationClient) -> None:
    # Long enough that the server says so itself before gRPC cancels the call, and too short for so many phrases.
    with pytest.raises(DeadlineExceededError):
        client.segment(DEMO, ["the left one"] * MAX_PHRASES, timeout_s=0.05)
    assert client.segment(DEMO, PHRASES)


def test_what_is_not_there(server: Any) -> None:
    with SegmentationClient(server.grpc_url, model="other") as client:
        assert not client.is_ready()
        with pytest.raises(NotFoundError, match="other"):
            client.segment(DEMO, PHRASES)
    with SegmentationClient("localhost:1") as client:
        assert not client.is_ready()
        with pytest.raises(UnavailableError, match="localhost:1"):
            client.segment(DEMO, PHRASES)


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "client" / "segment.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_command_line(server: Any, tmp_path: Path, client: SegmentationClient) -> None:
    phrases = [argument for phrase in PHRASES for argument in ("--phrase", phrase)]
    done = run_script(str(DEMO), *phrases, "--url", server.grpc_url, "--json", "--out", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    expected = client.segment(DEMO, PHRASES)
    for answer, its in zip(json.loads(done.stdout)["answers"], expected, strict=True):
        rle = answer["mask_rle"]
        assert np.array_equal(decode_rle(rle["counts"].encode(), *rle["size"]), its.mask)
    assert len(list(tmp_path.glob("mask_*.png"))) == len(PHRASES)
    with Image.open(tmp_path / "overlay.png") as overlay:
        assert overlay.size == expected[0].mask.shape[::-1]


def test_command_line_exit_codes(server: Any, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    url = ("--url", server.grpc_url)
    assert run_script(str(DEMO), "--phrase", "the left one", *url).returncode == 0
    assert run_script(str(DEMO), "--phrase", "the left one", "--url", "localhost:1").returncode == 1
    assert run_script(str(DEMO), "--phrase", "the left one", *url, "--timeout-s", "0.001").returncode == 1
    assert run_script(str(tmp_path / "text.png"), "--phrase", "the left one", *url).returncode == 2
    assert run_script(str(tmp_path / "none.png"), "--phrase", "the left one", *url).returncode == 2
    assert run_script(str(DEMO), "--phrase", " ", *url).returncode == 2
    assert run_script(str(DEMO), *url).returncode == 2
