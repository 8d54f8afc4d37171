from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssp_sam import errors
from ssp_sam.errors import (
    CancelledError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    SegmentationError,
    UnavailableError,
    error_from_message,
)

ALL = (
    SegmentationError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    DeadlineExceededError,
    CancelledError,
)


@given(st.sampled_from(ALL), st.text(), st.sampled_from(["", "in ensemble 'x', ", "[request 7] "]))
def test_an_error_survives_the_way_through_triton(kind: type[SegmentationError], text: str, prefix: str) -> None:
    again = error_from_message(prefix + kind(text).tagged())
    assert type(again) is kind
    assert again.message == text == str(again)


def test_a_code_in_a_quoted_phrase_does_not_decide() -> None:
    again = error_from_message(InvalidArgumentError("phrase 0 ('[NOT_FOUND] dog') is too long").tagged(), "CANCELLED")
    assert type(again) is InvalidArgumentError
    assert again.message == "phrase 0 ('[NOT_FOUND] dog') is too long"


@pytest.mark.parametrize("kind", ALL)
def test_without_a_code_the_status_decides(kind: type[SegmentationError]) -> None:
    again = error_from_message("[OTHER] no known code", kind.code)
    assert type(again) is kind
    assert again.message == "[OTHER] no known code"


def test_an_unknown_status_is_the_servers_fault() -> None:
    assert type(error_from_message("x", "DATA_LOSS")) is SegmentationError


def test_every_error_is_in_the_drawing_with_its_code() -> None:
    lines = (errors.__doc__ or "").splitlines()
    for kind in ALL:
        assert any(kind.__name__ in line and kind.code in line.split() for line in lines), kind


def test_python_callers_may_catch_the_builtin() -> None:
    assert issubclass(InvalidArgumentError, ValueError)
    assert issubclass(NotFoundError, LookupError)
    assert issubclass(DeadlineExceededError, TimeoutError)
