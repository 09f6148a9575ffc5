"""Runs code on tensors without storage: floating-point tensors are fake; integers, booleans and single numbers are real.

torch's FakeTensorMode knows shapes only. Where a mask selects rows, the shape of the result depends on values, and it
fails. Those values are token ids, positions and masks: small integers, which are computed for real here. Numbers that
code reads from fake tensors (a loss, a norm, a sampled token) are constants, and the experts of a token are chosen in
turn, which is the balanced choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._unsafe_index.Tensor)
"""Operations that take masks as indices."""


class Shapes(TorchDispatchMode):
    """A dispatch mode in which floating-point results are fake."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # half of all calls
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        fakes = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
        if func is aten._local_scalar_dense.default and fakes:
            return _constant(args[0].dtype)
        if not fakes and not _makes_floats(func, args, kwargs, tensors):
            return func(*args, **kwargs)
        if func in INDEXING:
            args = (args[0], _as_numbers(args[1]), *args[2:])
        with self.fake:
            if func is aten._grouped_mm.default:  # torch's shape function of it knows bfloat16 only
                halves = (args[0].bfloat16(), args[1].bfloat16(), *args[2:])
                return func(*halves, **kwargs).to(args[0].dtype)
            result = func(*args, **kwargs)
        return (result[0], _in_turn(result[1], args[0].shape[-1])) if func is aten.topk.default else result


def _constant(dtype: torch.dtype) -> float | int | bool:
    """What is read of a fake tensor: a finite number, true, an id that every vocabulary has."""
    return True if dtype is torch.bool else 0.0 if dtype.is_floating_point else 0


def _makes_floats(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: list[torch.Tensor]) -> bool:
    """Whether an operation on real tensors has a floating-point result."""
    if tensors and not any(tensor.dim() for tensor in tensors):
        return False  # single numbers stay real: an optimizer counts its steps in one
    dtype = kwargs.get("dtype")
    if dtype is not None:
        return bool(dtype.is_floating_point)
    if tensors:
        converts = func in (aten.pow.Scalar, aten.div.Tensor, aten.reciprocal.default)
        return converts or any(tensor.is_floating_point() for tensor in tensors)
    values = [leaf for leaf in tree_leaves(args) if isinstance(leaf, (int, float))]
    if func.overloadpacket in (aten.arange, aten.full, aten.scalar_tensor):
        return any(isinstance(value, float) for value in values)
    return True


def _as_numbers(indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Indices with each real mask replaced by the numbers of what it selects."""
    found: list[torch.Tensor | None] = []
    for index in indices:
        if index is None or isinstance(index, FakeTensor) or index.dtype is not torch.bool:
            found.append(index)
        else:
            found += index.nonzero().unbind(1)
    return found


def _in_turn(indices: torch.Tensor, count: int) -> torch.Tensor:
    """Indices 0 to count - 1 in turn, in the shape of fake ones."""
    return (torch.arange(indices.numel()) % count).view(indices.shape)
