"""`gog serve ROLE`: starts one tool server, found by module name."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys

from gog_operator import lifeline

SERVERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "grounding": ("gog_tools.grounding", ()),
    "image-search": ("gog_tools.search", ("image",)),
    "text-search": ("gog_tools.search", ("text",)),
    "judge": ("gog_tools.judge", ()),
    "policy": ("gog_tools.policy", ()),
}
PROGRAM = "GOG_SERVE_PROGRAM"
"""Environment: a program that is run instead, with role and arguments. For tests."""


def main(given: argparse.Namespace) -> int:
    lifeline.tie()
    if os.environ.get(PROGRAM):
        line = [*shlex.split(os.environ[PROGRAM]), given.role, *given.rest]
        sys.stdout.flush()
        os.execvp(line[0], line)
    module, first = SERVERS[given.role]
    return int(importlib.import_module(module).main([*first, *given.rest]))
