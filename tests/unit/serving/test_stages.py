"""Every stage alone: its rows do not depend on their neighbours, and the chain of all is the predictor."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ssp_sam.config import get_preset
from ssp_sam.errors import InvalidArgumentError, SegmentationError
from ssp_sam.predictor import Predictor
from ssp_sam.preprocess import decode_image
from ssp_sam.results import decode_rle
from ssp_sam.serving import contract, network_stages
from ssp_sam.serving.network_stages import NetworkStage, meet_sizes
from ssp_sam.serving.stages import (
    Answer,
    Array,
    Preprocess,
    Row,
    Stage,
    chunks,
    decode_expressions,
    mask_encoder,
)

TINY = get_preset("tiny")
Stages = Mapping[str, Stage]


def strings(*values: str | bytes) -> Array:
    return np.array([v.encode() if isinstance(v, str) else v for v in values], dtype=np.object_)


def answered(answer: Answer) -> dict[str, Array]:
    assert not isinstance(answer, SegmentationError), answer
    return answer


def failed(answer: Answer) -> SegmentationError:
    assert isinstance(answer, SegmentationError), answer
    return answer


def assert_same(a: Mapping[str, Array], b: Mapping[str, Array]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].shape == b[name].shape, name
        assert a[name].dtype == b[name].dtype, name
        if a[name].dtype.kind == "f":
            # One step of a 16-bit float is a thousandth.
            bound = 2e-3 if a[name].dtype == np.float16 else 1e-4
            np.testing.assert_allclose(a[name], b[name], rtol=bound, atol=bound, err_msg=name)
        else:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def chain(stages: Stages, png: bytes, phrases: Sequence[str]) -> dict[str, Array]:
    """Return every tensor of one request that goes through all stages alone."""
    known: dict[str, Array] = {
        contract.IMAGE.name: strings(png),
        contract.EXPRESSIONS.name: strings(*phrases),
        contract.MASK_FORMAT.name: strings("rle"),
        contract.MASK_THRESHOLD.name: np.array([0], np.float32),
    }
    for model in contract.stage_models(TINY, "FP16"):
        known |= answered(stages[model.name].run([known])[0])
    return known


@pytest.fixture(scope="module")
def requests(stages: Stages, make_png) -> list[dict[str, Array]]:
    """Three finished requests with 1, more than a chunk, and 3 phrases."""
    counts = (1, TINY.phrases_per_chunk + 4, 3)
    return [
        chain(stages, make_png(40 + 30 * n, 70, seed=n), [f"thing {i} of {n}" for i in range(count)])
        for n, count in enumerate(counts)
    ]


def inputs_of(name: str, known: Mapping[str, Array]) -> dict[str, Array]:
    (model,) = (model for model in contract.stage_models(TINY, "FP16") if model.name == name)
    return {tensor.name: known[tensor.name] for tensor in model.inputs}


STAGE_NAMES = [model.name for model in contract.stage_models(TINY, "FP16")]


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_outputs_are_those_of_the_contract(stages: Stages, requests, name: str) -> None:
    (model,) = (model for model in contract.stage_models(TINY, "FP16") if model.name == name)
    for known in requests:
        phrases = len(known[contract.EXPRESSIONS.name])
        for tensor in model.outputs:
            assert known[tensor.name].shape == tuple(phrases if dim == -1 else dim for dim in tensor.dims)
            assert known[tensor.name].dtype == tensor.numpy_dtype, tensor.name


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_a_row_of_a_batch_is_the_row_alone(stages: Stages, requests, name: str) -> None:
    rows = [inputs_of(name, known) for known in requests]
    together = stages[name].run(rows)
    assert len(together) == len(rows)
    for known, answer in zip(requests, together, strict=True):
        got = answered(answer)
        assert_same(got, {tensor: known[tensor] for tensor in got})


def test_the_chain_of_all_stages_is_the_predictor(predictor: Predictor, requests) -> None:
    some_found = False
    for known in requests:
        phrases = [value.decode() for value in known[contract.EXPRESSIONS.name]]
        expected = predictor.segment(known[contract.IMAGE.name][0], phrases)
        size = tuple(known[contract.IMAGE_SIZE.name])
        for n, answer in enumerate(expected):
            mask = decode_rle(known[contract.MASKS.name][n], *size)
            np.testing.assert_array_equal(mask, answer.mask)
            assert known[contract.AREA_PX.name][n] == mask.sum()
            assert known[contract.NO_TARGET.name][n] == answer.no_target
            assert known[contract.SCORE.name][n] == pytest.approx(answer.score, abs=1e-4)
            np.testing.assert_allclose(known[contract.BOX_XYXY_PX.name][n], answer.box_xyxy_px, atol=0.02)
            some_found |= bool(mask.any())
    assert some_found, "only empty masks were compared"


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", contract.NETWORK_STAGES)
def test_every_size_that_may_come_is_met_before_the_first_request(stages: Stages, name: str) -> None:
    stage = stages[name]
    assert isinstance(stage, NetworkStage)
    (model,) = (model for model in contract.stage_models(TINY, "FP16") if model.name == name)
    met: list[set[int]] = []

    def network(*arrays: Array) -> tuple[Array, ...]:
        met.append({len(array) for array in arrays})
        return stage.network(*arrays)

    watched = copy.copy(stage)
    watched.network = network
    largest = 1 if name.endswith("image_encoder") else TINY.phrases_per_chunk
    assert meet_sizes(watched, model, TINY, most_s=1e9) == largest
    assert met == [{1}, *({size} for size in [1, *range(largest, 1, -1)])]
    met.clear()
    assert meet_sizes(watched, model, TINY, most_s=0) == 1
    assert met == [{1}, {1}], "no time for larger ones"


@pytest.mark.parametrize(
    ("name", "of_image"),
    [(contract.SSP_PROMPT_GENERATOR, "clip_tokens"), (contract.MASK_DECODER, "image_embedding")],
)
def test_an_image_that_several_rows_are_about_is_computed_once(
    stages: Stages, requests, name: str, of_image: str
) -> None:
    stage = stages[name]
    assert isinstance(stage, NetworkStage)
    images: list[int] = []

    def network(*arrays: Array) -> tuple[Array, ...]:
        images.append(len(arrays[0]))
        return stage.network(*arrays)

    watched = copy.copy(stage)
    watched.network = network
    one, other = (
        {tensor: values if tensor == of_image else values[:1] for tensor, values in inputs_of(name, known).items()}
        for known in requests[:2]
    )
    touched = one[of_image].copy()
    touched[-1, -1] += touched.dtype.type(0.5)
    rows = [one, other, {**other, of_image: one[of_image].copy()}, {**one, of_image: touched}, one]
    together = watched.run(rows)
    assert images == [3]
    for row, answer in zip(rows, together, strict=True):
        assert_same(answered(answer), answered(stage.run([row])[0]))


def png_of(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


LARGE_PNG = png_of(7000, 7000)

# --- bad rows ---------------------------------------------------------------------------------------------------------


def bad_rows(name: str, known: Mapping[str, Array]) -> list[tuple[Row, str]]:
    """Return rows that stage `name` must refuse, with words of the error."""
    row = inputs_of(name, known)

    def but(**changed: Array) -> Row:
        return {**row, **changed}

    if name == contract.PREPROCESS:
        return [
            (but(image=strings(b"no image")), "not an image"),
            (but(expressions=strings("dog", " ")), "phrase 1 is empty"),
            (but(expressions=strings(b"\xff")), "phrase 0 is not UTF-8"),
            (but(mask_format=strings("svg")), "unknown mask_format 'svg'; allowed: rle, png, raw, none"),
            (but(mask_threshold=np.array([np.nan], np.float32)), "mask_threshold is nan"),
            (but(image=strings(LARGE_PNG), mask_format=strings("raw")), "3 raw masks of 7000 x 7000"),
        ]
    if name == contract.TEXT_ENCODER:
        return [
            (but(expressions=strings()), "no phrase came"),
            (but(expressions=strings("dog", "x " * 80)), "has 83 tokens"),
            (but(expressions=strings(b"\xc3\x28")), "phrase 0 is not UTF-8"),
        ]
    if name == contract.SSP_PROMPT_GENERATOR:
        return [
            (but(token_ids=row["token_ids"][:0]), "'token_ids': 0"),
            (but(text_embedding=row["text_embedding"][:1]), "'text_embedding': 1, 'word_embeddings': 3"),
        ]
    if name == contract.MASK_DECODER:
        return [(but(prompt_tokens=row["prompt_tokens"][:0]), "at least 1; got {'prompt_tokens': 0}")]
    assert name == contract.POSTPROCESS
    return [
        (but(mask_logits=row["mask_logits"][:1]), "'mask_logits': 1, 'box_cxcywh_norm': 3"),
        (but(**{key: row[key][:0] for key in ("mask_logits", "box_cxcywh_norm", "iou")}), "at least 1"),
        (but(mask_format=strings("bmp")), "unknown mask_format 'bmp'"),
        (but(mask_threshold=np.array([-np.inf], np.float32)), "must be a finite logit"),
        (but(geometry=np.zeros((4, 2), np.int32)), "the image has no pixels: 0 x 0"),
        (but(geometry=np.full((4, 2), 10_000_000, np.int32)), "image too large"),
        (but(geometry=np.full((4, 2), 7000, np.int32), mask_format=strings("raw")), "3 raw masks of 7000 x 7000"),
    ]


REFUSING = [
    contract.PREPROCESS,
    contract.TEXT_ENCODER,
    contract.SSP_PROMPT_GENERATOR,
    contract.MASK_DECODER,
    contract.POSTPROCESS,
]


@pytest.mark.parametrize("name", REFUSING)
def test_bad_rows_do_not_spoil_their_neighbours(stages: Stages, requests, name: str) -> None:
    bad = bad_rows(name, requests[2])
    good = [inputs_of(name, known) for known in (requests[0], requests[2])]
    answers = stages[name].run([good[0], *(row for row, _ in bad), good[1]])
    for (_, words), answer in zip(bad, answers[1:-1], strict=True):
        error = failed(answer)
        assert isinstance(error, InvalidArgumentError)
        assert words in error.message
    for known, answer in ((requests[0], answers[0]), (requests[2], answers[-1])):
        got = answered(answer)
        assert_same(got, {tensor: known[tensor] for tensor in got})


@pytest.mark.parametrize("name", REFUSING)
def test_a_batch_of_bad_rows_only(stages: Stages, requests, name: str) -> None:
    bad = [row for row, _ in bad_rows(name, requests[2])]
    answers = stages[name].run(bad)
    assert len(answers) == len(bad)
    assert all(isinstance(answer, InvalidArgumentError) for answer in answers)


# --- chunks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40])
def test_chunks_cover_everything_once(count: int) -> None:
    parts = list(chunks(count, 8))
    assert [n for part in parts for n in range(count)[part]] == list(range(count))
    assert all(0 < part.stop - part.start <= 8 for part in parts)


@pytest.mark.parametrize("name", [contract.TEXT_ENCODER, contract.SSP_PROMPT_GENERATOR, contract.MASK_DECODER])
def test_no_more_phrases_are_computed_at_once_than_a_chunk(
    stages: Stages, requests, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, seen, images = stages[name], [], []
    compute = stage.compute

    def counted(phrases, per_image):
        seen.append(len(phrases["image_index"]))
        images.extend(len(values) for values in per_image.values())
        assert int(phrases["image_index"].min()) == 0
        return compute(phrases, per_image)

    monkeypatch.setattr(stage, "compute", counted)
    stage.run([inputs_of(name, known) for known in requests])
    assert max(seen) == TINY.phrases_per_chunk
    assert sum(seen) == sum(len(known[contract.EXPRESSIONS.name]) for known in requests)
    assert all(count <= 2 for count in images), "a chunk holds images that none of its phrases is about"


# --- pre- and postprocessing ------------------------------------------------------------------------------------------


def test_preprocess_checks_only_what_came(make_png) -> None:
    (answer,) = Preprocess(TINY).run([{contract.IMAGE.name: strings(make_png())}])
    assert contract.CHECKED_EXPRESSIONS.name not in answered(answer)
    (answer,) = Preprocess(TINY).run(
        [{contract.IMAGE.name: strings(make_png()), contract.EXPRESSIONS.name: strings("dog", "ü")}]
    )
    assert answered(answer)[contract.CHECKED_EXPRESSIONS.name].tolist() == [b"dog", "ü".encode()]


def test_every_mask_format_holds_the_same_mask(stages: Stages, requests) -> None:
    known, masks = requests[2], {}
    for mask_format in contract.MASK_FORMATS:
        row = {**inputs_of(contract.POSTPROCESS, known), contract.MASK_FORMAT.name: strings(mask_format)}
        answer = answered(stages[contract.POSTPROCESS].run([row])[0])
        masks[mask_format] = answer.pop(contract.MASKS.name)
        assert_same(answer, {name: known[name] for name in answer})
    height, width = known[contract.IMAGE_SIZE.name]
    for rle, png, raw, none in zip(*(masks[name] for name in ("rle", "png", "raw", "none")), strict=True):
        expected = decode_rle(rle, height, width)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), expected)
        np.testing.assert_array_equal(np.frombuffer(raw, np.uint8).reshape(height, width), expected)
        assert none == b""


def test_small_helpers_name_what_came() -> None:
    assert decode_expressions([b"dog", "日本".encode()]) == ["dog", "日本"]
    with pytest.raises(InvalidArgumentError, match="'�'"):
        mask_encoder(b"\xff")
    with pytest.raises(InvalidArgumentError) as caught:
        mask_encoder(b"x" * 1_000_000)
    assert len(caught.value.message) < 200


def test_the_image_is_turned_upright_before_the_size_is_told() -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(file, "PNG", exif=exif)
    (answer,) = Preprocess(TINY).run([{contract.IMAGE.name: strings(file.getvalue())}])
    assert answered(answer)[contract.GEOMETRY.name][0].tolist() == [30, 20]
    assert decode_image(file.getvalue()).size == (20, 30)


def test_threads_are_those_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def loaded(stage: str, preset: object, weights: object, runtime: object, count: int) -> None:
        threads.append(count)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(network_stages, "load_network", loaded)
    monkeypatch.setattr(network_stages, "stage_runtime", lambda *_: SimpleNamespace(engine="torch"))
    for said in ("3", "all"):
        parameters = {"dtype": "auto", "threads": said}
        network_stages.load_network_stage(contract.MASK_DECODER, TINY, parameters, Path("weights"), "cpu")
    assert threads == [3, len(os.sched_getaffinity(0))]
