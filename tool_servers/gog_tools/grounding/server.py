"""The grounding server: images and expressions in, boxes out, over KServe's v1 protocol.

KServe's application runs in our server process, so that the same process serves on a laptop and as an InferenceService:
KServe's own server binds every interface, opens gRPC and cannot be given a socket. KServe takes seconds to import;
this happens after the server answers its health checks.
"""

from __future__ import annotations

import argparse
import sys

from gog_tools.grounding.backend import Detector
from gog_tools.serving import backends, inputs, process
from gog_tools.serving.failures import App

NAME = "grounding"


def build(args: argparse.Namespace) -> App:
    """The application. Raises UserError for a back end that cannot be created."""
    # Before the slow import, so that a misspelt back end is reported at once.
    detector: Detector = backends.load(NAME, args.backend, args.options, Detector, inputs.resources(args))
    from gog_tools.grounding import model

    wait = args.batch_wait_ms / 1000
    return model.application(model.GroundingModel(detector, batch_size=args.batch_size, batch_wait=wait))


def main(argv: list[str]) -> int:
    """`gog serve grounding`. Returns the exit code."""
    options = process.parser(NAME, "Boxes of what an expression refers to, over KServe's v1 protocol.")
    backends.add_arguments(options, NAME)
    options.add_argument("--batch-size", type=int, default=16, help="most images given to the detector at once")
    options.add_argument("--batch-wait-ms", type=float, default=2.0, help="how long the first of a batch waits")
    return process.main(NAME, options, argv, build)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
