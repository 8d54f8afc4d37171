"""In process: an image and phrases -> what the phrases refer to. The reference that the server is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ssp_sam.checkpoint import load_stage_module
from ssp_sam.config import Preset, get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import STAGES, SspSam
from ssp_sam.postprocess import Calibration, interpret
from ssp_sam.preprocess import Geometry, ImageInput, prepare, read_image
from ssp_sam.results import Segmentation
from ssp_sam.runtime import default_device, stage_runtime
from ssp_sam.serving.contract import PYTHON
from ssp_sam.serving.repository import Manifest, weights_path
from ssp_sam.tokenizer import tokenize


class ImageFeatures(NamedTuple):
    """What depends on the image alone: image_embedding (1, D, G, G), clip_tokens (1, 1+N, C), geometry."""

    image_embedding: Tensor
    clip_tokens: Tensor
    geometry: Geometry


class Predictor:
    """SSP-SAM in process.

    It keeps no state between calls, so threads may share it.

    Args:
        model: is taken over: moved to the device, with weights in the precision of their products.
        calibration: of the checkpoint.
        device: a torch device name; the default is the GPU where there is one.
        dtype: one of `ssp_sam.runtime.DTYPES`, as in a repository's manifest.
        embedding_dtype: the precision in which image embeddings are kept; a repository's is that of its wire.
    """

    def __init__(
        self,
        model: SspSam,
        *,
        calibration: Calibration | None = None,
        device: str | None = None,
        dtype: str = "auto",
        embedding_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.preset: Preset = model.preset
        self.device = torch.device(device or default_device())
        self.runtimes = {stage: stage_runtime(stage, self.preset, str(self.device), dtype) for stage in STAGES}
        for stage, runtime in self.runtimes.items():
            runtime.place(model.get_submodule(stage))
        self.model = model
        self.calibration = calibration or Calibration()
        self.embedding_dtype = embedding_dtype

    @classmethod
    def from_repository(cls, path: str | Path, *, device: str | None = None) -> Predictor:
        """Load the weights of a served model repository.

        device: a torch device name; the default is the GPU where there is one. Raises InvalidArgumentError if `path`
        is no repository, its weights do not fit its preset, or they are ONNX files.
        """
        manifest = Manifest.read(path)
        if manifest.backend != PYTHON:
            raise InvalidArgumentError(
                f"{path} holds networks for the backend {manifest.backend}; in process, a repository built with "
                f"--backend {PYTHON} is needed"
            )
        preset = get_preset(manifest.preset)
        with torch.device("meta"):
            model = SspSam(preset)
        for stage in STAGES:
            setattr(model, stage, load_stage_module(stage, preset, weights_path(path, stage)))
        return cls(
            model,
            calibration=manifest.calibration,
            device=device,
            dtype=manifest.dtype,
            embedding_dtype=torch.float16 if manifest.embedding_dtype == "FP16" else torch.float32,
        )

    def encode_image(self, image: ImageInput) -> ImageFeatures:
        """Compute what depends on the image alone, to be used with any number of phrases later.

        image: RGB uint8 array (H, W, 3), Pillow image, path, or the bytes of an image file. Raises
        InvalidArgumentError.
        """
        inputs = prepare(read_image(image), self.preset)
        geometry = torch.from_numpy(inputs.geometry.to_array())[None].to(self.device)
        sam_image = torch.from_numpy(inputs.sam_image)[None].to(self.device)
        clip_image = torch.from_numpy(inputs.clip_image)[None].to(self.device)
        with self.runtimes["sam_image_encoder"]():
            embedding = self.model.sam_image_encoder(sam_image, geometry[:, 1])
        with self.runtimes["clip_image_encoder"]():
            clip_tokens = self.model.clip_image_encoder(clip_image, geometry[:, 2], geometry[:, 3])
        return ImageFeatures(embedding.to(self.embedding_dtype), clip_tokens.float(), inputs.geometry)

    def segment(
        self, image: ImageInput | ImageFeatures, phrases: Sequence[str], *, mask_threshold: float = 0.0
    ) -> list[Segmentation]:
        """Return what each phrase refers to, in the order of the phrases.

        image: as for `encode_image`, or its answer. A pixel belongs to a mask if its logit is above `mask_threshold`.
        Raises InvalidArgumentError for an image or a phrase that cannot be used.
        """
        token_ids = torch.from_numpy(tokenize(phrases))
        features = image if isinstance(image, ImageFeatures) else self.encode_image(image)
        answers: list[Segmentation] = []
        for start in range(0, len(phrases), self.preset.phrases_per_chunk):
            chunk = slice(start, start + self.preset.phrases_per_chunk)
            answers += self._segment_chunk(features, phrases[chunk], token_ids[chunk], mask_threshold)
        return answers

    def _segment_chunk(
        self, features: ImageFeatures, phrases: Sequence[str], token_ids: Tensor, mask_threshold: float
    ) -> Iterator[Segmentation]:
        model, token_ids = self.model, token_ids.to(self.device)
        image_index = torch.zeros(len(phrases), dtype=torch.long, device=self.device)
        with self.runtimes["text_encoder"]():
            text_embedding, word_embeddings = model.text_encoder(token_ids)
        with self.runtimes["ssp_prompt_generator"]():
            prompts = model.ssp_prompt_generator(
                features.clip_tokens, token_ids, text_embedding.float(), word_embeddings.float(), image_index
            )
        with self.runtimes["mask_decoder"]():
            mask_logits, iou = model.mask_decoder(features.image_embedding.float(), prompts.prompt_tokens, image_index)
        found = interpret(
            mask_logits.float().cpu().numpy(),
            prompts.box_cxcywh_norm.float().cpu().numpy(),
            iou.float().cpu().numpy(),
            features.geometry,
            sam_side_px=self.preset.sam.image_side_px,
            clip_side_px=self.preset.clip.image_side_px,
            calibration=self.calibration,
            mask_threshold=mask_threshold,
        )
        for phrase, answer in zip(phrases, found, strict=True):
            yield Segmentation(phrase, answer.mask, answer.box_xyxy_px, answer.score, answer.no_target, answer.area_px)
