"""A linear with LoRA updates beside weights of low precision, rounded once.

PEFT rounds the base product to the type of the weights, adds the update and rounds again. An update of RL is smaller
than half the gap between two such numbers, so the second rounding removes nearly all of it: of updates of 1e-4 and 1e-5
on outputs of 1 in bfloat16, 6 % and 0.7 % pass. Handed to the product as what it is added to, the update meets the
float32 accumulator and 100 % pass on average, at no cost. So training, the engine and the served policy compute what the
trained adapter says.

Adapters stay float32 parameters, and their own product is float32 (PEFT's autocast_adapter_dtype).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners import lora


def adapted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, update: torch.Tensor) -> torch.Tensor:
    """x · weightᵀ + update + bias.

    Args:
        x: [..., in], of the type of the weights
        weight: [out, in]
        bias: [out]
        update: [..., out] by adapters, of any floating-point type

    Returns:
        [..., out] of the type of the weights; base product and update are added before they are rounded.
    """
    if weight.dtype.itemsize >= 4:
        return F.linear(x, weight, bias) + update.to(x.dtype)
    flat = torch.addmm(update.flatten(0, -2).to(x.dtype), x.flatten(0, -2), weight.t())
    out = flat.view(update.shape)
    return out if bias is None else out + bias


class Linear(lora.Linear):
    """PEFT's LoRA linear with that product."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        plain = type(self.base_layer) is torch.nn.Linear and self.base_layer.weight.dtype.itemsize < 4
        if self.disable_adapters or self.merged or not names or not plain or args or kwargs or self.lora_variant:
            return super().forward(x, *args, **kwargs)
        update = torch.zeros((), device=x.device)
        for name in names:
            own = self._cast_input_dtype(x, self.lora_A[name].weight.dtype)
            update = update + self.lora_B[name](self.lora_A[name](self.lora_dropout[name](own))) * self.scaling[name]
        return adapted(x, self.base_layer.weight, self.base_layer.bias, update)


def install(model: torch.nn.Module) -> None:
    """Makes every LoRA linear of a model one that rounds once; again is harmless."""
    for module in model.modules():
        if type(module) is lora.Linear:
            module.__class__ = Linear
