"""The contract between the models of the repository, and between them and their callers.

Every tensor is named here once, with its type, shape and meaning. The Triton configurations (`model_config.py`), the
stages, the orchestrator, the client and the load test all import these names. Shape letters: see `ssp_sam.config`.

All models batch over a leading dimension that `dims` leaves out: one row is one image. A dimension of -1 is the
number of phrases of that image (P) where the comment says so; it may differ between the rows that Triton puts into
one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ssp_sam.config import Preset

SEGMENT = "segment"
SEGMENT_ENSEMBLE = "segment_ensemble"
SEGMENT_PHRASES = "segment_phrases"
PREPROCESS = "preprocess"
SAM_IMAGE_ENCODER = "sam_image_encoder"
CLIP_IMAGE_ENCODER = "clip_image_encoder"
TEXT_ENCODER = "text_encoder"
SSP_PROMPT_GENERATOR = "ssp_prompt_generator"
MASK_DECODER = "mask_decoder"
POSTPROCESS = "postprocess"
STAGE_NAMES = (
    PREPROCESS,
    SAM_IMAGE_ENCODER,
    CLIP_IMAGE_ENCODER,
    TEXT_ENCODER,
    SSP_PROMPT_GENERATOR,
    MASK_DECODER,
    POSTPROCESS,
)
# Those that work on phrases, one after the other, once what depends on the image alone is known.
PHRASE_STAGES = (TEXT_ENCODER, SSP_PROMPT_GENERATOR, MASK_DECODER, POSTPROCESS)
# Those with a network; the others are pre- and postprocessing.
NETWORK_STAGES = STAGE_NAMES[1:-1]
# What the text encoder is made of where its network is not Python's.
TOKENIZER = "tokenizer"
TEXT_TOWER = "text_tower"

# What runs a model.
PYTHON, ONNXRUNTIME, ENSEMBLE = "python", "onnxruntime", "ensemble"
BACKENDS = (PYTHON, ONNXRUNTIME)
"""What can run the networks of a repository."""
# Images of a batch of an ONNX model that takes phrases: nothing cuts those into chunks there.
ONNX_PHRASE_BATCH = 4

# How a mask travels.
MASK_FORMAT_RLE = "rle"  # compressed COCO run-length counts
MASK_FORMAT_PNG = "png"  # a 1-bit PNG file
MASK_FORMAT_RAW = "raw"  # H * W bytes, 0 or 1, row by row
MASK_FORMAT_NONE = "none"  # empty: for callers who want boxes, scores or logits alone
MASK_FORMATS = (MASK_FORMAT_RLE, MASK_FORMAT_PNG, MASK_FORMAT_RAW, MASK_FORMAT_NONE)
DEFAULT_MASK_FORMAT = MASK_FORMAT_RLE
DEFAULT_MASK_THRESHOLD = 0.0

_NUMPY_DTYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "BYTES": np.object_,
}


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model; `dtype` is the client protocol's name, `dims` leave out the batch dimension."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    meaning: str
    optional: bool = False

    @property
    def numpy_dtype(self) -> npt.DTypeLike:
        """The numpy type of the tensor; object for BYTES."""
        return _NUMPY_DTYPES[self.dtype]


@dataclass(frozen=True)
class Model:
    """A model of the repository.

    uses_device: it computes a network, and does so on the GPU where there is one.
    instances: processes on a machine without GPU (or for a CPU-only model).
    max_batch_size: rows that Triton may put into one batch.
    backend: PYTHON, ONNXRUNTIME, or ENSEMBLE for one that joins others.
    steps: the names of the models that an ensemble joins, in the order in which data flows.
    """

    name: str
    summary: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int
    uses_device: bool = False
    instances: int = 1
    backend: str = PYTHON
    steps: tuple[str, ...] = ()


# --- what callers send and get ----------------------------------------------------------------------------------------

IMAGE = Tensor("image", "BYTES", (1,), "an image file (JPEG, PNG, WebP, BMP, TIFF or GIF), as it lies on disk")
IMAGE_ID = Tensor(
    "image_id",
    "BYTES",
    (1,),
    "SHA-256 of the file's bytes in hexadecimal: stands for an image sent before; empty in answers if it is not held",
)
EXPRESSIONS = Tensor("expressions", "BYTES", (-1,), "P phrases in UTF-8")
MASK_FORMAT = Tensor("mask_format", "BYTES", (1,), f"one of {', '.join(MASK_FORMATS)}")
MASK_THRESHOLD = Tensor("mask_threshold", "FP32", (1,), "a pixel belongs to the mask if its logit is above this (0)")

MASKS = Tensor("masks", "BYTES", (-1,), "P masks of the image's own size, in the format asked for")
BOX_XYXY_PX = Tensor("box_xyxy_px", "FP32", (-1, 4), "P boxes in pixels of the image; zeros where there is no target")
SCORE = Tensor("score", "FP32", (-1,), "P estimates of the masks' IoU, 0..1")
NO_TARGET = Tensor("no_target", "BOOL", (-1,), "P flags: nothing in the image is what the phrase says")
AREA_PX = Tensor("area_px", "INT64", (-1,), "P mask areas in pixels of the image")
IMAGE_SIZE = Tensor("image_size", "INT32", (2,), "height and width of the image in pixels")
TOKENS_NAME, PHRASE_ATTENTION_NAME, SPATIAL_ATTENTION_NAME = "tokens", "phrase_attention", "spatial_attention"

# --- between the stages -----------------------------------------------------------------------------------------------

GEOMETRY = Tensor(
    "geometry",
    "INT32",
    (4, 2),
    "rows: image (height, width), SAM input (h, w), CLIP input (h, w), CLIP offset (top, left)",
)
CHECKED_EXPRESSIONS = Tensor(
    "checked_expressions", "BYTES", (-1,), "the expressions, when all of the request is in order"
)
TOKEN_IDS_NAME = "token_ids"
BOX_CXCYWH_NORM = Tensor("box_cxcywh_norm", "FP32", (-1, 4), "P boxes (centre, size) in 0..1 of CLIP's padded square")
IOU = Tensor("iou", "FP32", (-1,), "P IoU estimates as SAM's decoder gives them")
SIMILARITY_PEAK = Tensor("similarity_peak", "FP32", (-1,), "P similarities of a phrase and the patch most like it")


def tokens(preset: Preset) -> Tensor:
    """The phrases as the text tower reads them."""
    dims = (-1, preset.text_positions)
    return Tensor(TOKENS_NAME, "BYTES", dims, "the text of each token of each phrase; empty for padding")


def phrase_attention(preset: Preset) -> Tensor:
    """How the linguistic adapter weighs tokens."""
    dims = (-1, preset.text_positions)
    return Tensor(PHRASE_ATTENTION_NAME, "FP32", dims, "how much each token counts for the phrase; sums to 1")


def token_ids(preset: Preset) -> Tensor:
    """The phrases as numbers."""
    return Tensor(TOKEN_IDS_NAME, "INT32", (-1, preset.text_positions), "P x L token ids; 0 is padding")


def sam_image(preset: Preset) -> Tensor:
    """The image as SAM sees it, before normalisation."""
    side = preset.sam.image_side_px
    return Tensor("sam_image", "UINT8", (3, side, side), "RGB, longest side S, padded right and below")


def clip_image(preset: Preset) -> Tensor:
    """The image as CLIP sees it, before normalisation."""
    side = preset.clip.image_side_px
    return Tensor("clip_image", "UINT8", (3, side, side), "RGB, longest side R, centred")


def image_embedding(preset: Preset, dtype: str) -> Tensor:
    """What SAM's image encoder answers; FP16 on the wire for 16-bit weights, which halves the copies."""
    dims = (preset.sam.out_channels, preset.sam.grid, preset.sam.grid)
    return Tensor("image_embedding", dtype, dims, "SAM's image embedding")


