"""Runs the experiments of benchmarks/ablations.py over several seeds, and writes what they found.

    python benchmarks/experiments.py [--seeds 3] [--only no-gaze level-2] [--jobs 2] [--minutes 60] [--short]

Each experiment has a file benchmarks/results/experiments/NAME.json: rows of the evaluation, the verdict on every held-out
question, rewards of every step, settings and commit, by seed. docs/results.md is written from these files. A seed whose file
has the same settings is not run again, wherever it was made; stages that experiments have in common are run once; a stage that
was killed resumes. So the same command continues after an interruption, and `--jobs 2` are two such commands.

`--short` is the form for tests: a few steps and questions, in a folder of its own (its results and page, too).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ablations
import experiment_page
import experiment_stages
from experiment_claims import CLAIMS
from experiment_stages import Bench, Planned

from gog import store
from gog_operator import parent_death

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "experiments"
PAGE = HERE.parent / "docs" / "results.md"
SHORT: Mapping[str, Any] = {
    "data.world.train": 160,
    "data.world.test": 40,
    "stages.curate.trajectories": 96,
    "stages.sft.maxSteps": 8,
    "stages.stratify.questions": 24,
    "stages.grpo.steps": 2,
    "stages.grpo.questionsPerStep": 4,
    "stages.evaluate.bootstrap": 200,
}
"""Sizes of the short form: whether everything runs, not what it finds."""
SHORT_ONLY = ("main", "no-gaze", "rule-keep", "grounding-gone-at-test")
INCOMPLETE = 3


def commit() -> str:
    """The commit that is measured; `+` where files other than documentation and results differ from it."""
    named = _git("describe", "--always", "--abbrev=12")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/benchmarks/results", ":!/docs")
    return (named or "unknown") + ("+" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True).stdout.strip()


def digest(stages: Sequence[Planned]) -> str:
    """Of everything that decides what an experiment finds."""
    return stages[-1].key.removeprefix("evaluate-")


def known(results: Path, experiment: ablations.Experiment, seed: int, stages: Sequence[Planned]) -> bool:
    """Whether a result of the same settings exists."""
    path = results / f"{experiment.name}.json"
    if not path.exists():
        return False
    found = json.loads(path.read_text())["seeds"].get(str(seed))
    return found is not None and found["digest"] == digest(stages)


def measure(bench: Bench, experiment: ablations.Experiment, stages: Sequence[Planned]) -> dict[str, Any]:
    """Runs the stages of one seed that are not complete. Returns what the result holds."""
    for stage in stages:
        bench.run(stage)
    by_kind = {stage.kind: stage for stage in stages}
    evaluated, trained = (bench.store.latest(by_kind[kind].key) for kind in ("evaluate", "grpo"))
    assert evaluated is not None
    assert trained is not None
    table = json.loads(bench.store.open(evaluated, "results.json").read_text())
    return {
        "digest": digest(stages),
        "commit": commit(),
        "keys": {kind: stage.key for kind, stage in by_kind.items()},
        "rows": {row["policy"]: row for row in table["rows"]},
        "verdicts": verdicts(bench.store, evaluated),
        "steps": steps(bench.root / "work" / by_kind["grpo"].key / "metrics.jsonl"),
        "levels": _meta(bench, by_kind["stratify"].key).get("levels"),
        "cost": {kind: bench.cost(stage.key) for kind, stage in by_kind.items()},
    }


def _meta(bench: Bench, key: str) -> Mapping[str, Any]:
    newest = bench.store.latest(key)
    return newest.meta if newest is not None else {}


def verdicts(opened: store.Store, manifest: store.Manifest) -> dict[str, str]:
    """By policy: one character for each question in order; 1 right, 0 wrong, - undecided."""
    found: dict[str, str] = {}
    for line in opened.open(manifest, "answers.jsonl").read_text().splitlines():
        each = json.loads(line)
        sign = "-" if each["accuracy"] is None else str(int(each["accuracy"]))
        found[each["policy"]] = found.get(each["policy"], "") + sign
    return found


STEP_FIGURES = ("reward_mean", "excluded_share", "frac_reward_zero_std", "tool_failure_ratio", "tool_calls_mean")


def steps(path: Path) -> dict[str, list[float | None]]:
    """Figures of every step, by name; the last of a step that was repeated after an interruption."""
    lines = {line["step"]: line for line in map(json.loads, path.read_text().splitlines())} if path.exists() else {}
    return {name: [lines[step].get(name) for step in sorted(lines)] for name in STEP_FIGURES}


def write(results: Path, experiment: ablations.Experiment, seed: int, found: Mapping[str, Any]) -> None:
    """Adds a seed to the file of an experiment."""
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{experiment.name}.json"
    with experiment_stages.locked(results / ".lock"):
        whole = json.loads(path.read_text()) if path.exists() else {"seeds": {}}
        seeds = {**whole["seeds"], str(seed): found}
        document = {
            "experiment": experiment.name,
            "about": experiment.about,
            "set": dict(experiment.set),
            "at_test": dict(experiment.at_test),
            "seeds": dict(sorted(seeds.items(), key=lambda item: int(item[0]))),
        }
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps(document, indent=1) + "\n")
        fresh.replace(path)


def units(names: Sequence[str], seeds: int) -> Iterator[tuple[ablations.Experiment, int]]:
    """Experiments and seeds: first those that the paper's claims need, one seed of all of them after the other."""
    needed = {name for section in CLAIMS.values() for each in section for name, _ in (each.a, each.b)}
    for own in ([name for name in names if (name in needed) == first] for first in (True, False)):
        for seed in range(seeds):
            for name in own:
                yield ablations.BY_NAME[name], seed


