"""The networks of the stages as ONNX files, with the tensors of the contract: for runtimes that are not PyTorch.

A file takes any number of images and, where phrases come in, any number of them an image (the same for all images of a
call: ONNX tensors are not ragged).
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssp_sam.config import VOCABULARY_SIZE, Preset
from ssp_sam.preprocess import geometry_of
from ssp_sam.serving import contract

IMAGES, PHRASES = "images", "phrases"  # names of the dynamic dimensions in a file
EXAMPLE_IMAGES, EXAMPLE_PHRASES = 2, 3  # both above 1: the exporter takes 0 and 1 for constants


class _Graph(nn.Module):
    """The network of a stage, from and to tensors of the contract with a dimension of images in front."""

    def __init__(self, network: nn.Module, preset: Preset, embedding_dtype: str) -> None:
        super().__init__()
        self.network, self.preset = network, preset
        self.embedding_dtype = {"FP16": torch.float16, "FP32": torch.float32}[embedding_dtype]

    @abstractmethod
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map the model's inputs to its outputs, both in the order of the contract."""


class _SamImageEncoder(_Graph):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        sam_image, geometry = inputs
        return (self.network(sam_image, geometry[:, 1]).to(self.embedding_dtype),)


class _ClipImageEncoder(_Graph):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        clip_image, geometry = inputs
        return (self.network(clip_image, geometry[:, 2], geometry[:, 3]),)


class _TextTower(_Graph):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (token_ids,) = inputs
        text_embedding, word_embeddings = self.network(token_ids.flatten(0, 1))
        return _by_image(text_embedding, token_ids), _by_image(word_embeddings, token_ids)


class _SspPromptGenerator(_Graph):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        clip_tokens, token_ids, text_embedding, word_embeddings = inputs
        per_phrase = (values.flatten(0, 1) for values in (token_ids, text_embedding, word_embeddings))
        prompts = self.network(clip_tokens, *per_phrase, _image_index(token_ids))
        grid = self.preset.clip.grid
        answers = (
            prompts.prompt_tokens,
            prompts.box_cxcywh_norm,
            prompts.similarity.amax(dim=1),
            prompts.phrase_attention,
            prompts.spatial_attention.view(-1, grid, grid),
        )
        return tuple(_by_image(answer, token_ids) for answer in answers)


class _MaskDecoder(_Graph):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        image_embedding, prompt_tokens = inputs
        index = _image_index(prompt_tokens)
        mask_logits, iou = self.network(image_embedding.float(), prompt_tokens.flatten(0, 1), index)
        return _by_image(mask_logits, prompt_tokens), _by_image(iou, prompt_tokens)


_GRAPHS: dict[str, type[_Graph]] = {
    contract.SAM_IMAGE_ENCODER: _SamImageEncoder,
    contract.CLIP_IMAGE_ENCODER: _ClipImageEncoder,
    contract.TEXT_TOWER: _TextTower,
    contract.SSP_PROMPT_GENERATOR: _SspPromptGenerator,
    contract.MASK_DECODER: _MaskDecoder,
}


def _image_index(per_phrase: Tensor) -> Tensor:
    """Return (B * P,), the image of each phrase of a tensor (B, P, ...)."""
    images, phrases = per_phrase.shape[:2]
    return torch.arange(images, device=per_phrase.device)[:, None].expand(images, phrases).flatten()


def _by_image(values: Tensor, per_phrase: Tensor) -> Tensor:
    """Bring (B * P, ...) into the leading dimensions of a tensor (B, P, ...)."""
    return values.view(*per_phrase.shape[:2], *values.shape[1:])


@dataclass(frozen=True)
class OnnxGraph:
    """A model of the contract as a module with that model's inputs and outputs, in eval mode."""

    model: contract.Model
    module: nn.Module

    def export(self, path: Path, preset: Preset) -> None:
        """Write the graph with its parameters; a file beside it takes those of more than 2 GB.

        Needs the packages `onnx` and `onnxscript`.
        """
        inputs = example_inputs(self.model, preset)
        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.inference_mode(), _quiet():
            torch.onnx.export(
                self.module,
                tuple(inputs.values()),
                path,
                input_names=list(inputs),
                output_names=[tensor.name for tensor in self.model.outputs],
                dynamic_shapes=(tuple(_dynamic(tensor) for tensor in self.model.inputs),),
                external_data=_parameter_bytes(self.module) > 2**31 - 2**27,  # what protobuf can hold, less the graph
                verbose=False,
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says of its own inside; its errors are raised all the same."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _dynamic(tensor: contract.Tensor) -> dict[int, Any]:
    return {0: IMAGES} | {1 + axis: PHRASES for axis, size in enumerate(tensor.dims) if size == -1}


def _parameter_bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def example_inputs(
    model: contract.Model, preset: Preset, *, images: int = EXAMPLE_IMAGES, phrases: int = EXAMPLE_PHRASES
) -> dict[str, Tensor]:
    """Return random inputs of a model by name, the same at every call: such as it may meet, where that matters."""
    generator = torch.Generator().manual_seed(0)

    def drawn(tensor: contract.Tensor) -> Tensor:
        shape = [images, *(phrases if size == -1 else size for size in tensor.dims)]
        if tensor == contract.GEOMETRY:
            sizes_hw = [(480 + 60 * number, 640 - 90 * number) for number in range(images)]
            return torch.stack([torch.from_numpy(geometry_of(hw, preset).to_array()) for hw in sizes_hw])
        if tensor.name == contract.TOKEN_IDS_NAME:
            return _token_ids(shape, generator)
        if tensor.dtype == "UINT8":
            return torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        dtype = {"FP16": torch.float16, "FP32": torch.float32}[tensor.dtype]
        return torch.randn(shape, generator=generator).to(dtype)

    return {tensor.name: drawn(tensor) for tensor in model.inputs}


def _token_ids(shape: list[int], generator: torch.Generator) -> Tensor:
    """Return phrases of 3 and more random tokens between the token of the start and that of the end."""
    ids = torch.randint(1, VOCABULARY_SIZE - 2, shape, generator=generator, dtype=torch.int32)
    ids[..., 0] = VOCABULARY_SIZE - 2
    lengths = torch.randint(4, shape[-1], shape[:-1], generator=generator)[..., None]
    place = torch.arange(shape[-1])
    ids = ids.masked_fill(place == lengths, VOCABULARY_SIZE - 1)
    return ids.masked_fill(place > lengths, 0)


def onnx_graph(stage: str, network: nn.Module, preset: Preset, embedding_dtype: str) -> OnnxGraph:
    """Return the graph of a stage's network. embedding_dtype: "FP16" or "FP32", in which image embeddings travel."""
    name = contract.TEXT_TOWER if stage == contract.TEXT_ENCODER else stage
    (model,) = (model for model in contract.onnx_stage_models(preset, embedding_dtype) if model.name == name)
    return OnnxGraph(model, _GRAPHS[name](network, preset, embedding_dtype).eval())
