"""Load on a running server, as products make it: mostly new phrases on recent images, now and then a new image.

    locust --locustfile loadtest/locustfile.py --host localhost:8001 --headless --users 16 --spawn-rate 16 --run-time 1m

`--new-image-share` is the share of requests that bring an image the server has not seen, `--phrases` the phrases of a
request. Locust's table shows one row for each kind of request.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import grpc.experimental.gevent
import numpy as np
from locust import User, constant, events, task
from PIL import Image

from ssp_sam.client import SegmentationClient, encode_image
from ssp_sam.errors import SegmentationError

grpc.experimental.gevent.init_gevent()  # before any channel exists, or the first call blocks every user

DEMO = Path(__file__).parents[1] / "docs" / "demo.png"
PHRASES = ("the dog on the left", "both dogs", "the car and the guitar", "the red car", "a lemon", "the zebra")
RECENT_IMAGES = 8


@events.init_command_line_parser.add_listener
def add_options(parser: object) -> None:
    """Add our options to Locust's."""
    add = parser.add_argument  # type: ignore[attr-defined]
    add("--new-image-share", type=float, default=0.2, help="share of requests with an image not seen before, 0..1")
    add("--phrases", type=int, default=1, help="phrases of a request")
    add("--model", default="segment", help="segment or segment_ensemble")
    add("--timeout-s", type=float, default=60.0, help="deadline of a request in seconds")


def new_image() -> bytes:
    """Return the demo picture with a few pixels changed at random: the same work, another content."""
    pixels = np.array(Image.open(DEMO).convert("RGB"))
    pixels[0, :8] = np.random.default_rng().integers(0, 256, (8, 3))
    return encode_image(pixels)


class Segmenter(User):
    """Asks again as soon as the answer is there."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Open a channel of its own."""
        options = self.environment.parsed_options
        self.client = SegmentationClient(self.host, model=options.model, timeout_s=options.timeout_s)
        self.recent: list[bytes] = []

    def on_stop(self) -> None:
        """Close the channel."""
        self.client.close()

    @task
    def segment(self) -> None:
        """Ask for some phrases in a new or a recent image."""
        options = self.environment.parsed_options
        is_new = not self.recent or random.random() < options.new_image_share
        if is_new:
            self.recent = [*self.recent[1 - RECENT_IMAGES :], new_image()]
        image = self.recent[-1] if is_new else random.choice(self.recent)
        phrases = random.choices(PHRASES, k=options.phrases)
        start_s = time.perf_counter()
        failure: SegmentationError | None = None
        try:
            self.client.segment(image, phrases)
        except SegmentationError as error:
            failure = error
        self.environment.events.request.fire(
            request_type=options.model,
            name="new image" if is_new else "recent image",
            response_time=(time.perf_counter() - start_s) * 1000,
            response_length=len(phrases),
            exception=failure,
        )
