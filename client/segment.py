#!/usr/bin/env python3
"""Segment phrases in an image: ``python client/segment.py photo.jpg --phrase "the left dog" --out results``."""

import sys

from ssp_sam.client.cli import main

if __name__ == "__main__":
    sys.exit(main())
