from types import SimpleNamespace

import numpy as np
import torch

from ssp_sam.config import get_preset
from ssp_sam.evaluation.release import place_truth
from ssp_sam.postprocess import full_size_logits
from ssp_sam.preprocess import geometry_of
from ssp_sam.training.batches import BatchForm, Sample, make_batch
from ssp_sam.training.objectives import _mask_losses, enlarged
from ssp_sam.training.targets import MASK_GRIDS, NOTHING, UNCLEAR, targets_of, things_shown


def test_half_square_masks_are_placed_as_the_release_places_them() -> None:
    mask = np.zeros((90, 140), dtype=bool)
    mask[10:47, 20:101] = True
    preset = get_preset("mini336")
    truth = targets_of([mask], geometry_of((90, 140), preset), preset, masks_on="half-square").truth_mask
    assert truth.shape == (1, 512, 512)
    assert np.array_equal(truth[0] > 0, place_truth(mask))
    assert set(np.unique(truth)) == {0, 255}


def test_a_patch_shows_the_noun_that_covers_half_of_it() -> None:
    preset = get_preset("mini336")  # patches of 14 pixels
    masks = np.zeros((2, 336, 336), dtype=bool)
    masks[0, :28, :28] = True
    masks[1, 28:42, :20] = True  # a patch and some of the next one, too little to say
    shown = things_shown(list(masks), geometry_of((336, 336), preset), preset).reshape(24, 24)
    assert shown[:3, :3].tolist() == [[0, 0, NOTHING], [0, 0, NOTHING], [1, UNCLEAR, NOTHING]]
    assert (shown == NOTHING).sum() == 24 * 24 - 6


def test_a_thing_too_small_for_half_a_patch_is_shown_by_the_patch_that_shows_most_of_it() -> None:
    preset = get_preset("mini336")  # patches of 14 pixels
    masks = np.zeros((3, 336, 336), dtype=bool)
    masks[0, 5:13, 8:16] = True  # 48 and 16 of 196 pixels
    masks[1, 28:31, 0:10] = True  # 30: too little to tell what it is
    masks[2, 56:66, 0:14] = True  # most of its patch,
    masks[2, 66:70, 6:14] = True
    masks[1, 66:70, 0:6] = True  # which therefore does not show this
    shown = things_shown(list(masks), geometry_of((336, 336), preset), preset).reshape(24, 24)
    assert shown[0, :3].tolist() == [0, UNCLEAR, NOTHING]
    assert shown[2, 0] == 1  # 30 of 196 are just enough
    assert shown[4, 0] == 2
    masks[1, 28:31, 0:10] = False
    assert 1 not in things_shown(list(masks), geometry_of((336, 336), preset), preset)


def test_a_grid_holds_the_means_of_its_cells_stretched_to_1() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((336, 336)) < 0.3
    preset = get_preset("mini336")
    found = targets_of([mask], geometry_of(mask.shape, preset), preset, masks_on="cells").truth_grid[0]
    slow = [mask[14 * row : 14 * row + 14, 14 * col : 14 * col + 14].mean() for row in range(24) for col in range(24)]
    np.testing.assert_allclose(found, np.array(slow) / max(slow), atol=1e-6)


def test_the_grid_of_something_absent_is_empty() -> None:
    preset, mask = get_preset("mini336"), np.zeros((336, 336), dtype=bool)
    assert not targets_of([mask], geometry_of(mask.shape, preset), preset, masks_on="cells").truth_grid.any()


def test_logits_are_enlarged_then_halved() -> None:
    logits = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    found = enlarged(logits, "half-square", 32)
    assert found.shape == (2, 16, 16)
    large = torch.nn.functional.interpolate(logits[:, None], (32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(found, large.view(2, 16, 2, 16, 2).mean(dim=(2, 4)))


def test_a_mask_on_sams_square_is_compared_pixel_by_pixel() -> None:
    """An image as large as the square stays as it is, and logits become what the answer's mask is cut from."""
    rng = np.random.default_rng(1)
    preset, mask = get_preset("tiny"), rng.random((180, 256)) < 0.5
    geometry = geometry_of(mask.shape, preset)
    truth = targets_of([mask], geometry, preset, masks_on="square").truth_mask[0]
    assert np.array_equal(truth[:180] == 255, mask) and not truth[180:].any()
    logits = rng.standard_normal((128, 128)).astype(np.float32)
    found = enlarged(torch.from_numpy(logits)[None], "square", 256)[0]
    np.testing.assert_allclose(found[:180], full_size_logits(logits, geometry, 256), atol=1e-5)


def test_losses_on_every_grid_compare_like_with_like() -> None:
    """Logits made from a mask of whole cells agree with it on each grid."""
    preset = get_preset("tiny")
    mask = np.zeros((256, 256), dtype=bool)
    mask[64:128, 32:200] = True
    for masks_on in MASK_GRIDS:
        batch = make_batch(
            [Sample(np.zeros((256, 256, 3), np.uint8), [mask], ["the dog"], ["noun"])], BatchForm(preset, masks_on)
        )
        logits = torch.from_numpy(mask[::2, ::2] * 40.0 - 20.0)[None]
        found = _mask_losses(SimpleNamespace(preset=preset), batch, logits, torch.ones(1), torch.ones(1))
        assert found["mask_dice"] < 0.02 and found["iou_mse"] < 0.002, masks_on
        assert (
            _mask_losses(SimpleNamespace(preset=preset), batch, logits.roll(8, dims=1), torch.ones(1), torch.ones(1))[
                "mask_dice"
            ]
            > 0.2
        ), masks_on
