"""What is remembered of images never changes an answer, and is bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssp_sam.networks import Array
from ssp_sam.networks.recent_images import RecentImages

IMAGE_BYTES = 2 * 3 * 4  # of features alone
ENTRY_BYTES = 2 * IMAGE_BYTES


class Counted:
    """Doubles one image's features and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, batch: Array) -> tuple[Array, ...]:
        assert len(batch) == 1
        self.calls += 1
        return (2 * batch,)


def features(number: float) -> Array:
    return np.full((2, 3), number, dtype=np.float32)


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 7 * ENTRY_BYTES))
def test_answers_are_those_of_the_function_whatever_was_asked_before(asked: list[int], kept_bytes: int) -> None:
    recent = RecentImages(Counted(), kept_bytes)
    for number in asked:
        np.testing.assert_array_equal(recent(features(number))[0], 2 * features(number)[None])


def test_an_image_is_computed_once_while_there_is_room_for_it() -> None:
    compute = Counted()
    recent = RecentImages(compute, 2 * ENTRY_BYTES)
    for number, calls in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)):  # 2 drives out 1, which was asked longer ago
        recent(features(number))
        assert compute.calls == calls, f"after {number}"


def test_nothing_is_kept_without_room_for_it() -> None:
    compute = Counted()
    recent = RecentImages(compute, ENTRY_BYTES - 1)
    recent(features(1)), recent(features(1))
    assert compute.calls == 2


@pytest.mark.parametrize("other", [(1, 2), (0, 0)], ids=["from the start", "only at the end"])
def test_images_that_differ_anywhere_are_told_apart(other: tuple[int, int]) -> None:
    recent = RecentImages(Counted())
    a = features(0)
    b = a.copy()
    b[other] = 7
    for image in (a, b, a):
        np.testing.assert_array_equal(recent(image)[0], 2 * image[None])


def test_the_same_bits_of_another_type_are_another_image() -> None:
    recent = RecentImages(Counted())
    a = np.zeros((1, 4), dtype=np.float32)
    assert recent(a)[0].dtype == np.float32
    assert recent(a.view(np.int32))[0].dtype == np.int32


def test_memory_that_the_caller_uses_again_does_no_harm() -> None:
    recent = RecentImages(Counted())
    shared = features(1)
    recent(shared)
    shared[:] = 2
    np.testing.assert_array_equal(recent(shared)[0], features(4)[None])
    np.testing.assert_array_equal(recent(features(1))[0], features(2)[None])
