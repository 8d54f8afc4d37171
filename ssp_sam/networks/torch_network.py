"""Networks that PyTorch computes."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ssp_sam.networks import Array
from ssp_sam.runtime import Runtime

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Layers whose weights autocast would convert at every call.
_PRODUCTS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

Module = TypeVar("Module", bound=nn.Module)


class TorchNetwork:
    """A module on the device of a runtime, called with arrays; see `ssp_sam.networks.Network`."""

    def __init__(self, module: nn.Module, runtime: Runtime) -> None:
        self._device, self._dtype = torch.device(runtime.device), TORCH_DTYPES[runtime.precision]
        self._module = place(module, self._device, self._dtype)

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """Compute without gradients, matrix products in the precision of the runtime."""
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32),
        ):
            answer = self._module(*(self._to_device(array) for array in arrays))
        tensors: tuple[Tensor, ...] = (answer,) if isinstance(answer, Tensor) else tuple(answer)
        return tuple(tensor.float().cpu().numpy() for tensor in tensors)

    def _to_device(self, array: Array) -> Tensor:
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self._device, non_blocking=True)
        return tensor.float() if tensor.dtype == torch.float16 else tensor


def place(module: Module, device: torch.device, dtype: torch.dtype) -> Module:
    """Return a module for inference on a device.

    The weights of matrix products are kept in the precision in which they are used: no call has to convert them, and
    they take half the memory. All other parameters stay in float32.
    """
    module = module.eval().requires_grad_(False).to(device)
    for layer in module.modules():
        if isinstance(layer, _PRODUCTS):
            layer.to(dtype)
    return module
