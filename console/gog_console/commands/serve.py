"""`gog serve ROLE`: starts one tool server, found by module name because the console imports no tool server."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys

from gog import catalog
from gog_operator import parent_death

SERVERS = {server.command: server for server in catalog.SERVED}
PROGRAM = "GOG_SERVE_PROGRAM"
"""Environment variable with a program that runs instead, with the role and its arguments. For tests."""


def main(given: argparse.Namespace) -> int:
    """Runs the server of a role until SIGTERM. Returns its exit code."""
    parent_death.die_with_parent()
    if os.environ.get(PROGRAM):
        line = [*shlex.split(os.environ[PROGRAM]), given.role, *given.rest]
        sys.stdout.flush()
        os.execvp(line[0], line)
    server = SERVERS[given.role]
    return int(importlib.import_module(server.module).main([*server.arguments, *given.rest]))
