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
    """Triton stage `mask_decoder`: the prompt tokens as sparse prompts, no dense prompt, one mask a phrase.

    The package's decoder takes many prompts of *one* image; this one takes phrases of many images in one call.
    """

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
        decoder, grid = self.decoder, self.config.grid
        phrases = prompt_tokens.shape[0]
        own_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])  # (1 + 4, D)
        tokens = torch.cat([own_tokens.expand(phrases, -1, -1), prompt_tokens], dim=1)  # (P, 5 + Q, D)
        source = (image_embedding + self.no_mask_embed.weight[..., None, None])[image_index]  # (P, D, G, G)
        position = self.pe_layer((grid, grid)).expand(phrases, -1, -1, -1)

        hidden, source = decoder.transformer(source, position, tokens)
        upscaled = decoder.output_upscaling(source.transpose(1, 2).unflatten(2, (grid, grid)))  # (P, D/8, 4G, 4G)
        # Token 0 answers IoU estimates, token 1 is the single mask; the other three are SAM's ambiguity outputs.
        kernel = decoder.output_hypernetworks_mlps[0](hidden[:, 1])  # (P, D/8)
        mask_logits = torch.einsum("pc,pchw->phw", kernel, upscaled)
        iou = decoder.iou_prediction_head(hidden[:, 0])[:, 0]
        return mask_logits, iou
