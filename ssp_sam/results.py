"""The answer for one phrase, as the in-process predictor and the client give it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

BoolMask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Segmentation:
    """What one phrase refers to in one image.

    phrase: the phrase as it was asked.
    mask: bool (H, W), at the image's own size; all False if `no_target`.
    box_xyxy_px: float32 (4,), the model's box around the target in pixels of the image; zeros if `no_target`.
    score: estimate of the mask's IoU with the truth, 0..1.
    no_target: the model found nothing that the phrase refers to.
    area_px: number of True pixels of `mask`.
    """

    phrase: str
    mask: BoolMask
    box_xyxy_px: npt.NDArray[np.float32]
    score: float
    no_target: bool
    area_px: int

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain JSON values, the mask as COCO run-length encoding."""
        return {
            "phrase": self.phrase,
            "no_target": self.no_target,
            "score": round(self.score, 4),
            "box_xyxy_px": [round(float(v), 2) for v in self.box_xyxy_px],
            "area_px": self.area_px,
            "mask_rle": {"size": list(self.mask.shape), "counts": encode_rle(self.mask).decode("ascii")},
        }


def encode_rle(mask: BoolMask) -> bytes:
    """Return the compressed COCO run-length counts of a bool (H, W) mask."""
    counts: bytes = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return counts


def decode_rle(counts: bytes, height: int, width: int) -> BoolMask:
    """Return the bool (height, width) mask that `counts` encodes, stored column by column.

    Raises ValueError if `counts` does not describe a mask of this size.
    """
    if height * width == 0:
        return np.zeros((height, width), dtype=np.bool_)
    problem = f"not the run-length counts of a mask of {height} x {width}: {counts[:40]!r}"
    try:
        decoded = coco_mask.decode({"size": [height, width], "counts": counts})
    except ValueError as error:
        raise ValueError(problem) from error
    # pycocotools leaves pixels that no run covers as the memory was; encoding always covers all of them.
    if coco_mask.encode(decoded)["counts"] != counts:
        raise ValueError(problem)
    mask: BoolMask = decoded.view(np.bool_)
    return mask
