"""`gog validate FILE`: checks a manifest without touching anything, and says what a run of it would do."""

from __future__ import annotations

import argparse
from pathlib import Path

from gog_operator.api import manifest
from gog_operator.api.objects import GoGRun
from gog_operator.plan import sequence


def main(given: argparse.Namespace) -> int:
    thing = manifest.load(Path(given.file), given.set)
    print(f"{given.file}: {thing.kind} {thing.name} is valid")
    if isinstance(thing, GoGRun):
        print(f"stages: {' → '.join(step.key for step in sequence.steps(thing))}")
    return 0
