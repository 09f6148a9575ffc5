"""`gog rollback NAME [VERSION]`: an agent of this machine serves its version before again, or ends the trial of a new one."""

from __future__ import annotations

import argparse
from pathlib import Path

from gog.errors import UserError
from gog_console import cli, run_files
from gog_operator import hints
from gog_operator.api.meta import ROLLBACK
from gog_operator.api.objects import ToolServer
from gog_operator.cluster import lock
from gog_operator.cluster.files import ObjectFiles


def main(given: argparse.Namespace) -> int:
    folder = Path(given.dir) / given.name
    agent = run_files.find(folder)
    if not isinstance(agent, ToolServer) or agent.spec.role != "agent":
        raise UserError(f"is a {agent.kind}", where=given.name, remedy="name an agent")
    version = given.version or agent.status.canary.version or agent.status.version
    if version == agent.status.version and not agent.status.canary.previous:
        raise UserError(f"serves {version}, and no version before it is known", where=given.name)
    if version not in (agent.status.version, agent.status.canary.version):
        known = " and ".join(each for each in (agent.status.version, agent.status.canary.version) if each)
        raise UserError(f"does not serve {version}", where=given.name, remedy=f"it serves {known}")
    ObjectFiles(folder / "objects").patch(agent.kind, agent.name, spec={}, annotations={ROLLBACK: version})
    follows = "" if lock.holder(folder) is not None else f" once it is served again (`{hints.call('resume', folder)}`)"
    print(f"{given.name} rolls back {version}{follows}")
    return cli.COMPLETE
