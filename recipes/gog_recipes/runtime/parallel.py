"""The policy spread over ranks by FSDP2, so that each holds a part of the layers and of the optimizer's state.

Decisions
    - the decoder layers are sharded, frozen weights too; all that is trained sits there. Embeddings, head and vision
      tower stay whole on every rank, because recipes call them by themselves, outside the model's own forward pass
    - gradients are added over ranks, never averaged: a recipe divides by the counts of the whole step, and so one step
      is the same step for any number of ranks
    - the adapter comes first, then the sharding; what is read or written (checkpoints, the engine's weights) is whole

With one rank nothing is sharded, and every function hands back what it was given. Not here: splitting a layer's
products (tensor parallelism), or a long conversation (context parallelism).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from gog_recipes.models import policy_model as models
from gog_recipes.runtime.ranks import Ranks


def shard(model: torch.nn.Module, ranks: Ranks) -> None:
    """Spreads the model's decoder layers over the ranks, in place; for one rank it stays as it is."""
    if ranks.size == 1:
        return
    language = models.language_model(model)
    mesh = init_device_mesh(next(language.parameters()).device.type, (ranks.size,))
    for layer in language.layers:
        _add_gradients(fully_shard(layer, mesh=mesh))
    # The outermost one owns no weights; it lets a layer's weights travel while the layer before computes.
    others = {parameter for parameter in language.parameters() if not isinstance(parameter, DTensor)}
    _add_gradients(fully_shard(language, mesh=mesh, ignored_params=others))
    whole = [name for name, p in model.named_parameters() if p.requires_grad and not isinstance(p, DTensor)]
    assert not whole, f"trained but not in a decoder layer, so ranks would drift apart: {whole}"


def _add_gradients(module: FSDPModule) -> None:
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)  # gloo knows no sum that divides


@contextlib.contextmanager
def whole(layer: torch.nn.Module) -> Iterator[None]:
    """A layer with all its weights while the context lasts. All ranks at once; what is kept must be a copy."""
    if not isinstance(layer, FSDPModule):
        yield
        return
    layer.unshard()
    try:
        yield
    finally:
        layer.reshard()


def full(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor put together, on every rank. All ranks at once."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a sharded tensor: rows, in rank order, of about equal number."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A whole tensor of a parameter's shape, on the parameter's device and sharded as it is."""
    if not isinstance(parameter, DTensor):
        return tensor.to(parameter.device)
    mesh, mine = parameter.device_mesh, parameter.to_local()
    rows = -(-parameter.shape[0] // mesh.size())  # FSDP2's own cut: ceil(rows / ranks) each, the last ones less
    start = min(rows * mesh.get_local_rank(), parameter.shape[0])
    piece = tensor[start : start + mine.shape[0]].to(mine.device).contiguous()
    return DTensor.from_local(
        piece, mesh, parameter.placements, run_check=False, shape=parameter.shape, stride=parameter.stride()
    )
