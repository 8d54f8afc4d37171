"""What every data set gives: images, each with all of its phrases, so that an image's features are computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from ssp_sam.preprocess import read_image
from ssp_sam.results import BoolMask

Json = Any


class DatasetError(Exception):
    """A data set is not on disk as it should be; the message names the file."""


@dataclass(frozen=True)
class Sample:
    """One phrase with its truth.

    id: unique in the data set. truth: makes the mask, bool (H, W) at the image's own size, all False where nothing is
    meant; may raise DatasetError. kind: of phrase, in data sets that know kinds.
    """

    id: str
    phrase: str
    truth: Callable[[], BoolMask]
    kind: str | None = None


@dataclass(frozen=True)
class ImageSamples:
    """An image, as a path or RGB uint8 (H, W, 3), with the samples that are about it.

    Their truths lie on the pixels as they are stored, whatever a file's EXIF orientation says.
    """

    image: Path | npt.NDArray[np.uint8]
    samples: tuple[Sample, ...]

    def unturned(self) -> Path | npt.NDArray[np.uint8]:
        """Return the image so that nobody turns it: where the file says that it should be turned, its pixels."""
        if isinstance(self.image, Path):
            try:
                with Image.open(self.image) as file:
                    orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
            except (OSError, ValueError, SyntaxError, TypeError):
                return self.image  # whoever reads it says what is wrong
            if orientation != 1:
                return np.asarray(read_image(self.image, upright=False))
        return self.image


class Dataset(Protocol):
    """Images in a fixed order, made one at a time when asked for, from any thread.

    fingerprint: JSON values that tell this content from any other. sample_count: phrases of all images.
    """

    @property
    def fingerprint(self) -> Mapping[str, Json]: ...  # noqa: D102

    @property
    def sample_count(self) -> int: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ImageSamples: ...


class ListedDataset:
    """A data set whose samples were read from files.

    entries: (path of the image, sample) in the order of the files. hint: where the data set can be had.
    Raises DatasetError if there is no sample, or if two have one id.
    """

    def __init__(self, entries: Iterable[tuple[Path, Sample]], fingerprint: Mapping[str, Json], hint: str) -> None:
        by_image: dict[Path, list[Sample]] = {}
        seen: set[str] = set()
        for path, sample in entries:
            if sample.id in seen:
                raise DatasetError(f"two samples have the id {sample.id!r}; ids must differ")
            seen.add(sample.id)
            by_image.setdefault(path, []).append(sample)
        if not seen:
            raise DatasetError("there is no sample")
        self._images = [ImageSamples(path, tuple(samples)) for path, samples in by_image.items()]
        self._hint = hint
        self.fingerprint = fingerprint
        self.sample_count = len(seen)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> ImageSamples:
        """Return an image with its samples; raises DatasetError if the image's file is missing."""
        entry = self._images[index]
        if isinstance(entry.image, Path) and not entry.image.is_file():
            raise DatasetError(f"the image {entry.image} is missing; {self._hint}")
        return entry


def first_existing(candidates: Sequence[Path], hint: str) -> Path:
    """Return the first of the paths that exists; raises DatasetError with `hint`, where to get it, if none does."""
    for path in candidates:
        if path.exists():
            return path
    others = f" (nor {', '.join(map(str, candidates[1:]))})" if candidates[1:] else ""
    raise DatasetError(f"there is no {candidates[0]}{others}; {hint}")


def read_json(path: Path) -> tuple[Json, str]:
    """Return the values of a JSON file and the SHA-256 of its bytes; raises DatasetError."""
    data = read_bytes(path)
    try:
        return json.loads(data), hashlib.sha256(data).hexdigest()
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON file: {error}") from None


def read_bytes(path: Path) -> bytes:
    """Return the content of a file; raises DatasetError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
