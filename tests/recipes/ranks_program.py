"""The program that test_ranks runs in every rank: recipes one after the other, from a JSON list of [kind, configuration].

A real launch runs one recipe. Here many share one import of torch, so each process group gets a prefix of its own in
torchrun's store, where keys of an earlier group would block it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import torch.distributed as dist

from gog import spec
from gog_recipes.evaluate import EvaluateRecipe
from gog_recipes.grpo import GRPORecipe
from gog_recipes.runtime import config
from gog_recipes.sft import SFTRecipe
from gog_recipes.stratify import StratifyRecipe

RECIPES = {"sft": SFTRecipe, "grpo": GRPORecipe, "stratify": StratifyRecipe, "evaluate": EvaluateRecipe}


def play(kind: str, values: dict) -> None:
    recipe = RECIPES[kind](config.typed(spec.CONFIGS[kind], values))
    recipe.setup()
    done = recipe.train()
    if kind != "sft":
        done = asyncio.run(done)
    if kind == "stratify":
        recipe.save_checkpoint(done, 1.0)
    if kind == "evaluate":
        recipe.save_checkpoint(done)
    recipe.cleanup()


init_process_group = dist.init_process_group
place = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
who = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
for number, (kind, values) in enumerate(json.loads(Path(sys.argv[1]).read_text())):
    apart = dist.PrefixStore(f"recipe-{number}", place)
    dist.init_process_group = lambda backend, apart=apart, **more: init_process_group(
        backend, store=apart, **who, **more
    )
    play(kind, values)