def work(bench: Bench, results: Path, names: Sequence[str], seeds: int, changes: Mapping[str, Any], end: float) -> None:
    """Runs what no other process is running."""
    for experiment, seed in units(names, seeds):
        if time.monotonic() > end:
            return
        stages = experiment_stages.plan(experiment, seed, changes)
        with experiment_stages.claimed(bench.root / "locks" / f"{experiment.name}-{seed}") as ours:
            if not ours or known(results, experiment, seed, stages):
                continue
            started = time.monotonic()
            write(results, experiment, seed, measure(bench, experiment, stages))
            print(f"{experiment.name} {seed}: {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(ablations.BY_NAME), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which nothing is begun")
    parser.add_argument("--short", action="store_true", help="the form for tests")
    parser.add_argument("--dir", type=Path, help="where stages are kept")
    given = parser.parse_args()
    parent_death.die_with_parent()
    root = given.dir or HERE.parent / "runs" / ("experiments-short" if given.short else "experiments")
    results, page = (root / "results", root / "results.md") if given.short else (RESULTS, PAGE)
    names = given.only or (SHORT_ONLY if given.short else tuple(ablations.BY_NAME))
    seeds, changes = (1, SHORT) if given.short else (given.seeds, {})
    others = _others(given.jobs - 1)
    bench = Bench(root)
    try:
        work(bench, results, names, seeds, changes, time.monotonic() + 60 * given.minutes)
        failed = [each for each in others if each.wait()]
    finally:
        bench.close()
    left = [
        f"{experiment.name} {seed}"
        for experiment, seed in units(names, seeds)
        if not known(results, experiment, seed, experiment_stages.plan(experiment, seed, changes))
    ]
    if not os.environ.get(HELPER):
        experiment_page.write(results, page)
        print(f"experiments: {page}" + (f"; {len(left)} seeds of experiments are left" if left else "; complete"))
    return 1 if failed else INCOMPLETE if left and not os.environ.get(HELPER) else 0


HELPER = "GOG_EXPERIMENTS_HELPER"
"""Environment variable of a process that helps another one."""


def _others(count: int) -> list[subprocess.Popen[bytes]]:
    """Further processes with the same arguments."""
    arguments = [*sys.argv, "--jobs", "1"]
    environment = {**os.environ, HELPER: "1", parent_death.PARENT: str(os.getpid())}
    return [subprocess.Popen([sys.executable, *arguments], env=environment) for _ in range(count)]


if __name__ == "__main__":
    sys.exit(main())
