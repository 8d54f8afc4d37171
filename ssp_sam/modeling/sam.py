"""SAM's image encoder and mask decoder, from the package `segment-anything`."""

from __future__ import annotations

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, TwoWayTransformer
from segment_anything.modeling import MaskDecoder as SamMaskDecoder
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from torch import Tensor, nn

from ssp_sam.config import SamConfig
from ssp_sam.modeling.images import PixelNormalizer
from ssp_sam.modeling.sam_decoder import SeenImage, decode, see
from ssp_sam.modeling.sam_vit import encode

SAM_MEAN_255 = (123.675, 116.28, 103.53)
SAM_STD_255 = (58.395, 57.12, 57.375)


class SamImageEncoder(nn.Module):
    """Triton stage `sam_image_encoder`."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.normalize = PixelNormalizer(SAM_MEAN_255, SAM_STD_255)
        self.vit = ImageEncoderViT(
            img_size=config.image_side_px,
            patch_size=config.patch_px,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=4,
            out_chans=config.out_channels,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=config.window,
            global_attn_indexes=config.global_blocks,
        )

    def forward(self, sam_image: Tensor, size_hw: Tensor) -> Tensor:
        """Return image_embedding (B, D, G, G).

        sam_image: uint8 (B, 3, S, S); size_hw: int (B, 2), the part in its top left that holds the image.
        """
        return encode(self.vit, self.normalize(sam_image, size_hw, torch.zeros_like(size_hw)))


class MaskDecoder(nn.Module):
    """Triton stage `mask_decoder`: the prompt tokens as sparse prompts, no dense prompt, one mask a phrase."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = SamMaskDecoder(
            transformer_dim=config.out_channels,
            transformer=TwoWayTransformer(
                depth=2,
                embedding_dim=config.out_channels,
                mlp_dim=config.decoder_mlp,
                num_heads=config.decoder_heads,
            ),
            iou_head_hidden_dim=config.iou_head_width,
        )
        self.pe_layer = PositionEmbeddingRandom(config.out_channels // 2)
        self.no_mask_embed = nn.Embedding(1, config.out_channels)

    def forward(self, image_embedding: Tensor, prompt_tokens: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return mask_logits (P, 4G, 4G) and iou (P,).

        image_embedding: (B, D, G, G); prompt_tokens: (P, Q, D); image_index: int (P,), the image of each phrase.
        """
        return self.decode(self.see(image_embedding), prompt_tokens, image_index)

    def see(self, image_embedding: Tensor) -> SeenImage:
        """Return what `decode` needs of images (B, D, G, G); it is the same for all phrases."""
        image = image_embedding + self.no_mask_embed.weight[..., None, None]  # no dense prompt
        return see(self.decoder, image, self._position())

    def decode(self, seen: SeenImage, prompt_tokens: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `forward` returns, of images that were seen."""
        return decode(self.decoder, seen, self._position(), prompt_tokens, image_index)

    def _position(self) -> Tensor:
        position: Tensor = self.pe_layer((self.config.grid, self.config.grid))[None]
        return position
