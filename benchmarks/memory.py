"""Activation memory of training per token at 7B shapes, with the project's own forward pass on tensors without data.

    python benchmarks/memory.py

The decoder layers of Qwen2.5-VL-7B in bfloat16 with float32 adapters run forward and backward on fake tensors, packed, with
log-probs of a quarter of the tokens. Two lengths are run; the difference is what a token costs, without fixed buffers.
`kept` is what autograd holds when the forward pass ends. `peak` counts all tensors that exist at a time, those of the
layer that is computed again, gradients and temporary ones included; with checkpointing it is what the goal bounds.
Four layers are run and the rest is extrapolated, because layers are alike. No allocator and no GPU takes part.
"""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from gog.spec import LoraSettings
from gog_recipes.models import checkpointing, lora, packing, policy_model

GOAL = 0.6e6
"""Bytes per token at the peak, with checkpointing."""
LAYERS, RUN = 28, (3, 4)
"""Layers of the model, and of the two that are run."""
TOKENS = (8192, 16_384)
"""Of the two passes; buffers of fixed size are full in both."""
TEXT = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152_064,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
VISION = {"depth": 1, "hidden_size": 160, "num_heads": 2, "out_hidden_size": 3584, "fullatt_block_indexes": [0]}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, for as long as they exist."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.live, self.peak, self.seen = 0, 0, dict[int, Any]()
        for tensor in (*model.parameters(), *model.buffers()):
            self._note(tensor.untyped_storage())
        self.live = self.peak = 0  # weights are no activations

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self.seen:
            return

        def freed(_: Any) -> None:
            self.live -= size
            del self.seen[key]

        self.seen[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


def build(layers: int) -> torch.nn.Module:
    """The policy of that many layers, of fake tensors. Within FakeTensorMode."""
    config = Qwen2_5_VLConfig(text_config={**TEXT, "num_hidden_layers": layers}, vision_config=VISION)
    with torch.device("meta"):
        base = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
        return lora.add(base.requires_grad_(False).eval(), LoraSettings())


def on_cpu(model: torch.nn.Module) -> torch.nn.Module:
    """Weights of a model on the meta device as fake tensors on the CPU, so that its kernels are chosen as there."""
    for module in model.modules():
        for name, each in module._parameters.items():
            if each is not None:
                like = torch.empty(each.shape, dtype=each.dtype)
                module._parameters[name] = torch.nn.Parameter(like, requires_grad=each.requires_grad)
        for name, each in module._buffers.items():
            if each is not None:
                module._buffers[name] = torch.empty(each.shape, dtype=each.dtype)
    return model


def measure(model: torch.nn.Module, tokens: int) -> tuple[int, int]:
    """Bytes that autograd keeps after the forward pass, and the peak of forward and backward pass."""
    weights = {id(each.untyped_storage()) for each in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[id(tensor.untyped_storage())] = tensor.untyped_storage()
        return tensor

    ids, positions = torch.zeros(1, tokens, dtype=torch.int64), torch.zeros(3, 1, tokens, dtype=torch.int64)
    with LiveBytes(model) as live, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layout = packing.apart((tokens // 2, tokens - tokens // 2))
        hidden = policy_model.family_of(model).hidden_states(policy_model.core(model), ids, positions, None, layout)
        none = torch.zeros(0, dtype=torch.int64)
        learned = hidden[0, : tokens // 4]
        head = policy_model.core(model).lm_head.weight
        logp = policy_model.chunked.of_tokens(learned, head, torch.zeros(tokens // 4, dtype=torch.int64), none, 1.0)
        size = sum(storage.nbytes() for key, storage in kept.items() if key not in weights)
        logp.sum().backward()
    model.zero_grad(set_to_none=True)
    return size, live.peak


def per_token(setting: checkpointing.Setting) -> dict[str, float]:
    """Bytes per token that are kept, of one layer, and at the peak, for the whole model."""
    found = []
    for layers in RUN:
        model = build(layers)
        with FakeTensorMode():
            on_cpu(model)
            checkpointing.apply(model, setting, 1)
            short, long = (measure(model, tokens) for tokens in TOKENS)
        found.append([(b - a) / (TOKENS[1] - TOKENS[0]) for a, b in zip(short, long, strict=True)])
    (kept, peak), (kept_more, peak_more) = found
    rest = LAYERS - RUN[0]
    layer = kept_more - kept
    return {"kept": kept + rest * layer, "layer": layer, "peak": peak + rest * (peak_more - peak)}


def main() -> None:
    """Prints the table and writes it."""
    off, on = per_token("off"), per_token("on")
    result = {"off": off, "on": on, "goal": GOAL}
    print(f"{'bytes per token':<28}{'kept':>12}{'peak':>12}")
    for name, row in (("without checkpointing", off), ("with checkpointing", on)):
        print(f"{name:<28}{row['kept']:>12,.0f}{row['peak']:>12,.0f}")
    Path(__file__).with_name("results").joinpath("memory.json").write_text(json.dumps(result, indent=1) + "\n")
    met = "met" if on["peak"] <= GOAL else "missed"
    print(f"peak with checkpointing: {on['peak'] / 1e6:.2f} MB per token, goal {GOAL / 1e6} MB: {met}")


if __name__ == "__main__":
    main()
