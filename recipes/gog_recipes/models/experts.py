"""LoRA of experts whose weights are one parameter [experts, out, in], beside the weights.

PEFT adapts such a parameter by adding the update to the weights at every forward. In bfloat16 most of an update of RL is
rounded away by that, and the sum of all experts of a layer is a second copy of their weights. Here each expert's update
is computed from its own inputs, in the adapter's precision, and added to its output before that is rounded, as
`lora_linear` does for linears.

Everything else (names, shapes, saving, loading, several adapters, switching them off) stays PEFT's, so that a saved
adapter is one that vLLM loads: A [experts · r, in], B [out, r · experts], of `gate_up_proj` under `experts.base_layer` and
of `down_proj` under `experts`. Importing this module replaces the forward of PEFT's wrapper.

Not here: one kernel for all experts. The experts that tokens were sent to are computed one after the other.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import ParamWrapper

from gog_recipes.models import lora_linear

PARAMETERS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
"""Names of the parameters, as PEFT's target_parameters."""


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
    result = torch.zeros_like(hidden)
    for expert in top_k_index.unique().tolist():
        token, choice = torch.where(top_k_index == expert)
        gate, up = _linear(experts.gate_up_proj, wrappers.get("gate_up_proj"), expert, hidden[token]).chunk(2, -1)
        made = _linear(experts.down_proj, wrappers.get("down_proj"), expert, experts.act_fn(gate) * up)
        result = result.index_add(0, token, (made * top_k_weights[token, choice, None]).to(result.dtype))
    return result


def wrapped(wrapper: ParamWrapper) -> torch.Tensor:
    """The parameter [experts, out, in] that a wrapper adapts."""
    weight: torch.Tensor = wrapper.get_param()
    return weight


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


def _linear(weights: torch.Tensor, wrapper: ParamWrapper | None, expert: int, x: torch.Tensor) -> torch.Tensor:
    """[t, in] -> [t, out] by one expert's weight and its part of the adapters."""
    adapters = []
    for name, factor in (_factors(wrapper) if wrapper is not None else {}).items():
        a, b = wrapper.lora_A[name].weight, wrapper.lora_B[name].weight  # type: ignore[union-attr]
        a = a.view(len(weights), -1, a.shape[1])[expert]
        b = b.view(len(b), -1, len(weights))[:, :, expert]
        adapters.append(lora_linear.Adapter(a, b, factor))
    return lora_linear.linear(x, weights[expert], None, adapters)


ParamWrapper.forward = forward
