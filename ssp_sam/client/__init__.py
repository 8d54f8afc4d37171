"""The gRPC client: an image and phrases in, one `Segmentation` a phrase out. Imports no torch.

::

    from ssp_sam.client import SegmentationClient

    with SegmentationClient("localhost:8001") as client:
        for answer in client.segment("photo.jpg", ["the left dog", "the red ball"]):
            print(answer.phrase, answer.score, answer.box_xyxy_px, answer.mask.shape)

`AsyncSegmentationClient` is the same for asyncio. Errors are those of `ssp_sam.errors`.
"""

from ssp_sam.client.clients import AsyncSegmentationClient, SegmentationClient
from ssp_sam.client.images import encode_image
from ssp_sam.client.messages import Explanation
from ssp_sam.errors import (
    CancelledError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    SegmentationError,
    UnavailableError,
)
from ssp_sam.preprocess import ImageInput
from ssp_sam.results import Segmentation

__all__ = [
    "AsyncSegmentationClient",
    "CancelledError",
    "DeadlineExceededError",
    "Explanation",
    "ImageInput",
    "InvalidArgumentError",
    "NotFoundError",
    "Segmentation",
    "SegmentationClient",
    "SegmentationError",
    "UnavailableError",
    "encode_image",
]