def clip_tokens(preset: Preset) -> Tensor:
    """What CLIP's image tower answers."""
    return Tensor(
        "clip_tokens", "FP32", (1 + preset.clip.patches, preset.clip.out_width), "class token, then N patches"
    )


def text_embedding(preset: Preset) -> Tensor:
    """The phrase as one vector."""
    return Tensor("text_embedding", "FP32", (-1, preset.clip.out_width), "P phrase vectors in CLIP's joint space")


def word_embeddings(preset: Preset) -> Tensor:
    """The phrase as a vector for each text position."""
    dims = (-1, preset.text_positions, preset.clip.text_width)
    return Tensor("word_embeddings", "FP32", dims, "P x L word vectors of CLIP's text tower")


def prompt_tokens(preset: Preset) -> Tensor:
    """What the SSP encoder writes for the mask decoder."""
    dims = (-1, preset.ssp.prompt_tokens, preset.sam.out_channels)
    return Tensor("prompt_tokens", "FP32", dims, "P x Q x D prompts for the mask decoder")


def spatial_attention(preset: Preset) -> Tensor:
    """Where the visual adapter looks."""
    dims = (-1, preset.clip.grid, preset.clip.grid)
    return Tensor(SPATIAL_ATTENTION_NAME, "FP32", dims, "P maps over CLIP's patches: where the phrase points")


