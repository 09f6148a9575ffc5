"""The table of an evaluation: rows, paired comparisons, means over benchmarks, answers. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gog import behaviour, exclusion, significance, stats
from gog.errors import ServiceDown
from gog.trajectory import Trajectory
from gog_recipes.rollout.rollout_stats import measure

Split = Mapping[str, Mapping[str, Sequence[Trajectory]]]
"""Trajectories by policy, then by benchmark, in the order of the questions."""


def by_benchmark(trajectories: Sequence[Trajectory], benchmark_of: Mapping[str, str]) -> dict[str, list[Trajectory]]:
    """Trajectories by benchmark. benchmark_of: name of the benchmark, by question id."""
    found: dict[str, list[Trajectory]] = {}
    for item in trajectories:
        found.setdefault(benchmark_of[item.question_id], []).append(item)
    return found


def rows(played: Split) -> list[dict[str, Any]]:
    """One row for each policy and benchmark."""
    return [table_row(policy, name, items) for policy, split in played.items() for name, items in split.items()]


def comparisons(played: Split, *, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Every later policy against every earlier one, by benchmark, over the questions for which both have a verdict."""
    found = []
    for first, second in itertools.combinations(played, 2):
        for benchmark in played[second]:
            before, after = verdicts(played[first].get(benchmark, ())), verdicts(played[second][benchmark])
            pairs = [(stats.mean(own), stats.mean(before[name])) for name, own in after.items() if name in before]
            if pairs:
                mean, *ends = stats.paired_bootstrap(*zip(*pairs, strict=True), resamples=resamples, seed=seed)
                about = {"a": second, "b": first, "benchmark": benchmark, "n": len(pairs)}
                found.append({**about, "difference": mean, "ci95": ends})
    return found


