"""What each stage does with a batch: numpy in, numpy out, nothing of Triton.

A stage takes *rows*: one image each, as {tensor name of the contract: array without the batch dimension}. It answers
each row with its outputs or with its error, so one bad row never spoils its neighbours. Phrases of all rows are
computed together, in chunks of a bounded number.
"""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssp_sam.config import Preset, get_preset
from ssp_sam.errors import InvalidArgumentError, SegmentationError
from ssp_sam.limits import check_raw_masks, check_threshold
from ssp_sam.postprocess import Calibration, interpret
from ssp_sam.preprocess import Geometry, decode_image, prepare
from ssp_sam.results import BoolMask, encode_rle
from ssp_sam.serving import contract
from ssp_sam.tokenizer import token_texts, tokenize

Array = npt.NDArray[Any]
Row = Mapping[str, Array]
Answer = dict[str, Array] | SegmentationError


class Stage(ABC):
    """A stage of the model."""

    @abstractmethod
    def run(self, rows: Sequence[Row]) -> list[Answer]:
        """Answer each row, in order."""


class RowStage(Stage):
    """A stage that treats rows one by one."""

    def run(self, rows: Sequence[Row]) -> list[Answer]:
        """Answer each row, in order."""
        answers: list[Answer] = []
        for row in rows:
            try:
                answers.append(self.run_row(row))
            except SegmentationError as error:
                answers.append(error)
            except Exception as error:  # of this row, whatever it is: its neighbours are answered all the same
                failure = SegmentationError(f"{type(self).__name__} failed: {type(error).__name__}; see the log")
                failure.__cause__ = error
                answers.append(failure)
        return answers

    @abstractmethod
    def run_row(self, row: Row) -> dict[str, Array]:
        """Answer one row."""


class Preprocess(RowStage):
    """Image file -> inputs of both image encoders.

    In the ensemble it also gets, and checks, all else that the caller sent: when one step of an ensemble fails while
    another is under way, release 24.10 frees the caller's inputs under the second one. So what can be refused is
    refused here.
    """

    def __init__(self, preset: Preset) -> None:
        self.preset = preset
        self.sam_image = contract.sam_image(preset).name
        self.clip_image = contract.clip_image(preset).name

    def run_row(self, row: Row) -> dict[str, Array]:
        """Answer one row."""
        answer = {}
        if contract.EXPRESSIONS.name in row:
            expressions = row[contract.EXPRESSIONS.name]
            tokenize(decode_expressions(expressions.tolist()), self.preset.text_positions)
            answer[contract.CHECKED_EXPRESSIONS.name] = expressions
        if contract.MASK_FORMAT.name in row:
            mask_encoder(row[contract.MASK_FORMAT.name][0])
        if contract.MASK_THRESHOLD.name in row:
            check_threshold(row[contract.MASK_THRESHOLD.name][0])
        image = decode_image(row[contract.IMAGE.name][0])
        if contract.MASK_FORMAT.name in row:
            phrases = len(row.get(contract.EXPRESSIONS.name, ()))
            check_masks(row[contract.MASK_FORMAT.name][0], phrases, (image.height, image.width))
        inputs = prepare(image, self.preset)
        return {
            **answer,
            self.sam_image: inputs.sam_image,
            self.clip_image: inputs.clip_image,
            contract.GEOMETRY.name: inputs.geometry.to_array(),
        }


class Tokenizer(RowStage):
    """expressions -> token_ids, tokens, where the text tower is a model of its own."""

    def __init__(self, preset: Preset) -> None:
        self.preset = preset

    def run_row(self, row: Row) -> dict[str, Array]:
        """Answer one row."""
        phrases = decode_expressions(row[contract.EXPRESSIONS.name].tolist())
        token_ids = tokenize(phrases, self.preset.text_positions)
        return {contract.TOKEN_IDS_NAME: token_ids, contract.TOKENS_NAME: encoded_tokens(token_ids)}


def encoded_tokens(token_ids: Array) -> Array:
    """Return the text of each token in UTF-8, as the tensor `tokens` has it."""
    return np.char.encode(token_texts(token_ids).astype(str), "utf-8").astype(np.object_)


