"""The whole model: five stages, each a Triton model of its own when served."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from ssp_sam.config import Preset

if TYPE_CHECKING:
    from ssp_sam.modeling.clip_image import ClipImageEncoder
    from ssp_sam.modeling.clip_text import TextEncoder
    from ssp_sam.modeling.sam import MaskDecoder, SamImageEncoder
    from ssp_sam.modeling.ssp import Prompts, SspPromptGenerator


# A stage that is served alone imports only its own part: `segment_anything` takes time and memory.


def _sam_image_encoder(preset: Preset) -> SamImageEncoder:
    from ssp_sam.modeling.sam import SamImageEncoder

    return SamImageEncoder(preset.sam)


def _clip_image_encoder(preset: Preset) -> ClipImageEncoder:
    from ssp_sam.modeling.clip_image import ClipImageEncoder

    return ClipImageEncoder(preset.clip)


def _text_encoder(preset: Preset) -> TextEncoder:
    from ssp_sam.modeling.clip_text import TextEncoder

    return TextEncoder(preset.clip)


def _ssp_prompt_generator(preset: Preset) -> SspPromptGenerator:
    from ssp_sam.modeling.ssp import SspPromptGenerator

    return SspPromptGenerator(preset)


def _mask_decoder(preset: Preset) -> MaskDecoder:
    from ssp_sam.modeling.sam import MaskDecoder

    return MaskDecoder(preset.sam)


STAGES: dict[str, Callable[[Preset], nn.Module]] = {
    "sam_image_encoder": _sam_image_encoder,
    "clip_image_encoder": _clip_image_encoder,
    "text_encoder": _text_encoder,
    "ssp_prompt_generator": _ssp_prompt_generator,
    "mask_decoder": _mask_decoder,
}


class ModelOutput(NamedTuple):
    """mask_logits (P, 4G, 4G) over SAM's padded square, iou (P,), and what the SSP encoder wrote."""

    mask_logits: Tensor
    iou: Tensor
    prompts: Prompts


class SspSam(nn.Module):
    """SSP-SAM of one preset; its children are the stages, by their names in the model repository."""

    sam_image_encoder: SamImageEncoder
    clip_image_encoder: ClipImageEncoder
    text_encoder: TextEncoder
    ssp_prompt_generator: SspPromptGenerator
    mask_decoder: MaskDecoder

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        for name, build in STAGES.items():
            self.add_module(name, build(preset))

    def forward(
        self, sam_image: Tensor, clip_image: Tensor, geometry: Tensor, token_ids: Tensor, image_index: Tensor
    ) -> ModelOutput:
        """Segment P phrases in B images.

        sam_image: uint8 (B, 3, S, S); clip_image: uint8 (B, 3, R, R); geometry: int (B, 4, 2), see
        `ssp_sam.preprocess.Geometry`; token_ids: int (P, L); image_index: int (P,), the image of each phrase.
        """
        clip_tokens = self.clip_image_encoder(clip_image, geometry[:, 2], geometry[:, 3])
        text_embedding, word_embeddings = self.text_encoder(token_ids)
        prompts = self.ssp_prompt_generator(clip_tokens, token_ids, text_embedding, word_embeddings, image_index)
        image_embedding = self.sam_image_encoder(sam_image, geometry[:, 1])
        mask_logits, iou = self.mask_decoder(image_embedding, prompts.prompt_tokens, image_index)
        return ModelOutput(mask_logits, iou, prompts)
