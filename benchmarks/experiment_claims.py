"""What the experiments show: claims of the paper, open questions, ablations, each a paired difference with a verdict. Pure.

Every comparison is between two policies on the same held-out questions, seed by seed; seeds and questions are samples
(gog.significance). The p-values of a part of the page are corrected together (Holm): claims are tested for their own sake,
whatever is asked or ablated besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ablations

from gog import significance

Found = Mapping[str, Mapping[str, Any]]
"""Documents of results by experiment."""
Side = tuple[str, str]
"""Experiment and policy."""
ENOUGH_SEEDS, ENOUGH_QUESTIONS = 3, 1000
"""Seeds, and questions of each, below which a verdict is marked as preliminary."""


@dataclass(frozen=True)
class Comparison:
    """Two policies, and what their difference is about."""

    text: str
    """What is claimed of the first, or asked."""
    a: Side
    """Counts positive."""
    b: Side
    """What it is compared with."""
    paper: str = ""
    """The paper's figure, in points of accuracy."""


@dataclass(frozen=True)
class Outcome:
    """A comparison with what was found."""

    comparison: Comparison
    """Which."""
    found: significance.Difference
    """Difference of accuracies."""
    seeds: tuple[int, ...]
    """Seeds that both have."""
    corrected: float = 1.0
    """P-value, corrected for all comparisons of its part of the page."""

    @property
    def verdict(self) -> str:
        """supported, refuted or undecided; preliminary where seeds or questions are few."""
        sign = (
            "undecided" if self.corrected >= significance.LEVEL else "supported" if self.found.mean > 0 else "refuted"
        )
        few = len(self.seeds) < ENOUGH_SEEDS or self.found.n < ENOUGH_QUESTIONS * len(self.seeds)
        return f"{sign} (preliminary)" if few else sign


MAIN: Side = ("main", "grpo")
CLAIMS: Mapping[str, tuple[Comparison, ...]] = {
    "Selective gaze": (
        Comparison(
            "After SFT, a policy that gazes beats one without", ("main", "sft"), ("no-gaze", "sft"), "+1.52, +1.83"
        ),
        Comparison("After RL, too", MAIN, ("no-gaze", "grpo")),
        Comparison("Choosing among candidates beats the best-scored one", MAIN, ("first-candidate", "grpo")),
    ),
    "RL after SFT": (Comparison("GRPO improves the SFT policy", MAIN, ("main", "sft"), "+9.94, +6.71"),),
    "Hard questions": (
        Comparison("Level 2 teaches more than level 1", ("level-2", "grpo"), ("level-1", "grpo"), "+2.76, +2.99"),
        Comparison("Level 2 alone teaches more than levels 1 and 2", ("level-2", "grpo"), MAIN),
    ),
    "Better than search by rule": (
        Comparison("The trained policy beats answering directly", MAIN, ("main", "direct"), "+32.91, +33.04"),
        Comparison("… searching the whole image", MAIN, ("main", "whole-image")),
        Comparison("… searching the best-scored candidate", MAIN, ("main", "first-candidate")),
        Comparison(
            "… a search workflow of the base, which answers nothing here",
            MAIN,
            ("main", "full-search"),
            "+8.86, +10.55",
        ),
        Comparison("… a policy trained as MMSearch-R1's", MAIN, ("mmsearch-r1", "grpo"), "+16.31, +19.97"),
    ),
}
"""The paper's claims. Its figures: Qwen2.5-VL-7B, Qwen3-VL-8B, means recomputed from its scores (`gog tables --paper`)."""


RULES = ("rule-fatal-clamp", "rule-mask", "rule-drop", "rule-keep", "rule-zero", "rule-exclude-corrected")
"""Experiments of failure rules that are compared with `rule-exclude`."""


def rule_words(name: str) -> str:
    """A failure rule as a manifest names it. name: of its experiment."""
    rule = name.removeprefix("rule-").removesuffix("-at-3")
    return "`exclude` with `survivorCorrection`" if rule == "exclude-corrected" else f"`{rule}`"


def _rules(ending: str, rate: str) -> tuple[Comparison, ...]:
    other = (f"rule-exclude{ending}", "grpo")
    return tuple(
        Comparison(f"{rule_words(name)} against `exclude`, {rate} failures in GRPO", (f"{name}{ending}", "grpo"), other)
        for name in RULES
    )


