"""Measures the speed and exactness of rollouts with live tools, against the goals.

    python benchmarks/rollout.py [--run runs/world] [--steps 6] [--failures 0.05]

Takes the SFT policy of a finished run (`make quickstart` leaves one), starts the tool servers as `gog run` does, and
plays groups of five for 32 questions a step, in three arms: with healthy tools; with injected failures; and with an
engine whose every tenth step blocks for 0.8 s, while tools keep a deadline of 0.5 s. One thread; the servers have the
other core. The first step of each arm is a warm-up and is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import outcome

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from gog import dataset, failure_rules, rewards, stats, store
from gog.engine import Limits
from gog.spec import AgentSettings, ModelSpec, ToolsSpec
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.rollout.slots import Slot
from gog_recipes.rollout.transformers import TransformersEngine

HERE = Path(__file__).parent
QUESTIONS, GROUP = 32, 5
GOALS = {
    "tokens_per_second": 3000,
    "logp_diff_max": 1e-4,
    "prefill_ratio": 1.05,
    "encodes_per_image": 1.0,
    "io_lag_p99_ms": 50,
}
SERVERS = {"grounding": "grounding", "imageSearch": "image-search", "textSearch": "text-search", "judge": "judge"}
SETTINGS = AgentSettings(max_calls=10, max_turns=6, max_turn_tokens=14, max_tokens=192)
"""Values of the tiny preset."""
LAG_SECONDS = 0.01
"""Seconds between two measurements of the I/O loop's lag."""


@dataclass(frozen=True)
class Arm:
    """One way to play."""

    failures: float = 0.0
    """Share of tool calls that the servers fail on purpose; the judge never fails."""
    block_seconds: float = 0.0
    """Seconds for which every tenth step of the engine blocks."""
    deadline_seconds: float = 2.0
    """Deadline of a tool call, in seconds."""
    steps: int | None = None
    """Steps to play at most; None: as given on the command line."""


class BlockingEngine(TransformersEngine):
    """An engine whose every tenth step takes long, as a long prompt does."""

    block_seconds, _steps = 0.0, 0

    def _step(self, slots: list[Slot]) -> None:
        self._steps += 1
        if self._steps % 10 == 0:
            time.sleep(self.block_seconds)
        super()._step(slots)


@contextlib.contextmanager
def servers(data: Path, failures: float) -> Iterator[dict[str, str]]:
    """URLs of the four tools, each a process; the judge never fails."""
    with tempfile.TemporaryDirectory() as folder:
        processes = {}
        for tool, role in SERVERS.items():
            command = [
                str(Path(sys.executable).with_name("gog")),
                "serve",
                role,
                "--data",
                str(data),
                "--ready-file",
                f"{folder}/{tool}",
            ]
            if tool != "judge":
                command += ["--failures", json.dumps({"rate": failures}), "--timeout-seconds", "3"]
            processes[tool] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while not all(Path(folder, tool).exists() for tool in SERVERS):
                if time.monotonic() > deadline:
                    raise SystemExit("the tool servers did not start within 60 s")
                time.sleep(0.1)
            yield {tool: json.loads(Path(folder, tool).read_text())["url"] for tool in SERVERS}
        finally:
            for process in processes.values():
                process.terminate()
            for process in processes.values():
                process.wait()


def prepare(run: Path) -> tuple[torch.nn.Module, QuestionPool]:
    """The run's SFT policy and its training questions."""
    if not (run / "store").is_dir():
        raise SystemExit(f"{run} is not a run; `make quickstart` makes one")
    opened = store.open_store(f"file://{(run / 'store').absolute()}")
    spec = ModelSpec(base="tiny")
    with tempfile.TemporaryDirectory() as folder:
        adapter = opened.fetch(opened.resolve("sft"), Path(folder) / "adapter")
        policy = lora.with_saved(policy_model.load_base(spec, torch.device("cpu")), [adapter])
    data = run / "data"
    return policy, QuestionPool(data, dataset.read_questions(data, "train"))


def make_engine(policy: torch.nn.Module, block_seconds: float = 0.0) -> TransformersEngine:
    """The engine of a stage that plays the world, with places for a whole step."""
    processor = policy_model.load_processor(ModelSpec(base="tiny"))
    vision = policy_model.vision_of(policy, processor)
    engine = BlockingEngine(
        Parts(
            policy,
            processor,
            vision,
            Limits(SETTINGS.max_tokens, SETTINGS.max_turn_tokens, temperature=1.0),
            QUESTIONS * GROUP,
        )
    )
    engine.block_seconds = block_seconds
    return engine


