"""Presets: the sizes of every variant of the model, as data.

Shape letters, the same in all of the code:

====  ==========================================================================
B     images of a batch
P     phrases of a batch (of all images together)
L     text positions: 77, or as many as the preset says
N     image patches of the CLIP encoder
C     width of CLIP's joint image and text space
T     width of CLIP's text tower
W     working width of the SSP encoder
Q     prompt tokens that the SSP encoder writes for the mask decoder
D     width of a prompt token, which is SAM's number of embedding channels
G     side of SAM's embedding grid; the mask decoder answers 4G x 4G logits
S     side of SAM's square input in pixels
R     side of CLIP's square input in pixels
====  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ssp_sam.errors import InvalidArgumentError

CONTEXT_LENGTH = 77
VOCABULARY_SIZE = 49408


@dataclass(frozen=True)
class ClipConfig:
    """CLIP's image and text towers. The last `surgery_layers` image blocks carry the second stream."""

    image_side_px: int
    patch_px: int
    width: int
    layers: int
    heads: int
    out_width: int
    text_width: int
    text_layers: int
    text_heads: int
    surgery_layers: int = 6

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_side_px // self.patch_px

    @property
    def patches(self) -> int:
        """N, the number of image patches."""
        return self.grid**2


@dataclass(frozen=True)
class SamConfig:
    """SAM's image encoder and mask decoder."""

    image_side_px: int
    patch_px: int
    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int
    out_channels: int = 256
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    iou_head_width: int = 256

    @property
    def grid(self) -> int:
        """G, the side of the embedding grid."""
        return self.image_side_px // self.patch_px

    @property
    def mask_side(self) -> int:
        """Side of the mask decoder's logits."""
        return 4 * self.grid


@dataclass(frozen=True)
class SspConfig:
    """The Semantic-Spatial Prompt encoder; its prompt width is the mask decoder's."""

    width: int = 512
    attention_heads: int = 8
    prompt_tokens: int = 128
    layers: int = 6
    heads: int = 8
    ffn: int = 2048


@dataclass(frozen=True)
class Preset:
    """One variant of the model.

    `text_positions`: as many tokens a phrase may have, start, full stop and end counted. Every phrase is filled up to
    them, and the SSP encoder's GRU reads what it is filled with, so they have to be those that the weights were trained
    with.
    `phrases_per_chunk` bounds memory: stages work on at most that many phrases at once.
    `cpu_runtimes`: for a stage that need not compute as "torch fp32" on a CPU, what it may compute as, the fastest
    first: an engine ("torch", "openvino") and the precision of matrix products ("fp32", "bf16", "fp16"; in OpenVINO
    "int8"). Here stands what `scripts/compare_runtimes.py` lets pass.
    """

    name: str
    clip: ClipConfig
    sam: SamConfig
    ssp: SspConfig = field(default_factory=SspConfig)
    text_positions: int = CONTEXT_LENGTH
    phrases_per_chunk: int = 8
    cpu_runtimes: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {"sam_image_encoder": ("openvino bf16", "openvino int8", "openvino fp32", "torch bf16")}
    )


def _sam_vit_h() -> SamConfig:
    return SamConfig(
        image_side_px=1024, patch_px=16, width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31), window=14
    )


def _clip_b224() -> ClipConfig:
    return ClipConfig(
        image_side_px=224,
        patch_px=16,
        width=768,
        layers=12,
        heads=12,
        out_width=512,
        text_width=512,
        text_layers=12,
        text_heads=8,
    )


def _sam_mini() -> SamConfig:
    return SamConfig(image_side_px=1024, patch_px=16, width=64, depth=2, heads=2, global_blocks=(1,), window=14)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        # Our own small checkpoint, in the repository.
        Preset(
            name="tiny",
            clip=ClipConfig(
                image_side_px=256,
                patch_px=16,
                width=192,
                layers=19,
                heads=3,
                out_width=192,
                text_width=192,
                text_layers=5,
                text_heads=3,
                surgery_layers=2,
            ),
            sam=SamConfig(
                image_side_px=256,
                patch_px=8,
                width=128,
                depth=11,
                heads=4,
                global_blocks=(3, 5, 7, 10),
                window=8,
                out_channels=128,
                decoder_heads=4,
                decoder_mlp=512,
                iou_head_width=128,
            ),
            ssp=SspConfig(width=256, attention_heads=4, prompt_tokens=16, layers=3, heads=4, ffn=512),
            text_positions=28,
            phrases_per_chunk=32,
            cpu_runtimes={
                "sam_image_encoder": ("openvino bf16", "openvino int8", "openvino fp32", "torch bf16"),
                "clip_image_encoder": ("openvino bf16", "openvino int8", "openvino fp32", "torch bf16"),
                "text_encoder": ("openvino bf16", "openvino fp32", "torch bf16"),
                "ssp_prompt_generator": ("openvino bf16", "openvino int8", "openvino fp32"),
                "mask_decoder": ("openvino bf16", "openvino fp32"),
            },
        ),
        # The published variants.
        Preset(
            name="b224",
            clip=_clip_b224(),
            sam=_sam_vit_h(),
        ),
        Preset(
            name="l336",
            clip=ClipConfig(
                image_side_px=336,
                patch_px=14,
                width=1024,
                layers=24,
                heads=16,
                out_width=768,
                text_width=768,
                text_layers=12,
                text_heads=12,
            ),
            sam=_sam_vit_h(),
        ),
        # Full size with SAM's smallest published encoder: nobody published it, it is for measuring.
        Preset(
            name="b224_vit_b",
            clip=_clip_b224(),
            sam=replace(_sam_vit_h(), width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)),
        ),
        # The published variants with reduced CLIP and SAM encoders: they prove parity without gigabytes of weights.
        Preset(
            name="mini224",
            clip=ClipConfig(
                image_side_px=224,
                patch_px=16,
                width=128,
                layers=8,
                heads=2,
                out_width=512,
                text_width=512,
                text_layers=2,
                text_heads=8,
            ),
            sam=_sam_mini(),
        ),
        Preset(
            name="mini336",
            clip=ClipConfig(
                image_side_px=336,
                patch_px=14,
                width=128,
                layers=8,
                heads=2,
                out_width=768,
                text_width=768,
                text_layers=2,
                text_heads=12,
            ),
            sam=_sam_mini(),
        ),
    )
}


def get_preset(name: str) -> Preset:
    """Return the preset called `name`, or raise `InvalidArgumentError` naming the known ones."""
    try:
        return PRESETS[name]
    except KeyError:
        raise InvalidArgumentError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}") from None
