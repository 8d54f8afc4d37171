"""Draw test scenes by another author, with phrases about them, as files in gRefCOCO's format.

    python -m benchmarks.other_scenes --count 500 --seed 1 --out build/other_scenes

OUT/grefcoco/instances.json and OUT/grefcoco/grefs(unc).json are the data set's files, of split val; OUT/train2014 has
the images; OUT/kinds.json says of what kind each phrase is, by the id that `scripts/evaluate.py` gives it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from benchmarks.emoji_font import FontError
from benchmarks.grefcoco_files import GrefcocoFiles, parse_options
from benchmarks.other_scenes.draw import draw_scene
from benchmarks.other_scenes.glyphs import load_glyphs
from benchmarks.other_scenes.phrases import choose_phrases


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed; argparse itself exits with 2."""
    options = parse_options(argv, module="benchmarks.other_scenes", description=__doc__, count=500, seed=1)
    try:
        glyphs = load_glyphs(options.font)
        files = GrefcocoFiles(options.out, sorted(glyphs))
        for image_id in range(1, options.count + 1):
            _add_scene(files, np.random.default_rng([options.seed, image_id]), image_id, glyphs)
        files.write()
    except (FontError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{files.counts()}, {len(glyphs)} nouns")
    return 0


def _add_scene(
    files: GrefcocoFiles, rng: np.random.Generator, image_id: int, glyphs: Mapping[str, Image.Image]
) -> None:
    scene = draw_scene(rng, glyphs)
    while not scene.things:
        scene = draw_scene(rng, glyphs)
    files.add(image_id, scene.picture, scene.things, choose_phrases(rng, scene, sorted(glyphs)))


if __name__ == "__main__":
    sys.exit(main())
