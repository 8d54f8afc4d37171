"""Results as they come, in a file that an interrupted run goes on with.

JSON lines: the first says what was measured, each other one holds all results of one image. A line that was cut off in
the middle of writing is dropped when the file is opened again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssp_sam.evaluation.metrics import Overlap

FORMAT_VERSION = 2


class JournalError(Exception):
    """A folder holds results of something else, or none that can be read."""


@dataclass(frozen=True)
class Record:
    """The result of one sample.

    id, phrase, kind: of the sample. overlap: of prediction and truth at the image's own size; release_overlap: in the
    release's square, if that was asked for. score, no_target: as the model answered. mask_rle: the predicted mask as
    compressed COCO run lengths. refused: why the model would not take the phrase, which then counts as an empty mask.
    """

    id: str
    phrase: str
    kind: str | None
    overlap: Overlap
    release_overlap: Overlap | None
    score: float
    no_target: bool
    mask_rle: str
    refused: str | None = None


@dataclass(frozen=True)
class ImageResult:
    """The results of all samples of one image; index: of the image in the data set."""

    index: int
    records: tuple[Record, ...]


class Journal:
    """The results of a run, in the file `path`. header: JSON values that must be the same for a run to go on.

    Raises JournalError if the file holds results of another run, or is no journal.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        self._results: dict[int, ImageResult] = {}
        whole = json.loads(json.dumps({"format_version": FORMAT_VERSION, **header}))  # as it will be read again
        lines = _complete_lines(path)
        if lines:
            self._read(lines, whole)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(whole) + "\n", encoding="utf-8")

    def __contains__(self, index: int) -> bool:
        return index in self._results

    def __iter__(self) -> Iterator[ImageResult]:
        """Yield the results in the order of the data set."""
        return (self._results[index] for index in sorted(self._results))

    def append(self, result: ImageResult) -> None:
        """Keep the results of an image."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        self._results[result.index] = result

    def _read(self, lines: list[str], header: Mapping[str, Any]) -> None:
        try:
            found, *results = (json.loads(line) for line in lines)
            if found != header:
                raise JournalError(
                    f"{self._path} holds results of another run: {_difference(found, header)}; "
                    "choose another folder, or remove that file"
                )
            for result in results:
                self._results[result["index"]] = _parse(result)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JournalError(f"{self._path} is no journal of an evaluation: {error}") from error


def _complete_lines(path: Path) -> list[str]:
    """Return the lines of the file, having cut off one that was not written to its end."""
    if not path.exists():
        return []
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with path.open("r+b") as file:
            file.truncate(end)
    return data[:end].decode("utf-8").splitlines()


def _parse(result: Mapping[str, Any]) -> ImageResult:
    records = []
    for values in result["records"]:
        in_square = values["release_overlap"]
        overlaps = {
            "overlap": Overlap(**values["overlap"]),
            "release_overlap": None if in_square is None else Overlap(**in_square),
        }
        records.append(Record(**{**values, **overlaps}))
    return ImageResult(result["index"], tuple(records))


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> str:
    """Name the first entry in which two headers differ, with both values."""
    for key in dict.fromkeys((*found, *wanted)):
        old, new = found.get(key), wanted.get(key)
        if old != new:
            if isinstance(old, dict) and isinstance(new, dict):
                return _difference(old, new, f"{prefix}{key}.")
            return f"{prefix}{key} was {json.dumps(old)}, now it is {json.dumps(new)}"
    raise AssertionError("the headers are the same")
