"""Limits of one request. They bound the memory that one caller can take, and are what error messages quote."""

MAX_IMAGE_BYTES = 64 * 2**20
MAX_IMAGE_PIXELS = 50_000_000
MAX_PHRASES = 64
MAX_PHRASE_CHARACTERS = 1000
