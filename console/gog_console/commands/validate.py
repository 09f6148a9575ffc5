"""`gog validate FILE`: checks a manifest without touching anything, and prints what a run of it would do.

A manifest may be valid on one machine only, because a pod has none of the machine's folders. Without `--cluster` that is
a note; with it, an error. What is not installed here is never an error, because the manifest may be for elsewhere.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gog.errors import UserError
from gog.tracing import otlp
from gog_operator.api import manifest, problems, sequence
from gog_operator.api.objects import GoGRun


def main(given: argparse.Namespace) -> int:
    thing = manifest.load(Path(given.file), given.set)
    refused = manifest.cluster_problems(thing)
    if refused and given.cluster:
        raise problems.joined([(each.where, each.what, each.remedy) for each in refused], where=given.file)
    print(f"{given.file}: {thing.kind} {thing.name} is valid")
    if isinstance(thing, GoGRun):
        print(f"stages: {' → '.join(step.key for step in sequence.steps(thing))}")
    for each in refused:
        print(f"note: a cluster refuses it: {each.sentence()}")
    if getattr(thing.spec, "traces", None) is not None:
        note_missing_package()
    return 0


def note_missing_package() -> None:
    """Prints a note where traces need a package that is not installed."""
    try:
        otlp.require("spec.traces")
    except UserError as error:
        print(f"note: {error.sentence()}")
