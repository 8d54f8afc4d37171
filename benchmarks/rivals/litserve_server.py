"""The same predictor behind LitServe: `python -m benchmarks.rivals.litserve_server REPOSITORY PORT`."""

import base64
import os
import sys
from typing import Any

import litserve
import numpy as np

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
        self.predictor = Predictor.from_repository(self.repository, threads=len(os.sched_getaffinity(0)))

    def decode_request(self, request: dict[str, Any]) -> tuple[bytes, list[str]]:
        """Return image file and phrases."""
        return base64.b64decode(request["image"]), request["phrases"]

    def batch(self, inputs: list[tuple[bytes, list[str]]]) -> list[tuple[bytes, list[str]]]:
        """Leave them as they are: images differ in size."""
        return inputs

    def predict(self, inputs: list[tuple[bytes, list[str]]]) -> list[list[dict[str, Any]]]:
        """Answer a batch."""
        networks, preset = self.predictor.networks, self.predictor.preset
        prepared = [prepare(decode_image(image), preset) for image, _ in inputs]
        geometry = np.stack([each.geometry.to_array() for each in prepared])
        sam_images = np.stack([each.sam_image for each in prepared])
        (embeddings,) = networks["sam_image_encoder"](sam_images, geometry[:, 1])
        clip_images = np.stack([each.clip_image for each in prepared])
        (clip_tokens,) = networks["clip_image_encoder"](clip_images, geometry[:, 2], geometry[:, 3])
        counts = [len(phrases) for _, phrases in inputs]
        index = np.repeat(np.arange(len(inputs)), counts)
        token_ids = tokenize([phrase for _, phrases in inputs for phrase in phrases], preset.text_positions)
        of_text = networks["text_encoder"](token_ids)
        prompt_tokens, boxes, *_, similarity = networks["ssp_prompt_generator"](clip_tokens, token_ids, *of_text, index)
        logits, iou = networks["mask_decoder"](embeddings, prompt_tokens, index)
        answers, end = [], 0
        for each, count in zip(prepared, counts, strict=True):
            own, end = slice(end, end + count), end + count
            found = interpret(
                logits[own],
                boxes[own],
                iou[own],
                similarity[own].max(axis=1),
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
