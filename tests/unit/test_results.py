from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from ssp_sam.results import Segmentation, decode_rle, encode_rle

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@given(MASKS)
@settings(max_examples=200, deadline=None)
def test_a_mask_survives_the_encoding(mask: np.ndarray) -> None:
    again = decode_rle(encode_rle(mask), *mask.shape)
    assert again.dtype == np.bool_
    np.testing.assert_array_equal(again, mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (480, 640), (1500, 2000)])
@pytest.mark.parametrize("kind", ["empty", "full", "noise", "blob"])
def test_masks_of_many_sizes(shape: tuple[int, int], kind: str) -> None:
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    mask = {
        "empty": np.zeros(shape, bool),
        "full": np.ones(shape, bool),
        "noise": np.random.default_rng(0).random(shape) > 0.5,
        "blob": (rows - shape[0] / 2) ** 2 + (cols - shape[1] / 2) ** 2 < min(shape) ** 2 / 9,
    }[kind]
    counts = encode_rle(mask)
    np.testing.assert_array_equal(decode_rle(counts, *shape), mask)
    reference = coco_mask.decode({"size": list(shape), "counts": counts})
    np.testing.assert_array_equal(decode_rle(counts, *shape), reference.astype(bool))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (b"", "0"),
        (encode_rle(np.ones((3, 4), bool)), "12"),
        (encode_rle(np.ones((5, 5), bool)), "25"),
        (b"52203", "20"),  # 5, 2, 2, 0 + 2, ...: too short
        (b"\xff\x00", "character"),
        (b"5o", "cut off"),  # the last number says that more follows
        (b"oooooooooooo0", "number"),  # far more than any mask has pixels
        (b"5O", "negative"),
    ],
)
def test_counts_that_do_not_fill_the_mask_are_refused(counts: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_rle(counts, 4, 5)


@given(st.binary(max_size=30), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_mask_or_an_error(counts: bytes, height: int, width: int) -> None:
    try:
        mask = decode_rle(counts, height, width)
    except ValueError:
        return
    assert mask.shape == (height, width)
    reference = coco_mask.decode({"size": [height, width], "counts": counts})
    np.testing.assert_array_equal(mask, reference.astype(bool))


def test_to_json_is_plain_and_holds_the_mask() -> None:
    mask = np.zeros((6, 9), dtype=bool)
    mask[2:4, 3:8] = True
    answer = Segmentation("the dog", mask, np.array([3, 2, 8, 4.126], np.float32), 0.87654, False, 10)
    values = json.loads(json.dumps(answer.to_json()))
    assert values["mask_rle"]["size"] == [6, 9]
    np.testing.assert_array_equal(decode_rle(values.pop("mask_rle")["counts"].encode(), 6, 9), mask)
    assert values == {
        "phrase": "the dog",
        "no_target": False,
        "score": 0.8765,
        "box_xyxy_px": [3.0, 2.0, 8.0, 4.13],
        "area_px": 10,
    }
