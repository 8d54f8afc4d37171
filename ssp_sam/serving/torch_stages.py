"""The stages that compute with torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ssp_sam.checkpoint import load_stage_module
from ssp_sam.config import Preset
from ssp_sam.errors import SegmentationError
from ssp_sam.runtime import Runtime, keep_freed_memory, set_cpu_threads, stage_runtime
from ssp_sam.serving import contract
from ssp_sam.serving.stages import (
    Answer,
    Array,
    Row,
    Stage,
    check_phrase_counts,
    chunks,
    decode_expressions,
    encoded_tokens,
)
from ssp_sam.tokenizer import tokenize


class TorchStage(Stage):
    """A stage with a network: it lies on `runtime.device` and computes under `runtime`."""

    def __init__(self, module: nn.Module, preset: Preset, runtime: Runtime) -> None:
        self.module = module
        self.preset = preset
        self.runtime = runtime

    def to_device(self, array: Array) -> torch.Tensor:
        """Return the array as a tensor on the device of the network."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.runtime.device, non_blocking=True)


def _to_numpy(tensor: torch.Tensor, dtype: type[np.generic] = np.float32) -> Array:
    return tensor.float().cpu().numpy().astype(dtype, copy=False)


class SamImageEncoderStage(TorchStage):
    """sam_image -> image_embedding, all rows at once."""

    def __init__(self, module: nn.Module, preset: Preset, runtime: Runtime, embedding_dtype: str) -> None:
        super().__init__(module, preset, runtime)
        self.output = contract.image_embedding(preset, embedding_dtype)

    def run(self, rows: Sequence[Row]) -> list[Answer]:
        """Answer each row, in order."""
        images = self.to_device(np.stack([row[contract.sam_image(self.preset).name] for row in rows]))
        geometry = self.to_device(np.stack([row[contract.GEOMETRY.name] for row in rows]))
        with self.runtime():
            embeddings = self.module(images, geometry[:, 1])
        dtype = np.float16 if self.output.dtype == "FP16" else np.float32
        return [{self.output.name: embedding} for embedding in _to_numpy(embeddings, dtype)]


class ClipImageEncoderStage(TorchStage):
    """clip_image -> clip_tokens, all rows at once."""

    def run(self, rows: Sequence[Row]) -> list[Answer]:
        """Answer each row, in order."""
        images = self.to_device(np.stack([row[contract.clip_image(self.preset).name] for row in rows]))
        geometry = self.to_device(np.stack([row[contract.GEOMETRY.name] for row in rows]))
        with self.runtime():
            tokens = self.module(images, geometry[:, 2], geometry[:, 3])
        return [{contract.clip_tokens(self.preset).name: row} for row in _to_numpy(tokens)]


class PhraseStage(TorchStage):
    """A stage that computes the phrases of all rows together, `preset.phrases_per_chunk` at a time."""

    def run(self, rows: Sequence[Row]) -> list[Answer]:
        """Answer each row, in order."""
        prepared: list[Row | SegmentationError] = []
        for row in rows:
            try:
                prepared.append(self.prepare(row))
            except SegmentationError as error:
                prepared.append(error)
        good = [row for row in prepared if not isinstance(row, SegmentationError)]
        answers = iter(self._run_prepared(good) if good else [])
        return [row if isinstance(row, SegmentationError) else next(answers) for row in prepared]

    def prepare(self, row: Row) -> Row:
        """Check a row; returns what `compute` works on."""
        check_phrase_counts(row, self.per_phrase)
        return row

    per_phrase: tuple[str, ...]
    per_image: tuple[str, ...] = ()

    @abstractmethod
    def compute(self, phrases: Mapping[str, torch.Tensor], images: Mapping[str, torch.Tensor]) -> dict[str, Array]:
        """Answer a chunk of phrases.

        phrases: the `per_phrase` inputs, and `image_index`, an integer (P,) into the rows of `images`; images: the
        `per_image` inputs, one row an image.
        """

    def _run_prepared(self, rows: Sequence[Row]) -> list[Answer]:
        counts = [len(row[self.per_phrase[0]]) for row in rows]
        image_index = np.repeat(np.arange(len(rows)), counts)
        phrases = {name: np.concatenate([row[name] for row in rows]) for name in self.per_phrase}
        parts = []
        for chunk in chunks(len(image_index), self.preset.phrases_per_chunk):
            # Only the images of this chunk: the rows may hold more of them than fit beside its phrases.
            first, last = int(image_index[chunk][0]), int(image_index[chunk][-1]) + 1
            images = {
                name: self.to_device(np.stack([row[name] for row in rows[first:last]])) for name in self.per_image
            }
            inputs = {name: self.to_device(values[chunk]) for name, values in phrases.items()}
            inputs["image_index"] = self.to_device(image_index[chunk] - first)
            with self.runtime():
                parts.append(self.compute(inputs, images))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        ends = np.cumsum(counts)
        return [
            {name: values[end - count : end] for name, values in joined.items()}
            for count, end in zip(counts, ends, strict=True)
        ]


