import pytest
import torch
from torch import Tensor

from ssp_sam.config import Preset
from ssp_sam.modeling.clip_image import ClipImageEncoder
from ssp_sam.training import positions
from ssp_sam.training.positions import add_waves, carry_waves, waves

IMAGES = 32


@pytest.fixture
def encoder(nano: Preset, monkeypatch: pytest.MonkeyPatch) -> ClipImageEncoder:
    monkeypatch.setattr(positions, "WAVES", 2)  # of `nano`'s 16 directions all would be used
    monkeypatch.setattr(positions, "CARRIED_WAVES", 2)
    torch.manual_seed(2)
    return ClipImageEncoder(nano.clip).requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(3)
    flat = torch.randint(0, 256, (IMAGES, 3, 4, 4, 1, 1), dtype=torch.uint8).expand(-1, -1, -1, -1, 16, 16)
    return flat.transpose(3, 4).reshape(IMAGES, 3, 64, 64)  # patches of one colour: 3 directions of 16


@pytest.fixture
def geometry() -> Tensor:
    return torch.tensor([[64, 64], [64, 64], [64, 64], [0, 0]], dtype=torch.int32).expand(IMAGES, -1, -1)


def _patches(encoder: ClipImageEncoder, images: Tensor, geometry: Tensor) -> Tensor:
    pixels = encoder.normalize(images, geometry[:, 2], geometry[:, 3])
    return encoder.conv1(pixels).flatten(2).mT.flatten(0, 1)


def _told(inputs: Tensor, count: int) -> float:
    """Share of positions' variance that a linear map of inputs (B * N, C) tells of images it was not fitted to."""
    truth = waves(4, count).repeat(IMAGES, 1)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    half = len(inputs) // 2
    found = torch.linalg.lstsq(inputs[:half], truth[:half], driver="gelsd").solution
    return 1 - float((inputs[half:] @ found - truth[half:]).var() / truth.var())


def test_waves_tell_places_apart() -> None:
    both = waves(16, 4)
    assert both.shape == (256, 8)
    assert torch.allclose(both.square().mean(dim=0), torch.ones(8), atol=0.01)
    assert torch.allclose(both.T @ both / 256, torch.eye(8), atol=0.01)
    grid = both.view(16, 16, 8)
    assert torch.equal(grid[3, 5, :4], grid[3, 9, :4])  # rows first
    assert torch.equal(grid[3, 5, 4:], grid[8, 5, 4:])


def test_waves_go_where_patches_hardly_differ(encoder: ClipImageEncoder, images: Tensor, geometry: Tensor) -> None:
    before = encoder.positional_embedding.clone()
    add_waves(encoder, images, geometry)
    change = encoder.positional_embedding - before
    assert not change[0].any()  # the class token has no place
    _, size, directions = torch.linalg.svd(change[1:])
    assert int((size > 1e-3).sum()) == 4  # two waves along each axis
    spread = (_patches(encoder, images, geometry) @ directions.T).std(dim=0)
    assert spread[:4].max() < 1e-3 * spread[4:].max()
    assert torch.isclose(change[1:].square().sum(dim=1).mean().sqrt(), torch.tensor(2 * positions.AMPLITUDE), rtol=0.2)


def test_carried_waves_are_read_beyond_a_block(encoder: ClipImageEncoder, geometry: Tensor) -> None:
    torch.manual_seed(4)
    images = torch.randint(0, 256, (IMAGES, 3, 64, 64), dtype=torch.uint8)  # no direction is free of contents
    add_waves(encoder, images, geometry)
    block = encoder.blocks[0]

    def answer() -> Tensor:
        kept = []
        hook = block.register_forward_hook(lambda module, given, out: kept.append(out[0][:, 1:].flatten(0, 1)))
        encoder(images, geometry[:, 2], geometry[:, 3])
        hook.remove()
        return kept[0]

    block.attn.proj.weight *= 30  # what the block adds hides positions
    block.mlp[0].weight *= 30
    block.mlp[2].weight *= 30
    hidden, before = _told(answer(), 2), answer()
    untouched = encoder.blocks[1].mlp[2].weight.clone()
    carry_waves(encoder, images, geometry)
    after = answer()
    assert torch.equal(encoder.blocks[1].mlp[2].weight, untouched)  # with two streams: none of its business
    assert 1 - _told(after, 2) < 0.7 * (1 - hidden)
    assert torch.linalg.vector_norm(after - before) < torch.linalg.vector_norm(before)
