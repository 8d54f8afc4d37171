"""The errors of the product, the same on both sides of the wire.

::

    SegmentationError               INTERNAL            something went wrong on the server's side
    +-- InvalidArgumentError        INVALID_ARGUMENT    the request itself is wrong; sending it again will not help
    +-- NotFoundError               NOT_FOUND           an image id that the server does not (or no longer) hold
    +-- UnavailableError            UNAVAILABLE         busy or not ready: try again after a pause
    +-- DeadlineExceededError       DEADLINE_EXCEEDED   the time allowed ran out
    +-- CancelledError              CANCELLED           the caller gave up

The server raises them, the client raises them again. Between Triton processes an error keeps only its message (release
24.10 drops the status code of a call from one model to another), so the code travels in front of it: ``[NOT_FOUND]
...``.
"""

from __future__ import annotations

import re


class SegmentationError(Exception):
    """Something went wrong on the server's side; base of all errors of the product.

    `code` is the gRPC status name, `message` the text without it.
    """

    code = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def tagged(self) -> str:
        """Return the message with the code in front, as it crosses process borders."""
        return f"[{self.code}] {self.message}"


class InvalidArgumentError(SegmentationError, ValueError):
    """The request itself is wrong; sending it again will not help."""

    code = "INVALID_ARGUMENT"


class NotFoundError(SegmentationError, LookupError):
    """An image id that the server does not (or no longer) hold."""

    code = "NOT_FOUND"


class UnavailableError(SegmentationError):
    """The server is busy or not ready: try again after a pause."""

    code = "UNAVAILABLE"


class DeadlineExceededError(SegmentationError, TimeoutError):
    """The time allowed for the request ran out."""

    code = "DEADLINE_EXCEEDED"


class CancelledError(SegmentationError):
    """The caller gave up on the request."""

    code = "CANCELLED"


_BY_CODE: dict[str, type[SegmentationError]] = {
    error.code: error
    for error in (
        SegmentationError,
        InvalidArgumentError,
        NotFoundError,
        UnavailableError,
        DeadlineExceededError,
        CancelledError,
    )
}
_TAG = re.compile(r"\[([A-Z_]+)\] ")


def error_from_message(message: str, fallback_code: str = "INTERNAL") -> SegmentationError:
    """Rebuild the error that `message` tells of.

    The first ``[CODE]`` of the message decides (Triton may have put words in front of it, and a quoted phrase behind it
    may hold brackets of its own), else `fallback_code`, the status that came with the message.
    """
    for tag in _TAG.finditer(message):
        if tag[1] in _BY_CODE:
            return _BY_CODE[tag[1]](message[tag.end() :])
    return _BY_CODE.get(fallback_code, SegmentationError)(message)
