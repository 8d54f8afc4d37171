"""A model's raw answers to held-out scenes, reduced to what metrics and calibration need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from ssp_sam.data import Expression
from ssp_sam.evaluation.metrics import Overlap
from ssp_sam.modeling.ssp_sam import SspSam
from ssp_sam.postprocess import Calibration, area_px512, full_size_mask
from ssp_sam.preprocess import UInt8Array, prepare
from ssp_sam.tokenizer import tokenize


@dataclass(frozen=True)
class Answer:
    """What the model said to one phrase, before any calibration.

    kind: of the phrase; overlap: of its mask (logits above 0, at the image's own size) with the truth;
    raw_iou: the mask decoder's own estimate; similarity_peak: how like the phrase the patch is that is most like it;
    original_hw: the image's size in pixels.
    """

    kind: str
    overlap: Overlap
    raw_iou: float
    similarity_peak: float
    original_hw: tuple[int, int]

    @property
    def area_px512(self) -> float:
        """Area of the mask in a padded square of 512 x 512 pixels."""
        return area_px512(self.overlap.predicted_px, self.original_hw)

    def is_no_target(self, calibration: Calibration) -> bool:
        """Say whether a model with this calibration answers that there is nothing."""
        score = calibration.score(self.raw_iou)
        return bool(calibration.is_no_target(self.area_px512, score, self.similarity_peak))

    def judged(self, calibration: Calibration) -> Overlap:
        """Return the overlap of what a calibrated model answers: nothing at all where it sees no target."""
        return Overlap(0, self.overlap.truth_px, 0) if self.is_no_target(calibration) else self.overlap


def answers_to(model: SspSam, image: UInt8Array, expressions: Sequence[Expression]) -> Iterator[Answer]:
    """Yield the model's answer to each expression about an RGB uint8 image (H, W, 3), computed in float32."""
    inputs = prepare(Image.fromarray(image), model.preset)
    with torch.inference_mode():
        output = model(
            torch.from_numpy(inputs.sam_image)[None],
            torch.from_numpy(inputs.clip_image)[None],
            torch.from_numpy(inputs.geometry.to_array())[None],
            torch.from_numpy(tokenize([expression.phrase for expression in expressions], model.preset.text_positions)),
            torch.zeros(len(expressions), dtype=torch.long),
        )
    peaks = output.prompts.similarity.amax(dim=1).tolist()
    raw = zip(output.mask_logits.numpy(), output.iou.tolist(), peaks, strict=True)
    for expression, (logits, iou, peak) in zip(expressions, raw, strict=True):
        mask = full_size_mask(logits, inputs.geometry, model.preset.sam.image_side_px, 0.0)
        yield Answer(expression.kind, Overlap.of(mask, expression.mask), iou, peak, inputs.geometry.original_hw)