def mask_logits(preset: Preset) -> Tensor:
    """The mask decoder's logits over SAM's padded square."""
    side = preset.sam.mask_side
    return Tensor("mask_logits", "FP32", (-1, side, side), "P logit maps over SAM's padded square (crop by geometry)")


def optional(tensor: Tensor) -> Tensor:
    """Return the same tensor as one that a caller may leave out."""
    return Tensor(tensor.name, tensor.dtype, tensor.dims, tensor.meaning, optional=True)


def stage_models(preset: Preset, embedding_dtype: str) -> tuple[Model, ...]:
    """Return the stages in the order in which data flows through them."""
    embedding = image_embedding(preset, embedding_dtype)
    return (
        Model(
            PREPROCESS,
            "checks a request, decodes and resizes its image",
            inputs=(IMAGE, optional(EXPRESSIONS), optional(MASK_FORMAT), optional(MASK_THRESHOLD)),
            outputs=(sam_image(preset), clip_image(preset), GEOMETRY, CHECKED_EXPRESSIONS),
            max_batch_size=8,
            instances=2,
        ),
        Model(
            SAM_IMAGE_ENCODER,
            "SAM's image encoder",
            inputs=(sam_image(preset), GEOMETRY),
            outputs=(embedding,),
            max_batch_size=8,
            uses_device=True,
        ),
        Model(
            CLIP_IMAGE_ENCODER,
            "CLIP's image tower with the second stream",
            inputs=(clip_image(preset), GEOMETRY),
            outputs=(clip_tokens(preset),),
            max_batch_size=8,
            uses_device=True,
        ),
        Model(
            TEXT_ENCODER,
            "tokenizer and CLIP's text tower",
            inputs=(EXPRESSIONS,),
            outputs=(token_ids(preset), text_embedding(preset), word_embeddings(preset), tokens(preset)),
            max_batch_size=16,
            uses_device=True,
        ),
        Model(
            SSP_PROMPT_GENERATOR,
            "the Semantic-Spatial Prompt encoder",
            inputs=(clip_tokens(preset), token_ids(preset), text_embedding(preset), word_embeddings(preset)),
            outputs=(
                prompt_tokens(preset),
                BOX_CXCYWH_NORM,
                SIMILARITY_PEAK,
                phrase_attention(preset),
                spatial_attention(preset),
            ),
            max_batch_size=16,
            uses_device=True,
        ),
        Model(
            MASK_DECODER,
            "SAM's mask decoder on the written prompts",
            inputs=(embedding, prompt_tokens(preset)),
            outputs=(mask_logits(preset), IOU),
            max_batch_size=16,
            uses_device=True,
        ),
        Model(
            POSTPROCESS,
            "masks and boxes of the image's own size",
            inputs=(
                mask_logits(preset),
                BOX_CXCYWH_NORM,
                IOU,
                SIMILARITY_PEAK,
                GEOMETRY,
                MASK_FORMAT,
                MASK_THRESHOLD,
            ),
            outputs=(MASKS, BOX_XYXY_PX, SCORE, NO_TARGET, AREA_PX, IMAGE_SIZE),
            max_batch_size=8,
            instances=2,
        ),
    )