def means(table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over benchmarks of the policies that have a row for all of them; nothing for a single benchmark."""
    benchmarks = {row["benchmark"] for row in table}
    found = []
    for policy in dict.fromkeys(row["policy"] for row in table):
        own = [row for row in table if row["policy"] == policy]
        if len(own) == len(benchmarks) > 1:
            micro = stats.weighted_mean([row["accuracy"] for row in own], [row["n"] for row in own])
            macro = stats.mean([row["accuracy"] for row in own])
            found.append({"policy": policy, "benchmarks": len(own), "macro": macro, "micro": micro})
    return found


def answers(played: Split) -> Iterator[dict[str, Any]]:
    """One line for each policy and question."""
    for policy, split in played.items():
        for benchmark, items in split.items():
            for item in items:
                yield {
                    "policy": policy,
                    "benchmark": benchmark,
                    "question_id": item.question_id,
                    "sample": item.sample,
                    "answer": item.answer,
                    "accuracy": item.reward and item.reward.accuracy,
                    "tool_calls": item.tool_calls,
                    "tokens": item.generated,
                    "seconds": item.seconds,
                    "usd": item.usd,
                    "behaviour": behaviour.classify(item),
                    "failures": [failure.kind for failure in item.failures],
                    "stop": item.stop,
                }


def judged(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Those with a verdict."""
    return [item for item in trajectories if item.reward is not None and item.reward.accuracy is not None]


def require_verdicts(policy: str, trajectories: Sequence[Trajectory]) -> None:
    """Raises ServiceDown where no question was decided: an accuracy of nothing is not 0."""
    if not judged(trajectories):
        cause = exclusion.cause(trajectories)
        raise ServiceDown("judge", f"none of {len(trajectories)} answers of {policy} was decided: {cause.reason}")


def verdicts(trajectories: Sequence[Trajectory]) -> dict[str, list[float]]:
    """Verdicts of each question, 1 or 0, of those of its answers that have one; questions without any are left out.

    Raises:
        ValueError: a verdict is NaN or infinite.
    """
    found: dict[str, list[float]] = {}
    for item in judged(trajectories):
        assert item.reward is not None
        verdict = item.reward.accuracy or 0.0
        if not math.isfinite(verdict):
            raise ValueError(f"{item.question_id}: accuracy is not a finite number")
        found.setdefault(item.question_id, []).append(verdict)
    return found


def accuracy(trajectories: Sequence[Trajectory]) -> float:
    """Mean over questions of the share of right answers among those with a verdict; 0 without any."""
    return stats.mean([stats.mean(each) for each in verdicts(trajectories).values()])


def interval(by_question: Mapping[str, Sequence[float]], *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of an accuracy: Wilson's, or over questions (bootstrap) where a question has several answers."""
    if all(len(each) == 1 for each in by_question.values()):
        return stats.wilson(round(sum(sum(each) for each in by_question.values())), len(by_question))
    shares = [stats.mean(each) for each in by_question.values()]
    _, low, high = stats.paired_bootstrap(shares, [0.0] * len(shares), seed=seed)
    return low, high


def pass_at(by_question: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """pass@k for k = 1, 2, 4, … up to the answers of a question: the mean over the questions with as many verdicts."""
    found: dict[str, float] = {}
    k = 1
    while enough := [each for each in by_question.values() if len(each) >= k]:
        found[str(k)] = stats.mean([significance.pass_at(k, round(sum(each)), len(each)) for each in enough])
        k *= 2
    return found


def table_row(policy: str, benchmark: str, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """One row of the evaluation table.

    Args:
        policy: its name
        benchmark: its name
        trajectories: of its questions, one or several for each; at least one of them judged

    Returns:
        Figures over the judged trajectories; latencies, in seconds, are those of all episodes, played concurrently.
    """
    decided, by_question = judged(trajectories), verdicts(trajectories)
    right = sum(1 for item in decided if item.reward and item.reward.accuracy == 1.0)
    measures = measure(decided)
    seconds = [item.seconds for item in trajectories]
    kinds = sorted({item.kind for item in decided if item.kind})
    tokens = stats.mean([item.generated for item in decided])
    rounds = stats.mean(
        [sum(bool(turn.observation and turn.observation.tool) for turn in item.turns) for item in decided]
    )
    return {
        "policy": policy,
        "benchmark": benchmark,
        "n": len(by_question),
        "undecided": len(trajectories) - len(decided),
        "accuracy": accuracy(decided),
        "ci95": list(interval(by_question)),
        "pass_at": pass_at(by_question),
        "format_mean": measures.format,
        "tool_calls_mean": measures.tool_calls,
        "latency_p50_s": stats.percentile(seconds, 0.5),
        "latency_p95_s": stats.percentile(seconds, 0.95),
        "behaviour": measures.behaviour,
        "choice_accuracy": measures.choice_accuracy,
        "gaze_accuracy": _share([right for item in decided for right in behaviour.gazes(item)]),
        "reflection_ratio": _share([looked for item in decided for looked in behaviour.reflections(item)]),
        "tokens_mean": tokens,
        "cost_aware_score": _cost_aware(accuracy(decided), tokens, rounds),
        "tool_failure_ratio": measures.tool_failure_ratio,
        "page_success": _page_success(trajectories),
        "usd_per_question": sum(item.usd for item in trajectories) / len(trajectories),
        "usd_per_correct": sum(item.usd for item in trajectories) / right if right else None,
        "by_kind": {
            kind: {"n": len(verdicts(own)), "accuracy": accuracy(own)}
            for kind in kinds
            if (own := [i for i in decided if i.kind == kind])
        },
        "stops": {
            stop: count for stop in sorted({i.stop for i in decided}) if (count := sum(i.stop == stop for i in decided))
        },
    }


def _page_success(trajectories: Sequence[Trajectory]) -> float | None:
    """Share of the pages tried by text searches that were read; None where none was tried."""
    seen = [turn.observation for item in trajectories for turn in item.turns if turn.observation]
    read, failed = sum(each.pages_read for each in seen), sum(each.pages_failed for each in seen)
    return read / (read + failed) if read + failed else None


def _share(values: Sequence[bool]) -> float | None:
    """Share of true values; None without values."""
    return stats.mean(list(map(float, values))) if values else None


def _cost_aware(accuracy: float, tokens: float, rounds: float) -> float:
    """100 · accuracy² / (thousands of generated tokens + 2 · tool rounds + 1): higher is better. Source: HyperEyes."""
    return 100 * accuracy**2 / (tokens / 1000 + 2 * rounds + 1)
