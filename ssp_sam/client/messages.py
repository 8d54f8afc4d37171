"""Requests and answers between Python values and Triton's tensors, as `ssp_sam.serving.contract` names them.

Every tensor carries a leading batch dimension of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerException, InferInput, InferRequestedOutput, InferResult

from ssp_sam.errors import InvalidArgumentError, SegmentationError, error_from_message
from ssp_sam.limits import check_threshold
from ssp_sam.results import BoolMask, Segmentation, decode_rle
from ssp_sam.serving import contract
from ssp_sam.serving.contract import Tensor

_ANSWER_NAMES = tuple(
    tensor.name
    for tensor in (
        contract.MASKS,
        contract.BOX_XYXY_PX,
        contract.SCORE,
        contract.NO_TARGET,
        contract.AREA_PX,
        contract.IMAGE_SIZE,
    )
)
_EXPLANATION_NAMES = (contract.TOKENS_NAME, contract.PHRASE_ATTENTION_NAME, contract.SPATIAL_ATTENTION_NAME)


@dataclass(frozen=True)
class Explanation:
    """What the model paid attention to for one phrase.

    segmentation: the answer for the phrase.
    tokens: the n tokens that the phrase was read as.
    token_attention: float32 (n,), how much each token counted; sums to 1.
    spatial_attention: float32 (g, g), where the phrase points, on a grid over the square that the image is padded to;
        the image lies in its middle and fills the longer side.
    """

    segmentation: Segmentation
    tokens: tuple[str, ...]
    token_attention: npt.NDArray[np.float32]
    spatial_attention: npt.NDArray[np.float32]


def build_inputs(source: bytes | str, phrases: Sequence[str], mask_threshold: float) -> list[InferInput]:
    """Return the tensors of a request.

    source: the image file as bytes, or the id of an image that the server holds as str.

    Raises `InvalidArgumentError` for values of a wrong type; limits of images and phrases are the server's to check.
    """
    check_threshold(mask_threshold)
    image = (contract.IMAGE, source) if isinstance(source, bytes) else (contract.IMAGE_ID, source.encode())
    return [
        _tensor(image[0], [image[1]]),
        _tensor(contract.EXPRESSIONS, encode_phrases(phrases)),
        _tensor(contract.MASK_FORMAT, [contract.MASK_FORMAT_RLE.encode()]),
        _tensor(contract.MASK_THRESHOLD, [mask_threshold]),
    ]


def encode_phrases(phrases: Sequence[str]) -> list[bytes]:
    """Return the phrases in UTF-8, or raise `InvalidArgumentError`."""
    if isinstance(phrases, str):
        raise InvalidArgumentError(f"phrases is a list of str; for one phrase pass [{phrases!r}]")
    if not isinstance(phrases, Sequence) or not all(isinstance(phrase, str) for phrase in phrases):
        raise InvalidArgumentError(f"phrases is a list of str, not {phrases!r}")
    if not phrases:
        raise InvalidArgumentError("phrases is empty; pass at least one phrase")
    try:
        return [phrase.encode() for phrase in phrases]
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"the phrase {error.object!r} is not valid Unicode text") from None


def build_outputs(*, with_image_id: bool, explain: bool) -> list[InferRequestedOutput]:
    """Return the outputs to ask for: what is not asked for is not sent."""
    names = list(_ANSWER_NAMES)
    if with_image_id:
        names.append(contract.IMAGE_ID.name)
    if explain:
        names += _EXPLANATION_NAMES
    return [InferRequestedOutput(name) for name in names]


def parse_segmentations(result: InferResult, phrases: Sequence[str]) -> list[Segmentation]:
    """Return the answers in the order of `phrases`; raise `SegmentationError` if they are not one a phrase."""
    masks, boxes, scores, no_targets, areas, size = (_row(result, name) for name in _ANSWER_NAMES)
    if len(masks) != len(phrases):
        raise SegmentationError(f"the server answered {len(masks)} masks for {len(phrases)} phrases")
    height, width = (int(side) for side in size)
    return [
        Segmentation(
            phrase=phrase,
            mask=_decode_mask(masks[i], height, width),
            box_xyxy_px=boxes[i].copy(),  # a view would be read-only and keep the whole answer in memory
            score=float(scores[i]),
            no_target=bool(no_targets[i]),
            area_px=int(areas[i]),
        )
        for i, phrase in enumerate(phrases)
    ]


def mask_pixels(result: InferResult) -> int:
    """Return how many pixels the masks of an answer have, all together."""
    height, width = (int(side) for side in _row(result, contract.IMAGE_SIZE.name))
    return height * width * len(_row(result, contract.NO_TARGET.name))


def parse_explanations(result: InferResult, phrases: Sequence[str]) -> list[Explanation]:
    """Return the answers with their attention, in the order of `phrases`."""
    tokens, token_attention, spatial_attention = (_row(result, name) for name in _EXPLANATION_NAMES)
    explanations = []
    for i, segmentation in enumerate(parse_segmentations(result, phrases)):
        present = tokens[i] != b""  # the rest is padding
        explanations.append(
            Explanation(
                segmentation=segmentation,
                tokens=tuple(token.decode(errors="replace") for token in tokens[i][present]),
                token_attention=token_attention[i][present],
                spatial_attention=spatial_attention[i].copy(),
            )
        )
    return explanations


def parse_image_id(result: InferResult) -> str:
    """Return the id under which the server now holds the image."""
    image_id: bytes = _row(result, contract.IMAGE_ID.name)[0]
    return image_id.decode()


def translate_error(error: InferenceServerException, url: str) -> SegmentationError:
    """Return the product's error for one of Triton's client.

    The tag that our models put into the message decides; without one the gRPC status does, and the message names `url`.
    """
    code = (error.status() or SegmentationError.code).removeprefix("StatusCode.")
    message = error.message() or "no details"
    translated = error_from_message(message, code)
    if translated.message != message:
        return translated
    return type(translated)(f"{url}: {message} ({code})")


def _tensor(tensor: Tensor, row: Sequence[object]) -> InferInput:
    data = np.array([row], dtype=tensor.numpy_dtype)  # (1, len(row))
    return InferInput(tensor.name, list(data.shape), tensor.dtype).set_data_from_numpy(data)


def _row(result: InferResult, name: str) -> npt.NDArray[Any]:
    batch: npt.NDArray[Any] | None = result.as_numpy(name)
    if batch is None:
        raise SegmentationError(f"the server's answer lacks the output {name!r}")
    row: npt.NDArray[Any] = batch[0]
    return row


def _decode_mask(counts: bytes, height: int, width: int) -> BoolMask:
    try:
        return decode_rle(counts, height, width)
    except ValueError as error:
        raise SegmentationError(f"the server's answer holds a malformed mask: {error}") from error
