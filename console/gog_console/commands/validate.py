"""`gog validate FILE`: checks a manifest without touching anything, and says what a run of it would do."""

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
    """A manifest for a cluster is none the worse for what is not installed here."""
    try:
        otlp.require("spec.traces")
    except UserError as error:
        print(f"note: {error.sentence()}")
