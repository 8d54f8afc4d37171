"""Parameter groups, learning rates and averaged weights of one phase."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssp_sam.training.config import PhaseConfig
from ssp_sam.training.trainee import Trainee

# Narrower matrices have too few directions for Muon to make them count alike.
_MUON_SIDE_MIN = 16


class Optimizers:
    """Several optimizers, each of parameters of its own, as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self._parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all of them."""
        return [group for part in self._parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts:
            part.zero_grad()

    def step(self) -> None:
        """Change the parameters by their gradients."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return all that a step depends on."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Undo `state_dict`."""
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def make_optimizer(trainee: Trainee, phase: PhaseConfig) -> Optimizers:
    """Return AdamW over what the phase trains, and Muon over its matrices if the phase says so.

    Unless the phase says so, vectors and tables of embeddings do not decay.
    """
    groups: dict[str, list[dict[str, Any]]] = {"adamw": [], "muon": []}
    for name, rate in phase.train.items():
        part = trainee.part(name)
        tables = {id(module.weight) for module in part.modules() if isinstance(module, nn.Embedding)}
        kinds: dict[tuple[str, float], list[Tensor]] = {}
        for key, parameter in part.named_parameters():
            is_vector = parameter.ndim < 2 or id(parameter) in tables
            decay = 0.0 if is_vector and not phase.decay_all else phase.weight_decay
            by_muon = phase.optimizer == "muon" and not is_vector and _multiplies(key, parameter)
            kinds.setdefault(("muon" if by_muon else "adamw", decay), []).append(parameter)
        for (optimizer, decay), parameters in kinds.items():
            groups[optimizer].append({"params": parameters, "weight_decay": decay, "rate_share": rate})
    rate = phase.learning_rate
    parts: list[torch.optim.Optimizer] = []
    if groups["adamw"]:
        parts.append(torch.optim.AdamW(groups["adamw"], lr=rate, betas=(0.9, phase.adam_beta2), fused=True))
    if groups["muon"]:
        # Its steps are made as large as AdamW's usually are, so that one rate serves both.
        parts.append(torch.optim.Muon(groups["muon"], lr=rate, adjust_lr_fn="match_rms_adamw"))
    return Optimizers(parts)


def _multiplies(name: str, parameter: Tensor) -> bool:
    """Say whether a parameter is a matrix that maps one layer to the next: no kernel, no positions, no head."""
    return parameter.ndim == 2 and "pos" not in name and min(parameter.shape) >= _MUON_SIDE_MIN


def set_learning_rate(optimizer: Optimizers, phase: PhaseConfig, step: int, epoch: int = 0) -> None:
    """Set the rates for `step`, which is of `epoch`: a linear warm-up, then half a cosine."""
    for group in optimizer.param_groups:
        if phase.epochs:
            group["lr"] = _by_epoch(phase, epoch, phase.learning_rate * group["rate_share"])
        else:
            group["lr"] = phase.learning_rate * _by_step(phase, step) * group["rate_share"]


def _by_step(phase: PhaseConfig, step: int) -> float:
    """Return the share of the rate that counts at a step."""
    if step < phase.warmup_steps:
        return (step + 1) / phase.warmup_steps
    progress = (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)
    low = phase.final_learning_rate_share
    return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2


def _by_epoch(phase: PhaseConfig, epoch: int, rate: float) -> float:
    """Return the rate in an epoch: between the lowest, which is the same for all modules, and the module's own."""
    low = phase.lowest_learning_rate
    if epoch < phase.warmup_epochs:
        return low + (rate - low) * epoch / phase.warmup_epochs
    return low + (rate - low) * (1 + math.cos(math.pi * epoch / phase.epochs)) / 2


class AveragedWeights:
    """An exponential moving average of what is trained; early on it forgets faster, so it starts unbiased."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._live = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
        self._average = {name: value.clone() for name, value in self._live.items()}
        self._decay = decay

    def update(self, step: int) -> None:
        """Take in the weights after `step` (counted from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self._average.values()), list(self._live.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the module hold the average while the context lasts."""
        kept = {name: value.clone() for name, value in self._live.items()}
        self._fill(self._average)
        try:
            yield
        finally:
            self._fill(kept)

    def keep(self) -> None:
        """Let the module hold the average from now on."""
        self._fill(self._average)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average by parameter name."""
        return self._average

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state_dict`."""
        for name, value in self._average.items():
            value.copy_(state[name])

    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self._live.items():
            value.copy_(values[name])
