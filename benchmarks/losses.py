"""Measures what each loss learns in the embedded world, from the same SFT policy and questions.

    python benchmarks/losses.py [--seeds 3] [--dir runs/losses] [--losses dapo gspo]

Runs examples/world.yaml once per seed, with an arm for each other loss, so that curate, sft and stratify are shared. Prints
the gain of the sampled reward (last ten steps of GRPO against the first ten) and the accuracy on held-out questions with
its 95 % interval; writes the reward of every step. Rewards of losses with an over-length rule include its penalty. Runs
that are complete are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import outcome

HERE = Path(__file__).parent
LOSSES = ("dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_plus_plus")
"""Beside grpo, which is the run itself."""
GAIN = 0.1
"""Gain of the mean reward that every loss is to reach on every seed."""


def arm(loss: str) -> str:
    """The arm of a loss, as a manifest writes it."""
    name = loss.replace("_", "-")
    return f"{{name: {name}, set: {{stages.grpo.loss: {loss}, stages.evaluate.policies: [sft, grpo]}}}}"


def run(folder: Path, seed: int, losses: Sequence[str]) -> dict:
    """Runs one seed to its end. Returns its summary."""
    name = f"losses-{seed}"
    chosen = {"metadata.name": name, "seed": seed, "arms": f"[{', '.join(map(arm, losses))}]"}
    command = [str(Path(sys.executable).with_name("gog")), "run", str(HERE.parent / "examples" / "world.yaml")]
    command += ["--dir", str(folder)]
    for key, value in chosen.items():
        command += ["--set", f"{key}={value}"]
    code = subprocess.run(command, stdout=sys.stderr).returncode
    if code:
        raise SystemExit(f"seed {seed} failed with exit code {code}; see `gog logs {name} --dir {folder}`")
    return json.loads((folder / name / "report" / "summary.json").read_text())


def figures(line: dict) -> dict:
    """What a line of stages learned: rewards by step, their gain, accuracy and its interval."""
    rewards = [step["reward_mean"] for step in line["grpo"] if step["reward_mean"] is not None]
    first, last = rewards[:10], rewards[-10:]
    (row,) = [row for row in line["evaluation"] if row["policy"] == "grpo"]
    return {
        "rewards": rewards,
        "gain": sum(last) / len(last) - sum(first) / len(first),
        "accuracy": row["accuracy"],
        "ci95": row["ci95"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=HERE.parent / "runs" / "losses")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, list[dict]] = {loss: [] for loss in ("grpo", *given.losses)}
    for seed in range(given.seeds):
        summary = run(given.dir, seed, given.losses)
        for loss, lines in found.items():
            lines.append(figures(summary if loss == "grpo" else summary["arms"][loss.replace("_", "-")]))
    print(f"{'loss':<20} {'seed':>4} {'gain':>6} {'accuracy':>8}  95 % interval")
    for loss, lines in found.items():
        for seed, line in enumerate(lines):
            low, high = line["ci95"]
            print(f"{loss:<20} {seed:>4} {line['gain']:>6.3f} {line['accuracy']:>8.3f}  {low:.3f} to {high:.3f}")
    goals = {f"{loss} gains >= {GAIN}": all(line["gain"] >= GAIN for line in lines) for loss, lines in found.items()}
    return outcome.finish("losses", {"losses": found}, goals)


if __name__ == "__main__":
    sys.exit(main())
