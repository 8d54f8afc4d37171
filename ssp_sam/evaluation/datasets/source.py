"""Where one split of one benchmark lies on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssp_sam.evaluation.datasets.samples import DatasetError, first_existing


@dataclass(frozen=True)
class Source:
    """One split of one benchmark.

    root: the folder of the data; images: the folder of the image files, None to look for it under `root`;
    image_folders: where under `root` it may be; hint: where the data set can be had.
    """

    title: str
    split: str
    root: Path
    images: Path | None
    image_folders: Sequence[str]
    hint: str

    def file(self, *candidates: str) -> Path:
        """Return the first of these paths under `root` that exists; raises DatasetError, which says where to get it."""
        if not self.root.is_dir():
            raise DatasetError(f"there is no folder {self.root}; {self.hint}")
        return first_existing([self.root / candidate for candidate in candidates], self.hint)

    def image_folder(self) -> Path:
        """Return the folder of the image files; raises DatasetError."""
        if self.images is not None:
            return first_existing([self.images], self.hint)
        return self.file(*self.image_folders)
