"""Segment an example picture by phrases with a server of its own: start it, ask it, draw the answers, stop it.

python scripts/demo.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssp_sam.client import cli
from ssp_sam.client.images import encode_image
from ssp_sam.errors import SegmentationError
from ssp_sam.serving.server import ServerError, ServerSettings, TritonServer

ROOT = Path(__file__).parents[1]
PHRASES = (
    "the dog on the left",
    "both dogs",
    "the car",
    "the lemon",
    "the zebra",
)


def main() -> int:
    """Return the exit code: 0 done, 1 failed; argparse itself exits with 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=ROOT / "docs" / "demo.png", help="image file (%(default)s)")
    parser.add_argument("--phrase", action="append", help="what to segment; may be repeated (several examples)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo", metavar="DIR", help="where the pictures go")
    parser.add_argument("--model-repository", type=Path, default=ROOT / "model_repository", metavar="DIR")
    options = parser.parse_args()
    try:  # before the server starts, which takes seconds
        options.out.mkdir(parents=True, exist_ok=True)
        encode_image(options.image)
    except (SegmentationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    settings = ServerSettings(
        options.model_repository, grpc_port=0, http_port=0, metrics_port=0, log_file=options.out / "server.log"
    )
    print(f"starting tritonserver with {options.model_repository} ...", flush=True)
    try:
        with TritonServer(settings) as server:
            print(f"ready at {server.grpc_url}; asking for {options.image}\n", flush=True)
            phrases = [word for phrase in options.phrase or PHRASES for word in ("--phrase", phrase)]
            code = cli.main([str(options.image), *phrases, "--url", server.grpc_url, "--out", str(options.out)])
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if code == 0:
        print(f"\npictures: {options.out / 'overlay.png'} and a mask for each phrase")
    return code


if __name__ == "__main__":
    sys.exit(main())
