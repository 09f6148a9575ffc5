"""What is said last: how it ended, where things are, and what one would type next."""

from __future__ import annotations

from pathlib import Path

from gog_operator import reconcile
from gog_operator.api.objects import Object, Stage
from gog_operator.cluster.local import LocalCluster
from gog_operator.display import table, words


def finished(cluster: LocalCluster, root: Object, report: Path | None) -> list[str]:
    """Lines for a run that is complete or has failed."""
    lines = []
    if words.is_cancelled(root):
        lines += [f"{root.name} is cancelled.", f"`{call('resume', cluster)}` would go on with it."]
    elif root.holds("Failed"):
        lines += [f"{root.name} failed: {words.failure(root)}", *remedies(cluster, root)]
    else:
        found = table.rows(cluster.folder / "report" / "summary.json")
        lines += ["", *table.plain(found)] if found else []
        lines += ["", f"{root.name} is complete."]
    if report is not None:
        lines.append(f"report     {shown(report)}")
    if root.holds("Complete"):
        lines += [f"next       {call('status', cluster)}", f"           {call('logs', cluster)}"]
    return lines


def remedies(cluster: LocalCluster, root: Object) -> list[str]:
    """What to do about a failure: read the log of what failed, mend, go on."""
    failed = next((each for each in stages_of(cluster, root) if words.failure(each)), None)
    where = f"/{failed.store_key}" if failed is not None else ""
    return [
        f"`{call('logs', cluster, where)}` shows what was written; `{call('resume', cluster)}` tries again from the last checkpoint."
    ]


def paused(cluster: LocalCluster, root: Object) -> list[str]:
    current = next((each for each in stages_of(cluster, root) if not each.finished), None)
    where = ""
    if current is not None:
        newest = cluster.checkpoint(current.spec.store, current.store_key)
        where = f" from step {newest.step}" if newest is not None else " from its start"
        where = f" with {current.store_key}{where}"
    return [f"`{call('resume', cluster)}` goes on{where}."]


def stages_of(cluster: LocalCluster, root: Object) -> list[Stage]:
    if isinstance(root, Stage):
        return [cluster.get(type(root), root.name) or root]
    return reconcile.stages(cluster)


def call(command: str, cluster: LocalCluster, suffix: str = "") -> str:
    """`gog resume world`, with --dir where that is needed."""
    parent = cluster.folder.parent
    where = "" if parent == Path("runs").absolute() else f" --dir {shown(parent)}"
    return f"gog {command} {cluster.folder.name}{suffix}{where}"


def shown(path: Path) -> str:
    """Relative to here when it is below."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
