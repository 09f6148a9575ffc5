"""`gog serve ROLE`: starts one tool server, found by module name."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys

from gog_operator import parent_death

SERVERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "grounding": ("gog_tools.grounding.server", ()),
    "image-search": ("gog_tools.search.server", ("image",)),
    "text-search": ("gog_tools.search.server", ("text",)),
    "judge": ("gog_tools.judge.server", ()),
    "policy": ("gog_tools.policy.server", ()),
}
PROGRAM = "GOG_SERVE_PROGRAM"
"""Environment: a program that is run instead, with role and arguments. For tests."""


def main(given: argparse.Namespace) -> int:
    parent_death.tie()
    if os.environ.get(PROGRAM):
        line = [*shlex.split(os.environ[PROGRAM]), given.role, *given.rest]
        sys.stdout.flush()
        os.execvp(line[0], line)
    module, first = SERVERS[given.role]
    return int(importlib.import_module(module).main([*first, *given.rest]))
