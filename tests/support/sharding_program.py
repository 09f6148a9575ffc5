"""The program that test_sharding runs in every rank: one update of a sharded policy; rank 0 writes what it found.

sharding_program.py DTYPE BUDGET CHECKPOINTING QUANTIZATION OFFLOAD TARGET
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from gog import exclusion
from gog.spec import GRPOConfig, ModelSpec
from gog_recipes import losses
from gog_recipes.models import checkpointing, policy_model
from gog_recipes.runtime import parallel, ranks
from gog_recipes.runtime.learner import Learner, StepRollout
from gog_recipes.runtime.ranks import Ranks

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import learning

TURNS = (1, 3, 2, 1, 4)


def update(group: Ranks, dtype: str, budget: int, saving: str, quantization: str, offload: str) -> dict:
    """Statistics and whole gradients of an update, and which weights are divided."""
    spec = ModelSpec(base="tiny", dtype=dtype)
    policy, processor = learning.adapted(spec, quantization), policy_model.load_processor(spec)
    vision = policy_model.vision_of(policy, processor)
    items = learning.trajectories(processor, vision, TURNS)
    checkpointing.apply(policy, saving, budget)
    parallel.shard(policy, group, offload)
    needed = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
    chosen = {"micro_batch_tokens": budget, "kl_coef": 0.1, "clip_grad_norm": 1e9, "max_logprob_gap": 1e6}
    cfg = GRPOConfig.model_validate(needed | chosen)
    sgd = torch.optim.SGD([each for each in policy.parameters() if each.requires_grad], lr=0.0)
    found = {}

    def record(*_):
        grads = {name: each.grad for name, each in policy.named_parameters() if each.grad is not None}
        found.update({name: parallel.full(grad).clone() for name, grad in grads.items()})

    sgd.register_step_pre_hook(record)
    learner = Learner(cfg, losses.load("grpo"), policy, processor, vision, sgd, group)
    rollout = StepRollout([items], [items[: 4 if group.is_main else 0] or items[4:]], exclusion.count([items]), 0)
    if group.size == 1:
        rollout = StepRollout([items], [items], exclusion.count([items]), 0)
    stats = learner.update(rollout, step=1)
    trained = [each for each in policy.parameters() if each.requires_grad]
    again = [parallel.full(parallel.like(parallel.full(each).detach(), each)) for each in trained]
    restored = all(torch.equal(one, parallel.full(each)) for one, each in zip(again, trained, strict=True))
    whole = sorted(name for name, each in policy.named_parameters() if not isinstance(each, DTensor))
    return {"loss": stats.loss, "kl": stats.kl, "grad_norm": stats.grad_norm, "gradients": found, "whole": whole,
            "restored": restored}  # fmt: skip


if __name__ == "__main__":
    group = ranks.init(torch.device("cpu"))
    results = update(group, sys.argv[1], int(sys.argv[2]), *sys.argv[3:6])
    if group.is_main:
        torch.save(results, sys.argv[6])
    ranks.shutdown(group)
