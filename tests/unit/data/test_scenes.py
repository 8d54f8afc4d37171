import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssp_sam.data import SPLITS, DataError, GlyphSet, Scene, SceneGenerator
from ssp_sam.data.names import nouns
from ssp_sam.data.scenes import ABSENT_MIN, RATIO_MAX, THINGS_MAX, THINGS_MIN, VISIBLE_SHARE_MIN, VOCABULARY_MIN
from ssp_sam.data.things import box_of


def digest(scene: Scene) -> str:
    """A digest of everything in a scene."""
    result = hashlib.sha256(scene.image.tobytes())
    for thing in scene.things:
        result.update(thing.noun.encode() + thing.mask.tobytes())
    for expression in scene.expressions:
        result.update(f"{expression.phrase}|{expression.kind}".encode() + expression.mask.tobytes())
    return result.hexdigest()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    generator = SceneGenerator(seed=11)
    return [generator.scene(index) for index in range(100)]


def test_a_close_up_is_of_the_thing_in_front() -> None:
    generator = SceneGenerator()
    areas = []
    for index in range(60):
        image, thing = generator.close_up(index, 64)
        again, _ = generator.close_up(index, 64)
        assert image.shape == (64, 64, 3)
        assert np.array_equal(image, again)
        assert thing.mask.shape == (64, 64)
        assert thing.mask.any()
        assert thing.noun in generator.vocabulary
        areas.append(thing.mask.mean())
    assert np.median(areas) > 0.15


def test_shapes_and_types(scenes: list[Scene]) -> None:
    for scene in scenes[:20]:
        assert max(scene.image.shape) == 256
        assert min(scene.image.shape[:2]) >= int(256 / RATIO_MAX)
        assert scene.image.dtype == np.uint8
        assert len(scene.expressions) == 4
        for mask in [thing.mask for thing in scene.things] + [expression.mask for expression in scene.expressions]:
            assert mask.shape == scene.image.shape[:2]
            assert mask.dtype == np.bool_


def test_side_is_a_parameter() -> None:
    scene = SceneGenerator(side_px=128, expressions_per_scene=7).scene(0)
    assert max(scene.image.shape) == 128
    assert scene.expressions[6].mask.shape == scene.image.shape[:2]


def test_something_is_always_absent_from_scenes_of_a_small_vocabulary() -> None:
    generator = SceneGenerator(side_px=64, vocabulary=nouns()[:VOCABULARY_MIN])
    shown = [[thing.noun for thing in generator.scene(index).things] for index in range(100)]
    assert max(map(len, shown)) == VOCABULARY_MIN - ABSENT_MIN < THINGS_MAX


def test_scenes_are_square_wide_and_high(scenes: list[Scene]) -> None:
    ratios = np.array([scene.image.shape[1] / scene.image.shape[0] for scene in scenes])
    for share in ((ratios == 1).mean(), (ratios > 1).mean(), (ratios < 1).mean()):
        assert share > 0.1


def test_things_are_counted_do_not_overlap_and_stay_visible(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert THINGS_MIN <= len(scene.things) <= THINGS_MAX
        assert np.sum([thing.mask for thing in scene.things], axis=0).max() == 1
        for thing in scene.things:
            assert thing.area_px == np.count_nonzero(thing.mask)
            assert thing.area_px >= VISIBLE_SHARE_MIN * thing.full_area_px
            assert thing.box_xyxy_px == box_of(thing.mask)


def test_things_are_sometimes_hidden_in_part_and_nouns_often_come_twice(scenes: list[Scene]) -> None:
    hidden = [any(thing.area_px < 0.9 * thing.full_area_px for thing in scene.things) for scene in scenes]
    repeated = [len({thing.noun for thing in scene.things}) < len(scene.things) for scene in scenes]
    assert 0.05 < np.mean(hidden) < 0.5
    assert 0.5 < np.mean(repeated) < 0.9


def test_smallness_makes_things_smaller_and_nothing_else() -> None:
    plain, small = (
        [SceneGenerator(side_px=128, smallness=smallness).scene(n) for n in range(60)] for smallness in (1.0, 2.0)
    )
    sizes = [[np.sqrt(thing.full_area_px) for scene in scenes for thing in scene.things] for scenes in (plain, small)]
    assert np.mean(sizes[1]) < 0.9 * np.mean(sizes[0])
    assert np.quantile(sizes[1], 0.02) > 0.8 * np.quantile(sizes[0], 0.02)  # thin things vary
    assert [len(scene.things) for scene in small] == [len(scene.things) for scene in plain]


def test_a_scene_does_not_depend_on_what_was_drawn_before() -> None:
    forwards, backwards = SceneGenerator(seed=3), SceneGenerator(seed=3)
    first = [digest(forwards.scene(index)) for index in range(12)]
    second = [digest(backwards.scene(index)) for index in reversed(range(12))]
    assert first == second[::-1]


def test_another_process_draws_the_same_scene() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_scenes import digest; "
        "from ssp_sam.data import SceneGenerator; print(digest(SceneGenerator(seed=4, split='test').scene(77)))"
    )
    folder = str(Path(__file__).parent)
    output = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True).stdout
    assert output.strip() == digest(SceneGenerator(seed=4, split="test").scene(77))


def test_splits_seeds_and_numbers_share_no_scene() -> None:
    glyphs = GlyphSet()
    digests = [
        digest(SceneGenerator(split=split, seed=seed, side_px=128, glyphs=glyphs).scene(index))
        for split in SPLITS
        for seed in (0, 1, 2)
        for index in range(15)
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "no split 'dev'; there are train, val, test, calibration"),
        ({"side_px": 10}, "side_px is 10"),
        ({"seed": -1}, "seed is -1; 0 to 4294967295"),
        ({"expressions_per_scene": 0}, "expressions_per_scene is 0"),
        ({"vocabulary": ["dog", "gadget"]}, "the vocabulary holds gadget, which are no nouns of nouns.txt"),
        (
            {"vocabulary": ["dog", "cat"]},
            "the vocabulary holds 2 nouns; at least 8, so that something",
        ),
        ({"smallness": 0.9}, "smallness is 0.9; at least 1"),
        ({"emphasis": {"sizes": 2.0}}, "emphasis names sizes; there are noun, position, size, "),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SceneGenerator(**arguments)  # type: ignore[arg-type]


def test_a_small_vocabulary_is_enough_for_phrases_of_every_kind() -> None:
    vocabulary = ("bear", "cat", "cow", "dog", "duck", "fish", "fox", "frog")  # the only group is never absent
    generator = SceneGenerator(side_px=64, expressions_per_scene=8, vocabulary=vocabulary)
    for number in range(30):
        assert len(generator.scene(number).expressions) == 8


def test_a_wrong_number_is_named() -> None:
    with pytest.raises(DataError, match="index is 4294967296; 0 to 4294967295"):
        SceneGenerator().scene(2**32)
