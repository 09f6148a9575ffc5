"""Optimizer and learning rate of a stage."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torchtune.config._utils import _get_component_from_path

from gog.spec import OptimizerSettings
from gog_recipes.runtime import parallel


def build(
    settings: OptimizerSettings, parameters: Iterable[torch.nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    """Any torch optimizer by its dotted path."""
    component = _get_component_from_path(settings.component)
    return component(
        [parameter for parameter in parameters if parameter.requires_grad],
        lr=learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )


def set_rate(optimizer: torch.optim.Optimizer, base: float, step: int, *, warmup: int, total: int = 0) -> float:
    """Learning rate of step (from 0): linear warm-up, then constant, or cosine to 0 at `total` when total is given."""
    rate = base * min(1.0, (step + 1) / max(1, warmup))
    if total and step >= warmup:
        rate *= 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def clip_gradients(model: torch.nn.Module, limit: float) -> float:
    """Scales the gradients down to a norm of at most `limit`; the norm they had, over all ranks."""
    return float(parallel.full(torch.nn.utils.clip_grad_norm_(model.parameters(), limit)))
