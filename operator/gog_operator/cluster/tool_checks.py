"""The checks of a run's tools, as a namespace of a cluster reports them: one store job for each number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from gog_operator.api import names
from gog_operator.api.objects import GoGRun
from gog_operator.build import children, pods, tool_check
from gog_operator.cluster.store_jobs import StoreJobs
from gog_operator.plan.actions import ToolCheckView

MAX_SECONDS = 3600.0
"""A check that claims to have taken longer counts as so long."""


def job_name(run: GoGRun, number: int | None = None) -> str:
    """Name of a check's job; that of the newest without a number."""
    return names.store_job(run.name, f"tools-{run.status.tool_check.number if number is None else number}")


def view(run: GoGRun, jobs: StoreJobs) -> ToolCheckView:
    """The newest check as the cluster reports it."""
    found = jobs.view(job_name(run), run.metadata.uid)
    match found.state:
        case "absent":
            return ToolCheckView("absent")
        case "running":
            return ToolCheckView("running", blocked=found.blocked)
        case "failed":
            return ToolCheckView("unavailable", f"the check did not run: {found.message}")
    message = str(found.result.get("message") or "")
    outcomes: dict[Any, Literal["passed", "failed"]] = {"passed": "passed", "failed": "failed"}
    seconds = _seconds(found.result.get("seconds"))
    return ToolCheckView(outcomes.get(str(found.result.get("outcome")), "unavailable"), message, seconds=seconds)


def start(run: GoGRun, placed: GoGRun, urls: Mapping[str, str], jobs: StoreJobs) -> None:
    """Starts the newest check.

    Args:
        run: The run.
        placed: The run with the content of its preset.
        urls: URL of each tool, by role.
        jobs: The store jobs of its namespace.
    """
    body = tool_check.config(run, urls, on_cluster=True).as_given()
    keys = pods.keys(tool_check.secrets(run), children.backends(run))
    # Before the next one starts, so that a crash in between leaves no job behind: the check is then started again.
    jobs.remove(job_name(run, run.status.tool_check.number - 1), run.metadata.uid)
    jobs.start(job_name(run), placed, "tools", body, None, secret_env=keys)


def _seconds(value: object) -> float:
    """A check's duration in its result, which a tenant's pod wrote; 0 where it is none."""
    return min(float(value), MAX_SECONDS) if isinstance(value, int | float) and value > 0 else 0.0
