"""What the job that fetches a run's sources reports, and the volumes that it has filled."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from gog import mounts
from gog_operator.api import names
from gog_operator.api.meta import Reason
from gog_operator.api.objects import GoGRun, Progress
from gog_operator.build import fetch_job, sources
from gog_operator.build.platform import Platform
from gog_operator.cluster.store_jobs import StoreJobs
from gog_operator.plan.actions import Blocked, SourcesView

GB = 1e9
FOLDER = re.compile(rf"[a-z]+-[0-9a-f]+(/{mounts.SEGMENT})*")
"""Names of folders, as the job makes them; with the folder that the address of a dataset names."""


def job_name(run: GoGRun) -> str:
    """Name of the job."""
    return names.store_job(run.name, "fetch")


def view(run: GoGRun, jobs: StoreJobs, platform: Platform, poll: Callable[[str], Progress | None]) -> SourcesView:
    """The fetch as the cluster reports it.

    Args:
        run: The run.
        jobs: The store jobs of its namespace.
        platform: The installation's settings for pods.
        poll: Returns the newest progress of the job's pod, by the URL of its page, empty while none runs.
    """
    wanted = fetch_job.wanted(run, platform)
    if not wanted:
        return SourcesView("skipped")
    claim, found = fetch_job.claim(run, platform), jobs.view(job_name(run), run.metadata.uid)
    match found.state:
        case "absent":
            return SourcesView("absent")
        case "failed":
            return SourcesView("failed" if found.is_invalid else "unavailable", message=found.message)
        case "running":
            progress = poll(jobs.page(job_name(run), "/progress"))
            size = progress.step if progress is not None else 0
            message = f"fetching {', '.join(wanted.values())}" + (f": {size / GB:.1f} GB so far" if size else "")
            return SourcesView("fetching", message=message, blocked=_of_claim(claim, found.blocked))
    try:
        fetched = {what: each for what, each in found.result.items() if what in wanted}
        volumes = {wanted[what]: f"pvc://{claim}/{_folder(each)}" for what, each in fetched.items()}
        return SourcesView("done", volumes, _sentence(fetched))
    except (KeyError, TypeError, ValueError):  # a tenant chooses the image that writes it
        return SourcesView("failed", message=f"the job's result names no folders: {str(found.result)[:100]}")


def _folder(fetched: Mapping[str, Any]) -> str:
    """The folder of a source in the claim. Raises KeyError, TypeError, ValueError."""
    if not FOLDER.fullmatch(fetched["folder"]):
        raise ValueError("no name of a folder")
    return str(fetched["folder"])


def _of_claim(claim: str, blocked: Blocked | None) -> Blocked | None:
    """The same, with field and remedy where it is the cache's claim that the job waits for."""
    named = [sources.Source("cache", f"pvc://{claim}", "spec.modelCache.claimName")]
    why = sources.explained(blocked.message, named, {}) if blocked is not None else ""
    return Blocked(Reason.SOURCE_UNAVAILABLE, why) if why else blocked


def _sentence(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{each['resolved']} ({each['bytes'] / GB:.1f} GB)" for each in result.values())
