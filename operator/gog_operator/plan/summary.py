"""The figures of `kubectl get`, as text, from a stage's progress. Pure."""

from __future__ import annotations

from typing import TypeGuard

from gog_operator.api.objects import Progress, Stage, Summary


def of_stage(progress: Progress, old: Summary) -> Summary:
    """The figures of a stage. One that the progress does not contain keeps its old text."""
    metrics = progress.metrics
    reward, failures = metrics.get("reward"), metrics.get("tool_failure_ratio")
    return Summary(
        progress=f"{progress.step}/{progress.total}" if progress.total else old.progress,
        reward=f"{reward:.2f}" if is_number(reward) else old.reward,
        tool_failures=f"{100 * failures:.1f}%" if is_number(failures) else old.tool_failures,
    )


def of_run(key: str, stage: Stage | None, old: Summary) -> Summary:
    """The figures of a run: those of its current stage. Reward and tool failures remain after the stage that had them.

    Args:
        key: Store key of the current stage.
        stage: The current stage; None before it exists.
        old: The run's previous figures.
    """
    current = stage.status.summary if stage is not None else Summary()
    return Summary(
        stage=key,
        progress=current.progress,
        reward=current.reward or old.reward,
        tool_failures=current.tool_failures or old.tool_failures,
    )


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
