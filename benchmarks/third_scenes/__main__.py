"""Draw test scenes by a third author, with phrases about them, as files in gRefCOCO's format.

    python -m benchmarks.third_scenes --count 400 --seed 70213 --out build/third_scenes

OUT/grefcoco/instances.json and OUT/grefcoco/grefs(unc).json are the data set's files, of split val; OUT/train2014 has
the images; OUT/kinds.json says of what kind each phrase is, by the id that `scripts/evaluate.py` gives it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from benchmarks.emoji_font import FontError
from benchmarks.grefcoco_files import GrefcocoFiles, parse_options
from benchmarks.third_scenes.choice import PhraseChooser
from benchmarks.third_scenes.draw import draw_scene
from benchmarks.third_scenes.paint import PaintError, load_glyphs
from benchmarks.third_scenes.words import UNUSED


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed; argparse itself exits with 2."""
    options = parse_options(argv, module="benchmarks.third_scenes", description=__doc__, count=400, seed=70213)
    rng = random.Random(options.seed)
    try:
        glyphs = load_glyphs(options.font)
        nouns = sorted(set(glyphs) - UNUSED)
        files, chooser = GrefcocoFiles(options.out, sorted(glyphs)), PhraseChooser(rng, nouns)
        image_id = 1
        while image_id <= options.count:
            scene = draw_scene(rng, glyphs, nouns)
            phrases = chooser.choose(scene) if scene else []
            if scene and phrases:
                files.add(image_id, scene.picture, scene.things, phrases)
                image_id += 1
        files.write()
    except (FontError, PaintError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{files.counts()}, {len(nouns)} nouns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
