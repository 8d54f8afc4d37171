"""Truth masks from the ways in which data sets write them down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from ssp_sam.evaluation.datasets.samples import DatasetError
from ssp_sam.results import BoolMask


def coco_segmentation_mask(segmentation: Any, height: int, width: int) -> BoolMask:
    """Return bool (height, width) of a COCO segmentation.

    segmentation: a list of polygons [x0, y0, x1, y1, ...]; or run-length encoding {size, counts}, with counts as a
    list of runs or compressed; or a list of such. Parts are united. Raises DatasetError for anything else.
    """
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    try:
        if parts and isinstance(parts[0], list):
            encoded = coco_mask.frPyObjects(parts, height, width)
        else:
            encoded = [_compressed(part, height, width) for part in parts]
        decoded: npt.NDArray[np.uint8] = coco_mask.decode(coco_mask.merge(encoded))
    except DatasetError:
        raise
    except Exception as error:  # pycocotools raises bare `Exception`
        raise DatasetError(f"a segmentation is neither polygons nor run lengths: {error}") from error
    if decoded.shape != (height, width):
        raise DatasetError(f"a segmentation is not of its image's size, {height} x {width}")
    return decoded.astype(bool)


def _compressed(run_lengths: Any, height: int, width: int) -> Any:
    if list(run_lengths["size"]) != [height, width]:
        raise DatasetError(f"a segmentation of size {run_lengths['size']} is about an image of {height} x {width}")
    is_compressed = isinstance(run_lengths["counts"], (str, bytes))
    return run_lengths if is_compressed else coco_mask.frPyObjects(run_lengths, height, width)


def polygons_mask(polygons: Sequence[Sequence[Sequence[float]]], height: int, width: int) -> BoolMask:
    """Return bool (height, width) of polygons of [x, y] points, drawn as PhraseCut's own evaluator draws them.

    That cuts coordinates to whole pixels and counts the outline in, where COCO's rule would not.
    """
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        if len(polygon) >= 2:
            draw.polygon([(int(x), int(y)) for x, y in polygon], outline=1, fill=1)
    return np.asarray(canvas) > 0
