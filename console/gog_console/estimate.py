"""Estimated duration of a run of the embedded world with the tiny model on this machine.

Problem: the first run takes minutes, and a user wants to know how many before waiting. Decision: the cost of each stage
per unit of work was measured once on a reference machine; a probe of a quarter of a second compares this machine, as
busy as it is now, with the reference. While the run proceeds, the durations of complete stages correct the estimate.

Runs with other models or data have no estimate, because their costs are unknown before their first step.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gog import spec as settings
from gog_operator.api import sequence
from gog_operator.api.objects import GoGRun
from gog_operator.build import merge

START_SECONDS = 6.0
"""Start of a stage on the reference machine: imports, model, servers."""
UNIT_SECONDS = {"curate": 0.0007, "sft": 0.0098, "stratify": 0.0072, "grpo": 0.0107, "evaluate": 0.014}
"""Seconds per unit of work on the reference machine; `units` defines the units."""
PROBE_SECONDS = 0.0007
"""Duration of one round of the probe on the reference machine."""
ROUNDS = 50
"""Rounds of the probe; the median ignores interruptions."""
PROCESSES = 2
"""Cores that a run of the world keeps busy: the trainer, and the tools together."""


def units(stage: str, body: Mapping[str, Any], world: settings.WorldSpec) -> int:
    """Units of work of a stage: trajectories, or passes over one demonstration.

    Args:
        stage: kind of the stage.
        body: its settings, preset included.
        world: the embedded world.
    """
    match stage:
        case "curate":
            return int(body["trajectories"])
        case "sft":
            return int(body["epochs"]) * int(body["trajectories"])
        case "stratify":
            return min(int(body["questions"]), world.train) * int(body["rollouts"])
        case "grpo":
            return int(body["steps"]) * int(body["questions_per_step"]) * int(body["group_size"])
        case _:
            return len(body["policies"]) * world.test


def seconds(run: GoGRun, presets: Path, speed: float) -> dict[str, float]:
    """Estimated seconds of each stage of a run.

    Args:
        run: the run.
        presets: folder of the presets by model family.
        speed: speed of this machine relative to the reference.

    Returns:
        Seconds by store key; empty when there is no basis for an estimate.
    """
    world = run.spec.data.world
    if world is None or run.spec.model.base != "tiny":
        return {}
    found = {}
    for step in sequence.steps(run):
        body = _settings(step, presets)
        if step.stage == "sft":
            curate = merge.merged(_preset("curate", presets), _given(step, "curate"))
            body = {"trajectories": curate["trajectories"]} | body
        work = START_SECONDS + units(step.stage, body, world) * UNIT_SECONDS[step.stage]
        found[step.key] = work / speed
    return found


def _settings(step: sequence.Step, presets: Path) -> dict[str, Any]:
    """Settings of a stage: the defaults, the preset over them, the manifest over both."""
    model = type(getattr(step.settings.stages, step.stage))
    return merge.merged(
        model().model_dump(mode="json"), merge.merged(_preset(step.stage, presets), _given(step, step.stage))
    )


def _preset(stage: str, presets: Path) -> dict[str, Any]:
    return merge.preset({"model": {"base": "tiny"}}, presets, stage)


def _given(step: sequence.Step, stage: str) -> dict[str, Any]:
    return getattr(step.settings.stages, stage).model_dump(mode="json", exclude_unset=True)


def measured_speed(clock: Callable[[], float] = time.perf_counter) -> float:
    """Speed of this machine as busy as it is now, relative to the reference: 2.0 is twice as fast.

    The probe resembles a step of the tiny model: products of small matrices and the interpreter's overhead. It is too
    short to notice other work, which the load average accounts for instead.
    """
    import numpy as np  # only for the probe: displays import this module

    left, right = np.ones((32, 32), np.float32), np.ones((32, 32), np.float32)  # too small for threads
    rounds = []
    for _ in range(ROUNDS):
        started = clock()
        for _ in range(400):
            left = np.tanh(left @ right)
        rounds.append(clock() - started)
    return PROBE_SECONDS / statistics.median(rounds) * free_share(os.cpu_count() or 1, os.getloadavg()[0])


def free_share(cores: int, load: float) -> float:
    """Share of its full speed that a run gets beside other work.

    Args:
        cores: cores of the machine.
        load: number of other processes that want a core.

    >>> free_share(2, 0.0), free_share(2, 6.0), free_share(8, 4.0)
    (1.0, 0.25, 1.0)
    """
    return min(1.0, cores / (PROCESSES + load))


def remaining(estimates: Mapping[str, float], spent: Mapping[str, float], done: set[str]) -> float | None:
    """Estimated seconds until the end of the run.

    Args:
        estimates: seconds by store key, from `seconds`.
        spent: seconds that each started stage has taken so far, by store key.
        done: keys of the complete stages, whose real durations correct the estimate of the others.

    Returns:
        Seconds, or None without an estimate.
    """
    if not estimates:
        return None
    expected = sum(estimates.get(key, 0.0) for key in done)
    actual = sum(spent.get(key, 0.0) for key in done)
    correction = actual / expected if expected > 0 else 1.0
    left = (
        max(estimate * correction - spent.get(key, 0.0), 0.0) for key, estimate in estimates.items() if key not in done
    )
    return sum(left)


def headline(estimates: Mapping[str, float]) -> str:
    """`takes about 6 min on this machine (2 cores, as busy as it is now)`; empty without an estimate."""
    if not estimates:
        return ""
    minutes = max(1, round(sum(estimates.values()) / 60))
    return f"takes about {minutes} min on this machine ({os.cpu_count()} cores, as busy as it is now)"
