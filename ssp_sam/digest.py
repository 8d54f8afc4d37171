"""SHA-256 of files that are too large to read at once, and of several texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(texts: Iterable[str]) -> str:
    """Return one SHA-256 of several texts, which hold no line breaks."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
