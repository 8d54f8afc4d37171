"""The networks of the stages, ready to be called: numpy in, numpy out, whatever computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ssp_sam.config import Preset
from ssp_sam.runtime import OPENVINO, Runtime

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]
Network = Callable[..., tuple[Array, ...]]
"""Takes what the network of a stage takes, and returns what it returns as a tuple; floats are float32.

It takes float16 as well, which stages use for image embeddings between them, and computes with the same numbers.
Threads may share it.
"""


def load_network(stage: str, preset: Preset, weights: Path, runtime: Runtime, threads: int) -> Network:
    """Return the network of a stage with the parameters of a safetensors file, computing in a runtime.

    threads: of the CPU. Raises InvalidArgumentError if the file does not hold exactly the parameters of that stage.
    """
    if runtime.engine == OPENVINO:
        from ssp_sam.networks.openvino_network import load_openvino_network

        return load_openvino_network(stage, preset, weights, runtime.precision, threads)
    import torch

    from ssp_sam.checkpoint import load_stage_module
    from ssp_sam.networks.torch_network import TorchNetwork

    torch.set_num_threads(threads)
    return TorchNetwork(load_stage_module(stage, preset, weights), runtime)


def prepare_networks(preset: Preset, weights: Mapping[str, Path], runtimes: Mapping[str, Runtime]) -> None:
    """Do for several networks, named by their stages, what `load_network` of each would have to do first.

    It takes less time than one by one, and what comes out is kept. Raises what `load_network` raises.
    """
    converted = [stage for stage, runtime in runtimes.items() if runtime.engine == OPENVINO]
    if converted:
        from ssp_sam.networks.converted import Source, convert_together

        convert_together(Source(stage, preset, weights[stage]) for stage in converted)


def network_of(stage: str, module: nn.Module, preset: Preset, runtime: Runtime, threads: int) -> Network:
    """Return the network of a stage from a module, which is taken over."""
    if runtime.engine == OPENVINO:
        from ssp_sam.networks.openvino_conversion import convert
        from ssp_sam.networks.openvino_network import openvino_network

        return openvino_network(stage, convert(stage, module, preset), runtime.precision, threads)
    import torch

    from ssp_sam.networks.torch_network import TorchNetwork

    torch.set_num_threads(threads)
    return TorchNetwork(module, runtime)
