"""`gog estimate FILE`: memory per GPU by item, before a GPU is bought. Nothing of the run is started or written.

The figures come from the recipes' own code on tensors without storage (`python -m gog_recipes.estimate`), which this
command starts because the console has no torch. Exit 0 if the run fits, 1 if it does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gog_console import sizing
from gog_operator.api import manifest

DEFAULT_GPUS = 8
"""GPUs where neither the command nor the manifest says."""


def main(given: argparse.Namespace) -> int:
    thing = manifest.load(Path(given.file), given.set)
    plan = sizing.plan(thing, gpus=given.gpus, default_gpus=DEFAULT_GPUS, gpu_bytes=int(given.gpu_memory * 1e9))
    found = sizing.run(sizing.request(plan, model=given.model), lambda line: print(line, file=sys.stderr, flush=True))
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        if assumed := _assumed(given, named=sizing.names_gpus(thing)):
            print(assumed)
        print(sizing.text(found, plan, model=given.model))
    return 0 if found["fits"] else 1


def _assumed(given: argparse.Namespace, *, named: bool) -> str:
    """A sentence about the GPUs, if they are assumed. named: whether the manifest gives a stage GPUs."""
    if given.gpus or named:
        return ""
    return f"{DEFAULT_GPUS} GPUs are assumed, because no stage has workers.gpus; --gpus and --gpu-memory change that"
