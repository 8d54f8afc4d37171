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
    counts: bytes = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))["counts"]
    return counts


def decode_rle(counts: bytes, height: int, width: int) -> BoolMask:
    """Return the bool (height, width) mask that `counts` encodes, stored column by column.

    Raises ValueError if `counts` is malformed or its runs do not add up to the mask. pycocotools itself checks neither:
    malformed counts make it write past its memory, and counts that are too short return memory that nobody has written.
    """
    runs = _run_lengths(counts)
    if runs.sum() != height * width:
        raise ValueError(
            f"the run lengths sum to {runs.sum()}; a mask of {height} x {width} has {height * width} pixels"
        )
    mask: BoolMask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    return mask


def _run_lengths(counts: bytes) -> npt.NDArray[np.int64]:
    """Return the run lengths in compressed COCO counts, which begin with a run of False.

    A number is written in characters from code 48 on, five bits each from the low end; a sixth bit says that more
    follow. From the fourth on it is the difference to the run before the last.
    """
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if len(codes) == 0:
        return codes
    if codes.min() < 0 or codes.max() >= 64:
        raise ValueError(f"run-length counts hold a character that is none of theirs: {counts[:40]!r}")
    is_last = codes < 32
    if not is_last[-1]:
        raise ValueError(f"run-length counts of {len(counts)} characters are cut off within a number")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:
        raise ValueError(f"run-length counts hold a number of {lengths.max()} characters; at most 7 are allowed")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 31) << (5 * place), starts)
    runs -= ((codes[ends] >> 4) & 1) << (5 * lengths)  # the highest bit is the sign
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    if runs.min() < 0:
        raise ValueError(f"run-length counts hold a negative run: {runs.min()}")
    return runs
