"""Draw scenes to look at: `python -m ssp_sam.data --split val --count 16 --out sheet.png`."""

import argparse
import sys
from pathlib import Path

from PIL import Image

from ssp_sam.data.contact_sheet import contact_sheet, panel
from ssp_sam.data.demo import demo_scene
from ssp_sam.data.glyphs import STYLES, DataError, GlyphSet
from ssp_sam.data.scenes import SPLITS, SceneGenerator


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ssp_sam.data", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="image file to write")
    parser.add_argument("--demo", action="store_true", help="draw the fixed showcase picture instead of random scenes")
    parser.add_argument(
        "--plain", action="store_true", help="with --demo: the picture alone, without phrases and outlines"
    )
    parser.add_argument("--split", choices=SPLITS, default="train", help="stream of scenes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="stream within the split (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="number of the first scene (default: %(default)s)")
    parser.add_argument("--count", type=int, default=16, help="number of scenes (default: %(default)s)")
    parser.add_argument("--side-px", type=int, default=256, help="width and height of a scene (default: %(default)s)")
    parser.add_argument("--styles", nargs="+", choices=list(STYLES), default=["noto"], help="drawing styles to mix")
    return parser


def _draw(arguments: argparse.Namespace) -> Image.Image:
    glyphs = GlyphSet(tuple(arguments.styles))
    if arguments.demo:
        demo = demo_scene(glyphs)
        return Image.fromarray(demo.image) if arguments.plain else panel(demo.image, demo.expressions)
    generator = SceneGenerator(side_px=arguments.side_px, seed=arguments.seed, split=arguments.split, glyphs=glyphs)
    scenes = (generator.scene(arguments.start + number) for number in range(arguments.count))
    return contact_sheet([panel(scene.image, scene.expressions) for scene in scenes])


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 when the picture could not be made."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.count < 1:
        parser.error(f"--count is {arguments.count}; at least 1")
    try:
        _draw(arguments).save(arguments.out)
    except (DataError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
