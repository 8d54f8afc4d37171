"""Synthetic scenes with phrases and their truth masks: what the tiny model learns from. Imports no torch.

>>> from ssp_sam.data import SceneGenerator
>>> scene = SceneGenerator(split="val").scene(0)
>>> scene.image.shape, [expression.phrase for expression in scene.expressions]  # doctest: +SKIP
"""

from ssp_sam.data.glyphs import DataError, GlyphSet, GlyphStyleNotFoundError
from ssp_sam.data.phrases import Expression, expressions_for
from ssp_sam.data.scenes import SPLITS, Scene, SceneGenerator
from ssp_sam.data.things import Thing

__all__ = [
    "SPLITS",
    "DataError",
    "Expression",
    "GlyphSet",
    "GlyphStyleNotFoundError",
    "Scene",
    "SceneGenerator",
    "Thing",
    "expressions_for",
]
