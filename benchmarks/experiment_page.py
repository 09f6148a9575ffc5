"""Writes the page of results, with its plots, from the files of the experiments. What is missing is said to be missing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ablations
import experiment_claims as claims
import experiment_plots as plots
from experiment_claims import Comparison, Found, Outcome, Side

from gog import significance

POLICIES: Mapping[Side, str] = {
    ("main", "direct"): "direct (SFT weights)",
    ("main", "whole-image"): "whole image (SFT weights)",
    ("main", "first-candidate"): "best-scored candidate (SFT weights)",
    ("main", "prompted"): "prompted (untrained base)",
    ("main", "full-search"): "search workflow (untrained base)",
    ("no-gaze", "sft"): "SFT without gaze",
    ("no-gaze", "grpo"): "GRPO without gaze",
    ("first-candidate", "grpo"): "GRPO, best-scored candidate",
    ("mmsearch-r1", "grpo"): "GRPO as MMSearch-R1",
    ("main", "sft"): "SFT",
    ("main", "grpo"): "GRPO",
}
"""Rows of the table of policies."""
LEARNED = {name: name for name in ("main", "no-gaze", "level-1", "level-2", "first-candidate", "mmsearch-r1")}
LOSSES = {"main": "grpo"} | ablations.LOSSES
"""Experiments of the two plots of rewards, and their labels. The loss of `main` is that of the base manifest."""
HEAD = """# Results

What the method does in the embedded world in its hard form, measured by `make experiments`. This page is generated from
the files of experiments below `benchmarks/results`; `benchmarks/ablations.py` lists the experiments, and prints the manifest of each. The
base is `examples/experiments.yaml`.

**What these figures are.** A policy of 0.6 million parameters in a painted world, whose teacher makes a deliberate mistake in half of
its demonstrations. They test whether the parts of the method do what is claimed of them; they do not repeat the paper's
experiments, and say nothing about its benchmarks or about full-size models.

