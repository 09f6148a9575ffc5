"""Does GRPO on the embedded world learn alike with vLLM and with the in-process engine?

    GOG_VLLM_PROGRAM=tests/vllm/serve python benchmarks/vllm_world.py [--steps 20]

One run whose arm samples GRPO and evaluation with vLLM, which gog starts; both arms share the SFT policy and the graded
questions. The model is the tiny one with heads that vLLM takes (gog_recipes.world.wide_tiny). The engines have noise of
their own, so rewards are compared over steps, and accuracies by their intervals. A run that is complete is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import outcome
import yaml

from gog_recipes.world import wide_tiny

HERE = Path(__file__).parent
NAME = "vllm-world"
CLOSE = 0.05
"""Largest difference of the mean reward over all steps."""


def manifest(base: Path, steps: int, questions: int, test: int) -> dict:
    """The run: grpo in process, and the arm `vllm`."""
    grpo = {"steps": steps, "questionsPerStep": questions, "saveEvery": steps, "warmupSteps": 2}
    return {
        "apiVersion": "gog.dev/v1alpha1",
        "kind": "GoGRun",
        "metadata": {"name": NAME},
        "spec": {
            "model": {"base": str(base), "family": "tiny"},
            "data": {"world": {"train": 1600, "test": test}},
            "endpoints": {"policy": {"runtime": "vllm", "options": {"enforce-eager": True}, "startupSeconds": 1800}},
            "stages": {
                "curate": {"trajectories": 1500},
                "stratify": {"questions": 200},
                "grpo": grpo,
                "evaluate": {"policies": ["sft", "grpo"]},
            },
            "arms": [{"name": "vllm", "set": {"stages.grpo.engine": "vllm", "stages.evaluate.engine": "vllm"}}],
        },
    }


def curve(folder: Path, stage: str) -> list[dict]:
    """The metric log of a stage."""
    return [json.loads(line) for line in (folder / "work" / stage / "metrics.jsonl").read_text().splitlines()]


def figures(folder: Path) -> dict:
    """Rewards by step and accuracy of each engine."""
    found = {}
    for engine, suffix in (("transformers", ""), ("vllm", "-vllm")):
        lines = curve(folder, f"grpo{suffix}")
        rows = json.loads((folder / "work" / f"evaluate{suffix}" / "results.json").read_text())["rows"]
        grpo = next(row for row in rows if row["policy"] == "grpo")
        found[engine] = {
            "rewards": [line["reward_mean"] for line in lines],
            "reward_mean": sum(line["reward_mean"] for line in lines) / len(lines),
            "reward_last": sum(line["reward_mean"] for line in lines[-5:]) / len(lines[-5:]),
            "logp_diff_max": max(line.get("logp_diff_max", 0.0) for line in lines),
            "rollout_seconds": sum(line["rollout_seconds"] for line in lines) / len(lines),
            "accuracy": grpo["accuracy"],
            "ci95": grpo["ci95"],
        }
    return found


def table(found: dict) -> str:
    columns = ("reward_mean", "reward_last", "accuracy", "logp_diff_max", "rollout_seconds")
    lines = [f"{'engine':14}" + "".join(f"{name:>17}" for name in columns)]
    lines += [f"{engine:14}" + "".join(f"{row[name]:17.5f}" for name in columns) for engine, row in found.items()]
    return "\n".join(lines)


def reached(found: dict) -> dict[str, bool]:
    ours, theirs = found["transformers"], found["vllm"]
    return {
        f"mean reward within {CLOSE}": abs(ours["reward_mean"] - theirs["reward_mean"]) <= CLOSE,
        "accuracies' intervals overlap": theirs["ci95"][0] <= ours["ci95"][1] and ours["ci95"][0] <= theirs["ci95"][1],
        "log-probs within 1e-4 of the trainer's": theirs["logp_diff_max"] <= 1e-4,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--questions", type=int, default=16, help="per step")
    parser.add_argument("--test", type=int, default=200, help="held-out questions")
    parser.add_argument("--dir", type=Path, default=HERE.parent / "runs" / "vllm")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    given.dir.mkdir(parents=True, exist_ok=True)
    base = wide_tiny.write(given.dir.absolute() / "wide-tiny")
    path = given.dir / "run.yaml"
    path.write_text(yaml.safe_dump(manifest(base, given.steps, given.questions, given.test)))
    gog = str(Path(sys.executable).with_name("gog"))
    if subprocess.run([gog, "run", str(path), "--dir", str(given.dir)], stdout=sys.stderr).returncode:
        raise SystemExit(f"the run failed; see `gog logs {NAME} --dir {given.dir}`")
    found = figures(given.dir / NAME)
    goals = reached(found)
    print(table(found))
    return outcome.finish("vllm_world", {"engines": found}, goals)


if __name__ == "__main__":
    sys.exit(main())
