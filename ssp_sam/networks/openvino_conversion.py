"""From PyTorch modules to models of OpenVINO.

As a process of its own (`python -m`) it takes a pickled list of (stage, preset, file of weights, folder) on its
standard input and writes the parts of each network to its folder, which it makes.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ssp_sam.checkpoint import load_stage_module
from ssp_sam.config import Preset
from ssp_sam.errors import SegmentationError
from ssp_sam.modeling.sam import MaskDecoder
from ssp_sam.modeling.sam_decoder import SeenImage
from ssp_sam.modeling.ssp import SspPromptGenerator, compare
from ssp_sam.networks._private_openvino import openvino
from ssp_sam.onnx_export import example_inputs
from ssp_sam.runtime import cpu_threads
from ssp_sam.serving import contract


def convert(stage: str, module: nn.Module, preset: Preset) -> dict[str, Any]:
    """Return the parts of a stage's network by their names in `ssp_sam.networks.openvino_network`."""
    module = module.eval().requires_grad_(False)
    arguments = example_arguments(stage, preset)
    with _threads(cpu_threads("all")):  # to trace is to compute once, in float32
        return _parts(module, arguments)


def _parts(module: nn.Module, arguments: tuple[Tensor, ...]) -> dict[str, Any]:
    if isinstance(module, SspPromptGenerator):
        clip_tokens, token_ids, text_embedding, word_embeddings, image_index = arguments
        compared = clip_tokens, text_embedding, image_index
        patches, _, similarity_map = compare(*compared)
        written = patches, similarity_map, image_index, token_ids, word_embeddings
        return {
            "compare": _traced(_AsModule(compare), compared),
            "write": _traced(_AsModule(module.write, module), written),
        }
    if isinstance(module, MaskDecoder):
        image_embedding, prompt_tokens, image_index = arguments
        seen = module.see(image_embedding)
        return {
            "see": _traced(_AsModule(module.see, module), (image_embedding,)),
            "decode": _traced(_AsModule(_decode_flat(module), module), (*seen, prompt_tokens, image_index)),
        }
    return {"whole": _traced(module, arguments)}


def _decode_flat(module: MaskDecoder) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return `module.decode` for a trace, whose arguments are tensors."""

    def decode(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        *seen, prompt_tokens, image_index = arguments
        return module.decode(SeenImage(*seen), prompt_tokens, image_index)

    return decode


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _AsModule(nn.Module):
    """A function as a module: only such can be converted. owner: whose parameters it uses."""

    def __init__(self, function: Callable[..., Any], owner: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.owner = function, owner

    def forward(self, *arguments: Tensor) -> Any:
        return self.function(*arguments)


def _traced(module: nn.Module, arguments: tuple[Tensor, ...]) -> Any:
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about sizes that the preset makes constant
        # Traced here: by itself, OpenVINO lets PyTorch check the trace, which computes the network four times more.
        traced = torch.jit.trace(module, arguments, check_trace=False)  # type: ignore[no-untyped-call]
        return openvino.convert_model(traced, example_input=arguments)


def example_arguments(stage: str, preset: Preset) -> tuple[Tensor, ...]:
    """Return what the network of a stage may be called with: one image, or two phrases of it."""
    (model,) = (
        model
        for model in contract.onnx_stage_models(preset, "FP32")
        if model.name == (contract.TEXT_TOWER if stage == contract.TEXT_ENCODER else stage)
    )
    tensors = example_inputs(model, preset, images=1, phrases=2)
    geometry = tensors.pop(contract.GEOMETRY.name, torch.empty(0))
    if stage == contract.SAM_IMAGE_ENCODER:
        return *tensors.values(), geometry[:, 1]
    if stage == contract.CLIP_IMAGE_ENCODER:
        return *tensors.values(), geometry[:, 2], geometry[:, 3]
    if stage == contract.TEXT_ENCODER:
        return tuple(values[0] for values in tensors.values())
    of_image, *of_phrases = tensors.values()
    return of_image, *(values[0] for values in of_phrases), torch.zeros(2, dtype=torch.long)


def main() -> int:
    """Convert what standard input asks for; return 1, the error told last and with its code, if it cannot be done."""
    for stage, preset, weights, folder in pickle.load(sys.stdin.buffer):
        try:
            module = load_stage_module(stage, preset, weights)
        except SegmentationError as error:
            print(error.tagged(), file=sys.stderr)
            return 1
        parts = convert(stage, module, preset)
        try:
            folder.mkdir()
            for name, model in parts.items():
                openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=False)
        except (OSError, RuntimeError) as error:  # OpenVINO does not tell that a disk is full
            free_mib = shutil.disk_usage(folder.parent).free / 2**20
            told = f"cannot write the network of {stage} in {folder.parent.parent}, where {free_mib:.0f} MiB are free"
            print(SegmentationError(f"{told}: {error}").tagged(), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
