"""Measures asynchronous rollouts against the same stage with rollouts and updates in turns, with slow tools.

    python benchmarks/async_rollouts.py [--run runs/world] [--steps 10] [--questions 32] [--repetitions 5] [--small]
    python benchmarks/async_rollouts.py --median 0 --steps 60 --repetitions 3      # what is learned, without the waits

Takes the SFT policy and the levels of a finished run (`make quickstart` leaves one) and trains by GRPO in four arms: in turns;
with `async: {maxStaleness: 2}` and as many episodes at once; with places for all steps in flight; and so with `maxStaleness: 4`.
Tools and judge are the world's servers behind a wait that is log-normal: median 0.5 s, sigma 1, so one call in a hundred takes
more than 5 s. Each arm draws the same waits. Repetitions of the arms are interleaved. All steps count, the first ones too, because
an asynchronous arm plays later steps meanwhile. One thread; the servers have the other core.

Prints steps per minute, CPU-seconds per trajectory, staleness and idle shares, medians over repetitions, and the mean reward
of each arm: old samples buy speed, so the rewards belong beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import outcome
import yaml
from rollout import servers

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import gog_recipes
from gog import store
from gog.spec import GRPOConfig
from gog.tool_client import Toolbox
from gog_recipes import grpo
from gog_recipes.runtime import config

HERE = Path(__file__).parent
SIGMA = 1.0
"""Deviation of the logarithm of the wait before a call."""
GOAL = 2.0
"""Steps per minute of the best asynchronous arm, divided by those in turns."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train."""

    staleness: int
    """Of `async`; 0: rollouts and updates in turns."""
    places: int
    """Episodes at once, as a multiple of those of a step."""


ARMS = {
    "in turns": Arm(0, 1),
    "async 2": Arm(2, 1),
    "async 2, more places": Arm(2, 3),
    "async 4, more places": Arm(4, 5),
}


class SlowTools(Toolbox):
    """Tools and a judge that let callers wait, for as long in every arm."""

    waits = random.Random(0)
    """Gives the waits, in the order of the calls."""
    median = 0.5
    """Median of the waits, in seconds."""

    async def _call(self, *given: Any, **named: Any) -> Any:
        await asyncio.sleep(self.median * math.exp(SIGMA * self.waits.gauss(0, 1)))
        return await super()._call(*given, **named)


def copy(run: Path, folder: Path) -> str:
    """A store with the run's stages before GRPO; its address."""
    source, target = (
        store.open_store(f"file://{(run / 'store').absolute()}"),
        store.open_store(f"file://{folder}/store"),
    )
    for stage in ("curate", "sft", "stratify"):
        manifest = source.latest(stage)
        if manifest is None:
            raise SystemExit(f"{run} has no checkpoint of {stage}; `make quickstart` makes a run")
        files = {name: source.open(manifest, name) for name in manifest.files}
        target.publish(stage, manifest.step, files, meta=manifest.meta, parents=manifest.parents)
    return f"file://{folder}/store"


def train(run: Path, urls: dict[str, str], arm: Arm, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Figures of one repetition of an arm."""
    preset = yaml.safe_load((Path(gog_recipes.__file__).parent / "configs" / "tiny" / "grpo.yaml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        values = preset | {
            "data": {"path": str(run / "data")},
            "store": {"uri": copy(run, Path(folder))},
            "workdir": f"{folder}/work",
            "endpoints": urls,
            "seed": seed,
            "steps": given.steps,
            "save_every": given.steps,
            "questions_per_step": given.questions,
            "levels": ["easy", "1", "2"],
            "concurrent_episodes": arm.places * given.questions * preset["group_size"],
            "tools": preset["tools"] | {"deadline_seconds": 5.0},
        }
        if arm.staleness:
            values["async"] = {"max_staleness": arm.staleness}
        recipe = grpo.GRPORecipe(config.typed(GRPOConfig, values))
        recipe.setup()
        SlowTools.waits = random.Random(seed)
        begun, begun_cpu = time.monotonic(), time.process_time()
        asyncio.run(recipe.train())
        seconds, cpu = time.monotonic() - begun, time.process_time() - begun_cpu
        lines = recipe.stage.metric_log.lines
    return {
        "seconds": seconds,
        "steps_per_minute": 60 * len(lines) / seconds,
        "cpu_per_trajectory": cpu / sum(line["trajectories"] for line in lines),
        "rewards": [line["reward_mean"] for line in lines],
        "staleness": max(line["staleness"] for line in lines),
        **{name: statistics.mean(line.get(name, 1.0) for line in lines) for name in MEANS},
    }


MEANS = ("staleness_mean", "trainer_idle", "engine_idle", "prefill_ratio", "tis_weight_mean")
"""Step metrics of which the mean over steps is reported. A step without an update has no importance weights, which counts as 1."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=HERE.parent / "runs" / "world")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--median", type=float, default=0.5, help="seconds of the waits")
    parser.add_argument("--small", action="store_true", help="one repetition of two small steps: that it runs")
    given = parser.parse_args()
    if given.small:
        given.steps, given.questions, given.repetitions = 2, 4, 1
    torch.set_num_threads(1)
    SlowTools.median = given.median
    grpo.Toolbox = SlowTools  # type: ignore[misc, attr-defined]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ARMS}
    with servers(given.run / "data", 0.0) as urls:
        for seed in range(given.repetitions):
            for name, arm in ARMS.items():
                found[name].append(train(given.run, urls, arm, seed, given))
                print(f"{name}, {seed}: {json.dumps(found[name][-1])}", file=sys.stderr, flush=True)
    report(found)
    baseline = found["in turns"]
    ratios = {
        name: [one["steps_per_minute"] / other["steps_per_minute"] for one, other in zip(each, baseline, strict=True)]
        for name, each in found.items()
    }
    for name, each in ratios.items():
        print(f"{name}: {statistics.median(each):.2f} x ({min(each):.2f} to {max(each):.2f})")
    best = max(statistics.median(each) for each in ratios.values())
    if not given.median:
        return 0
    return outcome.finish("async_rollouts", {"arms": found, "ratios": ratios}, {f"async >= {GOAL} x": best >= GOAL})


def _rewards(lines: list[dict[str, Any]]) -> list[list[float]]:
    return [line["rewards"] for line in lines]


def report(found: dict[str, list[dict[str, Any]]]) -> None:
    """Prints the table."""
    names = ("steps_per_minute", "cpu_per_trajectory", "staleness", *MEANS)
    for arm, lines in found.items():
        thirds = [[each[n * len(each) // 3 : (n + 1) * len(each) // 3] for n in range(3)] for each in _rewards(lines)]
        means = [statistics.mean(value for each in thirds for value in each[n]) for n in range(3)]
        print(f"{arm}: mean reward of each third of the steps: {', '.join(f'{mean:.3f}' for mean in means)}")
    print(f"{'arm':<22}" + "".join(f"{name:>20}" for name in (*names, "reward")))
    for arm, lines in found.items():
        values = [statistics.median(line[name] for line in lines) for name in names]
        values.append(statistics.median(statistics.mean(line["rewards"]) for line in lines))
        print(f"{arm:<22}" + "".join(f"{value:>20.3f}" for value in values))


if __name__ == "__main__":
    sys.exit(main())
