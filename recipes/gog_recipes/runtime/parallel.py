"""The policy sharded over ranks by FSDP2, so that each rank holds a part of the layers and of the optimizer's state.

Decisions
    - decoder layers, embeddings and head are sharded, frozen weights included; all trained parameters are in the layers.
      Their types may differ (bfloat16 base, float32 adapters): FSDP2 wants one type among the trained ones only
    - the vision tower stays whole on every rank, because a rollout encodes images whenever an episode has new ones, and
      gathering needs all ranks at once
    - gradients are summed over ranks, never averaged: a recipe divides by the counts of the whole step, so a step is the
      same step for any number of ranks
    - shards may be kept on the CPU, with their gradients and the optimizer's state; they are copied to the GPU for each use.
      On a CPU the same code runs and nothing moves
    - the adapter is added first, then the model is sharded; checkpoints and the engine's weights are whole tensors

With one rank nothing is sharded, and every function returns its argument. Not here: tensor parallelism (splitting a
layer's products) and context parallelism (splitting a long conversation).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from gog.spec import Offload
from gog_recipes.models import policy_model as models
from gog_recipes.runtime.ranks import Ranks

T = TypeVar("T")


def shard(model: torch.nn.Module, ranks: Ranks, offload: Offload = "none") -> None:
    """Shards the model over the ranks, in place, apart from its vision tower; for one rank nothing changes.

    Args:
        model: with the adapter that is trained
        ranks: all of them
        offload: whether shards are kept on the CPU
    """
    if ranks.size == 1:
        return
    root, language = models.core(model), models.language_model(model)
    device = next(language.parameters()).device.type
    mesh = init_device_mesh(device, (ranks.size,))
    policy = CPUOffloadPolicy(pin_memory=device != "cpu") if offload == "cpu" else OffloadPolicy()
    for layer in language.layers:
        _add_gradients(fully_shard(layer, mesh=mesh, offload_policy=policy))
    # The outermost module owns embeddings, last norm and head, which may be one weight. It fetches a layer's weights
    # while the layer before it computes.
    owned = {id(parameter) for parameter in (*language.parameters(), *root.lm_head.parameters())}
    others = {parameter for parameter in root.parameters() if id(parameter) not in owned}
    settings = {"reshard_after_forward": True, "ignored_params": others, "offload_policy": policy}
    _add_gradients(fully_shard(root, mesh=mesh, **settings))
    setattr(root, models.ROOT_METHOD, lambda run: run())
    register_fsdp_forward_method(root, models.ROOT_METHOD)
    whole = [name for name, p in model.named_parameters() if p.requires_grad and not isinstance(p, DTensor)]
    assert not whole, f"trained but not in a decoder layer, so ranks would drift apart: {whole}"


def _add_gradients(module: FSDPModule) -> None:
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)  # gloo has no reduction that divides


def is_sharded(module: torch.nn.Module) -> bool:
    """Whether a module's own weights are divided among the ranks."""
    return isinstance(module, FSDPModule)


@contextlib.contextmanager
def whole(layer: torch.nn.Module) -> Iterator[None]:
    """A layer with all its weights inside the context. All ranks at once; what outlives the context must be a copy."""
    if not isinstance(layer, FSDPModule):  # not is_sharded: the type checker must see it
        yield
        return
    layer.unshard()
    try:
        yield
    finally:
        layer.reshard()


def even(passes: Sequence[Sequence[T]], ranks: Ranks) -> list[list[T]]:
    """This rank's passes, and empty ones up to the number of every other rank, because a pass gathers all shards."""
    count = max(ranks.gather(len(passes)))
    return [list(each) for each in passes] + [[] for _ in range(count - len(passes))]


def is_shard(tensor: torch.Tensor) -> bool:
    """Whether a tensor is divided among the ranks."""
    return isinstance(tensor, DTensor)


def full(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a sharded tensor, on every rank. All ranks at once."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's shard of a tensor: some of its rows, in rank order; the whole of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A whole tensor of a parameter's shape, on the parameter's device and sharded as it is."""
    if not isinstance(parameter, DTensor):
        return tensor.to(parameter.device)
    mesh, found = parameter.device_mesh, torch.empty_like(parameter.detach())
    mine = found.to_local()
    rows = -(-parameter.shape[0] // mesh.size())  # as FSDP2 shards: ceil(rows / ranks) each, fewer for the last
    start = min(rows * mesh.get_local_rank(), parameter.shape[0])
    mine.copy_(tensor[start : start + mine.shape[0]])
    return found
