"""Measures what each rule for tool failures learns in the embedded world, at several rates of failures.

    python benchmarks/failure_rules.py [--seeds 3] [--rates 0 0.03 0.1] [--rules exclude mask …] [--steps 40]

For each seed one run makes demonstrations, the SFT policy and the levels with healthy tools. From these each rule trains by GRPO
with tools of which a share of the calls fails without a second try, and answers the held-out questions with healthy tools, so
accuracies differ by what was learned only. Steps are fewer and smaller than the example's, and rules are compared with
`exclude` of the same seed and rate, question by question. Without failures every rule is the same run, which is made once.
`exclude+ipw` is `exclude` with `survivorCorrection: inverse-probability`.

Figures are written after each training, and complete ones are not made again: interrupt it and call it again, with more seeds
if wished. `--limit N` ends it after N trainings. maxExcludedShare is 1, because `drop` loses most of a step at 10 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import outcome
import yaml
from rollout import servers

from gog import stats, store
from gog.spec.base import ToolFailures

HERE = Path(__file__).parent
RULES = (*get_args(ToolFailures), "exclude+ipw")
CONFIGS = HERE.parent / "recipes" / "gog_recipes" / "configs" / "tiny"
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""97.5 % quantile of Student's t for the mean over so many seeds."""


@dataclass(frozen=True)
class Cell:
    """One training."""

    seed: int
    """Of all stages."""
    rate: float
    """Share of the tools' calls that fail."""
    rule: str
    """One of RULES."""

    @property
    def name(self) -> str:
        """In folders and in the results."""
        return f"{self.seed}-{self.rate:g}-{self.rule}"


@dataclass(frozen=True)
class Form:
    """Size of a training."""

    steps: int
    """Optimizer steps of GRPO."""
    questions: int
    """Questions per step."""
    folder: Path
    """Where runs are kept."""
    base: Sequence[str] = ()
    """Settings of the runs that trainings start from, as `key=value`."""

    @property
    def cells(self) -> Path:
        """Where trainings of this size are kept."""
        return self.folder / f"{self.steps}x{self.questions}"


def cells(seeds: int, rates: Sequence[float], rules: Sequence[str]) -> Iterator[Cell]:
    """The trainings, first those that differ most."""
    for seed in range(seeds):
        for rate in sorted(rates, reverse=True):
            for rule in rules if rate else ("exclude",):
                yield Cell(seed, rate, rule)


def prepared(form: Form, seed: int) -> Path:
    """The folder of a run with data, SFT policy and levels."""
    name = f"base-{seed}"
    chosen = [f"metadata.name={name}", f"seed={seed}", "stages.skip=[grpo, evaluate]", *form.base]
    chosen += [f"endpoints.{tool}.failures.rate=0" for tool in ("grounding", "imageSearch", "textSearch")]
    command = [str(Path(sys.executable).with_name("gog")), "run", str(HERE.parent / "examples" / "world.yaml")]
    command += ["--dir", str(form.folder), *(word for each in chosen for word in ("--set", each))]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise SystemExit(f"the stages before GRPO of seed {seed} failed; see `gog logs {name} --dir {form.folder}`")
    return form.folder / name


def play(kind: str, cell: Cell, form: Form, base: Path, endpoints: Mapping[str, str], **settings: Any) -> None:
    """Makes one stage of a training; returns at once if it is complete."""
    work = form.cells / cell.name / kind
    work.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_load((CONFIGS / f"{kind}.yaml").read_text()) | {
        "data": {"path": str((base / "data").absolute())},
        "store": {"uri": f"file://{(base / 'store').absolute()}"},
        "workdir": str(work.absolute()),
        "endpoints": dict(endpoints),
        "backends": {tool: tool for tool in endpoints},  # not their ports, which differ when this is called again
        "seed": cell.seed,
        "stage": f"{kind}-{cell.name.replace('.', '').replace('+', '-')}",
        "tools": {"crop_side": 28, "attempts": 1, "deadline_seconds": 0.5},
    }
    (work / "config.yaml").write_text(yaml.safe_dump(values | settings))
    command = [sys.executable, "-W", "ignore", "-m", f"gog_recipes.{kind}", "--config", str(work / "config.yaml")]
    with (work / "log").open("a") as log:
        if subprocess.run(command, stdout=log, stderr=log).returncode:
            raise SystemExit(f"{kind} of {cell.name} failed; see {work / 'log'}")


