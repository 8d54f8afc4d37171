"""What SAM's frozen image encoder makes of images, computed once and kept on disk in 16 bits.

::

    <folder>/<digest of the encoder>/<first two digits>/<digest of the image file>.npy    float16 (D, G, G)

Whatever the file is called and whichever data set it came with, an image is encoded once. Runs, and the processes of a
run, may share the folder: a file appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ssp_sam.config import Preset
from ssp_sam.modeling.sam import SamImageEncoder
from ssp_sam.preprocess import UInt8Array, geometry_of, place_on_square, read_image
from ssp_sam.training.files import replace_file
from ssp_sam.training.learner import TrainingError

Embedding = npt.NDArray[np.float16]
ImageData = bytes | UInt8Array
"""What an image file holds, or RGB pixels (H, W, 3)."""


def image_data(source: Path | UInt8Array) -> ImageData:
    """Return the content of an image's file, or the pixels; raise TrainingError if the file cannot be read."""
    if not isinstance(source, Path):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise TrainingError(f"cannot read the image {source}: {error.strerror}") from error


def image_key(data: ImageData) -> str:
    """Return a digest of an image."""
    shape = b"" if isinstance(data, bytes) else repr(data.shape).encode()
    return hashlib.sha256(shape + (data if isinstance(data, bytes) else data.tobytes())).hexdigest()


def encoder_digest(encoder: SamImageEncoder, precision: str) -> str:
    """Return a digest of all that decides an embedding besides the image: parameters, and how it is computed."""
    digest = hashlib.sha256(precision.encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


@torch.no_grad()
def encode_image(
    encoder: SamImageEncoder, preset: Preset, data: ImageData, context: AbstractContextManager[object]
) -> Embedding:
    """Return what the encoder makes of an image, computed within `context` on the encoder's device.

    Raises InvalidArgumentError if it is no image that can be used.
    """
    image = read_image(data, upright=False)  # as truths lie
    size_hw = geometry_of((image.height, image.width), preset).sam_hw
    device = next(encoder.parameters()).device
    pixels = torch.from_numpy(place_on_square(image, size_hw, (0, 0), preset.sam.image_side_px))[None].to(device)
    # One image at a time: how many are encoded at once would change last digits, and a resumed run encodes others.
    with context:
        embedding = encoder(pixels, torch.tensor([size_hw], device=device))
    halves: Embedding = embedding[0].half().cpu().numpy()
    return halves


@dataclass(frozen=True)
class EmbeddingFiles:
    """The files of one encoder; `folder` is that of its digest, `shape` the (D, G, G) of an embedding."""

    folder: Path
    shape: tuple[int, int, int]

    def path(self, key: str) -> Path:
        """Return where the embedding of the image with that key is kept."""
        return self.folder / key[:2] / f"{key}.npy"

    def load(self, data: ImageData) -> Embedding:
        """Return an image's embedding, float16 (D, G, G); raise TrainingError if it is not there or is broken."""
        path = self.path(image_key(data))
        try:
            embedding = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise TrainingError(f"cannot read the embedding {path} ({error}); delete it and start again") from None
        if embedding.shape != self.shape or embedding.dtype != np.float16:
            raise TrainingError(
                f"{path} holds {embedding.dtype} of shape {embedding.shape} instead of float16 of {self.shape}; "
                "delete it and start again"
            )
        return np.asarray(embedding)

    def fill(
        self, sources: Iterable[Path | UInt8Array], encode: Callable[[ImageData], Embedding]
    ) -> Iterator[Embedding | None]:
        """Encode the images that are missing; for each image yield what was made, None if it was there.

        Raises TrainingError if an image cannot be read, or the embedding not be written: the disk may be full.
        """
        for source in sources:
            data = image_data(source)
            path = self.path(image_key(data))
            embedding = None if path.exists() else encode(data)
            if embedding is not None:
                self._store(path, embedding)
            yield embedding

    def _store(self, path: Path, embedding: Embedding) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Another process may be writing the same embedding.
            replace_file(
                path, lambda file: np.save(file, embedding), partial=path.with_suffix(f".{os.getpid()}.partial")
            )
        except OSError as error:
            size_mib = embedding.nbytes / 2**20
            raise TrainingError(
                f"cannot keep the embedding {path}: {error.strerror}; each image takes {size_mib:.1f} MiB"
            ) from error
