from __future__ import annotations

import pytest

from ssp_sam.config import PRESETS, get_preset
from ssp_sam.errors import InvalidArgumentError


def test_an_unknown_preset_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match="unknown preset 'huge'; known: tiny, b224, l336"):
        get_preset("huge")


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_fit_together(name: str) -> None:
    preset = get_preset(name)
    clip, sam, ssp = preset.clip, preset.sam, preset.ssp
    assert preset.name == name
    assert clip.grid * clip.patch_px == clip.image_side_px
    assert sam.grid * sam.patch_px == sam.image_side_px
    assert sam.mask_side == 4 * sam.grid
    assert 0 < clip.surgery_layers <= clip.layers
    assert all(block < sam.depth for block in sam.global_blocks)
    for width, heads in (
        (clip.width, clip.heads),
        (clip.text_width, clip.text_heads),
        (sam.width, sam.heads),
        (ssp.width, ssp.attention_heads),
        (sam.out_channels, ssp.heads),
        (sam.out_channels, sam.decoder_heads),
    ):
        assert width % heads == 0
