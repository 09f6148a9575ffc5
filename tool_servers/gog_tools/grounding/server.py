"""The grounding server: images and expressions in, boxes out, over KServe's v1 protocol.

KServe's application in our way of running servers, so the same process serves on a laptop and as an InferenceService:
KServe's own way binds every interface, opens gRPC and cannot be handed a socket. KServe takes seconds to import, so
that is left to the time when the server already answers for its health.
"""

from __future__ import annotations

import argparse
import sys

from gog_tools.grounding import detectors
from gog_tools.serving import process
from gog_tools.serving.failures import App

NAME = "grounding"


def build(given: argparse.Namespace) -> App:
    detector = detectors.load(given.backend)  # before the slow import: a misspelt one is said at once
    from gog_tools.grounding import model

    wait = given.batch_wait_ms / 1000
    return model.application(model.GroundingModel(detector, batch_size=given.batch_size, batch_wait=wait))


def main(argv: list[str]) -> int:
    """`gog serve grounding`. Returns the exit code."""
    options = process.parser(NAME, "Boxes of what an expression refers to, over KServe's v1 protocol.")
    options.add_argument(
        "--backend", default="world", help=f"{', '.join(detectors.BACKENDS)}, or module:factory of a Detector"
    )
    options.add_argument("--batch-size", type=int, default=16, help="most images given to the detector at once")
    options.add_argument("--batch-wait-ms", type=float, default=2.0, help="how long the first of a batch waits")
    options.add_argument("--data", help="not read: this server knows only what it is sent")
    return process.main(NAME, options, argv, build)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