def onnx_stage_models(preset: Preset, embedding_dtype: str) -> tuple[Model, ...]:
    """Return the stages where ONNX Runtime computes the networks; the tokenizer then is a model of its own."""
    models: list[Model] = []
    for model in stage_models(preset, embedding_dtype):
        if model.name == TEXT_ENCODER:
            models += _onnx_text_models(preset, model)
        elif model.uses_device:
            takes_phrases = any(-1 in tensor.dims for tensor in model.inputs)
            batch = ONNX_PHRASE_BATCH if takes_phrases else model.max_batch_size
            models.append(replace(model, backend=ONNXRUNTIME, max_batch_size=batch))
        else:
            models.append(model)
    return tuple(models)


def _onnx_text_models(preset: Preset, text_encoder: Model) -> tuple[Model, ...]:
    return (
        Model(
            TOKENIZER,
            "checks and tokenizes phrases",
            inputs=(EXPRESSIONS,),
            outputs=(token_ids(preset), tokens(preset)),
            max_batch_size=text_encoder.max_batch_size,
        ),
        Model(
            TEXT_TOWER,
            "CLIP's text tower",
            inputs=(token_ids(preset),),
            outputs=(text_embedding(preset), word_embeddings(preset)),
            max_batch_size=ONNX_PHRASE_BATCH,
            uses_device=True,
            backend=ONNXRUNTIME,
        ),
        replace(
            text_encoder,
            uses_device=False,
            backend=ENSEMBLE,
            steps=(TOKENIZER, TEXT_TOWER),
            max_batch_size=ONNX_PHRASE_BATCH,  # no more than any step of it
        ),
    )


def answer_tensors(preset: Preset) -> tuple[Tensor, ...]:
    """Return the outputs that both entry models give."""
    return (
        MASKS,
        BOX_XYXY_PX,
        SCORE,
        NO_TARGET,
        AREA_PX,
        IMAGE_SIZE,
        mask_logits(preset),
        tokens(preset),
        phrase_attention(preset),
        spatial_attention(preset),
    )


def of_phrases(preset: Preset) -> tuple[Tensor, ...]:
    """Return what callers send and get of each phrase; the rest is about the image or the request."""
    return tuple(tensor for tensor in (EXPRESSIONS, *answer_tensors(preset)) if tensor.dims[0] == -1)


def segment_model(preset: Preset) -> Model:
    """Return the main entry: it keeps image features, so an image that was sent before goes by its id."""
    return Model(
        SEGMENT,
        "an image, or the id of one sent before, and phrases -> masks",
        inputs=(optional(IMAGE), optional(IMAGE_ID), EXPRESSIONS, optional(MASK_FORMAT), optional(MASK_THRESHOLD)),
        outputs=(*answer_tensors(preset), IMAGE_ID),
        max_batch_size=1,
    )


def phrases_model(preset: Preset, embedding_dtype: str, stages: Iterable[Model]) -> Model:
    """Return what `segment` calls when it has the features of images; a call may have as many rows as any stage."""
    return Model(
        SEGMENT_PHRASES,
        "features of an image and phrases -> masks: the stages of phrases, joined by Triton itself",
        inputs=(
            image_embedding(preset, embedding_dtype),
            clip_tokens(preset),
            GEOMETRY,
            EXPRESSIONS,
            MASK_FORMAT,
            MASK_THRESHOLD,
        ),
        outputs=answer_tensors(preset),
        max_batch_size=min(stage.max_batch_size for stage in stages if stage.name in PHRASE_STAGES),
        backend=ENSEMBLE,
        steps=PHRASE_STAGES,
    )


def ensemble_model(preset: Preset) -> Model:
    """Return the declarative entry: stateless, all inputs required."""
    return Model(
        SEGMENT_ENSEMBLE,
        "the same stages without a feature cache, joined by Triton itself",
        inputs=(IMAGE, EXPRESSIONS, MASK_FORMAT, MASK_THRESHOLD),
        outputs=answer_tensors(preset),
        max_batch_size=1,
        backend=ENSEMBLE,
        steps=STAGE_NAMES,
    )


def all_models(preset: Preset, embedding_dtype: str, backend: str = PYTHON) -> Iterator[Model]:
    """Yield every model of a repository; backend: one of BACKENDS."""
    yield segment_model(preset)
    yield ensemble_model(preset)
    stages = (stage_models if backend == PYTHON else onnx_stage_models)(preset, embedding_dtype)
    yield phrases_model(preset, embedding_dtype, stages)
    yield from stages
