"""Proof that servers apply adapters to attention and to MLPs or experts, where rounding would hide that they do not.

In bfloat16 a server and the trainer differ by 0.01 nats per token in any case. An RL-sized adapter may change less, so the
probe of a version (`vllm_weights`) cannot distinguish it from none. What a server does with an adapter depends on the names and
shapes in it, not on its values. So before the first version, each kind of modules is proved by itself: with the policy's own
adapters on that kind only, multiplied until they change the probe by a nat.

Not here: what has no effect even so, because the adapters of a kind are zero; float32, where the probe sees everything.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gog import adapters, tensors
from gog_recipes.models import lora
from gog_recipes.rollout.vllm_replica import Probe, Proof, Served
from gog_recipes.runtime.ranks import Ranks

KINDS = {".self_attn.": "attention", ".mlp.": "MLPs or experts"}
"""Kinds of adapted modules by a part of their names."""
FACTORS = tuple(4**power for power in range(8))
"""Tried in this order; powers of two, so that no type rounds the product."""
EFFECT = 1.0
"""Mean change of a token's log-prob, in nats, with which a kind is proved."""


@torch.no_grad()
def make(
    model: torch.nn.Module, served: Served, probe: Callable[[torch.nn.Module], Probe], ranks: Ranks
) -> tuple[Proof, ...]:
    """Writes the proofs for a policy's servers. All ranks at once.

    Args:
        model: the policy.
        served: its adapter on the plain base.
        probe: computes the probe of a model.
        ranks: the processes that share the model; the first one writes and proves.

    Returns:
        A proof for each kind of modules whose adapters have an effect; nothing on other ranks than the first, in float32
        and for a policy without adapters.
    """
    if not served.name or next(model.parameters()).dtype == torch.float32:
        return ()
    with lora.multiplied(model, lambda _: 0.0):
        plain = probe(model).logprobs
    made = []
    for part, kind in KINDS.items():
        for factor in FACTORS:
            with lora.multiplied(model, functools.partial(_factor, part, factor)):
                found = probe(model)
            effect = ranks.broadcast(float(np.abs(found.logprobs - plain).mean()))
            if effect >= EFFECT:
                made.append((kind, part, factor, replace(found, tolerance=effect / 2)))
                break
    return tuple(_write(served, *each) for each in made) if ranks.is_main else ()


def _factor(part: str, factor: int, module: str) -> float:
    return factor * float(part in module)


def _write(served: Served, kind: str, part: str, factor: int, probe: Probe) -> Proof:
    """The adapter of one kind of modules, multiplied by way of its configuration."""
    source = Path(served.folder)
    name = f"{served.name}-{part.strip('.')}-{factor}"
    target = source.with_name(name)
    target.mkdir(exist_ok=True)
    weights = tensors.read(source / adapters.WEIGHTS)
    tensors.write(target / adapters.WEIGHTS, {key: value for key, value in weights.items() if part in key})
    config = json.loads((source / adapters.CONFIG).read_bytes())
    targets = [module for module in config["target_modules"] if part in f"{module}."]
    config |= {"lora_alpha": config["r"] * factor, "target_modules": targets}
    (target / adapters.CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    return Proof(kind, Served(name, str(target), served.version, probe))
