"""Optimizer, learning rate and gradients of a stage; training stops at the first number that is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torchtune.config._errors import InstantiationError
from torchtune.config._utils import _get_component_from_path

from gog import wording
from gog.errors import UserError
from gog.spec import Offload, OptimizerSettings
from gog_recipes.runtime import parallel
from gog_recipes.runtime.ranks import Ranks


def build(
    settings: OptimizerSettings,
    parameters: Iterable[torch.nn.Parameter],
    learning_rate: float,
    offload: Offload = "none",
) -> torch.optim.Optimizer:
    """The optimizer of those parameters that are trained: any torch optimizer by its dotted path.

    Args:
        settings: its class and coefficients
        parameters: of the policy
        learning_rate: of the first step
        offload: whether its state is on the CPU between steps

    Raises:
        UserError: there is no such class, or it cannot be made with these settings.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        component = _get_component_from_path(settings.component)
        optimizer: torch.optim.Optimizer = component(
            trained, lr=learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
    except (InstantiationError, TypeError, ValueError) as error:
        raise UserError(
            f"cannot make {settings.component}: {error}",
            where="optimizer",
            remedy="name a class that accepts lr, betas and weight_decay, such as torch.optim.AdamW",
        ) from error
    if offload == "cpu":
        optimizer.register_step_pre_hook(lambda *_: _move_state(optimizer, None))
        optimizer.register_step_post_hook(lambda *_: _move_state(optimizer, torch.device("cpu")))
    return optimizer


def _move_state(optimizer: torch.optim.Optimizer, device: torch.device | None) -> None:
    """Moves the state to a device, or to that of each parameter. Counts of steps stay where the optimizer put them."""
    for parameter, state in optimizer.state.items():
        place = parameter.device if device is None else device
        state.update(
            {key: each.to(place) for key, each in state.items() if isinstance(each, torch.Tensor) and each.dim()}
        )


def set_rate(optimizer: torch.optim.Optimizer, base: float, step: int, *, warmup: int, total: int = 0) -> float:
    """Sets the learning rate of a step: linear warm-up, then constant or cosine.

    Args:
        optimizer: whose rate is set
        base: rate after the warm-up
        step: counted from 0
        warmup: steps over which the rate rises
        total: step at which a cosine reaches 0; 0 keeps the rate constant

    Returns:
        The rate of this step.
    """
    rate = base * min(1.0, (step + 1) / max(1, warmup))
    if total and step >= warmup:
        rate *= 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def clip_gradients(model: torch.nn.Module, limit: float) -> float:
    """Scales the gradients down to a norm of at most `limit`; returns the norm before that, over all ranks."""
    return float(parallel.full(torch.nn.utils.clip_grad_norm_(model.parameters(), limit)))


def at_fault(model: torch.nn.Module, values: torch.Tensor, lengths: Sequence[int], names: Sequence[str]) -> list[str]:
    """The samples of a pass in which a number is not finite.

    Args:
        model: with the gradients of the pass
        values: [k] numbers from which the loss was made, sample by sample
        lengths: how many of them are of each sample; they sum to k
        names: of the samples

    Returns:
        Those with such a value; all of the pass where only a gradient is not finite; none where all is finite.
    """
    values = values.detach()
    if not bool(values.isfinite().all()):
        parts = values.split(list(lengths))
        return [name for name, part in zip(names, parts, strict=True) if not bool(part.isfinite().all())]
    gradients = [parallel.own(each.grad) for each in model.parameters() if each.grad is not None]
    return [] if bool(torch.stack(torch._foreach_norm(gradients)).isfinite().all()) else list(names)


def apply_step(
    optimizer: torch.optim.Optimizer,
    model: torch.nn.Module,
    ranks: Ranks,
    *,
    step: int,
    loss: float,
    grad_norm: float,
    suspects: Sequence[str] = (),
    changed: bool | None = None,
) -> None:
    """One optimizer step, which must begin and end with finite numbers. All ranks at once.

    Args:
        optimizer: over the trained parameters of `model`, with gradients
        model: the policy
        ranks: to agree on the weights, of which each rank sees its own shard
        step: the step's number, counted from 1, for messages
        loss: of the whole step, over all ranks
        grad_norm: before clipping, over all ranks
        suspects: the samples in which a number was not finite, over all ranks
        changed: whether the weights were changed before; by default in every step but the first

    Raises:
        UserError: naming the step, what is not finite, and the likely cause. A retry would repeat it, so it is the
            user's to change.
    """
    blamed = f" because of {', '.join(suspects[:3])}" if suspects else ""
    blamed += f" and {wording.plural(len(suspects) - 3, 'other')}" if len(suspects) > 3 else ""
    changed = step > 1 if changed is None else changed
    _require(math.isfinite(loss), f"the loss is {loss}{blamed}", optimizer, step, changed)
    _require(math.isfinite(grad_norm), f"the gradient's norm is {grad_norm}{blamed}", optimizer, step, changed)
    try:
        optimizer.step()
    except RuntimeError as error:  # torch refuses a rate that the type of the weights cannot hold
        _require("overflow" not in str(error), str(error), optimizer, step, changed)
        raise
    optimizer.zero_grad(set_to_none=True)
    trained = (parallel.own(parameter) for parameter in model.parameters() if parameter.requires_grad)
    finite = all(bool(parameter.isfinite().all()) for parameter in trained)
    _require(all(ranks.gather(finite)), "the update left weights that are not finite", optimizer, step, changed)


def _require(holds: bool, what: str, optimizer: torch.optim.Optimizer, step: int, changed: bool) -> None:
    if holds:
        return
    rate = max(float(group["lr"]) for group in optimizer.param_groups)
    cause = (
        f"learning_rate, {rate:.3g} in this step, is probably too high: lower it or lengthen warmup_steps"
        if changed
        else "no step was made before, so check the base model's weights and dtype, and the data"
    )
    raise UserError(f"step {step}: {what}; nothing of it was saved", where="training", remedy=cause)
