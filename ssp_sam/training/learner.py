"""One phase's learning: its optimizer, its averaged weights, and what a step does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from ssp_sam.training.batches import Batch
from ssp_sam.training.close_ups import CloseUps
from ssp_sam.training.config import PhaseConfig, RunConfig
from ssp_sam.training.objectives import OBJECTIVES
from ssp_sam.training.optimization import AveragedWeights, make_optimizer, set_learning_rate
from ssp_sam.training.ranks import Ranks
from ssp_sam.training.trainee import Trainee


class TrainingError(Exception):
    """A run cannot go on."""


def autocast(config: RunConfig, device: torch.device) -> torch.autocast:
    """Return the context in which a network of this run computes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


class _PlainAttention(TorchFunctionMode):
    """Does attention without a mask, or with a bias, as two products and a softmax, as PyTorch's own plain one does.

    That one also looks for rows that are masked altogether, three more passes over all scores. A bias must leave each
    query something to look at.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        bias = options.get("attn_mask")
        is_plain = len(args) == 3 and not options.keys() - {"attn_mask"}
        if (
            func is not F.scaled_dot_product_attention
            or not is_plain
            or (bias is not None and bias.dtype == torch.bool)
        ):
            return func(*args, **options)
        query, key, value = args
        device = query.device.type
        if torch.is_autocast_enabled(device):
            query, key, value = (x.to(torch.get_autocast_dtype(device)) for x in args)
        with torch.autocast(device, enabled=False):  # or the softmax would be in 32 bits
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
            if bias is not None:
                scores = scores + bias.to(scores.dtype)
            return scores.softmax(dim=-1) @ value


@contextmanager
def attention_for_training(device: torch.device) -> Iterator[None]:
    """Let attention be plain matrix products on a CPU while the context lasts.

    The fused operation's backward pass takes longer there: with one process, steps of SAM's phase took 1.2 times as
    long with it. With two on two cores no difference was seen.
    """
    if device.type != "cpu":
        yield
        return
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # it is about the CPU's 16 bits as well
    with sdpa_kernel(SDPBackend.MATH), _PlainAttention():
        yield


class Learner:
    """Trains what a phase names and freezes the rest."""

    def __init__(self, config: RunConfig, phase: PhaseConfig, trainee: Trainee, ranks: Ranks) -> None:
        self._config, self._phase, self._trainee, self._ranks = config, phase, trainee, ranks
        trainee.train_only(phase.train)
        self._trained = [parameter for parameter in trainee.parameters() if parameter.requires_grad]
        self._optimizer = make_optimizer(trainee, phase)
        self.average = AveragedWeights(trainee, config.ema_decay)

    def step(self, batch: Batch | CloseUps, index: int, epoch: int = 0) -> dict[str, Tensor]:
        """Do step `index`, counted from 0 as epochs are, and return the losses that count, before their weights.

        Raises TrainingError if the gradient is not finite.
        """
        set_learning_rate(self._optimizer, self._phase, index, epoch)
        for name, first in self._phase.train_from_epoch.items():
            # Without a gradient, the optimizer leaves a parameter alone.
            self._trainee.part(name).requires_grad_(epoch >= first)
        self._optimizer.zero_grad()
        batch = batch.to(self._ranks.device)
        with autocast(self._config, self._ranks.device), attention_for_training(self._ranks.device):
            found = OBJECTIVES[self._phase.objective].compute(self._trainee, batch, self._phase)
        loss = torch.stack([weight * found[name] for name, weight in self._phase.loss_weights.items()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        self._ranks.average_gradients(self._trained)
        norm = nn.utils.clip_grad_norm_(self._trained, self._phase.gradient_clip)
        if not torch.isfinite(norm):
            raise TrainingError(f"the gradient is {norm} in phase {self._phase.name}, step {index}; try a lower rate")
        self._optimizer.step()
        self.average.update(index)
        return {name: found[name].detach() for name in self._phase.loss_weights}

    def state_dict(self) -> dict[str, Any]:
        """Return all that a step depends on, besides the trainee's parameters."""
        return {"optimizer": self._optimizer.state_dict(), "average": self.average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
