"""Measures what each loss learns in the embedded world, from the same SFT policy and questions.

    python benchmarks/losses.py [--seeds 3] [--minutes 60] [--losses dapo gspo] [--set stages.grpo.steps=60]

Runs examples/world.yaml once per seed, with an arm for each other loss, so that curate, sft and stratify are shared. Prints
the gain of the sampled reward (last ten steps of GRPO against the first ten) and the accuracy on held-out questions with
its 95 % interval; writes the reward of every step to results/losses.json and a table of the curves to
docs/performance.md. Rewards of losses with an over-length rule include its penalty.

After `--minutes` the run in progress is interrupted, and the exit code is 3. The same command resumes it, in the middle of a
stage if need be; seeds that are complete are not run again. Nothing is written before all seeds are complete.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import outcome

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
LOSSES = ("dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_plus_plus")
"""Beside grpo, which is the run itself."""
GAIN = 0.1
"""Gain of the mean reward that every loss is to reach on every seed."""
PARTS = 10
"""Parts of the steps of which the table has the mean reward."""
HEADING = "## Losses"
INCOMPLETE, INTERRUPTED = 3, 130


def arm(loss: str) -> str:
    """The arm of a loss, as a manifest writes it."""
    name = loss.replace("_", "-")
    return f"{{name: {name}, set: {{stages.grpo.loss: {loss}, stages.evaluate.policies: [sft, grpo]}}}}"


def run(folder: Path, seed: int, losses: Sequence[str], settings: Sequence[str], seconds: float | None) -> dict | None:
    """Runs one seed, or what is left of it, for some seconds. Returns its summary; None if it is not complete then."""
    name = f"losses-{seed}"
    chosen = {"metadata.name": name, "seed": seed, "arms": f"[{', '.join(map(arm, losses))}]"}
    command = [str(Path(sys.executable).with_name("gog")), "run", str(HERE.parent / "examples" / "world.yaml")]
    command += ["--dir", str(folder)]
    for each in (*(f"{key}={value}" for key, value in chosen.items()), *settings):
        command += ["--set", each]
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        code = process.wait()
    if code in (INTERRUPTED, -signal.SIGINT):  # the latter while it starts
        return None
    if code:
        raise SystemExit(f"seed {seed} failed with exit code {code}; see `gog logs {name} --dir {folder}`")
    return dict(json.loads((folder / name / "report" / "summary.json").read_text()))


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
        "n": row["n"],
    }


def commit() -> str:
    """Of the code that was run."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def curve(lines: Sequence[dict]) -> list[float]:
    """Mean reward of each tenth of the steps, over seeds."""
    found = []
    for part in range(PARTS):
        values = [value for line in lines for value in tenth(line["rewards"], part)]
        found.append(sum(values) / len(values))
    return found


def tenth(rewards: Sequence[float], part: int) -> Sequence[float]:
    """The rewards of one of PARTS parts, at least one of them."""
    start = part * len(rewards) // PARTS
    return rewards[start : max(start + 1, (part + 1) * len(rewards) // PARTS)]


def section(found: Mapping[str, Sequence[dict]], made_by: str, settings: Sequence[str]) -> str:
    """The section of the page: one row for each loss."""
    seeds = len(next(iter(found.values())))
    head = [
        "loss",
        *(f"{100 * (part + 1) // PARTS} %" for part in range(PARTS)),
        "gain",
        "accuracy, 95 % interval by seed",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for loss, runs in found.items():
        gains = [each["gain"] for each in runs]
        accuracy = "; ".join(f"{each['accuracy']:.3f} ({each['ci95'][0]:.3f}–{each['ci95'][1]:.3f})" for each in runs)
        gain = f"{min(gains):+.3f} to {max(gains):+.3f}"
        lines.append("| " + " | ".join([loss, *(f"{value:.3f}" for value in curve(runs)), gain, accuracy]) + " |")
    changed = f", with {', '.join(f'`{each}`' for each in settings)}" if settings else ""
    return (
        f"{HEADING}\n\nMean sampled reward by tenth of the steps of GRPO in the embedded world, over {seeds} seeds from one SFT "
        f"policy each; the gain of the last ten steps over the first ten, lowest and highest seed; accuracy on held-out "
        f"questions. `examples/world.yaml`{changed}, commit {made_by}, `make losses`; every step is in "
        f"`benchmarks/results/losses.json`.\n\n" + "\n".join(lines) + "\n"
    )


def write(page: Path, text: str) -> None:
    """Replaces the section of a page, or adds it at the end."""
    before, _, rest = (page.read_text() if page.exists() else "# Performance\n").partition(HEADING + "\n")
    _, other, after = rest.partition("\n## ")
    page.write_text(before.rstrip("\n") + "\n\n" + text + (other + after if other else ""))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=HERE.parent / "runs" / "losses")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which it is interrupted")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the manifest")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    end = time.monotonic() + 60 * given.minutes
    found: dict[str, list[dict]] = {loss: [] for loss in ("grpo", *given.losses)}
    for seed in range(given.seeds):
        left = None if given.minutes == float("inf") else max(1.0, end - time.monotonic())
        summary = run(given.dir, seed, given.losses, given.set, left)
        if summary is None:
            print(f"losses: {seed} of {given.seeds} seeds are complete; the same command resumes seed {seed}")
            return INCOMPLETE
        for loss, lines in found.items():
            lines.append(figures(summary if loss == "grpo" else summary["arms"][loss.replace("_", "-")]))
    print(f"{'loss':<20} {'seed':>4} {'gain':>6} {'accuracy':>8}  95 % interval")
    for loss, lines in found.items():
        for seed, line in enumerate(lines):
            low, high = line["ci95"]
            print(f"{loss:<20} {seed:>4} {line['gain']:>6.3f} {line['accuracy']:>8.3f}  {low:.3f} to {high:.3f}")
    made_by = commit()
    write(PAGE, section(found, made_by, given.set))
    goals = {f"{loss} gains >= {GAIN}": all(line["gain"] >= GAIN for line in lines) for loss, lines in found.items()}
    shared = {"commit": made_by, "seeds": list(range(given.seeds)), "settings": given.set}
    return outcome.finish("losses", {**shared, "losses": found}, goals)


if __name__ == "__main__":
    sys.exit(main())
