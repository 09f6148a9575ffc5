"""Measures what the journal of a rollout costs (off, in a folder, in a bucket), against the goal.

    python benchmarks/journal.py [--run runs/world] [--steps 12] [--latency 1.0]

Plays each step of `rollout.py` three times in one process, with the SFT policy of a finished run and healthy tools: the
same questions and the same noise; the order of the three arms rotates. The bucket is a real S3 server (versitygw) in a
process of its own. Shares are of a whole step of GRPO, as the run took it. The wall time that the journal adds is the
median over steps of the difference to the same step without one, which other work on the machine disturbs. Its CPU time
is measured by itself: on the loop that samples (appending, waking episodes), which holds the rollout up, and in the
writing thread, which needs another core. The first step is a warm-up and is not counted. All is done twice: with the
world's tools, which answer in milliseconds, and with calls that take `--latency` seconds more, as those of vendors do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import outcome
import rollout
import torch

from gog import journal, stats, store
from gog.journal import writer
from gog.spec import ToolsSpec
from gog.tool_client import Toolbox
from gog_recipes.rollout import journals
from gog_recipes.rollout.rollouts import Rollouts

sys.path.insert(0, str(rollout.HERE.parent / "tests"))

from support import s3

ARMS = ("off", "folder", "bucket")
GOAL = 0.02
"""Share of a step's time that the journal takes at most: of wall time, and of the loop's CPU time."""


@dataclass(frozen=True)
class Step:
    """Seconds of one play of a step."""

    wall: float
    """From its beginning to its end."""
    loop: float
    """CPU time of the journal on the loop that samples."""
    thread: float
    """CPU time of the writing thread."""


class SlowTools(Toolbox):
    """Tools whose calls take longer."""

    latency = 0.0
    """Seconds that each call takes more."""

    async def ground(self, *given: Any, **named: Any) -> Any:
        await asyncio.sleep(self.latency)
        return await super().ground(*given, **named)

    async def search_image(self, *given: Any) -> Any:
        await asyncio.sleep(self.latency)
        return await super().search_image(*given)

    async def search_text(self, *given: Any) -> Any:
        await asyncio.sleep(self.latency)
        return await super().search_text(*given)


class Meter:
    """Adds up the CPU time of the journal."""

    def __init__(self) -> None:
        self.loop = self.thread = 0.0
        self.objects = self.bytes = 0
        self._wrap(writer.Writer, "_run", "thread")
        self._wrap(writer.Line, "_append", "loop")
        self._wrap(writer, "_resolve", "loop")

    def _wrap(self, owner: Any, name: str, place: str) -> None:
        measured = getattr(owner, name)

        def timed(*given: Any, **named: Any) -> Any:
            begun = time.thread_time()
            try:
                return measured(*given, **named)
            finally:
                setattr(self, place, getattr(self, place) + time.thread_time() - begun)

        setattr(owner, name, timed)

    def count(self, target: store.Store) -> None:
        """Counts the objects of a store's journals."""
        found = target.objects(f"{journal.plays.ROOT}/")
        self.objects, self.bytes = self.objects + len(found), self.bytes + sum(each.size for each in found)


