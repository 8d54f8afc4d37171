from __future__ import annotations

from pathlib import Path

from drawn import FEW, MANY, draw, read, sizes_and_phrases, understood

from benchmarks.other_scenes.__main__ import main


def test_seed_1_is_what_it_was_when_its_figure_was_taken(tmp_path: Path) -> None:
    assert sizes_and_phrases(draw(main, tmp_path, FEW, seed=1), (1, 2, 3)) == [
        (376, 370, ["the higher t-shirt", "giraffe", "a penguin", "first t-shirt from the bottom"]),
        (548, 308, ["the teapots and the frog", "purple teapot", "third teapot from the left"]),
        (434, 344, ["the locomotive next to the sailboat", "the sunflower and the coat", "the wine glass at the top"]),
    ]


def test_positions_sizes_and_orders_are_those_of_the_masks(tmp_path: Path) -> None:
    checked = 0
    for told in read(draw(main, tmp_path, MANY, seed=2)):
        if told.kind in ("position", "size", "order"):
            found = understood(told.text, told.same, [told.targets[0].noun])
            assert [found.id] == [thing.id for thing in told.targets], told.text
            checked += 1
    assert checked >= 30
