"""Last lines of `gog run`: the outcome, the report, and the commands that are useful next."""

from __future__ import annotations

from pathlib import Path

from gog_console.status import phrases, table
from gog_operator import hints, reconcile
from gog_operator.api.objects import Object, Stage
from gog_operator.cluster.local import LocalCluster
from gog_operator.plan import attempts


def finished(cluster: LocalCluster, root: Object, report: Path | None) -> list[str]:
    """Lines for a run that is complete or failed. report: path of the report; None when there is none."""
    lines = []
    if phrases.is_cancelled(root):
        lines += [f"{root.name} is cancelled.", f"`{hints.call('resume', cluster.folder)}` resumes it."]
    elif root.holds("Failed"):
        lines += [f"{root.name} failed: {phrases.failure(root)}", *remedies(cluster, root)]
    else:
        found = table.rows(cluster.folder / "report" / "summary.json")
        lines += ["", *table.plain(found)] if found else []
        lines += ["", f"{root.name} is complete."]
    if report is not None:
        lines.append(f"report     {hints.shown(report)}")
    if root.holds("Complete"):
        lines += [
            f"next       {hints.call('status', cluster.folder)}",
            f"           {hints.call('logs', cluster.folder)}",
        ]
    return lines


def remedies(cluster: LocalCluster, root: Object) -> list[str]:
    """Commands after a failure: read the log, then try again."""
    stages = stages_of(cluster, root)
    failed = next((each for each in stages if phrases.failure(each) and not phrases.is_cancelled(each)), None)
    where = f"/{failed.store_key}" if failed is not None else ""
    logs, resume = hints.call("logs", cluster.folder, where), hints.call("resume", cluster.folder)
    return [f"`{logs}` shows the log; `{resume}` tries again from the last checkpoint."]


def paused(cluster: LocalCluster, root: Object) -> list[str]:
    """Lines for a run that was interrupted or suspended."""
    current = next((each for each in stages_of(cluster, root) if not each.finished), None)
    if current is None:
        return [f"`{hints.call('resume', cluster.folder)}` resumes it."]
    newest = cluster.checkpoint(current.spec.store, current.store_key)
    follows = attempts.resumption(current.stage, f"{newest.stage}/{newest.step}" if newest is not None else "")
    return [f"`{hints.call('resume', cluster.folder)}` resumes the run: {current.store_key} {follows}."]


def stages_of(cluster: LocalCluster, root: Object) -> list[Stage]:
    """Stages of a run in their order, or the stage that was started alone."""
    if isinstance(root, Stage):
        return [cluster.get(type(root), root.name) or root]
    return reconcile.stages(cluster)
