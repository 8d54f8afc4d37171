"""Command line of the client: segment phrases in one image and print, draw or store the answers."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssp_sam.client.clients import DEFAULT_TIMEOUT_S, DEFAULT_URL, SegmentationClient
from ssp_sam.client.images import encode_image
from ssp_sam.client.overlay import draw_overlay
from ssp_sam.errors import InvalidArgumentError, SegmentationError
from ssp_sam.preprocess import decode_image
from ssp_sam.results import Segmentation
from ssp_sam.serving import contract

_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130
_LONGEST_NAME = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 if it failed, 2 for wrong usage, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        encoded = encode_image(options.image)
        image = decode_image(encoded)
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
        with SegmentationClient(options.url, model=options.model, timeout_s=options.timeout_s) as client:
            answers = client.segment(encoded, options.phrase, mask_threshold=options.mask_threshold)
        # Before the pictures: a full disk must not take the answers away.
        _print(options, answers)
        if options.out is not None:
            _write_pictures(options.out, image, answers)
    except (SegmentationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _USAGE if isinstance(error, InvalidArgumentError) else _FAILED
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _print(options: argparse.Namespace, answers: Sequence[Segmentation]) -> None:
    if options.json:
        print(json.dumps({"image": str(options.image), "answers": [answer.to_json() for answer in answers]}))
    else:
        print(format_table(answers))


def format_table(answers: Sequence[Segmentation]) -> str:
    """Return the answers as lines of text, one a phrase, under a line of headings."""
    rows = [("#", "phrase", "score", "box x0 y0 x1 y1 (px)", "area (px)")]
    for i, answer in enumerate(answers):
        phrase = " ".join(answer.phrase.split())  # on one line
        if answer.no_target:
            rows.append((str(i), phrase, "-", "nothing found", "-"))
        else:
            box = " ".join(f"{side:.1f}" for side in answer.box_xyxy_px)
            rows.append((str(i), phrase, f"{answer.score:.3f}", box, str(answer.area_px)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def mask_name(index: int, phrase: str) -> str:
    """Return the name of the mask's file, such as ``mask_0_the_left_dog.png``."""
    words = re.sub(r"\W+", "_", phrase.lower())[:_LONGEST_NAME].strip("_")
    return "_".join(filter(None, ("mask", str(index), words))) + ".png"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Segment what phrases refer to in an image, by a running server.",
        epilog="Exit codes: 0 done (phrases that found nothing are no failure), 1 failed, 2 wrong usage or bad image.",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="image file (JPEG, PNG, WebP, BMP, TIFF or GIF)")
    parser.add_argument(
        "--phrase", action="append", required=True, help="what to segment, such as 'the left dog'; may be repeated"
    )
    parser.add_argument("--url", default=DEFAULT_URL, help="gRPC address of the server (%(default)s)")
    parser.add_argument(
        "--model",
        default=contract.SEGMENT,
        help=f"{contract.SEGMENT}, or {contract.SEGMENT_ENSEMBLE} without a feature cache (%(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write overlay.png, a mask PNG for each phrase, and answers.json here"
    )
    parser.add_argument("--json", action="store_true", help="print JSON with the masks as COCO RLE, not a table")
    parser.add_argument(
        "--timeout-s", type=float, default=DEFAULT_TIMEOUT_S, help="time allowed in seconds (%(default)g)"
    )
    parser.add_argument(
        "--mask-threshold",
        type=float,
        default=contract.DEFAULT_MASK_THRESHOLD,
        help="a pixel belongs to the mask if its logit is above this (%(default)g)",
    )
    return parser


def _write_pictures(directory: Path, image: Image.Image, answers: Sequence[Segmentation]) -> None:
    draw_overlay(image, answers).save(directory / "overlay.png")
    files = [mask_name(i, answer.phrase) for i, answer in enumerate(answers)]
    for file, answer in zip(files, answers, strict=True):
        # 0 and 255 rather than one bit, which some programs show as black on black.
        Image.fromarray(answer.mask.astype(np.uint8) * 255).save(directory / file)
    # Masks of an earlier call with other phrases may lie there as well: this names those of this one.
    named = [{"mask_file": file, **answer.to_json()} for file, answer in zip(files, answers, strict=True)]
    (directory / "answers.json").write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
