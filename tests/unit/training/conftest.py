import copy
from typing import Any

import pytest

from ssp_sam.config import PRESETS, ClipConfig, Preset, SamConfig, SspConfig

NANO = Preset(
    name="nano",
    clip=ClipConfig(
        image_side_px=64,
        patch_px=16,
        width=16,
        layers=2,
        heads=2,
        out_width=16,
        text_width=16,
        text_layers=1,
        text_heads=2,
        surgery_layers=1,
    ),
    sam=SamConfig(
        image_side_px=64,
        patch_px=8,
        width=16,
        depth=2,
        heads=2,
        global_blocks=(1,),
        window=4,
        out_channels=16,
        decoder_heads=2,
        decoder_mlp=32,
        iou_head_width=16,
    ),
    ssp=SspConfig(width=16, attention_heads=2, prompt_tokens=4, layers=1, heads=2, ffn=32),
    text_positions=30,
)

_COMMON = {"images_per_step": 2, "expressions_per_image": 2, "learning_rate": 2e-3}
_RUN = {
    "name": "trial",
    "preset": "nano",
    "precision": "fp32",
    "save_every_minutes": 1000,
    "log_every_seconds": 0,
    "data": {"side_px": 64, "workers": 0},
    "validation": {"scenes": 2},
    "phases": [
        {
            **_COMMON,
            "name": "find",
            "objective": "grounding",
            "steps": 3,
            "train": {"clip_image_encoder": 1.0, "text_encoder": 1.0, "similarity_head": 1.0},
            "loss_weights": {"similarity_bce": 1.0, "similarity_dice": 1.0},
        },
        {
            **_COMMON,
            "name": "mask",
            "objective": "masks",
            "steps": 3,
            "warmup_steps": 2,
            "optimizer": "muon",
            "train": {"ssp_prompt_generator": 1.0, "mask_decoder": 0.5},
            "loss_weights": {"mask_bce": 1.0, "mask_dice": 1.0, "iou_mse": 1.0, "box_l1": 1.0, "box_giou": 1.0},
        },
    ],
}


@pytest.fixture
def nano(monkeypatch: pytest.MonkeyPatch) -> Preset:
    """A preset that trains in no time."""
    monkeypatch.setitem(PRESETS, NANO.name, NANO)
    return NANO


@pytest.fixture
def run_table(nano: Preset) -> dict[str, Any]:
    """A valid run as TOML gives it, of two short phases."""
    return copy.deepcopy(_RUN)