class Postprocess(RowStage):
    """Logits -> masks, boxes and verdicts of the image's own size."""

    def __init__(self, preset: Preset, calibration: Calibration) -> None:
        self.preset = preset
        self.calibration = calibration
        self.mask_logits = contract.mask_logits(preset).name

    def run_row(self, row: Row) -> dict[str, Array]:
        """Answer one row."""
        names = (self.mask_logits, contract.BOX_CXCYWH_NORM.name, contract.IOU.name, contract.SIMILARITY_PEAK.name)
        check_phrase_counts(row, names)
        mask_logits, boxes_norm, iou, similarity_peak = (row[name] for name in names)
        encode = mask_encoder(row[contract.MASK_FORMAT.name][0])
        geometry = Geometry.from_array(row[contract.GEOMETRY.name])
        check_masks(row[contract.MASK_FORMAT.name][0], len(mask_logits), geometry.original_hw)
        threshold = check_threshold(row[contract.MASK_THRESHOLD.name][0])
        found = interpret(
            mask_logits,
            boxes_norm,
            iou,
            similarity_peak,
            geometry,
            sam_side_px=self.preset.sam.image_side_px,
            clip_side_px=self.preset.clip.image_side_px,
            calibration=self.calibration,
            mask_threshold=threshold,
        )
        answers = [(encode(f.mask), f.box_xyxy_px, f.score, f.no_target, f.area_px) for f in found]
        masks, boxes, scores, no_target, areas = zip(*answers, strict=True)
        return {
            contract.MASKS.name: np.array(masks, dtype=np.object_),
            contract.BOX_XYXY_PX.name: np.stack(boxes).astype(np.float32),
            contract.SCORE.name: np.array(scores, dtype=np.float32),
            contract.NO_TARGET.name: np.array(no_target, dtype=np.bool_),
            contract.AREA_PX.name: np.array(areas, dtype=np.int64),
            contract.IMAGE_SIZE.name: np.array(geometry.original_hw, dtype=np.int32),
        }


def check_phrase_counts(row: Row, names: Sequence[str]) -> None:
    """Raise InvalidArgumentError unless these inputs have the same number of phrases, at least one."""
    counts = {name: len(row[name]) for name in names}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise InvalidArgumentError(f"all inputs must have the same number of phrases, at least 1; got {counts}")


def check_masks(mask_format: bytes, phrases: int, original_hw: tuple[int, int]) -> None:
    """Raise InvalidArgumentError if the masks of so many phrases have too many bytes in this format."""
    if mask_format == contract.MASK_FORMAT_RAW.encode():
        check_raw_masks(phrases, original_hw)


def mask_encoder(mask_format: bytes) -> Callable[[BoolMask], bytes]:
    """Return the encoder of a mask format by its name, or raise InvalidArgumentError naming the known ones."""
    encoders: dict[bytes, Callable[[BoolMask], bytes]] = {
        contract.MASK_FORMAT_RLE.encode(): encode_rle,
        contract.MASK_FORMAT_PNG.encode(): _encode_png,
        contract.MASK_FORMAT_RAW.encode(): lambda mask: mask.tobytes(),
        contract.MASK_FORMAT_NONE.encode(): lambda mask: b"",
    }
    try:
        return encoders[mask_format]
    except KeyError:
        raise InvalidArgumentError(
            f"unknown {contract.MASK_FORMAT.name} {mask_format[:40].decode('utf-8', 'replace')!r}; "
            f"allowed: {', '.join(contract.MASK_FORMATS)}"
        ) from None


def _encode_png(mask: BoolMask) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def decode_expressions(values: Sequence[bytes]) -> list[str]:
    """Return phrases from their UTF-8 bytes, or raise InvalidArgumentError naming the first that is none."""
    phrases = []
    for index, value in enumerate(values):
        try:
            phrases.append(value.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"phrase {index} is not UTF-8: {error}") from error
    return phrases


def chunks(count: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` that cover `count`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def load_stage(name: str, parameters: Mapping[str, str], weights: Path, device: str) -> Stage:
    """Build the stage `name` from its configuration parameters; pre- and postprocessing import no torch.

    weights: the stage's safetensors file; device: a torch device name.
    """
    preset = get_preset(parameters["preset"])
    if name == contract.PREPROCESS:
        return Preprocess(preset)
    if name == contract.TOKENIZER:
        return Tokenizer(preset)
    if name == contract.POSTPROCESS:
        return Postprocess(preset, Calibration.from_json(json.loads(parameters["calibration"])))
    from ssp_sam.serving.network_stages import load_network_stage

    return load_network_stage(name, preset, parameters, weights, device)