class TextEncoderStage(PhraseStage):
    """expressions -> token_ids, text_embedding, word_embeddings, tokens."""

    per_phrase = (contract.TOKEN_IDS.name,)

    def prepare(self, row: Row) -> Row:
        """Tokenize the phrases of a row."""
        return {contract.TOKEN_IDS.name: tokenize(decode_expressions(row[contract.EXPRESSIONS.name].tolist()))}

    def compute(self, phrases: Mapping[str, torch.Tensor], images: Mapping[str, torch.Tensor]) -> dict[str, Array]:
        """Answer a chunk of phrases."""
        token_ids = phrases[contract.TOKEN_IDS.name]
        text_embedding, word_embeddings = self.module(token_ids)
        ids = token_ids.cpu().numpy()
        return {
            contract.TOKEN_IDS.name: ids,
            contract.text_embedding(self.preset).name: _to_numpy(text_embedding),
            contract.word_embeddings(self.preset).name: _to_numpy(word_embeddings),
            contract.TOKENS.name: encoded_tokens(ids),
        }


class SspPromptGeneratorStage(PhraseStage):
    """CLIP features of image and phrase -> prompt_tokens, box, attention maps."""

    def __init__(self, module: nn.Module, preset: Preset, runtime: Runtime) -> None:
        super().__init__(module, preset, runtime)
        self.per_image = (contract.clip_tokens(preset).name,)
        self.per_phrase = (
            contract.TOKEN_IDS.name,
            contract.text_embedding(preset).name,
            contract.word_embeddings(preset).name,
        )

    def compute(self, phrases: Mapping[str, torch.Tensor], images: Mapping[str, torch.Tensor]) -> dict[str, Array]:
        """Answer a chunk of phrases."""
        (clip_tokens,) = (images[name] for name in self.per_image)
        prompts = self.module(clip_tokens, *(phrases[name] for name in self.per_phrase), phrases["image_index"])
        grid = self.preset.clip.grid
        return {
            contract.prompt_tokens(self.preset).name: _to_numpy(prompts.prompt_tokens),
            contract.BOX_CXCYWH_NORM.name: _to_numpy(prompts.box_cxcywh_norm),
            contract.PHRASE_ATTENTION.name: _to_numpy(prompts.phrase_attention),
            contract.spatial_attention(self.preset).name: _to_numpy(prompts.spatial_attention).reshape(-1, grid, grid),
        }


class MaskDecoderStage(PhraseStage):
    """image_embedding and prompt_tokens -> mask_logits, iou."""

    def __init__(self, module: nn.Module, preset: Preset, runtime: Runtime) -> None:
        super().__init__(module, preset, runtime)
        self.per_image = (contract.image_embedding(preset, "FP32").name,)
        self.per_phrase = (contract.prompt_tokens(preset).name,)

    def compute(self, phrases: Mapping[str, torch.Tensor], images: Mapping[str, torch.Tensor]) -> dict[str, Array]:
        """Answer a chunk of phrases."""
        image_embedding, prompt_tokens = images[self.per_image[0]].float(), phrases[self.per_phrase[0]]
        mask_logits, iou = self.module(image_embedding, prompt_tokens, phrases["image_index"])
        return {contract.mask_logits(self.preset).name: _to_numpy(mask_logits), contract.IOU.name: _to_numpy(iou)}


_STAGES: dict[str, Callable[..., TorchStage]] = {
    contract.SAM_IMAGE_ENCODER: SamImageEncoderStage,
    contract.CLIP_IMAGE_ENCODER: ClipImageEncoderStage,
    contract.TEXT_ENCODER: TextEncoderStage,
    contract.SSP_PROMPT_GENERATOR: SspPromptGeneratorStage,
    contract.MASK_DECODER: MaskDecoderStage,
}


def load_torch_stage(
    name: str, preset: Preset, parameters: Mapping[str, str], weights: Path, device: str
) -> TorchStage:
    """Build the stage `name`, load its weights and put it on `device`."""
    keep_freed_memory()
    set_cpu_threads(parameters["threads"])
    runtime = stage_runtime(name, preset, device, parameters["dtype"])
    module = runtime.place(load_stage_module(name, preset, weights))
    if name == contract.SAM_IMAGE_ENCODER:
        return SamImageEncoderStage(module, preset, runtime, parameters["embedding_dtype"])
    return _STAGES[name](module, preset, runtime)
