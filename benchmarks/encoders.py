"""SAM's image encoder at full size against `segment_anything`'s own, in float32, on the same cores."""

from __future__ import annotations

import copy
import gc
import os
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.figures import Figure, at_least, ratio
from benchmarks.timing import interleaved
from ssp_sam.config import Preset, get_preset
from ssp_sam.modeling.sam import SamImageEncoder
from ssp_sam.networks import network_of
from ssp_sam.runtime import keep_freed_memory, stage_runtime

PAIRS_MOST, PAIRS_S = 3, 30.0
"""So many pairs, as far as they begin in so many seconds: ViT-H alone takes the package a minute or two."""


def measure() -> Iterator[Figure]:
    """Yield speed and closeness of ViT-H and ViT-B with random weights."""
    keep_freed_memory()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for name, preset in (("ViT-B", "b224_vit_b"), ("ViT-H", "l336")):
        yield from _measure(name, get_preset(preset))
        gc.collect()


def random_encoder(preset: Preset) -> SamImageEncoder:
    """Return an encoder with random weights of the size that trained ones have, relative positions included."""
    torch.manual_seed(0)
    encoder = SamImageEncoder(preset.sam)
    for parameter_name, parameter in encoder.named_parameters():
        if "pos" in parameter_name:  # the package leaves them at zero
            nn.init.normal_(parameter, std=0.1)
    return encoder.eval().requires_grad_(False)


def _measure(name: str, preset: Preset) -> Iterator[Figure]:
    plain = random_encoder(preset)
    runtime = stage_runtime("sam_image_encoder", preset, "cpu", "auto")
    network = network_of("sam_image_encoder", copy.deepcopy(plain), preset, runtime, torch.get_num_threads())
    side = preset.sam.image_side_px
    image = torch.randint(256, (1, 3, side, side), dtype=torch.uint8)
    size_hw = torch.tensor([[side, side]])
    answers: dict[str, Tensor] = {}

    def run_plain() -> None:
        with torch.inference_mode():
            pixels = plain.normalize(image, size_hw, torch.zeros_like(size_hw))
            answers["plain"] = plain.vit(pixels)

    def run_ours() -> None:
        (embedding,) = network(image.numpy(), size_hw.numpy())
        answers["ours"] = torch.from_numpy(embedding)

    run_ours()  # a runtime may compile at its first call; the package's encoder has nothing to warm up
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    start_s = time.monotonic()
    while not seconds["ours"] or (len(seconds["ours"]) < PAIRS_MOST and time.monotonic() - start_s < PAIRS_S):
        pair = interleaved({"plain": run_plain, "ours": run_ours}, repeats=1, warmup=0, settle_s=0.5)
        for which, taken_s in pair.items():
            seconds[which] += taken_s
    how = (
        f"1 image of {side} x {side}, random weights, {torch.get_num_threads()} threads, "
        f"{len(seconds['ours'])} pair(s); ours in {runtime.name}"
    )
    yield ratio(f"{name}: segment_anything float32 / ours", seconds["plain"], seconds["ours"], how, at_least(3))
    cosine = F.cosine_similarity(answers["plain"].flatten(), answers["ours"].flatten(), dim=0).item()
    yield Figure(f"{name}: cosine of the two embeddings", cosine, "", how, at_least(0.999))
