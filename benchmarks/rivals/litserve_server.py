"""The same predictor behind LitServe: `python -m benchmarks.rivals.litserve_server REPOSITORY PORT`."""

import base64
import os
import sys
from typing import Any

import litserve
import numpy as np
import torch

from ssp_sam.postprocess import interpret
from ssp_sam.predictor import Predictor
from ssp_sam.preprocess import decode_image, prepare
from ssp_sam.results import encode_rle
from ssp_sam.runtime import keep_freed_memory
from ssp_sam.tokenizer import tokenize

MAX_BATCH = 16
BATCH_TIMEOUT_S = 0.005


class SegmentApi(litserve.LitAPI):  # type: ignore[misc]
    """Computes the images of a batch together, and then its phrases."""

    def __init__(self, repository: str) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_S)
        self.repository = repository

    def setup(self, device: str) -> None:
        """Load the weights."""
        keep_freed_memory()
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.predictor = Predictor.from_repository(self.repository)

    def decode_request(self, request: dict[str, Any]) -> tuple[bytes, list[str]]:
        """Return image file and phrases."""
        return base64.b64decode(request["image"]), request["phrases"]

    def batch(self, inputs: list[tuple[bytes, list[str]]]) -> list[tuple[bytes, list[str]]]:
        """Leave them as they are: images differ in size."""
        return inputs

    def predict(self, inputs: list[tuple[bytes, list[str]]]) -> list[list[dict[str, Any]]]:
        """Answer a batch."""
        model, runtimes, preset = self.predictor.model, self.predictor.runtimes, self.predictor.preset
        prepared = [prepare(decode_image(image), preset) for image, _ in inputs]
        geometry = torch.from_numpy(np.stack([each.geometry.to_array() for each in prepared]))
        with runtimes["sam_image_encoder"]():
            sam_images = torch.from_numpy(np.stack([each.sam_image for each in prepared]))
            embeddings = model.sam_image_encoder(sam_images, geometry[:, 1]).float()
        with runtimes["clip_image_encoder"]():
            clip_images = torch.from_numpy(np.stack([each.clip_image for each in prepared]))
            clip_tokens = model.clip_image_encoder(clip_images, geometry[:, 2], geometry[:, 3]).float()
        counts = torch.tensor([len(phrases) for _, phrases in inputs])
        index = torch.repeat_interleave(torch.arange(len(inputs)), counts)
        token_ids = torch.from_numpy(tokenize([phrase for _, phrases in inputs for phrase in phrases]))
        with runtimes["text_encoder"]():
            text, words = model.text_encoder(token_ids)
        with runtimes["ssp_prompt_generator"]():
            prompts = model.ssp_prompt_generator(clip_tokens, token_ids, text.float(), words.float(), index)
        with runtimes["mask_decoder"]():
            logits, iou = model.mask_decoder(embeddings, prompts.prompt_tokens, index)
        answers, end = [], 0
        for each, count in zip(prepared, counts.tolist(), strict=True):
            own, end = slice(end, end + count), end + count
            found = interpret(
                logits[own].float().numpy(),
                prompts.box_cxcywh_norm[own].float().numpy(),
                iou[own].float().numpy(),
                each.geometry,
                sam_side_px=preset.sam.image_side_px,
                clip_side_px=preset.clip.image_side_px,
                calibration=self.predictor.calibration,
                mask_threshold=0.0,
            )
            answers.append(
                [
                    {"rle": encode_rle(f.mask).decode(), "score": f.score, "box_xyxy_px": f.box_xyxy_px.tolist()}
                    for f in found
                ]
            )
        return answers

    def unbatch(self, output: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """One answer a request."""
        return output

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what goes out as JSON."""
        return {"found": output}


if __name__ == "__main__":
    server = litserve.LitServer(SegmentApi(sys.argv[1]), accelerator="cpu", timeout=600)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
