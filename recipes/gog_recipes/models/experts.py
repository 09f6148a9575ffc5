"""LoRA of experts whose weights are one parameter [experts, out, in], beside the weights.

PEFT adapts such a parameter by adding the update to the weights at every forward. In bfloat16 most of an update of RL is
rounded away by that, and the sum of all experts of a layer is a second copy of their weights. Here each expert's update
is computed from its own inputs, in the adapter's precision, and added to its output before that is rounded, as
`lora_linear` does for linears.

Everything else (names, shapes, saving, loading, several adapters, switching them off) stays PEFT's, so that a saved
adapter is one that vLLM loads: A [experts · r, in], B [out, r · experts], of `gate_up_proj` under `experts.base_layer` and
of `down_proj` under `experts`. Importing this module replaces the forward of PEFT's wrapper.

A quantized base keeps the experts packed (`nf4`), and an expert is unpacked when tokens were sent to it. PEFT needs no more
of a parameter than its name, shape and type, which a packed one has, too, while adapters are added (`findable`).

Not here: one kernel for all experts. The experts that tokens were sent to are computed one after the other. On a CPU (64
experts, 8 of them for each of 64 tokens) that takes 3.5 times as long as the base alone, and 5 to 7 times with the
backward pass. With the adapters in grouped products (torch's grouped_mm) it would be 1.3 to 1.5 times, but in low
precision these keep every token's input in float32 for the backward pass.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora.layer import ParamWrapper

from gog_recipes.models import lora_linear, nf4

PARAMETERS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
"""Names of the parameters, as PEFT's target_parameters."""
NAMES = tuple(name.rpartition(".")[2] for name in PARAMETERS)
"""Their names in a layer of experts, in the order in which PEFT wraps them."""


def forward(
    self: ParamWrapper, hidden: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """The layer of experts with its adapters.

    Args:
        self: the outer one of the wrappers around the experts
        hidden: [t, h]
        top_k_index: [t, k] experts of each token
        top_k_weights: [t, k] weights of their outputs

    Returns:
        [t, h].
    """
    wrappers = _wrappers(self)
    experts = self.get_base_layer()
    if self.merged or not any(_factors(wrapper) for wrapper in wrappers.values()):
        out: torch.Tensor = experts(hidden, top_k_index, top_k_weights)
        return out
    return _compute(experts, wrappers, hidden, top_k_index, top_k_weights)


def _compute(
    experts: Any,
    wrappers: dict[str, ParamWrapper],
    hidden: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """The layer of experts, one after the other; wrappers: with their adapters, by parameter."""
    result = torch.zeros_like(hidden)
    for expert in top_k_index.unique().tolist():
        token, choice = torch.where(top_k_index == expert)
        gate, up = _linear(experts.gate_up_proj, wrappers.get("gate_up_proj"), expert, hidden[token]).chunk(2, -1)
        made = _linear(experts.down_proj, wrappers.get("down_proj"), expert, experts.act_fn(gate) * up)
        result = result.index_add(0, token, (made * top_k_weights[token, choice, None]).to(result.dtype))
    return result


def quantize(layers: torch.nn.Module, device: torch.device) -> None:
    """Packs the weights of every layer of experts, in place, on a device. Raises UserError as nf4.quantize does."""
    for name, module in layers.named_modules():
        if not all(isinstance(module._parameters.get(parameter), torch.nn.Parameter) for parameter in NAMES):
            continue
        for parameter in NAMES:
            packed = nf4.replace(module, parameter, device, f"{name}.{parameter}")
            module.register_buffer(f"{parameter}_codes", packed.codes)
            module.register_buffer(f"{parameter}_scales", packed.scales)
            module.register_buffer("pairs", packed.pairs)
            setattr(module, f"{parameter}_is", (packed.shape, packed.dtype))
        module.__class__ = _packed(type(module))  # type: ignore[arg-type]


@contextlib.contextmanager
def findable(model: torch.nn.Module) -> Iterator[None]:
    """A context in which PEFT finds packed experts, which are buffers, by the names of parameters."""
    layers = [module for module in model.modules() if isinstance(module, Packed)]
    for each in layers:
        each.findable = True
    try:
        yield
    finally:
        for each in layers:
            each.findable = False


@functools.cache
def _packed(architecture: Any) -> Any:
    """A class of experts whose weights are packed."""
    return type(f"Packed{architecture.__name__}", (Packed, architecture), {})


class Packed(torch.nn.Module):
    """Experts whose weights are packed; a layer of them becomes one in `quantize`."""

    findable = False
    """Whether PEFT is looking for parameters."""

    @property
    def gate_up_proj(self) -> nf4.Packed:
        """[experts, 2 · intermediate size, h]."""
        return self._weight("gate_up_proj")

    @property
    def down_proj(self) -> nf4.Packed:
        """[experts, h, intermediate size]."""
        return self._weight("down_proj")

    def _weight(self, name: str) -> nf4.Packed:
        codes, scales = getattr(self, f"{name}_codes"), getattr(self, f"{name}_scales")
        shape, dtype = getattr(self, f"{name}_is")
        return nf4.Packed(codes, scales, self._buffers["pairs"], shape, dtype)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """Inside `findable` also stand-ins of one element for the packed weights."""
        yield from super().named_parameters(*args, **kwargs)
        for name in NAMES if self.findable else ():
            weight = self._weight(name)
            zero = torch.zeros((), dtype=weight.dtype, device=weight.device)
            yield name, torch.nn.Parameter(zero.expand(weight.shape), requires_grad=False)

    def forward(self, hidden: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor) -> torch.Tensor:
        """See the function `forward`; without adapters."""
        return _compute(self, {}, hidden, top_k_index, top_k_weights)


def _wrappers(outer: Any) -> dict[str, ParamWrapper]:
    """The wrappers around one layer of experts, by the parameter that each adapts."""
    found = {}
    while isinstance(outer, ParamWrapper):
        found[outer.parameter_name] = outer
        outer = outer.base_layer
    return found


def _factors(wrapper: ParamWrapper) -> dict[str, float]:
    """Scaling of the adapters that take part, by name."""
    if wrapper.disable_adapters:
        return {}
    names = [name for name in wrapper.active_adapters if name in wrapper.lora_A]
    return {name: wrapper.scaling[name] for name in names if wrapper.scaling[name]}


def _linear(
    weights: torch.Tensor | nf4.Packed, wrapper: ParamWrapper | None, expert: int, x: torch.Tensor
) -> torch.Tensor:
    """[t, in] -> [t, out] by one expert's weight and its part of the adapters."""
    adapters = []
    for name, factor in (_factors(wrapper) if wrapper is not None else {}).items():
        a, b = wrapper.lora_A[name].weight, wrapper.lora_B[name].weight  # type: ignore[union-attr]
        a = a.view(len(weights), -1, a.shape[1])[expert]
        b = b.view(len(b), -1, len(weights))[:, :, expert]
        adapters.append(lora_linear.Adapter(a, b, factor))
    return lora_linear.linear(x, weights[expert], None, adapters)


ParamWrapper.forward = forward
