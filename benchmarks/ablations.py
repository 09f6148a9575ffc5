"""Every experiment as a manifest: how each differs from examples/experiments.yaml. The one list of them.

    python benchmarks/ablations.py                       # lists them
    python benchmarks/ablations.py no-gaze [--seed 1]    # prints the manifest, ready for `gog validate` and `gog run`

An experiment whose tools differ in training only, or at test only, has two manifests: of the stages up to GRPO, and of the
evaluation. `since` is the first stage to which the differences apply; the stages before it are those of the base manifest,
so that policies are compared that start from the same SFT policy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from gog.errors import UserError
from gog.spec.base import ToolFailures
from gog_operator.api import overrides

BASE = Path(__file__).parent.parent / "examples" / "experiments.yaml"
TOOLS = ("grounding", "imageSearch", "textSearch")
PLAYED = ("curate", "stratify", "grpo", "evaluate")
"""Stages in which episodes are played, so that all of them have to gaze alike."""
AT_ONCE = ["429", "5xx", "malformed", "empty"]
"""Kinds of failure that are known at once. A timeout is the same observation to the policy, and costs time only."""
LOSSES = {
    f"loss-{loss.replace('_', '-')}": loss
    for loss in ("dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_plus_plus")
}
"""Losses that are compared with that of the base manifest, by experiment."""


@dataclass(frozen=True)
class Experiment:
    """One variant of the base manifest."""

    name: str
    """Name of its run and of its result."""
    about: str
    """What it varies."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Values by dotted path under spec, of all stages from `since` on."""
    at_test: Mapping[str, Any] = field(default_factory=dict)
    """Further values, of the evaluation only."""
    since: str = "curate"
    """First stage to which `set` applies."""
    policies: tuple[str, ...] = ("grpo",)
    """Policies that answer the held-out questions."""


COMMON = 0.1
"""Share of calls that fail in the experiments of failure rules whose name has no rate. Without failures all rules are one."""


def failing(rate: float, tools: tuple[str, ...] = TOOLS, **more: Any) -> dict[str, Any]:
    """Values that make tools fail. rate: share of their calls; more: further fields of `failures`."""
    return {f"endpoints.{tool}.failures": {"rate": rate, "kinds": AT_ONCE, **more} for tool in tools}


def _gaze(how: str) -> dict[str, Any]:
    return {f"stages.{stage}.gaze": how for stage in PLAYED}


def _rule(name: str, rate: float, **more: Any) -> Experiment:
    values = {**failing(rate), "stages.grpo.toolFailures": name, "stages.grpo.maxExcludedShare": 1.0, **more}
    ending = f"{'-corrected' if more else ''}{'' if rate == COMMON else f'-at-{round(100 * rate)}'}"
    correction = " with the survivor correction" if more else ""
    return Experiment(
        f"rule-{name}{ending}",
        f"failure rule {name}{correction}; {rate:.0%} of calls fail in GRPO, none at test",
        values,
        at_test=failing(0.0),
        since="grpo",
    )


def experiments() -> Iterator[Experiment]:
    """All of them."""
    for part in (_gaze_and_levels, _failures, _grounding, _pass_rates, _training):
        yield from part()


def _gaze_and_levels() -> Iterator[Experiment]:
    everything = ("direct", "whole-image", "first-candidate", "prompted", "full-search", "sft", "grpo")
    yield Experiment("main", "the base manifest: selective gaze, levels 1 and 2", policies=everything)
    yield Experiment(
        "no-gaze",
        "no grounding in prompt, tools and demonstrations: image search takes the whole image",
        _gaze("off"),
        policies=("sft", "grpo"),
    )
    yield Experiment("level-2", "GRPO on level 2 only, as the paper trains", {"stages.grpo.levels": ["2"]})
    yield Experiment("level-1", "GRPO on level 1 only", {"stages.grpo.levels": ["1"]})
    yield Experiment(
        "first-candidate",
        "an expression searches the best-scored candidate unseen, as in DeepMMSearch-R1, also in the demonstrations",
        _gaze("direct"),
        policies=("sft", "grpo"),
    )
    yield Experiment(
        "mmsearch-r1",
        "as MMSearch-R1: no grounding, and a right answer after a search earns 10 % less",
        {**_gaze("off"), "stages.grpo.searchPenalty": 0.1},
    )