@contextlib.contextmanager
def stores() -> Iterator[dict[str, tuple[store.Store, float] | None]]:
    """The store of each arm with the pause between two objects."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        os.environ |= s3.CREDENTIALS
        gateway = s3.Gateway(Path(folder) / "buckets").start()
        stack.callback(gateway.stop)
        yield {
            "off": None,
            "folder": (store.open_store(f"file://{folder}/store"), journals.pause_of("file://")),
            "bucket": (store.open_store(gateway.spec("bench")), journals.pause_of("s3://")),
        }


async def play(policy, pool, endpoints, targets, steps: int, meter: Meter, latency: float) -> dict[str, list[Step]]:
    """Each step by arm. latency: seconds that each tool call takes more."""
    engine, limits = rollout.make_engine(policy), ToolsSpec(attempts=1, deadline_seconds=5.0, crop_side=28)
    taken = defaultdict(list)
    async with SlowTools(endpoints, limits) as toolbox:
        toolbox.latency = latency
        for step in range(steps + 1):
            questions = pool.questions[step * rollout.QUESTIONS : (step + 1) * rollout.QUESTIONS]
            for name in ARMS[step % 3 :] + ARMS[: step % 3]:
                target = targets[name]
                kept = journals.Journals(target[0], "bench", "bench", target[1]) if target else None
                rollouts = Rollouts(engine, toolbox, rollout.SETTINGS, pool, "bench", seed=0, journals=kept)
                before = (time.monotonic(), meter.loop, meter.thread)
                await rollouts.play(questions, rollout.GROUP, step=step, policy="sft")
                after = (time.monotonic(), meter.loop, meter.thread)
                taken[name].append(Step(*(b - a for a, b in zip(before, after, strict=True))))
                if target:
                    meter.count(target[0])
                    target[0].delete_objects(f"{journal.plays.ROOT}/")
    return {name: each[1:] for name, each in taken.items()}


def step_seconds(run: Path) -> float:
    """Median time of the run's GRPO steps, in seconds."""
    opened = store.open_store(f"file://{(run / 'store').absolute()}")
    lines = opened.open(opened.resolve("grpo"), "metrics.jsonl").read_text().splitlines()
    return stats.percentile([json.loads(line)["seconds"] for line in lines], 0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=rollout.HERE.parent / "runs" / "world")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--latency", type=float, default=1.0, help="seconds of a slow tool call")
    given = parser.parse_args()
    torch.set_num_threads(1)
    policy, pool = rollout.prepare(given.run)
    meter, whole = Meter(), step_seconds(given.run)
    with rollout.servers(given.run / "data", 0.0) as endpoints, stores() as targets:
        taken = {
            latency: asyncio.run(play(policy, pool, endpoints, targets, given.steps, meter, latency))
            for latency in (0.0, given.latency)
        }
    plays = 4 * (given.steps + 1)
    found: dict[str, Any] = {
        "steps": given.steps,
        "seconds_of_a_step": round(whole, 3),
        "objects_of_a_step": round(meter.objects / plays, 1),
        "kilobytes_of_a_step": round(meter.bytes / plays / 1e3, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }
    print(found)
    goals: dict[str, bool] = {}
    for latency, arms in taken.items():
        for name in ARMS[1:]:
            # What a rollout takes longer by slow tools is part of its step.
            longer = stats.percentile([each.wall for each in arms["off"]], 0.5)
            step = whole + longer - stats.percentile([each.wall for each in taken[0.0]["off"]], 0.5)
            key = name if not latency else f"{name}, calls of {latency:g} s"
            found[key] = shares(arms[name], arms["off"], step)
            print(f"{key:20}", *(f"{part} {value}" for part, value in found[key].items()), sep="  ")
            for part, words in (("added_wall", "added wall time"), ("loop", "CPU time of the loop")):
                goals[f"{key}: {words} <= {GOAL:.0%} of a step"] = found[key][f"{part}_share"] <= GOAL
    return outcome.finish("journal", found, goals)


def shares(kept: list[Step], without: list[Step], step: float) -> dict[str, float]:
    """What the journal costs, in milliseconds and as a share of a step of so many seconds."""
    added = [each.wall - other.wall for each, other in zip(kept, without, strict=True)]
    seconds = {
        "added_wall": stats.percentile(added, 0.5),
        "loop": stats.mean([each.loop for each in kept]),
        "thread": stats.mean([each.thread for each in kept]),
    }
    return {
        **{f"{part}_ms": round(1e3 * each, 1) for part, each in seconds.items()},
        **{f"{part}_share": round(each / step, 4) for part, each in seconds.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
