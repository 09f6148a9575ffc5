"""The grounding server: images and expressions in, boxes out, over KServe's v1 protocol.

KServe's application runs in our server process, so that the same process serves on a laptop and as an InferenceService:
KServe's own server binds every interface, opens gRPC and cannot be given a socket. KServe takes seconds to import;
this happens after the server answers its health checks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping

from gog.errors import UserError
from gog_tools.grounding.backend import Detector
from gog_tools.serving import arguments, backends, http_json, inputs, process
from gog_tools.serving.failures import App

NAME = "grounding"
SHORT = ("weights", "device", "dtype")
"""Options of the detectors that have an argument of their own on the command line."""


def build(args: argparse.Namespace) -> App:
    """The application. Raises UserError for a back end that cannot be created."""
    # Before the slow import, so that a misspelt back end is reported at once.
    options = with_arguments(args.options, {name: getattr(args, name) for name in SHORT})
    detector: Detector = backends.load(NAME, args.backend, options, Detector, inputs.resources(args))
    from gog_tools.grounding import model

    wait = args.batch_wait_ms / 1000
    return model.application(model.GroundingModel(detector, batch_size=args.batch_size, batch_wait=wait))


def with_arguments(options: str, given: Mapping[str, str | None]) -> str:
    """The options of the back end with those that have an argument of their own.

    Args:
        options: a JSON object
        given: arguments by name; None for one that was not given

    Raises:
        UserError: for an option that is given twice.
    """
    more = {name: value for name, value in given.items() if value is not None}
    if not more:
        return options
    settings = http_json.parse(options.encode())
    if not isinstance(settings, dict):
        return options  # backends.load refuses it
    for name in more.keys() & settings.keys():
        raise UserError(f"{name} is given twice", where=f"--{name}", remedy="leave it out of --options")
    return json.dumps({**settings, **more})


def main(argv: list[str]) -> int:
    """`gog serve grounding`. Returns the exit code."""
    options = process.parser(NAME, "Boxes of what an expression refers to, over KServe's v1 protocol.")
    backends.add_arguments(options, NAME)
    options.add_argument("--weights", help="folder, s3:// or hf:// of a detector's weights, as in --options")
    options.add_argument("--device", help="torch device of the detector, as in --options")
    options.add_argument("--dtype", help="type of the detector's weights, as in --options")
    options.add_argument(
        "--batch-size",
        type=arguments.whole(1, 1_024),
        default=16,
        help="most images given at once to a detector that does not choose the number itself (max_batch); grounding-dino and "
        "owlv2 do, from the option batch in --options",
    )
    options.add_argument(
        "--batch-wait-ms", type=arguments.real(0, 10_000), default=2.0, help="how long the first of a batch waits"
    )
    return process.main(NAME, options, argv, build)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