def _failures() -> Iterator[Experiment]:
    for rate in (COMMON, 0.03):
        for name in get_args(ToolFailures):
            yield _rule(name, rate)
        yield _rule("exclude", rate, **{"stages.grpo.survivorCorrection": "inverse-probability"})
    for rate in (0.0, 0.1):
        yield Experiment(
            f"test-failures-{round(100 * rate)}",
            f"the base policy; {rate:.0%} of the tools' calls fail at test",
            at_test=failing(rate),
        )
    for rate in (0.0, 0.05, 0.1):
        yield Experiment(
            f"failures-{round(100 * rate)}",
            f"{rate:.0%} of the tools' calls fail, in GRPO and at test",
            failing(rate),
            since="grpo",
        )


def _grounding() -> Iterator[Experiment]:
    broken = failing(0.3, ("grounding",), kinds=["malformed", "empty"])  # answers that no outage is suspected behind
    yield Experiment(
        "grounding-failing-at-test", "the base policy; 30 % of the calls of grounding fail at test", at_test=broken
    )
    yield Experiment(
        "grounding-gone-at-test",
        "the base policy; grounding is refused at test",
        at_test={"stages.evaluate.gaze": "off"},
    )
    yield Experiment(
        "grounding-failing", "30 % of the calls of grounding fail, in GRPO and at test", broken, since="grpo"
    )
    yield Experiment(
        "grounding-ranked",
        "grounding whose best-scored candidate is the most probable one",
        {"endpoints.grounding.options": {"noise": 0.0}},
        policies=("first-candidate", "sft", "grpo"),
    )


def _pass_rates() -> Iterator[Experiment]:
    yield Experiment("levels-all", "GRPO on all levels, easy ones too", {"stages.grpo.levels": ["easy", "1", "2"]})
    for right in range(6):
        rate = right / 5
        yield Experiment(
            f"pass-rate-{round(100 * rate)}",
            f"GRPO on questions that the SFT policy solves {right} of 5 times only",
            {"stages.stratify.level1": [rate, rate], "stages.grpo.levels": ["1"]},
            since="stratify",
        )
    yield Experiment(
        "no-reflection",
        "four tool calls at most: none is left for a second look",
        {f"stages.{stage}.maxCalls": 4 for stage in ("stratify", "grpo", "evaluate")},
        since="stratify",
        policies=("sft", "grpo"),
    )


def _training() -> Iterator[Experiment]:
    for weight in (0.0, 0.3):
        yield Experiment(
            f"lambda-{round(100 * weight)}", f"λ = {weight:g} in place of 0.1", {"stages.grpo.formatWeight": weight}
        )
    yield Experiment("group-4", "groups of 4 in place of 5", {"stages.grpo.groupSize": 4})
    for name, loss in LOSSES.items():
        yield Experiment(name, f"loss {loss}", {"stages.grpo.loss": loss})
    yield Experiment("cache-off", "no answer of a tool is kept", {"tools.cache.mode": "off"}, since="grpo")


BY_NAME = {each.name: each for each in experiments()}


def document(
    experiment: Experiment, seed: int, *, test: bool = False, changes: Mapping[str, Any] | None = None
) -> dict:
    """The manifest of an experiment.

    Args:
        experiment: which.
        seed: of its stages.
        test: of the evaluation, where that differs.
        changes: further values by dotted path, such as smaller sizes.
    """
    found = yaml.safe_load(BASE.read_text())
    own = {"stages.evaluate.policies": list(experiment.policies), "seed": seed, **experiment.set}
    for path, value in {**own, **(experiment.at_test if test else {}), **(changes or {})}.items():
        found = overrides.apply(found, path, value)
    found["metadata"]["name"] = f"{experiment.name}{'-at-test' if test else ''}-{seed}"
    return found


def documents(experiment: Experiment, seed: int) -> list[dict]:
    """One manifest, or two where the evaluation has tools of its own."""
    return [document(experiment, seed, test=test) for test in ((False, True) if experiment.at_test else (False,))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", help="experiment whose manifest is printed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.name is None:
        print("\n".join(f"{name:26} {each.about}" for name, each in BY_NAME.items()))
        return 0
    if given.name not in BY_NAME:
        error = UserError("no such experiment", where=given.name, remedy=f"known: {', '.join(BY_NAME)}")
        print(error, file=sys.stderr)
        return 2
    print(yaml.safe_dump_all(documents(BY_NAME[given.name], given.seed), sort_keys=False), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
