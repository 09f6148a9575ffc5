"""The program that test_sharding runs in every rank: an update of a sharded policy, and images through its vision tower.

sharding_program.py BASE DTYPE BUDGET CHECKPOINTING QUANTIZATION OFFLOAD TARGET

Rank 0 writes what it found.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from gog import exclusion
from gog.errors import UserError
from gog.images import Image
from gog.spec import GRPOConfig, ModelSpec
from gog_recipes import losses
from gog_recipes.models import checkpointing, policy_model
from gog_recipes.models.vision import Vision
from gog_recipes.runtime import parallel, ranks
from gog_recipes.runtime.learner import Learner, StepRollout
from gog_recipes.runtime.ranks import Ranks

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import learning

TURNS = (1, 3, 2, 1, 4)


IMAGES = [Image(np.random.default_rng(seed).integers(0, 255, (56, 84, 3), dtype=np.uint8)) for seed in range(4)]
HASHES = [image.hash for image in IMAGES]


def update(group: Ranks, base: str, dtype: str, budget: int, saving: str, quantization: str, offload: str) -> dict:
    """Statistics and whole gradients of an update, which weights are divided, and what encoding images gave."""
    spec = ModelSpec(base=base, dtype=dtype)
    policy, processor = learning.adapted(spec, quantization), policy_model.load_processor(spec)
    expected = images_of(policy, processor).features(HASHES)
    checkpointing.apply(policy, saving, budget)
    shards = parallel.shard(policy, group, offload)
    vision = policy_model.vision_of(policy, processor, shards=shards)
    items = learning.group(processor, vision, TURNS)
    items[2:] = learning.trajectories(processor, vision, TURNS)[2:]  # the first two share their prompt
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
    rate = 0.01 if base == "tiny" else 1.0  # random weights of a real structure have small gradients
    several = update_in_two(group, policy, processor, vision, cfg, rate)
    trained = [each for each in policy.parameters() if each.requires_grad]
    again = [parallel.full(parallel.like(parallel.full(each).detach(), each)) for each in trained]
    restored = all(torch.equal(one, parallel.full(each)) for one, each in zip(again, trained, strict=True))
    whole = sorted(name for name, each in policy.named_parameters() if not isinstance(each, DTensor))
    tower = {} if shards is None else group.gather(encode(policy, processor, shards, group.rank, expected))
    return {"loss": stats.loss, "kl": stats.kl, "grad_norm": stats.grad_norm, "gradients": found, "whole": whole,
            "restored": restored, "tower": tower, "several": several}  # fmt: skip


def update_in_two(
    group: Ranks, policy: torch.nn.Module, processor, vision: Vision, cfg: GRPOConfig, rate: float
) -> dict:
    """Gradients of an update in two optimizer steps, in each of which one of two ranks has nothing to learn from.

    rate: learning rate of the first, which is to clip some ratios of the second.
    """
    groups = [learning.group(processor, vision, (2, 1), seed=seed, name=f"q{seed}") for seed in range(3)]
    sgd = torch.optim.SGD([each for each in policy.parameters() if each.requires_grad], lr=rate)
    found: dict[str, torch.Tensor] = {}

    def record(*_):
        grads = {name: each.grad for name, each in policy.named_parameters() if each.grad is not None}
        found.update({f"{len(steps)}/{name}": parallel.full(grad).clone() for name, grad in grads.items()})
        steps.append(1)

    steps: list[int] = []
    sgd.register_step_pre_hook(record)
    cfg = cfg.model_copy(update={"updates_per_rollout": 2, "clip": 0.01})
    learner = Learner(cfg, losses.load("grpo"), policy, processor, vision, sgd, group)
    own = groups if group.size == 1 else groups[2:] if group.rank else groups[:2]
    stats = learner.update(StepRollout(groups, own, exclusion.count(groups), 0), step=1)
    figures = {"loss": stats.loss, "kl": stats.kl, "grad_norm": stats.grad_norm, "clip_frac": stats.clip_frac}
    return {"gradients": found, "figures": figures, "updates": stats.updates}


def images_of(policy: torch.nn.Module, processor, shards=None) -> Vision:
    """A cache that knows IMAGES, each of which is encoded by itself."""
    vision = policy_model.vision_of(policy, processor, shards=shards)
    vision.alone = True
    vision.add(IMAGES)
    return vision


def encode(policy: torch.nn.Module, processor, shards, rank: int, expected: torch.Tensor) -> dict:
    """What a rank gets that encodes other images than the other rank."""
    found, vision = {}, images_of(policy, processor, shards)
    parts = expected.split([vision.tokens(each) for each in HASHES])
    own = [[0, 1, 2], []][rank]
    features = vision.features([HASHES[each] for each in own])
    found["batch"] = same(features, [parts[each] for each in own])
    vision.gather()  # as for a rollout, in which ranks encode whenever they like
    found["rollout"] = rank == 0 or torch.equal(vision[HASHES[3]], parts[3])
    vision.release()
    found["passes"] = vision.encoded
    for name, error in (("error", OSError("torn")), ("user error", UserError("cut off", where="a.png"))):
        vision.expect(missing := Image(np.full((56, 84, 3), len(name), dtype=np.uint8)), raising(error))
        try:
            vision.features([missing.hash] if rank else HASHES[:1])
        except Exception as met:  # noqa: BLE001 (compared by the test)
            found[name] = f"{type(met).__name__}: {met}"
    found["after"] = same(vision.features(HASHES[rank:2]), parts[rank:2])
    tower = policy_model.vision_tower(policy)
    found["whole"] = [name for name, each in tower.named_parameters() if not isinstance(each, DTensor)]
    return found


def same(features: torch.Tensor | None, parts) -> bool:
    return torch.equal(features, torch.cat(list(parts))) if parts else features is None


def raising(error: Exception):
    def read():
        raise error

    return read


if __name__ == "__main__":
    group = ranks.init(torch.device("cpu"))
    results = update(group, sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:7])
    if group.is_main:
        torch.save(results, sys.argv[7])
    ranks.shutdown(group)