def _against_main(names: Iterable[str]) -> tuple[Comparison, ...]:
    return tuple(Comparison(f"{name}: {ablations.BY_NAME[name].about}", (name, "grpo"), MAIN) for name in names)


QUESTIONS: Mapping[str, tuple[Comparison, ...]] = {
    "Failures of tools": (
        Comparison("10 % failures at test, against none", ("test-failures-10", "grpo"), ("test-failures-0", "grpo")),
        Comparison("10 % failures in GRPO and at test, against none", ("failures-10", "grpo"), ("failures-0", "grpo")),
        Comparison("5 % failures in GRPO and at test, against none", ("failures-5", "grpo"), ("failures-0", "grpo")),
    ),
    "Failure rules": (*_rules("", "10 %"), *_rules("-at-3", "3 %")),
    "Failures of grounding": (
        Comparison("30 % of the calls of grounding fail at test", ("grounding-failing-at-test", "grpo"), MAIN),
        Comparison("Grounding is refused at test", ("grounding-gone-at-test", "grpo"), MAIN),
        Comparison(
            "Grounding fails in GRPO, too, against at test only",
            ("grounding-failing", "grpo"),
            ("grounding-failing-at-test", "grpo"),
        ),
        Comparison("The ranking of grounding is right", ("grounding-ranked", "grpo"), MAIN),
    ),
}
"""Questions that the paper leaves open, as differences; cost and latency are a table of their own."""
ABLATIONS = _against_main(
    (
        "levels-all",
        *(f"pass-rate-{rate}" for rate in range(0, 101, 20)),
        "no-reflection",
        "lambda-0",
        "lambda-30",
        "group-4",
        "cache-off",
        *ablations.LOSSES,
    )
)
"""Each against the base manifest."""


def parts() -> tuple[tuple[Comparison, ...], ...]:
    """Comparisons of the parts of the page: claims, questions, ablations."""
    claimed, asked = (tuple(each for section in part.values() for each in section) for part in (CLAIMS, QUESTIONS))
    return claimed, asked, ABLATIONS


def everything() -> tuple[Comparison, ...]:
    """All comparisons of the page."""
    return tuple(each for part in parts() for each in part)


def outcomes(found: Found, *, resamples: int = 10_000) -> dict[Comparison, Outcome]:
    """What was found for each comparison of which both sides were measured with a common seed."""
    return {each: outcome for part in parts() for each, outcome in _corrected(found, part, resamples).items()}


def _corrected(found: Found, part: Sequence[Comparison], resamples: int) -> dict[Comparison, Outcome]:
    made = {}
    for each in part:
        by_seed = differences(found, each)
        if by_seed:
            tested = significance.compare(list(by_seed.values()), resamples=resamples)
            made[each] = Outcome(each, tested, tuple(sorted(by_seed)))
    corrected = significance.holm([outcome.found.p for outcome in made.values()])
    return {each: replace(outcome, corrected=p) for (each, outcome), p in zip(made.items(), corrected, strict=True)}


def differences(found: Found, comparison: Comparison) -> dict[int, list[float]]:
    """a - b for each question, by seed; nan where one has no verdict."""
    left, right = (_verdicts(found, side) for side in (comparison.a, comparison.b))
    made = {}
    for seed in sorted(left.keys() & right.keys()):
        pairs = list(zip(left[seed], right[seed], strict=True))
        if not all("-" in pair for pair in pairs):
            made[seed] = [math.nan if "-" in (x, y) else float(x) - float(y) for x, y in pairs]
    return made


def _verdicts(found: Found, side: Side) -> dict[int, str]:
    """One character for each question, by seed."""
    seeds = found.get(side[0], {}).get("seeds", {})
    return {int(seed): each["verdicts"][side[1]] for seed, each in seeds.items() if side[1] in each["verdicts"]}


def rows(found: Found, side: Side) -> list[Mapping[str, Any]]:
    """The rows of a policy, one for each seed."""
    seeds = found.get(side[0], {}).get("seeds", {})
    return [each["rows"][side[1]] for each in seeds.values() if side[1] in each["rows"]]