**How they are read.** Both policies of a comparison answer the same held-out questions about entities that never occur in
training. Seeds are a sample of all trainings and questions one of all questions: intervals and p-values are Student's, with the
variance of both, so that few seeds that disagree show little. The p-value is corrected for all comparisons of its part of this
page: claims, open questions, ablations (Holm). *supported* and *refuted*, of an open question *higher* and *lower*: the
corrected p-value is below 0.05; *undecided*: it is not, and true differences below the figure in "shows" are missed more often
than one time in five. *preliminary*: fewer than {seeds} seeds, or fewer than {n:,} questions in each.
"""


def read(folder: Path) -> dict[str, Any]:
    """The documents of all experiments that have a file, in the order of the list."""
    paths = {name: folder / f"{name}.json" for name in ablations.BY_NAME}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def write(folder: Path, page: Path) -> None:
    """Writes the page and its plots beside it.

    Args:
        folder: of the results.
        page: the file; its plots have its name with an ending.
    """
    found = read(folder)
    made = claims.outcomes(found)
    drawings = {
        "claims": plots.forest(list(made.values())),
        "rewards": plots.curves(found, LEARNED),
        "losses": plots.curves(found, LOSSES),
    }
    for name, drawn in drawings.items():
        (page.parent / f"{page.stem}-{name}.svg").write_text(drawn)
    page.write_text(text(found, made, page.stem))


def text(found: Found, made: Mapping[Comparison, Outcome], stem: str) -> str:
    """The page. stem: first part of the names of its plots."""
    parts = [HEAD.format(seeds=claims.ENOUGH_SEEDS, n=claims.ENOUGH_QUESTIONS), _provenance(found), _summary(made)]
    parts.append(f"![differences with their intervals]({stem}-claims.svg)\n")
    parts += ["## Policies\n", policies(found), "## The paper's claims\n"]
    for title, section in claims.CLAIMS.items():
        parts += [f"### {title}\n", table(section, made, paper=True)]
        if title == "Hard questions":
            parts.append(pools(found))
    parts += ["### Behaviour\n", behaviour(found), "## Open questions\n"]
    for title, section in claims.QUESTIONS.items():
        parts += [f"### {title}\n", table(section, made)]
        if title == "Failure rules":
            parts.append(rules(found))
    parts += ["### Cost of a correct answer\n", cost(found), "## Ablations\n"]
    parts += ["Each against the base manifest.\n", table(claims.ABLATIONS, made)]
    parts += ["## Learning\n", _over_seeds(found, LEARNED), f"![mean reward of each step]({stem}-rewards.svg)\n"]
    parts += ["### Losses\n", _over_seeds(found, LOSSES), f"![mean reward of each step, by loss]({stem}-losses.svg)\n"]
    return "\n".join(parts)


def _over_seeds(found: Found, names: Iterable[str]) -> str:
    seeds = plots.common_seeds(found, list(names))
    return (
        f"Mean reward of the episodes of a step over seeds {', '.join(seeds)}, smoothed over five steps.\n"
        if seeds
        else ""
    )


def _provenance(found: Found) -> str:
    if not found:
        return "Nothing has been measured yet.\n"
    commits = sorted({each["commit"] for document in found.values() for each in document["seeds"].values()})
    missing = [name for name in ablations.BY_NAME if name not in found]
    cpu = _cpu_hours(found)
    lines = [f"Measured: {len(found)} of {len(ablations.BY_NAME)} experiments, at {', '.join(commits)}"]
    lines.append(f", {cpu:.1f} hours of processor time.\n" if cpu else ".\n")
    if missing:
        lines.append(f"\nNot measured yet: {', '.join(missing)}.\n")
    return "".join(lines)


def _cpu_hours(found: Found) -> float:
    """Of all stages, each counted once."""
    stages = {
        each["keys"][kind]: used.get("cpu_seconds", 0.0)
        for document in found.values()
        for each in document["seeds"].values()
        for kind, used in each["cost"].items()
    }
    return sum(stages.values()) / 3600


def _summary(made: Mapping[Comparison, Outcome]) -> str:
    lines = ["| claim | verdict |", "|---|---|"]
    for title, section in claims.CLAIMS.items():
        words = [made[each].verdict if each in made else "not measured" for each in section]
        counted = ", ".join(f"{words.count(word)} × {word}" for word in dict.fromkeys(words))
        lines.append(f"| {title} | {counted} |")
    return "\n".join(lines) + "\n"


def table(section: Iterable[Comparison], made: Mapping[Comparison, Outcome], *, paper: bool = False) -> str:
    """One line for each comparison. paper: with the paper's figure."""
    head = [
        "",
        "difference, points",
        "95 % interval",
        "p, Holm",
        "shows",
        "seeds × n",
        *(["paper"] if paper else []),
        "verdict",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for each in section:
        cells = _cells(made[each]) if each in made else ["not measured", "", "", "", ""]
        verdict = made[each].verdict if each in made else ""
        if not paper:  # nothing is claimed of the difference
            verdict = verdict.replace("supported", "higher").replace("refuted", "lower")
        lines.append("| " + " | ".join([each.text, *cells, *([each.paper] if paper else []), verdict]) + " |")
    return "\n".join(lines) + "\n"


def pools(found: Found) -> str:
    """Questions that GRPO on some levels draws from, because their number differs with their difficulty."""
    lines = [
        "A level differs in its number of questions, too, so a difference between levels may be one between few questions that "
        "are repeated and many that are not:\n",
        "| experiment | questions, fewest to most of a seed | times that GRPO plays each, on average |",
        "|---|---|---|",
    ]
    for name, document in found.items():
        played = ablations.documents(ablations.BY_NAME[name], 0)[0]["spec"]["stages"]["grpo"]
        levels = played.get("levels", ["1", "2"])
        sizes = [
            sum(each["levels"].get(level, 0) for level in levels)
            for each in document["seeds"].values()
            if each.get("levels")
        ]
        if sizes and (name in ("main", "level-1", "level-2", "levels-all") or name.startswith("pass-rate")):
            draws = played["steps"] * played.get("questionsPerStep", 32) * len(sizes) / sum(sizes)
            lines.append(f"| {name} | {min(sizes):,} to {max(sizes):,} | {draws:.1f} |")
    return "\n".join(lines) + "\n"


def rules(found: Found) -> str:
    """What each failure rule excludes in GRPO, and the accuracy of its policy, by rate of failures."""
    lines = [
        "Evaluated with healthy tools. Accuracy: mean, lowest and highest seed. Excluded: share of the trajectories of GRPO that its rule "
        "leaves out of the loss.\n",
        "| rule | excluded, 10 % failures | accuracy | excluded, 3 % failures | accuracy |",
        "|---|---|---|---|---|",
    ]
    for name in ("rule-exclude", *claims.RULES):
        cells = [cell for each in (name, f"{name}-at-3") for cell in _rule_cells(found, each)]
        lines.append(f"| {' | '.join([claims.rule_words(name), *cells])} |")
    return "\n".join(lines) + "\n"


def _rule_cells(found: Found, name: str) -> list[str]:
    seeds = list(found[name]["seeds"].values()) if name in found else []
    if not seeds:
        return ["not measured", ""]
    shares = [share for each in seeds for share in each["steps"]["excluded_share"] if share is not None]
    values = [row["accuracy"] for row in claims.rows(found, (name, "grpo"))]
    mean, low, high = (100 * each for each in (sum(values) / len(values), min(values), max(values)))
    return [f"{100 * sum(shares) / len(shares):.1f} %", f"{mean:.1f} % ({low:.1f}, {high:.1f})"]


def _cells(outcome: Outcome) -> list[str]:
    found = outcome.found
    return [
        f"{100 * found.mean:+z.1f}",
        f"{100 * found.low:+z.1f} to {100 * found.high:+z.1f}",
        f"{outcome.corrected:.3f}" if outcome.corrected >= 0.001 else "< 0.001",
        f"{100 * found.detectable:.1f}",
        f"{found.seeds} × {found.n // found.seeds:,}",
    ]


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    values = [row[name] for row in rows if row.get(name) is not None]
    return sum(values) / len(values) if values else math.nan


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def policies(found: Found) -> str:
    """Accuracy of each policy, with its interval over seeds."""
    lines = [
        "| policy | accuracy | 95 % over seeds | lowest, highest seed | two-step questions |",
        "|---|---|---|---|---|",
    ]
    for side, name in POLICIES.items():
        rows = claims.rows(found, side)
        if not rows:
            continue
        values = [row["accuracy"] for row in rows]
        spread = significance.spread(values)
        interval = "–" if len(values) == 1 else f"{100 * spread.low:.1f} to {100 * spread.high:.1f}"
        chain = [row["by_kind"]["chain"] for row in rows if "chain" in row["by_kind"]]
        lines.append(
            f"| {name} | {100 * spread.mean:.1f} % | {interval} | {100 * min(values):.1f}, {100 * max(values):.1f} | "
            f"{_number(100 * _mean(chain, 'accuracy'), '.1f')} % |"
        )
    return "\n".join(lines) + "\n"


FIGURES: Mapping[str, tuple[Callable[[Mapping[str, Any]], float | None], str]] = {
    "no search": (lambda row: row["behaviour"]["none"], "9.0 % to < 3 %"),
    "one kind of search": (lambda row: row["behaviour"]["single"], "62.3 % after SFT"),
    "mixed search": (lambda row: row["behaviour"]["mixed"], "20–29 % to 74–77 %"),
    "first selection right": (lambda row: row["choice_accuracy"], "42.1 to 48.9 %, 46.7 to 51.3 %"),
    "gazes right": (lambda row: row["gaze_accuracy"], "59 to 75 %"),
    "looks again after a wrong gaze": (lambda row: row["reflection_ratio"], "30 to 70 %"),
}


def behaviour(found: Found) -> str:
    """How SFT and GRPO policies search, and the change with its interval over seeds."""
    before, after = claims.rows(found, ("main", "sft")), claims.rows(found, ("main", "grpo"))
    if not before or not after:
        return "Not measured yet.\n"
    lines = ["| share | SFT | GRPO | change, 95 % over seeds | paper |", "|---|---|---|---|---|"]
    for name, (read_figure, paper) in FIGURES.items():
        pairs = [(read_figure(x), read_figure(y)) for x, y in zip(before, after, strict=True)]
        known = [(x, y) for x, y in pairs if x is not None and y is not None]
        if not known:
            lines.append(f"| {name} | – | – | none occurred | {paper} |")
            continue
        first, last = (sum(pair[side] for pair in known) / len(known) for side in (0, 1))
        spread = significance.spread([y - x for x, y in known])
        interval = "" if spread.n == 1 else f" ({100 * spread.low:+z.1f} to {100 * spread.high:+z.1f})"
        lines.append(
            f"| {name} | {100 * first:.1f} % | {100 * last:.1f} % | {100 * spread.mean:+z.1f}{interval} | {paper} |"
        )
    return "\n".join(lines) + "\n"


def cost(found: Found) -> str:
    """Calls, tokens and time per question and per correct answer."""
    lines = [
        "Tools of the world are free and answer in milliseconds, so calls are what a vendor would charge; latencies are those of "
        "episodes played together on the machine of the measurement.\n",
        "| policy | calls per question | calls per correct answer | tokens per question | median s | cost-aware score |",
        "|---|---|---|---|---|---|",
    ]
    for side, name in POLICIES.items():
        rows = claims.rows(found, side)
        if rows:
            accuracy, calls = _mean(rows, "accuracy"), _mean(rows, "tool_calls_mean")
            each = calls / accuracy if accuracy else math.nan
            lines.append(
                f"| {name} | {calls:.2f} | {_number(each, '.2f')} | {_mean(rows, 'tokens_mean'):.1f} | "
                f"{_mean(rows, 'latency_p50_s'):.2f} | {_mean(rows, 'cost_aware_score'):.1f} |"
            )
    return "\n".join(lines) + "\n"
