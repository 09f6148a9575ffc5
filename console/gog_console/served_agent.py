"""The agent of a run on one machine: served in this process once the run has offered it a version.

An agent has a folder beside those of runs, so that later runs offer it versions while this process, or another one, serves
it: `gog resume NAME` of an agent serves it, too.
"""

from __future__ import annotations

from pathlib import Path

from gog.errors import UserError
from gog_console import run_changes, run_files
from gog_operator import hints
from gog_operator.api.objects import GoGRun, Object, ToolServer
from gog_operator.build import agents
from gog_operator.cluster import lock
from gog_operator.cluster.files import ObjectFiles


def check(run: Object, folder: Path) -> None:
    """Raises UserError where the folder of the agent's name is a run's. folder: the run's."""
    name = agents.name_of(run) if isinstance(run, GoGRun) else ""
    place = folder.parent / name
    if name and (place / "objects").is_dir() and not _is_agent(run_files.find(place)):
        raise UserError(f"{name} is no agent", where=str(place), remedy="give serve.agent.name another name")


def _is_agent(thing: Object) -> bool:
    return isinstance(thing, ToolServer) and thing.spec.role == "agent"


def offered(run: GoGRun, folder: Path) -> Path | None:
    """Folder of the agent that a complete run has offered its version; None for none. Prints why where it is none."""
    promoted = run.condition("Promoted")
    if run.spec.serve is None or promoted is None or not run.holds("Complete"):
        return None
    print(f"agent      {promoted.message}")
    if promoted.status != "True":
        return None
    place = folder.parent / agents.name_of(run)
    holder = lock.holder(place) if (place / lock.FILE).exists() else None
    if holder is not None:
        print(f"           process {holder} serves {place.name}: {hints.call('status', place)}")
        return None
    return place


def forget_servers(place: Path) -> None:
    """Forgets the servers of an earlier process, which have ended with it."""
    run_changes.forget_servers(ObjectFiles(place / "objects"))
