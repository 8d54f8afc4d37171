from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ssp_sam.errors import InvalidArgumentError
from ssp_sam.predictor import Predictor
from ssp_sam.results import Segmentation


def assert_same(a: Segmentation, b: Segmentation) -> None:
    """The same answer, up to the rounding of another batch size: pixels on the edge of a mask may differ."""
    assert a.phrase == b.phrase
    assert a.no_target == b.no_target
    assert np.mean(a.mask != b.mask) < 1e-3
    np.testing.assert_allclose(a.box_xyxy_px, b.box_xyxy_px, atol=0.02)
    assert a.score == pytest.approx(b.score, abs=1e-4)


def test_answers_keep_the_order_and_do_not_depend_on_the_chunks(predictor: Predictor, make_png) -> None:
    chunk = predictor.preset.phrases_per_chunk
    phrases = [f"thing number {n} on the {'left' if n % 2 else 'right'}" for n in range(chunk + 3)]
    features = predictor.encode_image(make_png())
    together = predictor.segment(features, phrases)
    assert [answer.phrase for answer in together] == phrases
    for n in (0, chunk - 1, chunk, chunk + 2):
        (alone,) = predictor.segment(features, [phrases[n]])
        assert_same(together[n], alone)
    assert len({answer.score for answer in together}) > 1


def test_features_stand_for_the_image(predictor: Predictor, make_png) -> None:
    png = make_png(60, 45)
    for a, b in zip(
        predictor.segment(png, ["dog", "cat"]),
        predictor.segment(predictor.encode_image(png), ["dog", "cat"]),
        strict=True,
    ):
        assert a.mask.shape == (60, 45)
        np.testing.assert_array_equal(a.mask, b.mask)
        assert a.area_px == a.mask.sum()


def test_the_threshold_shrinks_masks(predictor: Predictor, make_png) -> None:
    features = predictor.encode_image(make_png())
    areas = [predictor.segment(features, ["dog"], mask_threshold=t)[0].area_px for t in (-100, -0.1, 0, 0.1, 100)]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] == 90 * 140
    assert areas[-1] == 0


def test_threads_may_share_it(predictor: Predictor, make_png) -> None:
    images = [make_png(50, 60, seed) for seed in range(4)]
    expected = [predictor.segment(image, ["dog"])[0] for image in images]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda image: predictor.segment(image, ["dog"])[0], images))
    for a, b in zip(got, expected, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize(("image", "phrases"), [(b"x", ["dog"]), (b"x", []), (b"x", [""])])
def test_what_cannot_be_used_is_refused(predictor: Predictor, image: bytes, phrases: list[str]) -> None:
    with pytest.raises(InvalidArgumentError):
        predictor.segment(image, phrases)


def test_a_text_is_no_list_of_phrases(predictor: Predictor, make_png) -> None:
    with pytest.raises(InvalidArgumentError, match="must be a list of texts"):
        predictor.segment(make_png(), "dog")


def test_a_threshold_that_is_no_number_is_refused(predictor: Predictor, make_png) -> None:
    with pytest.raises(InvalidArgumentError, match="mask_threshold is nan"):
        predictor.segment(make_png(), ["dog"], mask_threshold=float("nan"))


def test_a_folder_that_is_no_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"is no model repository of SSP-SAM: it has no manifest\.json"):
        Predictor.from_repository(tmp_path)


def test_weights_of_another_stage_are_refused(tiny_repository: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(tiny_repository, repository, copy_function=lambda a, b: Path(b).symlink_to(a))
    target = repository / "sam_image_encoder" / "1" / "model.safetensors"
    target.unlink()
    target.symlink_to(tiny_repository / "mask_decoder" / "1" / "model.safetensors")
    with pytest.raises(InvalidArgumentError, match="missing in sam_image_encoder"):
        Predictor.from_repository(repository, device="cpu")
