"""The synthetic scenes as a data set."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial

from ssp_sam.data import DataError, GlyphSet, Scene, SceneGenerator
from ssp_sam.evaluation.datasets.samples import DatasetError, ImageSamples, Json, Sample
from ssp_sam.results import BoolMask


class SceneDataset:
    """The first `count` scenes of a split. Raises DatasetError if they cannot be drawn here.

    vocabulary: the nouns that they are about; all if empty. styles: in which they are drawn, names in `STYLES`.
    side_px: of the longer side of a scene.
    """

    def __init__(
        self,
        split: str,
        count: int,
        vocabulary: Collection[str] = (),
        styles: tuple[str, ...] = ("noto",),
        side_px: int = 256,
    ) -> None:
        if count < 1:
            raise DatasetError(f"count is {count}; at least 1")
        try:
            self._generator = SceneGenerator(
                side_px=side_px, split=split, glyphs=GlyphSet(styles), vocabulary=vocabulary
            )
        except DataError as error:
            raise DatasetError(str(error)) from error
        self._count = count

    @property
    def fingerprint(self) -> Mapping[str, Json]:
        """What decides the scenes, but for the code that draws them."""
        return {
            "side_px": self._generator.side_px,
            "styles": list(self._generator.glyphs.styles),
            "vocabulary": list(self._generator.vocabulary),
            "count": self._count,
        }

    @property
    def sample_count(self) -> int:
        """Phrases of all scenes."""
        return self._count * self._generator.expressions_per_scene

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> ImageSamples:
        """Draw a scene."""
        scene = self._generator.scene(index)
        return ImageSamples(scene.image, tuple(_samples(scene, index)))


def _samples(scene: Scene, index: int) -> Iterator[Sample]:
    for position, expression in enumerate(scene.expressions):
        yield Sample(f"{index}.{position}", expression.phrase, partial(_drawn, expression.mask), expression.kind)


def _drawn(mask: BoolMask) -> BoolMask:
    return mask
