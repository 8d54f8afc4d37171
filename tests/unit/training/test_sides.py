import pytest
import torch
from torch import Tensor

from ssp_sam.config import Preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.clip_image import ClipBlock, ClipImageEncoder
from ssp_sam.training import positions, sides
from ssp_sam.training.positions import add_waves
from ssp_sam.training.sides import SIDES, Side, look_to_sides

IMAGES, COLOURS = 96, 6
GRID = 4


@pytest.fixture
def encoder(nano: Preset, monkeypatch: pytest.MonkeyPatch) -> ClipImageEncoder:
    """An encoder that reads positions, and whose first block adds nothing yet."""
    monkeypatch.setattr(positions, "WAVES", 3)  # of `nano`'s 16 directions more would be too many
    monkeypatch.setattr(sides, "CARRIED_WAVES", 3)
    torch.manual_seed(2)
    encoder = ClipImageEncoder(nano.clip).requires_grad_(False)
    add_waves(encoder, *_pictures()[:2])
    block = _block(encoder)
    block.attn.proj.weight.zero_()
    block.attn.proj.bias.zero_()
    return encoder


def _block(encoder: ClipImageEncoder) -> ClipBlock:
    block = encoder.blocks[0]
    assert isinstance(block, ClipBlock)
    return block


def _pictures() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images with three things of a patch's size each, the geometry, what patches show and their names."""
    torch.manual_seed(3)
    colours = torch.randint(60, 256, (COLOURS, 3), dtype=torch.uint8)
    patches = torch.full((IMAGES, GRID * GRID, 3), 10, dtype=torch.uint8)
    things = torch.full((IMAGES, GRID * GRID), -1)
    names = torch.eye(COLOURS).repeat_interleave(3, dim=0)
    for image in range(IMAGES):
        for place in torch.randperm(GRID * GRID)[:3].tolist():
            thing = int(torch.randint(len(names), ()))
            patches[image, place], things[image, place] = colours[thing // 3], thing
    grid = patches.unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
    images = grid.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)
    geometry = torch.tensor([[64, 64], [64, 64], [64, 64], [0, 0]], dtype=torch.int32).expand(IMAGES, -1, -1)
    return images, geometry, things, names


def _attention(encoder: ClipImageEncoder, images: Tensor, geometry: Tensor) -> Tensor:
    """Return where each head of the first block looks, from patches to patches: (B, heads, N, N)."""
    kept: list[Tensor] = []
    block = _block(encoder)
    hook = block.ln_1.register_forward_hook(lambda module, given, answer: kept.append(answer))
    encoder(images, geometry[:, 2], geometry[:, 3])
    hook.remove()
    query, key, _ = block.attn.qkv(kept[0]).unflatten(2, (3, block.attn.heads, -1)).permute(2, 0, 3, 1, 4)
    attention: Tensor = (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)
    return attention[:, :, 1:, 1:]


@pytest.mark.parametrize("number", range(len(SIDES)))
def test_a_head_looks_at_the_things_on_its_side(
    encoder: ClipImageEncoder, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    side = SIDES[number]
    monkeypatch.setattr(sides, "SIDES", (side,))
    images, geometry, things, names = _pictures()
    before = encoder(images, geometry[:, 2], geometry[:, 3])
    look_to_sides(encoder, images, geometry, things, names)
    assert torch.equal(before, encoder(images, geometry[:, 2], geometry[:, 3]))
    attention = _attention(encoder, images, geometry)[:, 0]
    shown = things >= 0
    on_things = attention * shown[:, None]
    assert on_things.sum() > 0.7 * attention.sum()  # there are 13 other patches
    if side == Side(0, 0):
        return
    row, col = torch.arange(GRID * GRID) // GRID, torch.arange(GRID * GRID) % GRID
    along, value = (row, side.rows) if side.rows else (col, side.cols)
    further = value * (along[None] - along[:, None])
    has_one = ((further > 0)[None] & shown[:, None]).any(dim=2)  # somewhere to look at
    right_way = (on_things * (further > 0)).sum(dim=2)[has_one].sum()
    wrong_way = (on_things * (further < 0)).sum(dim=2)[has_one].sum()
    assert right_way > 10 * wrong_way


def _unexplained(inputs: Tensor, truth: Tensor) -> float:
    """Share of the truth's variance that no linear map of inputs (M, C) tells."""
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    found = torch.linalg.lstsq(inputs, truth, driver="gelsd").solution
    return float((inputs @ found - truth).var() / truth.var())


def test_values_tell_what_things_are_called(encoder: ClipImageEncoder) -> None:
    images, geometry, things, names = _pictures()
    block, shown = _block(encoder), things >= 0
    kept: list[Tensor] = []
    hook = block.ln_1.register_forward_hook(lambda module, given, answer: kept.append(answer[:, 1:][shown]))
    encoder(images, geometry[:, 2], geometry[:, 3])
    hook.remove()
    seen = kept[0]

    def values() -> Tensor:
        found: Tensor = block.attn.qkv(seen).unflatten(1, (3, block.attn.heads, -1))[:, 2, 0]
        return found

    truth = names[things[shown]]
    at_best, drawn = _unexplained(seen, truth), _unexplained(values(), truth)
    look_to_sides(encoder, images, geometry, things, names)
    assert _unexplained(values(), truth) < at_best + 0.2 * (drawn - at_best)
    assert values()[:, :COLOURS].mean().abs() < 1e-3  # names have so many directions


def test_without_new_blocks_it_says_so(nano: Preset) -> None:
    encoder = ClipImageEncoder(nano.clip)
    with pytest.raises(InvalidArgumentError, match="grow it by new ones"):
        look_to_sides(encoder, *_pictures())
