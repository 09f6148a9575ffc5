"""The policy sharded over ranks by FSDP2, so that each rank holds a part of the layers and of the optimizer's state.

Decisions
    - everything is sharded, frozen weights included; all trained parameters are in the decoder layers. Their types may
      differ (bfloat16 base, float32 adapters): FSDP2 wants one type among the trained ones only
    - FSDP2 gathers a layer for each of its passes, in which all ranks take part. Ranks have different images, so the vision
      tower is gathered and divided again at points that all of them reach, and its passes gather nothing (`Tower`)
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from gog.errors import UserError
from gog.spec import Offload
from gog_recipes.models import policy_model as models
from gog_recipes.runtime.ranks import Ranks

T = TypeVar("T")


@dataclass(frozen=True)
class Tower:
    """A frozen vision tower whose weights are divided among the ranks. Every method: all ranks at once."""

    parts: tuple[FSDPModule, ...]
    """Wrappers of its blocks and other parts."""
    ranks: Ranks
    """That divide them."""

    def gather(self) -> None:
        """Makes the weights whole on every rank."""
        for part in self.parts:
            part.unshard()

    def release(self) -> None:
        """Divides them again."""
        for part in self.parts:
            part.reshard()

    def any(self, mine: bool) -> bool:
        """Whether something holds on any rank."""
        return any(self.ranks.gather(mine))

    def agree(self, error: Exception | None) -> None:
        """Raises on every rank where one of them met an error, so that none waits for it in the next collective.

        Raises:
            Exception: the error itself, on the rank that met it; on the others a UserError for one, else a RuntimeError.
        """
        met = None if error is None else (isinstance(error, UserError), str(error))
        for rank, other in enumerate(self.ranks.gather(met)):
            if error is not None:
                raise error
            if other is not None:
                kind = UserError if other[0] else RuntimeError
                raise kind(f"rank {rank} could not encode its images: {other[1]}")


def shard(
    model: torch.nn.Module, ranks: Ranks, offload: Offload = "none", begins: Callable[[str], None] = lambda part: None
) -> Tower | None:
    """Shards the model over the ranks, in place; for one rank nothing changes.

    Args:
        model: with the adapter that is trained
        ranks: all of them
        offload: whether shards are kept on the CPU
        begins: called with the name of each part before it is sharded: its layers, its tower, what is left

    Returns:
        The vision tower, which must be gathered to encode images; None for one rank.
    """
    if ranks.size == 1:
        return None
    root, language = models.core(model), models.language_model(model)
    device = next(language.parameters()).device.type
    mesh = init_device_mesh(device, (ranks.size,))
    policy = CPUOffloadPolicy(pin_memory=device != "cpu") if offload == "cpu" else OffloadPolicy()
    begins("layers")
    for layer in language.layers:
        _add_gradients(fully_shard(layer, mesh=mesh, offload_policy=policy))
    begins("tower")
    tower = Tower(_parts(models.vision_tower(model), mesh, policy), ranks)
    begins("rest")
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
    return tower


def _parts(tower: torch.nn.Module, mesh: DeviceMesh, policy: OffloadPolicy) -> tuple[FSDPModule, ...]:
    """Shards the parts of a vision tower, one after the other.

    FSDP2's hooks are on the module that is sharded. Here that is a wrapper around the part, which is never called.
    """
    children = [
        each for child in tower.children() for each in (child if isinstance(child, torch.nn.ModuleList) else [child])
    ]
    parts = tuple(
        fully_shard(torch.nn.Sequential(each), mesh=mesh, offload_policy=policy)
        for each in children
        if next(each.parameters(), None) is not None
    )
    whole = [name for name, each in tower.named_parameters() if not isinstance(each, DTensor)]
    assert not whole, f"no part of the vision tower has {whole}"
    return parts


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
