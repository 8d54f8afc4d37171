import numpy as np
import torch

from ssp_sam.config import get_preset
from ssp_sam.evaluation.release import place_truth
from ssp_sam.preprocess import geometry_of
from ssp_sam.training.objectives import on_half_square
from ssp_sam.training.targets import targets_of


def test_half_square_masks_are_placed_as_the_release_places_them() -> None:
    mask = np.zeros((90, 140), dtype=bool)
    mask[10:47, 20:101] = True
    preset = get_preset("mini336")
    truth = targets_of([mask], geometry_of((90, 140), preset), preset, half_square=True).truth_mask
    assert truth.shape == (1, 512, 512)
    assert np.array_equal(truth[0] > 0, place_truth(mask))
    assert set(np.unique(truth)) == {0, 255}


def test_logits_are_enlarged_then_halved() -> None:
    logits = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    found = on_half_square(logits, 32)
    assert found.shape == (2, 16, 16)
    large = torch.nn.functional.interpolate(logits[:, None], (32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(found, large.view(2, 16, 2, 16, 2).mean(dim=(2, 4)))
