"""What the evaluations of a run answered, question by question. The only part of the comparison that reads files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gog import served_models, stats, store
from gog.errors import UserError
from gog_console import resources
from gog_console.report import gather
from gog_console.report.model import arm_of, kind_of

Key = tuple[str, str]
"""Policy, with its arm if it has one, and benchmark."""


@dataclass(frozen=True)
class Run:
    """One run with its evaluations."""

    name: str
    """Its name."""
    seed: int
    """Its seed."""
    settings: str
    """Its spec without seed and store, as canonical JSON: equal for seeds of one setting."""
    accuracy: Mapping[Key, Mapping[str, float]]
    """Mean verdict by question id, 0 to 1, of the answers with a verdict."""
    rows: Mapping[Key, Mapping[str, Any]]
    """Row of the run's own table."""
    datasets: Mapping[Key, frozenset[str]] = field(default_factory=dict)
    """Digests of the splits that were evaluated; none where a checkpoint has none."""
    served_by: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Answers of the judge and the endpoint by the model that they name, of all evaluations."""


def read(folder: Path) -> Run:
    """Reads a run folder.

    Raises:
        UserError: it is no run, its evaluation has not been committed, or its answers cannot be read.
    """
    if not folder.is_dir():
        raise UserError("no such run", where=str(folder), remedy="`gog status` lists the runs")
    found, _ = resources.read(folder / "objects")
    kept = gather.store_of(folder, found)
    verdicts: dict[Key, dict[str, list[float]]] = {}
    rows: dict[Key, Mapping[str, Any]] = {}
    served: dict[str, dict[str, int]] = {}
    datasets: dict[Key, frozenset[str]] = {}
    for stage in sorted(each for each in kept.stages() if kind_of(each) == "evaluate"):
        manifest = kept.latest(stage)
        if manifest is not None:
            for name, counts in _take(kept, manifest, arm_of(stage, "evaluate"), verdicts, rows).items():
                served[name] = served_models.total([served.get(name, {}), counts])
            digests = frozenset(str(manifest.meta.get("dataset") or "").split())
            datasets |= {key: digests for key in verdicts if key not in datasets}
    accuracy = {key: {name: stats.mean(own) for name, own in each.items()} for key, each in verdicts.items()}
    if not accuracy:
        raise UserError("no evaluation is committed", where=str(folder), remedy="wait until the run is complete")
    spec = resources.spec_of(resources.root_of(found))
    same = {name: value for name, value in spec.items() if name not in ("seed", "store")}
    return Run(
        folder.name, int(spec.get("seed") or 0), json.dumps(same, sort_keys=True), accuracy, rows, datasets, served
    )


def _take(
    kept: store.Store,
    manifest: store.Manifest,
    arm: str,
    verdicts: dict[Key, dict[str, list[float]]],
    rows: dict[Key, Mapping[str, Any]],
) -> dict[str, dict[str, int]]:
    """Adds what an evaluation's checkpoint holds. Returns what the judge and the endpoint answered as."""
    try:
        results = json.loads(kept.open(manifest, "results.json").read_bytes())
        only = {row["policy"]: row["benchmark"] for row in results["rows"]}
        for row in results["rows"]:
            rows[_key(row["policy"], arm, row["benchmark"])] = row
        for line in kept.open(manifest, "answers.jsonl").read_text(encoding="utf-8").splitlines():
            each = json.loads(line)
            if each["accuracy"] is not None:
                benchmark = each.get("benchmark", only[each["policy"]])
                key = _key(each["policy"], arm, benchmark)
                verdicts.setdefault(key, {}).setdefault(each["question_id"], []).append(float(each["accuracy"]))
        return gather.served_by(results)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"answers of {manifest.ref} cannot be read: {type(error).__name__}: {error}",
            where=kept.where,
            remedy="`gog report` says what else is damaged; evaluate again by removing its checkpoint",
        ) from None


def _key(policy: str, arm: str, benchmark: str) -> Key:
    return (f"{policy} · {arm}" if arm else policy, benchmark)


def same_questions(one: Run, a: Key, other: Run, b: Key) -> bool:
    """Whether two rows may be of the same questions: equal ids of two generated worlds are not."""
    left, right = one.datasets.get(a), other.datasets.get(b)
    return not left or not right or bool(left & right)


def others(runs: Sequence[Run]) -> list[str]:
    """What to say of runs whose rows are of other questions than those of the first."""
    found = []
    for run in runs[1:]:
        apart = [key for key in run.accuracy if key in runs[0].accuracy and not same_questions(run, key, runs[0], key)]
        benchmarks = ", ".join(dict.fromkeys(benchmark for _, benchmark in apart))
        if benchmarks:
            found.append(f"{run.name} and {runs[0].name} answered other questions of {benchmarks}: not compared")
    return found


def changes(runs: Sequence[Run]) -> list[str]:
    """What to say of judges and endpoints that answered as several models, within a run or from run to run."""
    found = [f"{run.name}: {text}" for run in runs for text in _within(run) if text]
    judges = {run.name: set(run.served_by.get("judge", {})) for run in runs if run.served_by.get("judge")}
    if len({frozenset(names) for names in judges.values()}) > 1:
        each = "; ".join(f"{name} by {', '.join(sorted(models))}" for name, models in judges.items())
        found.append(f"different judges, so differences between these runs may be theirs: {each}")
    return found


def _within(run: Run) -> list[str]:
    return [served_models.change(name, counts) for name, counts in run.served_by.items()]
