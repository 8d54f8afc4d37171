"""Write every array that the model computes on the way from one image and one phrase to a mask.

    python scripts/trace_model.py --preset b224 --checkpoint FILE.pth --image FILE.png --phrase TEXT --out FILE.npz

The arrays and their names are those of tests/goldens/README.md, whole. Everything is computed in float32 on the CPU:
this is how a published checkpoint is compared with the authors' own code.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ssp_sam.clip_checkpoint import load_published_stages
from ssp_sam.config import PRESETS, get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import SspSam
from ssp_sam.postprocess import RELEASE_SIDE_PX, box_xyxy_px, full_size_logits, full_size_mask
from ssp_sam.preprocess import prepare, read_image
from ssp_sam.tokenizer import tokenize


def main() -> int:
    """Return the exit code: 0 done, 1 a file does not fit; argparse itself exits with 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, required=True, help="the variant of the model")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="published .pth")
    parser.add_argument("--clip", type=Path, metavar="PATH", help="CLIP's own file or folder (default: the checkpoint)")
    parser.add_argument("--image", type=Path, required=True, metavar="FILE", help="an image file")
    parser.add_argument("--phrase", required=True, metavar="TEXT", help="what to segment")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .npz file to write")
    options = parser.parse_args()
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        model = load_model(options.preset, options.checkpoint, options.clip)
        arrays = trace(model, options.image, options.phrase)
        np.savez(options.out, **arrays)
    except (InvalidArgumentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, array in arrays.items():
        print(f"{name:20} {array.dtype!s:8} {tuple(array.shape)}")
    return 0


def load_model(preset_name: str, checkpoint: Path, clip: Path | None = None) -> SspSam:
    """Return the model of a published checkpoint, for inference in float32 on the CPU."""
    preset = get_preset(preset_name)
    model = SspSam(preset).eval().requires_grad_(False)
    for stage, parameters in load_published_stages(checkpoint, preset, clip).items():
        getattr(model, stage).load_state_dict(parameters)
    return model


def trace(model: SspSam, image_path: Path, phrase: str) -> dict[str, NDArray[Any]]:
    """Return all arrays of the golden files by name."""
    preset = model.preset
    image = read_image(image_path)
    inputs = prepare(image, preset)
    geometry = torch.from_numpy(inputs.geometry.to_array())[None]
    sam_hw, clip_hw, clip_offset = geometry[:, 1], geometry[:, 2], geometry[:, 3]
    sam_image, clip_image = torch.from_numpy(inputs.sam_image)[None], torch.from_numpy(inputs.clip_image)[None]
    token_ids = torch.from_numpy(tokenize([phrase], preset.text_positions))
    image_index = torch.zeros(1, dtype=torch.long)
    with torch.inference_mode():
        clip_tokens = model.clip_image_encoder(clip_image, clip_hw, clip_offset)
        text_embedding, word_embeddings = model.text_encoder(token_ids)
        prompts = model.ssp_prompt_generator(clip_tokens, token_ids, text_embedding, word_embeddings, image_index)
        image_embedding = model.sam_image_encoder(sam_image, sam_hw)
        mask_logits, iou = model.mask_decoder(image_embedding, prompts.prompt_tokens, image_index)
        normalized_clip = model.clip_image_encoder.normalize(clip_image, clip_hw, clip_offset)
        normalized_sam = model.sam_image_encoder.normalize(sam_image, sam_hw, torch.zeros_like(sam_hw))
        logits_512 = mask_logits[:, None]
        for side in (preset.sam.image_side_px, RELEASE_SIDE_PX):
            logits_512 = F.interpolate(logits_512, (side, side), mode="bilinear", align_corners=False)
    logits, side_px = mask_logits[0].numpy(), preset.sam.image_side_px
    box = prompts.box_cxcywh_norm.numpy()
    return {
        "image": np.asarray(image),
        "phrase": np.array(phrase),
        "token_ids": token_ids.numpy(),
        "clip_image": normalized_clip[0].numpy(),
        "sam_image": normalized_sam[0].numpy(),
        "image_embedding": image_embedding[0].numpy(),
        "clip_tokens": clip_tokens[0].numpy(),
        "text_embedding": text_embedding[0].numpy(),
        "word_embeddings": word_embeddings[0].numpy(),
        "phrase_attention": prompts.phrase_attention[0].numpy(),
        "prompt_tokens": prompts.prompt_tokens[0].numpy(),
        "pred_box_cxcywh": box[0],
        "pred_box_xyxy": box_xyxy_px(box, inputs.geometry, preset.clip.image_side_px)[0],
        "low_res_logits": logits,
        "iou": iou.numpy(),
        "logits_512": logits_512[0, 0].numpy(),
        "full_mask": np.packbits(full_size_mask(logits, inputs.geometry, side_px, 0.0)),
        "full_logits": full_size_logits(logits, inputs.geometry, side_px),
    }


if __name__ == "__main__":
    sys.exit(main())
