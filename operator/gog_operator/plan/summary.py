"""The figures of `kubectl get`, as text, from what a stage tells of itself. Pure."""

from __future__ import annotations

from typing import TypeGuard

from gog_operator.api.objects import Progress, Stage, Summary


def of_stage(progress: Progress, old: Summary) -> Summary:
    """A figure that is not told keeps its last text."""
    told = progress.metrics
    return Summary(
        progress=f"{progress.step}/{progress.total}" if progress.total else old.progress,
        reward=f"{told['reward']:.2f}" if is_number(told.get("reward")) else old.reward,
        tool_failures=_percent(told["tool_failure_ratio"])
        if is_number(told.get("tool_failure_ratio"))
        else old.tool_failures,
    )


def of_run(key: str, stage: Stage | None, old: Summary) -> Summary:
    """Of the current stage; reward and failures stay to be seen after the stage that had them. key: the stage's."""
    now = stage.status.summary if stage is not None else Summary()
    return Summary(
        stage=key,
        progress=now.progress,
        reward=now.reward or old.reward,
        tool_failures=now.tool_failures or old.tool_failures,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
