"""`gog report NAME`: writes the report of a run, finished or not."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from gog_console import run_files


def main(given: argparse.Namespace) -> int:
    folder = Path(given.dir) / given.name
    run_files.find(folder)
    print(importlib.import_module("gog_console.report").write(folder))
    return 0
