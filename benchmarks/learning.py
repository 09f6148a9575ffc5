"""Measures what a run learns: the world example on several seeds, against its goals.

    python benchmarks/learning.py [--seeds 3] [--dir runs/learning]

Runs examples/world.yaml once per seed and reads each summary: gain of the sampled reward (last ten steps of GRPO against
the first ten), paired differences on the held-out questions with their 95 % bootstrap intervals, wall time, peak memory of
the whole process tree. Runs that are complete are not run again. What gazing contributes is measured by `make experiments`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import outcome

HERE = Path(__file__).parent
GOALS = {"gain": 0.15, "seconds": 480, "memory_gib": 4.0}
PAIRS = (("grpo", "sft"), ("sft", "direct"), ("sft", "whole-image"))


def run(manifest: Path, folder: Path, seed: int) -> dict:
    """Runs one run to its end. Returns its summary with `peak_gib`, the largest memory of all its processes together."""
    name = f"world-{seed}"
    gog = Path(sys.executable).with_name("gog")
    command = [
        gog,
        "run",
        manifest,
        "--dir",
        folder,
        "--set",
        f"metadata.name={name}",
        "--set",
        f"seed={seed}",
    ]
    process = subprocess.Popen([str(word) for word in command], stdout=sys.stderr)
    peak = [0.0]
    watch = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watch.start()
    if process.wait() != 0:
        raise SystemExit(
            f"seed {seed} failed with exit code {process.returncode}; see `gog logs {name} --dir {folder}`"
        )
    noted = folder / f"{name}.peak"  # measured when the run was made; a complete run is not run again
    if not noted.exists():
        noted.write_text(f"{peak[0]:.2f}")
    summary = json.loads((folder / name / "report" / "summary.json").read_text())
    return summary | {"peak_gib": float(noted.read_text())}


def _watch(process: subprocess.Popen, peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], _tree_gib(process.pid))
        time.sleep(1)


def _tree_gib(root: int) -> float:
    """Memory of a process and all below it: the proportional share of pages, so that shared ones count once."""
    parents, total = {}, 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
    for pid in parents:
        ancestor = pid
        while ancestor not in (root, 0, 1) and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor == root:
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 2**20


def figures(summary: dict) -> dict:
    """The figures that the goals bound, from a run's summary."""
    grpo = [line["reward_mean"] for line in summary["grpo"]]
    first, last = sum(grpo[:10]) / 10, sum(grpo[-10:]) / 10
    rows = {row["policy"]: row for row in summary["evaluation"]}
    compared = {(pair["a"], pair["b"]): pair for pair in summary["comparisons"]}
    return {
        "first_ten": first,
        "last_ten": last,
        "gain": last - first,
        "n": rows["grpo"]["n"],
        "accuracy": {name: row["accuracy"] for name, row in rows.items()},
        "differences": {f"{a}-{b}": [compared[a, b]["difference"], *compared[a, b]["ci95"]] for a, b in PAIRS},
        "grpo_ci95": rows["grpo"]["ci95"],
        "seconds": sum(stage["seconds"] for stage in summary["stages"]),
        "peak_gib": summary["peak_gib"],
    }


def reached(found: list[dict]) -> dict[str, bool]:
    return {
        f"gain >= {GOALS['gain']}": all(item["gain"] >= GOALS["gain"] for item in found),
        "n >= 500": all(item["n"] >= 500 for item in found),
        **{f"{a} beats {b}": all(item["differences"][f"{a}-{b}"][1] > 0 for item in found) for a, b in PAIRS},
        f"seconds <= {GOALS['seconds']}": all(item["seconds"] <= GOALS["seconds"] for item in found),
        f"memory <= {GOALS['memory_gib']} GiB": all(item["peak_gib"] <= GOALS["memory_gib"] for item in found),
    }


def table(found: list[dict]) -> str:
    names = (
        "seed",
        "first",
        "last",
        "gain",
        "direct",
        "whole",
        "sft",
        "grpo",
        "grpo-sft",
        "low",
        "high",
        "s",
        "GiB",
    )
    lines = [" ".join(f"{name:>8}" for name in names)]
    for seed, item in enumerate(found):
        accuracy = item["accuracy"]
        values = [item["first_ten"], item["last_ten"], item["gain"]]
        values += [accuracy[name] for name in ("direct", "whole-image", "sft", "grpo")]
        values += [*item["differences"]["grpo-sft"]]
        figures = " ".join(f"{value:8.3f}" for value in values)
        lines.append(f"{seed:8} {figures} {item['seconds']:8.0f} {item['peak_gib']:8.1f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=HERE.parent / "runs" / "learning")
    parser.add_argument("--manifest", type=Path, default=HERE.parent / "examples" / "world.yaml")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = [figures(run(given.manifest, given.dir, seed)) for seed in range(given.seeds)]
    goals = reached(found)
    print(table(found))
    return outcome.finish("learning", {"seeds": found}, goals)


if __name__ == "__main__":
    sys.exit(main())