async def measure_lag(lags: list[float]) -> None:
    """Appends how late the running loop fires a timer, in seconds, until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        lags.append(loop.time() - due)


async def play(
    policy: torch.nn.Module, pool: QuestionPool, endpoints: dict[str, str], steps: int, arm: Arm = Arm()
) -> tuple[dict, list[list[Trajectory]], TransformersEngine]:
    """Figures over the counted steps, the groups played, and the engine."""
    engine = make_engine(policy, arm.block_seconds)
    limits = ToolsSpec(attempts=1, deadline_seconds=arm.deadline_seconds, crop_side=28)
    groups, seconds, cpu = [], 0.0, 0.0
    lags: list[float] = []
    async with Toolbox(endpoints, limits) as toolbox:
        rollouts = Rollouts(engine, toolbox, SETTINGS, pool, "bench", seed=0)
        measuring = asyncio.ensure_future(toolbox.io.run(measure_lag(lags)))
        for step in range(steps + 1):
            if step == 1:
                engine.take_counters()
                lags.clear()
                seconds, cpu, groups = 0.0, 0.0, []
            started, started_cpu = time.monotonic(), time.process_time()
            questions = pool.questions[step * QUESTIONS : (step + 1) * QUESTIONS]
            groups += (await rollouts.play(questions, GROUP, step=step, policy="sft")).groups
            seconds, cpu = seconds + time.monotonic() - started, cpu + time.process_time() - started_cpu
        measuring.cancel()
    trajectories = [item for group in groups for item in group]
    counters = engine.take_counters()
    failures = [failure for item in trajectories for failure in (*item.failures, item.judge_failure) if failure]
    return (
        {
            "trajectories": len(trajectories),
            "finished": sum(bool(item.stop) for item in trajectories),
            "tool_calls": sum(item.tool_calls for item in trajectories),
            "failed_calls": len(failures),
            "timeouts": sum(failure.kind == "timeout" for failure in failures),
            "generated_tokens": counters.generated,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(counters.generated / seconds, 1),
            "tokens_per_cpu_second": round(counters.generated / cpu, 1),
            "cpu_ms_per_trajectory": round(1e3 * cpu / len(trajectories), 3),
            "trajectories_per_second": round(len(trajectories) / seconds, 1),
            "prefill_ratio": round(counters.prefilled / counters.unique, 4),
            "encodes_per_image": round(engine.vision.encoded / len(engine.vision), 4),
            "images_asked": engine.vision.asked,
            "images_encoded": engine.vision.encoded,
            "io_lag_p50_ms": round(1e3 * stats.percentile(lags, 0.5), 2),
            "io_lag_p99_ms": round(1e3 * stats.percentile(lags, 0.99), 2),
            "io_lag_max_ms": round(1e3 * max(lags), 2),
        },
        groups,
        engine,
    )


@torch.no_grad()
def logp_diff_max(policy: torch.nn.Module, engine: TransformersEngine, trajectories: Sequence[Trajectory]) -> float:
    """Largest difference between the log-probs of the engine and of the training forward."""
    batch = policy_model.collate(
        [item.segments for item in trajectories], engine.processor, engine.vision, torch.device("cpu")
    )
    suppressed = engine.processor.suppress_tokens
    found = policy_model.token_logprobs(
        policy, batch, policy_model.features(batch, engine.vision), suppressed=suppressed
    )
    sampled = torch.tensor([value for item in trajectories for value in item.model_logprobs()])
    return float((found - sampled).abs().max())


def polluted(groups: Sequence[Sequence[Trajectory]]) -> int:
    """Trajectories touched by a tool failure that would get an advantage."""
    count = 0
    for group in groups:
        (learned,) = rewards.with_advantages([group], failures=failure_rules.Settings(), estimator="group")
        count += sum(1 for item in learned if item.failures and item.advantage is not None)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=HERE.parent / "runs" / "world")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--failures", type=float, default=0.05)
    given = parser.parse_args()
    torch.set_num_threads(1)
    policy, pool = prepare(given.run)
    arms = {
        "healthy": Arm(),
        "failing": Arm(failures=given.failures),
        "blocked": Arm(block_seconds=0.8, deadline_seconds=0.5, steps=2),
    }
    found = {}
    for name, arm in arms.items():
        with servers(given.run / "data", arm.failures) as endpoints:
            steps = min(given.steps, arm.steps or given.steps)
            found[name], groups, engine = asyncio.run(play(policy, pool, endpoints, steps, arm))
        found[name]["logp_diff_max"] = logp_diff_max(
            policy, engine, [item for group in groups[-QUESTIONS:] for item in group]
        )
        found[name]["failed_and_learned"] = polluted(groups)
    width = max(len(key) for key in found["healthy"])
    print(f"{'':{width}}" + "".join(f" {name:>14}" for name in arms))
    for key in found["healthy"]:
        print(f"{key:{width}}" + "".join(f" {found[name][key]:>14.6g}" for name in arms))
    healthy, failing, blocked = (found[name] for name in arms)
    lag = max(healthy["io_lag_p99_ms"], blocked["io_lag_p99_ms"])
    goals = {
        f"tokens/s >= {GOALS['tokens_per_second']}": healthy["tokens_per_second"] >= GOALS["tokens_per_second"],
        f"log-prob gap <= {GOALS['logp_diff_max']}": healthy["logp_diff_max"] <= GOALS["logp_diff_max"],
        f"prefill ratio <= {GOALS['prefill_ratio']}": healthy["prefill_ratio"] <= GOALS["prefill_ratio"],
        "each image encoded once": healthy["encodes_per_image"] <= GOALS["encodes_per_image"],
        f"lag of the I/O loop, p99 <= {GOALS['io_lag_p99_ms']} ms": lag <= GOALS["io_lag_p99_ms"],
        "no call lost while steps block": blocked["failed_calls"] == 0,
        "every trajectory finishes under failures": failing["finished"] == failing["trajectories"],
        "none that failed is learned": failing["failed_calls"] > 0 and failing["failed_and_learned"] == 0,
    }
    return outcome.finish("rollout", found, goals)


if __name__ == "__main__":
    sys.exit(main())
