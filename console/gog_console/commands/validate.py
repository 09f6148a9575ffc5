"""`gog validate FILE`: checks a manifest without side effects and lists the stages of its run."""

from __future__ import annotations

import argparse
from pathlib import Path

from gog.errors import UserError
from gog.tracing import otlp
from gog_operator.api import manifest, sequence
from gog_operator.api.objects import GoGRun


def main(given: argparse.Namespace) -> int:
    thing = manifest.load(Path(given.file), given.set)
    print(f"{given.file}: {thing.kind} {thing.name} is valid")
    if isinstance(thing, GoGRun):
        print(f"stages: {' → '.join(step.key for step in sequence.steps(thing))}")
    if getattr(thing.spec, "traces", None) is not None:
        note_missing_package()
    return 0


def note_missing_package() -> None:
    """Prints a note when the package for traces is missing here; a cluster may have it."""
    try:
        otlp.require("spec.traces")
    except UserError as error:
        print(f"note: {error.sentence()}")
