import numpy as np
import torch

from ssp_sam.config import get_preset
from ssp_sam.evaluation.release import place_truth
from ssp_sam.preprocess import geometry_of
from ssp_sam.training.objectives import on_half_square
from ssp_sam.training.targets import NOTHING, UNCLEAR, targets_of, things_shown


def test_half_square_masks_are_placed_as_the_release_places_them() -> None:
    mask = np.zeros((90, 140), dtype=bool)
    mask[10:47, 20:101] = True
    preset = get_preset("mini336")
    truth = targets_of([mask], geometry_of((90, 140), preset), preset, half_square=True).truth_mask
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


def test_a_grid_holds_the_means_of_its_cells() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((336, 336)) < 0.3
    preset = get_preset("mini336")
    found = targets_of([mask], geometry_of(mask.shape, preset), preset, half_square=False).truth_grid[0]
    slow = [mask[14 * row : 14 * row + 14, 14 * col : 14 * col + 14].mean() for row in range(24) for col in range(24)]
    np.testing.assert_allclose(found, slow, atol=1e-6)


def test_logits_are_enlarged_then_halved() -> None:
    logits = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    found = on_half_square(logits, 32)
    assert found.shape == (2, 16, 16)
    large = torch.nn.functional.interpolate(logits[:, None], (32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(found, large.view(2, 16, 2, 16, 2).mean(dim=(2, 4)))
