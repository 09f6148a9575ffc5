"""`gog index build`: the embedding index of a folder of images, made by the tool servers' package, found by its name."""

from __future__ import annotations

import argparse
import importlib

BUILDER = "gog_tools.search.index_command"


def main(given: argparse.Namespace) -> int:
    """Builds an index. Returns the exit code."""
    return int(importlib.import_module(BUILDER).main(given.arguments))