def train(cell: Cell, form: Form, base: Path) -> dict[str, Any]:
    """Trains and evaluates one policy. Returns its figures."""
    rule, _, corrects = cell.rule.partition("+")
    given = {
        "steps": form.steps, "questions_per_step": form.questions, "max_excluded_share": 1.0, "keep_trajectories": 0,
        "tool_failures": rule, "survivor_correction": "inverse-probability" if corrects else "none",
    }  # fmt: skip
    with servers(base / "data", cell.rate) as endpoints:
        play("grpo", cell, form, base, endpoints, **given)
    with servers(base / "data", 0.0) as endpoints:
        inputs = {"sft": "sft", "grpo": f"grpo-{cell.name.replace('.', '').replace('+', '-')}"}
        play("evaluate", cell, form, base, endpoints, policies=["grpo"], inputs=inputs, keep_trajectories=0)
    steps = [json.loads(line) for line in (form.cells / cell.name / "grpo" / "metrics.jsonl").open()]
    opened = store.open_store(f"file://{(base / 'store').absolute()}")
    evaluated = opened.resolve(f"evaluate-{cell.name.replace('.', '').replace('+', '-')}")
    (row,) = json.loads(opened.open(evaluated, "results.json").read_text())["rows"]
    answers = [json.loads(line) for line in opened.open(evaluated, "answers.jsonl").read_text().splitlines()]
    played = sum(step["trajectories"] for step in steps)
    return {
        "seed": cell.seed, "rate": cell.rate, "rule": cell.rule, "accuracy": row["accuracy"], "ci95": row["ci95"], "n": row["n"],
        "tool_calls_mean": row["tool_calls_mean"], "excluded_share": sum(step["excluded"] for step in steps) / played,
        "treated_share": sum(step["treated"] for step in steps) / played,
        "learned_share": sum(step["learned"] for step in steps) / played,
        "rewards": [step["reward_mean"] for step in steps], "steps": form.steps, "questions_per_step": form.questions,
        "right": [answer["question_id"] for answer in answers if answer["accuracy"] == 1.0],
        "decided": [answer["question_id"] for answer in answers if answer["accuracy"] is not None], "commit": commit(),
    }  # fmt: skip


def commit() -> str:
    """The commit that is measured; `+` where files differ from it."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=12"], cwd=HERE, capture_output=True, text=True
    )
    return found.stdout.strip()


def difference(found: Mapping[str, dict[str, Any]], cell: Cell) -> tuple[float, float, float] | None:
    """Accuracy minus that of exclude, of the same seed and rate, with a paired 95 % interval."""
    own, other = found.get(cell.name), found.get(Cell(cell.seed, cell.rate, "exclude").name)
    if own is None or other is None or cell.rule == "exclude":
        return None
    both = sorted(set(own["decided"]) & set(other["decided"]))
    pairs = [(float(name in own["right"]), float(name in other["right"])) for name in both]
    return stats.paired_bootstrap(*zip(*pairs, strict=True), resamples=2_000, seed=0)


def summary(found: Mapping[str, dict[str, Any]], rates: Sequence[float], rules: Sequence[str]) -> list[dict[str, Any]]:
    """Mean accuracy over seeds of each rule at each rate, with a 95 % interval where there are several seeds."""
    rows = []
    for rate in rates:
        for rule in rules if rate else ("exclude",):
            own = [each for each in found.values() if (each["rate"], each["rule"]) == (rate, rule)]
            if not own:
                continue
            values = [each["accuracy"] for each in own]
            mean, count = stats.mean(values), len(values)
            spread = (sum((value - mean) ** 2 for value in values) / (count - 1)) ** 0.5 if count > 1 else 0.0
            half = T95[count] * spread / count**0.5 if count in T95 else None
            rows.append(
                {
                    "rate": rate, "rule": rule, "seeds": sorted(each["seed"] for each in own), "accuracy": round(mean, 4),
                    "ci95": None if half is None else [round(mean - half, 4), round(mean + half, 4)],
                    "excluded_share": round(stats.mean([each["excluded_share"] for each in own]), 4),
                    "tool_calls_mean": round(stats.mean([each["tool_calls_mean"] for each in own]), 3),
                }
            )  # fmt: skip
    return rows


def table(found: Mapping[str, dict[str, Any]]) -> str:
    """One line per training."""
    lines = [
        f"{'rate':>5} {'rule':<12} {'seed':>4} {'accuracy':>8}  95 % interval   against exclude, paired  excluded calls"
    ]
    for each in sorted(found.values(), key=lambda each: (each["rate"], RULES.index(each["rule"]), each["seed"])):
        low, high = each["ci95"]
        paired = difference(found, Cell(each["seed"], each["rate"], each["rule"]))
        beside = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*paired) if paired else ""
        lines.append(
            f"{each['rate']:>5g} {each['rule']:<12} {each['seed']:>4} {each['accuracy']:>8.3f}  {low:.3f} to {high:.3f}  "
            f"{beside:<24} {each['excluded_share']:>8.3f} {each['tool_calls_mean']:>5.2f}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=(0.0, 0.03, 0.1))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--limit", type=int, default=10**6)
    parser.add_argument("--set", action="append", default=[], help="a setting of the runs that trainings start from")
    parser.add_argument("--dir", type=Path, default=HERE.parent / "runs" / "failure-rules")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    form = Form(given.steps, given.questions, given.dir, given.set)
    kept = form.cells / "cells.json"
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    wanted = list(cells(given.seeds, given.rates, given.rules))
    left = [cell for cell in wanted if cell.name not in found]
    for cell in left[: given.limit]:
        found[cell.name] = train(cell, form, prepared(form, cell.seed))
        kept.write_text(json.dumps(found))
        print(table(found), flush=True)
    bare = [{key: value for key, value in each.items() if key not in ("right", "decided")} for each in found.values()]
    for each in bare:
        each["against_exclude"] = difference(found, Cell(each["seed"], each["rate"], each["rule"]))
    goals = {f"all {len(wanted)} trainings are made": all(cell.name in found for cell in wanted)}
    return outcome.finish("failure_rules", {"summary": summary(found, given.rates, RULES), "trainings": bare}, goals)


if __name__ == "__main__":
    sys.exit(main())
